"""Stage ``pair_scores``: everything that is known of each pair, put side by side. No model is called."""

from __future__ import annotations

import polars as pl

from curation.errors import InputError
from curation.files import ROW, read_frame
from curation.pairs.flipping import was_flipped
from curation.prompts.column_kinds import known_labels
from curation.review.answers import reviewed_pairs
from curation.scores.policy_table import explode_pairs
from curation.scores.similarity import pair_cosines
from curation.scores.strength import Strength, preference_strength
from curation.stages.context import Context, Stage, StageResult
from curation.stages.embeddings import embedding_step, text_ids
from curation.stages.judgements import judged_pairs
from curation.stages.policy_stats import policy_inputs, policy_step
from curation.stages.refusals import candidate_refusals
from curation.stages.rewards import candidate_rewards
from schemas import TABLES

__all__ = ["STAGE", "labelled_rows", "strength_notes"]

_SCHEMA = TABLES["pair_scores"].create_empty().schema
_PER_SIDE = ("rewards", "refusal_probability", "refusal_class")
_FROM_POLICY = (
    "ches",
    "ln_ches",
    "chosen_tokens",
    "rejected_tokens",
    "chosen_logp",
    "rejected_logp",
    "difficulty",
    "edit_distance",
    "last_hidden",
    "chosen_change",
    "rejected_change",
    "both_fall",
)
_FROM_STRENGTH = (
    "strength_mean",
    "strength_std",
    "strength_length_controlled",
    "agreement",
    "label_probability",
    "strength_band",
)
_LENGTHS = ("chosen_length", "rejected_length")


def run(context: Context) -> StageResult:
    pairs = context.workspace.read("pairs")
    candidates = _candidates(context, pairs)
    scores = _both_sides(pairs, candidates)
    scores = _with_strength(context, scores)
    scores = _with_policy(context, scores)
    scores = _with_cosine(context, scores).hstack(judged_pairs(context, pairs))
    length = [pl.col(f"{side}_response").str.len_chars() for side in ("chosen", "rejected")]
    scores = scores.with_columns(length_ratio=length[0] / length[1]).select(list(_SCHEMA))
    facts = {
        f"without {column}": scores[column].null_count()
        for column in ("strength_mean", "ches", "cosine", *(["judge_verdict"] if context.recipe.judge else []))
        if scores[column].null_count()
    }
    return context.write("pair_scores", "pair_scores", scores, facts=facts)


def _candidates(context: Context, pairs: pl.DataFrame) -> pl.DataFrame:
    """The candidates of the pairs: candidate_id, response, rewards, refusal_probability, refusal_class."""
    ids = pl.concat([pairs["chosen_id"], pairs["rejected_id"]]).unique(maintain_order=True).alias("candidate_id")
    texts = context.workspace.scan("candidates").select("candidate_id", "response")
    found = ids.to_frame().lazy().join(texts, on="candidate_id", maintain_order="left").collect()
    rewards = candidate_rewards(context, ids)
    refusals = candidate_refusals(context, ids).select("candidate_id", "refusal_probability", "refusal_class")
    found = found.join(rewards, on="candidate_id", how="left", maintain_order="left")
    return found.join(refusals, on="candidate_id", how="left", maintain_order="left")


def _both_sides(pairs: pl.DataFrame, candidates: pl.DataFrame) -> pl.DataFrame:
    """Every pair with the columns of its two candidates, prefixed."""
    for side in ("chosen", "rejected"):
        named = candidates.rename({c: f"{side}_{c}" for c in ("response", *_PER_SIDE)})
        pairs = pairs.join(named, left_on=f"{side}_id", right_on="candidate_id", how="left", maintain_order="left")
    return pairs


def _with_strength(context: Context, scores: pl.DataFrame) -> pl.DataFrame:
    """Add preference strength where both answers have rewards, and the same without what follows length."""
    options = context.recipe.strength
    both = pl.col("chosen_rewards").is_not_null() & pl.col("rejected_rewards").is_not_null()
    known = scores.filter(both)
    if known.is_empty():
        return scores.with_columns(pl.lit(None, dtype=_SCHEMA[c]).alias(c) for c in _FROM_STRENGTH)
    known = known.select(
        "pair_id",
        "chosen_rewards",
        "rejected_rewards",
        *(pl.col(f"{name.removesuffix('_length')}_response").str.len_chars().alias(name) for name in _LENGTHS),
    )
    known, labelled = _with_people(context, known)
    found = [_strength(context, known, labelled, lengths=lengths) for lengths in (None, _LENGTHS)]
    for note in found[int(options.length_control)].notes:
        context.progress.note(f"strength: {note}")
    controlled = found[1].frame.select("pair_id", strength_length_controlled="strength_mean")
    strength = found[int(options.length_control)].frame.join(controlled, on="pair_id", maintain_order="left")
    return scores.join(strength.select("pair_id", *_FROM_STRENGTH), on="pair_id", how="left", maintain_order="left")


