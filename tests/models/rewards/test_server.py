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


def test_classify_gets_the_dialogue_as_messages_and_asks_for_raw_logits() -> None:
    asked: list[dict[str, Any]] = []

    def reply(body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        asked.append(body)
        return 200, {"data": [{"index": 0, "probs": [float(len(body["messages"][-1]["content"]))]}]}

    with serving(reply) as url:
        answers = ["a" * size for size in range(1, 41)]
        found = open_reward(f"{url}/classify#m", batch_size=4).score([PROMPT] * 40, answers)
    assert found[:, 0].tolist() == [float(size) for size in range(1, 41)]
    assert all(body["messages"][:-1] == PROMPT and body["use_activation"] is False for body in asked)
    assert {body["messages"][-1]["role"] for body in asked} == {"assistant"}


@pytest.mark.parametrize("route", ["score", "classify"])
def test_a_row_that_the_server_does_not_take_leaves_the_others_their_rewards(route: str) -> None:
    def reply(body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        texts = body["text_2"] if route == "score" else [body["messages"][-1]["content"]]
        if any(len(text) > 50 for text in texts):
            return 400, {"error": {"message": "too long"}}
        return 200, {"data": [{"index": i, "score": 1.5, "probs": [1.5]} for i, _ in enumerate(texts)]}

    with serving(reply) as url:
        model = open_reward(f"{url}/{route}#m", batch_size=3)
        found = model.score([PROMPT] * 5, ["a", "b" * 60, "c", "d", "e"])
    assert found[:, 0].tolist() == pytest.approx([1.5, float("nan"), 1.5, 1.5, 1.5], nan_ok=True)
    faults = model.faults  # type: ignore[attr-defined]
    assert [fault and fault.rule for fault in faults] == [None, "reward_refused", None, None, None]


def test_a_server_that_takes_no_row_is_one_error() -> None:
    calls: list[int] = []

    def reply(body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        calls.append(1)
        return 400, {}

    with serving(reply) as url, pytest.raises(ModelError, match="refused the first 20 rows with status 400"):
        open_reward(f"{url}/classify#m", batch_size=1).score([PROMPT] * 500, ["x"] * 500)
    assert len(calls) < 30


def test_a_busy_server_is_asked_again() -> None:
    calls: list[int] = []

    def reply(body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        calls.append(1)
        return (429, {}) if len(calls) == 1 else length_scores(body)

    with serving(reply) as url:
        assert open_reward(f"{url}/score#m").score([PROMPT], ["ab"]).tolist() == [[2.0]]


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
