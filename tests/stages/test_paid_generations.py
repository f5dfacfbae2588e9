"""Answers that a server is paid for: kept one by one, retried alone, drawn from a pool, within max_cost."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml

from curation.errors import BudgetReached, ModelError, RecipeError
from curation.journal import Journal, journal_path
from curation.pipeline import run_stage, stage_named
from curation.recipe import load_recipe
from curation.stages.context import Context
from curation.stages.generations import budget_of, generation_steps
from curation.stages.paid import token_facts
from curation.stages.spending import spent
from curation.streaming import Budget
from curation.workspace import Workspace
from tests.chat_server import Running, running
from tests.child_processes import started

ROOT = Path(__file__).resolve().parents[2]
STAGES_RUN = ("inputs", "hygiene", "prompts", "generations", "candidates")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Running]:
    with running(tmp_path / "log", "--models", "policy,other,third") as found:
        yield found


def write(folder: Path, prompts: int, generation: list[dict[str, Any]], **sections: Any) -> Path:
    rows = [json.dumps({"prompt": f"What is the number {i} good for?"}) + "\n" for i in range(prompts)]
    (folder / "prompts.jsonl").write_text("".join(rows))
    recipe = {"name": "paid", "sources": [{"path": "prompts.jsonl"}], "generation": generation, **sections}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return folder / "recipe.yaml"


def run(recipe: Path, *, retry_failed: bool = False) -> Context:
    workspace = Workspace(recipe.parent / "w")
    context = Context(workspace, load_recipe(recipe), retry_failed=retry_failed)
    for name in STAGES_RUN:
        run_stage(context, stage_named(name))
    return context


def model(server: Running, name: str = "policy", **more: Any) -> dict[str, Any]:
    return {"model": f"http://127.0.0.1:{server.port}/v1#{name}", "samples": 2, "max_new_tokens": 8, **more}


def test_one_per_cent_more_prompts_is_one_per_cent_more_requests(tmp_path: Path, server: Running) -> None:
    run(write(tmp_path, 100, [model(server)]))
    assert server.got().total() == 200
    run(write(tmp_path, 101, [model(server)]))
    assert server.got().total() == 202
    assert set(server.got().values()) == {1}


def test_a_server_at_another_address_pays_for_nothing_again(tmp_path: Path, server: Running) -> None:
    run(write(tmp_path, 10, [model(server, revision="v1")]))
    with running(tmp_path / "log2") as moved:
        run(write(tmp_path, 10, [model(moved, revision="v1")]))
        assert moved.got().total() == 0


def test_exhausted_retries_are_rejects_and_are_retried_alone(tmp_path: Path) -> None:
    with running(tmp_path / "log", "--faults", "0.4", "--delay", "0.001") as faulty:
        recipe = write(tmp_path, 40, [model(faulty, attempts=1)])
        first = run(recipe)
        rejects = first.workspace.read("rejects").filter(pl.col("stage") == "candidates")
        answered = first.workspace.read("generations")
        assert 0 < rejects.height < 80
        assert answered.height + rejects.height == 80
        before = faulty.got()
        run(recipe)
        assert faulty.got() == before
        again = run(recipe, retry_failed=True)
        assert (faulty.got() - before).total() == rejects.height
        assert again.workspace.read("generations").height > answered.height
        assert not faulty.sent_after_answer()


def test_m_of_the_models_answer_each_prompt_and_one_model_more_moves_few(tmp_path: Path, server: Running) -> None:
    models = [model(server, name, samples=1) for name in ("policy", "other", "third")]
    made = run(write(tmp_path, 60, models, pool={"models_per_prompt": 2})).workspace.read("generations")
    assert Counter(made["prompt_id"].to_list()) == dict.fromkeys(made["prompt_id"].unique().to_list(), 2)
    shares = Counter(made["generator"].to_list())
    assert len(shares) == 3
    assert min(shares.values()) > 20
    before = server.got().total()
    fewer = run(write(tmp_path, 60, models[:2], pool={"models_per_prompt": 2})).workspace
    assert server.got().total() - before == 120 - sum(n for g, n in shares.items() if not g.startswith("third"))
    assert fewer.read("generations").height == 120 + shares[next(g for g in shares if g.startswith("third"))]


def test_each_sample_has_a_system_message_of_its_own(tmp_path: Path, server: Running) -> None:
    options = {"system_prompts": ["Be brief.", "Be long."], "principles": ["Be honest.", "Be kind.", "Be safe."]}
    made = run(write(tmp_path, 40, [model(server, **options)])).workspace.read("generations")
    assert set(made["system_prompt"]) == {
        f"{a}\n\n{b}" for a in options["system_prompts"] for b in options["principles"]
    }
    before = server.got().total()
    run(write(tmp_path, 40, [model(server, **options)]))
    assert server.got().total() == before


def test_one_model_in_two_entries_gives_each_answer_once(tmp_path: Path, server: Running) -> None:
    """The two may draw one system message for a sample, which is one request and one answer."""
    two = [model(server, principles=["Be honest.", other]) for other in ("Be kind.", "Be safe.")]
    context = run(write(tmp_path, 40, two, rewards=[]))
    made = context.workspace.read("generations").height
    assert made < 160
    assert context.workspace.read("candidates")["occurrences"].sum() == made
    computed = stage_named("generations").run(context).facts
    names = [f"computed by {two[0]['model']} (generation {place})" for place in (0, 1)]
    assert [computed[name] for name in names] == [0, 0]


def test_one_model_in_two_entries_is_two_members_of_the_pool(tmp_path: Path, server: Running) -> None:
    two = [model(server, samples=1, system_prompts=[said]) for said in ("Be brief.", "Be long.")]
    made = run(write(tmp_path, 60, two, pool={"models_per_prompt": 1})).workspace.read("generations")
    assert made.height == 60
    assert 15 < (made["system_prompt"] == "Be brief.").sum() < 45


PRICES = {"policy": {"prompt": 1000.0, "completion": 1000.0}}


def test_tokens_and_money_are_counted(tmp_path: Path, server: Running) -> None:
    context = run(write(tmp_path, 10, [model(server)], costs={"prices": PRICES}))
    made = context.workspace.read("generations")
    tokens = made["prompt_tokens"].sum() + made["completion_tokens"].sum()
    assert made["cost"].sum() == pytest.approx(tokens / 1000)
    assert context.reports[0].cost == pytest.approx(tokens / 1000)
    (said,) = token_facts(context).values()
    read, written = made["prompt_tokens"].sum(), made["completion_tokens"].sum()
    assert said == f"20 answers, {read:,} tokens read, {written:,} written, {tokens / 1000:.6g} USD"


def test_max_cost_stops_before_it_is_exceeded_and_more_money_goes_on(tmp_path: Path, server: Running) -> None:
    costs = {"prices": PRICES, "max_cost": 0.5}
    recipe = write(tmp_path, 50, [model(server)], costs=costs)
    for _ in range(2):
        with pytest.raises(BudgetReached, match=r"before max_cost 0.5 USD is exceeded"):
            run(recipe)
    assert 0.2 < Workspace(tmp_path / "w").read("generations")["cost"].sum() <= 0.5
    run(write(tmp_path, 50, [model(server)], costs=costs | {"max_cost": 100}))
    assert Workspace(tmp_path / "w").read("generations").height == 100
    assert set(server.got().values()) == {1}


@pytest.mark.parametrize("paid", [0.0, 0.6])
def test_a_model_at_the_limit_does_not_stop_one_that_costs_nothing(
    paid: float, tmp_path: Path, server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = {"prompt": 0.0, "completion": 0.0}
    costs = {"prices": PRICES | {"other": free, "third": PRICES["policy"]}, "max_cost": 0.5}
    models = [model(server, name) for name in ("policy", "other", "third")]
    recipe = write(tmp_path, 50, models, costs=costs)
    # What broke off before may have taken the run past its limit already.
    before = Budget(0.5, paid)
    monkeypatch.setattr("curation.stages.generations.budget_of", lambda context: before)
    with pytest.raises(BudgetReached, match=r"before max_cost 0.5 USD is exceeded"):
        run(recipe)
    made = Workspace(tmp_path / "w").read("generations")
    assert made["generator"].str.starts_with("other").sum() == 100
    # The third model knows what the first one was paid, in a process of its own.
    assert made["cost"].sum() <= 0.5
    assert before.spent == pytest.approx(paid + made["cost"].sum())
    assert made["generator"].str.starts_with("policy").any() == (not paid)


def test_what_rewriting_cost_is_spent_for_every_later_run(tmp_path: Path, server: Running) -> None:
    costs = {"prices": PRICES, "max_cost": 1.5}
    mutations = {"kinds": ["translate_fr"], "model": model(server)}
    recipe = write(tmp_path, 60, [model(server, temperature=0.5)], costs=costs, mutations=mutations)
    context = Context(Workspace(tmp_path / "w"), load_recipe(recipe))
    for name in ("inputs", "hygiene"):
        run_stage(context, stage_named(name))
    for _ in range(2):
        with pytest.raises(BudgetReached, match=r"before max_cost 1.5 USD is exceeded"):
            run_stage(context, stage_named("mutations"))
    cost = context.workspace.read("generations")["cost"].sum()
    assert 1.0 < cost <= 1.5
    assert budget_of(context).spent == pytest.approx(cost)
    ((name, said),) = token_facts(context).items()
    assert name.startswith("rewriting by http://")
    assert said.endswith(f"{cost:.6g} USD")


def test_what_broke_off_counts_at_its_most_each_time_it_was_sent(tmp_path: Path) -> None:
    with running(tmp_path / "log", "--faults", "0.4", "--delay", "0.001") as faulty:
        context = run(write(tmp_path, 10, [model(faulty)], costs={"prices": PRICES}))
    log = (tmp_path / "log").read_text().splitlines()
    charged = ("closed", "cut", "broken_json", "no_choices")
    lost = sum(line.startswith("did ") and line.split()[1] in charged for line in log)
    # A message of 31 bytes, 32 + 32 tokens at most for its template and that of a system message, 8 of the answer.
    most = (len("What is the number 0 good for?") + 64 + 8) / 1000
    made = context.workspace.read("generations")
    answered = (made["prompt_tokens"] + made["completion_tokens"]).sum() / 1000
    assert lost > 0
    assert context.reports[0].cost == pytest.approx(answered + lost * most)
    assert spent(context) == pytest.approx(answered + lost * most)  # for every later run, too


def test_what_a_killed_run_had_paid_is_spent(tmp_path: Path, server: Running) -> None:
    costs = {"prices": PRICES, "max_cost": 3.0}
    context = Context(Workspace(tmp_path / "w"), load_recipe(write(tmp_path, 2, [model(server)], costs=costs)))
    (step,) = generation_steps(context)
    texts = {"response": "yes", "reasoning": None, "finish_reason": "stop", "system_prompt": None}
    numbers = {"sample_index": 0, "prompt_tokens": 1, "completion_tokens": 1, "cost": 2.0}
    with Journal(journal_path(context.workspace, step.key)) as journal:
        journal.append({"row": {"request_id": "a" * 32, "prompt_id": "b" * 32, **texts, **numbers}})
    assert budget_of(context).spent == 2.0


def test_what_a_model_was_paid_with_other_options_is_spent(tmp_path: Path, server: Running) -> None:
    costs = {"prices": PRICES, "max_cost": 0.5}
    for temperature in (0.5, 0.6):
        with pytest.raises(BudgetReached, match=r"before max_cost 0.5 USD is exceeded"):
            run(write(tmp_path, 50, [model(server, temperature=temperature)], costs=costs))
    assert 0.2 < Workspace(tmp_path / "w").read("generations")["cost"].sum() <= 0.5


def test_max_cost_without_a_price_is_an_error_of_the_recipe(tmp_path: Path, server: Running) -> None:
    with pytest.raises(RecipeError, match=r"costs.prices has no price for generation 0"):
        load_recipe(write(tmp_path, 1, [model(server)], costs={"max_cost": 1.0}))


def test_a_wrong_model_name_is_one_error(tmp_path: Path, server: Running) -> None:
    with pytest.raises(ModelError, match=r"has no model .polcy. .did you mean .policy."):
        run(write(tmp_path, 50, [model(server, "polcy")]))
    assert server.got().total() == 0


def test_kill_minus_9_sends_nothing_again_that_was_answered(tmp_path: Path) -> None:
    faults = ("--faults", "0.3", "--delay", "0.02")
    with running(tmp_path / "log", *faults) as faulty:
        recipe = write(tmp_path, 150, [model(faulty, concurrency=8)])
        command = [sys.executable, "-m", "curation.cli", "run", str(recipe), "--workspace", str(tmp_path / "w")]
        for target in (60, 150):
            quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            with started(command, cwd=ROOT, **quiet) as process:  # at its end it is killed
                while faulty.got().total() < target and process.poll() is None:
                    time.sleep(0.01)
        context = run(recipe)
        made = context.workspace.read("generations")
        failed = context.workspace.read("failures")
        assert made.height + failed.height == 300
        assert made["request_id"].n_unique() == made.height
        assert not faulty.sent_after_answer()
