"""Training reward heads on pairs: features, cross-fitting, and the card. Files are written elsewhere.

The fit itself is in ``ensemble``; what the heads read of a text is in ``curation.models.rewards``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from curation.errors import InputError
from curation.models.protocols import Encoder
from curation.models.rewards.heads import FoldHeads, Heads, features, prompt_keys
from curation.progress import ProgressSink, SilentProgress
from curation.scores.ensemble import CrossFit, cross_fit, make_folds
from curation.text import Message, canonical_json, content_hash, last_user_text, prompt_id

__all__ = ["TrainedHeads", "TrainingOptions", "pair_features", "train_heads", "training_hash"]

FloatArray = npt.NDArray[np.float64]
_CHUNK_ROWS: Final = 256


class TrainingOptions(NamedTuple):
    """How heads are fitted."""

    heads: int = 5
    folds: int = 5
    seed: int = 0
    penalty: float | None = None
    """None chooses it by cross-validated likelihood."""


_DEFAULTS: Final = TrainingOptions()


class TrainedHeads(NamedTuple):
    """Heads, what they say of the pairs they came from, and a card."""

    heads: Heads
    fit: CrossFit
    accuracy: float
    """Share of the pairs that the mean out-of-fold margin orders as labelled; a tie counts one half."""
    length_accuracy: float
    """The same of the rule "the longer answer is better"."""
    card: str


def training_hash(
    prompts: Sequence[str], chosen: Sequence[str], rejected: Sequence[str], encoder: str, options: TrainingOptions
) -> str:
    """What the heads depend on: the pairs in their order, the encoder and the options."""
    fixed = canonical_json([*options])
    return content_hash("heads", encoder, fixed, *prompts, *chosen, *rejected)


def pair_features(
    prompts: Sequence[str],
    chosen: Sequence[str],
    rejected: Sequence[str],
    encoder: Encoder,
    advance: Callable[[int], None] = lambda pairs: None,
) -> tuple[FloatArray, FloatArray]:
    """φ of chosen and of rejected answers, (pairs, features) each, some hundred pairs at a time."""
    first, second = [], []
    for start in range(0, len(prompts), _CHUNK_ROWS):
        part = slice(start, start + _CHUNK_ROWS)
        asked = prompts[part]
        values = features([*asked, *asked], [*chosen[part], *rejected[part]], encoder).values
        first.append(values[: len(asked)])
        second.append(values[len(asked) :])
        advance(len(asked))
    return np.vstack(first), np.vstack(second)


def train_heads(
    prompts: Sequence[Sequence[Message]],
    chosen: Sequence[str],
    rejected: Sequence[str],
    *,
    encoder: Encoder,
    encoder_name: str,
    options: TrainingOptions = _DEFAULTS,
    targets: FloatArray | None = None,
    progress: ProgressSink | None = None,
) -> TrainedHeads:
    """M Bradley–Terry heads over frozen features, and K times M more that leave a fold of prompts out.

    Each head has its own shuffle and bootstrap sample of the prompts. The file remembers the fold of each
    prompt, so the heads score the pairs they came from out of fold, in whatever command they are used.

    Args:
        prompts: (pairs,) dialogues; the folds keep the pairs of one prompt together.
        encoder_name: the MODEL argument that opens ``encoder`` again.
        targets: (pairs,) the probability that each label is right, in [0, 1]; 1 where None.
        progress: one step for the encoding of the pairs, one for the fits (a fold each, and one of all).

    Raises:
        InputError: when there are fewer prompts than folds, or every pair's answers are equal.
    """
    asked = [last_user_text(prompt) for prompt in prompts]
    groups = [prompt_id(prompt) for prompt in prompts]
    if not asked or all(a == b for a, b in zip(chosen, rejected, strict=True)):
        raise InputError(f"{len(asked)} pairs, and none with two different answers: nothing can be learned")
    make_folds(groups, options.folds, options.seed)  # too few prompts are said before anything is encoded
    progress = progress or SilentProgress()
    with progress.step("encoding", len(asked)) as bar:
        first, second = pair_features(asked, chosen, rejected, encoder, bar.advance)
    with progress.step("fitting", options.folds + 1) as bar:
        fit = cross_fit(
            first,
            second,
            groups,
            dimension=encoder.dimension,
            heads=options.heads,
            folds=options.folds,
            seed=options.seed,
            targets=targets,
            penalty=options.penalty,
            advance=bar.advance,
        )
    keys, place = np.unique(prompt_keys(groups), return_index=True)
    heads = Heads(
        fit.weights,
        encoder_name,
        encoder.fingerprint,
        FoldHeads(fit.fold_weights, keys, fit.fold[place].astype(np.int32)),
        training_hash(groups, chosen, rejected, encoder.fingerprint, options),
    )
    lengths = np.array([len(a) - len(b) for a, b in zip(chosen, rejected, strict=True)], dtype=np.float64)
    accuracy, by_length = _accuracy(fit.margins.mean(axis=1)), _accuracy(lengths)
    return TrainedHeads(heads, fit, accuracy, by_length, _card(heads, fit, accuracy, by_length, len(keys)))


def _accuracy(margins: FloatArray) -> float:
    return float((margins > 0).mean() + 0.5 * (margins == 0).mean())


def _card(heads: Heads, fit: CrossFit, accuracy: float, by_length: float, prompts: int) -> str:
    count = len(fit.margins)
    half = 1.96 * float(np.sqrt(accuracy * (1 - accuracy) / count))
    each = ", ".join(f"{_accuracy(fit.margins[:, head]):.3f}" for head in range(fit.margins.shape[1]))
    return _CARD.format(
        heads=len(heads.weights),
        folds=len(fit.fold_weights),
        pairs=f"{count:,}",
        prompts=f"{prompts:,}",
        encoder=heads.encoder_fingerprint,
        penalty=fit.penalty,
        accuracy=accuracy,
        half=half,
        by_length=by_length,
        each=each,
        trained_on=heads.trained_on,
    )


_CARD: Final = """# Reward heads

{heads} linear Bradley-Terry heads over features of a prompt and an answer: style and structure of the answer,
its relevance to the prompt, the encoder's vector of the answer, and its product with the prompt's. Each head
was fitted on its own bootstrap sample of the prompts. Encoder: `{encoder}`.

They were trained on {pairs} pairs of {prompts} prompts. `heads.safetensors` also holds the heads of {folds} folds,
and a hash of each prompt with its fold: an answer to one of these prompts is scored by heads that have not
seen the prompt, so rewards of the training data are out of fold. Other prompts get the heads of all pairs.

## Accuracy on the training pairs, out of fold
| | accuracy |
|---|---|
| mean of the heads | {accuracy:.3f} ± {half:.3f} |
| the longer answer is better | {by_length:.3f} |

Each head: {each}. A tie counts one half; the interval is ± 1.96 standard errors over pairs.
These are shares of the *given* labels: where labels are wrong, a perfect model does not reach 1.

Ridge penalty {penalty:g}, chosen by cross-validated likelihood unless it was given. Training data and options:
`{trained_on}`.
"""
