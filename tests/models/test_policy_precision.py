"""Pairs whose CHES nearly cancels, against sums over float64 states, one forward per answer."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch

from curation.models.policy import PolicyStats, open_policy
from curation.models.policy.precision import cancels

PROMPT = [{"role": "user", "content": "Which vegetables grow well in the shade of a tall hedge?"}]
ANSWERS = [
    f"{first} and {second} do well there, {rest}."
    for first, second in (("Lettuce", "spinach"), ("Spinach", "lettuce"), ("Chard", "leeks"), ("Leeks", "chard"))
    for rest in ("if the soil stays moist", "as long as the soil is moist", "with some care")
]


def double_sums(policy: Any) -> np.ndarray:
    model = copy.deepcopy(policy.model).double()
    model.set_attn_implementation("sdpa")
    rendered = next(iter(policy.renderer.render([PROMPT], [ANSWERS])))
    sums = []
    for answer in rendered.answers:
        ids = torch.from_numpy(np.concatenate([rendered.prompt, answer]))[None]
        with torch.inference_mode():
            states = model(input_ids=ids, output_hidden_states=True).hidden_states[-1][0]
        sums.append(states[len(rendered.prompt) - 1 : -1].sum(0).numpy())
    return np.stack(sums)


def ches(gram: np.ndarray) -> np.ndarray:
    """Of every ordered pair of two different answers."""
    scores: np.ndarray = (gram - np.diag(gram)[:, None])[~np.eye(len(gram), dtype=bool)]
    return scores


def test_pairs_that_nearly_cancel_keep_their_digits() -> None:
    policy: Any = open_policy("embedded")
    (found,) = policy.stats([PROMPT], [ANSWERS])
    assert isinstance(found, PolicyStats)
    sums = double_sums(policy)
    exact = ches(sums @ sums.T)
    norms = np.repeat((sums**2).sum(1), len(sums) - 1)
    assert (norms / np.abs(exact)).max() > 500, "no pair here nearly cancels: the test would show nothing"
    assert policy.forwarded_twice > 0
    assert (np.abs(ches(found.gram) - exact) / np.abs(exact)).max() < 1e-5


@pytest.mark.parametrize(
    ("gram", "tokens", "near"),
    [
        ([[4.0, 4.01], [4.01, 9.0]], [2, 2], True),
        ([[4.0, 4.01], [4.01, 9.0]], [2, 3], True),
        ([[4.0, 3.0], [3.0, 9.0]], [2, 2], False),
        ([[4.0, 6.01], [6.01, 9.0]], [2, 2], False),
        ([[4.0, 6.01], [6.01, 9.0]], [2, 3], True),  # alike token by token: 4 / 4 and 6.01 / 6
        ([[4.0, 4.0], [4.0, 4.0]], [2, 2], False),
        ([[4.0, np.nan], [np.nan, np.nan]], [2, 0], False),
    ],
)
def test_what_counts_as_cancelling(gram: list[list[float]], tokens: list[int], near: bool) -> None:
    assert cancels(np.array(gram), np.array(tokens)) is near
