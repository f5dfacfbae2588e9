"""Subtle errors in right answers, as rules for numbers and symbols (RISE, Xu et al. 2024).

Each rule changes one place so that the answer is wrong and still looks right. An edit that leaves what is said
true (2 + 2 to 2 × 2, swapped summands) is never made. Errors in words need a model: see ``rewriting``.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

import polars as pl

from curation.candidates import error_sites as sites
from curation.candidates.draws import seed_of
from curation.candidates.error_sites import Edit
from curation.errors import InputError
from curation.text import normalise

__all__ = ["ERROR_KINDS", "SubtleErrors", "inject_error", "subtle_errors"]

_RULES: Final[dict[str, Callable[[str, random.Random], Iterator[Edit]]]] = {
    "value": sites.changed_values,
    "substitution": sites.substitutions,
    "dropped_term": sites.dropped_terms,
    "operator": sites.changed_operators,
    "swapped_operands": sites.swapped_operands,
    "swapped_steps": sites.swapped_steps,
}
ERROR_KINDS: Final = tuple(_RULES)


class SubtleErrors(NamedTuple):
    """Edited answers, and the answers that no rule could edit."""

    edited: pl.DataFrame
    """``parent_id``, ``kind``, ``response``."""
    untouched: pl.DataFrame
    """``parent_id`` of the answers in which the rules found no place."""


def inject_error(answer: str, kind: str, *, seed: int) -> str | None:
    """The answer with one error of a kind, or None where there is no place for it.

    The result differs from the answer once both are normalised. The same answer, kind and seed give the same
    result everywhere.

    Raises:
        InputError: when there is no such kind.
    """
    if kind not in _RULES:
        raise InputError(f"error kind {kind!r} is not there: expected one of {', '.join(ERROR_KINDS)}")
    draw = random.Random(seed_of("subtle error", kind, str(seed), answer))
    edits = list(_RULES[kind](answer, draw))
    draw.shuffle(edits)
    for start, end, text in edits:
        edited = answer[:start] + text + answer[end:]
        if normalise(edited) != normalise(answer):
            return edited
    return None


def subtle_errors(
    answers: pl.DataFrame, *, kinds: Sequence[str] = ERROR_KINDS, per_answer: int = 1, seed: int = 0
) -> SubtleErrors:
    """Up to ``per_answer`` wrong versions of each answer, each with one error of another kind.

    Args:
        answers: ``candidate_id`` and ``response``.
        kinds: of :data:`ERROR_KINDS`; which of them an answer gets is drawn by its identifier.
        per_answer: at least 1.

    Raises:
        InputError: when a kind is not known, or ``per_answer`` is less than 1.
    """
    if per_answer < 1:
        raise InputError(f"subtle errors: per_answer is {per_answer}, expected at least 1")
    rows: list[tuple[str, str, str]] = []
    untouched: list[str] = []
    for identifier, response in answers.select("candidate_id", "response").iter_rows():
        made = _versions(identifier, response, kinds, per_answer, seed)
        rows += [(identifier, kind, text) for kind, text in made]
        if not made:
            untouched.append(identifier)
    names = ["parent_id", "kind", "response"]
    edited = pl.DataFrame(rows, schema=dict.fromkeys(names, pl.String), orient="row")
    return SubtleErrors(edited, pl.DataFrame({"parent_id": untouched}, schema={"parent_id": pl.String}))


def _versions(
    identifier: str, response: str, kinds: Sequence[str], wanted: int, seed: int
) -> list[tuple[str, str]]:
    order = sorted(dict.fromkeys(kinds))
    random.Random(seed_of("kinds", identifier, str(seed))).shuffle(order)
    made: dict[str, str] = {}
    for kind in order:
        if len(made) == wanted:
            break
        text = inject_error(response, kind, seed=seed)
        if text is not None and normalise(text) not in made:
            made[normalise(text)] = kind
    # Keyed by what is compared; what is kept is the text itself.
    return [(kind, inject_error(response, kind, seed=seed) or "") for kind in made.values()]
