"""What the report and the card say in numbers: by score, by source, by rule, and a sample of pairs.

Frames in, plain Python values out. Layout is in the templates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import polars as pl

from curation.text import Message

__all__ = [
    "SCORE_TITLES",
    "SamplePair",
    "ScoreSummary",
    "Shown",
    "group_rows",
    "mining_rows",
    "numeric_scores",
    "reject_rows",
    "sample_pairs",
    "score_summary",
    "with_length_difference",
]

SCORE_TITLES: Final[Mapping[str, str]] = {
    "strength_mean": "reward margin, mean over models",
    "strength_std": "reward margin, standard deviation over models",
    "strength_length_controlled": "reward margin, mean over models, without what follows length",
    "agreement": "share of reward models that agree with the label",
    "label_probability": "probability that the label is right",
    "label_noise_probability": "probability that the label is right, by label noise",
    "label_margin": "log-odds of the label, by the text model of label noise",
    "annotator_loss_rank": "rank of the label's loss among its annotator's",
    "vote_probability": "probability that the label is right, by people's votes",
    "judge_probability": "probability that chosen is better, by the judge",
    "ln_ches": "length-normalised CHES",
    "ches": "CHES",
    "difficulty": "difficulty, nats",
    "cosine": "cosine similarity of the two answers",
    "edit_distance": "edit distance of the two answers, share of the longer",
    "last_hidden": "inner product of the answers' last hidden states",
    "length_ratio": "length of chosen / length of rejected",
    "chosen_refusal_probability": "probability that chosen refuses",
    "rejected_refusal_probability": "probability that rejected refuses",
    "chosen_tokens": "chosen, tokens",
    "rejected_tokens": "rejected, tokens",
    "chosen_logp": "log-probability of chosen, nats",
    "rejected_logp": "log-probability of rejected, nats",
}
"""The scores in the order in which they are shown, with units."""

_SAMPLED_PER_RULE: Final = 12
_SAMPLED_KEPT: Final = 60
_MOST_DROPPED: Final = 120
_MOST_GROUPS: Final = 60
_CUT: Final = 1_500
_OPTIONAL: Final = ("source", "category", "strategy", "split")
_TURNS: Final = 6


class ScoreSummary(NamedTuple):
    """One score, kept against dropped."""

    column: str
    title: str
    kept_median: float | None
    dropped_median: float | None
    missing: int


class Shown(NamedTuple):
    """A text as it is shown: its beginning, and how long it is."""

    role: str
    text: str
    characters: int
    cut: bool


class SamplePair(NamedTuple):
    """A pair as it is shown."""

    row: Mapping[str, Any]
    """Its columns, without texts; ``source``, ``category``, ``strategy``, ``split`` are always there."""
    prompt: tuple[Shown, ...]
    earlier_turns: int
    """Turns of the prompt that are not shown."""
    chosen: Shown
    rejected: Shown
    dangerous: str
    """Why its text should not be shown unasked; empty where nothing speaks against it."""
    evidence: tuple[tuple[str, Any], ...]


def numeric_scores(pairs: pl.DataFrame) -> list[str]:
    """The columns of numbers that some pair has, known ones first."""
    known = [c for c in SCORE_TITLES if c in pairs.columns]
    other = [c for c, kind in pairs.schema.items() if kind.is_numeric() and c not in SCORE_TITLES]
    return [c for c in (*known, *other) if pairs[c].null_count() < pairs.height]


def score_summary(pairs: pl.DataFrame, column: str) -> ScoreSummary:
    """Medians of a score among kept and dropped pairs."""
    value = pl.when(pl.col(column).cast(pl.Float64).is_finite()).then(pl.col(column).cast(pl.Float64))
    found = pairs.select(
        kept=value.filter(pl.col("status") == "kept").median(),
        dropped=value.filter(pl.col("status") == "dropped").median(),
        missing=value.null_count(),
    ).row(0)
    title = SCORE_TITLES.get(column, column.replace("_", " "))
    return ScoreSummary(column, title, found[0], found[1], found[2])


def with_length_difference(pairs: pl.DataFrame) -> pl.DataFrame:
    """The pairs with ``length_difference``: characters of chosen minus characters of rejected."""
    return pairs.with_columns(length_difference=_length(pairs, "chosen") - _length(pairs, "rejected"))


def group_rows(pairs: pl.DataFrame, by: str) -> list[dict[str, Any]]:
    """Counts, kept share, median margin and refusal rates by source or by category, the largest first."""
    if by not in pairs.columns or pairs.is_empty():
        return []
    margin = pl.col("strength_mean").median() if "strength_mean" in pairs.columns else pl.lit(None)
    refusing: dict[str, pl.Expr] = {}
    for side, name in (("chosen", "refusing"), ("rejected", "rejected_refusing")):
        column = f"{side}_refusal_class"
        known = column in pairs.columns
        refusing[name] = (pl.col(column) != "compliance").mean() if known else pl.lit(None)
    grouped = (
        pairs.group_by(pl.col(by).fill_null("(none)").alias("name"))
        .agg(
            pairs=pl.len(),
            kept=(pl.col("status") == "kept").sum(),
            margin=margin,
            **refusing,
            longer=(_length(pairs, "chosen") > _length(pairs, "rejected")).mean(),
        )
        .with_columns(share=pl.col("kept") / pl.col("pairs"))
        .sort("pairs", "name", descending=[True, False])
    )
    return grouped.head(_MOST_GROUPS).to_dicts()


def mining_rows(waterfall: pl.DataFrame) -> list[dict[str, Any]]:
    """The rules of mined negatives, in order: those that say how many anchors are short."""
    if "anchors_short" not in waterfall.columns:
        return []
    return waterfall.filter(pl.col("anchors_short").is_not_null()).sort("dataset", "position").to_dicts()


def reject_rows(rejects: pl.DataFrame) -> list[dict[str, Any]]:
    """Rejects by table, stage and rule, the most frequent first, with a reason and five ids each."""
    if rejects.is_empty():
        return []
    rules = (
        rejects.sort("row_id")
        .group_by("table", "stage", "rule")
        .agg(
            rows=pl.len(),
            threshold=pl.col("threshold").first(),
            reason=pl.col("reason").first(),
            ids=pl.col("row_id").head(5),
        )
        .sort("rows", "table", "stage", "rule", descending=[True, False, False, False])
        .to_dicts()
    )
    return [row | {"threshold": _as_number(row["threshold"])} for row in rules]


def _as_number(threshold: str | None) -> float | str | None:
    """Table ``rejects`` holds thresholds as texts, a float with all its digits."""
    try:
        return None if threshold is None else float(threshold)
    except ValueError:
        return threshold


def sample_pairs(pairs: pl.DataFrame) -> list[SamplePair]:
    """60 kept pairs and up to 12 dropped ones a rule (120 in all), chosen by a hash of their ids."""
    if pairs.is_empty():
        return []
    shuffled = (
        pairs.lazy()
        .select("pair_id", "status", "rule")
        .with_row_index("__row")
        .sort(pl.col("pair_id").hash(seed=3), "pair_id")
    )
    kept = shuffled.filter(pl.col("status") == "kept").head(_SAMPLED_KEPT)
    dropped = (
        shuffled.filter(pl.col("status") != "kept")
        .filter(pl.int_range(pl.len()).over("rule") < _SAMPLED_PER_RULE)
        .head(_MOST_DROPPED)
    )
    rows = pl.concat([kept, dropped]).select("__row").collect()["__row"]
    return [_sample(row) for row in pairs[rows].iter_rows(named=True)]


def _sample(row: Mapping[str, Any]) -> SamplePair:
    turns = _turns(row["prompt"], "user")
    shown = tuple(_shown(turn["role"], turn["content"]) for turn in turns[-_TURNS:])
    evidence = tuple(
        (SCORE_TITLES.get(name, name.replace("_", " ")), value)
        for name, value in row.items()
        if value is not None and (name in SCORE_TITLES or name in _FURTHER_EVIDENCE)
    )
    texts = ("prompt", "chosen", "rejected")
    return SamplePair(
        row=dict.fromkeys(_OPTIONAL) | {name: value for name, value in row.items() if name not in texts},
        prompt=shown,
        earlier_turns=len(turns) - len(shown),
        chosen=_shown("chosen", _turns(row["chosen"], "assistant")[-1]["content"]),
        rejected=_shown("rejected", _turns(row["rejected"], "assistant")[-1]["content"]),
        dangerous=_dangerous(row),
        evidence=evidence,
    )


_FURTHER_EVIDENCE: Final = (
    "flipped",
    "chosen_rewards",
    "rejected_rewards",
    "strength_band",
    "chosen_refusal_class",
    "rejected_refusal_class",
)


def _dangerous(row: Mapping[str, Any]) -> str:
    if row.get("expected_behaviour") == "refuse":
        return "the prompt should be refused"
    if row.get("dangerous"):
        return "the prompt is judged to be one that should be refused"
    sides = (row.get("chosen_refusal_class"), row.get("rejected_refusal_class"))
    refused = any(side not in (None, "compliance") for side in sides)
    return "an answer refuses, so the prompt may ask for harm" if refused else ""


def _turns(value: str | Sequence[Message] | None, role: str) -> Sequence[Message]:
    if value is None or isinstance(value, str):
        return [{"role": role, "content": value or ""}]
    return value or [{"role": role, "content": ""}]


def _shown(role: str, text: str) -> Shown:
    return Shown(role, text[:_CUT], len(text), len(text) > _CUT)


def _length(pairs: pl.DataFrame, side: str) -> pl.Expr:
    if pairs.schema[side] == pl.String:
        return pl.col(side).str.len_chars().cast(pl.Int64)
    contents = pl.element().struct.field("content").str.len_chars()
    return pl.col(side).list.eval(contents).list.sum().cast(pl.Int64)
