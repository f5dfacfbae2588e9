"""The differences that label noise is judged by, in blocks. Which blocks count is decided in ``evidence``.

Length comes in several forms on purpose: who prefers the longer answer may go by characters (so that 2,000
against 1,000 is ten times 200 against 100) or by the ratio, and only the labels can tell.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from curation.models.protocols import AnswerReader, Encoder, Fault
from curation.models.rewards.heads import Heads, block_slices, features, heads_rewards
from curation.text import Message, normalise

__all__ = [
    "BLOCK_WORDS",
    "EXTENT_FEATURES",
    "Differences",
    "extent_features",
    "pair_differences",
    "state_differences",
]

FloatArray = npt.NDArray[np.float64]
EXTENT_FEATURES: Final = (
    "characters",
    "words",
    "lines",
    "root_characters",
    "log_characters",
    "distinct_words",
    "root_distinct_words",
)
BLOCK_WORDS: Final = {
    "extent": "length",
    "style": "style",
    "relevance": "relevance to the prompt",
    "response": "the answers' vectors",
    "product": "products of prompt and answer vectors",
    "heads": "ready reward heads",
    "end_state": "the language model's state at an answer's end",
    "mean_state": "its mean state over an answer",
    "rewards": "the rewards in chosen_rewards and rejected_rewards",
}
"""What each block is called in a report."""
_CHUNK_ROWS: Final = 256
_READ_ROWS: Final = 8


class Differences(NamedTuple):
    """chosen − rejected of n pairs."""

    blocks: dict[str, FloatArray]
    """(pairs, features) each: ``extent``, ``style``, ``relevance``, ``response``, ``product``, and ``heads``
    where there are heads. The first three have mean square 1 in each feature."""
    equal: npt.NDArray[np.bool_]
    """(pairs,), true where nothing differs."""


def extent_features(responses: Sequence[str]) -> FloatArray:
    """(n, len(EXTENT_FEATURES)): how much is said, by several measures."""
    rows = []
    for text in responses:
        characters, words = len(text), text.split()
        distinct = len({word.lower() for word in words})
        rows.append(
            [
                characters,
                len(words),
                text.count("\n"),
                characters**0.5,
                np.log1p(characters),
                distinct,
                distinct**0.5,
            ]
        )
    return np.asarray(rows, dtype=np.float64).reshape(len(rows), len(EXTENT_FEATURES))


def pair_differences(
    prompts: Sequence[str],
    chosen: Sequence[str],
    rejected: Sequence[str],
    *,
    encoder: Encoder,
    heads: Heads | None,
    prompt_ids: Sequence[str],
    advance: Callable[[int], None] = lambda pairs: None,
) -> Differences:
    """The blocks of n pairs, some hundred pairs at a time.

    Args:
        heads: ready reward heads; on prompts that they were trained on they answer out of fold.
        prompt_ids: (pairs,) of the whole prompts.
    """
    extents, values = [], []
    for start in range(0, len(prompts), _CHUNK_ROWS):
        asked = prompts[start : start + _CHUNK_ROWS]
        said = [normalise(text) for side in (chosen, rejected) for text in side[start : start + _CHUNK_ROWS]]
        both = features([*asked, *asked], said, encoder).values
        sizes = extent_features(said)
        values.append(both[: len(asked)] - both[len(asked) :])
        extents.append(sizes[: len(asked)] - sizes[len(asked) :])
        advance(len(asked))
    difference = np.vstack(values)
    slices = block_slices(encoder.dimension)
    blocks = {"extent": _unit(np.vstack(extents))}
    names = {"text": "style", "relevance": "relevance", "response": "response", "product": "product"}
    for name, ours in names.items():
        block = difference[:, slices[name]]
        blocks[ours] = _unit(block) if ours in ("style", "relevance") else block
    if heads is not None:
        blocks["heads"] = _unit(heads_rewards(heads, difference, prompt_ids).mean(axis=1, keepdims=True))
    return Differences(blocks, np.asarray(~difference.any(axis=1)))


def state_differences(
    dialogues: Sequence[Sequence[Message]],
    chosen: Sequence[str],
    rejected: Sequence[str],
    *,
    reader: AnswerReader,
    advance: Callable[[int], None] = lambda pairs: None,
) -> tuple[dict[str, FloatArray], dict[int, Fault]]:
    """What a language model's states add: ``end_state`` and ``mean_state``, (pairs, width) each.

    Each feature has mean square 1. A pair of which an answer cannot be read has no difference, and a fault.
    """
    values: dict[str, list[FloatArray]] = {"end_state": [], "mean_state": []}
    faults: dict[int, Fault] = {}
    for start in range(0, len(dialogues), _READ_ROWS):
        asked = dialogues[start : start + _READ_ROWS]
        both = [*chosen[start : start + _READ_ROWS], *rejected[start : start + _READ_ROWS]]
        found = reader.states([*asked, *asked], both)
        for name, states in (("end_state", found.end), ("mean_state", found.mean)):
            values[name].append(states[: len(asked)] - states[len(asked) :])
        faults |= {start + row % len(asked): fault for row, fault in found.faults.items()}
        advance(len(asked))
    return {name: _unit(np.nan_to_num(np.vstack(parts))) for name, parts in values.items()}, faults


def _unit(block: FloatArray) -> FloatArray:
    """Each feature over its root mean square; one that is always 0 stays 0."""
    size = np.sqrt((block**2).mean(axis=0))
    return np.asarray(block / np.where(size > 0, size, 1.0), dtype=np.float64)
