"""Drift between versions, against plain loops; and what the gates make of it."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.errors import GateError, RecipeError, WorkspaceError
from curation.pipeline import RunResult, run
from curation.publish.drift import DRIFT, population_stability, total_variation
from curation.publish.gates import check_gates
from curation.publish.languages import guess_languages
from curation.recipe import Recipe
from tests.assets.conftest import PLAIN
from tests.stages.conftest import sentences

values = st.lists(st.one_of(st.integers(0, 5).map(float), st.none(), st.just(math.nan)), min_size=100, max_size=300)


@settings(max_examples=40)
@given(values, values)
def test_population_stability_equals_a_plain_loop(before: list, after: list) -> None:
    old, new = ([v for v in side if v is not None and math.isfinite(v)] for side in (before, after))
    found = population_stability(*(pl.Series(side, dtype=pl.Float64) for side in (before, after)))
    if min(len(old), len(new)) < 100:
        assert found is None
        return
    bins = max(2, min(10, min(len(old), len(new)) // 20))
    edges = sorted({float(np.quantile(old, i / bins)) for i in range(1, bins)})
    expected = 0.0
    for number in range(len(edges) + 1):
        low = edges[number - 1] if number else -math.inf
        high = edges[number] if number < len(edges) else math.inf
        a, b = (max(sum(low <= v < high for v in side), 0.5) / len(side) for side in (old, new))
        expected += (b - a) * math.log(b / a)
    assert found == pytest.approx(expected, abs=1e-9)


def test_population_stability_of_known_shares() -> None:
    before = pl.Series([0.0] * 100 + [1.0] * 100)
    after = pl.Series([0.0] * 50 + [1.0] * 150)
    assert population_stability(before, after) == pytest.approx(2 * 0.25 * math.log(1.5 / 0.5) / 2, abs=1e-9)
    assert population_stability(before, before) == 0.0


groups = st.lists(st.sampled_from(["a", "b", "c", None]), max_size=30)


@given(groups, groups)
def test_total_variation_equals_a_plain_loop(before: list, after: list) -> None:
    found = total_variation(pl.Series(before, dtype=pl.String), pl.Series(after, dtype=pl.String))
    if not before or not after:
        assert found is None
        return
    old, new = Counter(before), Counter(after)
    expected = sum(abs(old[v] / len(before) - new[v] / len(after)) for v in {*old, *new}) / 2
    assert found is not None
    assert found[0] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("How do I keep the slugs off my lettuce, and what is it that you do?", "en"),
        ("Wie halte ich die Schnecken von dem Salat fern, und was ist das?", "de"),
        ("Comment est-ce que je protège les salades des limaces dans le jardin ?", "fr"),
        ("¿Cómo protejo las lechugas de los caracoles en el jardín, y con qué?", "es"),
        ("どうすればレタスを守れますか", "ja"),
        ("如何保护生菜不受蛞蝓侵害", "zh"),
        ("Как защитить салат от слизней?", "ru and other Cyrillic"),
        ("42", "unknown"),
        ("", "unknown"),
    ],
)
def test_the_language_of_a_sentence(text: str, language: str) -> None:
    assert guess_languages(pl.Series([text]))[0] == language


def frame(rows: int, **columns: Any) -> pl.DataFrame:
    given_columns = {"margin": np.linspace(0, 1, rows), "source": "a", "category": "x", **columns}
    return pl.DataFrame({"prompt_id": [str(i) for i in range(rows)], "split": ["train"] * rows, **given_columns})


@pytest.mark.parametrize(
    ("gate", "after"),
    [
        ("max_size_change", frame(90)),
        ("max_score_drift", frame(200, margin=np.linspace(2, 3, 200))),
        ("max_source_shift", frame(200, source=["a"] * 100 + ["b"] * 100)),
        ("max_category_shift", frame(200, category=["x"] * 100 + ["y"] * 100)),
        ("max_refusal_rate_change", frame(200, chosen_refusal_class=["full_refusal"] * 100 + ["compliance"] * 100)),
        ("max_language_shift", frame(200, chosen=[[{"role": "assistant", "content": "Это было давно"}]] * 200)),
    ],
)
def test_each_drift_gate_notices_its_own_drift(gate: str, after: pl.DataFrame) -> None:
    answer = [{"role": "assistant", "content": "This is what it was, and the rest of it"}]
    before = frame(200, chosen_refusal_class=["compliance"] * 200, chosen=[answer] * 200)
    results = check_gates({"preference": after}, previous={"preference": before})
    failed = {r.name for r in results if not r.passed and r.name in DRIFT}
    assert failed == {gate}
    same = check_gates({"preference": before}, previous={"preference": before})
    assert [r.name for r in same if not r.passed and r.name in DRIFT] == []


def test_a_gate_that_nobody_knows_is_an_error() -> None:
    with pytest.raises(RecipeError, match=r"there is no gate 'max_scores_drift' .did you mean 'max_score_drift'"):
        check_gates({}, {"max_scores_drift": 1.0})
    with pytest.raises(ValueError, match="max_score_drift"):
        Recipe.model_validate({"sources": [{"path": "x.jsonl"}], "gates": {"warn_only": ["max_scores_drift"]}})


def test_contaminated_prompts_are_counted_and_not_looked_for_unasked() -> None:
    rows = frame(3)
    (unasked,) = [r for r in check_gates({"preference": rows}) if r.name == "max_contaminated_prompts"]
    assert unasked.passed
    assert "names no evaluation sets" in unasked.message
    found = pl.Series(["1", "2", "elsewhere"])
    (asked,) = [r for r in check_gates({"preference": rows}, contaminated=found) if r.name == unasked.name]
    assert (asked.value, asked.passed, asked.blocking) == (2.0, False, True)


def published(
    folder: Path, rows: list[dict[str, str]], *, datasets: Any = ("preference",), **gates: Any
) -> RunResult:
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    sources = [{"path": str(folder / "pairs.jsonl")}]
    recipe = Recipe.model_validate(PLAIN | {"sources": sources, "gates": gates, "publish": {"datasets": datasets}})
    return run(recipe, workspace=folder / "workspace")


def test_the_first_version_says_that_there_is_nothing_to_compare(tmp_path: Path) -> None:
    result = published(tmp_path, sentences(12), datasets=("preference", "preference_unpaired"), warn_only=[])
    facts = next(stage.facts for stage in result.stages if stage.stage == "gates")
    assert facts["no drift to measure"] == "preference, preference_unpaired"
    size = result.workspace.read("gates").filter(name="max_size_change", dataset="preference")
    assert size["passed"].to_list() == [True]
    assert size["message"][0].endswith("or the same rows are published already")


def test_drift_blocks_where_it_is_to_block_and_the_last_good_version_stays(tmp_path: Path) -> None:
    published(tmp_path, sentences(12), warn_only=[])
    data = tmp_path / "workspace" / "datasets" / "preference" / "data"
    before = {path.name: path.read_bytes() for path in data.iterdir()}
    with pytest.raises(GateError, match=r"max_size_change: 66.67% is the change of the number of rows \(12 before"):
        published(tmp_path, sentences(4), warn_only=[])
    assert {path.name: path.read_bytes() for path in data.iterdir()} == before
    # What was refused is not what the next version is compared with.
    with pytest.raises(GateError, match="12 before, 4 now"):
        published(tmp_path, sentences(4), warn_only=[])
    published(tmp_path, sentences(4), warn_only=[], max_size_change=0.7)
    assert sum(pl.read_parquet(path).height for path in data.iterdir()) == 4


def test_drift_warns_by_default(tmp_path: Path) -> None:
    published(tmp_path, sentences(12))
    result = published(tmp_path, sentences(4))
    facts = next(stage.facts for stage in result.stages if stage.stage == "gates")
    assert "12 before, 4 now" in facts["warning of preference max_size_change"]


def test_a_published_folder_that_cannot_be_read_says_what_to_do(tmp_path: Path) -> None:
    published(tmp_path, sentences(12))
    next((tmp_path / "workspace" / "datasets" / "preference" / "data").iterdir()).write_bytes(b"broken")
    with pytest.raises(WorkspaceError, match="Restore the folder, or move it away"):
        published(tmp_path, sentences(13))
