"""What judges behind servers cost counts: in the run's record, against max_cost, and with what answers cost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from curation.errors import BudgetReached, ModelError, RecipeError
from curation.forgetting.forget import forget, what_would_go
from curation.ledger import Ledger, LedgerKey
from curation.pipeline import recorded_run, run_stage, stage_named
from curation.recipe import Recipe, load_recipe
from curation.stages.context import Context
from curation.stages.paid import token_facts
from curation.stages.spending import spent
from curation.workspace import Workspace
from tests.models.rewards.test_judge import completion, serving
from tests.stages.conftest import sentences

BEFORE = ("inputs", "hygiene", "prompts", "candidates", "rewards", "pairs")
PRICE = {"prompt": 1000.0, "completion": 2000.0}  # per million: 100 and 10 tokens are 0.12 a reply
CALLS = 12  # six pairs, both orders


class FarEnd:
    """Every reply counts 100 tokens of the question and 10 of its own; after ``replies`` the key is refused."""

    def __init__(self, replies: int = 1_000) -> None:
        self.replies = replies
        self.asked = 0

    def __call__(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if self.asked >= self.replies:
            return 401, {"error": {"message": "no", "code": "invalid_api_key"}}
        self.asked += 1
        return 200, completion('{"better": "A"}') | {"usage": {"prompt_tokens": 100, "completion_tokens": 10}}


def context_of(
    folder: Path, url: str, *, batch_rows: int = 2, limit: int | None = None, retry: bool = False, **costs: Any
) -> Context:
    rows = sentences(6)
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = {
        "sources": [{"path": str(folder / "pairs.jsonl"), "name": "source"}],
        "judge": {"model": f"judge:{url}#m?rubric=honesty", "batch_rows": batch_rows},
        "costs": {"prices": {"m": PRICE}, **costs},
        "encoder": None, "rewards": [], "refusals": None, "policy": None, "publish": {"datasets": ["preference"]},
    }  # fmt: skip
    place = Workspace(folder / "w", trial=limit is not None)
    return Context(place, Recipe.model_validate(recipe), limit=limit, retry_failed=retry)


def judge(context: Context) -> None:
    with recorded_run(context):
        for name in (*BEFORE, "judgements"):
            run_stage(context, stage_named(name))


def test_a_judges_tokens_and_cost_are_in_the_record_of_the_run(tmp_path: Path) -> None:
    far_end = FarEnd()
    with serving(far_end) as url:
        context = context_of(tmp_path, url)
        judge(context)
        again = context_of(tmp_path, url)
        judge(again)
    (report,) = (report for report in context.reports if report.name == "judgements")
    assert far_end.asked == CALLS
    assert report.tokens == CALLS * 110
    assert report.cost == pytest.approx(CALLS * 0.12)
    assert token_facts(again) == {"judging by a server in stage judgements": "1,320 tokens, 1.44 USD"}
    assert spent(again) == pytest.approx(CALLS * 0.12)  # the second run asked for nothing


def test_no_batch_is_begun_once_max_cost_is_spent_and_a_higher_one_goes_on(tmp_path: Path) -> None:
    far_end = FarEnd()
    with serving(far_end) as url:
        with pytest.raises(BudgetReached, match=r"stopped in judgements: 0.48 USD of max_cost 0.4 USD is spent"):
            judge(context_of(tmp_path, url, max_cost=0.4))
        assert far_end.asked == 4  # one batch of two pairs
        with pytest.raises(BudgetReached, match=r"0\.96 USD of max_cost 0\.9 USD"):
            judge(context_of(tmp_path, url, max_cost=0.9))
        assert far_end.asked == 8
        judge(context_of(tmp_path, url, max_cost=100))
    assert far_end.asked == CALLS  # nothing was paid for twice


def test_replies_of_a_batch_that_broke_off_are_not_paid_again(tmp_path: Path) -> None:
    far_end = FarEnd(replies=7)
    with serving(far_end) as url:
        broken = context_of(tmp_path, url, batch_rows=256)
        with pytest.raises(ModelError, match="wants a key"):
            judge(broken)
        (kept,) = (tmp_path / "w" / "journal").glob("replies-*")
        far_end.replies = CALLS
        whole = context_of(tmp_path, url, batch_rows=256)
        assert spent(whole) == pytest.approx(7 * 0.12)
        judge(whole)
    assert far_end.asked == CALLS
    assert spent(context_of(tmp_path, url)) == pytest.approx(CALLS * 0.12)
    assert not kept.exists()
    assert whole.workspace.read("judgements").height == CALLS / 2


@pytest.mark.parametrize("trial", [False, True])
def test_replies_of_a_batch_that_broke_off_wait_for_the_batch_that_asks_for_them(
    trial: bool, tmp_path: Path
) -> None:
    far_end = FarEnd(replies=7)
    with serving(far_end) as url:
        with pytest.raises(ModelError, match="wants a key"):
            judge(context_of(tmp_path, url, batch_rows=256))
        far_end.replies = 1_000
        if trial:
            judge(context_of(tmp_path, url, limit=2))
        judge(context_of(tmp_path, url, batch_rows=2))
    assert far_end.asked == CALLS
    assert not list((tmp_path / "w" / "journal").glob("replies-*"))


def test_replies_go_once_the_disk_has_their_batch_in_the_ledger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[int] = []
    settle = Ledger.settle

    def seen(ledger: Ledger, key: LedgerKey) -> None:
        (path,) = (tmp_path / "w" / "journal").glob("replies-*")
        kept.append(path.read_bytes().count(b"\n"))
        settle(ledger, key)

    monkeypatch.setattr(Ledger, "settle", seen)
    with serving(FarEnd()) as url:
        judge(context_of(tmp_path, url, batch_rows=2))
    assert kept == [4, 4, 4]


def test_replies_that_are_cut_again_when_they_are_tried_again_do_not_end_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("curation.models.judging._CUT_BEFORE_STOP", 2)
    asked: list[str] = []
    cut = completion("{")
    cut["choices"][0]["finish_reason"] = "length"

    def far_end(body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        asked.append(body["messages"][-1]["content"])
        return 200, completion('{"better": "A"}') if asked[-1] in asked[:4] else cut

    with serving(far_end) as url:
        judge(context_of(tmp_path, url, batch_rows=2))
        assert len(asked) == CALLS
        judge(context_of(tmp_path, url, batch_rows=2, retry=True))
        assert len(asked) == CALLS + CALLS - 4
        judge(context_of(tmp_path, url, batch_rows=2))
    assert len(asked) == CALLS + CALLS - 4


def test_what_a_judge_was_paid_in_a_trial_is_spent(tmp_path: Path) -> None:
    far_end = FarEnd()
    with serving(far_end) as url:
        judge(context_of(tmp_path, url, limit=2))
        paid = far_end.asked * 0.12
        assert paid > 0
        assert spent(context_of(tmp_path, url)) == pytest.approx(paid)
        assert spent(context_of(tmp_path, url, limit=2)) == pytest.approx(paid)


def test_replies_of_a_batch_that_broke_off_are_forgotten_with_any_source(tmp_path: Path) -> None:
    with serving(FarEnd(replies=7)) as url:
        context = context_of(tmp_path, url, batch_rows=256)
        with pytest.raises(ModelError):
            judge(context)
    folder = tmp_path / "w" / "journal"
    assert list(folder.glob("replies-*"))
    plan, _ = what_would_go(context.workspace, ["source"])
    forget(context.workspace, plan)
    assert not list(folder.glob("replies-*"))


def test_with_a_limit_every_judge_needs_a_price(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("{}\n")
    recipe = tmp_path / "recipe.yaml"
    for section, place in (
        ("judge: {model: 'judge:http://h/v1#dear?rubric=honesty'}", "judge"),
        ("rewards: [{model: 'judge:http://h/v1#dear'}]", "rewards 0"),
        ("refusals: {judge: {model: 'http://h/v1#dear'}}", r"refusals\.judge"),
        (
            "publish: {datasets: [retrieval]}\n"
            "negatives: {rescorer: {kind: reward, model: 'judge:http://h/v1#dear?rubric=honesty'}}",
            r"negatives\.rescorer",
        ),
        ("refusals: {sorting: {judge: {model: 'http://h/v1#dear'}}}", r"refusals\.sorting\.judge"),
    ):
        recipe.write_text(f"sources: [{{path: a.jsonl}}]\ncosts: {{max_cost: 1}}\n{section}\n")
        with pytest.raises(RecipeError, match=f"no price for {place}, 'http://h/v1#dear'"):
            load_recipe(recipe)
        recipe.write_text(
            f"sources: [{{path: a.jsonl}}]\ncosts: {{max_cost: 1, prices: {{dear: {{prompt: 1, completion: 1}}}}}}"
            f"\n{section}\n"
        )
        assert load_recipe(recipe).remote_judges
