"""The command on files: chosen rows in their order, the others named; bad input in a line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from curation.commands.select import run_select
from curation.errors import InputError
from curation.files import rejects_path
from curation.hygiene.chosen_texts import choose_texts

TOPICS = ("Paint the boat", "Boil the rice", "Sing the song")
PROMPTS = [f"{topic} in the {month} of the year." for month in ("spring", "summer", "autumn") for topic in TOPICS]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    frame = pl.DataFrame({"id": range(100, 110), "prompt": [*PROMPTS[:4], None, *PROMPTS[4:]], "extra": [[1]] * 10})
    frame.write_parquet(tmp_path / "in.parquet")
    return tmp_path / "in.parquet"


@pytest.mark.parametrize("method", ["k_centre", "facility_location"])
def test_diverse_rows_stay_in_order_and_the_others_name_the_nearest(source: Path, method: str) -> None:
    out = source.with_name("out.parquet")

    summary = run_select(source, out, method=method, rows=3)

    kept, rows = pl.read_parquet(out), pl.read_parquet(source)
    assert kept.equals(rows.filter(pl.col("id").is_in(kept["id"].implode())))
    assert {text[:4] for text in kept["prompt"]} == {topic[:4] for topic in TOPICS}
    rejects = pl.read_parquet(rejects_path(out)).filter(pl.col("rule") == "not_selected")
    assert rejects.height == 6
    for row, value, reason in rejects.select("row", "value", "reason").iter_rows():
        # The nearest chosen row is one that was written, and of the same topic.
        assert rows["id"][int(value)] in kept["id"]
        assert rows["prompt"][row][:4] == rows["prompt"][int(value)][:4]
        assert f"{method} chose 3 of 9 rows" in reason
        assert f"nearest chosen row {value}, cosine" in reason
    assert "null_prompt 1" in summary


@pytest.mark.parametrize("method", ["dsir", "transport"])
def test_rows_like_the_target_stay(source: Path, method: str) -> None:
    out = source.with_name("out.jsonl")
    target = source.with_name("target.jsonl")
    pl.DataFrame({"question": [f"Sing the song {word}." for word in ("again", "aloud", "well") * 20]}).write_ndjson(
        target
    )

    run_select(source, out, method=method, rows=2, target=str(target))

    assert all(text.startswith("Sing") for text in pl.read_ndjson(out)["prompt"])
    assert sorted(pl.read_parquet(rejects_path(out))["rule"]) == [*["not_selected"] * 7, "null_prompt"]


def test_lengths_may_give_fewer_and_say_so(tmp_path: Path) -> None:
    pl.DataFrame({"prompt": ["a" * 10] * 30 + ["b" * 100] * 10}).write_parquet(tmp_path / "in.parquet")
    pl.DataFrame({"prompt": ["c" * 10, "d" * 100] * 5}).write_parquet(tmp_path / "target.parquet")

    summary = run_select(
        tmp_path / "in.parquet",
        tmp_path / "out.parquet",
        method="lengths",
        rows=30,
        target=str(tmp_path / "target.parquet"),
    )

    assert sorted(pl.read_parquet(tmp_path / "out.parquet")["prompt"].str.len_chars()) == [10] * 10 + [100] * 10
    assert "20 rows in place of 30: longer or shorter ones are too rare" in summary


def test_more_rows_than_there_are_keep_all_and_say_so(source: Path) -> None:
    out = source.with_name("out.parquet")
    summary = run_select(source, out, method="k_centre", rows=50)
    assert pl.read_parquet(out).height == 9
    assert "9 rows in place of 50: there are no more" in summary


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"method": "k_center", "rows": 2}, "did you mean 'k_centre'"),
        ({"method": "dsir", "rows": 2}, "needs --target FILE"),
        ({"method": "k_centre", "rows": 2, "target": "in.parquet"}, "takes no target"),
        ({"method": "k_centre", "rows": 0}, "rows: found 0"),
        ({"method": "k_centre", "rows": 2, "column": "promt"}, "promt"),
    ],
)
def test_wrong_options_are_named(
    source: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], words: str
) -> None:
    monkeypatch.chdir(source.parent)
    with pytest.raises(InputError, match=words):
        run_select(source, source.with_name("out.parquet"), **options)


def test_lengths_still_match_where_all_rows_are_asked_for(tmp_path: Path) -> None:
    pl.DataFrame({"prompt": ["a" * 10] * 30 + ["b" * 100] * 10}).write_parquet(tmp_path / "in.parquet")
    pl.DataFrame({"prompt": ["c" * 10, "d" * 100] * 5}).write_parquet(tmp_path / "target.parquet")

    summary = run_select(
        tmp_path / "in.parquet", tmp_path / "out.parquet", method="lengths", rows=40,
        target=str(tmp_path / "target.parquet"),
    )  # fmt: skip

    assert sorted(pl.read_parquet(tmp_path / "out.parquet")["prompt"].str.len_chars()) == [10] * 10 + [100] * 10
    assert "20 rows in place of 40: longer or shorter ones are too rare" in summary


def test_long_texts_are_compared_whole() -> None:
    begin = (
        "The meeting was opened at nine and the minutes of the last one were read aloud and agreed to by all. " * 15
    )
    bread, stars = (
        "The baker kneads dough and bakes bread. " * 40,
        "The telescope shows distant stars and planets. " * 40,
    )
    texts = [begin + bread, begin + stars, begin + bread + "Then he rests."]

    # The encoder reads no further than the beginning, in which all three agree.
    chosen = choose_texts(texts, method="k_centre", count=2)

    assert chosen.left_out.tolist() in ([0], [2])
