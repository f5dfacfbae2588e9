"""Section ``sampling`` in a run: draws in rounds, near-identical samples, and which answers stay."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml

from curation.errors import RecipeError
from curation.pipeline import run_stage, stage_named
from curation.recipe import load_recipe
from curation.stages.context import Context
from curation.workspace import Workspace
from tests.chat_server import Running, running
from tests.scripted_server import Scripted, scripted

STAGES_RUN = ("inputs", "hygiene", "prompts", "generations", "candidates")
BY_DIGIT = "python:tests.stages.test_sampling:ends_in_a_low_digit"


def ends_in_a_low_digit(prompts: Any, responses: Sequence[str], right: Any) -> list[bool]:
    """A verifier: prompts with an even number pass two of three answers or so, others one of eight."""
    limits = ["6789abcdef" if int(p[-1]["content"].split()[-1]) % 2 == 0 else "f0" for p in prompts]
    return [text[-1] in limit for text, limit in zip(responses, limits, strict=True)]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Running]:
    with running(tmp_path / "log", "--models", "policy,other") as found:
        yield found


def write(
    folder: Path, server: Running | Scripted, sampling: dict[str, Any], *, prompts: int = 12, **model: Any
) -> Path:
    rows = [json.dumps({"prompt": f"Tell me about number {i}"}) + "\n" for i in range(prompts)]
    (folder / "prompts.jsonl").write_text("".join(rows))
    generation = [{"model": server.model, "max_new_tokens": 8, **model}]
    recipe = {
        "name": "sampled", "sources": [{"path": "prompts.jsonl"}], "generation": generation, "sampling": sampling,
    }  # fmt: skip
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return folder / "recipe.yaml"


def run(recipe: Path, name: str = "w") -> Context:
    context = Context(Workspace(recipe.parent / name), load_recipe(recipe))
    for stage in STAGES_RUN:
        run_stage(context, stage_named(stage))
    return context


def drawn(context: Context) -> pl.DataFrame:
    """Answers, prompt by prompt: number (of the prompt), draws, successes."""
    prompts = context.workspace.read("prompts").select("prompt_id", "messages")
    made = context.workspace.read("generations").join(prompts, on="prompt_id")
    passed = ends_in_a_low_digit(made["messages"].to_list(), made["response"].to_list(), None)
    number = [int(m[-1]["content"].split()[-1]) for m in made["messages"].to_list()]
    rows = made.select("sample_index").with_columns(number=pl.Series(number), passed=pl.Series(passed))
    return rows.group_by("number").agg(
        draws=pl.len(), successes=pl.col("passed").sum(), highest=pl.col("sample_index").max()
    )


def test_a_uniform_budget_draws_until_each_prompt_has_its_successes(tmp_path: Path, server: Running) -> None:
    budget = {"kind": "uniform", "verifier": BY_DIGIT, "successes": 2}
    found = drawn(run(write(tmp_path, server, {"budget": budget, "max_samples": 6, "max_rounds": 3})))
    assert found.height == 12
    for row in found.iter_rows(named=True):
        # What is short after three rounds more has had a draw in each of them.
        assert row["successes"] == 2 or (row["successes"] < 2 and row["draws"] >= 5)
        assert row["highest"] == row["draws"] - 1
    easy = found.filter(pl.col("number") % 2 == 0)["draws"].mean()
    hard = found.filter(pl.col("number") % 2 == 1)["draws"].mean()
    assert isinstance(easy, float)
    assert isinstance(hard, float)
    assert easy < hard
    assert server.got().total() == found["draws"].sum()


def test_a_second_run_asks_for_nothing_and_gives_the_same(tmp_path: Path, server: Running) -> None:
    budget = {"kind": "prop2diff", "verifier": BY_DIGIT, "pilot": 3, "hardest": 3}
    recipe = write(tmp_path, server, {"budget": budget, "max_samples": 6, "max_rounds": 2})
    first = run(recipe).workspace.read("candidates")
    before = server.got().total()
    assert 12 * 3 < before < 12 * 6
    assert run(recipe).workspace.read("candidates").equals(first)
    assert server.got().total() == before


def test_a_run_that_goes_on_ends_like_one_that_was_never_cut_short(tmp_path: Path, server: Running) -> None:
    budget = {"kind": "uniform", "verifier": BY_DIGIT, "successes": 2}
    sampling = {"budget": budget, "max_samples": 6, "max_rounds": 2}
    run(write(tmp_path, server, {**sampling, "max_rounds": 1}))
    before = server.got()
    whole = run(write(tmp_path, server, sampling)).workspace.read("generations").drop("generator")
    assert server.got().total() > before.total()
    assert set(server.got().values()) == {1}
    at_once = run(write(tmp_path, server, sampling), "other").workspace.read("generations")
    key = ["prompt_id", "sample_index", "response"]
    assert at_once.select(key).sort(key).equals(whole.select(key).sort(key))


def test_a_verifier_that_knows_no_right_answer_costs_nothing_more(tmp_path: Path, server: Running) -> None:
    budget = {"kind": "uniform", "verifier": "exact_match", "successes": 2}
    run(write(tmp_path, server, {"budget": budget, "max_samples": 12}))
    assert server.got().total() == 24


def test_samples_that_differ_are_not_drawn_again(tmp_path: Path, server: Running) -> None:
    """The server says "answer to ID", always another: one 3-gram, so none repeats, and none is drawn again."""
    context = run(write(tmp_path, server, {"near_identical": 0.5, "max_samples": 5}, samples=2))
    assert server.got().total() == 24
    assert context.workspace.read("candidates").height == 24
    assert context.workspace.read("rejects").is_empty()


def test_repeats_of_a_greedy_model_are_bounded_and_accounted_for(tmp_path: Path) -> None:
    (tmp_path / "prompts.jsonl").write_text(json.dumps({"prompt": "Tell me about bread."}) + "\n")
    recipe = {
        "name": "greedy", "sources": [{"path": "prompts.jsonl"}],
        "sampling": {"near_identical": 0.9, "max_samples": 4},
        "generation": [{"samples": 2, "temperature": 0.0, "max_new_tokens": 6}],
    }  # fmt: skip
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    context = run(tmp_path / "recipe.yaml")
    assert context.workspace.read("generations").height == 4
    assert context.workspace.read("candidates").height == 1
    rejects = context.workspace.read("rejects")
    assert rejects["rule"].to_list() == ["near_identical_sample"] * 3
    assert rejects["value"].to_list() == ["0"] * 3


@pytest.mark.parametrize("method", ["best_of_n", "rso"])
def test_what_is_not_chosen_is_a_reject_and_stays_paid(tmp_path: Path, server: Running, method: str) -> None:
    choice = {"method": method, "keep": 2, "beta": 0.1}
    context = run(write(tmp_path, server, {"choice": choice}, samples=4))
    candidates, rejects = context.workspace.read("candidates"), context.workspace.read("rejects")
    assert candidates.group_by("prompt_id").len()["len"].to_list() == [2] * 12
    assert rejects["rule"].unique().to_list() == ["not_best_of_n" if method == "best_of_n" else "not_drawn"]
    made = context.workspace.read("generations")
    assert made.height == 48 == candidates.height + rejects.height
    assert set(rejects["row_id"]) < set(made["request_id"])
    scores = context.workspace.read("rewards").select("candidate_id", score=pl.col("rewards").list.mean())
    lowest = candidates.join(scores, on="candidate_id").group_by("prompt_id").agg(pl.col("score").min())
    names = made.select(row_id="request_id", prompt_id="prompt_id")
    gone = rejects.join(names, on="row_id").join(lowest, on="prompt_id")
    above = gone.filter(pl.col("value").cast(pl.Float64) > pl.col("score")).height
    assert (above == 0) == (method == "best_of_n")
    run(write(tmp_path, server, {}, samples=4))
    assert server.got().total() == 48
    assert context.workspace.read("candidates").height == 48


def test_a_reward_can_be_the_test_of_success(tmp_path: Path, server: Running) -> None:
    budget = {"kind": "uniform", "min_reward": 1e9, "successes": 2}
    context = run(write(tmp_path, server, {"budget": budget, "max_samples": 3}, prompts=3))
    assert context.workspace.read("generations").height == 9
    low = {"kind": "uniform", "min_reward": -1e9, "successes": 2}
    run(write(tmp_path, server, {"budget": low, "max_samples": 3}, prompts=3))
    assert Workspace(tmp_path / "w").read("candidates").height == 6
    assert server.got().total() == 9


def test_models_only_as_rejected_are_left_alone(tmp_path: Path, server: Running) -> None:
    recipe = yaml.safe_load(write(tmp_path, server, {"choice": {"method": "best_of_n"}}, samples=3).read_text())
    recipe["generation"].append(recipe["generation"][0] | {"temperature": 2.0, "only_as_rejected": True})
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    context = Context(Workspace(tmp_path / "w"), load_recipe(tmp_path / "recipe.yaml"))
    for stage in (*STAGES_RUN[:4], "constructed", "candidates"):
        run_stage(context, stage_named(stage))
    # The test server's answer depends on messages and seed alone, so the hotter model says what the first one says:
    # what was not chosen must not come back as a worse answer.
    assert context.workspace.read("constructed").is_empty()
    assert context.workspace.read("candidates").height == 12
    rules = context.workspace.read("rejects")["rule"].value_counts().rows()
    assert dict(rules)["not_only_as_rejected"] == 24


@pytest.mark.parametrize(
    ("sampling", "message"),
    [
        ({"budget": {"kind": "uniform"}}, "either verifier or min_reward"),
        ({"budget": {"kind": "uniform", "min_reward": 0, "successes": 20}}, "begins with 20 answers"),
        ({"near_identical": 0.9, "max_samples": 1}, "more than sampling.max_samples"),
        ({"reward": {"model": "trained"}}, "fitted after answers are sampled"),
    ],
)
def test_a_section_that_cannot_work_is_refused(
    tmp_path: Path, server: Running, sampling: dict[str, Any], message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        load_recipe(write(tmp_path, server, sampling))


def test_an_answer_is_no_repeat_of_an_unfit_one(tmp_path: Path) -> None:
    """The first sample leaks a marker; the second says the same without it, stays, and no third is asked for."""
    text, calls = "The number is good for counting sheep, stars and days.", list[int]()

    def script(prompt: str, seed: int) -> tuple[str, str]:
        calls.append(seed)
        return text + ("<|im_end|>" if len(calls) == 1 else ""), "stop"

    with scripted(script) as far:
        sampling = {"near_identical": 0.5, "max_samples": 5}
        context = run(write(tmp_path, far, sampling, prompts=1, samples=1, model=far.model()))
    assert len(calls) == 2
    assert context.workspace.read("candidates")["response"].to_list() == [text]
