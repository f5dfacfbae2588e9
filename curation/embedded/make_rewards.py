"""Makes the bundled reward heads again: ``python -m curation.embedded.make_rewards --data ../shared/data``.

Writes ``rewards/heads.safetensors`` and the card beside it. The same data give the same bytes.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from curation.embedded.reward_data import read_pairs
from curation.models.encoder import encoder_fingerprint, open_encoder
from curation.models.identity import EMBEDDED, EMBEDDED_DIR
from curation.models.rewards.heads import HEADS_FILE, Heads, features, write_heads
from curation.scores.ensemble import feature_penalty, fit_heads
from curation.text import last_user_text, prompt_id

FloatArray = npt.NDArray[np.float64]
HEADS: Final = 5
SEED: Final = 0
PENALTY: Final = 100.0
HELD_OUT_ONE_IN: Final = 5
SOURCE_WEIGHTS: Final = {"hh_harmless": 0.4, "pandalm": 1.0, "tulu1_human_eval": 1.0, "coconot_pref": 0.2}
"""How much a pair counts. In coconot's preferences the rejected answers are mostly cut off in the middle,
which a head learns at once: they count little. Harmlessness pairs prefer the shorter answer and would
drown the rest by their number."""
LEVEL_WEIGHTS: Final = {1: 0.5, 2: 1.0}


def held_out(prompts: pl.Series) -> npt.NDArray[np.bool_]:
    """The prompts whose hash is a multiple of 5: in no fit, only in the card's figures."""
    return np.array([int(prompt_id(prompt)[:8], 16) % HELD_OUT_ONE_IN == 0 for prompt in prompts.to_list()])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=EMBEDDED_DIR / "rewards")
    options = parser.parse_args()
    pairs = read_pairs(options.data)
    encoder = open_encoder(EMBEDDED, device="cpu")
    prompts = [last_user_text(prompt) for prompt in pairs["prompt"].to_list()]
    chosen = features(prompts, pairs["chosen"].to_list(), encoder).values
    rejected = features(prompts, pairs["rejected"].to_list(), encoder).values
    test = held_out(pairs["prompt"])
    weights = train(pairs.filter(~pl.Series(test)), (chosen - rejected)[~test], encoder.dimension)
    write_heads(options.out, Heads(weights, EMBEDDED, encoder_fingerprint(EMBEDDED)))
    scores = pl.DataFrame(
        {
            "source": pairs["source"],
            "test": test,
            "margin": (chosen - rejected) @ weights.mean(axis=0),
            "length": pairs["chosen"].str.len_chars().cast(pl.Int64)
            - pairs["rejected"].str.len_chars().cast(pl.Int64),
        }
    )
    (options.out / "README.md").write_text(
        card(scores, (options.out / HEADS_FILE).stat().st_size), encoding="utf-8"
    )


def train(pairs: pl.DataFrame, differences: FloatArray, dimension: int) -> FloatArray:
    """The heads' weights, (HEADS, features)."""
    weights = np.array(
        [SOURCE_WEIGHTS[s] * LEVEL_WEIGHTS[v] for s, v in pairs.select("source", "level").iter_rows()]
    )
    groups = [prompt_id(prompt) for prompt in pairs["prompt"].to_list()]
    penalty = feature_penalty(differences, dimension, PENALTY)
    return fit_heads(differences, groups, heads=HEADS, seed=SEED, penalty=penalty, weights=weights)


def card(scores: pl.DataFrame, size: int) -> str:
    """The card's text."""
    table = scores.group_by("source", maintain_order=True).agg(
        seen=(~pl.col("test")).sum(),
        held=pl.col("test").sum(),
        heads=_on_test("margin"),
        length=_on_test("length"),
    )
    lines = [
        f"| {row['source']} | {row['seen']} | {row['held']} | {row['heads']:.3f} | {row['length']:.3f} |"
        for row in table.iter_rows(named=True)
    ]
    return _CARD.format(table="\n".join(lines), heads=HEADS, size=size / 1000)


def _on_test(name: str) -> pl.Expr:
    """The share of held-out pairs ordered rightly; a tie counts one half."""
    margin = pl.col(name).filter(pl.col("test"))
    return (margin > 0).mean() + 0.5 * (margin == 0).mean()


_CARD: Final = """# Bundled reward heads

{heads} linear Bradley-Terry heads over features of a prompt and an answer: style and structure of the answer,
its relevance to the prompt, the all-MiniLM-L6-v2 vector of the answer, and its product with the prompt's.
Each head is fitted on its own bootstrap sample of the prompts. {size:.0f} kB. Licence: Apache-2.0.

They are small: good for trying a recipe, for strength on pairs of chat answers, and as a prior for label
noise. They know style far better than facts. Use real reward models where it matters.

## What they learned from
hh-rlhf harmless-base, test part (MIT); PandaLM test set (Apache-2.0, majority of three votes, ties left out);
Tulu 1 human evaluation (Apache-2.0, ties left out); CoCoNot contrast preferences (MIT). Prompts whose hash
is a multiple of 5 were held out; a prompt is never on both sides. No other data were seen.

## Accuracy on held-out pairs
Mean of the heads' margins; a tie counts one half. Beside it, the rule "the longer answer is better".

| set | pairs seen | pairs held out | heads | length alone |
|---|---|---|---|---|
{table}

In CoCoNot's preferences many rejected answers are cut off in the middle, which makes that row easy.

## Make them again
`python -m curation.embedded.make_rewards --data ../shared/data`
"""

if __name__ == "__main__":
    main()
