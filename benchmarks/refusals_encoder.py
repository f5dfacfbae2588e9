"""Would a longer reading, or the prompt, help the encoder? ``python benchmarks/refusals_encoder.py [--head N] …``

MiniLM is fine-tuned on four fifths of the training and validation parts of chatgpt_refusals alone and read on the
fifth left out, by prompt (a fold takes 3 minutes and more). Nothing of the test part is read. No text is printed.
Not here: the bundled detector's figures, which are in benchmarks/refusals.py.
"""

from __future__ import annotations

import argparse
import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from _figures import FIGURES, shared_data

from curation.embedded import _refusals_encoder as training
from curation.embedded._refusals_data import Answer, labelled_sources
from curation.models import refusal_encoder as encoder

PROMPT_TOKENS = 64


def tokens(answers: Sequence[Answer], tokenizer: Any, options: argparse.Namespace) -> list[list[int]]:
    """As ``curation.models.refusal_encoder.tokenise``, with other lengths, and the prompt after the answer."""
    cls, sep = tokenizer.token_to_id("[CLS]"), tokenizer.token_to_id("[SEP]")
    read = [e.ids for e in tokenizer.encode_batch([a.text for a in answers], add_special_tokens=False)]
    asked = [e.ids for e in tokenizer.encode_batch([a.group for a in answers], add_special_tokens=False)]
    out = []
    for ids, prompt in zip(read, asked, strict=True):
        long = len(ids) > options.head + options.tail
        both = [*ids[: options.head], sep, *ids[-options.tail :]] if long else ids
        out.append([cls, *both, sep] + ([*prompt[:PROMPT_TOKENS], sep] if options.prompt else []))
    return out


def opened() -> tuple[Any, Any]:
    """MiniLM with new heads, and its tokenizer."""
    import torch
    from safetensors import safe_open
    from tokenizers import Tokenizer

    base = encoder.minilm_folder()
    tokenizer = Tokenizer.from_file(str(base / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    with safe_open(base / "model.safetensors", framework="pt") as file:
        names = [n for n in file.keys() if n.startswith("encoder.layer.")]  # noqa: SIM118
        weights = {n: file.get_tensor(n).float() for n in names}
    weights |= {"head.weight": torch.randn(2, 768) * 0.02, "head.bias": torch.zeros(2)}
    return encoder.Network(encoder.load_embeddings(base), weights), tokenizer


def trained(answers: Sequence[Answer], options: argparse.Namespace) -> tuple[Any, Any]:
    """The bundled encoder's recipe (``fine_tune``) on other tokens."""
    import torch
    from torch.nn import functional

    torch.manual_seed(options.seed)
    rng = random.Random(options.seed)
    network, tokenizer = opened()
    groups = training._groups(network.weights)
    optimiser = torch.optim.AdamW(groups, weight_decay=0.01, fused=True)
    ids = tokens(answers, tokenizer, options)
    rates = [group["lr"] for group in optimiser.param_groups]
    steps = options.epochs * math.ceil(len(ids) / 16)
    for step, rows in enumerate(r for _ in range(options.epochs) for r in training._batches(ids, rng)):
        scale = min(1.0, (step + 1) / (0.1 * steps)) * max(0.0, 1 - step / steps)
        for group, rate in zip(optimiser.param_groups, rates, strict=True):
            group["lr"] = rate * scale
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = network(*encoder.padded([ids[row] for row in rows]), dropout=0.1).float()
        targets, known = training._targets([answers[row] for row in rows])
        losses = functional.binary_cross_entropy_with_logits(found, targets * 0.9 + 0.05, reduction="none")
        optimiser.zero_grad()
        ((losses * known).sum() / len(rows)).backward()
        torch.nn.utils.clip_grad_norm_([p for group in groups for p in group["params"]], 1.0)
        optimiser.step()
    return network, tokenizer


def logits(
    model: tuple[Any, Any], answers: Sequence[Answer], options: argparse.Namespace
) -> npt.NDArray[np.float64]:
    """Of refusal, for n answers."""
    import torch

    network, tokenizer = model
    ids = tokens(answers, tokenizer, options)
    order = sorted(range(len(ids)), key=lambda row: len(ids[row]))
    out = np.zeros(len(ids))
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        for start in range(0, len(order), 32):
            rows = order[start : start + 32]
            out[rows] = network(*encoder.padded([ids[row] for row in rows])).float().numpy()[:, 0]
    return out


def main() -> None:
    from sklearn.model_selection import StratifiedGroupKFold

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--head", type=int, default=encoder.HEAD_TOKENS, help="tokens of the beginning")
    parser.add_argument("--tail", type=int, default=encoder.TAIL_TOKENS, help="tokens of the end")
    parser.add_argument("--prompt", action="store_true", help="read the prompt, too")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folds", type=int, nargs="*", default=list(range(5)))
    options = parser.parse_args()
    answers = labelled_sources(shared_data(options.data))["chatgpt"]
    labels = np.array([a.refusal for a in answers])
    right = []
    split = StratifiedGroupKFold(5, shuffle=True, random_state=0).split(answers, labels, [a.group for a in answers])
    for fold, (train, test) in enumerate(split):
        if fold in options.folds:
            model = trained([answers[row] for row in train], options)
            hits = (logits(model, [answers[row] for row in test], options) > 0) == labels[test]
            right.append(hits)
            print(f"fold {fold}: {100 * hits.mean():.1f} % of {len(test)} rows", flush=True)
    together = np.concatenate(right)
    print(f"all: {100 * together.mean():.1f} % of {len(together)} rows")
    conditions = f"{len(together):,} rows of folds {' '.join(map(str, options.folds))} of 5, by prompt"
    FIGURES.add("MiniLM fine-tuned on chatgpt_refusals alone, out of fold", 100 * together.mean(), "% accuracy",
                conditions=conditions)  # fmt: skip


if __name__ == "__main__":
    main()
    FIGURES.write()
