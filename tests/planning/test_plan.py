"""A plan says what a run then asks for, asks for none of it, and leaves the workspace as it is."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml
from typer.testing import CliRunner

from curation.cli import app
from curation.errors import BudgetReached, ModelError
from curation.journal import Journal, journal_path
from curation.pipeline import run
from curation.planning import Plan, Planned, plan, plan_lines
from curation.recipe import load_recipe
from curation.stages.context import Context
from curation.stages.generations import generation_steps
from curation.workspace import Workspace
from tests.models.rewards.test_judge import completion, serving
from tests.stages.conftest import sentences

PRICE = {"prompt": 1_000.0, "completion": 2_000.0}
PROMPTS, SAMPLES = 5, 3
QUIET: dict[str, Any] = {"encoder": None, "rewards": [], "refusals": None, "policy": None,
                         "gates": {"max_tie_rate": 1.0, "max_duplicate_rate": 1.0, "min_rows": 0}}  # fmt: skip


class FarEnd:
    """Answers judges by their schema, and generators each time otherwise; it knows what it bills."""

    def __init__(self, replies: int = 10_000) -> None:
        self.replies, self.lock, self.bodies = replies, threading.Lock(), list[dict[str, Any]]()

    def __call__(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        with self.lock:
            if len(self.bodies) >= self.replies:
                return 401, {"error": {"message": "no", "code": "invalid_api_key"}}
            self.bodies.append(body)
            number = len(self.bodies)
        schema = json.dumps(body.get("response_format", {}))
        said = f"Answer {number}."
        if "better" in schema:
            said = '{"better": "A"}'
        elif "score" in schema:
            said = json.dumps({"score": number % 5 + 1})
        words = sum(len(message["content"].split()) for message in body["messages"])
        return 200, completion(said) | {"usage": {"prompt_tokens": words, "completion_tokens": 3}}

    def asked(self, kind: str) -> int:
        """Of ``better``, ``score``, or of generators (an empty text)."""
        schemas = [json.dumps(body.get("response_format", {})) for body in self.bodies]
        if kind:
            return sum(kind in schema for schema in schemas)
        return sum(schema == "{}" for schema in schemas)

    @property
    def billed(self) -> float:
        prompt = sum(len(m["content"].split()) for body in self.bodies for m in body["messages"])
        return (prompt * PRICE["prompt"] + 3 * len(self.bodies) * PRICE["completion"]) / 1e6


def recipe(folder: Path, *, prompts: int = PROMPTS, brought: int = 0, **sections: Any) -> Path:
    rows: list[dict[str, Any]] = [{"prompt": f"What is the number {n} good for?"} for n in range(prompts)]
    sources = []
    for name, given in (("prompts", rows), ("pairs", sentences(brought))):
        if given:
            (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in given))
            sources.append({"path": f"{name}.jsonl", "name": name})
    whole = {"sources": sources, "workspace": "w", "costs": {"prices": {"m": PRICE}}}
    whole |= {"publish": {"datasets": ["preference"] if "judge" in sections else []}, **QUIET, **sections}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(whole))
    return folder / "recipe.yaml"


def generator(url: str, **more: Any) -> dict[str, Any]:
    return {"model": f"{url}#m", "samples": SAMPLES, "max_new_tokens": 8, "attempts": 5, **more}


def step(found: Plan, stage: str) -> Planned:
    (one,) = (step for step in found.steps if step.stage == stage)
    return one


def to_ask(found: Plan) -> int:
    return sum(step.to_ask for step in found.steps)


def an_answer(row: dict[str, Any]) -> dict[str, Any]:
    return {"row": row}


def a_failure(row: dict[str, Any]) -> dict[str, Any]:
    ids = {"row_id": row["request_id"], "item_id": row["prompt_id"]}
    return {"failure": ids | {"rule": "r", "value": "", "reason": "s"}}


def run_killed(
    path: Path,
    *,
    after: int,
    lost: Sequence[str] = ("generations",),
    left: Callable[[dict[str, Any]], dict[str, Any]] = an_answer,
) -> pl.DataFrame:
    """Run as if killed after so many answers: they are in the journal alone, and what is in these tables is not."""
    run(path)
    place = Workspace(path.parent / "w")
    rows = place.read("generations").drop("generator").head(after)
    (asked,) = generation_steps(Context(place, load_recipe(path)))
    for table in lost:
        shutil.rmtree(place.table_path(table))
    with Journal(journal_path(place, asked.key)) as journal:
        for row in rows.iter_rows(named=True):
            journal.append(left(row))
    return rows


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_plan_counts_what_the_run_asks_for_and_then_there_is_nothing(tmp_path: Path) -> None:
    far = FarEnd()
    with serving(far) as url:
        path = recipe(
            tmp_path, generation=[generator(url)], rewards=[{"model": f"judge:{url}#m"}],
            pairs={"strategies": ["best_vs_worst"]}, judge={"model": f"judge:{url}#m?rubric=honesty"},
        )  # fmt: skip
        found = plan(path)
        assert not far.bodies
        assert not (tmp_path / "w").exists()
        run(path)
        again = plan(path)
    generations, rewards, judgements = (step(found, name) for name in ("generations", "rewards", "judgements"))
    assert (generations.rows, generations.kept, generations.at_most) == (15, 0, False)
    assert generations.to_ask == generations.requests == far.asked("") == 15
    assert (rewards.to_ask, rewards.at_most, rewards.requests) == (15, True, far.asked("score"))
    assert (judgements.to_ask, judgements.at_most, judgements.requests) == (5, True, 10)
    assert 0 < far.asked("better") <= 10
    assert 0 == found.spent < far.billed < found.cost
    assert to_ask(again) == again.cost == 0
    assert again.spent == pytest.approx(far.billed)


def test_a_plan_leaves_the_workspace_as_it_is_and_counts_one_prompt_more(tmp_path: Path) -> None:
    far = FarEnd()
    with serving(far) as url:
        sections = {"generation": [generator(url)], "judge": {"model": f"judge:{url}#m"}}
        run(recipe(tmp_path, brought=4, **sections))
        before, asked = contents(tmp_path), len(far.bodies)
        more = recipe(tmp_path, brought=6, prompts=PROMPTS + 1, **sections)
        after = contents(tmp_path)
        found = plan(more)
        assert contents(tmp_path) == after
        assert {name: data for name, data in after.items() if "/w/" in name} == {
            name: data for name, data in before.items() if "/w/" in name
        }
        run(more)
    assert step(found, "generations").to_ask == SAMPLES * 3  # a prompt, and those of two pairs
    # The sources' pairs alone are judged, so their number is known.
    assert (step(found, "judgements").to_ask, step(found, "judgements").kept) == (2, 4)
    assert len(far.bodies) - asked == sum(one.requests for one in found.steps) == SAMPLES * 3 + 2 * 2


def test_replies_that_a_run_left_when_it_broke_off_are_not_counted_again(tmp_path: Path) -> None:
    far = FarEnd(replies=5)
    with serving(far) as url:
        path = recipe(tmp_path, prompts=0, brought=6, judge={"model": f"judge:{url}#m"})
        with pytest.raises(ModelError):
            run(path)
        assert list((tmp_path / "w" / "journal").glob("replies-*"))
        found = plan(path)
        assert found.spent == pytest.approx(far.billed)
        far.replies = 1_000
        run(path)
    assert step(found, "judgements").to_ask == 6
    assert step(found, "judgements").requests == len(far.bodies) - 5 == 7


def test_answers_in_the_journal_of_a_run_that_was_killed_are_kept(tmp_path: Path) -> None:
    far = FarEnd()
    with serving(far) as url:
        path = recipe(tmp_path, generation=[generator(url)])
        rows = run_killed(path, after=7)
        found = plan(path)
        asked = len(far.bodies)
        run(path)
    assert (step(found, "generations").kept, step(found, "generations").to_ask) == (7, 8)
    assert found.spent == pytest.approx(rows["cost"].sum())
    assert len(far.bodies) - asked == 8


def test_answers_that_a_killed_run_left_are_judged_in_the_plan(tmp_path: Path) -> None:
    far = FarEnd()
    with serving(far) as url:
        path = recipe(tmp_path, generation=[generator(url)], rewards=[{"model": f"judge:{url}#m"}])
        run_killed(path, after=PROMPTS * SAMPLES, lost=("generations", "rewards"))
        found, before = plan(path), far.asked("score")
        run(path)
    assert step(found, "generations").to_ask == 0
    assert step(found, "rewards").requests == far.asked("score") - before == 15
    assert step(found, "rewards").at_most


def test_a_failure_in_the_journal_of_a_killed_run_is_asked_again_where_failures_are(tmp_path: Path) -> None:
    far = FarEnd()
    with serving(far) as url:
        path = recipe(tmp_path, generation=[generator(url)])
        run_killed(path, after=1, left=a_failure)
        plain, again, before = plan(path), plan(path, retry_failed=True), len(far.bodies)
        run(path, retry_failed=True)
    assert to_ask(plain) == 14
    assert to_ask(again) == len(far.bodies) - before == 15


@pytest.mark.parametrize("max_cost", [0.2, 100.0])
def test_what_the_plan_says_of_max_cost_is_what_the_run_does(max_cost: float, tmp_path: Path) -> None:
    far = FarEnd()
    with serving(far) as url:
        costs = {"prices": {"m": PRICE}, "max_cost": max_cost}
        path = recipe(tmp_path, generation=[generator(url)], costs=costs)
        said = plan_lines(plan(path))[-1]
        if max_cost < 1:
            with pytest.raises(BudgetReached):
                run(path)
            assert said == "max_cost 0.2 USD can stop the run before its end"
            assert step(plan(path), "generations").kept == len(far.bodies) > 0
        else:
            run(path)
            assert said.startswith("max_cost 100 USD does not stop it")


def test_failures_are_counted_where_they_are_to_be_tried_again(tmp_path: Path) -> None:
    far = FarEnd()

    def refuses(body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if "number 2" in body["messages"][-1]["content"] and not mended:
            return 400, {"error": {"message": "no", "code": "odd"}}
        return far(body)

    mended: list[bool] = []
    with serving(refuses) as url:
        path = recipe(tmp_path, generation=[generator(url)])
        run(path)
        plain, again = plan(path), plan(path, retry_failed=True)
        mended.append(True)
        before = len(far.bodies)
        run(path, retry_failed=True)
    assert (to_ask(plain), step(plain, "generations").failed) == (0, SAMPLES)
    assert to_ask(again) == len(far.bodies) - before == SAMPLES


def test_prompts_that_a_model_is_to_write_are_answered_in_the_plan(tmp_path: Path) -> None:
    far = FarEnd()
    with serving(far) as url:
        mutations = {"kinds": ["translate_fr"], "model": {"model": f"{url}#m", "max_new_tokens": 9}}
        path = recipe(tmp_path, generation=[generator(url)], mutations=mutations)
        found = plan(path)
        run(path)
    assert step(found, "mutations").to_ask == PROMPTS
    assert (step(found, "generations").to_ask, step(found, "generations").at_most) == (2 * PROMPTS * SAMPLES, True)
    assert len(far.bodies) == sum(one.requests for one in found.steps)


def test_a_model_that_writes_prompts_and_answers_them_is_counted_for_both(tmp_path: Path) -> None:
    far = FarEnd()
    with serving(far) as url:
        mutations = {"kinds": ["translate_fr"], "model": {"model": f"{url}#m", "max_new_tokens": 8}}
        path = recipe(
            tmp_path, generation=[generator(url)], mutations=mutations, rewards=[{"model": f"judge:{url}#m"}]
        )
        found = plan(path)
        run(path)
    assert step(found, "mutations").to_ask == PROMPTS
    assert step(found, "generations").to_ask == step(found, "rewards").to_ask == 2 * PROMPTS * SAMPLES
    assert len(far.bodies) == sum(one.requests for one in found.steps)


def test_the_answers_of_two_models_to_one_request_are_two(tmp_path: Path) -> None:
    with serving(FarEnd()) as url:
        both = [generator(url), generator(url, temperature=1.5)]
        found = plan(recipe(tmp_path, generation=both, rewards=[{"model": f"judge:{url}#m"}]))
    assert step(found, "rewards").requests == 2 * PROMPTS * SAMPLES


def test_answers_that_sampling_does_not_choose_among_all_stay_in_the_plan(tmp_path: Path) -> None:
    far = FarEnd()
    with serving(far) as url:
        judge = {"model": f"judge:{url}#m"}
        weaker = generator(url, temperature=1.5, only_as_rejected=True)
        path = recipe(
            tmp_path, generation=[generator(url), weaker], rewards=[judge],
            sampling={"choice": {"method": "best_of_n", "keep": 1}, "reward": judge},
        )  # fmt: skip
        found = plan(path)
        run(path)
    # One judge scores what is drawn, to choose among it, and then what stays and the answers of the weaker model.
    assert step(found, "candidates").requests == far.asked("score") == 2 * PROMPTS * SAMPLES


def test_draws_in_rounds_are_counted_up_to_max_samples(tmp_path: Path) -> None:
    far = FarEnd()
    sampling = {"budget": {"kind": "uniform", "successes": 2, "verifier": "exact_match"}, "max_samples": 4}
    with serving(far) as url:
        path = recipe(tmp_path, generation=[generator(url)], sampling=sampling)
        found = plan(path)
        run(path)
        again = plan(path)
    assert (step(found, "generations").to_ask, step(found, "generations").at_most) == (4 * PROMPTS, True)
    assert 0 < len(far.bodies) <= 4 * PROMPTS
    assert to_ask(again) == 0


def test_hygiene_that_needs_embeddings_is_left_out_until_they_are_there(tmp_path: Path) -> None:
    hygiene = {"prompts": [{"method": "semantic", "threshold": 0.5}], "select": {"method": "k_centre", "count": 3}}
    with serving(FarEnd()) as url:
        path = recipe(tmp_path, prompts=8, generation=[generator(url)], encoder={"batch_rows": 16}, hygiene=hygiene)
        found = plan(path)
        run(path)
        again = plan(path)
    kept = Workspace(tmp_path / "w").read("prompts").height
    assert any("stage hygiene" in note for note in found.notes)
    assert step(found, "generations").to_ask == 3 * SAMPLES >= kept * SAMPLES
    assert step(found, "generations").at_most
    assert (to_ask(again), again.notes) == (0, [])
    assert step(again, "generations").rows == kept * SAMPLES


def test_prompts_are_chosen_in_the_plan_after_hygiene_has_dropped_some(tmp_path: Path) -> None:
    select = {"method": "k_centre", "count": 3}
    with serving(FarEnd()) as url:
        path = recipe(
            tmp_path, generation=[generator(url)], encoder={"batch_rows": 16},
            hygiene={"prompts": [{"method": "minhash", "threshold": 0.5}], "select": select},
        )  # fmt: skip
        long = "Please tell me in a few words of your own what the colour of a clear sky is at noon in summer"
        rows = [f"{long}{mark}" for mark in "?.!"]
        rows += ["Why is grass green?", "Who sells bread?", "Where do owls nest?"]
        (tmp_path / "prompts.jsonl").write_text("".join(json.dumps({"prompt": row}) + "\n" for row in rows))
        found = plan(path)
        run(path)
    assert Workspace(tmp_path / "w").read("prompts").height == 3
    assert step(found, "generations").to_ask == 3 * SAMPLES


def test_a_pair_that_is_judged_already_is_not_counted_in_place_of_a_new_one(tmp_path: Path) -> None:
    far = FarEnd()
    with serving(far) as url:
        rest = {"rewards": [{"model": f"judge:{url}#m"}], "pairs": {"strategies": ["best_vs_worst"]},
                "judge": {"model": f"judge:{url}#m?rubric=honesty"}}  # fmt: skip
        run(recipe(tmp_path, generation=[generator(url, samples=2)], **rest))
        kept = Workspace(tmp_path / "w").read("judgements").height
        found = plan(recipe(tmp_path, generation=[generator(url, samples=3)], **rest))
    assert kept > 0
    assert step(found, "judgements").to_ask == PROMPTS


def test_judges_of_refusals_and_of_categories_are_counted(tmp_path: Path) -> None:
    with serving(FarEnd()) as url:
        asked = {"model": f"{url}#m"}
        refusals = {"judge": asked, "sorting": {"judge": asked}}
        found = plan(recipe(tmp_path, prompts=0, brought=4, refusals=refusals))
    # A verdict on each answer, and the category of each of their requests, if it refuses.
    assert step(found, "refusals").to_ask == 8
    assert step(found, "refusals").requests == 8 + 4


@pytest.mark.parametrize("by_category", [False, True])
def test_a_judge_that_sorts_is_counted_where_a_run_is_calibrated_from_its_start(
    by_category: bool, tmp_path: Path
) -> None:
    thresholds = {"violence": 0.5} if by_category else {}
    calibration = {"version": 1, "slope": 1.0, "intercept": 0.0, "threshold": 0.5, "thresholds": thresholds}
    (tmp_path / "c.json").write_text(json.dumps(calibration | {"detector": None}))
    far = FarEnd()
    with serving(far) as url:
        refusals = {"calibration": "c.json", "sorting": {"judge": {"model": f"{url}#m"}}}
        path = recipe(tmp_path, prompts=0, brought=4, refusals=refusals)
        found = plan(path)
        assert max(one.requests for one in found.steps) == 4
        run(path)
        again = plan(path)
    assert 0 < len(far.bodies) <= 4
    assert to_ask(again) == 0


def test_a_detector_here_is_no_server_where_a_judge_sorts_all_requests_beforehand(tmp_path: Path) -> None:
    with serving(FarEnd()) as url:
        refusals = {"requests": True, "sorting": {"judge": {"model": f"{url}#m"}}}
        found = plan(recipe(tmp_path, prompts=0, brought=4, refusals=refusals))
    assert {one.stage: one.requests for one in found.steps if one.is_remote} == {"requests": 4}
    assert not any("without a price" in line for line in plan_lines(found))


def test_the_command_prints_the_plan(tmp_path: Path) -> None:
    with serving(FarEnd()) as url:
        path = recipe(tmp_path, generation=[generator(url)])
        done = CliRunner().invoke(app, ["run", str(path), "--plan", "--workspace", str(tmp_path / "new")])
    assert done.exit_code == 0, done.output
    assert "generations, m: 15 of 15 to ask, 0 kept" in done.output
    assert "15 requests; at most " in done.output
    assert not (tmp_path / "new").exists()


def test_an_engine_that_is_not_there_is_told_with_a_plan_as_without(tmp_path: Path) -> None:
    path = recipe(tmp_path)
    told = [CliRunner().invoke(app, ["run", str(path), *more, "--engine", "dask"]) for more in ([], ["--plan"])]
    assert [str(one.exception) for one in told] == ["engine 'dask' is not there: expected one of local, ray"] * 2
