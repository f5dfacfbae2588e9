"""Stage ``pair_labels``: whether each pair's label can be believed, and what the recipe does about it.

A view: pairs and candidates stay as they are. What is published follows these decisions, and names them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import polars as pl

from curation.models.answer_states import answer_states_fingerprint
from curation.models.protocols import Encoder
from curation.pairs.construction import ORDER_IS_KNOWN
from curation.pairs.labels import decide_labels, relabelled
from curation.recipe.strength import LabelNoise
from curation.scores.label_noise import label_noise
from curation.scores.policy_table import explode_pairs
from curation.scores.structure import match_lengths, preference_cycles
from curation.stages.context import Context, Stage, StageResult
from curation.stages.head_features import encoder_for_heads
from curation.stages.label_facts import structure_facts
from curation.stages.people import keep_voters, pairs_people
from curation.stages.policy_stats import policy_inputs, policy_step
from curation.text import canonical_json, content_hash, last_user_text
from schemas.pair_labels import NOISE_SCORES

__all__ = ["STAGE", "labelled_pairs", "labelled_scores"]

_NOISE_VERSION = 4
_PEOPLE = ("annotator", "votes")
_REWARDS = ("chosen_rewards", "rejected_rewards")
_DECISIONS = ("flipped", "label_action", "label_smoothing", "weight", "target_margin")
_FROM_NOISE: dict[str, Any] = {**dict.fromkeys(NOISE_SCORES, pl.Float64), "suggested_action": pl.String}
_EVIDENCE = NOISE_SCORES[1:]
"""What no decision reads: it stands beside the decision."""


def run(context: Context) -> StageResult:
    options = context.recipe.strength
    pairs, scores = context.workspace.read("pairs"), context.workspace.read("pair_scores")
    scored = pairs.join(scores, on="pair_id", how="left", maintain_order="left")
    texts = _texts(context, scored).hstack(pairs_people(context, scored))
    noise, facts = _noise(context, texts)
    known = scored.join(noise, on="pair_id", how="left", maintain_order="left")
    lengths = [texts[side].str.len_chars().to_numpy() for side in ("chosen", "rejected")]
    suggestions = context.recipe.label_noise.actions.model_dump() if context.recipe.label_noise else {}
    bands = options.actions.model_dump()
    asked = _never_flipped(known, bands, suggestions)
    by = partial(decide_labels, bands=bands, suggestions=suggestions)
    cycles = _cycles(asked, by(asked.with_columns(in_cycle=pl.lit(value=False))).frame["flipped"])
    decide = partial(by, asked.with_columns(cycles), drop_cycles=options.cycles == "drop")
    decided = decide()
    if options.match_lengths:
        decided = decide(unmatched=_unmatched(decided.frame, lengths, context.recipe.seed))
    facts |= structure_facts(context, scored, int(cycles.sum()), lengths)
    facts |= {f"action {name}": n for name, n in decided.frame["action"].value_counts(sort=True).iter_rows()}
    evidence = noise.select("pair_id", *_EVIDENCE)
    frame = decided.frame.join(evidence, on="pair_id", how="left", maintain_order="left").with_columns(
        pl.lit(noise[name][0] if noise.height else "").alias(name) for name in ("noise_key", "noise_from")
    )
    return context.write("pair_labels", "pair_labels", frame, rejects=decided.rejects, facts=facts)


def _never_flipped(
    pairs: pl.DataFrame, bands: Mapping[str, Sequence[str]], suggestions: Mapping[str, Sequence[str]]
) -> pl.DataFrame:
    """Pairs whose order does not rest on a label: what asks to flip them is not heard.

    It is known from how their answers were made, or from what is expected of an answer to the prompt.
    """
    made = pl.col("strategy").is_in(ORDER_IS_KNOWN)
    turning = [[name for name, actions in given.items() if "flip" in actions] for given in (bands, suggestions)]
    return pairs.with_columns(
        pl.when(~(made & pl.col(column).is_in(names).fill_null(value=False))).then(column).alias(column)
        for column, names in zip(("strength_band", "suggested_action"), turning, strict=True)
    )


def _cycles(pairs: pl.DataFrame, flipped: pl.Series) -> pl.Series:
    """``in_cycle`` in the order that flips leave: one may take a pair out of a circle, and may make one."""
    turned = pairs.with_columns(flipped.alias("_flipped")).select("prompt_id", **_sides("_flipped"))
    return preference_cycles(turned)["in_cycle"]


def _sides(flipped: str) -> dict[str, pl.Expr]:
    """``chosen_id`` and ``rejected_id``, exchanged where a column says so."""
    return {
        f"{one}_id": pl.when(flipped).then(f"{other}_id").otherwise(f"{one}_id")
        for one, other in (("chosen", "rejected"), ("rejected", "chosen"))
    }


def labelled_pairs(context: Context) -> pl.DataFrame:
    """Rows of table ``pairs`` as they stand after the decisions: dropped ones gone, flipped ones turned round."""
    pairs = context.workspace.read("pairs")
    labels = context.workspace.scan("pair_labels").select("pair_id", "action", "flipped").collect()
    joined = pairs.join(labels, on="pair_id", maintain_order="left").filter(pl.col("action") != "drop")
    return joined.with_columns(**_sides("flipped")).select(pairs.columns)


def labelled_scores(context: Context) -> pl.DataFrame:
    """Rows of table ``pair_scores`` for :func:`labelled_pairs`, and what was decided.

    CHES of a flipped pair is that of the pair in its new order, where the policy has measured it.
    """
    scores, labels = context.workspace.read("pair_scores"), context.workspace.read("pair_labels")
    turned = relabelled(scores, labels)
    if not context.recipe.relabels:
        turned = turned.drop(_DECISIONS)
    if context.recipe.label_noise is None:
        turned = turned.drop(*NOISE_SCORES, strict=False)
    if context.recipe.judge is None:
        turned = turned.drop("judge_verdict", "judge_probability", "judge_consistent")
    if not context.recipe.relabels:
        return turned
    if context.recipe.policy is None or not turned["flipped"].any():
        return turned
    key = ["prompt_id", "chosen_id", "rejected_id"]
    stats = context.ledger.fetch(policy_step(context).key, policy_inputs(context)["stats_id"])
    measured = explode_pairs(stats).select(*key, _ches="ches", _ln_ches="ln_ches")
    keys = labelled_pairs(context).select("pair_id", *key).join(measured, on=key, how="left", maintain_order="left")
    found = turned.join(keys.drop(key), on="pair_id", how="left", maintain_order="left")
    return found.with_columns(
        pl.when("flipped").then(f"_{name}").otherwise(name).alias(name) for name in ("ches", "ln_ches")
    ).drop("_ches", "_ln_ches")


def _texts(context: Context, scored: pl.DataFrame) -> pl.DataFrame:
    """pair_id, prompt (messages), chosen, rejected (texts) and their rewards, row by row beside ``scored``."""
    prompts = context.workspace.scan("prompts").select("prompt_id", prompt="messages")
    answers = context.workspace.scan("candidates").select("candidate_id", "response")
    keys = ["pair_id", "prompt_id", "chosen_id", "rejected_id", "chosen_rewards", "rejected_rewards"]
    frame = scored.lazy().select(keys).join(prompts, on="prompt_id", how="left", maintain_order="left")
    for side in ("chosen", "rejected"):
        named = answers.rename({"candidate_id": f"{side}_id", "response": side})
        frame = frame.join(named, on=f"{side}_id", how="left", maintain_order="left")
    found: pl.DataFrame = frame.select("pair_id", "prompt", "chosen", "rejected", *keys[-2:]).collect()
    return found


def _noise(context: Context, texts: pl.DataFrame) -> tuple[pl.DataFrame, dict[str, Any]]:
    """pair_id, ``_FROM_NOISE``, ``noise_key`` and ``noise_from``; the last run's where all is the same."""
    options = context.recipe.label_noise
    empty = pl.DataFrame(
        schema={"pair_id": pl.String, **_FROM_NOISE, "noise_key": pl.String, "noise_from": pl.String}
    )
    if options is None or texts.is_empty():
        keep_voters(context, None)
        return empty, {}
    encoder = encoder_for_heads(context)
    key = content_hash(
        "label_noise", str(_NOISE_VERSION), encoder.fingerprint, str(context.recipe.seed),
        canonical_json(options.model_dump(mode="json", exclude={"actions", "language_model"})),
        *([] if options.language_model is None else [answer_states_fingerprint(options.language_model)]),
        *texts["pair_id"],
        *(canonical_json(texts[name].to_list()) for name in _REWARDS if options.rewards),
        *(canonical_json(list(row)) for row in texts.select(_people_in(texts)).iter_rows()),
    )  # fmt: skip
    before = context.workspace.read("pair_labels")
    if set(empty.columns) <= set(before.columns) and before.height and before["noise_key"][0] == key:
        return before.select(empty.columns), {}
    return _fitted_noise(context, options, texts, encoder, key)


