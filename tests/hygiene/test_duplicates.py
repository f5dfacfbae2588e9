"""Duplicates of each kind: what goes, what stays, which row is named."""

from __future__ import annotations

import random
import unicodedata
from itertools import combinations
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.commands.dedup import run_dedup
from curation.errors import InputError
from curation.files import rejects_path
from curation.hygiene.bands import jaccard, plan_bands
from curation.hygiene.duplicates import deduplicate
from curation.hygiene.groups import UnionFind, resolve_edges
from curation.hygiene.near import near_duplicates, near_groups
from curation.hygiene.semantic import look_alike_key, semantic_duplicates

WORDS = [f"word{i}" for i in range(400)]


def sentences(count: int, *, length: int = 40, seed: int = 0) -> list[list[str]]:
    chance = random.Random(seed)
    return [chance.choices(WORDS, k=length) for _ in range(count)]


def with_copies(count: int, *, copies: int, edits: int, seed: int = 0) -> list[str]:
    """Random texts, and copies of them with 0 to ``edits`` words changed, in random order."""
    chance = random.Random(seed)
    texts = sentences(count, seed=seed)
    for _ in range(copies):
        copy = list(chance.choice(texts[:count]))
        for _ in range(chance.randint(0, edits)):
            copy[chance.randrange(len(copy))] = chance.choice(WORDS)
        texts.append(copy)
    chance.shuffle(texts)
    return [" ".join(words) for words in texts]


def trigrams(text: str) -> set[tuple[str, ...]]:
    words = text.lower().split()
    return set(zip(words, words[1:], words[2:], strict=False))


def exact_similarity(a: str, b: str) -> float:
    x, y = trigrams(a), trigrams(b)
    return len(x & y) / len(x | y)


def frame(*texts: str | None, **columns: list[float | None]) -> pl.DataFrame:
    return pl.DataFrame({"text": pl.Series(list(texts), dtype=pl.String), **columns})


def test_exact_duplicates_differ_only_in_what_normalisation_removes() -> None:
    rows = frame("a b", "a b \r\n", "A b", "cafe\u0301", "café", "a  b")

    kept, rejects, recall, _ = deduplicate(rows, column="text")

    assert kept["text"].to_list() == ["a b", "A b", "cafe\u0301", "a  b"]
    assert rejects.select("row", "rule", "value", "duplicate_of").rows() == [
        (1, "exact_duplicate", "0", 0),
        (4, "exact_duplicate", "3", 3),
    ]
    assert rejects["reason"].to_list() == ["duplicates row 0 (equal 1.0)", "duplicates row 3 (equal 1.0)"]
    assert recall == 1.0


@pytest.mark.parametrize(
    ("keep", "score", "kept"), [("first", None, [0]), ("longest", None, [1]), ("best", "reward", [3])]
)
def test_one_of_a_cluster_stays_by_preference(keep: str, score: str | None, kept: list[int]) -> None:
    text = " ".join(WORDS[:60])
    rows = frame(text, text + " and more", text + " more", text, reward=[0.0, 2.0, None, 5.0]).with_row_index()

    result = deduplicate(rows, column="text", method="minhash", keep=keep, score=score)

    assert result.kept["index"].to_list() == kept
    assert result.rejects["duplicate_of"].unique().to_list() == kept


def test_null_and_empty_texts_are_rejected_as_such() -> None:
    kept, rejects, *_ = deduplicate(frame("a", None, " ", None, "b"), column="text")

    assert kept["text"].to_list() == ["a", "b"]
    assert rejects.select("row", "rule").rows() == [(1, "null_text"), (2, "empty_text"), (3, "null_text")]


def test_pairs_are_compared_over_all_their_columns() -> None:
    rows = pl.DataFrame({"prompt": ["p", "p", "p"], "chosen": ["a", "a", "b"], "rejected": ["b", "b", "a"]})

    kept, rejects, *_ = deduplicate(rows, column=["prompt", "chosen", "rejected"])

    assert kept["chosen"].to_list() == ["a", "b"]
    assert rejects["row"].to_list() == [1]


BETTER = "Salt is washed out of the rocks on land by rain, and the rivers carry all of it down to the sea."
WORSE = "Nobody has ever found out why it tastes like that, and it would be a waste of time to ask about it."
PAIRS = ["prompt", "chosen", "rejected"]


