"""Scores of sources: which are compared with each other, and that no pair rests on two of other scales."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from curation.pairs.source_scores import source_scores, standings, with_one_scale
from curation.pipeline import RunResult, run
from curation.recipe import Recipe

Row = tuple[str, str, list[str], list[float | None] | None]
"""source, prompt, answers, their scores"""

PROMPT = "What is good for slugs?"


def inputs(rows: list[Row]) -> pl.DataFrame:
    schema = {
        "source": pl.String, "prompt_id": pl.String, "candidate_ids": pl.List(pl.String),
        "scores": pl.List(pl.Float64),
    }  # fmt: skip
    return pl.DataFrame(rows, schema=schema, orient="row")


def compared(rows: list[Row], **scales: str) -> list[dict[str, float]]:
    """The sets of answers that may be compared, each with its scores."""
    named = {source: scales.get(source) for source, *_ in rows}
    found = source_scores(inputs(rows), named)
    sets = found.partition_by("prompt_id", "compared")
    return [dict(part.select("candidate_id", "score").iter_rows()) for part in sets]


@pytest.mark.parametrize(
    ("rows", "sets"),
    [
        # Answers of one source, a row each; the mean of what several say of one.
        ([("s", "p", ["a"], [1]), ("s", "p", ["b"], [2]), ("s", "p", ["a"], [4])], [{"a": 2.5, "b": 2.0}]),
        # Two sources.
        ([("s", "p", ["a"], [4]), ("t", "p", ["b"], [0.9])], [{"a": 4.0}, {"b": 0.9}]),
        # Ranks, or the winner of a match, hold within their row.
        ([("s", "p", ["a", "b"], [1, 0]), ("s", "p", ["c", "d"], [0, 0])],
         [{"a": 1.0, "b": 0.0}, {"c": 0.0, "d": 0.0}]),
        # And in rows of the same answers, whatever their order there.
        ([("s", "p", ["a", "b"], [1, 0]), ("s", "p", ["b", "a"], [1, 0])], [{"a": 0.5, "b": 0.5}]),
        # A row that lost an answer is still one of its own.
        ([("s", "p", ["a", "b"], [1, 0]), ("s", "p", ["c"], [1])], [{"a": 1.0, "b": 0.0}, {"c": 1.0}]),
        # No score, or none that is a number, is none.
        ([("s", "p", ["a", "b"], [1, None]), ("s", "p", ["c"], None)], [{"a": 1.0}]),
        ([("s", "p", ["a"], [1]), ("s", "q", ["b"], [2])], [{"a": 1.0}, {"b": 2.0}]),
    ],
)  # fmt: skip
def test_scores_are_compared_within_a_source_and_a_row(rows: list[Row], sets: list[dict[str, float]]) -> None:
    assert compared(rows) == sets


def test_scores_of_one_named_scale_are_compared_across_sources_and_rows() -> None:
    rows: list[Row] = [("s", "p", ["a", "b"], [1, 5]), ("t", "p", ["c"], [3]), ("u", "p", ["d"], [0.3])]
    assert compared(rows, s="stars", t="stars") == [{"a": 1.0, "b": 5.0, "c": 3.0}, {"d": 0.3}]
    assert compared(rows, s="u") == [{"a": 1.0, "b": 5.0}, {"c": 3.0}, {"d": 0.3}]  # a name is no source


def test_an_answer_of_two_scales_has_no_score_of_its_own() -> None:
    rows: list[Row] = [("s", "p", ["a", "b"], [4, 2]), ("t", "p", ["b"], [0.9]), ("s", "p", ["a", "c"], [2, 1])]
    scores = source_scores(inputs(rows), {"s": None, "t": None})
    assert dict(with_one_scale(scores).iter_rows()) == {"a": 3.0, "b": None, "c": 1.0}


def test_answers_of_different_scales_stand_in_one_order() -> None:
    rows: list[Row] = [
        ("s", "p", ["a"], [4]), ("s", "p", ["b"], [5]), ("s", "q", ["c"], [1]),
        ("t", "p", ["d"], [90]), ("t", "p", ["e"], [10]), ("t", "p", ["b"], [95]),
    ]  # fmt: skip
    found = dict(standings(source_scores(inputs(rows), {"s": None, "t": None})).iter_rows())
    assert sorted(found, key=lambda answer: found[answer]) == ["c", "e", "a", "d", "b"]
    assert found["a"] == found["d"] == 0.5  # the middle of either


@pytest.mark.parametrize("scale", [None, "stars"])
def test_of_near_duplicates_the_best_by_several_scales_stays(tmp_path: Path, scale: str | None) -> None:
    good, near, other = "Copper tape keeps slugs away from pots", "Copper tape keeps slugs away from pots!", "Salt"
    rows = [{"prompt": PROMPT, "response": text, "score": score} for text, score in ((good, 5), (other, 1))]
    again = [{"prompt": PROMPT, "response": text, "score": score} for text, score in ((good, 5), (near, 4))]
    hygiene = {"answers": [{"method": "minhash", "threshold": 0.7, "keep": "best"}]}
    result = done(tmp_path, {"s": rows, "t": again}, scale=scale, hygiene=hygiene, strategies=["best_vs_worst"])
    kept = result.workspace.read("candidates")["response"].to_list()
    assert (good in kept, near in kept) == (True, False)


def done(
    folder: Path, sources: dict[str, list[dict[str, Any]]], *, scale: str | None = None, **pairs: Any
) -> RunResult:
    top = pairs.pop("top", {})
    for name, rows in sources.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    given: dict[str, Any] = {
        "sources": [{"path": str(folder / f"{name}.jsonl"), "score_scale": scale} for name in sources],
        "encoder": None, "rewards": pairs.pop("rewards", []), "refusals": None, "policy": None,
        "splits": {"train": 1.0, "validation": 0.0, "test": 0.0},
        "hygiene": pairs.pop("hygiene", {}),
        "pairs": {"score": "provided", **pairs},
        "gates": {"max_duplicate_rate": 1.0},
        "publish": {"datasets": ["preference"]},
        **top,
    }  # fmt: skip
    return run(Recipe.model_validate(given), workspace=folder / "workspace")


def said(result: RunResult) -> set[tuple[str, str]]:
    published = result.workspace.read("preference")
    sides = [published[side].list.first().struct.field("content") for side in ("chosen", "rejected")]
    return set(zip(*(side.to_list() for side in sides), strict=True))


STARS = [
    {"prompt": PROMPT, "response": "Beer traps.", "score": 2},
    {"prompt": PROMPT, "response": "Salt.", "score": 1},
]
SHARES = [
    {"prompt": PROMPT, "response": "Toads.", "score": 0.9},
    {"prompt": PROMPT, "response": "Wishes.", "score": 0.1},
]


@pytest.mark.parametrize(
    "strategy",
    ["best_vs_worst", "best_vs_random", "best_vs_median", "best_vs_each", "all", "tournament", "diverse"],
)
def test_no_pair_compares_the_scores_of_two_sources(tmp_path: Path, strategy: str) -> None:
    result = done(tmp_path, {"stars": STARS, "shares": SHARES}, strategies=[strategy])
    assert said(result) == {("Beer traps.", "Salt."), ("Toads.", "Wishes.")}
    facts = next(stage.facts for stage in result.stages if stage.stage == "pairs")
    assert facts["prompts with scores that are not all compared"].startswith("1, of several sources")


def test_a_shared_scale_compares_them_and_has_nothing_to_tell(tmp_path: Path) -> None:
    result = done(tmp_path, {"stars": STARS, "shares": SHARES}, scale="one", strategies=["best_vs_worst"])
    assert said(result) == {("Beer traps.", "Wishes.")}
    facts = next(stage.facts for stage in result.stages if stage.stage == "pairs")
    assert "prompts with scores that are not all compared" not in facts


def test_a_prompt_whose_scores_are_each_of_another_source_says_so(tmp_path: Path) -> None:
    pair = {"prompt": "And for snails?", "responses": ["A board.", "Hope."], "scores": [5, 1]}
    result = done(
        tmp_path, {"stars": STARS[:1], "shares": SHARES[:1], "good": [pair]}, strategies=["best_vs_worst"]
    )
    assert said(result) == {("A board.", "Hope.")}
    rejects = result.workspace.read("rejects")
    assert rejects["rule"].to_list() == ["scores_not_comparable"]
    assert "2 scored candidates" in rejects["reason"][0]


def test_sources_that_say_the_opposite_of_two_answers_contradict_each_other(tmp_path: Path) -> None:
    other = [{**STARS[0], "score": 0.1}, {**STARS[1], "score": 0.9}]
    good = {"prompt": "And for snails?", "responses": ["A board.", "Hope."], "scores": [5, 1]}
    result = done(tmp_path, {"stars": STARS, "shares": other, "good": [good]}, strategies=["best_vs_worst"])
    assert said(result) == {("A board.", "Hope.")}
    assert set(result.workspace.read("rejects")["rule"]) == {"contradictory_pair"}


def test_a_pair_that_two_sources_agree_on_is_built_once(tmp_path: Path) -> None:
    both = [{**STARS[0], "score": 0.9}, {**STARS[1], "score": 0.1}]
    result = done(tmp_path, {"stars": STARS, "shares": both}, strategies=["all"])
    assert said(result) == {("Beer traps.", "Salt.")}
    assert result.workspace.read("rejects").is_empty()


LABELLED = [
    {"prompt": PROMPT, "chosen": "Salt.", "rejected": "Beer traps."},
    {
        "prompt": "And for snails?",
        "chosen": "A board.",
        "rejected": "Hope.",
        "score_chosen": 1,
        "score_rejected": 5,
    },
    {"prompt": "And for aphids?", "chosen": "Soap.", "rejected": "Luck.", "score_chosen": 5, "score_rejected": 1},
]


def test_a_pair_by_scores_that_a_source_has_the_other_way_round_goes(tmp_path: Path) -> None:
    result = done(tmp_path, {"stars": STARS, "labelled": LABELLED}, strategies=["best_vs_worst"])
    assert said(result) == {("Soap.", "Luck.")}
    rejects = result.workspace.read("rejects").filter(pl.col("rule") == "contradictory_pair")
    assert rejects["reason"].to_list() == ["a source says the opposite of the same two answers"] * 2


def test_a_pair_that_the_scores_of_another_source_speak_against_goes(tmp_path: Path) -> None:
    one = [{"prompt": PROMPT, "response": text, "score": score} for text, score in (("a", 3), ("b", 2))]
    other = [{"prompt": PROMPT, "response": text, "score": score} for text, score in (("b", 8), ("a", 7), ("c", 9))]
    result = done(tmp_path, {"one": one, "other": other}, strategies=["best_vs_each"])
    assert said(result) == {("c", "a"), ("c", "b")}
    rejects = result.workspace.read("rejects")
    assert rejects.select("rule", "reason").rows() == [
        ("contradictory_pair", "a source says the opposite of the same two answers")
    ]


def test_labels_that_contradict_their_own_scores_are_counted(tmp_path: Path) -> None:
    result = done(tmp_path, {"labelled": LABELLED}, strategies=["provided"])
    assert said(result) == {("Salt.", "Beer traps."), ("A board.", "Hope."), ("Soap.", "Luck.")}
    facts = next(stage.facts for stage in result.stages if stage.stage == "pairs")
    assert facts["pairs of sources whose own scores say the opposite"] == 1


def longest(prompts: list[Any], answers: list[str]) -> list[float]:
    return [float(len(answer)) for answer in answers]


def test_reward_models_may_say_the_opposite_of_a_source_and_it_is_counted(tmp_path: Path) -> None:
    rewards = [{"model": f"python:{__name__}:longest"}]
    result = done(tmp_path, {"labelled": LABELLED}, strategies=["best_vs_worst"], score="rewards", rewards=rewards)
    assert ("Beer traps.", "Salt.") in said(result)
    facts = next(stage.facts for stage in result.stages if stage.stage == "pairs")
    assert facts["pairs that a source has the other way round"] == 1


COARSE = [(5, 1), (4, 2), (5, 4)]
FINE = [(0.9, 0.1), (0.6, 0.2), (0.7, 0.5)]
"""Their margins are a fifth of the coarse ones."""


def two_scales(folder: Path, **pairs: Any) -> RunResult:
    def rows(name: str, scores: list[tuple[float, float]]) -> list[dict[str, Any]]:
        return [
            {"prompt": f"{name} {i}?", "responses": [f"{name} good {i}", f"{name} bad {i}"], "scores": list(both)}
            for i, both in enumerate(scores)
        ]

    given = {"coarse": rows("coarse", COARSE), "fine": rows("fine", FINE)}
    return done(folder, given, strategies=["best_vs_worst"], **pairs)


def test_margins_of_two_scales_are_published_over_the_spread_of_each(tmp_path: Path) -> None:
    result = two_scales(tmp_path)
    built = result.workspace.read("pairs")
    assert dict(built.select("margin_scale", "margin").group_by("margin_scale").agg("margin").iter_rows()) == {
        "source coarse": [4.0, 2.0, 1.0],
        "source fine": pytest.approx([0.8, 0.4, 0.2]),
    }
    published = result.workspace.read("preference").sort("source", "margin", descending=[False, True])
    assert published["margin"].to_list() == pytest.approx([m / 1.4826 for m in (2.0, 1.0, 0.5)] * 2)
    facts = next(stage.facts for stage in result.stages if stage.stage == "preference")
    assert facts["scales of the margins"].startswith("2, ")


def test_margins_of_one_scale_stay_as_they_are(tmp_path: Path) -> None:
    result = two_scales(tmp_path, scale="one")
    assert sorted(result.workspace.read("preference")["margin"]) == pytest.approx([0.2, 0.4, 0.8, 1.0, 2.0, 4.0])
    facts = next(stage.facts for stage in result.stages if stage.stage == "preference")
    assert "scales of the margins" not in facts


def test_a_curriculum_by_margin_orders_the_pairs_of_two_scales_together(tmp_path: Path) -> None:
    recipe_pairs: dict[str, Any] = {"selection": {"curriculum": {"by": "margin", "tiers": 3}}}
    rows = two_scales(tmp_path, top=recipe_pairs).workspace.read("preference").sort("curriculum_order")
    tiers = rows.group_by("curriculum_tier", maintain_order=True).agg(pl.col("source").sort())
    assert tiers["source"].to_list() == [["coarse", "fine"]] * 3


def test_the_card_of_reward_data_says_what_its_margins_are(tmp_path: Path) -> None:
    top = {"publish": {"datasets": ["reward"]}}
    for folder, scale, word in (
        ("apart", None, "several scales"),
        ("together", "one", "own scores, unchanged"),
    ):
        (tmp_path / folder).mkdir()
        result = two_scales(tmp_path / folder, top=top, scale=scale)
        card = Path(result.workspace.dataset_path("reward"), "README.md").read_text()
        assert word in card
        assert "reward models, unchanged" not in card
