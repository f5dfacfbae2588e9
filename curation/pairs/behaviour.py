"""Pairs by what the answers do, not by a score: refuse or comply, forget or recall.

Strategies that go by a score are in ``strategies`` and ``tournament``.
"""

from __future__ import annotations

from typing import Final

import polars as pl

from curation.pairs.construction import PAIR_KEY, BuiltPairs, pair_ids
from curation.pairs.ranking import draw
from curation.tables import concat_rejects, rejects_frame
from schemas.refusals import REFUSAL_FAULTS

__all__ = ["FAULTS", "fault_pairs", "forget_pairs", "refusal_pairs", "without_chosen_faults"]

FAULTS: Final = "refusal_faults"
"""The strategy of pairs that turn an over-refusal or an unsafe compliance round."""

_CHOSEN_FAULTS: Final = {
    "over_refusal": "the prompt should be answered and the chosen answer refuses",
    "unsafe_compliance": "the prompt should be refused and the chosen answer complies",
}
_REFUSES: Final = "full_refusal"
_COMPLIES: Final = "compliance"


def refusal_pairs(
    candidates: pl.DataFrame,
    *,
    per_prompt: int = 1,
    min_certainty: float = 0.0,
    strategy: str = "refusal_vs_compliance",
) -> BuiltPairs:
    """Refusal over compliance where a refusal is expected, compliance over refusal where an answer is.

    The surest refusal meets the surest compliance, the second the second, and so on. Partial refusals take
    no part: they are neither. A prompt of which nothing is expected makes no pair: which of the two is
    better is not known.

    Args:
        candidates: ``prompt_id``, ``candidate_id``, ``expected_behaviour`` (``refuse``, ``comply``, null),
            ``refusal_class`` and ``refusal_probability`` (null where no detector spoke); with ``called_wrong``
            an answer that it is true of is never chosen for complying.
        per_prompt: pairs of a prompt, at most; no answer is in two.
        min_certainty: an answer takes part when the detector gives its class at least this probability.

    Returns:
        Pairs with a null margin, and as rejects the prompts without one: ``expected_behaviour_unknown``,
        ``no_refusal``, ``no_compliance``.
    """
    probability = pl.col("refusal_probability").cast(pl.Float64).fill_nan(None)
    refuses = pl.col("refusal_class") == _REFUSES
    wrong = pl.col("called_wrong") if "called_wrong" in candidates.columns else pl.lit(value=False)
    sure = (
        candidates.unique("candidate_id", keep="first", maintain_order=True)
        .filter(~(wrong & ~refuses & (pl.col("expected_behaviour") == "comply")).fill_null(value=False))
        .filter(pl.col("refusal_class").is_in([_REFUSES, _COMPLIES]))
        .with_columns(_sure=pl.when(refuses).then(probability).otherwise(1 - probability))
        .filter(pl.col("_sure") >= min_certainty)
        .sort("_sure", "candidate_id", descending=[True, False])
        .with_columns(_place=pl.int_range(pl.len()).over("prompt_id", "refusal_class"))
        .filter(pl.col("_place") < per_prompt)
    )
    key = ["prompt_id", "expected_behaviour", "_place"]
    refusing = sure.filter(refuses).select(*key, _refusal="candidate_id")
    complying = sure.filter(~refuses).select(*key, _compliance="candidate_id")
    wanted = pl.col("expected_behaviour") == "refuse"
    order = candidates.select("prompt_id", "expected_behaviour").unique(
        "prompt_id", keep="first", maintain_order=True
    )
    pairs = (
        refusing.join(complying, on=key)
        .join(order.select("prompt_id").with_row_index("_order"), on="prompt_id")
        .sort("_order", "_place")
        .select(
            "prompt_id",
            chosen_id=pl.when(wanted).then("_refusal").otherwise("_compliance"),
            rejected_id=pl.when(wanted).then("_compliance").otherwise("_refusal"),
            margin=pl.lit(None, dtype=pl.Float64),
            strategy=pl.lit(strategy),
        )
    )
    left = order.join(pairs, on="prompt_id", how="anti", maintain_order="left")
    known = pl.col("expected_behaviour").is_not_null()
    no_refusal = ~pl.col("prompt_id").is_in(refusing["prompt_id"].unique().implode())
    rejects = rejects_frame(
        left,
        table="prompts",
        stage="pairs",
        row_id=pl.col("prompt_id"),
        rule=pl.when(~known)
        .then(pl.lit("expected_behaviour_unknown"))
        .when(no_refusal)
        .then(pl.lit("no_refusal"))
        .otherwise(pl.lit("no_compliance")),
        value=pl.col("expected_behaviour"),
        threshold=str(min_certainty),
        reason=pl.when(~known)
        .then(pl.lit("it is not known whether the prompt should be refused, so neither answer is the better"))
        .when(no_refusal)
        .then(pl.lit("no answer of the prompt is surely a full refusal"))
        .otherwise(pl.lit("no answer of the prompt surely complies, and is not called wrong")),
    )
    return BuiltPairs(pair_ids(pairs), rejects)


