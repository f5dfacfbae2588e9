"""Splits: whole groups, stable under additions, near their fractions, leakage found."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation.errors import InputError
from curation.hygiene.splits import assign_splits, leaking_groups

FRACTIONS = {"train": 0.7, "validation": 0.1, "test": 0.2}


def prompts(count: int) -> pl.DataFrame:
    return pl.DataFrame({"prompt_id": [f"p{i}" for i in range(count)]}, schema={"prompt_id": pl.String})


def test_fractions_are_met_nearly() -> None:
    counts = dict(assign_splits(prompts(5000), fractions=FRACTIONS, seed=1)["split"].value_counts().iter_rows())
    for name, share in FRACTIONS.items():
        assert counts[name] == pytest.approx(5000 * share, abs=150)


def test_new_prompts_move_no_old_ones() -> None:
    old = assign_splits(prompts(300), fractions=FRACTIONS, seed=1)
    new = assign_splits(prompts(303), fractions=FRACTIONS, seed=1)
    assert new.head(300).equals(old)


def test_another_seed_gives_another_split() -> None:
    one = assign_splits(prompts(100), fractions=FRACTIONS, seed=1)
    assert not one.equals(assign_splits(prompts(100), fractions=FRACTIONS, seed=2))


links = st.lists(
    st.tuples(
        st.integers(0, 9),
        st.one_of(st.none(), st.sampled_from("abc")),
        st.one_of(st.none(), st.sampled_from("xyz")),
    ),
    min_size=1,
    max_size=40,
)


@given(links, st.integers(0, 3))
def test_what_is_tied_together_stays_together(rows: list[tuple[int, str | None, str | None]], seed: int) -> None:
    frame = pl.DataFrame(
        [(f"p{i}", family, near) for i, family, near in rows],
        schema={"prompt_id": pl.String, "family_id": pl.String, "near": pl.String},
        orient="row",
    )
    columns = ["prompt_id", "family_id", "near"]
    split = assign_splits(frame, fractions=FRACTIONS, seed=seed, group_columns=columns)
    for column in columns:
        assert leaking_groups(split, group_column=column) == []
    shuffled = assign_splits(frame.reverse(), fractions=FRACTIONS, seed=seed, group_columns=columns)
    assert shuffled.reverse().equals(split)


def test_strata_meet_the_fractions_each() -> None:
    frame = prompts(200).with_columns(category=pl.Series(["rare"] * 20 + ["common"] * 180))
    split = assign_splits(frame, fractions={"train": 0.8, "test": 0.2}, seed=3, stratify="category")
    tests = split.filter(pl.col("split") == "test")["category"].value_counts()
    assert dict(tests.iter_rows()) == {"rare": 4, "common": 36}


def test_leakage_names_the_groups() -> None:
    frame = pl.DataFrame({"prompt_id": ["b", "b", "a"], "split": ["train", "test", "test"]})
    assert leaking_groups(frame) == ["b"]


@pytest.mark.parametrize("fractions", [{"train": 0.5}, {"training": 1.0}])
def test_bad_fractions_are_refused(fractions: dict[str, float]) -> None:
    with pytest.raises(InputError, match="adding up to 1"):
        assign_splits(prompts(1), fractions=fractions, seed=0)


def test_no_prompts_give_no_splits() -> None:
    assert assign_splits(prompts(0), fractions=FRACTIONS, seed=0).height == 0


def test_what_was_given_stays_and_its_group_follows() -> None:
    frame = pl.DataFrame(
        {
            "prompt_id": ["b", "a", "c", "d"],
            "group": ["1", "1", "2", "2"],
            "given": ["test", None, None, "validation"],
        }
    )
    for seed in range(5):
        split = assign_splits(
            frame, fractions=FRACTIONS, seed=seed, group_columns=["prompt_id", "group"], previous="given"
        )
        assert split["split"].to_list() == ["test", "test", "validation", "validation"]


@pytest.mark.parametrize("seed", range(3))
def test_strata_are_filled_up_as_they_grow(seed: int) -> None:
    split = pl.DataFrame(schema={"prompt_id": pl.String, "category": pl.String, "split": pl.String})
    for size in (7, 19, 60, 200):
        frame = prompts(size).with_columns(category=pl.Series(["ab"[i % 5 == 0] for i in range(size)]))
        old = split.select("prompt_id", given="split")
        frame = frame.join(old, on="prompt_id", how="left", maintain_order="left")
        split = assign_splits(frame, fractions=FRACTIONS, seed=seed, stratify="category", previous="given").drop(
            "given"
        )
        assert split.join(old, on="prompt_id").filter(pl.col("split") != pl.col("given")).is_empty()
    for category, rows in split.group_by("category"):
        for name, share in FRACTIONS.items():
            found = rows.filter(pl.col("split") == name).height
            assert found == pytest.approx(rows.height * share, abs=1.01), (category, name)


def test_many_small_strata_meet_the_fractions_together() -> None:
    frame = prompts(3000).with_columns(category=pl.Series([f"c{i // 2}" for i in range(3000)]))
    counts = dict(
        assign_splits(frame, fractions=FRACTIONS, seed=1, stratify="category")["split"].value_counts().iter_rows()
    )
    for name, share in FRACTIONS.items():
        assert counts[name] == pytest.approx(3000 * share, abs=150)
