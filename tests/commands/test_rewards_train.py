"""``curation rewards train``: the folder it writes, and that what it says of its own data is out of fold."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from curation.cli import app
from curation.commands.rewards import run_rewards
from curation.commands.rewards_train import OUT_OF_FOLD_FILE, run_rewards_train
from curation.errors import InputError
from curation.models.encoder import open_encoder
from curation.models.rewards.heads import HEADS_FILE, features, heads_rewards, read_heads
from curation.scores.training import TrainingOptions, train_heads
from curation.text import prompt_id

TOPICS = ["rivers", "bridges", "teapots", "violins", "maps", "clouds", "lamps", "ships", "gardens", "bells"]


def pairs(count: int = 20) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for number in range(count):
        topic = TOPICS[number % len(TOPICS)]
        rows.append(
            {
                "prompt": f"What should I know about {topic}?" + (" Please be brief." if number >= 10 else ""),
                "chosen": f"Most {topic} are older than people think, and number {number} is a good start.",
                "rejected": f"{topic}.",
                "row_of_mine": number,
            }
        )
    return rows


def write(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("train")
    source = write(folder / "pairs.jsonl", [*pairs(), {"prompt": "x", "chosen": "same", "rejected": "same"}])
    run_rewards_train(source, folder / "heads", heads=3, folds=4)
    return source, folder / "heads"


def test_the_folder_has_heads_card_rewards_and_rejects(trained: tuple[Path, Path]) -> None:
    _, folder = trained
    assert sorted(p.name for p in folder.iterdir()) == [
        "README.md", HEADS_FILE, OUT_OF_FOLD_FILE, "out_of_fold.rejects.parquet",
    ]  # fmt: skip
    rows = pl.read_parquet(folder / OUT_OF_FOLD_FILE)
    assert rows["row_of_mine"].to_list() == list(range(20))
    assert rows["chosen_rewards"].list.len().unique().to_list() == [3]
    assert "20 pairs of 20 prompts" in (folder / "README.md").read_text(encoding="utf-8")


def test_scoring_the_training_data_again_is_out_of_fold(trained: tuple[Path, Path], tmp_path: Path) -> None:
    source, folder = trained
    run_rewards(source, tmp_path / "again.parquet", models=[str(folder)])
    again, first = pl.read_parquet(tmp_path / "again.parquet"), pl.read_parquet(folder / OUT_OF_FOLD_FILE)
    for side in ("chosen_rewards", "rejected_rewards"):
        # One of the 21 rows has equal answers, which training rejects and scoring may keep.
        kept = again.filter(pl.col("row_of_mine").is_not_null())
        np.testing.assert_allclose(kept[side].to_list(), first[side].to_list(), atol=1e-4)


def test_a_prompt_is_scored_by_heads_that_have_not_seen_it(trained: tuple[Path, Path]) -> None:
    _, folder = trained
    heads = read_heads(folder)
    assert heads.folds is not None
    encoder = open_encoder("embedded", device="cpu")
    row = pairs()[7]
    values = features([str(row["prompt"])], [str(row["chosen"])], encoder).values
    known = prompt_id([{"role": "user", "content": str(row["prompt"])}])
    other = prompt_id([{"role": "user", "content": "Never asked before."}])
    fold = int(heads.folds.numbers[np.searchsorted(heads.folds.prompts, np.uint64(int(known[:16], 16)))])
    np.testing.assert_array_equal(heads_rewards(heads, values, [known]), values @ heads.folds.weights[fold].T)
    np.testing.assert_array_equal(heads_rewards(heads, values, [other]), values @ heads.weights.T)
    assert not np.allclose(heads_rewards(heads, values, [known]), heads_rewards(heads, values, [other]))


def test_a_label_does_not_move_the_rewards_of_its_own_row() -> None:
    """The proof that strength is out of fold: a row's margin turns round with its label, and else stays."""
    rows = pairs()
    rows[3]["chosen"], rows[3]["rejected"] = rows[3]["rejected"], rows[3]["chosen"]
    encoder = open_encoder("embedded", device="cpu")
    margins = []
    for data in (pairs(), rows):
        prompts = [[{"role": "user", "content": str(row["prompt"])}] for row in data]
        chosen, rejected = [str(row["chosen"]) for row in data], [str(row["rejected"]) for row in data]
        done = train_heads(
            prompts, chosen, rejected, encoder=encoder, encoder_name="embedded",
            options=TrainingOptions(heads=2, folds=4, penalty=60.0),
        )  # fmt: skip
        margins.append(done.fit.margins)
    # The scale of the penalty is taken over all rows, but a flip does not change it.
    np.testing.assert_allclose(margins[0][3], -margins[1][3], atol=1e-6)
    assert np.abs(margins[0] - margins[1]).max() > 1e-3


def test_too_few_prompts_for_the_folds_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="3 different prompts are fewer than the 5 folds"):
        run_rewards_train(write(tmp_path / "few.jsonl", pairs(3)), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_with_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="holds something else than reward heads"):
        run_rewards_train(write(tmp_path / "p.jsonl", pairs()), tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"


def test_heads_with_something_beside_them_are_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "heads"
    run_rewards_train(write(tmp_path / "p.jsonl", pairs()), folder, heads=1, folds=2)
    before = (folder / "out_of_fold.parquet").read_bytes()
    with pytest.raises(InputError, match=r"holds the input .*out_of_fold\.parquet: its rows that are rejected"):
        run_rewards_train(folder / "out_of_fold.parquet", folder, heads=1, folds=2)
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"also holds notes\.txt, which this command did not write"):
        run_rewards_train(tmp_path / "p.jsonl", folder, heads=1, folds=2)
    assert (folder / "out_of_fold.parquet").read_bytes() == before


def test_training_on_its_own_output_says_what_it_replaces(tmp_path: Path) -> None:
    first = run_rewards_train(write(tmp_path / "p.jsonl", pairs()), tmp_path / "one", heads=1, folds=2)
    again = run_rewards_train(tmp_path / "one" / "out_of_fold.parquet", tmp_path / "two", heads=1, folds=2)
    assert (
        "replaced, because the file had columns of these names: chosen_rewards, rejected_rewards" in again.summary
    )
    assert "replaced" not in first.summary
    name = "out_of_fold.parquet"
    assert pl.read_parquet(tmp_path / "two" / name).equals(pl.read_parquet(tmp_path / "one" / name))


def test_a_place_where_nothing_can_be_written_is_said_before_any_training(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="heads cannot be made: you may not write in"):
        run_rewards_train(tmp_path / "pairs.jsonl", tmp_path / "file" / "heads")


def test_soft_labels_must_be_probabilities(tmp_path: Path) -> None:
    rows = [{**row, "p": 1.5 if row["row_of_mine"] == 4 else 0.9} for row in pairs()]
    with pytest.raises(InputError, match=r"column 'p', row 4: found 1\.5"):
        run_rewards_train(write(tmp_path / "p.jsonl", rows), tmp_path / "out", label_probability="p")


@pytest.mark.parametrize(
    "command", [["rewards"], ["rewards", "score"], ["rewards", "train"], ["judge"], ["strength"]]
)
def test_help_is_shown(command: list[str]) -> None:
    shown = CliRunner().invoke(app, [*command, "--help"])
    assert shown.exit_code == 0, shown.output
    assert "INPUT" in shown.output
