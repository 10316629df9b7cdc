"""What a test does on a machine that lacks what it needs."""

import os
from typing import NoReturn

import pytest

__all__ = ["lack"]


def lack(reason: str) -> NoReturn:
    """Skip the test, and say why; where ``CI`` is set it fails instead.

    There `.ci/run` has installed what can be installed, and what is lacking all the
    same (a right, a file system) would leave a promise untried without a word.
    """
    if "CI" in os.environ:
        pytest.fail(reason)
    pytest.skip(reason)
