"""One row of a source as a row of the canonical inputs: its answers, scores, labels and what stands beside them.

Which columns hold them is decided in ``sources``.
"""

from __future__ import annotations

from typing import Any, Final

import polars as pl

from curation.files import RowError
from curation.prompts.rows import score_of
from curation.prompts.shapes import MESSAGES_DTYPE
from curation.prompts.votes import votes_of

__all__ = ["INPUTS_SCHEMA", "TEXT_FIELDS", "input_row"]

INPUTS_SCHEMA: Final[dict[str, Any]] = {
    "source": pl.String,
    "row": pl.Int64,
    "kind": pl.String,
    "messages": MESSAGES_DTYPE,
    "responses": pl.List(pl.String),
    "scores": pl.List(pl.Float64),
    "generators": pl.List(pl.String),
    "chosen_index": pl.Int64,
    "rejected_index": pl.Int64,
    "labels": pl.List(pl.Boolean),
    "category": pl.String,
    "annotator": pl.String,
    "expected_behaviour": pl.String,
    "votes": pl.List(pl.Struct({"voter": pl.String, "vote": pl.String})),
}

TEXT_FIELDS: Final = ("category", "annotator")
_BEHAVIOURS: Final = {
    "comply": "comply",
    "refuse": "refuse",
    "safe": "comply",
    "unsafe": "refuse",
    "unknown": None,
    "": None,
}


def input_row(shape: str, row: dict[str, Any], extras: dict[str, Any]) -> dict[str, Any]:
    """A row of ``shapes`` and what stands beside it, as a row of :data:`INPUTS_SCHEMA` without its source.

    Raises:
        RowError: when what stands beside it is not what its field holds.
    """
    made: dict[str, Any] = {"row": row["row"], "kind": shape, "messages": row["prompt"], "responses": []}
    if shape == "pair":
        made |= {"responses": [row["chosen"], row["rejected"]], "chosen_index": 0, "rejected_index": 1}
        scores = [score_of(extras.get("score_chosen")), score_of(extras.get("score_rejected"))]
        made["scores"] = scores if any(score is not None for score in scores) else None
    elif shape == "responses":
        made |= {"responses": row["responses"], "scores": row["scores"]}
    elif shape != "prompt" and row["response"] is not None:
        made |= {"kind": "responses" if shape == "response" else shape, "responses": [row["response"]]}
        if shape == "unpaired":
            made["labels"] = [row["label"]]
        score = score_of(extras.get("score"))
        made["scores"] = None if score is None else [score]
    for field in TEXT_FIELDS:
        value = extras.get(field)
        made[field] = None if value is None else value if isinstance(value, str) else str(value)
    made["generators"] = _generators(shape, row, extras)
    made["votes"] = votes_of(extras.get("votes")) if shape == "pair" else None
    made["expected_behaviour"] = _behaviour(extras.get("expected_behaviour"))
    return made


def _generators(shape: str, row: dict[str, Any], extras: dict[str, Any]) -> list[str | None] | None:
    """Who wrote each answer; None where nothing says so of any.

    Raises:
        RowError: ``generators_length``, ``not_a_name``.
    """
    if shape == "pair":
        said = [extras.get("generator_chosen"), extras.get("generator_rejected")]
    elif shape == "responses":
        given = extras.get("generator")
        if isinstance(given, list) and (missing := max(row["indices"]) + 1 - len(given)) > 0:
            reason = f"there are {missing} names of generators too few: expected one for each answer"
            raise RowError("generators_length", "generator", reason)
        said = [given[index] if isinstance(given, list) else given for index in row["indices"]]
    else:
        said = [extras.get("generator")]
    names = [_name(one) for one in said]
    return names if any(name is not None for name in names) else None


def _name(value: Any) -> str | None:
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    if not isinstance(value, str | int):
        raise RowError("not_a_name", "generator", f"a generator is a {type(value).__name__}, expected a name")
    return str(value).strip()


def _behaviour(value: Any) -> str | None:
    key = value.strip().lower() if isinstance(value, str) else value
    if key is None:
        return None
    if not isinstance(key, str) or key not in _BEHAVIOURS:
        reason = "expected_behaviour is not one of comply, refuse, safe, unsafe, unknown"
        raise RowError("unknown_expected_behaviour", str(value)[:32], reason)
    return _BEHAVIOURS[key]
