"""What the tests with Go share."""

import pytest
from tests.interop.golang import program


@pytest.fixture(scope="session")
def peer() -> str:
    """The path of the Go end; skips, or fails in CI, where Go can't be had."""
    return program("peer")


@pytest.fixture(scope="session")
def orders() -> str:
    """The path of the client that docs/interop.md shows; as `peer`."""
    return program("orders")


@pytest.fixture(scope="session")
def payments() -> str:
    """The path of the service that docs/interop.md shows; as `peer`."""
    return program("payments")
