"""Python functions and R3 as reward models."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from curation.errors import InputError, ModelError
from curation.models.rewards import open_reward, reward_fingerprint
from curation.models.rewards.relevance import relevance_reward, unique_trigrams

HERE = "python:tests.models.rewards.test_callable_and_relevance"
PROMPT = [{"role": "user", "content": "Tell me about plants and water."}]


def answer_length(prompts: Sequence[Any], responses: Sequence[str]) -> list[float]:
    return [float(len(response)) for response in responses]


def too_many(prompts: Sequence[Any], responses: Sequence[str]) -> list[float]:
    return [0.0] * (len(responses) + 1)


def words(prompts: Sequence[Any], responses: Sequence[str]) -> list[str]:
    return ["good"] * len(responses)


def test_a_function_scores_each_answer() -> None:
    assert open_reward(f"{HERE}:answer_length").score([PROMPT] * 2, ["a", "bb"]).tolist() == [[1.0], [2.0]]


@pytest.mark.parametrize(("name", "match"), [("too_many", "3 rewards for 2"), ("words", "else than numbers")])
def test_a_function_that_returns_something_else_is_a_model_error(name: str, match: str) -> None:
    with pytest.raises(ModelError, match=match):
        open_reward(f"{HERE}:{name}").score([PROMPT] * 2, ["a", "b"])


@pytest.mark.parametrize("name", ["python:no.such.module:f", f"{HERE}:nothing", f"{HERE}:PROMPT", "python:"])
def test_a_function_that_is_not_there_is_an_input_error(name: str) -> None:
    with pytest.raises(InputError, match="reward function"):
        reward_fingerprint(name)


def test_another_version_of_what_a_function_calls_is_another_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "def score(prompts, answers):\n    return [worth(a) for a in answers]\n\n\ndef worth(answer):\n"
    (tmp_path / "of_my_own.py").write_text(code + "    return len(answer)\n")
    monkeypatch.syspath_prepend(tmp_path)
    before = reward_fingerprint("python:of_my_own:score")
    assert reward_fingerprint("python:of_my_own:score") == before

    (tmp_path / "of_my_own.py").write_text(code + "    return -len(answer)\n")

    assert reward_fingerprint("python:of_my_own:score") != before


def test_r3_of_the_worked_example() -> None:
    assert relevance_reward(1.2, 150, 0.9) == pytest.approx(1.62)


def test_unique_trigrams() -> None:
    assert unique_trigrams(list("abcabc")) == 0.75
    assert unique_trigrams(["a"]) == 1.0


def test_relevance_rewards_speaking_of_the_question_without_repeating() -> None:
    model = open_reward("relevance", device="cpu")
    on_topic = "Plants take up water through their roots and lose it through their leaves. " * 2
    rewards = model.score(
        [PROMPT] * 3,
        [on_topic, "Stock prices fell sharply on Monday after the central bank raised rates. " * 2, "water " * 26],
    )
    assert rewards.shape == (3, 1)
    assert rewards[0, 0] > rewards[1, 0]
    assert rewards[0, 0] > rewards[2, 0]
