"""What many workflows have in common, kept once.

In an outage 100,000 workflows are delayed at the same step, for the same reason. Each
would keep some hundred bytes to say so. What is returned here is equal to what is
given, and mostly the very thing that another workflow has; so it must not be changed.

Bounded: of what is rarely seen, as where step names have keys, each keeps its own.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, TypeVar

__all__ = ["shared_map", "shared_text"]

KEPT_MAX = 1_000
"""Different ones that are kept; the ones used last."""

K = TypeVar("K")
V = TypeVar("V")


def shared_map(mapping: Mapping[K, V]) -> Mapping[K, V]:
    """Return a mapping equal to *mapping*, in the same order."""
    kept: Mapping[K, V] = _map(tuple(mapping.items()))
    return kept


@lru_cache(maxsize=KEPT_MAX)
def _map(items: tuple[tuple[Any, Any], ...]) -> Mapping[Any, Any]:
    return dict(items)


@lru_cache(maxsize=KEPT_MAX)
def shared_text(text: str) -> str:
    """Return a text equal to *text*."""
    return text
