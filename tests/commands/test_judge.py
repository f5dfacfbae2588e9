"""``curation judge`` against a far end that has its own ways."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from curation.commands.judge import run_judge
from curation.errors import InputError
from tests.models.rewards.test_judge import completion, serving


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    rows = [
        {"prompt": f"Question {n}?", "chosen": f"good {n}", "rejected": f"poor {n}", "mine": n} for n in range(6)
    ]
    return write(tmp_path / "pairs.jsonl", rows)


def honest(body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    user = body["messages"][1]["content"]
    if "good 3" in user:
        return 200, completion("I would rather not say.")
    first = user.index("good") < user.index("poor")
    return 200, completion('{"better": "A"}' if first else '{"better": "B"}')


def test_verdicts_beside_the_users_columns_and_unreadable_replies_in_the_rejects(
    pairs: Path, tmp_path: Path
) -> None:
    with serving(honest) as url:
        done = run_judge(pairs, tmp_path / "out.parquet", model=f"judge:{url}#m?rubric=honesty")
    out = pl.read_parquet(tmp_path / "out.parquet")
    assert out["mine"].to_list() == [0, 1, 2, 4, 5]
    assert out["judge_verdict"].unique().to_list() == ["chosen"]
    assert out["judge_probability"].unique().to_list() == [1.0]
    assert out["judge_consistent"].all()
    assert done.rejected == {"judge_unparsable": 1}
    assert "rather not say" not in (tmp_path / "out.rejects.parquet").read_bytes().decode("latin-1")
    assert done.statistics.lean_to_first == 0.0
    assert done.statistics.compared == 5


def test_a_judge_of_judged_pairs_says_what_it_replaces(pairs: Path, tmp_path: Path) -> None:
    with serving(honest) as url:
        first = run_judge(pairs, tmp_path / "one.parquet", model=f"judge:{url}#m")
        again = run_judge(tmp_path / "one.parquet", tmp_path / "two.parquet", model=f"judge:{url}#m")
    assert "replaced" not in first.summary
    names = "judge_consistent, judge_probability, judge_verdict"
    assert f"replaced, because the file had columns of these names: {names}" in again.summary
    assert pl.read_parquet(tmp_path / "two.parquet").equals(pl.read_parquet(tmp_path / "one.parquet"))


def test_a_judge_that_always_takes_the_first_is_caught(pairs: Path, tmp_path: Path) -> None:
    with serving(lambda body: (200, completion('{"better": "A"}'))) as url:
        done = run_judge(pairs, tmp_path / "out.parquet", model=f"judge:{url}#m")
    assert done.verdicts == {"chosen": 0, "rejected": 0, "tie": 6}
    found = done.statistics
    assert (found.first_both, found.second_both, found.inconsistent, found.lean_to_first) == (1.0, 0.0, 1.0, 1.0)
    assert not pl.read_parquet(tmp_path / "out.parquet")["judge_consistent"].any()


def test_a_reward_model_is_no_judge(pairs: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no judge"):
        run_judge(pairs, tmp_path / "out.parquet", model="relevance")
    with pytest.raises(InputError, match="one rubric"):
        run_judge(pairs, tmp_path / "out.parquet", model="judge:http://h/v1#m?rubric=honesty,harmlessness")


@pytest.mark.parametrize("scale", ["low=1&high=10", "high=10", "rubric=honesty&low=0"])
def test_a_scale_means_nothing_where_pairs_are_compared(pairs: Path, tmp_path: Path, scale: str) -> None:
    with pytest.raises(InputError, match=r"mean nothing where pairs are compared.*leave the scale out"):
        run_judge(pairs, tmp_path / "out.parquet", model=f"judge:http://h/v1#m?{scale}")
    assert not (tmp_path / "out.parquet").exists()
