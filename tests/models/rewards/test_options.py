"""Options of reward models as a recipe and the command give them: each reaches its model, or is an error."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from click.testing import Result
from pydantic import ValidationError
from typer.testing import CliRunner

from curation.cli import app
from curation.errors import InputError, ModelError, RecipeError
from curation.models.encoder import encoder_fingerprint, open_encoder
from curation.models.rewards import given_to_each, open_heads, open_reward, reward_fingerprint
from curation.models.rewards.heads import Heads, write_heads
from curation.recipe import Reward
from curation.recipe.negatives import Rescorer
from curation.stages.rescoring import rescoring_step
from curation.stages.rewards import RewardStep
from tests.models.rewards.test_classifier import ANSWERS, PROMPT, folder

__all__ = ["folder"]


def test_weights_make_one_reward_of_several_attributes(folder: Path) -> None:
    every = open_reward(str(folder), device="cpu").score([PROMPT] * 3, ANSWERS)
    one = open_reward(str(folder), device="cpu", attributes={"short": -0.5, "helpful": 2.0})
    np.testing.assert_allclose(
        one.score([PROMPT] * 3, ANSWERS), (2 * every[:, 0] - 0.5 * every[:, 2])[:, None], atol=1e-6
    )
    assert one.outputs == ("-0.5*short+2.0*helpful",)  # type: ignore[attr-defined]


def test_what_a_recipe_says_of_a_model_reaches_it_and_its_place_in_the_ledger(folder: Path) -> None:
    options = Reward.model_validate(
        {"model": str(folder), "attributes": {"harmless": 1, "short": -1}, "dtype": "bfloat16", "max_length": 20}
    )
    step = RewardStep(options)
    model = step.open().model  # type: ignore[attr-defined]
    assert (model.outputs, model.max_length) == (("1.0*harmless+-1.0*short",), 20)
    assert str(next(model._network.parameters()).dtype) == "torch.bfloat16"
    assert step.key.producer.startswith(model.fingerprint)
    plain = RewardStep(Reward(model=str(folder))).key.producer
    assert plain.startswith(reward_fingerprint(str(folder)))
    others = [{"attributes": ["short"]}, {"attributes": {"short": 1}}, {"dtype": "bfloat16"}, {"max_length": 20}]
    keys = {RewardStep(Reward.model_validate({"model": str(folder), **o})).key.producer for o in others}
    assert len({plain, step.key.producer, *keys}) == 6


def test_where_vllm_runs_reaches_it_and_is_in_no_key(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = {"tensor_parallel_size": 2, "gpu_memory_utilization": 0.5}
    found: dict[str, object] = {}

    def start(named: str, **given: object) -> None:
        found.update(given)
        raise ModelError("not started here")

    monkeypatch.setattr("curation.models.rewards.vllm.require_vllm", lambda: None)
    monkeypatch.setattr("curation.models.rewards.vllm.start_vllm", start)
    step = RewardStep(Reward.model_validate({"model": f"vllm:{folder}"} | place))
    with pytest.raises(ModelError, match="not started here"):
        step.open()
    assert place.items() <= found.items()
    assert step.key == RewardStep(Reward(model=str(folder))).key
    with pytest.raises(InputError, match="takes no tensor_parallel_size"):
        _ = RewardStep(Reward.model_validate({"model": str(folder)} | place)).key


def test_relevance_reads_with_the_encoder_that_is_named(tmp_path: Path) -> None:
    step = RewardStep(Reward(model="relevance", encoder="embedded"))
    assert step.key == RewardStep(Reward(model="relevance")).key
    missing = RewardStep(Reward(model="relevance", encoder=str(tmp_path / "none")))
    with pytest.raises(InputError, match="none"):
        _ = missing.key


def test_heads_find_their_encoder_where_it_lies_now(tmp_path: Path) -> None:
    size = len(open_reward("embedded")._heads.weights[0])  # type: ignore[attr-defined]
    gone = str(tmp_path / "gone")
    write_heads(tmp_path, Heads(np.ones((1, size)), gone, encoder_fingerprint("embedded")))
    with pytest.raises((InputError, ModelError), match="gone"):
        _ = RewardStep(Reward(model=str(tmp_path))).key
    step = RewardStep(Reward(model=str(tmp_path), encoder="embedded"))
    assert step.key.producer
    assert step.open().model.score([PROMPT], ["a"]).shape == (1, 1)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("model", "option", "has"),
    [
        ("relevance", "dtype", "encoder"),
        ("embedded", "attributes", "encoder"),
        ("judge:http://h/v1#m", "max_length", "none"),
    ],
)
def test_an_option_that_a_model_does_not_take_is_one_line(model: str, option: str, has: str) -> None:
    value = {"dtype": "bfloat16", "attributes": ["x"], "max_length": 20}[option]
    with pytest.raises(InputError, match=f"takes no {option}: of attributes, .* such a model takes {has}"):
        _ = RewardStep(Reward.model_validate({"model": model, option: value})).key


@pytest.mark.parametrize("attributes", [[], {}, ["a", "a"], {"a": 0}, {"a": float("nan")}, {"a": "much"}, "a"])
def test_attributes_that_say_nothing_are_an_error_of_the_recipe(attributes: object) -> None:
    with pytest.raises(ValidationError):
        Reward.model_validate({"model": "owner/name", "attributes": attributes})


def test_an_option_goes_to_every_model_that_takes_it(folder: Path) -> None:
    models = ["relevance", str(folder)]
    assert given_to_each(models, {"dtype": "bfloat16", "encoder": "embedded"}) == [
        {"encoder": "embedded"},
        {"dtype": "bfloat16"},
    ]
    with pytest.raises(InputError, match="dtype is of no use"):
        given_to_each(["relevance"], {"dtype": "bfloat16"})


def test_an_encoder_that_is_named_for_heads_must_be_theirs_even_where_theirs_is_open(folder: Path) -> None:
    theirs = open_encoder("embedded")
    assert open_heads("embedded", with_encoder=theirs, encoder="embedded").outputs
    with pytest.raises(ModelError, match="name the right encoder"):
        open_heads("embedded", with_encoder=theirs, encoder=str(folder))


def test_a_rescorer_takes_what_a_reward_model_takes(folder: Path) -> None:
    own = {"model": str(folder), "attributes": {"harmless": 1, "short": -1}, "dtype": "bfloat16", "max_length": 20}
    step = rescoring_step(Rescorer.model_validate(own | {"kind": "reward"}))
    assert step.key == RewardStep(Reward.model_validate(own)).key
    assert step.open().model.outputs == ("1.0*harmless+-1.0*short",)  # type: ignore[attr-defined]
    plain = rescoring_step(Rescorer.model_validate({"model": str(folder), "kind": "reward"}))
    assert plain.key == RewardStep(Reward(model=str(folder))).key
    with pytest.raises(ValidationError, match="attributes is an option of reward models"):
        Rescorer.model_validate(own)


def command(*given: object) -> Result:
    return CliRunner().invoke(app, ["rewards", *map(str, given)])


def test_on_the_command_line_each_model_of_a_file_has_its_own_options(folder: Path, tmp_path: Path) -> None:
    rows = [{"prompt": PROMPT, "response": answer} for answer in ANSWERS]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    models = [
        {"model": str(folder), "attributes": {"short": -1}},
        {"model": str(folder), "attributes": ["helpful"]},
    ]
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump({"name": "whole recipe", "rewards": models}))
    done = command(tmp_path / "in.jsonl", "-o", tmp_path / "out.jsonl", "--models", tmp_path / "recipe.yaml")
    assert done.exit_code == 0, done.output
    every = open_reward(str(folder)).score([PROMPT] * 3, ANSWERS)
    found = [json.loads(line)["rewards"] for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    np.testing.assert_allclose(found, np.stack([-every[:, 2], every[:, 0]], axis=1), atol=1e-6)


@pytest.mark.parametrize(
    ("content", "more", "said"),
    [
        ("rewards: [{model: embedded, dtipe: bfloat16}]", [], "unknown key 'rewards.0.dtipe'"),
        ("rewards: []", [], "rewards"),
        ("- model: embedded", [], "expected the key 'rewards'"),
        ("rewards: [{model: embedded, max_length: 20}]", [], "takes no max_length"),
        ("rewards: [{model: trained}]", [], "trained"),
        ("rewards: [{model: embedded}]", ["--model", "relevance"], "give no --model"),
        ("rewards: [{model: embedded}]", ["--max-length", "20"], "give no --model and no option"),
    ],
)
def test_a_file_of_models_that_is_wrong_is_one_line(
    tmp_path: Path, content: str, more: list[str], said: str
) -> None:
    (tmp_path / "in.jsonl").write_text('{"prompt": "a", "response": "b"}\n')
    (tmp_path / "m.yaml").write_text(content)
    done = command(tmp_path / "in.jsonl", "-o", tmp_path / "o.jsonl", "--models", tmp_path / "m.yaml", *more)
    assert done.exit_code != 0
    assert said in str(done.exception)
    assert isinstance(done.exception, InputError | RecipeError)
