"""Votes of people on a pair, as a file brings them. What they are worth is in ``curation.scores``."""

from __future__ import annotations

from typing import Any, Final

import polars as pl

from curation.files import RowError

__all__ = ["are_votes", "votes_of"]

_WORDS: Final = {
    "chosen": "chosen", "rejected": "rejected", "tie": "tie", "1": "chosen", "0": "rejected", "1.0": "chosen",
    "0.0": "rejected", "true": "chosen", "false": "rejected", "none": "tie",
}  # fmt: skip


def are_votes(found: Any) -> bool:
    """Whether a column's type, or a cell of it, is that of votes: a list of {voter, vote}."""
    if isinstance(found, list):
        return bool(found) and all(isinstance(one, dict) and {"voter", "vote"} <= set(one) for one in found)
    inner = found.inner if isinstance(found, pl.List) else None
    return isinstance(inner, pl.Struct) and {"voter", "vote"} <= {field.name for field in inner.fields}


def votes_of(value: Any) -> list[dict[str, str]] | None:
    """A list of {voter, vote}, vote being chosen, rejected or tie (or 1, 0 and null); None where nobody voted.

    Raises:
        RowError: ``unreadable_votes``, when it is something else, or nobody is named.
    """
    if value is None:
        return None
    if not isinstance(value, list):
        raise RowError("unreadable_votes", type(value).__name__, "votes are no list of {voter, vote}")
    found = []
    for one in value:
        if one is None:
            continue
        if not isinstance(one, dict) or "vote" not in one or one.get("voter") in (None, ""):
            raise RowError("unreadable_votes", "votes", "a vote is not {voter, vote}, or names no voter")
        word = _WORDS.get(str(one["vote"]).strip().lower())
        if word is None:
            said = str(one["vote"])[:32]
            raise RowError("unreadable_votes", said, "a vote is not chosen, rejected or tie (1, 0, null)")
        found.append({"voter": str(one["voter"]), "vote": word})
    return found or None