def pairs(*rows: tuple[str, str, str]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=PAIRS, orient="row")


@pytest.mark.parametrize("method", ["minhash", "semantic"])
def test_a_near_pair_with_exchanged_answers_contradicts_and_both_go(method: str) -> None:
    rows = pairs(
        ("Why is the sea salt?", BETTER, WORSE),
        ("Name a bird.", "A wren, or a heron in the reeds, is a bird.", "I would rather not say which one."),
        ("Why is the sea salt?", WORSE + " Again.", BETTER + " Well."),
        ("Why is the sea salt?", BETTER + " Well.", WORSE + " Again."),
    )
    kept, rejects, *_ = deduplicate(rows, column=PAIRS, method=method, threshold=0.75)
    assert kept["prompt"].to_list() == ["Name a bird."]
    assert rejects.select("row", "rule", "duplicate_of").rows() == [
        (0, "contradictory_pair", 2),
        (2, "contradictory_pair", 0),
        (3, "contradictory_pair", 2),
    ]
    assert "the other way round in row 2" in rejects["reason"][0]


@pytest.mark.parametrize("method", ["minhash", "semantic"])
def test_edits_of_one_answer_and_a_chain_of_edits_do_not_contradict(method: str) -> None:
    first, second = BETTER.replace("rain", "wind"), BETTER.replace("rivers", "storms")
    both = first.replace("rivers", "storms")
    for other in (("Why is the sea salt?", BETTER, second), ("Why is the sea salt?", first, both)):
        rows = pairs(("Why is the sea salt?", BETTER, first), other)
        rejects = deduplicate(rows, column=PAIRS, method=method, threshold=0.5).rejects
        assert rejects["rule"].to_list() == [f"{'near' if method == 'minhash' else method}_duplicate"]


def test_pairs_of_a_long_prompt_with_other_answers_do_not_contradict() -> None:
    asked = " ".join(WORDS[:300])
    rows = pairs((asked, "A wren sits there.", "Some heron sits there."), (asked, "Some heron is here.", "No."))
    kept, rejects, *_ = deduplicate(rows, column=PAIRS, method="minhash")
    assert kept.height == 2
    assert rejects.is_empty()


def test_a_pair_that_an_earlier_version_holds_the_other_way_round_contradicts_it(tmp_path: Path) -> None:
    pairs(("Why is the sea salt?", BETTER, WORSE)).write_parquet(tmp_path / "before.parquet")
    pairs(("Why is the sea salt?", WORSE, BETTER)).write_parquet(tmp_path / "rows.parquet")
    output = tmp_path / "kept.parquet"
    against = tmp_path / "before.parquet"
    run_dedup(tmp_path / "rows.parquet", output, column=PAIRS, method="minhash", against=against)
    (reject,) = pl.read_parquet(rejects_path(output)).rows(named=True)
    assert (reject["row"], reject["rule"], reject["value"]) == (0, "contradictory_pair", "against 0")


def test_prompts_as_messages_are_compared_by_their_text() -> None:
    said = [{"role": "user", "content": "Hi!"}]
    rows = pl.DataFrame({"prompt": [said, said, [{"role": "user", "content": "Ho!"}]]})

    assert deduplicate(rows, column="prompt").kept.height == 2


@pytest.mark.parametrize("method", ["exact", "minhash", "semantic"])
def test_rows_of_another_source_win_and_are_named(method: str) -> None:
    other = frame("One sentence that is old.", "Another sentence, quite different.")
    rows = frame("Something nobody said before.", "One sentence that is old.")

    kept, rejects, *_ = deduplicate(rows, column="text", against=other, method=method)

    assert kept["text"].to_list() == ["Something nobody said before."]
    assert rejects.select("row", "value").rows() == [(1, "against 0")]


