"""The card: what it says, what it escapes, and that its snippet runs."""

from __future__ import annotations

import re

import polars as pl
import pytest
import yaml

from curation.errors import InputError
from curation.publish.card import CardData, card_figures, column_rows, escape_markdown, render_card
from curation.publish.column_meanings import column_meaning
from curation.publish.formats import preference_frame
from curation.publish.gates import check_gates
from curation.publish.report import Threshold
from curation.publish.writing import split_counts, write_dataset
from schemas import TABLES

WATERFALL = pl.DataFrame(
    {
        "dataset": ["preference"] * 2,
        "position": [0, 1],
        "stage": ["inputs", "selection"],
        "rule": ["empty_response", "ln_ches_above_max"],
        "removed": [3, 40],
        "left": [97, 57],
    }
)


def card(**fields: object) -> CardData:
    plain: dict[str, object] = {"dataset": "preference", "name": "n", "license": "mit", "splits": {"train": 57}}
    return CardData(**{**plain, **fields})  # type: ignore[arg-type]


def header(text: str) -> dict[str, object]:
    found = yaml.safe_load(text.split("---\n")[1])
    assert isinstance(found, dict)
    return found


def test_header_is_what_the_hub_reads():
    meta = header(render_card(card(splits={"train": 900, "test": 100}, languages=["en"])))
    assert meta["license"] == "mit"
    assert meta["language"] == ["en"]
    assert meta["size_categories"] == ["1K<n<10K"]
    assert meta["configs"] == [
        {
            "config_name": "default",
            "data_files": [
                {"split": "train", "path": "data/train-*.parquet"},
                {"split": "test", "path": "data/test-*.parquet"},
            ],
        }
    ]


def test_a_card_says_what_the_columns_of_every_dataset_hold():
    names = {
        column
        for dataset in ("preference", "preference_unpaired", "reward_augmented", "refusal", "retrieval")
        for column in TABLES[dataset].column_names()
        if column != "split"
    }
    assert [name for name in sorted(names) if not column_meaning(name)] == []
    text = render_card(card(columns=[("ln_ches", "number"), ("negative_12", "text"), ("ours", "text")]))
    assert "| ln_ches | number | length-normalised CHES |" in text
    assert "| negative_12 | text | a text that is near and not an answer |" in text
    assert "| ours | text |  |" in text


def test_the_hubs_own_client_accepts_the_header():
    from huggingface_hub import DatasetCardData

    meta = header(render_card(card(languages=["en"])))
    assert DatasetCardData(**meta).to_dict() == meta


def test_says_what_was_removed_by_which_threshold_and_model():
    text = render_card(
        card(
            waterfall=WATERFALL,
            thresholds=[Threshold("ln_ches", "max", 0.25, "90 % quantile")],
            models=[{"step": "rewards", "producer": "owner/name@abc123"}],
            versions={"pairs": "4"},
            left_out=["margin"],
        )
    )
    assert "| selection | ln_ches_above_max | 40 | 57 |" in text
    assert "| ln_ches | max | 0.250 | 90 % quantile |" in text
    assert "| rewards | owner/name@abc123 |" in text
    assert "| pairs | 4 |" in text
    assert "no value for margin" in text


@pytest.mark.parametrize(
    "nasty",
    [
        "a | b",
        "<script>x</script>",
        "line\nbreak",
        "[l](http://x.y)",
        "![i](j)",
        "# h",
        "---",
        "{{ data }}",
        "`c`",
        "k: v",
    ],
)
def test_names_from_data_are_text_and_nothing_else(nasty):
    text = render_card(card(name=nasty, sources={nasty: 5}, facts={"recipe": nasty}))
    body = text.split("---\n", 2)[2]
    assert header(text)["pretty_name"] == nasty
    assert "<script" not in body
    assert re.search(r"(?<!\\)\]\(", body) is None
    assert [line for line in body.splitlines() if line.startswith("| ") and line.endswith(" 5 |")] == [
        f"| {escape_markdown(nasty)} | 5 |"
    ]
    assert body.splitlines()[1] == f"# {escape_markdown(nasty)}"


def test_escaped_text_has_no_bare_bar():
    assert re.search(r"(?<!\\)\|", escape_markdown("a|b||c")) is None


def test_equal_data_give_equal_text():
    data = card(waterfall=WATERFALL)
    assert render_card(data) == render_card(data)


def test_a_template_with_a_missing_field_is_named():
    with pytest.raises(InputError, match=r"card template: .*no attribute 'licence'"):
        render_card(card(), template="{{ data.licence }}")


def test_a_template_cannot_reach_into_python():
    with pytest.raises(InputError, match="unsafe"):
        render_card(card(), template="{{ data.__class__.__mro__ }}")


@pytest.mark.slow
def test_the_snippet_of_a_written_card_runs(tmp_path, tables, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    rows = preference_frame(
        pairs=tables.pairs,
        prompts=tables.prompts,
        candidates=tables.candidates,
        pair_scores=tables.pair_scores,
    )
    pairs = rows.with_columns(status=pl.lit("kept"))
    files, captions = card_figures(waterfall=WATERFALL, pairs=pairs)
    text = render_card(
        card(
            splits=split_counts(rows),
            columns=column_rows(rows),
            figures=captions,
            gates=check_gates({"preference": rows}),
        )
    )
    folder = tmp_path / "preference"
    write_dataset(rows, folder=str(folder), extra_files={"README.md": text.encode(), **files})
    for path in re.findall(r"!\[[^]]*\]\(([^)]+)\)", text):
        assert (folder / path).read_bytes().startswith(b"\x89PNG")
    snippet = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)[0]
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(snippet, names)
    first = names["first"]
    assert isinstance(first, dict)
    assert first["pair_id"] == rows["pair_id"][0]
