"""Each harness in its small form; `python -m tests.torture` runs them in full."""

import pytest
from tests.lacking import lack
from tests.torture.__main__ import NAMES
from tests.torture.harness import Unavailable, load, torture


@pytest.mark.parametrize("name", NAMES)
def test_the_real_thing_holds_under(name: str) -> None:
    harness = load(name)
    try:
        verdict = torture(harness, count=harness.small, seed=1)
    except Unavailable as error:
        lack(str(error))
    assert verdict.failures == []
    assert verdict.count > 0
