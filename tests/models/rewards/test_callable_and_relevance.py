"""Python functions and R3 as reward models."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from curation.cli import app
from curation.errors import InputError, ModelError
from curation.models.protocols import Encoded
from curation.models.rewards import open_reward, reward_fingerprint
from curation.models.rewards.relevance import (
    RelevanceReward,
    factuality_map,
    read_references,
    relevance_reward,
    unique_trigrams,
)
from curation.recipe.loading import load_recipe, load_rewards
from curation.text import prompt_id

HERE = "python:tests.models.rewards.test_callable_and_relevance"
PROMPT = [{"role": "user", "content": "Tell me about plants and water."}]


def answer_length(prompts: Sequence[Any], responses: Sequence[str]) -> list[float]:
    return [float(len(response)) for response in responses]


def too_many(prompts: Sequence[Any], responses: Sequence[str]) -> list[float]:
    return [0.0] * (len(responses) + 1)


def words(prompts: Sequence[Any], responses: Sequence[str]) -> list[str]:
    return ["good"] * len(responses)


def by_answer(prompts: Sequence[Any], responses: Sequence[str]) -> dict[int, float]:
    return dict.fromkeys(range(len(responses)), 5.0)


def test_a_function_scores_each_answer() -> None:
    assert open_reward(f"{HERE}:answer_length").score([PROMPT] * 2, ["a", "bb"]).tolist() == [[1.0], [2.0]]


@pytest.mark.parametrize(("name", "match"), [("too_many", "3 rewards for 2"), ("words", "else than numbers"),
                                              ("by_answer", "returned a dict, expected a list")])  # fmt: skip
def test_a_function_that_returns_something_else_is_a_model_error(name: str, match: str) -> None:
    with pytest.raises(ModelError, match=match):
        open_reward(f"{HERE}:{name}").score([PROMPT] * 2, ["a", "b"])


def test_a_file_of_ones_own_that_is_not_on_the_path_is_told_how() -> None:
    with pytest.raises(InputError, match="PYTHONPATH=FOLDER"):
        reward_fingerprint("python:not_on_the_path:score")
    with pytest.raises(InputError, match="cannot be found") as inside:
        reward_fingerprint(f"{HERE}_that_is_not_there:score")
    assert "PYTHONPATH" not in str(inside.value)


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


def write(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


class Counting:
    """An encoder that counts letters."""

    fingerprint, dimension = "letters", 26

    def encode(self, texts: Sequence[str]) -> Encoded:
        counts = np.array(
            [[text.lower().count(chr(97 + n)) for n in range(26)] for text in texts], dtype=np.float32
        )
        return Encoded(counts / np.linalg.norm(counts, axis=1, keepdims=True), np.zeros(len(texts), dtype=bool))


def slowly(prompt: str, answer: str, reference: str | None, most: int) -> float:
    """R3 as its code has it: two branches, one answer at a time, without arrays."""

    def letters(text: str) -> list[int]:
        return [text.lower().count(chr(97 + n)) for n in range(26)]

    one, two = letters(prompt if reference is None else reference), letters(answer)
    length = (sum(a * a for a in one) * sum(b * b for b in two)) ** 0.5
    relevance = sum(a * b for a, b in zip(one, two, strict=True)) / length
    said = answer.lower().replace(".", "").split()
    trigrams = [" ".join(said[n : n + 3]) for n in range(len(said) - 2)]
    ratio = len(set(trigrams)) / len(trigrams) if trigrams else 1.0
    if reference is None:
        return relevance * min(len(said), most) / 100 * ratio
    # linear_interpolation(relevance, 0, 1, 0, most / 100): length counts for nothing.
    return (0.0 + (relevance - 0.0) / (1.0 - 0.0) * (most / 100 - 0.0)) * ratio


def test_r3_of_prompts_with_a_known_answer_and_of_others() -> None:
    asked = [
        "Which planet is the largest?",
        "Which planet is the largest?",
        "Tell me of rivers.",
        "Tell me of rivers.",
    ]
    said = ["Jupiter.", "It is Mars it is Mars it is Mars.", "Rivers flow and flow to the sea.", "No idea."]
    prompts = [[{"role": "user", "content": text}] for text in asked]
    known = {prompt_id(prompts[0]): "Jupiter"}
    model = RelevanceReward(Counting(), fingerprint="x", max_tokens=5, references=known)
    found = model.score(prompts, said)[:, 0]
    expected = [
        slowly(a, s, "Jupiter" if n < 2 else None, 5) for n, (a, s) in enumerate(zip(asked, said, strict=True))
    ]
    assert found == pytest.approx(expected)
    assert found[0] == pytest.approx(0.05)  # the known answer itself has the most that there is
    assert "2 of 4 answers were held against the reference" in model.note
    assert factuality_map(0.5, 0.9, max_tokens=400) == pytest.approx(1.8)


def test_known_answers_are_read_and_are_part_of_the_fingerprint(tmp_path: Path) -> None:
    file = write(tmp_path / "known.jsonl", {"prompt": "a?", "reference": "b"}, {"prompt": "c?", "reference": None},
                 {"prompt": [{"role": "user", "content": "a?"}], "reference": "b"})  # fmt: skip
    assert read_references(file) == {prompt_id([{"role": "user", "content": "a?"}]): "b"}
    before = reward_fingerprint("relevance", references=str(file))
    assert before != reward_fingerprint("relevance")
    dialogue = [{"role": "user", "content": "a?"}, {"role": "assistant", "content": "?"}]
    found = read_references(write(tmp_path / "dialogues.jsonl", {"prompt": dialogue, "reference": "b"}))
    assert found == {prompt_id(dialogue): "b"}
    write(file, {"prompt": "a?", "reference": "another"})
    assert reward_fingerprint("relevance", references=str(file)) != before


@pytest.mark.parametrize(
    ("rows", "match"),
    [
        ([{"prompt": "a?", "answer": "b"}], "column 'reference' is missing: found prompt, answer"),
        ([{"prompt": "a?", "reference": "b"}, {"prompt": "a?", "reference": "c"}], "row 1: a second reference"),
        ([{"prompt": "a?", "reference": " "}], "row 0: reference is empty or no text"),
        (
            [{"prompt": "a?", "reference": "b"}, {"prompt": "c?", "reference": 4}],
            "row 1: reference is empty or no text",
        ),
        ([{"prompt": None, "reference": "b"}], "row 0, prompt: expected a string or a list of messages"),
    ],
)
def test_a_file_of_known_answers_that_is_wrong_is_named(
    tmp_path: Path, rows: list[dict[str, Any]], match: str
) -> None:
    with pytest.raises(InputError, match=match):
        open_reward("relevance", references=str(write(tmp_path / "known.jsonl", *rows)))


def test_a_recipe_and_a_file_of_models_name_known_answers_beside_them(tmp_path: Path) -> None:
    models = tmp_path / "rewards.yaml"
    models.write_text("rewards:\n  - {model: relevance, references: known.jsonl}\n")
    write(tmp_path / "known.jsonl", {"prompt": "a?", "reference": "b"})
    assert load_rewards(models)[0].options == {"references": str(tmp_path / "known.jsonl")}
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(models.read_text() + "sources: [{path: pairs.jsonl}]\n")
    assert load_recipe(recipe).rewards[0].options == {"references": str(tmp_path / "known.jsonl")}


def test_the_command_says_how_many_answers_had_a_known_one(tmp_path: Path) -> None:
    known = write(tmp_path / "known.jsonl", {"prompt": "Which planet is the largest?", "reference": "Jupiter"})
    rows = [{"prompt": "Which planet is the largest?", "response": "Jupiter is the largest planet."},
            {"prompt": "Tell me about rivers.", "response": "A river is a natural stream of water."}]  # fmt: skip
    source = write(tmp_path / "in.jsonl", *rows)
    arguments = ["rewards", str(source), "-o", str(tmp_path / "out.parquet"), "--model", "relevance"]
    done = CliRunner().invoke(app, [*arguments, "--references", str(known)])
    assert done.exit_code == 0
    assert "1 of 2 answers were held against the reference of their prompt" in done.output
