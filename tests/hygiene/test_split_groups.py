"""Groups that must stay on one side: families, chains of near-duplicates, and what may not be tied."""

from __future__ import annotations

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from curation.hygiene.bands import jaccard
from curation.hygiene.near import near_groups
from curation.hygiene.shingles import shingle
from curation.hygiene.split_groups import split_groups

WORDS = ["red", "blue", "green", "fish", "boat", "sea", "wind", "sand"]
STORY = "a fisherman told the children on the quay about a storm that took his boat and his {} in the winter of {}"


def stories(*words: str, year: str = "1962") -> list[str]:
    return [STORY.format(word, year) for word in words]


def test_chains_and_families_tie() -> None:
    texts = pl.Series([*stories("nets", "dog", "hat"), "Bread needs flour.", "How do bees fly?"])
    groups = split_groups(texts, families=list("abcdd"), sides=[None] * 5, threshold=0.7)
    assert groups.labels.tolist() == [0, 0, 0, 3, 3]
    assert groups.crossing == []


def test_without_a_threshold_only_families_tie() -> None:
    groups = split_groups(pl.Series(stories("nets", "dog")), families=["a", "b"], sides=[None] * 2, threshold=None)
    assert groups.labels.tolist() == [0, 1]


def test_a_new_text_between_two_sides_is_named_and_ties_nothing() -> None:
    texts = pl.Series([*stories("nets"), *stories("dog"), *stories("hat"), *stories("hat", year="1963")])
    groups = split_groups(texts, families=list("abcd"), sides=["train", None, "test", None], threshold=0.6)
    assert {crossing.text for crossing in groups.crossing} == {1, 3}
    assert all(crossing.near in {0, 2} and crossing.similarity >= 0.6 for crossing in groups.crossing)
    assert groups.labels[0] != groups.labels[2]


def test_old_texts_keep_their_sides_even_where_they_are_near() -> None:
    groups = split_groups(
        pl.Series(stories("nets", "dog")), families=["a", "b"], sides=["train", "test"], threshold=0.6
    )
    assert groups.labels.tolist() == [0, 1]
    assert groups.crossing == []


texts_of_words = st.lists(
    st.lists(st.sampled_from(WORDS), min_size=3, max_size=7).map(" ".join),
    min_size=1,
    max_size=25,
)


@given(texts_of_words, st.data())
def test_no_two_sides_hold_near_duplicates_but_for_old_ones(texts: list[str], data: st.DataObject) -> None:
    sides = data.draw(st.lists(st.sampled_from([None, "train", "test"]), min_size=len(texts), max_size=len(texts)))
    series = pl.Series(texts, dtype=pl.String)
    groups = split_groups(series, families=[str(i) for i in range(len(texts))], sides=sides, threshold=0.5)
    crossing = {refused.text for refused in groups.crossing}
    assert all(sides[text] is None for text in crossing)
    sides_of: dict[int, set[str]] = {}
    for label, side in zip(groups.labels.tolist(), sides, strict=True):
        sides_of.setdefault(label, set()).update([side] if side else [])
    assert all(len(found) <= 1 for found in sides_of.values())
    tied = near_groups(series, threshold=0.5)
    if not any(sides):
        assert groups.labels.tolist() == tied.tolist()


@given(texts_of_words)
def test_groups_join_what_is_near_and_only_along_chains(texts: list[str]) -> None:
    labels = near_groups(pl.Series(texts, dtype=pl.String), threshold=0.5)
    grams = shingle(pl.Series(texts, dtype=pl.String), n=3)
    sets = [set(grams.hashes[a:b].tolist()) for a, b in zip(grams.offsets, grams.offsets[1:], strict=False)]
    reachable = list(range(len(texts)))
    for _ in texts:
        for i, one in enumerate(sets):
            for j, other in enumerate(sets):
                if jaccard(one, other) >= 0.5:
                    reachable[i] = reachable[j] = min(reachable[i], reachable[j])
    # A band may miss a pair at the threshold, so what is tied is within a chain, not always the whole of it.
    assert all(reachable[i] == reachable[int(label)] for i, label in enumerate(labels))
    assert all(labels[i] == labels[j] for i, a in enumerate(sets) for j, b in enumerate(sets) if a == b)
