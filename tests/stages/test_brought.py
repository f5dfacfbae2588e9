"""A prompt that stands in several sources: whose pairs, shares and answers to forget they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl

from curation.stages import pairs as pairs_stage
from curation.stages.brought import pair_sources, prompts_of
from curation.stages.context import Context
from curation.stages.evidence import pair_evidence
from curation.text import response_id
from curation.workspace import Workspace
from tests.stages.test_pair_strategies import ROWS, done, fates, recipe

SHARED = "What is known of both?"


def with_shared(monkeypatch: Any) -> None:
    monkeypatch.setitem(ROWS[2], "prompt", SHARED)
    monkeypatch.setitem(ROWS[3], "prompt", SHARED)


def by_source(workspace: Workspace) -> dict[str, int]:
    return dict(workspace.read("preference")["source"].value_counts().iter_rows())


def test_a_pair_is_of_the_source_that_brought_its_answers(tmp_path: Path, monkeypatch: Any) -> None:
    with_shared(monkeypatch)
    together = [{"path": str(tmp_path / f"{name}.jsonl"), "score_scale": "stars"} for name in ("first", "second")]
    options = {"sources": together, "gates": {"max_duplicate_rate": 1.0}}
    result = done(tmp_path, pairs={"strategies": ["all"]}, **options)
    workspace = result.workspace
    published = workspace.read("preference")
    theirs = {name: {a for row in part for a in row["responses"]} for name, part in
              (("first", ROWS[:3]), ("second", ROWS[3:]))}  # fmt: skip
    mixed = 0
    for row in published.filter(pl.col("prompt").list.first().struct["content"] == SHARED).iter_rows(named=True):
        said = {row[side][0]["content"] for side in ("chosen", "rejected")}
        found = [name for name, answers in theirs.items() if said <= answers]
        mixed += not found
        assert row["source"] == (found or ["first"])[0]
    assert mixed
    assert set(by_source(workspace)) == {"first", "second"}
    asked = recipe(tmp_path, pairs={"strategies": ["all"]})
    told = pair_evidence(Context(workspace, asked), texts=False).join(published, on="pair_id", suffix="_published")
    assert told["source"].to_list() == told["source_published"].to_list()


def test_a_mixture_counts_a_shared_prompt_for_the_source_that_it_names(tmp_path: Path, monkeypatch: Any) -> None:
    with_shared(monkeypatch)
    mixture = {"sources": {"second": 1}}
    result = done(tmp_path, pairs={"strategies": ["best_vs_each"]}, selection={"mixture": mixture},
                  gates={"max_duplicate_rate": 1.0})  # fmt: skip
    published = result.workspace.read("preference")
    assert set(published["source"]) == {"second"}
    assert published.filter(pl.col("prompt").list.first().struct["content"] == SHARED).height > 0
    fates(result)


def test_sources_of_pairs_are_those_of_a_plain_loop(tmp_path: Path, monkeypatch: Any) -> None:
    with_shared(monkeypatch)
    workspace = done(tmp_path, pairs={"strategies": ["all"]}, gates={"max_duplicate_rate": 1.0}).workspace
    pairs, inputs = workspace.read("pairs"), workspace.read("inputs").to_dicts()
    for named in ((), ("first",), ("second",)):
        expected = []
        for pair in pairs.iter_rows(named=True):
            brought: dict[str, set[str]] = {}
            for row in inputs:
                if row["prompt_id"] == pair["prompt_id"]:
                    brought.setdefault(row["source"], set()).update(row["candidate_ids"])
            both = {pair["chosen_id"], pair["rejected_id"]}
            expected.append(max(brought, key=lambda s: (len(brought[s] & both), s in named)))
        shuffled = pairs.sample(fraction=1.0, shuffle=True, seed=3)
        assert pair_sources(workspace, pairs, named=named).to_list() == expected
        again = shuffled.with_columns(pair_sources(workspace, shuffled, named=named))
        assert (
            pairs.select("pair_id").join(again, on="pair_id", maintain_order="left")["source"].to_list() == expected
        )


def test_a_template_is_made_for_a_prompt_that_another_source_brings_first(tmp_path: Path, monkeypatch: Any) -> None:
    with_shared(monkeypatch)
    pairs = {"strategies": ["template_vs_forget"], "forget_sources": ["second"]}
    result = done(tmp_path, pairs=pairs, gates={"max_duplicate_rate": 1.0})
    published = result.workspace.read("preference")
    asked = {row["prompt"][0]["content"] for row in published.iter_rows(named=True)}
    assert asked == {row["prompt"] for row in ROWS[3:]}
    said = {row["rejected"][0]["content"] for row in published.iter_rows(named=True)}
    assert said == {answer for row in ROWS[3:] for answer in row["responses"]}
    assert by_source(result.workspace) == {"second": 8}


def test_the_prompts_of_a_named_source_are_mutated_whoever_brings_them_first(
    tmp_path: Path, monkeypatch: Any
) -> None:
    with_shared(monkeypatch)
    mutations = {"kinds": ["atbash"], "sources": ["second"]}
    workspace = done(tmp_path, pairs={"strategies": ["best_vs_worst"]}, mutations=mutations).workspace
    (shared,) = workspace.read("inputs").filter(pl.col("row") == 0, pl.col("source") == "second")["prompt_id"]
    assert shared in workspace.read("mutations")["parent_id"].to_list()
    children = workspace.read("prompts").filter(pl.col("parent_id") == shared)["prompt_id"].to_list()
    context = Context(workspace, recipe(tmp_path, pairs={"strategies": ["best_vs_worst"]}, mutations=mutations))
    assert children
    assert set(children) <= set(prompts_of(context, ["second"]))


def test_only_the_answers_of_the_forget_sources_are_forgotten(tmp_path: Path, monkeypatch: Any) -> None:
    with_shared(monkeypatch)
    monkeypatch.setitem(ROWS[3], "responses", [f"Other answer {letter}." for letter in "abcd"])
    workspace = done(tmp_path, pairs={"strategies": ["best_vs_worst"]}).workspace
    candidates = workspace.read("candidates")
    (shared,) = workspace.read("inputs").filter(pl.col("source") == "second").head(1)["prompt_id"]
    text = "I know nothing of it."
    template = candidates.filter(pl.col("prompt_id") == shared).head(1).with_columns(
        response=pl.lit(text), origin=pl.lit("template"), provided_score=pl.lit(None, pl.Float64),
        candidate_id=pl.lit(response_id(shared, text)),
    )  # fmt: skip
    workspace.overwrite("candidates", pl.concat([candidates, template]))
    for source, answers in (("first", ROWS[2]["responses"]), ("second", ROWS[3]["responses"])):
        forgetting = recipe(tmp_path, pairs={"strategies": ["template_vs_forget"], "forget_sources": [source]})
        context = Context(workspace, forgetting)
        assert shared in prompts_of(context, [source]).to_list()
        pairs_stage.STAGE.run(context)
        texts = dict(candidates.select("candidate_id", "response").iter_rows())
        found = workspace.read("pairs").filter(pl.col("prompt_id") == shared)
        assert {texts[r] for r in found["rejected_id"]} == set(answers)
