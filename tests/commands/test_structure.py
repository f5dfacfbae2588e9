"""``curation structure``: what pairs say of each other, file to file; and length control of strength."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from curation.cli import app
from curation.commands.strength import run_strength
from curation.commands.structure import run_structure
from curation.errors import InputError
from curation.scores.structure import length_bias


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return path


def pair(chosen: str, rejected: str, prompt: Any = "Why?", **more: Any) -> dict[str, Any]:
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected} | more


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    said = [
        pair("one", "two", source="a", mine=0),
        pair("two", "three", source="a", mine=1),
        pair("three", "one", source="a", mine=2),  # round in a circle
        pair("one", "four", source="a", mine=3),
        pair("x", "yy", "How?", source="a", mine=4),
        pair(
            "yy", "x", [{"role": "user", "content": "How?"}], source="b", mine=5
        ),  # the same two the other way round
        pair("x", "yy", "How?", source="a", mine=6),
        pair("one", "two", "Who?", source="b", mine=7),  # the same answers to another prompt
        pair("", "two", "Who?", source="b", mine=8),
    ]
    return write(tmp_path / "pairs.jsonl", said)


def test_cycles_and_contradictions_are_columns_and_nothing_is_dropped(rows: Path, tmp_path: Path) -> None:
    done = run_structure(rows, tmp_path / "out.parquet")
    out = pl.read_parquet(tmp_path / "out.parquet")
    assert out["mine"].to_list() == list(range(8))
    assert out["in_cycle"].to_list() == [True, True, True, False, True, True, True, False]
    assert out["cycle"].to_list() == [0, 0, 0, None, 1, 1, 1, None]
    assert out["judged_both_ways"].to_list() == [False] * 4 + [True] * 3 + [False]
    assert out["length_ratio"][1] == pytest.approx(3 / 5)
    assert done.rejected == {"empty_response": 1}
    assert done.counts["pairs in a cycle"] == 6
    assert done.counts["two answers judged both ways"] == 1
    assert done.counts["of them across sources"] == 1
    assert "rank correlation of strength and length ratio" not in done.counts
    assert done.counts["chosen is the longer answer, of pairs whose lengths differ"] == pytest.approx(
        2 / 6, abs=1e-4
    )


def test_cycles_are_dropped_with_a_reason(rows: Path, tmp_path: Path) -> None:
    out, arguments = tmp_path / "out.parquet", ["structure", str(rows), "-o", str(tmp_path / "out.parquet")]
    result = CliRunner().invoke(app, [*arguments, "--cycles", "drop"])
    assert result.exit_code == 0, result.output
    assert pl.read_parquet(out)["mine"].to_list() == [3, 7]
    rejects = pl.read_parquet(tmp_path / "out.rejects.parquet")
    assert rejects.filter(pl.col("rule") == "preference_cycle")["row"].to_list() == [0, 1, 2, 4, 5, 6]
    assert "pairs in a cycle: 6" in result.output
    with pytest.raises(InputError, match="expected keep or drop"):
        run_structure(rows, out, cycles="flip")  # type: ignore[arg-type]


def test_lengths_are_matched_among_what_is_left(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    sizes = random.integers(1, 200, (300, 2))
    said = [pair("a" * int(c + 40), "b" * int(r), f"What is {n}?") for n, (c, r) in enumerate(sizes)]
    said += [pair("a" * 9, "b", "circle"), pair("b", "a" * 9, "circle")]
    done = run_structure(write(tmp_path / "in.jsonl", said), tmp_path / "out.parquet", cycles="drop", matching=True)
    out = pl.read_parquet(tmp_path / "out.parquet")
    ratio = out["length_ratio"].log()
    assert (ratio > 0).sum() == (ratio < 0).sum() > 50
    assert done.rejected["preference_cycle"] == 2
    assert out.height + sum(done.rejected.values()) == 302
    again = run_structure(tmp_path / "in.jsonl", tmp_path / "again.parquet", cycles="drop", matching=True)
    assert again.rows == done.rows
    assert pl.read_parquet(tmp_path / "again.parquet").equals(out)


def test_the_bias_of_strength_is_told_where_the_file_has_strength(tmp_path: Path) -> None:
    said = [pair("a" * n, "b" * 20, f"What is {n}?", strength_mean=float(n - 20)) for n in range(1, 40)]
    done = run_structure(write(tmp_path / "in.jsonl", said), tmp_path / "out.parquet")
    assert done.counts["rank correlation of strength and length ratio"] == 1.0
    assert done.counts["the longer answer has the higher reward"] == 1.0


def test_equal_answers_are_no_circle(tmp_path: Path) -> None:
    done = run_structure(write(tmp_path / "in.jsonl", [pair("a", "a"), pair("a", "b")]), tmp_path / "out.parquet")
    assert done.counts["pairs in a cycle"] == 0
    assert done.rows + sum(done.rejected.values()) == 2


def test_a_file_of_rejects_alone_has_an_output(tmp_path: Path) -> None:
    for options in ({}, {"cycles": "drop", "matching": True}):
        done = run_structure(write(tmp_path / "in.jsonl", [pair("", "b")]), tmp_path / "out.parquet", **options)  # type: ignore[arg-type]
        assert (done.rows, done.rejected) == (0, {"empty_response": 1})
        assert "in_cycle" in pl.read_parquet_schema(tmp_path / "out.parquet")


# ---- strength ------------------------------------------------------------------------------------------------


def scored(folder: Path, count: int = 40) -> Path:
    """Rewards that are length and a little taste."""
    random = np.random.default_rng(1)
    said = []
    for n, (c, r) in enumerate(random.integers(5, 200, (count, 2))):
        taste = float(random.normal())
        texts = {"chosen": "a" * int(c), "rejected": [{"role": "assistant", "content": "b" * int(r)}]}
        said.append({"prompt": f"What is {n}?", **texts, "chosen_rewards": [float(np.log1p(c)) + taste, taste],
                     "rejected_rewards": [float(np.log1p(r)), 0.0]})  # fmt: skip
    return write(folder / "scored.jsonl", said)


def test_length_control_of_the_command_takes_out_what_follows_length(tmp_path: Path) -> None:
    source = scored(tmp_path)
    arguments = ["strength", str(source), "-o", str(tmp_path / "out.parquet"), "--scaling", "none"]
    result = CliRunner().invoke(app, [*arguments, "--length-control"])
    assert result.exit_code == 0, result.output
    assert "length is controlled" in result.output
    assert "from 40 pairs alone" in result.output
    rows = [json.loads(line) for line in source.read_text().splitlines()]
    sizes = [[len(row["chosen"]) for row in rows], [len(row["rejected"][0]["content"]) for row in rows]]
    margins = np.array([np.subtract(row["chosen_rewards"], row["rejected_rewards"]) for row in rows])
    expected = np.mean([length_bias(margins[:, model], *sizes).controlled for model in (0, 1)], axis=0)
    np.testing.assert_allclose(pl.read_parquet(tmp_path / "out.parquet")["strength_mean"], expected)
    assert CliRunner().invoke(app, arguments).exit_code == 0
    plain = pl.read_parquet(tmp_path / "out.parquet")["strength_mean"]
    np.testing.assert_allclose(plain, margins.mean(axis=1))


def test_scaling_and_thresholds_of_the_command_reach_strength(tmp_path: Path) -> None:
    source, out = scored(tmp_path), tmp_path / "out.parquet"
    arguments = ["strength", str(source), "-o", str(out), "--thresholds", "0.05,0.5,0.6", "--scaling", "none"]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    run_strength(source, tmp_path / "own.parquet", thresholds=(0.05, 0.5, 0.6), scaling="none")
    assert pl.read_parquet(out).equals(pl.read_parquet(tmp_path / "own.parquet"))
    run_strength(source, tmp_path / "other.parquet")
    other = pl.read_parquet(tmp_path / "other.parquet")
    assert other["strength_band"].to_list() != pl.read_parquet(out)["strength_band"].to_list()
    assert other["strength_mean"].to_list() != pl.read_parquet(out)["strength_mean"].to_list()
    for wrong in ("0.5", "a,b,c", "0.1,0.2,0.3,0.4"):
        result = CliRunner().invoke(app, ["strength", str(source), "-o", str(out), "--thresholds", wrong])
        assert isinstance(result.exception, InputError)
        assert "expected three numbers" in str(result.exception)
    result = CliRunner().invoke(app, ["strength", str(source), "-o", str(out), "--thresholds", "0.5,0.1,0.9"])
    assert isinstance(result.exception, InputError)


def test_length_control_flips_and_labels_like_strength_without_it(tmp_path: Path) -> None:
    rows = [json.loads(line) for line in scored(tmp_path).read_text().splitlines()]
    rows = [row | {"rejected": row["rejected"][0]["content"], "right": True} for row in rows]
    rows[3]["chosen"] = ""
    source, out = write(tmp_path / "in.jsonl", rows), tmp_path / "out.parquet"
    done = run_strength(source, out, length_control=True, labelled="right", actions={"likely_flipped": ["flip"]})
    assert done.rejected == {"empty_response": 1}
    assert "replaced" not in done.summary
    found = pl.read_parquet(out)
    given = pl.DataFrame([row for n, row in enumerate(rows) if n != 3])
    flipped = found["flipped"]
    assert flipped.any()
    assert found.filter(flipped)["chosen"].to_list() == given.filter(flipped)["rejected"].to_list()
    assert found["right"].to_list() == (~flipped).to_list()
    assert (found.filter(flipped)["strength_mean"] > 0).all()


def test_a_column_source_of_lists_names_no_sources(tmp_path: Path) -> None:
    both = [pair("a", "b", source=["x"]), pair("b", "a", source=["y"])]
    done = run_structure(write(tmp_path / "in.jsonl", both), tmp_path / "out.jsonl")
    assert (done.counts["two answers judged both ways"], done.counts["of them across sources"]) == (1, 0)