def _fitted_noise(
    context: Context, options: LabelNoise, texts: pl.DataFrame, encoder: Encoder, key: str
) -> tuple[pl.DataFrame, dict[str, Any]]:
    asked = [last_user_text(prompt) for prompt in texts["prompt"].to_list()]
    encoder.encode([*asked, *texts["chosen"], *texts["rejected"]])
    frame = texts if options.rewards else texts.drop("chosen_rewards", "rejected_rewards")
    people = _people_in(texts)
    with context.progress.step("label noise", texts.height) as bar:
        result = label_noise(
            frame,
            folds=options.folds,
            seed=context.recipe.seed,
            encoder=encoder,
            language_model=options.language_model,
            annotator="annotator" if "annotator" in people else None,
            votes="votes" if "votes" in people else None,
            vote_method=options.vote_method,
            flip_below=options.flip_below,
            drop_below=options.drop_below,
            advance=bar.advance,
        )
    keep_voters(context, result)
    shares = f"{result.right_share:.3f}, by confident learning {1 - result.confident.noise_rate:.3f}"
    agreed = f"the text model, out of fold, agrees with {result.agreement} of the given labels"
    said = "; ".join([*result.used, f"share of right labels, estimated: {shares}", agreed, *result.warnings])
    found = result.frame
    lacking = {name: pl.lit(None, dtype=pl.Float64) for name in _EVIDENCE if name not in found.columns}
    rows = found.with_columns(**lacking).select(
        "pair_id", *_EVIDENCE, "suggested_action", label_noise_probability="label_probability",
        noise_key=pl.lit(key), noise_from=pl.lit(said),
    )  # fmt: skip
    return rows.select("pair_id", *_FROM_NOISE, "noise_key", "noise_from"), {"label noise from": said}


def _people_in(texts: pl.DataFrame) -> list[str]:
    """The columns in which somebody says something."""
    return [name for name in _PEOPLE if texts[name].null_count() < texts.height]


def _unmatched(decided: pl.DataFrame, lengths: list[Any], seed: int) -> pl.Series:
    """What has to go of the pairs that are left, in the order that they are published in."""
    gone, flipped = (decided["action"] != "drop").to_numpy(writable=True), decided["flipped"].to_numpy()
    left = np.flatnonzero(gone)
    sides = (np.where(flipped, *pair)[left] for pair in (lengths[::-1], lengths))
    gone[left[match_lengths(*sides, seed=seed)]] = False
    return pl.Series(gone)


STAGE = Stage(
    name="pair_labels",
    group="pairs",
    description="Whether each label can be believed, and what the recipe does about it. Texts stay as they are.",
    needs=("inputs", "pairs", "pair_scores", "prompts", "candidates", "embeddings"),
    run=run,
    table="pair_labels",
    enabled=lambda recipe: recipe.builds_pairs,
    uses_model=True,
)
