"""Borrowed answers are about something else, and templates are spread over the prompts."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.candidates.off_topic import off_topic_answers
from curation.candidates.templates import bundled_templates, template_answers
from curation.errors import InputError

TOPICS = ("volcanoes", "chess", "bread", "glaciers", "violins", "bees", "sailing", "maps")


def world(count: int = 24) -> tuple[pl.DataFrame, pl.DataFrame]:
    rows = [
        {
            "prompt_id": f"p{i}",
            "text": f"Explain the most surprising property of {TOPICS[i % 8]} briefly",
            "family_id": f"f{i % 8}",
            "candidate_id": f"c{i}",
            "response": f"Few would guess: {TOPICS[i % 8]} turn out older and stranger by the count of {i}.",
        }
        for i in range(count)
    ]
    donors = pl.DataFrame(rows)
    return donors.select("prompt_id", "text", "family_id"), donors


def test_answers_come_from_another_family() -> None:
    prompts, donors = world()
    found = off_topic_answers(prompts, donors, max_similarity=0.9)
    joined = found.borrowed.join(prompts, on="prompt_id").join(
        donors.select("family_id", parent_id="candidate_id"), on="parent_id"
    )
    assert joined.height == found.borrowed.height == prompts.height
    assert (joined["family_id"] != joined["family_id_right"]).all()


def test_prompts_that_share_their_words_lend_nothing() -> None:
    # Four of five long words are the same in all of them: every one is a near-duplicate of every other.
    prompts, donors = world()
    found = off_topic_answers(prompts, donors, max_similarity=0.2)
    assert found.borrowed.is_empty()
    assert found.none_found.height == prompts.height


def test_an_answer_about_the_prompt_is_not_borrowed() -> None:
    prompts = pl.DataFrame({"prompt_id": ["p"], "text": ["How do glaciers move?"], "family_id": ["f"]})
    donors = pl.DataFrame(
        {
            "prompt_id": ["q"], "text": ["Name something cold."], "family_id": ["g"], "candidate_id": ["c"],
            "response": ["Well, glaciers are cold, and they move downhill because weight makes them flow."],
        }
    )  # fmt: skip
    assert off_topic_answers(prompts, donors).none_found["prompt_id"].to_list() == ["p"]


def test_short_answers_and_answers_to_several_prompts_are_no_donors() -> None:
    prompts, donors = world(2)
    stock = "I am sorry, but this is not a thing that I can talk about."
    same = donors.with_columns(response=pl.lit(stock))
    assert off_topic_answers(prompts, same, max_similarity=0.9).borrowed.is_empty()
    short = donors.with_columns(response=pl.lit("Yes and ") + pl.col("candidate_id"))
    assert off_topic_answers(prompts, short, max_similarity=0.9).borrowed.is_empty()


@settings(max_examples=20)
@given(st.permutations(range(24)), st.integers(0, 3))
def test_the_order_of_the_rows_does_not_matter(order: list[int], seed: int) -> None:
    prompts, donors = world()
    plain = off_topic_answers(prompts, donors, max_similarity=0.9, seed=seed)
    mixed = off_topic_answers(prompts[order], donors[order[::-1]], max_similarity=0.9, seed=seed)
    assert mixed.borrowed.sort("prompt_id").equals(plain.borrowed.sort("prompt_id"))


def test_seeds_draw_differently() -> None:
    prompts, donors = world()
    drawn = [
        off_topic_answers(prompts, donors, max_similarity=0.9, seed=s).borrowed["parent_id"].to_list()
        for s in (1, 2)
    ]
    assert drawn[0] != drawn[1]


def test_no_donors_and_no_prompts() -> None:
    prompts, donors = world()
    assert off_topic_answers(prompts, donors.clear()).none_found.height == prompts.height
    assert off_topic_answers(prompts.clear(), donors).borrowed.is_empty()


def test_scripts_without_spaces() -> None:
    prompts = pl.DataFrame({"prompt_id": ["p"], "text": ["北京有什么好吃的"], "family_id": ["f"]})
    donors = pl.DataFrame(
        {
            "prompt_id": ["q", "r"], "text": ["北京有什么好吃的呢", "如何修理自行车"], "family_id": ["g", "h"],
            "candidate_id": ["c", "d"],
            "response": ["烤鸭和炸酱面都值得去尝一尝。", "先把链条取下再用布擦干净然后上油。"],
        }
    )  # fmt: skip
    found = [off_topic_answers(prompts, donors, seed=s).borrowed["parent_id"].to_list() for s in range(6)]
    assert found == [["d"]] * 6


@pytest.mark.parametrize("kind", ["refusal", "forget"])
def test_bundled_templates_are_spread(kind: str) -> None:
    ids = pl.Series([f"p{i}" for i in range(2000)])
    found = template_answers(ids, templates=bundled_templates(kind), seed=1)
    counts = found["response"].value_counts()["count"]
    assert len(counts) == len(bundled_templates(kind)) == 10
    assert counts.min() > 140  # type: ignore[operator]
    assert template_answers(ids.reverse(), templates=bundled_templates(kind), seed=1).reverse().equals(found)


@pytest.mark.parametrize("templates", [[], ["  "]])
def test_no_template_is_refused(templates: list[str]) -> None:
    with pytest.raises(InputError, match="template"):
        template_answers(pl.Series(["p"]), templates=templates)
