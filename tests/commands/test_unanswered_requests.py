"""A command that ends while a server answered only some requests keeps the answers, which were paid for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest
from typer.testing import CliRunner

from curation.cli import app
from tests.commands.test_kept_replies import ASKED, Far, arguments, file
from tests.models.rewards.test_judge import serving

__all__ = ["file"]


class Refusing(Far):
    """A server that refuses what it is asked of one row, until it is well."""

    def __init__(self, command: str) -> None:
        super().__init__(command, 1_000)
        self.is_well = False

    def __call__(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if not self.is_well and "good 3" in body["messages"][-1]["content"]:
            return 400, {"error": {"message": "not now", "type": "x", "code": 400}}
        return super().__call__(body)


@pytest.mark.parametrize(("command", "missing"), [("judge", 2), ("rewards", 1), ("refusals", 1)])
def test_the_same_command_asks_for_what_had_no_answer_alone(command: str, missing: int, file: Path) -> None:
    far, replies = Refusing(command), file.parent / "out.parquet.replies"
    with serving(far) as url:
        first = CliRunner().invoke(app, arguments(command, file.parent, url, "out.parquet"))
        assert first.exit_code == 0, first.output
        assert f"{missing} requests got no answer: the same command asks for those alone" in first.output
        assert len(far.asked) == ASKED[command] - missing
        far.is_well = True
        again = CliRunner().invoke(app, arguments(command, file.parent, url, "out.parquet"))
    assert again.exit_code == 0, again.output
    assert "got no answer" not in again.output
    assert len(far.asked) == len(set(far.asked)) == ASKED[command]
    assert not replies.exists()
    assert pl.read_parquet(file.parent / "out.parquet").height == 6


def test_where_no_reply_came_nothing_is_kept(file: Path) -> None:
    with serving(lambda body: (400, {"error": {"message": "no", "type": "x", "code": 400}})) as url:
        CliRunner().invoke(app, arguments("judge", file.parent, url, "out.parquet"))
    assert not (file.parent / "out.parquet.replies").exists()


def test_what_was_paid_for_the_answers_that_came_counts_when_the_others_are_asked(file: Path) -> None:
    far, paid = Refusing("rewards"), file.parent / "out.parquet.paid"
    costs = file.parent / "costs.yaml"
    costs.write_text("costs: {prices: {m: {prompt: 0, completion: 1000000}}}\n")
    with serving(far) as url:
        given = [*arguments("rewards", file.parent, url, "out.parquet"), "--costs", str(costs)]
        first = CliRunner().invoke(app, given)
        assert first.exit_code == 0, first.output
        assert paid.is_file()
        far.is_well = True
        again = CliRunner().invoke(app, given)
    assert "with what was paid before" in again.output
    assert not paid.exists()
