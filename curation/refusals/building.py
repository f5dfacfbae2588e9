"""Builds the refusal dataset: refusals where they are due, answers where they are not. No detection.

One row in is one candidate with its refusal probability and its prompt's expected behaviour; every row
comes out once, in ``frame`` or in ``rejects``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final, Literal, NamedTuple

import polars as pl

from curation.errors import InputError
from curation.refusals.faults import DESCENDING, SUREST, judged_rows, turned_round
from curation.text import content_hash

__all__ = ["NO_CATEGORY", "REFUSE", "RESPOND", "BuiltRefusals", "build_refusals", "refusal_token"]

REFUSE: Final = "[refuse]"
RESPOND: Final = "[respond]"
NO_CATEGORY: Final = "(none)"
"""Under this name quotas hold rows without a category."""

_ROUNDING: Final = 1e-9
"""0.29 * 100 is a little less than 29."""
_OUT: Final = (
    "candidate_id",
    "prompt_id",
    "messages",
    "refusal_token",
    "category",
    "kind",
    "refusal_probability",
)
_MESSAGES: Final = pl.List(pl.Struct({"role": pl.String, "content": pl.String}))
_REASONS: Final = {
    "no_answer": "nothing was answered: an empty text, a filter's notice or a server's error",
    "unsure_detection": "the detector is not sure whether the answer refuses",
    "partial_refusal": "the answer refuses in part, so it is neither a refusal nor an answer",
    "over_refusal": "the prompt should be answered and the candidate refuses",
    "unsafe_compliance": "the prompt should be refused and the candidate complies",
    "called_wrong": "a source rejects the answer or labels it as bad, or it was made to be wrong",
    "expected_behaviour_unknown": "nobody said whether the prompt should be refused",
    "surplus_for_prompt": "the prompt has a better candidate of the same behaviour",
    "over_quota": "the quota of the category is full",
    "unbalanced": "there are enough rows of this kind for the other kind",
}


class BuiltRefusals(NamedTuple):
    """The dataset and what was left out."""

    frame: pl.DataFrame
    """``candidate_id``, ``prompt_id``, ``messages`` (with the answer), ``refusal_token``, ``category``,
    ``kind`` (``refusal``, ``contrast``, ``uncertain``), ``refusal_probability``."""
    rejects: pl.DataFrame
    """``candidate_id``, ``prompt_id``, ``rule``, ``value``, ``reason``."""
    pairs: pl.DataFrame
    """``prompt_id``, ``chosen_id``, ``rejected_id``, ``fault`` (``over_refusal``, ``unsafe_compliance``)."""
    quotas: pl.DataFrame
    """``category``, ``wanted``, ``kept``, ``missing``: every quota, and the rows that ``frame`` has for it; and
    ``contrast_from``: the least quota with room for contrast too, where this one is smaller and takes refusals
    alone of a category that has both."""

    @property
    def shortfall(self) -> pl.DataFrame:
        """The quotas that could not be met."""
        return self.quotas.filter(pl.col("missing") > 0)

    @property
    def without_contrast(self) -> pl.DataFrame:
        """The quotas that are too small for refusals and contrast in the ratio asked for."""
        return self.quotas.filter(pl.col("contrast_from").is_not_null())


def refusal_token(*, refuses: bool, category: str | None, tokens: Literal["behaviour", "category"]) -> str:
    """The token before an answer (Jain et al. 2024): ``[respond]``, ``[refuse]``, or ``[<category>]``.

    Raises:
        InputError: for a category whose token would say that a refusal is an answer.
    """
    if not refuses:
        return RESPOND
    name = f"[{category}]" if tokens == "category" and category else REFUSE
    if name.lower() == RESPOND:
        raise InputError(f"the category {category!r} would have the token of answers, {RESPOND}: rename it")
    return name


def build_refusals(
    rows: pl.DataFrame,
    *,
    quotas: Mapping[str, int] | None = None,
    quota: int | None = None,
    contrast_per_refusal: float | None = None,
    faults: Literal["pair", "drop"] = "pair",
    unknown: Literal["drop", "uncertain"] = "drop",
    partial: Literal["drop", "refusal"] = "drop",
    min_confidence: float = 0.6,
    per_prompt: int = 1,
    tokens: Literal["behaviour", "category"] = "behaviour",
    prepend: bool = False,
    seed: int = 0,
) -> BuiltRefusals:
    """Pick refusals for prompts to refuse, and answers for look-alikes.

    Args:
        rows: one candidate a row, with ``prompt_id``, ``messages``, ``category``, ``expected_behaviour``
            (``comply``, ``refuse`` or null), ``candidate_id``, ``response``, ``refusal_probability``,
            ``refusal_class``; ``refusal_kind`` where it is known: what is ``empty_or_filtered`` is no answer, and
            no refusal to learn from; and ``called_wrong`` likewise: true for answers that are bad ones. What
            refuses is judged by that alone.
        quotas: rows wanted per category; categories that are not named get ``quota``. Rows without a category are
            one more, ``(none)``.
        quota: rows wanted of every other category; None for all there are. Never padded: see ``shortfall``. Nobody
            lacks rows in ``(none)`` that ``quotas`` does not name.
        contrast_per_refusal: at most so many contrast rows for each refusal; None for no limit.
        faults: over-refusals and unsafe compliances go to ``rejects``; with ``pair`` they are also the
            rejected side of a pair where the prompt has a candidate that behaves as it should.
        unknown: what becomes of prompts without an expected behaviour: dropped, or kept as ``uncertain``.
        partial: whether a partial refusal counts as a refusal where one is due.
        min_confidence: probability of the class found, below which the candidate is left out.
        per_prompt: candidates kept of one prompt, the surest first; partial refusals after all others.
        tokens: ``[refuse]`` and ``[respond]``, or one token per category.
        prepend: also put the token before the answer in ``messages``.
        seed: which rows a quota keeps.

    Raises:
        InputError: when a column is missing, or a class or a behaviour is unknown.
    """
    for name, value in [*(quotas or {}).items(), ("", quota if quota is not None else 0)]:
        if value < 0:
            raise InputError(f"build_refusals: the quota {name!r} is {value}, expected 0 or more")
    judged = judged_rows(rows, unknown=unknown, partial=partial, min_confidence=min_confidence)
    judged = judged.with_columns(_group=pl.col("category").fill_null(NO_CATEGORY))
    kept = judged.filter(pl.col("rule").is_null())
    rejects = [_rejects(judged.filter(pl.col("rule").is_not_null()))]
    kept, left = _best_per_prompt(kept, per_prompt)
    rejects.append(_rejects(left))
    kept = _in_turn(_shuffled(kept, seed), contrast_per_refusal)
    wanted = _wanted(judged["_group"], quotas or {}, quota)
    fit = kept
    kept, over = _apply_quotas(fit, wanted)
    kept, left = _balance(kept, contrast_per_refusal)
    rejects.append(_rejects(left))
    back = _room_left(over, kept, wanted)
    kept = fit.filter(pl.col("_row").is_in(pl.concat([kept["_row"], back]).implode()))
    rejects.append(_rejects(over.filter(~pl.col("_row").is_in(back.implode()))))
    pairs = turned_round(judged if faults == "pair" else judged.clear())
    frame = _published(kept.sort("_row"), tokens, prepend)
    least = _least_quotas(fit, kept, wanted, contrast_per_refusal)
    met = _met(wanted, frame["category"], least, named=quotas or {})
    return BuiltRefusals(frame, pl.concat(rejects).sort("_row").drop("_row"), pairs, met)


def _rejects(rows: pl.DataFrame) -> pl.DataFrame:
    reason = pl.col("rule").replace_strict(_REASONS, return_dtype=pl.String)
    return rows.select("_row", "candidate_id", "prompt_id", "rule", "value", reason=reason)


def _best_per_prompt(kept: pl.DataFrame, per_prompt: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    ranked = kept.sort(SUREST, descending=DESCENDING).with_columns(_rank=pl.int_range(pl.len()).over("prompt_id"))
    first = pl.col("_rank") < per_prompt
    left = ranked.filter(~first).with_columns(
        rule=pl.lit("surplus_for_prompt"), value=(pl.col("_rank") + 1).cast(pl.String)
    )
    return ranked.filter(first).drop("_rank"), left


def _shuffled(kept: pl.DataFrame, seed: int) -> pl.DataFrame:
    order = [content_hash("refusal quota", str(seed), name) for name in kept["candidate_id"].to_list()]
    return kept.with_columns(_order=pl.Series(order, dtype=pl.String)).sort("_order").drop("_order")


def _in_turn(kept: pl.DataFrame, contrast_per_refusal: float | None) -> pl.DataFrame:
    """Each category's refusals and contrast in turn, in the ratio asked for: a quota then takes both.

    Else one drawn full of contrast would lose nearly all of it to the balance, and fill up with refusals. A refusal
    comes first, and contrast as soon as there are refusals enough for it.
    """
    if contrast_per_refusal is None:
        return kept
    place = pl.int_range(pl.len()).over("_group", "kind").cast(pl.Float64)
    due = (place + 1) / pl.lit(contrast_per_refusal) - _ROUNDING
    turn = pl.when(pl.col("kind") == "contrast").then(due).otherwise(place)
    return kept.with_columns(_turn=turn).sort("_turn", maintain_order=True).drop("_turn")


def _wanted(groups: pl.Series, quotas: Mapping[str, int], quota: int | None) -> dict[str, int]:
    """Category to its quota: of those that are named, and of all that any row has, kept or not."""
    return {name: wanted for name in sorted({*groups, *quotas}) if (wanted := quotas.get(name, quota)) is not None}


def _apply_quotas(kept: pl.DataFrame, wanted: Mapping[str, int]) -> tuple[pl.DataFrame, pl.DataFrame]:
    limit = pl.col("_group").replace_strict(wanted, default=None, return_dtype=pl.Int64)
    over = (pl.int_range(pl.len()).over("_group") >= limit).fill_null(False)
    marked = kept.with_columns(_over=over, _limit=limit)
    left = marked.filter("_over").with_columns(rule=pl.lit("over_quota"), value=pl.col("_limit").cast(pl.String))
    return marked.filter(~pl.col("_over")), left


def _room_left(over: pl.DataFrame, kept: pl.DataFrame, wanted: Mapping[str, int]) -> pl.Series:
    """``_row`` of the rows over quota for which the balance has made room. Contrast would upset it again."""
    had = kept.group_by("_group").agg(_kept=pl.len().cast(pl.Int64))
    limit = pl.col("_group").replace_strict(wanted, default=None, return_dtype=pl.Int64)
    return (
        over.filter(pl.col("kind") != "contrast")
        .join(had, on="_group", how="left", maintain_order="left")
        .filter(pl.int_range(pl.len()).over("_group") < limit - pl.col("_kept").fill_null(0))["_row"]
    )


def _least_quotas(
    fit: pl.DataFrame, kept: pl.DataFrame, wanted: Mapping[str, int], contrast_per_refusal: float | None
) -> dict[str, int]:
    """Of each category that has contrast, and a quota with room for refusals alone: the least with room for it."""
    if not contrast_per_refusal:
        return {}
    least = math.ceil(1 / contrast_per_refusal - _ROUNDING) + 1
    there, has, refuses = (
        set(rows.filter(pl.col("kind") == kind)["_group"])
        for rows, kind in ((fit, "contrast"), (kept, "contrast"), (kept, "refusal"))
    )
    return {name: least for name, n in wanted.items() if n < least and name in (there & refuses) - has}


def _met(
    wanted: Mapping[str, int], categories: pl.Series, least: Mapping[str, int], *, named: Mapping[str, int]
) -> pl.DataFrame:
    """Each quota beside what there is in the end, after the balance too."""
    kept: dict[str, int] = dict(categories.fill_null(NO_CATEGORY).value_counts().iter_rows())
    rows = [(n, w, k := kept.get(n, 0), max(0, w - k), least.get(n)) for n, w in wanted.items()]
    rows = [row for row in rows if row[0] != NO_CATEGORY or not row[3] or NO_CATEGORY in named]
    counts = dict.fromkeys(("wanted", "kept", "missing", "contrast_from"), pl.Int64)
    return pl.DataFrame(rows, schema={"category": pl.String, **counts}, orient="row")


def _balance(kept: pl.DataFrame, contrast_per_refusal: float | None) -> tuple[pl.DataFrame, pl.DataFrame]:
    if contrast_per_refusal is None:
        return kept, kept.clear()
    allowed = math.floor(contrast_per_refusal * kept.filter(pl.col("kind") == "refusal").height + _ROUNDING)
    contrast = pl.col("kind") == "contrast"
    marked = kept.with_columns(_over=contrast & (contrast.cum_sum() > allowed))
    left = marked.filter("_over").with_columns(rule=pl.lit("unbalanced"), value=pl.lit(str(allowed)))
    return marked.filter(~pl.col("_over")), left


def _without_token(response: str, name: str) -> str:
    """An answer without the token that an earlier run wrote before it: its dataset may be a source."""
    for token in (name, REFUSE, RESPOND):
        if response.startswith(f"{token} "):
            return response.removeprefix(f"{token} ")
    return response


def _published(kept: pl.DataFrame, tokens: Literal["behaviour", "category"], prepend: bool) -> pl.DataFrame:
    columns = kept.select("messages", "response", "refuses", "category").iter_rows(named=True)
    names, dialogues = [], []
    for row in columns:
        name = refusal_token(refuses=row["refuses"], category=row["category"], tokens=tokens)
        answer = f"{name} {_without_token(row['response'], name)}" if prepend else row["response"]
        turns = [{"role": m["role"], "content": m["content"]} for m in row["messages"]]
        dialogues.append([*turns, {"role": "assistant", "content": answer}])
        names.append(name)
    return kept.with_columns(
        messages=pl.Series(dialogues, dtype=_MESSAGES), refusal_token=pl.Series(names, dtype=pl.String)
    ).select(_OUT)
