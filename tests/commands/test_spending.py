"""A command on a file stays within max_cost, over all the times that it is given for one output."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from curation.cli import app
from tests.models.rewards.test_judge import completion, serving

ROWS = 6
REPLY_COST = 0.12  # 100 tokens read, 10 written
REPLIES = {"better": "A", "score": 3, "verdict": "A", "kind": None, "category": "none"}


class FarEnd:
    """Every reply counts 100 tokens of the question and 10 of its own."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        self.asked += 1
        asked_for = body["response_format"]["json_schema"]["schema"]["properties"]
        said = json.dumps({name: value for name, value in REPLIES.items() if name in asked_for})
        return 200, completion(said) | {"usage": {"prompt_tokens": 100, "completion_tokens": 10}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = [
        {"prompt": f"Question {n}?", "chosen": f"good {n}", "rejected": f"poor {n}", "response": f"good {n}"}
        for n in range(ROWS)
    ]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def call(command: str, folder: Path, url: str, costs: dict[str, Any] | None) -> Any:
    options = ["--model", f"judge:{url}#m"]
    if command == "refusals":
        options = ["--judge", f"{url}#m", "--category-judge", f"{url}#m"]
    if costs is not None:
        (folder / "costs.yaml").write_text(json.dumps({"costs": costs}))
        options += ["--costs", str(folder / "costs.yaml")]
    return CliRunner().invoke(app, [command, str(folder / "in.jsonl"), "-o", str(folder / "out.jsonl"), *options])


@pytest.mark.parametrize("command", ["judge", "rewards", "refusals"])
def test_no_chunk_is_begun_once_max_cost_is_spent_and_a_higher_one_goes_on(
    command: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"curation.commands.{command}._CHUNK_ROWS", 2)
    prices = {"m": {"prompt": 1000.0, "completion": 2000.0}}
    far_end = FarEnd()
    with serving(far_end) as url:
        for max_cost, asked in ((0.4, 4), (0.4, 4), (0.9, 8)):
            stopped = call(command, folder, url, {"prices": prices, "max_cost": max_cost})
            assert stopped.exit_code == 1
            assert f"USD of max_cost {max_cost:g} USD is spent" in str(stopped.exception)
            assert far_end.asked == asked
            assert not (folder / "out.jsonl").exists()
        done = call(command, folder, url, {"prices": prices, "max_cost": 100.0})
    assert done.exit_code == 0, done.output
    assert far_end.asked == 2 * ROWS
    assert f"440 tokens, {4 * REPLY_COST:g} USD paid; {12 * REPLY_COST:g} with what was paid before" in done.stderr
    assert sorted(path.name for path in folder.iterdir()) == ["costs.yaml", "in.jsonl", "out.jsonl"]


def test_without_costs_nothing_is_counted_and_without_a_price_max_cost_is_refused(folder: Path) -> None:
    far_end = FarEnd()
    with serving(far_end) as url:
        refused = call("judge", folder, url, {"max_cost": 1.0})
        assert "costs.prices has no price for 'm'" in str(refused.exception)
        assert far_end.asked == 0
        done = call("judge", folder, url, None)
    assert done.exit_code == 0
    assert "paid" not in done.stderr
