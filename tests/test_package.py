"""What ``import coordinator`` gives, and what it does not load."""

import subprocess
import sys

import coordinator


def test_every_public_name_can_be_had() -> None:
    for name in coordinator.__all__:
        assert getattr(coordinator, name) is not None


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    assert not hasattr(coordinator, "Cordinator")


def test_importing_the_package_loads_nothing_else_of_it() -> None:
    code = (
        "import sys, coordinator; print([m for m in sys.modules if 'coordinator.' in m])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_using_it_loads_no_heavy_extra() -> None:
    heavy = {"aiohttp", "rich", "typer", "pydantic"}
    code = f"import sys, coordinator.app; print({heavy!r} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"
