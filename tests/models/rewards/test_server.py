"""Reward models behind a server."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from curation.errors import InputError, ModelError
from curation.models.rewards import open_reward, reward_fingerprint
from tests.models.rewards.test_judge import serving

PROMPT = [{"role": "user", "content": "How do plants drink?"}]


def length_scores(body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    data = [{"index": i, "score": float(len(text))} for i, text in enumerate(body["text_2"])]
    return 200, {"data": data[::-1]}


def test_score_gives_one_value_an_answer_in_order_and_in_batches() -> None:
    with serving(length_scores) as url:
        model = open_reward(f"{url}/score#m", batch_size=2)
        assert model.score([PROMPT] * 3, ["a", "bb", "ccc"]).tolist() == [[1.0], [2.0], [3.0]]


def test_classify_gives_every_label() -> None:
    with serving(lambda body: (200, {"data": [{"index": 0, "probs": [0.25, 0.75]}]})) as url:
        assert open_reward(f"{url}/classify#m").score([PROMPT], ["x"]).tolist() == [[0.25, 0.75]]


def test_a_value_that_is_no_number_is_missing() -> None:
    with serving(lambda body: (200, {"data": [{"score": None}]})) as url:
        assert np.isnan(open_reward(f"{url}/score#m").score([PROMPT], ["x"])).all()


def test_the_wrong_count_is_a_model_error() -> None:
    with serving(lambda body: (200, {"data": []})) as url, pytest.raises(ModelError, match="0 rows for 1"):
        open_reward(f"{url}/score#m").score([PROMPT], ["x"])


def test_something_else_than_json_rows_is_a_model_error() -> None:
    with serving(lambda body: (200, {"no": 1})) as url, pytest.raises(ModelError, match="no JSON with a list"):
        open_reward(f"{url}/score#m").score([PROMPT], ["x"])


def test_a_failing_server_is_asked_again() -> None:
    calls: list[int] = []

    def reply(body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        calls.append(1)
        return (500, {}) if len(calls) == 1 else length_scores(body)

    with serving(reply) as url:
        assert open_reward(f"{url}/score#m").score([PROMPT], ["ab"]).tolist() == [[2.0]]
    assert len(calls) == 2


def test_a_refusing_server_is_not_asked_again() -> None:
    with serving(lambda body: (403, {})) as url, pytest.raises(ModelError, match="status 403"):
        open_reward(f"{url}/score#m").score([PROMPT], ["x"])


def test_an_address_without_a_model_is_an_input_error() -> None:
    with pytest.raises(InputError, match="expected http"):
        reward_fingerprint("http://host:1/score")
