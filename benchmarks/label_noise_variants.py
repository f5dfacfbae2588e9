"""What label noise's text model could look at besides, and other ways to fit it, on UltraFeedback pairs.

    .venv/bin/python benchmarks/label_noise_variants.py [--only blocks policy trees co-teaching chance layers]
        [--language-model MODEL]

Each table has the evidence of the given labels and their out-of-fold likelihood, both over coin tosses: choices go
by these. The flags of the flipped rows are read afterwards, for the areas alone. ``layers`` needs a language model
(``benchmarks/_smollm2.py`` makes a small one). Figures are in docs/benchmarks/label_noise.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import polars as pl
import torch
from _figures import shared_data
from label_noise import Remembering, read
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score

from curation.models.answer_states import open_answer_states
from curation.models.encoder import open_encoder
from curation.models.policy.answer_reader import AnswerStatesReader
from curation.models.policy.forward import trunk
from curation.models.policy.rendering import Rendered
from curation.scores.bradley_terry import fit_bradley_terry, pair_log_likelihood
from curation.scores.ensemble import make_folds
from curation.scores.evidence import choose_variances
from curation.scores.label_noise import _out_of_fold, _repo_fit
from curation.scores.noise_features import state_differences
from curation.scores.noise_inputs import noise_inputs, open_readers
from curation.scores.noise_texts import read_pairs
from curation.text import as_messages

FOLDS: Final = 5
LAYERS: Final = (3, 6, 12, 16, 20, 24, 28)
Blocks = dict[str, np.ndarray]


class Pairs(NamedTuple):
    """The file, and what is known of it before any label is looked at."""

    frame: pl.DataFrame
    blocks: Blocks
    fold: np.ndarray
    flipped: np.ndarray


def open_pairs(folder: Path) -> Pairs:
    frame, flipped = read(folder / "label_flip_20.jsonl")
    texts = read_pairs(frame, {})
    readers = open_readers(Remembering(open_encoder("embedded", device="cpu")), "embedded", None)
    kept = frame[texts.rows]
    blocks = noise_inputs(texts, kept, readers, advance=lambda pairs: None).blocks
    return Pairs(kept, blocks, make_folds(texts.groups, FOLDS, 0), flipped[texts.rows])


def head() -> None:
    print("\n| features | evidence | likelihood | ROC AUC | lowest decile |\n|---|---|---|---|---|")


def row(name: str, pairs: Pairs, margins: np.ndarray, evidence: float | None) -> None:
    """One line: the likelihood is of the given labels, at the scale that suits them best, in nats a row."""
    scale = fit_bradley_terry(margins[:, None], penalty=1e-6)
    gain = float(pair_log_likelihood(margins * scale).mean()) + float(np.log(2))
    lowest = np.argsort(margins, kind="stable")[: len(margins) // 10]
    area = roc_auc_score(~pairs.flipped, margins)
    told = "" if evidence is None else f"{evidence:.1f}"
    print(f"| {name} | {told} | {gain:.4f} | {area:.3f} | {pairs.flipped[lowest].mean():.2f} |", flush=True)


def fitted(name: str, pairs: Pairs, blocks: Blocks) -> None:
    """What is built, with these blocks: what counts is chosen without the fold that is judged."""
    row(name, pairs, _out_of_fold(blocks, pairs.fold, [], 0), choose_variances(blocks).evidence)


def by_blocks(pairs: Pairs) -> None:
    head()
    for name, block in pairs.blocks.items():
        fitted(name, pairs, {name: block})
    for name in pairs.blocks:
        fitted(f"all but {name}", pairs, {other: b for other, b in pairs.blocks.items() if other != name})
    fitted("**all (what is built)**", pairs, pairs.blocks)


def policy_block(pairs: Pairs) -> np.ndarray:
    """Differences of log-probability, in all and per token, and of tokens; 0 where the policy gives no value."""
    from curation.scores.ches_frames import ches

    found = ches(pairs.frame.with_row_index("at"), policy="embedded").frame
    tokens = found.select("chosen_tokens", "rejected_tokens").to_numpy().astype(float)
    logps = found.select("chosen_logp", "rejected_logp").to_numpy()
    each = np.column_stack([logps[:, 0] - logps[:, 1], -np.diff(logps / tokens)[:, 0], -np.diff(tokens)[:, 0]])
    block = np.zeros((pairs.frame.height, 3))
    block[found["at"].to_numpy()] = np.nan_to_num(each)
    print(f"\npolicy: {pairs.frame.height - found.height} rows without a value")
    return np.asarray(block / np.sqrt((block**2).mean(axis=0)))


def by_policy(pairs: Pairs) -> None:
    blocks = {"extent": pairs.blocks["extent"], "rewards": policy_block(pairs)}  # by the name of ready margins
    head()
    fitted("policy", pairs, {"rewards": blocks["rewards"]})
    fitted("lengths", pairs, {"extent": blocks["extent"]})
    fitted("both", pairs, blocks)


def by_trees(pairs: Pairs) -> None:
    """Gradient boosting of 8 leaves on each pair in both orders; mean log-odds of three seeds."""
    design = np.hstack([pairs.blocks[name] for name in ("extent", "style", "relevance")])
    head()
    for rounds in (30, 100):
        margins = np.zeros(len(design))
        for fold in range(FOLDS):
            out = pairs.fold == fold
            both = np.vstack([design[~out], -design[~out]])
            labels = np.r_[np.ones((~out).sum()), np.zeros((~out).sum())]
            for seed in range(3):
                model = HistGradientBoostingClassifier(
                    max_iter=rounds, max_leaf_nodes=8, learning_rate=0.05, random_state=seed
                ).fit(both, labels)
                margins[out] += model.decision_function(design[out]) - model.decision_function(-design[out])
        row(f"trees on lengths, style and relevance, {rounds} rounds", pairs, margins, None)


def by_co_teaching(pairs: Pairs) -> None:
    """Two models on a bootstrap of their own each leave out what has the highest loss under the other one."""
    sizes = choose_variances(pairs.blocks).variances
    counting = [name for name, value in sizes.items() if value]
    blocks = {n: b / np.sqrt((b**2).sum(axis=1).mean()) * np.sqrt(sizes[n]) for n, b in pairs.blocks.items()}
    design = np.hstack([blocks[name] for name in counting])
    head()
    for left_out in (0.0, 0.05, 0.1, 0.2, 0.3):
        margins = np.zeros(len(design))
        for fold in range(FOLDS):
            out = pairs.fold == fold
            for seed in range(4):
                margins[out] += design[out] @ co_taught(design[~out], left_out, np.random.default_rng(seed))
        row(f"co-teaching, {left_out:.0%} left out (what counts chosen by all labels)", pairs, margins, None)


def co_taught(design: np.ndarray, left_out: float, random: np.random.Generator, rounds: int = 6) -> np.ndarray:
    samples = [random.integers(0, len(design), len(design)) for _ in range(2)]
    models = [fit_bradley_terry(design[sample], penalty=1.0) for sample in samples]
    for _ in range(rounds):
        losses = [np.logaddexp(0.0, -(design[sample] @ models[1 - i])) for i, sample in enumerate(samples)]
        kept = [
            s[np.argsort(loss)[: round(len(s) * (1 - left_out))]] for s, loss in zip(samples, losses, strict=True)
        ]
        models = [fit_bradley_terry(design[sample], penalty=1.0) for sample in kept]
    return np.asarray(models[0] + models[1])


def by_chance(pairs: Pairs, draws: int = 40) -> None:
    """How often features that say nothing agree with 120 labels: chosen by all of them, and without the fold."""
    agreed: dict[str, list[float]] = {"by all labels": [], "without the fold": []}
    for seed in range(draws):
        random = np.random.default_rng(seed)
        blocks = {name: random.normal(size=(120, 8)) for name in ("extent", "style", "heads")}
        fold = np.arange(120) % FOLDS
        for way, margins in (
            ("by all labels", chosen_by_all(blocks, fold)),
            ("without the fold", _out_of_fold(blocks, fold, [], 0)),
        ):
            agreed[way].append(float((margins > 0).mean() + 0.5 * (margins == 0).mean()))
    print()
    for way, shares in agreed.items():
        print(f"random features, what counts chosen {way}: {np.mean(shares):.1%} of 120 labels agree "
              f"(standard error {np.std(shares, ddof=1) / np.sqrt(draws):.1%})")  # fmt: skip


def chosen_by_all(blocks: Blocks, fold: np.ndarray) -> np.ndarray:
    """Margins out of fold, but with variances that all labels chose, as label noise did it once."""
    sizes = {name: value for name, value in choose_variances(blocks).variances.items() if value}
    margins = np.zeros(len(fold))
    if sizes:
        design = np.hstack([blocks[name] for name in sizes])
        ridge = np.concatenate(
            [np.full(blocks[n].shape[1], (blocks[n] ** 2).sum() / len(fold) / v) for n, v in sizes.items()]
        )
        for number in np.unique(fold):
            out = fold == number
            margins[out] = design[out] @ _repo_fit(design[~out], ridge)
    return margins


class AllLayers(AnswerStatesReader):
    """The states of several layers side by side, in one pass."""

    def _read(self, group: Rendered) -> tuple[torch.Tensor, torch.Tensor]:
        ids = np.concatenate([group.prompt, group.answers[0]])
        with torch.inference_mode():
            layers = trunk(self._model)(
                input_ids=torch.from_numpy(ids)[None], use_cache=False, output_hidden_states=True
            ).hidden_states
        end = torch.cat([layers[layer][0, -1].float() for layer in LAYERS])
        mean = torch.cat([layers[layer][0, len(group.prompt) :].float().mean(dim=0) for layer in LAYERS])
        return end, mean


def by_layers(pairs: Pairs, model: str) -> None:
    reader = open_answer_states(model)
    if not isinstance(reader, AnswerStatesReader):
        raise SystemExit(f"{model} is not read by transformers")
    width = reader._width
    reader.__class__, reader._width = AllLayers, width * len(LAYERS)
    asked = [as_messages(prompt) for prompt in pairs.frame["prompt"]]
    chosen, rejected = pairs.frame["chosen"].to_list(), pairs.frame["rejected"].to_list()
    states, faults = state_differences(asked, chosen, rejected, reader=reader)
    print(f"\n{len(faults)} pairs could not be read")
    head()
    for kind, block in states.items():
        for at, layer in enumerate(LAYERS):
            fitted(f"{kind}, layer {layer}", pairs, {kind: block[:, at * width : (at + 1) * width]})
    parts: Iterator[tuple[str, int]] = ((kind, LAYERS.index(layer)) for kind, layer in BUILT)
    ours = {kind: states[kind][:, at * width : (at + 1) * width] for kind, at in parts}
    fitted("**bundled, end 12, mean 24 (what is built)**", pairs, pairs.blocks | ours)


BUILT: Final = (("end_state", 12), ("mean_state", 24))
TASKS: Final[dict[str, Callable[[Pairs], None]]] = {
    "blocks": by_blocks,
    "policy": by_policy,
    "trees": by_trees,
    "co-teaching": by_co_teaching,
    "chance": by_chance,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--only", nargs="+", choices=[*TASKS, "layers"], default=[*TASKS])
    parser.add_argument("--language-model", help="for layers: a causal language model, a folder or a Hub id")
    options = parser.parse_args()
    pairs = open_pairs(shared_data(options.data) / "ultrafeedback_noise")
    for name in options.only:
        if name == "layers":
            if not options.language_model:
                parser.error("layers needs --language-model")
            by_layers(pairs, options.language_model)
        else:
            TASKS[name](pairs)


if __name__ == "__main__":
    main()
