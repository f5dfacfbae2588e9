"""Which pairs are kept: ranges of scores, absolute or by quantile. Pairs are built elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import polars as pl

from curation.tables import concat_rejects, rejects_frame

__all__ = ["Rule", "Selected", "select_pairs"]


class Rule(Protocol):
    """A range for one score; ``curation.recipe.SelectionRule`` is one."""

    @property
    def score(self) -> str: ...
    @property
    def min(self) -> float | None: ...
    @property
    def max(self) -> float | None: ...
    @property
    def min_quantile(self) -> float | None: ...
    @property
    def max_quantile(self) -> float | None: ...
    @property
    def missing(self) -> str: ...


class Selected(NamedTuple):
    """The outcome of a selection."""

    kept: pl.DataFrame
    rejects: pl.DataFrame
    thresholds: pl.DataFrame
    """rule, threshold (float), quantile (null for an absolute one)."""


def select_pairs(pairs: pl.DataFrame, rules: Sequence[Rule], *, drop_refusal_pairs: bool = False) -> Selected:
    """Apply the rules in order; each dropped pair is rejected under the first rule that it breaks.

    A quantile is taken over all given pairs that have the score, before any rule has dropped one, so the
    order of the rules does not move a threshold. Bounds are inclusive. A score that is not a number is none.

    Args:
        pairs: ``pair_id`` and the scores that the rules name.
        rules: ranges of scores.
        drop_refusal_pairs: reject pairs in which both answers are classed as full refusals; needs the columns
            ``chosen_refusal_class`` and ``rejected_refusal_class``.
    """
    left, rejects, thresholds = pairs, [], []
    if drop_refusal_pairs:
        refuses = [pl.col(f"{side}_refusal_class") == "full_refusal" for side in ("chosen", "rejected")]
        both = refuses[0] & refuses[1]
        rejects.append(_rejected(left.filter(both), "refusal_pair", None, None, "both answers refuse in full"))
        left = left.filter(both.not_() | both.is_null())
    for rule in rules:
        score = _known(rule.score)
        if rule.missing == "drop":
            gone = left.filter(score.is_null())
            rejects.append(_rejected(gone, f"{rule.score}_missing", None, None, f"the pair has no {rule.score}"))
            left = left.filter(score.is_not_null())
        for side, bound, quantile in _bounds(pairs, rule):
            word, kind = "below" if side == "min" else "above", "bound" if quantile is None else "quantile"
            name = f"{rule.score}_{word}_{kind}"
            broken = score < bound if side == "min" else score > bound
            reason = f"{rule.score} is {word} {bound:.6g}" + _quantile_text(quantile)
            rejects.append(_rejected(left.filter(broken), name, rule.score, bound, reason))
            left = left.filter(broken.not_() | score.is_null())
            thresholds.append({"rule": name, "threshold": bound, "quantile": quantile})
    schema = {"rule": pl.String, "threshold": pl.Float64, "quantile": pl.Float64}
    return Selected(left, concat_rejects(*rejects), pl.DataFrame(thresholds, schema=schema))


def _known(score: str) -> pl.Expr:
    """A score, null where it is not a number: no bound would hold of it."""
    return pl.col(score).cast(pl.Float64).fill_nan(None)


def _quantile_text(quantile: float | None) -> str:
    """What to add to a reason for a threshold that is a quantile."""
    return "" if quantile is None else f", quantile {quantile:g} of this run's pairs"


def _bounds(pairs: pl.DataFrame, rule: Rule) -> list[tuple[str, float, float | None]]:
    """(min or max, value, quantile or None) of a rule; nothing for a quantile of no values."""
    found: list[tuple[str, float, float | None]] = []
    if rule.min is not None:
        found.append(("min", rule.min, None))
    if rule.max is not None:
        found.append(("max", rule.max, None))
    for side, quantile in (("min", rule.min_quantile), ("max", rule.max_quantile)):
        if quantile is None:
            continue
        bound = pairs.select(_known(rule.score)).to_series().quantile(quantile, interpolation="linear")
        if bound is not None:
            found.append((side, float(bound), quantile))
    return found


def _rejected(pairs: pl.DataFrame, rule: str, score: str | None, bound: float | None, reason: str) -> pl.DataFrame:
    return rejects_frame(
        pairs,
        table="pairs",
        stage="preference",
        row_id=pl.col("pair_id"),
        rule=rule,
        value=None if score is None else pl.col(score),
        threshold=None if bound is None else repr(bound),
        reason=reason,
    )
