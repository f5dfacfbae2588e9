"""What the text model of label noise is fitted to: who reads the pairs, and the blocks of differences they give.

The features themselves are in ``noise_features``, and how far each block is trusted is decided in ``evidence``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from curation.models.encoder import as_encoder
from curation.models.protocols import AnswerReader, Encoder
from curation.models.rewards.heads import Heads
from curation.scores.margins import read_margins, scale_margins
from curation.scores.noise_features import pair_differences, state_differences
from curation.scores.noise_texts import PairTexts
from curation.scores.strength import summarise

__all__ = ["NoiseInputs", "Readers", "noise_inputs", "open_readers"]

FloatArray = npt.NDArray[np.float64]


class Readers(NamedTuple):
    """The models that read the pairs."""

    encoder: Encoder
    heads: Heads | None
    """Ready reward heads that take what this encoder writes."""
    language_model: AnswerReader | None


class NoiseInputs(NamedTuple):
    """What is known of n pairs before any label is looked at."""

    blocks: dict[str, FloatArray]
    """(pairs, features) each; see ``noise_features.BLOCK_WORDS``."""
    equal: npt.NDArray[np.bool_]
    """(pairs,), true where the two answers do not differ."""
    said: list[str]
    """What could not be read, in words."""


def open_readers(
    encoder: Encoder | str, prior: Heads | str | None, language_model: AnswerReader | str | None
) -> Readers:
    """The models, loaded where they are named only; the language model first, which may be missing.

    Raises:
        InputError: when a MODEL argument names nothing, or a language model has no chat template.
        ModelError: when one cannot be loaded.
    """
    if isinstance(language_model, str):
        from curation.models.answer_states import open_answer_states

        language_model = open_answer_states(language_model)
    opened = as_encoder(encoder)
    return Readers(opened, _open_prior(prior, opened), language_model)


def noise_inputs(
    texts: PairTexts, frame: pl.DataFrame, readers: Readers, *, advance: Callable[[int], None]
) -> NoiseInputs:
    """The model's inputs by kind.

    Args:
        frame: the rows of ``texts``, with ``chosen_rewards`` and ``rejected_rewards`` where rewards are ready.
        advance: called with a number of pairs as they are done.
    """
    reader = readers.language_model
    found = pair_differences(
        texts.prompts,
        texts.chosen,
        texts.rejected,
        encoder=readers.encoder,
        heads=readers.heads,
        prompt_ids=texts.groups,
        # A language model reads the same pairs afterwards, and takes far longer.
        advance=advance if reader is None else lambda pairs: None,
    )
    blocks, said = dict(found.blocks), list[str]()
    if reader is not None:
        states, faults = state_differences(
            texts.dialogues, texts.chosen, texts.rejected, reader=reader, advance=advance
        )
        blocks |= states
        if faults:
            rules = Counter(fault.rule for fault in faults.values())
            named = ", ".join(f"{rule} {count:,}" for rule, count in sorted(rules.items()))
            said.append(f"pairs that the language model could not read, judged without it: {named}")
    rewards = _reward_margins(frame)
    if rewards is not None:
        size = float(np.sqrt((rewards**2).mean())) or 1.0
        blocks["rewards"] = rewards[:, None] / size
    return NoiseInputs(blocks, found.equal, said)


def _open_prior(prior: Heads | str | None, encoder: Encoder) -> Heads | None:
    """The heads, when they read what this encoder writes."""
    if isinstance(prior, str):
        from pathlib import Path

        from curation.models.identity import resolve_model
        from curation.models.rewards.heads import read_heads

        prior = read_heads(Path(resolve_model(prior, embedded="rewards").location))
    if prior is None or prior.encoder_fingerprint != encoder.fingerprint:
        return None
    return prior


def _reward_margins(frame: pl.DataFrame) -> FloatArray | None:
    """The mean scaled margin of ready rewards, 0 on rows without; None without the columns."""
    if not {"chosen_rewards", "rejected_rewards"} <= set(frame.columns):
        return None
    margins = read_margins(frame, chosen="chosen_rewards", rejected="rejected_rewards")
    values = np.zeros(frame.height)
    if len(margins.kept):
        values[margins.kept] = summarise(scale_margins(margins.values, "robust")[0]).mean
    return values
