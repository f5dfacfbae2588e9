"""JSON values, and whether an object in them has a key twice. Reading files is not here."""

from __future__ import annotations

import json
from typing import Any

__all__ = ["JsonDecoder"]


class JsonDecoder:
    """JSON values one after the other.

    Attributes:
        repeated: a key that stands twice in an object of the last value: only the later value of it is there.
    """

    def __init__(self) -> None:
        self.repeated: str | None = None
        self._decoder = json.JSONDecoder(object_pairs_hook=self._object)

    def whole(self, text: str) -> Any:
        """The value that a text holds and nothing else."""
        self.repeated = None
        return self._decoder.decode(text)

    def next(self, text: str, position: int) -> tuple[Any, int]:
        """The value at a position, and where it ends."""
        self.repeated = None
        return self._decoder.raw_decode(text, position)

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) < len(pairs):
            names = [name for name, _ in pairs]
            self.repeated = next(name for name in names if names.count(name) > 1)
        return made
