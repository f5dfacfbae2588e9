"""Who keeps what a server answers, from the moment it comes. Where it is kept, and for how long, is not here.

An adapter of a server asks :func:`keeper` when it is opened. What it finds there is not asked for again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final, Protocol

__all__ = ["Keeper", "keeper", "keeping"]


class Keeper(Protocol):
    """Answers by the hash of all that decides them. Its methods may be called from any thread."""

    def find(self, key: str) -> Mapping[str, Any] | None:
        """The answer that was kept under this key; None for none."""
        ...

    def add(self, key: str, answer: Mapping[str, Any]) -> None:
        """Keep an answer, which JSON can hold.

        Raises:
            WorkspaceError: when it cannot be kept.
        """
        ...


_KEEPER: Final[ContextVar[Keeper | None]] = ContextVar("keeper", default=None)


@contextmanager
def keeping(keeper: Keeper) -> Iterator[None]:
    """Servers that are opened in this block give their answers to ``keeper``."""
    before = _KEEPER.set(keeper)
    try:
        yield
    finally:
        _KEEPER.reset(before)


def keeper() -> Keeper | None:
    """Who keeps answers here; None where nobody does."""
    return _KEEPER.get()
