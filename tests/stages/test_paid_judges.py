"""What judges behind servers cost counts: in the run's record, against max_cost, and with what answers cost."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from curation.errors import BudgetReached, InterruptedRun, ModelError, RecipeError, WorkspaceError
from curation.forgetting.forget import forget, what_would_go
from curation.kept_replies import KeptReplies
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


def most_of(body: dict[str, Any]) -> int:
    """Tokens at most: a byte is no more than one, a message's frame 32, as is what opens the answer."""
    return sum(len(m["content"].encode()) + 32 for m in body["messages"]) + 32 + int(body["max_tokens"])


def test_a_server_that_counts_no_tokens_is_paid_the_most_that_they_can_be(tmp_path: Path) -> None:
    asked: list[int] = []

    def far_end(body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        asked.append(most_of(body))
        return 200, completion('{"better": "A"}')

    with serving(far_end) as url:
        context = context_of(tmp_path, url)
        judge(context)
    (report,) = (report for report in context.reports if report.name == "judgements")
    assert report.tokens == report.estimated == sum(asked)
    written = CALLS * 32  # the judge's max_new_tokens
    assert report.cost == pytest.approx(((sum(asked) - written) * 1000 + written * 2000) / 1e6)
    (said,) = token_facts(context).values()
    assert f"(the server did not count {sum(asked):,} of them: at most so many)" in said
    (row,) = context.workspace.read("runs")["computed"]
    assert next(r for r in json.loads(row) if r["name"] == "judgements")["estimated"] == sum(asked)


def test_a_server_that_counts_no_tokens_stays_within_max_cost(tmp_path: Path) -> None:
    far_end = FarEnd()

    def no_usage(body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        status, said = far_end(body)
        return status, said | {"usage": None}

    with serving(no_usage) as url, pytest.raises(BudgetReached, match="stopped in judgements"):
        judge(context_of(tmp_path, url, max_cost=0.01))
    assert far_end.asked == 4  # one batch of two pairs


def test_a_reply_that_broke_off_may_have_been_paid_for(tmp_path: Path) -> None:
    broken: list[int] = []

    def far_end(body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if not broken:
            broken.append(most_of(body))
            return 200, {"choices": []}
        return 200, completion('{"better": "A"}') | {"usage": {"prompt_tokens": 100, "completion_tokens": 10}}

    with serving(far_end) as url:
        context = context_of(tmp_path, url)
        judge(context)
    (report,) = (report for report in context.reports if report.name == "judgements")
    assert (report.tokens, report.estimated) == (CALLS * 110 + broken[0], broken[0])


def test_what_a_judge_was_paid_in_a_run_that_was_killed_is_spent(tmp_path: Path) -> None:
    far_end = FarEnd(replies=7)
    with serving(far_end) as url:
        killed = context_of(tmp_path, url)
        for name in BEFORE:
            run_stage(killed, stage_named(name))
        with pytest.raises(ModelError):  # in the second batch, and nobody records it: so does a kill
            run_stage(killed, stage_named("judgements"))
        assert spent(context_of(tmp_path, url)) == pytest.approx(7 * 0.12)
        far_end.replies = 1_000
        with pytest.raises(BudgetReached, match=r"0\.84 USD of max_cost 0\.8 USD"):
            judge(context_of(tmp_path, url, max_cost=0.8))
        assert far_end.asked == 7
        judge(context_of(tmp_path, url))
        again = context_of(tmp_path, url)
        judge(again)
    assert far_end.asked == CALLS
    assert spent(again) == pytest.approx(CALLS * 0.12)
    (left,) = (tmp_path / "w" / "journal").glob("paid-*")  # of the run that was killed
    assert killed.run_id in left.name


def test_at_the_limit_what_costs_nothing_goes_on(tmp_path: Path) -> None:
    scored: list[str] = []

    def far_end(body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if "max_tokens" in body:
            return 200, completion('{"score": 3}') | {"usage": {"prompt_tokens": 100, "completion_tokens": 10}}
        scored.append(body["messages"][-1]["content"])
        return 200, {"data": [{"probs": [1.5]}]}

    with serving(far_end) as url:
        context = context_of(tmp_path, url, max_cost=0.1)
        rewards = [
            {"model": f"judge:{url}#m", "batch_rows": 2},
            {"model": f"{url}/classify#free"},
            {"model": f"judge:{url}#gratis"},
        ]
        recipe = context.recipe.model_dump() | {"rewards": rewards}
        recipe["costs"]["prices"]["gratis"] = {"prompt": 0, "completion": 0}
        context.recipe = Recipe.model_validate(recipe)
        for name in ("inputs", "hygiene", "prompts", "candidates"):
            run_stage(context, stage_named(name))
        with pytest.raises(BudgetReached, match="stopped in rewards"):
            run_stage(context, stage_named("rewards"))
    assert len(scored) == 12
    counts = context.workspace.read("rewards")["model"].str.extract("(free|gratis|m@)").value_counts()
    assert dict(counts.iter_rows()) == {"m@": 2, "free": 12, "gratis": 12}


def test_after_ctrl_c_an_unreadable_reply_is_asked_for_again_when_it_is_tried_again(tmp_path: Path) -> None:
    asked: list[str] = []

    def far_end(body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        asked.append(body["messages"][-1]["content"])
        if len(asked) == 1:
            signal.raise_signal(signal.SIGINT)
        return 200, completion("hm" if asked.count(asked[-1]) == 1 else '{"better": "A"}')

    with serving(far_end) as url:
        with pytest.raises(InterruptedRun):
            judge(context_of(tmp_path, url, batch_rows=2))
        assert len(asked) == 4
        judge(context_of(tmp_path, url, batch_rows=6, retry=True))
    assert len(asked) == len(set(asked)) + 4
    assert not list((tmp_path / "w" / "journal").glob("replies-*"))


def test_replies_whose_batch_is_in_the_ledger_are_let_go_while_others_wait(tmp_path: Path) -> None:
    kept = KeptReplies(tmp_path / "r")
    for key in "abc":
        assert kept.find(key) is None
        kept.add(key, {"text": key})
    assert (kept.find("b") or {})["text"] == "b"
    kept.close()
    second = KeptReplies(tmp_path / "r")
    assert second.find("a") is not None
    second.add("d", {})
    second.forget()
    second.close()
    third = KeptReplies(tmp_path / "r")
    assert [key for key in "abcd" if third.find(key) is not None] == ["b", "c"]
    third.forget()
    third.close()
    assert not (tmp_path / "r").exists()


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


class Taken:
    """A lease that another run takes once so many requests have come."""

    def __init__(self, far_end: FarEnd, after: int) -> None:
        self.far_end, self.after = far_end, after

    def is_lost(self) -> bool:
        return self.far_end.asked >= self.after


def test_a_run_whose_workspace_was_taken_asks_a_judge_for_nothing_more(tmp_path: Path) -> None:
    far_end = FarEnd()
    with serving(far_end) as url:
        context = context_of(tmp_path, url, batch_rows=2)
        for name in BEFORE:
            run_stage(context, stage_named(name))
        context.workspace._leases.append(Taken(far_end, 4))  # type: ignore[arg-type]
        with pytest.raises(WorkspaceError, match="another run took"):
            run_stage(context, stage_named("judgements"))
        assert far_end.asked == 4
        judge(context_of(tmp_path, url))
    assert far_end.asked == CALLS  # the replies of the batch that could not be written were kept
