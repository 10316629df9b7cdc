"""docs/interop.md shows the files that these tests build, serve and run."""

import re
from pathlib import Path

import pytest

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "interop.md"
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(
    ("kind", "file"),
    [
        ("python", "orders_app.py"),
        ("go", "go/orders/main.go"),
        ("go", "go/tagged/codec.go"),
        ("go", "go/payments/main.go"),
        ("python", "gateway_app.py"),
    ],
)
def test_the_page_shows_the_file_that_is_run(kind: str, file: str) -> None:
    shown = [body for found, body in BLOCK.findall(PAGE.read_text()) if found == kind]
    assert (HERE / file).read_text() in shown