@pytest.mark.parametrize("method", ["exact", "minhash", "semantic"])
@pytest.mark.parametrize("texts", [[], ["only one"], ["same"] * 5, ["!!!", "!!!", "???"]])
def test_few_and_strange_texts(method: str, texts: list[str]) -> None:
    kept, rejects, *_ = deduplicate(frame(*texts), column="text", method=method, look_alikes=False)

    assert kept["text"].to_list()[:1] == texts[:1]
    assert kept.height + rejects.height == len(texts)
    assert kept["text"].n_unique() == kept.height


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"column": "txt"}, r"no column 'txt' \(did you mean 'text'\?\)"),
        ({"method": "minhas"}, r"method 'minhas' \(did you mean 'minhash'\?\)"),
        ({"keep": "last"}, "keep 'last'.*expected one of first, longest, best"),
        ({"keep": "best"}, "keep 'best' and a score column go together"),
        ({"score": "reward"}, "keep 'best' and a score column go together"),
        ({"keep": "best", "score": "text"}, "score column 'text': expected a column of numbers"),
        ({"threshold": 0.9}, "method 'exact' takes no threshold"),
        ({"method": "minhash", "threshold": 0.0}, "threshold 0.0, expected a number above 0"),
        ({"method": "minhash", "threshold": 80}, "threshold 80, expected"),
        ({"method": "minhash", "ngram": 0}, "ngram 0, expected at least 1"),
    ],
)
def test_wrong_options_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        deduplicate(frame("a", "b"), **{"column": "text", **options})  # type: ignore[arg-type]


def test_bands_find_nearly_every_pair_at_the_threshold() -> None:
    for threshold in (0.3, 0.5, 0.7, 0.8, 0.9, 0.99, 1.0):
        plan = plan_bands(threshold)
        assert plan.bands * plan.rows <= 128
        assert plan.proposed(threshold) >= 0.98


@pytest.mark.parametrize("threshold", [0.5, 0.8])
def test_near_duplicates_agree_with_exact_jaccard(threshold: float) -> None:
    texts = with_copies(250, copies=150, edits=8)
    order = np.arange(len(texts))

    links = near_duplicates(pl.Series(texts), threshold=threshold, order=order)

    # Oracle: the same greedy choice over every pair.
    edges = [
        (a, b, similarity)
        for a, b in combinations(range(len(texts)), 2)
        if (similarity := exact_similarity(texts[a], texts[b])) >= threshold
    ]
    expected = resolve_edges(len(texts), edges, order=order)
    assert (links.kept_by == expected.kept_by).mean() >= 0.99
    gone = np.flatnonzero(links.kept_by >= 0)
    assert len(gone) > 30
    for position in gone:
        similarity = exact_similarity(texts[position], texts[links.kept_by[position]])
        assert links.similarity[position] == pytest.approx(similarity)
        assert similarity >= threshold


def test_what_is_kept_is_kept_by_nothing() -> None:
    texts = with_copies(100, copies=200, edits=10, seed=3)

    links = near_duplicates(pl.Series(texts), threshold=0.6, order=np.random.default_rng(0).permutation(300))

    assert (links.kept_by[links.kept_by[links.kept_by >= 0]] == -1).all()


def test_groups_are_the_components_of_near_duplicates() -> None:
    texts = with_copies(150, copies=150, edits=6, seed=1)

    groups = near_groups(pl.Series(texts), threshold=0.8)

    expected = UnionFind(len(texts))
    for a, b in combinations(range(len(texts)), 2):
        if exact_similarity(texts[a], texts[b]) >= 0.8:
            expected.join(a, b)
    assert (groups == expected.labels()).mean() >= 0.99


def test_the_same_seed_gives_the_same_links() -> None:
    texts = pl.Series(with_copies(200, copies=100, edits=12))

    first = near_duplicates(texts, threshold=0.7, order=np.arange(300), seed=5)
    again = near_duplicates(texts, threshold=0.7, order=np.arange(300), seed=5)

    assert (first.kept_by == again.kept_by).all()


def test_jaccard_of_sets() -> None:
    assert jaccard({1, 2, 3}, {2, 3, 4}) == 0.5
    assert jaccard({1}, {2}) == 0.0
    assert jaccard(set(), set()) == 1.0


edges = st.lists(
    st.tuples(st.integers(0, 11), st.integers(0, 11), st.floats(0.5, 1)).filter(lambda e: e[0] != e[1])
)


