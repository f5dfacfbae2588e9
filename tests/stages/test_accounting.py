"""Every row of a source is published or rejected, exactly once."""

from __future__ import annotations

import gzip
import itertools
import json
from pathlib import Path

import polars as pl

from curation.pipeline import run
from curation.recipe import Recipe
from curation.stages.waterfall import pair_waterfall
from curation.summary import run_summary
from curation.text import pair_id
from curation.workspace import Workspace
from tests.stages.conftest import sentences


def recipe(path: Path) -> Recipe:
    return Recipe.model_validate(
        {
            "sources": [{"path": str(path), "name": "source"}],
            "selection": {
                "drop_refusal_pairs": True,
                "rules": [{"score": "ln_ches", "max_quantile": 0.8}, {"score": "strength_mean", "min": 0.0}],
            },
            "policy": {"max_length": 1024},
            "gates": {"max_duplicate_rate": 1.0},
        }
    )


def accounted(workspace: Workspace) -> dict[str, str]:
    """What became of each input row, followed from the source to its end; fails on two ends."""
    ends: dict[str, str] = {}

    def end(row: str, what: str) -> None:
        assert row not in ends, f"{row} ends as {ends[row]} and as {what}"
        ends[row] = what

    rejects = workspace.read("rejects").filter(pl.col("table").is_in(["inputs", "pairs"]))
    reason = dict(rejects.select("row_id", "rule").rows())
    assert len(reason) == rejects.height
    for row, rule in reason.items():
        if row.startswith("source#"):
            end(row, rule)
    published = set(workspace.read("preference")["pair_id"])
    for row in workspace.read("inputs").iter_rows(named=True):
        if row["input_id"] in ends:
            continue
        ids = row["candidate_ids"]
        pair = pair_id(row["prompt_id"], ids[row["chosen_index"]], ids[row["rejected_index"]])
        assert (pair in published) != (pair in reason), row["input_id"]
        end(row["input_id"], reason.get(pair, "published"))
    return ends


def check(source: Path, rows: int, workspace: Path, limit: int | None = None) -> dict[str, str]:
    result = run(recipe(source), workspace=workspace, limit=limit)
    ends = accounted(result.workspace)
    assert set(ends) == {f"source#{i}" for i in range(rows)}
    waterfall = result.workspace.read("waterfall").filter(pl.col("dataset") == "preference").sort("position")
    assert waterfall["left"][0] + waterfall["removed"][0] == rows
    assert waterfall["left"][-1] == sum(end == "published" for end in ends.values())
    for previous, row in itertools.pairwise(waterfall.iter_rows(named=True)):
        assert row["left"] == previous["left"] - row["removed"]
    return ends


def test_real_dialogues_add_up(shared_data: Path, tmp_path: Path) -> None:
    ends = check(shared_data / "hh_harmless" / "test.jsonl.gz", 150, tmp_path / "w", limit=150)
    assert 0 < sum(end == "published" for end in ends.values()) < 150


def test_real_rows_with_every_kind_of_fault_add_up(shared_data: Path, tmp_path: Path) -> None:
    with gzip.open(shared_data / "hh_harmless" / "test.jsonl.gz", "rt") as file:
        good = [json.loads(line) for line in itertools.islice(file, 30)]
    plain = {"prompt": "How do tides work?", "chosen": "The moon pulls the sea.", "rejected": "No idea."}
    faulty = [
        {"chosen": good[0]["chosen"], "rejected": good[0]["chosen"]},
        good[1],
        {"chosen": good[2]["rejected"], "rejected": good[2]["chosen"]},
        {"chosen": None, "rejected": good[3]["rejected"]},
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in good + faulty), encoding="utf-8")
    ends = check(path, len(good) + len(faulty), tmp_path / "w")
    assert ends["source#31"] == "duplicate_pair"
    assert ends["source#32"] == ends["source#2"] == "contradictory_pair"
    own = tmp_path / "own.jsonl"
    texts = [
        plain,
        *sentences(8),
        plain | {"chosen": ""},
        plain | {"rejected": " \n"},
        plain | {"chosen": "bad \ud800"},
        plain | {"rejected": "nul \x00"},
        plain | {"prompt": [{"role": "narrator", "content": "x"}]},
        plain | {"chosen": "x" * 100_000},
        plain | {"rejected": plain["chosen"]},
    ]
    own.write_text("".join(json.dumps(row) + "\n" for row in texts), encoding="utf-8")
    ends = check(own, len(texts), tmp_path / "w2")
    assert {ends[f"source#{i}"] for i in (9, 10)} == {"empty_response"}
    assert ends["source#11"] == "invalid_unicode"
    assert ends["source#12"] == "nul_character"
    assert ends["source#13"] == "unknown_role"
    assert ends["source#14"] == "ln_ches_missing"
    assert ends["source#15"] == "chosen_equals_rejected"


def test_rows_that_could_not_be_read_are_told_at_the_end_where_pairs_are_built(tmp_path: Path) -> None:
    rows = [
        {
            "prompt": f"Which number follows {i}?",
            "responses": [f"It is {i + 1}.", "Nobody knows."],
            "scores": [9, 1],
        }
        for i in range(3)
    ]
    (tmp_path / "rows.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in [*rows, {"prompt": "And then?"}, rows[0] | {"prompt": ""}])
    )
    built = Recipe.model_validate(
        {
            "sources": [{"path": str(tmp_path / "rows.jsonl"), "name": "source", "format": "responses"}],
            "encoder": None, "rewards": [], "refusals": None, "policy": None,
            "pairs": {"strategies": ["best_vs_worst"], "score": "provided"},
            "publish": {"datasets": ["preference"]},
        }
    )  # fmt: skip
    result = run(built, workspace=tmp_path / "w")
    rejects = result.workspace.read("rejects").filter(pl.col("table") == "inputs")
    assert rejects.height == 2
    said = run_summary(result)
    told = said[said.index("other rejects") + 1 :]
    for rule, count in rejects["rule"].value_counts().iter_rows():
        assert [line.split()[-1] for line in told if f"inputs {rule} " in line] == [str(count)]


def test_a_waterfall_of_no_rejects_says_that_nothing_was_dropped() -> None:
    nothing = pl.DataFrame(schema={"table": pl.String, "stage": pl.String, "rule": pl.String})
    found = pair_waterfall(nothing, kept=38, tables=("pairs",))
    assert found.rows() == [("pairs", "nothing_dropped", 0, 38)]
