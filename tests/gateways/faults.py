"""What is out of order around a gateway: descriptors that are gone."""

import os
import resource
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["no_descriptors"]


@contextmanager
def no_descriptors() -> Generator[None]:
    """Let nobody open anything."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # The lowest number that is free is the first that nobody gets.
    with Path(os.devnull).open() as lowest:
        limit = lowest.fileno()
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