def _with_people(context: Context, known: pl.DataFrame) -> tuple[pl.DataFrame, str | None]:
    """Pairs with what people said of them, and the column that says it; None where nobody was asked."""
    people = labelled_rows(context)
    if people.is_empty() and context.recipe.strength.labelled is None:
        return known, None
    return known.join(people, on="pair_id", how="left", maintain_order="left"), "label_right"


def _strength(
    context: Context, known: pl.DataFrame, labelled: str | None, *, lengths: tuple[str, str] | None
) -> Strength:
    options = context.recipe.strength
    return preference_strength(
        known, scaling=options.scaling, labelled=labelled, bands=options.bands, thresholds=options.thresholds,
        lengths=lengths,
    )  # fmt: skip


def strength_notes(context: Context, scores: pl.DataFrame) -> list[str]:
    """What a reader of the strength must know, told again of rows of table ``pair_scores``, for the report."""
    known = scores.drop_nulls(["chosen_rewards", "rejected_rewards"])
    if known.is_empty():
        return []
    known, labelled = _with_people(context, known.select("pair_id", "chosen_rewards", "rejected_rewards"))
    if not context.recipe.strength.length_control:
        return _strength(context, known, labelled, lengths=None).notes
    sides = context.workspace.scan("pairs").select("pair_id", "chosen_id", "rejected_id").collect()
    texts = context.workspace.scan("candidates").select("candidate_id", _size=pl.col("response").str.len_chars())
    sizes = texts.collect()
    known = known.join(sides, on="pair_id", how="left", maintain_order="left")
    for name in _LENGTHS:
        side = f"{name.removesuffix('_length')}_id"
        known = known.join(
            sizes.rename({"candidate_id": side, "_size": name}), on=side, how="left", maintain_order="left"
        )
    return [
        *_strength(context, known, labelled, lengths=_LENGTHS).notes,
        "length is controlled: what follows the log length ratio is taken out of the margins",
    ]


def labelled_rows(context: Context) -> pl.DataFrame:
    """``pair_id`` and ``label_right`` of the sample that calibrates, each pair once.

    What people said in a review of this workspace, and before it what stands in the file of the recipe. Its labels
    are of the pairs as table ``pairs`` has them; of a row that says ``flipped``, as a published one does, of the
    pair turned round.

    Raises:
        InputError: when the file cannot be read, lacks one of the two columns, or says something else than true
            and false.
    """
    said = reviewed_pairs(context.workspace, context.workspace.read("pairs"))
    path = context.recipe.strength.labelled
    if path is None:
        return said
    frame, _ = read_frame(path)
    for column in ("pair_id", "label_right"):
        if column not in frame.columns:
            raise InputError(
                f"{path}: column {column!r} is missing: found {', '.join(c for c in frame.columns if c != ROW)}; "
                f"expected pair_id and label_right (Boolean), as strength.labelled needs them"
            )
    try:
        right = known_labels(frame["label_right"])
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    frame = frame.with_columns(right.alias("label_right"))
    rows = frame.select("pair_id", pl.col("label_right") ^ was_flipped(frame)).drop_nulls()
    return pl.concat([said, rows]).unique("pair_id", keep="last", maintain_order=True)


def _with_policy(context: Context, scores: pl.DataFrame) -> pl.DataFrame:
    """Add CHES, token counts and log-probabilities."""
    if context.recipe.policy is None:
        return scores.with_columns(pl.lit(None, dtype=_SCHEMA[c]).alias(c) for c in _FROM_POLICY)
    stats = context.ledger.fetch(policy_step(context).key, policy_inputs(context)["stats_id"])
    found = explode_pairs(stats)
    # Without output_gradients there is no gradient to speak of.
    found = found.with_columns(
        pl.lit(None, dtype=_SCHEMA[c]).alias(c) for c in _FROM_POLICY if c not in found.columns
    )
    key = ["prompt_id", "chosen_id", "rejected_id"]
    return scores.join(found.select(*key, *_FROM_POLICY), on=key, how="left", maintain_order="left")


def _with_cosine(context: Context, scores: pl.DataFrame) -> pl.DataFrame:
    """Add the cosine of the two answers' embeddings."""
    if context.recipe.encoder is None:
        return scores.with_columns(cosine=pl.lit(None, dtype=pl.Float64))
    chosen, rejected = text_ids(scores["chosen_response"]), text_ids(scores["rejected_response"])
    wanted = pl.concat([chosen, rejected]).unique()
    vectors = context.ledger.fetch(embedding_step(context).key, wanted).select("text_id", "vector")
    return scores.with_columns(cosine=pair_cosines(chosen, rejected, vectors))


STAGE = Stage(
    name="pair_scores",
    group="pairs",
    description="The evidence for each pair: strength, CHES, difficulty, cosine, lengths, refusals.",
    needs=("pairs", "judgements", "embeddings", "rewards", "refusals", "policy_stats"),
    run=run,
    table="pair_scores",
    version=3,
    enabled=lambda recipe: recipe.builds_pairs,
)
