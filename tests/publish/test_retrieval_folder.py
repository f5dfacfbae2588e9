"""What trainers see of a published retrieval folder: texts by default, ids and scores in a config of their own."""

from __future__ import annotations

import polars as pl
import pytest

from curation.publish.card import CardData, render_card
from curation.publish.formats import retrieval_frame, trainer_view
from curation.publish.writing import split_counts, write_dataset


@pytest.mark.slow
def test_retrieval_folder_has_texts_and_evidence(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import datasets

    mined = pl.DataFrame(
        {
            "anchor_id": [f"{i:032x}" for i in range(20)],
            "positive_id": [f"{i + 50:032x}" for i in range(20)],
            "anchor": [f"question {i}" for i in range(20)],
            "positive": [f"answer {i}" for i in range(20)],
            "split": ["train"] * 16 + ["test"] * 4,
            "negatives": [[f"near {i}", f"far {i}"] for i in range(20)],
        }
    )
    frame = retrieval_frame(mined, num_negatives=2).frame
    view = trainer_view("retrieval", frame)
    card = CardData("retrieval", "n", "mit", split_counts(frame), evidence=True)
    folder = tmp_path / "retrieval"
    write_dataset(
        view.frame,
        folder=str(folder),
        evidence=view.evidence,
        extra_files={"README.md": render_card(card).encode()},
    )
    cache = str(tmp_path / "cache")
    loaded = datasets.load_dataset(str(folder), cache_dir=cache)
    assert loaded["train"].column_names == ["anchor", "positive", "negative_1", "negative_2"]
    evidence = datasets.load_dataset(str(folder), "evidence", cache_dir=cache)
    assert evidence["test"]["anchor_id"][:] == frame["anchor_id"].to_list()[16:]