@settings(max_examples=100, deadline=None)
@given(edges=edges, order=st.permutations(range(12)))
def test_resolving_leaves_an_independent_set_that_covers_the_rest(
    edges: list[tuple[int, int, float]], order: list[int]
) -> None:
    links = resolve_edges(12, edges, order=np.array(order))

    pairs = {frozenset(edge[:2]) for edge in edges}
    stays = {row for row in range(12) if links.kept_by[row] < 0}
    assert not any(frozenset(pair) in pairs for pair in combinations(stays, 2))
    for row in set(range(12)) - stays:
        kept = int(links.kept_by[row])
        assert kept in stays
        assert frozenset({row, kept}) in pairs
        assert order.index(kept) < order.index(row)


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def clusters(count: int, members: int, *, noise: float = 0.05, seed: int = 0) -> np.ndarray:
    chance = np.random.default_rng(seed)
    centres = unit(chance.normal(size=(count, 32)))
    return unit(np.repeat(centres, members, axis=0) + noise * chance.normal(size=(count * members, 32)) / 32**0.5)


@pytest.mark.parametrize("exact_up_to", [0, 10_000])
def test_exactly_one_of_every_semantic_cluster_stays(exact_up_to: int) -> None:
    vectors = clusters(700, 4)
    order = np.random.default_rng(1).permutation(len(vectors))

    links, recall = semantic_duplicates(vectors, threshold=0.9, order=order, exact_up_to=exact_up_to)

    stays = np.flatnonzero(links.kept_by < 0)
    assert sorted(stays // 4) == list(range(700))
    gone = np.flatnonzero(links.kept_by >= 0)
    assert (gone // 4 == links.kept_by[gone] // 4).all()
    assert recall >= 0.99


def test_semantic_search_equals_brute_force() -> None:
    vectors = unit(np.random.default_rng(0).normal(size=(1500, 6)))
    order = np.random.default_rng(1).permutation(1500)

    links = semantic_duplicates(vectors, threshold=0.9, order=order).links

    kept: list[int] = []
    for position in order:
        scores = vectors[kept] @ vectors[position] if kept else np.empty(0)
        if len(scores) and scores.max() >= 0.9:
            assert links.kept_by[position] == kept[int(scores.argmax())]
        else:
            kept.append(int(position))
            assert links.kept_by[position] == -1


def test_equal_and_zero_vectors() -> None:
    same = np.tile(unit(np.ones((1, 8))), (5, 1))
    zero = np.zeros((5, 8), dtype=np.float32)

    assert semantic_duplicates(same, threshold=0.9, order=np.arange(5)).links.kept_by.tolist() == [-1, 0, 0, 0, 0]
    assert semantic_duplicates(zero, threshold=0.9, order=np.arange(5)).links.kept_by.tolist() == [-1] * 5


def test_paraphrases_go_and_look_alikes_stay() -> None:
    rows = frame(
        "How do I bake bread at home?",
        "How can I bake bread at home?",
        "How do I bake 3 loaves of bread at home?",
        "How do I bake 5 loaves of bread at home?",
        "How do I not bake bread at home?",
    )

    kept, rejects, *_ = deduplicate(rows, column="text", method="semantic", threshold=0.9)

    assert rejects["row"].to_list() == [1]
    assert kept.height == 4


def test_long_texts_that_only_begin_alike_are_no_semantic_duplicates() -> None:
    beginning = "The history of bread is long. " * 60
    one = beginning + "Volcanoes erupt when magma rises through the crust of the earth. " * 60
    two = beginning + "Good football players train their passing every single day. " * 60

    kept, *_ = deduplicate(frame(one, two, one + "Indeed."), column="text", method="semantic", threshold=0.95)

    assert kept.height == 2


def test_keys_of_look_alikes() -> None:
    assert look_alike_key("Add 2 and 3.5") == look_alike_key("3.5 plus 2?")
    assert look_alike_key("Add 2 and 3") != look_alike_key("Add 2 and 4")
    assert look_alike_key("It works") != look_alike_key("It doesn't work")
    assert look_alike_key("I don't know nothing") == look_alike_key("I know")
    for one, other in (("x = -3", "x = 3"), ("If a < b", "If a > b"), ("5 + 3", "5 - 3"), ("6*2", "6/2")):
        assert look_alike_key(one) != look_alike_key(other)
    for one, other in (("x = −3", "x = -3"), ("3-5 days", "3 to 5 days"), ("the well-known 7", "the well known 7")):
        assert look_alike_key(one) == look_alike_key(other)


def test_command_writes_what_stays_and_names_the_rest(tmp_path: Path) -> None:
    text = " ".join(WORDS[:50])
    rows = pl.DataFrame(
        {"id": [7, 8, 9, 10], "text": [text, text + " end", "other", None], "extra": [{"k": [1]}] * 4}
    )
    rows.write_parquet(tmp_path / "in.parquet")

    summary = run_dedup(tmp_path / "in.parquet", tmp_path / "out.jsonl", column="text", method="minhash")

    assert pl.read_ndjson(tmp_path / "out.jsonl").to_dicts() == rows[[0, 2]].to_dicts()
    rejects = pl.read_parquet(rejects_path(tmp_path / "out.jsonl"))
    assert rejects.select("row", "rule", "value").rows() == [(1, "near_duplicate", "0"), (3, "null_text", "text")]
    assert "2 rows written" in summary
    assert "(4 read)" in summary
    assert "recall of the search 0.98" in summary


def test_command_compares_texts_shorter_than_the_ngram_whole(tmp_path: Path) -> None:
    frame("one two", "One two!", "one", "two one", "!!!").write_parquet(tmp_path / "in.parquet")

    run_dedup(tmp_path / "in.parquet", tmp_path / "out.parquet", column="text", method="minhash", ngram=5)

    assert pl.read_parquet(tmp_path / "out.parquet")["text"].to_list() == ["one two", "one", "two one", "!!!"]
    rejects = pl.read_parquet(rejects_path(tmp_path / "out.parquet"))
    assert rejects.select("row", "rule", "value").rows() == [(1, "near_duplicate", "0")]


def test_command_keeps_the_best_and_looks_at_another_file(tmp_path: Path) -> None:
    frame("a", "a", "b", "c", reward=[1.0, 2.0, 3.0, 4.0]).write_parquet(tmp_path / "in.parquet")
    frame("c").write_parquet(tmp_path / "other.parquet")

    run_dedup(
        tmp_path / "in.parquet",
        tmp_path / "out.parquet",
        column="text",
        keep="best",
        score="reward",
        against=tmp_path / "other.parquet",
    )

    assert pl.read_parquet(tmp_path / "out.parquet")["reward"].to_list() == [2.0, 3.0]


def test_command_names_a_missing_column(tmp_path: Path) -> None:
    frame("a").write_parquet(tmp_path / "in.parquet")

    with pytest.raises(InputError, match=r"no column 'txt' \(did you mean 'text'\?\); found text"):
        run_dedup(tmp_path / "in.parquet", tmp_path / "out.parquet", column="txt")
    with pytest.raises(InputError, match="no column 'score'"):
        run_dedup(tmp_path / "in.parquet", tmp_path / "out.parquet", column="text", keep="best", score="score")


def test_real_pairs_keep_one_of_each_repeated_prompt(shared_data: Path) -> None:
    prompts = pl.read_ndjson(shared_data / "ultrafeedback_noise/clean.jsonl").select("prompt")
    doubled = pl.concat([prompts, prompts.with_columns(pl.format("  {} !!", "prompt"))])

    kept, rejects, *_ = deduplicate(doubled, column="prompt", method="minhash", threshold=0.9)

    assert kept.height + rejects.height == 2000
    assert rejects.filter(pl.col("row") >= 1000).height == 1000


def test_a_duplicate_behind_many_look_alikes_is_found() -> None:
    # All 1,300 vectors are near each other; only those with one key may be duplicates.
    chance = np.random.default_rng(0)
    vectors = unit(chance.normal(size=64) + 0.02 * chance.normal(size=(1300, 64)))
    keys = [*range(1290), *range(10)]
    order = chance.permutation(1300)

    links, recall = semantic_duplicates(vectors, threshold=0.9, order=order, keys=keys)

    stays = np.flatnonzero(links.kept_by < 0)
    assert sorted(keys[row] for row in stays) == list(range(1290))
    gone = np.flatnonzero(links.kept_by >= 0)
    assert [keys[row] for row in gone] == [keys[row] for row in links.kept_by[gone]]
    assert links.similarity[gone] == pytest.approx(
        np.einsum("ij,ij->i", vectors[gone], vectors[links.kept_by[gone]])
    )
    assert recall == pytest.approx(1.0)


def test_words_are_compared_in_one_unicode_form() -> None:
    text = "L'été dernier nous avons visité la forêt près du château"
    rows = frame(text, unicodedata.normalize("NFD", text))

    assert deduplicate(rows, column="text", method="minhash", threshold=1.0).rejects["row"].to_list() == [1]
