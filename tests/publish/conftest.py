"""Small tables that fit together, and larger random ones."""

from __future__ import annotations

import random
from typing import NamedTuple

import polars as pl
import pytest

from curation.text import content_hash, prompt_id, response_id
from schemas import TABLES

WORDS = ("rain", "tram", "bread", "lamp", "river", "slow", "green", "window", "after", "early", "paper")


class Tables(NamedTuple):
    prompts: pl.DataFrame
    candidates: pl.DataFrame
    refusals: pl.DataFrame
    pairs: pl.DataFrame
    pair_scores: pl.DataFrame


def make_tables(prompts: int = 20, *, seed: int = 0) -> Tables:
    """Tables with two answers and one pair for each prompt, valid under their schemas."""
    rng = random.Random(seed)
    rows: dict[str, list[dict[str, object]]] = {name: [] for name in Tables._fields}
    for number in range(prompts):
        messages = [{"role": "user", "content": f"Question {number} about {rng.choice(WORDS)}?"}]
        prompt = prompt_id(messages)
        behaviour = ("refuse", "comply", None)[number % 3]
        rows["prompts"].append(
            {
                "prompt_id": prompt,
                "messages": messages,
                "source": ("one", "two")[number % 2],
                "category": ("home", "travel", None)[number % 3],
                "expected_behaviour": behaviour,
                "family_id": prompt,
                "split": "test" if number % 10 == 9 else "train",
            }
        )
        answers = [" ".join(rng.choices(WORDS, k=rng.randint(3, 30))) for _ in range(2)]
        ids = [response_id(prompt, a) for a in answers]
        for side, (candidate, answer) in enumerate(zip(ids, answers, strict=True)):
            rows["candidates"].append(_candidate(candidate, prompt, answer))
            refuses = (behaviour == "refuse") == (side == 0)
            rows["refusals"].append(
                {
                    "candidate_id": candidate,
                    "detector": "d",
                    "refusal_probability": 0.9 if refuses else 0.1,
                    "refusal_class": "full_refusal" if refuses else "compliance",
                    "refusal_kind": None,
                    "refusal_category": None,
                }
            )
        pair = content_hash("pair", *ids)
        rows["pairs"].append(
            {
                "pair_id": pair,
                "prompt_id": prompt,
                "chosen_id": ids[0],
                "rejected_id": ids[1],
                "strategy": "provided",
            }
        )
        rows["pair_scores"].append(_scores(pair, rng, refuses=behaviour == "refuse"))
    return Tables(*(TABLES[n].validate(_frame(n, rows[n]), cast=True) for n in Tables._fields))


def _candidate(candidate: str, prompt: str, answer: str) -> dict[str, object]:
    empty = dict.fromkeys(TABLES["candidates"].column_names())
    found = {"candidate_id": candidate, "prompt_id": prompt, "response": answer}
    return {**empty, **found, "origin": "provided", "occurrences": 1}


def _scores(pair: str, rng: random.Random, *, refuses: bool) -> dict[str, object]:
    return {
        **dict.fromkeys(TABLES["pair_scores"].column_names()),
        "pair_id": pair,
        "chosen_rewards": [rng.gauss(0.5, 1), rng.gauss(0.5, 1)],
        "rejected_rewards": [rng.gauss(0, 1), rng.gauss(0, 1)],
        "strength_mean": rng.gauss(0.5, 1),
        "strength_std": rng.random(),
        "agreement": rng.random(),
        "ches": rng.gauss(0, 30),
        "ln_ches": rng.gauss(-1, 0.5),
        "chosen_tokens": rng.randint(3, 60),
        "rejected_tokens": rng.randint(3, 60),
        "chosen_logp": -rng.random() * 90,
        "rejected_logp": -rng.random() * 90,
        "difficulty": rng.gauss(0, 20),
        "cosine": rng.random(),
        "length_ratio": rng.lognormvariate(0, 0.5),
        "chosen_refusal_probability": 0.9 if refuses else 0.1,
        "rejected_refusal_probability": 0.1,
        "chosen_refusal_class": "full_refusal" if refuses else "compliance",
        "rejected_refusal_class": "compliance",
    }


def _frame(name: str, rows: list[dict[str, object]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=TABLES[name].create_empty().schema)


@pytest.fixture(scope="session")
def tables() -> Tables:
    return make_tables(60)