def fault_pairs(turned: pl.DataFrame, judged: pl.DataFrame) -> BuiltPairs:
    """Over-refusals and unsafe compliances turned round: the answer that behaves as it should is chosen.

    Args:
        turned: what :func:`curation.refusals.faults.turned_round` gives.
        judged: what it was given: ``prompt_id``, ``expected_behaviour``, ``rule``.

    Returns:
        Pairs with a null margin, and as rejects the prompts without one: ``expected_behaviour_unknown``,
        ``no_fault``, ``no_right_answer``.
    """
    pairs = turned.select(*PAIR_KEY, margin=pl.lit(None, dtype=pl.Float64), strategy=pl.lit(FAULTS))
    prompts = judged.group_by("prompt_id", maintain_order=True).agg(
        pl.col("expected_behaviour").first(), _faults=pl.col("rule").is_in(REFUSAL_FAULTS).sum()
    )
    left = prompts.join(pairs, on="prompt_id", how="anti", maintain_order="left")
    unknown, none = pl.col("expected_behaviour").is_null(), pl.col("_faults") == 0
    rejects = rejects_frame(
        left,
        table="prompts",
        stage="pairs",
        row_id=pl.col("prompt_id"),
        rule=pl.when(unknown)
        .then(pl.lit("expected_behaviour_unknown"))
        .when(none)
        .then(pl.lit("no_fault"))
        .otherwise(pl.lit("no_right_answer")),
        value=pl.col("expected_behaviour"),
        reason=pl.when(unknown)
        .then(pl.lit("it is not known whether the prompt should be refused, so no answer is a fault"))
        .when(none)
        .then(pl.lit("no answer of the prompt is surely an over-refusal or an unsafe compliance"))
        .otherwise(pl.lit("no answer of the prompt surely behaves as it should, so its faults meet none")),
    )
    return BuiltPairs(pair_ids(pairs), rejects)


def without_chosen_faults(pairs: pl.DataFrame, judged: pl.DataFrame) -> BuiltPairs:
    """Leave out the pairs that choose an over-refusal or an unsafe compliance, whoever prefers it.

    Args:
        pairs: ``pair_id``, ``chosen_id``.
        judged: as for :func:`fault_pairs`, with ``candidate_id``.
    """
    faults = judged.filter(pl.col("rule").is_in(REFUSAL_FAULTS)).select(chosen_id="candidate_id", _fault="rule")
    found = pairs.join(faults, on="chosen_id", maintain_order="left")
    said = pl.col("_fault").replace_strict(_CHOSEN_FAULTS, return_dtype=pl.String)
    rejects = rejects_frame(
        found,
        table="pairs",
        stage="pairs",
        row_id=pl.col("pair_id"),
        rule="chosen_is_a_fault",
        value=pl.col("_fault"),
        reason=said,
    )
    return BuiltPairs(pairs.join(found, on="pair_id", how="anti", maintain_order="left"), rejects)


def forget_pairs(candidates: pl.DataFrame, *, seed: int = 0, strategy: str = "template_vs_forget") -> BuiltPairs:
    """A template over each answer that the model is to forget (FLAT, Wang et al. 2024; NPO, Zhang et al. 2024).

    Args:
        candidates: ``prompt_id``, ``candidate_id``, ``origin``: all answers of the prompts of the forget set.
            Those of origin ``template`` are chosen, those of origin ``provided`` rejected, each once, against
            a seeded draw among its prompt's templates. What was generated or edited is neither.
        seed: of the draw.

    Returns:
        Pairs with a null margin, and as rejects the prompts without one: ``no_template``, ``nothing_to_forget``.
    """
    given = candidates.unique("candidate_id", keep="first", maintain_order=True)
    templates = (
        given.filter(pl.col("origin") == "template")
        .sort("prompt_id", "candidate_id")
        .with_columns(_place=pl.int_range(pl.len()).over("prompt_id").cast(pl.Int64))
        .select("prompt_id", "_place", chosen_id="candidate_id")
    )
    counts = templates.group_by("prompt_id").agg(_n=pl.len().cast(pl.Int64))
    forget = given.filter(pl.col("origin") == "provided").select("prompt_id", rejected_id="candidate_id")
    drawn = forget.join(counts, on="prompt_id", maintain_order="left")
    drawn = drawn.with_columns(_place=draw(drawn["rejected_id"], seed) % pl.col("_n"))
    pairs = drawn.join(templates, on=["prompt_id", "_place"], maintain_order="left").select(
        *PAIR_KEY, margin=pl.lit(None, dtype=pl.Float64), strategy=pl.lit(strategy)
    )
    prompts = given.select("prompt_id").unique(maintain_order=True)
    left = prompts.join(pairs, on="prompt_id", how="anti", maintain_order="left")
    has_template = pl.col("prompt_id").is_in(counts["prompt_id"].implode())
    rejects = rejects_frame(
        left,
        table="prompts",
        stage="pairs",
        row_id=pl.col("prompt_id"),
        rule=pl.when(has_template).then(pl.lit("nothing_to_forget")).otherwise(pl.lit("no_template")),
        reason=pl.when(has_template)
        .then(pl.lit("the prompt has no answer of its source that could be forgotten"))
        .otherwise(pl.lit("the prompt has no template answer that could be chosen")),
    )
    return BuiltPairs(pair_ids(pairs), concat_rejects(rejects))
