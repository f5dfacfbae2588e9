"""The index in a folder: extended, reopened, killed in the middle, and its bad states."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from curation.errors import InputError, WorkspaceError
from curation.negatives.mining import mine_hard_negatives
from curation.negatives.search import exact_search
from curation.negatives.store import build_index, open_index
from tests.negatives.vectors import Vectors, unit


def topical(rows: int, seed: int) -> Vectors:
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(0).standard_normal((30, 32))
    return unit(centres[rng.integers(0, 30, rows)] + 0.5 * rng.standard_normal((rows, 32)))


CORPUS, QUERIES = topical(3_000, 1), topical(200, 2)


def recall(rows: Any, truth: Any) -> float:
    return float(np.mean([np.isin(t, r).mean() for r, t in zip(rows, truth, strict=True)]))


@pytest.mark.parametrize("storage", ["float32", "float16", "int8"])
def test_search_finds_the_nearest_and_measures_its_recall(tmp_path: Path, storage: Any) -> None:
    index = build_index(tmp_path / "index", CORPUS, storage=storage)
    result = index.search(QUERIES, 10, exact=CORPUS)
    truth = exact_search(QUERIES, CORPUS, 10)
    assert recall(result.found.rows, truth.rows) == pytest.approx(result.recall, abs=0.01)
    assert result.recall >= 0.985
    both = result.found.rows == truth.rows
    assert result.found.scores[both] == pytest.approx(truth.scores[both], abs=1e-6)


def test_int8_without_the_originals_gives_near_scores(tmp_path: Path) -> None:
    index = build_index(tmp_path / "index", CORPUS, storage="int8")
    found = index.search(QUERIES, 10).found
    true = np.einsum("nd,nkd->nk", QUERIES, CORPUS[found.rows])
    assert found.scores == pytest.approx(true, abs=0.02)


def test_extending_in_parts_holds_the_same_rows(tmp_path: Path) -> None:
    index = build_index(tmp_path / "index", CORPUS[:500])
    for start in range(500, 3_000, 500):
        open_index(tmp_path / "index").extend(CORPUS[start : start + 500])
    index = open_index(tmp_path / "index")
    assert index.rows == 3_000
    result = index.search(QUERIES, 10, exact=CORPUS)
    assert recall(result.found.rows, exact_search(QUERIES, CORPUS, 10).rows) >= 0.985
    assert len(list(index.folder.glob("centroids-*"))) == 1


def test_a_killed_extension_changes_nothing(tmp_path: Path) -> None:
    index = build_index(tmp_path / "index", CORPUS[:2_000])
    before = index.search(QUERIES, 10).found.rows
    with (tmp_path / "index" / "vectors.bin").open("ab") as file:  # appended, and never said so
        file.write(b"\x00" * 777)
    index = open_index(tmp_path / "index")
    assert index.search(QUERIES, 10).found.rows.tolist() == before.tolist()
    index.extend(CORPUS[2_000:])
    result = index.search(QUERIES, 10, exact=CORPUS)
    assert recall(result.found.rows, exact_search(QUERIES, CORPUS, 10).rows) >= 0.985


def test_mining_takes_an_index(tmp_path: Path) -> None:
    index = build_index(tmp_path / "index", CORPUS, storage="int8")
    settings: dict[str, Any] = {
        "anchor_embeddings": QUERIES,
        "corpus_embeddings": CORPUS,
        "positives": list(range(200)),
        "num_negatives": 5,
    }
    exact, indexed = (mine_hard_negatives(index=kind, **settings) for kind in ("flat", index))
    assert recall(indexed.negatives, exact.negatives) >= 0.98
    assert indexed.method.startswith("ivf on disk, int8")
    assert indexed.recall < 1 or (indexed.negatives == exact.negatives).all()


def test_an_index_of_another_corpus_is_refused(tmp_path: Path) -> None:
    index = build_index(tmp_path / "index", CORPUS[:100])
    with pytest.raises(InputError, match="holds 100 rows of width 32, the corpus 3000 of 32"):
        mine_hard_negatives(anchor_embeddings=QUERIES, corpus_embeddings=CORPUS, positives=[0] * 200, index=index)


def test_rows_of_another_width_are_refused(tmp_path: Path) -> None:
    index = build_index(tmp_path / "index", CORPUS[:100])
    with pytest.raises(InputError, match="found width 8, expected 32"):
        index.extend(unit(np.ones((2, 8))))


def test_building_over_an_index_is_refused(tmp_path: Path) -> None:
    build_index(tmp_path / "index", CORPUS[:100])
    with pytest.raises(InputError, match="holds an index already"):
        build_index(tmp_path / "index", CORPUS[:100])


def test_missing_torn_and_newer_indexes_are_named(tmp_path: Path) -> None:
    with pytest.raises(WorkspaceError, match="no index is here"):
        open_index(tmp_path)
    folder = build_index(tmp_path / "index", CORPUS[:100]).folder
    (folder / "vectors.bin").write_bytes(b"\x00" * 10)
    with pytest.raises(WorkspaceError, match="found 10 bytes, expected 6400"):
        open_index(folder)
    meta = json.loads((folder / "index.json").read_text())
    (folder / "index.json").write_text(json.dumps({**meta, "version": 9}))
    with pytest.raises(WorkspaceError, match="index version 9"):
        open_index(folder)
    (folder / "index.json").write_text("{")
    with pytest.raises(WorkspaceError, match="is damaged"):
        open_index(folder)


def test_an_empty_index_can_be_extended(tmp_path: Path) -> None:
    build_index(tmp_path / "index", CORPUS[:0])
    index = open_index(tmp_path / "index")
    with pytest.raises(InputError, match="the index is empty"):
        index.search(QUERIES, 3)
    index.extend(CORPUS[:50])
    assert index.search(QUERIES, 3).found.rows.max() < 50


def test_an_index_of_the_same_size_in_another_order_is_refused(tmp_path: Path) -> None:
    index = build_index(tmp_path / "index", CORPUS[:100], storage="int8")
    index.check_holds(CORPUS[:100])
    with pytest.raises(InputError, match="its row 0 is another vector than the corpus's"):
        index.check_holds(CORPUS[:100][::-1])


def test_other_files_in_the_folder_are_left_alone(tmp_path: Path) -> None:
    other = tmp_path / "train-00000-of-00001.parquet"
    other.write_bytes(b"not ours")
    build_index(tmp_path, CORPUS[:100]).extend(CORPUS[100:2_000])
    assert other.read_bytes() == b"not ours"
    assert sorted(path.name for path in tmp_path.glob("*-*")) == ["centroids-2.npy", "lists-2.bin", other.name]
