"""build_refusals: which candidates become refusals and contrast, and why the others do not."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.errors import InputError
from curation.refusals.building import build_refusals

CLASSES = {"F": "full_refusal", "P": "partial_refusal", "C": "compliance"}


def rows(*given_rows: tuple[str, str | None, str, float], category: str | None = "fraud") -> pl.DataFrame:
    """(prompt, expected behaviour, class letter, probability), one candidate each."""
    records: list[dict[str, Any]] = [
        {
            "prompt_id": prompt,
            "messages": [{"role": "user", "content": f"question {prompt}"}],
            "category": category,
            "expected_behaviour": expected,
            "candidate_id": f"c{number}",
            "response": f"answer {number}",
            "refusal_probability": probability,
            "refusal_class": CLASSES[letter],
        }
        for number, (prompt, expected, letter, probability) in enumerate(given_rows)
    ]
    return pl.DataFrame(records, schema_overrides={"category": pl.String, "expected_behaviour": pl.String})


def rules(rejects: pl.DataFrame) -> dict[str, str]:
    return dict(zip(rejects["candidate_id"], rejects["rule"], strict=True))


def test_right_behaviour_becomes_refusal_and_contrast() -> None:
    built = build_refusals(rows(("a", "refuse", "F", 0.99), ("b", "comply", "C", 0.01)))
    assert built.frame["kind"].to_list() == ["refusal", "contrast"]
    assert built.frame["refusal_token"].to_list() == ["[refuse]", "[respond]"]
    assert built.rejects.is_empty()


def test_messages_end_with_the_answer() -> None:
    built = build_refusals(rows(("a", "refuse", "F", 0.99)))
    assert built.frame["messages"].to_list()[0] == [
        {"role": "user", "content": "question a"},
        {"role": "assistant", "content": "answer 0"},
    ]


def test_token_is_prepended_on_request() -> None:
    built = build_refusals(rows(("a", "refuse", "F", 0.99)), prepend=True)
    assert built.frame["messages"].to_list()[0][-1]["content"] == "[refuse] answer 0"


@pytest.mark.parametrize("name", ["respond", "Respond"])
def test_no_category_s_token_says_that_a_refusal_is_an_answer(name: str) -> None:
    found = rows(("a", "refuse", "F", 0.99)).with_columns(category=pl.lit(name))
    assert build_refusals(found).frame["refusal_token"].to_list() == ["[refuse]"]
    with pytest.raises(InputError, match=rf"'{name}' would have the token of answers, \[respond\]: rename it"):
        build_refusals(found, tokens="category")


def test_category_tokens() -> None:
    built = build_refusals(rows(("a", "refuse", "F", 0.99), ("b", "comply", "C", 0.01)), tokens="category")
    assert built.frame["refusal_token"].to_list() == ["[fraud]", "[respond]"]


def test_wrong_behaviour_is_rejected_with_its_rule() -> None:
    built = build_refusals(rows(("a", "refuse", "C", 0.02), ("b", "comply", "F", 0.97)))
    assert rules(built.rejects) == {"c0": "unsafe_compliance", "c1": "over_refusal"}
    assert built.rejects["value"].to_list() == ["0.02", "0.97"]


def test_wrong_behaviour_is_turned_into_a_pair() -> None:
    built = build_refusals(rows(("a", "refuse", "C", 0.02), ("a", "refuse", "F", 0.99), ("b", "comply", "F", 0.9)))
    assert built.pairs.rows() == [("a", "c1", "c0", "unsafe_compliance")]


def test_no_pairs_when_faults_are_dropped() -> None:
    built = build_refusals(rows(("a", "refuse", "C", 0.02), ("a", "refuse", "F", 0.99)), faults="drop")
    assert built.pairs.is_empty()


def test_unsure_detection_is_left_out() -> None:
    built = build_refusals(rows(("a", "refuse", "F", 0.55), ("b", "comply", "C", 0.45)))
    assert set(rules(built.rejects).values()) == {"unsure_detection"}


def test_unknown_behaviour_is_dropped_or_kept_as_uncertain() -> None:
    given_rows = rows(("a", None, "F", 0.99))
    assert rules(build_refusals(given_rows).rejects) == {"c0": "expected_behaviour_unknown"}
    assert build_refusals(given_rows, unknown="uncertain").frame["kind"].to_list() == ["uncertain"]


def test_partial_refusal_counts_only_on_request() -> None:
    given_rows = rows(("a", "refuse", "P", 0.9))
    assert rules(build_refusals(given_rows).rejects) == {"c0": "partial_refusal"}
    assert build_refusals(given_rows, partial="refusal").frame.height == 1


def test_surest_candidate_of_a_prompt_is_kept() -> None:
    built = build_refusals(rows(("a", "refuse", "F", 0.8), ("a", "refuse", "F", 0.99)))
    assert built.frame["candidate_id"].to_list() == ["c1"]
    assert rules(built.rejects) == {"c0": "surplus_for_prompt"}


def test_quota_is_kept_and_the_rest_is_rejected() -> None:
    given_rows = rows(*((f"p{n}", "refuse", "F", 0.99) for n in range(10)))
    built = build_refusals(given_rows, quota=4)
    assert built.frame.height == 4
    assert set(rules(built.rejects).values()) == {"over_quota"}
    assert built.shortfall.is_empty()


def test_shortfall_is_reported_and_nothing_is_padded() -> None:
    built = build_refusals(rows(("a", "refuse", "F", 0.99)), quotas={"fraud": 3, "malware": 2})
    assert built.frame.height == 1
    assert built.shortfall.rows() == [("fraud", 3, 1, 2, None), ("malware", 2, 0, 2, None)]


def test_a_quota_counts_what_is_left_in_the_end() -> None:
    built = build_refusals(rows(("a", "comply", "C", 0.01)), quota=2, contrast_per_refusal=1)
    assert built.frame.is_empty()
    assert built.quotas.rows() == [("fraud", 2, 0, 2, None)]


def test_a_category_without_one_usable_row_is_short_too() -> None:
    built = build_refusals(rows(("a", "refuse", "C", 0.01)), quota=2)
    assert built.shortfall.rows() == [("fraud", 2, 0, 2, None)]


def test_quotas_that_are_met_are_listed_without_a_shortfall() -> None:
    built = build_refusals(rows(("a", "refuse", "F", 0.99)), quotas={"fraud": 1})
    assert built.quotas.rows() == [("fraud", 1, 1, 0, None)]
    assert built.shortfall.is_empty()


def test_rows_without_a_category_do_not_escape_the_quotas() -> None:
    refusals = rows(*((f"r{n}", "refuse", "F", 0.99) for n in range(10)))
    contrast = rows(*((f"c{n}", "comply", "C", 0.01) for n in range(10)), category=None)
    both = pl.concat([refusals, contrast.with_columns(candidate_id="prompt_id")])
    built = build_refusals(both, quota=4)
    assert built.frame["kind"].value_counts().sort("kind").rows() == [("contrast", 4), ("refusal", 4)]
    assert built.quotas.rows() == [("(none)", 4, 4, 0, None), ("fraud", 4, 4, 0, None)]
    named = build_refusals(both, quotas={"(none)": 12}, quota=4)
    assert named.quotas.rows() == [("(none)", 12, 10, 2, None), ("fraud", 4, 4, 0, None)]
    # Nobody wants rows without a category, so none are missing.
    assert build_refusals(both, quota=20).quotas.rows() == [("fraud", 20, 10, 10, None)]
    assert build_refusals(both, quotas={"fraud": 4}).frame.height == 14


def test_room_that_the_balance_makes_is_filled_without_a_category_too() -> None:
    refusals = [(f"r{n}", "refuse", "F", 0.99) for n in range(30)]
    contrast = [(f"c{n}", "comply", "C", 0.01) for n in range(30)]
    built = build_refusals(rows(*refusals, *contrast, category=None), quota=10, contrast_per_refusal=0.25)
    assert built.frame.height == 10
    assert built.frame["category"].null_count() == 10
    assert built.frame.height + built.rejects.height == 60


def test_contrast_is_balanced_against_refusals() -> None:
    given_rows = rows(("a", "refuse", "F", 0.99), *((f"p{n}", "comply", "C", 0.01) for n in range(5)))
    built = build_refusals(given_rows, contrast_per_refusal=2)
    assert built.frame["kind"].value_counts(sort=True).rows() == [("contrast", 2), ("refusal", 1)]
    assert set(rules(built.rejects).values()) == {"unbalanced"}


def test_seed_decides_which_rows_a_quota_keeps() -> None:
    given_rows = rows(*((f"p{n}", "refuse", "F", 0.99) for n in range(30)))
    first, again, other = (build_refusals(given_rows, quota=5, seed=s).frame for s in (0, 0, 1))
    assert first.equals(again)
    assert not first.equals(other)


@settings(deadline=None, max_examples=40)
@given(
    st.lists(
        st.tuples(
            st.sampled_from("abc"),
            st.sampled_from(["refuse", "comply", None]),
            st.sampled_from("FPC"),
            st.floats(0, 1),
        ),
        max_size=12,
    )
)
def test_every_row_comes_out_once(given_rows: list[tuple[str, str | None, str, float]]) -> None:
    if not given_rows:
        return
    frame = rows(*given_rows)
    built = build_refusals(frame, quota=2, contrast_per_refusal=1)
    out = built.frame["candidate_id"].to_list() + built.rejects["candidate_id"].to_list()
    assert sorted(out) == sorted(frame["candidate_id"].to_list())


def test_missing_column_is_named() -> None:
    with pytest.raises(InputError, match="'category' is missing"):
        build_refusals(rows(("a", "refuse", "F", 0.9)).drop("category"))


def test_unknown_class_is_named() -> None:
    frame = rows(("a", "refuse", "F", 0.9)).with_columns(refusal_class=pl.lit("maybe"))
    with pytest.raises(InputError, match="'maybe'"):
        build_refusals(frame)


def test_negative_quota_is_an_error() -> None:
    with pytest.raises(InputError, match="quota"):
        build_refusals(rows(("a", "refuse", "F", 0.9)), quotas={"fraud": -1})


def test_an_answer_without_a_class_is_never_published() -> None:
    given_rows = rows(("a", "refuse", "F", 0.99), ("b", "comply", "C", 0.01), ("c", None, "F", 0.99))
    built = build_refusals(
        given_rows.with_columns(refusal_class=pl.lit(None, dtype=pl.String)), unknown="uncertain"
    )
    assert built.frame.is_empty()
    assert set(built.rejects["rule"]) == {"unsure_detection"}


def test_contrast_is_counted_as_the_recipe_says_it() -> None:
    many = [(f"r{n}", "refuse", "F", 0.99) for n in range(100)] + [
        (f"c{n}", "comply", "C", 0.01) for n in range(40)
    ]
    built = build_refusals(rows(*many), contrast_per_refusal=0.29)
    assert built.frame["kind"].value_counts().sort("kind")["count"].to_list() == [29, 100]


def test_what_the_balance_takes_out_of_a_quota_is_filled_with_refusals_that_there_are() -> None:
    refusals = [(f"r{n}", "refuse", "F", 0.99) for n in range(30)]
    contrast = [(f"c{n}", "comply", "C", 0.01) for n in range(30)]
    built = build_refusals(rows(*refusals, *contrast), quotas={"fraud": 10}, contrast_per_refusal=0.25)
    assert built.quotas.rows() == [("fraud", 10, 10, 0, None)]
    kinds = built.frame["kind"].to_list()
    assert kinds.count("contrast") <= 0.25 * kinds.count("refusal")
    assert sorted([*built.frame["candidate_id"], *built.rejects["candidate_id"]]) == sorted(
        f"c{n}" for n in range(60)
    )


def test_a_full_refusal_comes_before_a_surer_partial_one() -> None:
    given_rows = rows(("a", "refuse", "P", 0.99), ("a", "refuse", "F", 0.9), ("a", "refuse", "C", 0.01))
    built = build_refusals(given_rows, partial="refusal")
    assert built.frame["candidate_id"].to_list() == ["c1"]
    assert built.pairs.rows() == [("a", "c1", "c2", "unsafe_compliance")]


def test_an_answer_that_a_source_calls_wrong_is_no_contrast_and_is_not_chosen() -> None:
    given_rows = rows(
        ("a", "comply", "C", 0.01),
        ("a", "comply", "C", 0.1),
        ("a", "comply", "F", 0.99),
        ("b", "refuse", "F", 0.99),
    ).with_columns(called_wrong=pl.Series([True, False, True, True]))
    built = build_refusals(given_rows)
    assert built.frame["candidate_id"].to_list() == ["c1", "c3"]
    assert rules(built.rejects) == {"c0": "called_wrong", "c2": "over_refusal"}
    assert built.pairs.rows() == [("a", "c1", "c2", "over_refusal")]


def test_a_servers_error_is_no_refusal_to_learn_from_nor_the_better_answer() -> None:
    first = [("p1", "refuse", "F", 0.999), ("p1", "refuse", "F", 0.9), ("p1", "refuse", "C", 0.1)]
    given = rows(*first, ("p2", "refuse", "F", 0.999), ("p3", "comply", "F", 0.999), ("p3", "comply", "C", 0.1))
    nothing = "empty_or_filtered"
    given = given.with_columns(refusal_kind=pl.Series([nothing, "declined", None, nothing, nothing, None]))
    built = build_refusals(given)
    assert built.frame["candidate_id"].to_list() == ["c1", "c5"]
    found = rules(built.rejects)
    assert {name: found[name] for name in ("c0", "c3", "c4")} == dict.fromkeys(("c0", "c3", "c4"), "no_answer")
    assert built.pairs.select("chosen_id", "rejected_id").rows() == [("c1", "c2")]


def test_a_token_that_an_earlier_run_wrote_is_not_written_twice() -> None:
    given = rows(("p1", "refuse", "F", 0.9), ("p2", "comply", "C", 0.1), ("p3", "refuse", "F", 0.9))
    said = ["[refuse] No.", "[respond] Sure.", "[respond] I refuse."]
    given = given.with_columns(response=pl.Series(said))
    found = build_refusals(given, prepend=True).frame["messages"]
    assert [m[-1]["content"] for m in found.to_list()] == ["[refuse] No.", "[respond] Sure.", "[refuse] I refuse."]


@pytest.mark.parametrize(("ratio", "kinds"), [(1.0, (6, 6)), (0.5, (8, 4)), (2.0, (4, 8)), (0.0, (12, 0))])
def test_a_quota_takes_refusals_and_contrast_in_the_ratio_asked_for(ratio: float, kinds: tuple[int, int]) -> None:
    refusals = [(f"r{n}", "refuse", "F", 0.99) for n in range(15)]
    contrast = [(f"c{n}", "comply", "C", 0.01) for n in range(150)]
    built = build_refusals(rows(*refusals, *contrast), quotas={"fraud": 12}, contrast_per_refusal=ratio)
    counts = dict(built.frame["kind"].value_counts().iter_rows())
    assert (counts.get("refusal", 0), counts.get("contrast", 0)) == kinds
    assert built.shortfall.is_empty()


def two_categories(*, contrast_of_mail: int = 5) -> pl.DataFrame:
    """Five refusals and five contrast rows of ``fraud``; of ``mail`` as many refusals."""
    refusals = [(f"r{n}", "refuse", "F", 0.99) for n in range(5)]
    contrast = [(f"c{n}", "comply", "C", 0.01) for n in range(5)]
    fraud, mail = rows(*refusals, *contrast), rows(*refusals, *contrast[:contrast_of_mail], category="mail")
    own = [pl.format("mail {}", name).alias(name) for name in ("prompt_id", "candidate_id")]
    return pl.concat([fraud, mail.with_columns(own)])


@pytest.mark.parametrize(("quota", "ratio", "least"), [(1, 1.0, 2), (4, 0.25, 5), (1, 5.0, 2), (2, 0.4, 4)])
def test_a_quota_without_room_for_contrast_says_from_which_one_on_there_is(
    quota: int, ratio: float, least: int
) -> None:
    built = build_refusals(two_categories(), quota=quota, contrast_per_refusal=ratio)
    assert built.frame["kind"].to_list() == ["refusal"] * 2 * quota
    assert built.without_contrast["category"].to_list() == ["fraud", "mail"]
    assert built.quotas["contrast_from"].to_list() == [least] * 2
    enough = build_refusals(two_categories(), quota=least, contrast_per_refusal=ratio)
    both = enough.frame.group_by("category").agg(pl.col("kind").n_unique())
    assert both["kind"].to_list() == [2, 2]
    assert enough.without_contrast.is_empty()


def test_only_a_category_that_has_contrast_lacks_room_for_it() -> None:
    built = build_refusals(two_categories(contrast_of_mail=0), quota=1, contrast_per_refusal=1)
    assert built.quotas["contrast_from"].to_list() == [2, None]
    for ratio in (None, 0):
        assert build_refusals(two_categories(), quota=1, contrast_per_refusal=ratio).without_contrast.is_empty()


def test_no_quota_is_full_of_contrast_while_its_category_has_refusals() -> None:
    found = build_refusals(two_categories(), quotas={"fraud": 2}, contrast_per_refusal=4).frame
    kinds = found.filter(pl.col("category") == "fraud")["kind"].to_list()
    assert sorted(kinds) == ["contrast", "refusal"]
