"""From a file of answers to a sheet, rates and a calibration, through the command line."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

from curation.cli import app
from curation.commands.refusal_labels import (
    rates_text,
    run_calibrate,
    run_refusals_rate,
    run_sample_for_labelling,
)
from curation.errors import InputError
from curation.files import ROW
from curation.refusals.calibrated import fit_stored, load_calibration
from curation.refusals.estimation import labelled_rates

REFUSES = "I'm sorry, but I can't help with that. Number {}."
HELPS = "Fold the paper {} times, then press the edges flat."


def curation(*arguments: str | Path, status: int = 0) -> str:
    done = CliRunner().invoke(app, [str(a) for a in arguments])
    assert done.exit_code == status, (done.output, done.exception)
    return done.output


@pytest.fixture(scope="module")
def detected(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("labelling")
    texts = [(REFUSES if i % 4 == 0 else HELPS).format(i) for i in range(80)]
    pl.DataFrame({"response": texts, "group": ["a", "b"] * 40}).write_ndjson(folder / "answers.jsonl")
    curation("refusals", folder / "answers.jsonl", "-o", folder / "detected.parquet")
    return folder / "detected.parquet"


def filled(sheet: Path) -> Path:
    frame = pl.read_parquet(sheet)
    refuses = pl.col("response").str.starts_with("I'm sorry").cast(pl.Int8)
    frame.with_columns(label=refuses).write_parquet(sheet)
    return sheet


def test_a_filled_sheet_gives_rates_for_all_and_by_group(detected: Path, tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.parquet"
    said = curation("refusals", "sample-for-labelling", detected, "-o", sheet, "--size", 40)
    drawn = pl.read_parquet(sheet)
    assert f"{drawn.height} answers" in said
    assert drawn["label"].null_count() == drawn.height
    lines = curation("refusals", "rate", detected, "--sheet", filled(sheet), "--by", "group").splitlines()
    assert lines[0].startswith("all: 25.0% (95 % interval")
    assert [line.split(":")[0] for line in lines] == ["all", "a", "b"]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_sheet_for_spreadsheets_comes_back_as_they_save_it(tmp_path: Path, separator: str) -> None:
    rows = [
        {
            "messages": [
                {"role": "user", "content": "How?"},
                {"role": "assistant", "content": f"=Fold {n}.\nEnd."},
            ],
            "response": f"- Fold {n}, then {n}; press.\n+ End.",
            "refusal_probability": (n % 9 + 1) / 10,
        }
        for n in range(40)
    ]
    pl.DataFrame(rows).write_parquet(tmp_path / "detected.parquet")
    curation(
        "refusals", "sample-for-labelling", tmp_path / "detected.parquet", "-o", tmp_path / "s.csv", "--size", 30
    )
    written = (tmp_path / "s.csv").read_bytes()
    assert written.startswith(b"\xef\xbb\xbf")
    header, *lines = csv.reader(written.decode("utf-8-sig").splitlines(keepends=True))
    assert header[:4] == ["sheet_line", "label", "messages", "response"]
    assert lines[0][header.index("response")].startswith("'- Fold")
    for place, line in enumerate(lines):
        line[1] = f" {int(float(line[header.index('refusal_probability')]) > 0.4) if place else 0} "
        for name in ("refusal_probability", "sampling_probability"):
            line[header.index(name)] = line[header.index(name)].replace(".", "," if separator == ";" else ".")
    with (tmp_path / "saved.csv").open("w", encoding="utf-8-sig", newline="") as file:
        csv.writer(file, delimiter=separator).writerows([header, *reversed(lines), [""] * len(header)])
    plain = pl.DataFrame(lines, schema=header, orient="row").select(
        pl.col("row", "label").str.strip_chars().cast(pl.Int64),
        pl.col("sampling_probability").str.replace(",", ".").cast(pl.Float64),
    )
    said = run_refusals_rate(tmp_path / "detected.parquet", tmp_path / "saved.csv").rates
    assert said.equals(labelled_rates(pl.read_parquet(tmp_path / "detected.parquet"), plain))
    assert f"fitted to {len(lines)} labelled" in curation(
        "refusals", "calibrate", tmp_path / "saved.csv", "-o", tmp_path / "c.json"
    )


def test_an_unfilled_sheet_is_named_by_its_row(detected: Path, tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.parquet"
    curation("refusals", "sample-for-labelling", detected, "-o", sheet, "--size", 40)
    done = CliRunner().invoke(app, ["refusals", "rate", str(detected), "--sheet", str(sheet)])
    assert "has no label" in str(done.exception)


def test_a_group_that_is_not_there_is_told_with_the_columns_that_are(detected: Path, tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.parquet"
    run_sample_for_labelling(detected, sheet, size=40)
    with pytest.raises(InputError, match=r"'grup' is missing .did you mean 'group'") as error:
        run_refusals_rate(detected, filled(sheet), by="grup")
    assert ROW not in str(error.value)


def test_a_file_without_labels_is_told_how_to_get_them(detected: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["refusals", "calibrate", str(detected), "-o", str(tmp_path / "c.json")])

    assert "column 'label' is missing" in str(done.exception)
    assert "sample-for-labelling" in str(done.exception)
    assert ROW not in str(done.exception)


def test_a_misspelt_column_of_labels_is_told_before_anything_is_detected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in.jsonl").write_text(json.dumps({"response": "No.", "label": 1}) + "\n")
    monkeypatch.setattr("curation.commands.refusal_labels.detect_refusals", pytest.fail)
    with pytest.raises(InputError, match="'labl' is missing"):
        run_calibrate(tmp_path / "in.jsonl", tmp_path / "c.json", label="labl")


def test_a_calibration_moves_the_threshold_and_is_applied(detected: Path, tmp_path: Path) -> None:
    labelled = pl.read_parquet(detected).with_columns(label=pl.col("response").str.starts_with("I'm").cast(pl.Int8))
    labelled.write_parquet(tmp_path / "labelled.parquet")
    file = tmp_path / "calibration.json"
    assert "calibration error" in curation("refusals", "calibrate", tmp_path / "labelled.parquet", "-o", file)
    content = json.loads(file.read_text())
    assert content["slope"] > 0
    file.write_text(json.dumps(content | {"threshold": 1.0}))
    said = curation("refusals", detected, "-o", tmp_path / "again.parquet", "--calibration", file)
    assert "compliance 80" in said
    assert "calibrated: threshold 1.00" in said
    assert "calibrate it anew" not in said
    file.write_text(json.dumps(content | {"thresholds": {"malware": 0.5}}))
    said = curation("refusals", detected, "-o", tmp_path / "bare.parquet", "--calibration", file)
    assert "1 of them not used, for requests are not sorted into malware here" in said
    again = pl.read_parquet(tmp_path / "again.parquet")
    assert again["refusal_kind"].null_count() == 80
    assert again["refusal_probability"].max() > 0.9


def test_thresholds_per_category_come_back_from_their_file_with_what_they_rest_on(tmp_path: Path) -> None:
    refuses = [n % 2 for n in range(60)]
    frame = pl.DataFrame(
        {
            "refusal_probability": [
                (0.9 if y else 0.6) if n < 30 else (0.4 if y else 0.1) for n, y in enumerate(refuses)
            ],
            "refusal_category": ["high"] * 30 + ["low"] * 29 + ["few"],
            "label": refuses,
        }
    )
    frame.write_parquet(tmp_path / "sheet.parquet")
    said = curation("refusals", "calibrate", tmp_path / "sheet.parquet", "-o", tmp_path / "c.json")
    assert "2 categories have a threshold of their own" in said
    stored = load_calibration(tmp_path / "c.json")
    assert stored.fit is not None
    assert [(c.category, c.rows, c.own) for c in stored.fit.categories] == [
        ("few", 1, False), ("high", 30, True), ("low", 29, True),
    ]  # fmt: skip
    assert stored.fit.own == sorted(stored.thresholds.values())
    assert stored.thresholds["low"] < stored.thresholds["high"]
    assert all(c.accuracy == 1.0 for c in stored.fit.categories if c.own)
    words = stored.in_words("another")
    assert "2 categories have their own" in words
    assert "and this is another: calibrate it anew" in words
    assert "not used" not in stored.in_words("another", ["high", "low"])
    assert "1 of them not used, for requests are not sorted into low here" in stored.in_words("another", ["high"])


def test_a_sheet_calibrates_by_the_probabilities_that_it_was_drawn_with(tmp_path: Path) -> None:
    frame = pl.DataFrame(
        {
            "refusal_probability": [0.2, 0.3, 0.3, 0.3, 0.4, 0.8],
            "sampling_probability": [1.0, 1.0, 1.0, 1.0, 0.1, 1.0],
            "label": [0, 1, 1, 1, 0, 1],
        }
    )
    frame.write_parquet(tmp_path / "sheet.parquet")
    frame.drop("sampling_probability").write_parquet(tmp_path / "all.parquet")
    said = curation("refusals", "calibrate", tmp_path / "sheet.parquet", "-o", tmp_path / "c.json")
    assert "counts for those that it was drawn for" in said
    alike = curation("refusals", "calibrate", tmp_path / "all.parquet", "-o", tmp_path / "d.json")
    assert "drawn for" not in alike
    of_sheet, of_all = (load_calibration(tmp_path / name) for name in ("c.json", "d.json"))
    assert of_all.fit is not None
    assert of_sheet.fit is not None
    assert (of_sheet.fit.rows, of_all.fit.rows) == (6, 6)
    cut = [stored.scaling.apply([0.3, 0.4]) >= stored.threshold for stored in (of_sheet, of_all)]
    assert [c.tolist() for c in cut] == [[False, False], [True, True]]
    frame.with_columns(sampling_probability=pl.lit(0.0)).write_parquet(tmp_path / "bad.parquet")
    with pytest.raises(InputError, match=r"'sampling_probability' holds 0\.0 beside a label"):
        run_calibrate(tmp_path / "bad.parquet", tmp_path / "e.json")


def with_unreadable(detected: Path, folder: Path, *, label: bool = False) -> Path:
    """The detected answers as JSON lines, and two lines that no frame can hold."""
    frame = pl.read_parquet(detected)
    if label:
        frame = frame.with_columns(label=pl.col("response").str.starts_with("I'm").cast(pl.Int8))
        first = pl.int_range(pl.len())
        frame = frame.with_columns(
            label=pl.when(first != 1).then("label"),
            refusal_probability=pl.when(first != 2).then("refusal_probability"),
        )
    lines = frame.write_ndjson().splitlines()
    lines[4:4] = ['{"response": "a", "response": "b"}', '{"response": "\\ud800"}']
    (folder / "detected.jsonl").write_text("\n".join(lines) + "\n")
    return folder / "detected.jsonl"


def test_rows_that_cannot_be_read_are_told_and_rejected(detected: Path, tmp_path: Path) -> None:
    file, sheet = with_unreadable(detected, tmp_path), tmp_path / "sheet.parquet"
    said = curation("refusals", "sample-for-labelling", file, "-o", sheet, "--size", 40)
    assert "2 rejected (invalid_unicode 1, repeated_key 1)" in said
    assert pl.read_parquet(tmp_path / "sheet.rejects.parquet")["row"].to_list() == [4, 5]
    said = curation("refusals", "rate", file, "--sheet", filled(sheet))
    assert "2 rows of" in said
    assert "cannot be read (invalid_unicode 1, repeated_key 1) and count in no rate" in said


def test_calibrate_says_what_it_rests_on_and_what_it_could_not_use(detected: Path, tmp_path: Path) -> None:
    file = with_unreadable(detected, tmp_path, label=True)
    said = curation("refusals", "calibrate", file, "-o", tmp_path / "c.json")
    assert "fitted to 78 labelled answers, 20 of which refuse; 1 rows have no label" in said
    assert "3 rejected (invalid_unicode 1, no_verdict 1, repeated_key 1)" in said
    rejects = pl.read_parquet(tmp_path / "c.json.rejects.parquet")
    assert sorted(rejects["row"]) == [2, 4, 5]


def test_a_sheet_with_a_line_that_cannot_be_read_gives_no_rate(detected: Path, tmp_path: Path) -> None:
    file, sheet = with_unreadable(detected, tmp_path), tmp_path / "sheet.parquet"
    curation("refusals", "sample-for-labelling", file, "-o", sheet, "--size", 40)
    lines = pl.read_parquet(filled(sheet)).write_ndjson().splitlines()
    (tmp_path / "torn.jsonl").write_text("\n".join([*lines[:2], '{"row": 1, "row": 2}', *lines[3:]]))
    with pytest.raises(InputError, match=r"torn\.jsonl: row 2 cannot be read \(repeated_key"):
        run_refusals_rate(file, tmp_path / "torn.jsonl")


def test_a_sheet_without_its_lines_counted_gives_a_rate_and_says_so(detected: Path, tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.parquet"
    curation("refusals", "sample-for-labelling", detected, "-o", sheet, "--size", 40)
    old = pl.read_parquet(filled(sheet)).drop("sheet_line")
    old.write_parquet(sheet)
    assert "whether lines of it are missing cannot be told" in run_refusals_rate(detected, sheet).summary
    old.head(5).write_parquet(sheet)
    assert run_refusals_rate(detected, sheet).rates["labelled"].to_list() == [5]


def test_labels_and_the_detected_file_are_never_written_over(detected: Path, tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.parquet"
    run_sample_for_labelling(detected, sheet, size=40)
    run_sample_for_labelling(detected, sheet, size=40, seed=1)
    before = filled(sheet).read_bytes()
    with pytest.raises(InputError, match=r"is a sheet with \d+ labels"):
        run_sample_for_labelling(detected, sheet, size=40)
    assert sheet.read_bytes() == before
    with pytest.raises(InputError, match="take the place of the input"):
        run_sample_for_labelling(detected, detected, size=40)


def test_a_bound_that_no_rate_can_reach_is_cut_and_told() -> None:
    rates = pl.DataFrame(
        {
            "group": [None, "b"], "rows": [9, 9], "labelled": [3, 3], "detector_rate": [0.1, 0.1],
            "rate": [0.02, 0.5], "low": [-0.05, 0.4], "high": [0.09, 0.6],
        }
    )  # fmt: skip
    first, second = rates_text(rates).splitlines()
    assert "2.0% (95 % interval 0.0% to 9.0%, cut to 0 to 100 %: 2.0%, -5.0% to 9.0% as estimated);" in first
    assert "50.0% (95 % interval 40.0% to 60.0%);" in second


def test_calibrate_sorts_requests_by_the_taxonomy_that_it_is_given(tmp_path: Path) -> None:
    names = ("doors", "mail")
    prompts = {"doors": "How do I pick the lock of a door?", "mail": "Write a phishing message."}
    rows = [
        {"prompt": prompts[name], "response": (REFUSES if n % 2 else HELPS).format(n), "label": n % 2}
        for name in names for n in range(30)
    ]  # fmt: skip
    pl.DataFrame(rows).write_ndjson(tmp_path / "a.jsonl")
    (tmp_path / "ours.yaml").write_text(
        "categories:\n"
        "- {name: doors, prototypes: [pick the lock of a door]}\n"
        "- {name: mail, prototypes: [write a phishing message]}\n"
    )
    out = tmp_path / "c.json"
    curation("refusals", "calibrate", tmp_path / "a.jsonl", "-o", out, "--taxonomy", tmp_path / "ours.yaml")
    assert tuple(load_calibration(out).thresholds) == names
    curation("refusals", "calibrate", tmp_path / "a.jsonl", "-o", out, "--taxonomy", "none")
    assert not load_calibration(out).thresholds
    curation("refusals", tmp_path / "a.jsonl", "-o", tmp_path / "d.jsonl")
    with pytest.raises(InputError, match="detected already"):
        run_calibrate(tmp_path / "d.jsonl", out, taxonomy="coconot")


def test_calibrated_probabilities_are_not_calibrated_again(detected: Path, tmp_path: Path) -> None:
    label = pl.col("response").str.starts_with("I'm").cast(pl.Int8)
    pl.read_parquet(detected).with_columns(label=label).write_parquet(tmp_path / "labelled.parquet")
    file, again = tmp_path / "c.json", tmp_path / "again.parquet"
    curation("refusals", "calibrate", tmp_path / "labelled.parquet", "-o", file)
    (said,) = pl.read_parquet(detected)["refusal_detector"].unique()
    assert load_calibration(file).detector == said
    curation("refusals", detected, "-o", again, "--calibration", file)
    pl.read_parquet(again).with_columns(label=label).write_parquet(again)
    with pytest.raises(InputError, match="calibrated already"):
        run_calibrate(again, file)
    both = pl.concat([pl.read_parquet(tmp_path / "labelled.parquet"), pl.read_parquet(again)], how="diagonal")
    both.write_parquet(again)
    with pytest.raises(InputError, match="of 2 detectors"):
        run_calibrate(again, file)


def test_answers_of_several_types_are_detected_before_they_calibrate(tmp_path: Path) -> None:
    rows = [{"response": REFUSES, "label": 1}, {"response": [{"role": "assistant", "content": HELPS}], "label": 0}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(InputError, match="'response' holds values of several types"):
        run_calibrate(tmp_path / "a.jsonl", tmp_path / "c.json")


def test_labels_that_run_against_the_detector_make_no_calibration(tmp_path: Path) -> None:
    frame = pl.DataFrame({"refusal_probability": [0.01, 0.02, 0.9, 0.99] * 10, "label": [1, 1, 0, 0] * 10})
    with pytest.raises(InputError, match="runs against the detector"):
        fit_stored(frame)
    fit = fit_stored(frame.with_columns(label=1 - pl.col("label"))).stored
    file = tmp_path / "c.json"
    file.write_text(fit._replace(scaling=fit.scaling._replace(slope=-fit.scaling.slope)).to_json())
    with pytest.raises(InputError, match="refusals become answers"):
        load_calibration(file)


def test_a_fit_that_was_written_by_hand_is_named_by_its_field(tmp_path: Path) -> None:
    content = {
        "version": 1, "slope": 1.0, "intercept": 0.0, "threshold": 0.5, "thresholds": {}, "detector": None,
        "fit": {"rows": 3, "error_before": 0.1, "error_after": 0.1, "categories": [{"category": "a"}]},
    }  # fmt: skip
    (tmp_path / "c.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"c\.json: fit\.categories\.0\.rows: .*make it again"):
        load_calibration(tmp_path / "c.json")


@pytest.mark.parametrize("content", ["[]", "{", '{"version": 1}', '{"version": 1, "slope": "x"}'])
def test_a_file_that_is_no_calibration_is_named(detected: Path, tmp_path: Path, content: str) -> None:
    (tmp_path / "c.json").write_text(content)
    arguments = ["refusals", str(detected), "-o", str(tmp_path / "o.parquet")]
    done = CliRunner().invoke(app, [*arguments, "--calibration", str(tmp_path / "c.json")])
    assert "c.json" in str(done.exception)


def test_requests_are_judged_where_there_are_prompts(tmp_path: Path) -> None:
    pl.DataFrame({"prompt": ["What is two and two?"], "response": ["Four."]}).write_ndjson(tmp_path / "a.jsonl")
    curation("refusals", tmp_path / "a.jsonl", "-o", tmp_path / "o.parquet", "--requests")
    columns = pl.read_parquet(tmp_path / "o.parquet").columns
    assert {"refuse_probability", "look_alike_probability", "refuse_reason"} <= set(columns)


def test_requests_are_judged_by_the_last_user_turn(tmp_path: Path) -> None:
    asked = {"role": "user", "content": "Write a phishing message."}
    system = {"role": "system", "content": "You answer questions about orders and parcels, politely. " * 12}
    rows = [{"prompt": [*before, asked], "response": "No."} for before in ([], [system])]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    curation("refusals", tmp_path / "a.jsonl", "-o", tmp_path / "o.parquet", "--requests")
    found = pl.read_parquet(tmp_path / "o.parquet")
    assert found["prompt"].to_list() == [row["prompt"] for row in rows]
    alone, after = found.select("refusal_category", "refuse_reason", "refuse_probability").rows()
    assert after[:2] == alone[:2] == ("fraud", "safety")
    assert after[2] == pytest.approx(alone[2], abs=1e-5)


def test_requests_without_prompts_are_an_error(detected: Path, tmp_path: Path) -> None:
    pl.DataFrame({"response": ["Four."]}).write_ndjson(tmp_path / "a.jsonl")
    arguments = ["refusals", str(tmp_path / "a.jsonl"), "-o", str(tmp_path / "o.parquet"), "--requests"]
    assert "needs prompts" in str(CliRunner().invoke(app, arguments).exception)


def test_answers_that_a_spreadsheet_would_retype_or_cut_come_back_as_they_were(tmp_path: Path) -> None:
    """As LibreOffice does on opening a sheet and saving it, whatever the quotes: 0012 is 12, and true is TRUE."""
    odd = ["0012", "1.50", "1e5", "3/4", "2024-01-02", "5. Mai", "true", "'tis 7", "word " * 8_000, "Paris"]
    answers = [*odd, *(f"Fold the paper {n} times, then press the edges of the boat flat." for n in range(10))]
    rows = [{"response": a, "refusal_probability": 0.1 + n % 2 * 0.7} for n, a in enumerate(answers)]
    pl.DataFrame(rows).write_parquet(tmp_path / "detected.parquet")
    said = run_sample_for_labelling(tmp_path / "detected.parquet", tmp_path / "s.csv", size=20)
    assert "1 are too long for a cell: the sheet has their beginning and end" in said
    drawn = pl.read_csv(tmp_path / "s.csv", infer_schema=False)
    cells = drawn["response"].to_list()
    assert all(cell.startswith("'") for cell in cells[:8])
    assert [cells[9], max(map(len, cells)) < 32_767 // 2] == ["Paris", True]
    drawn.with_columns(label=pl.lit("0")).write_csv(tmp_path / "filled.csv")
    found = run_refusals_rate(tmp_path / "detected.parquet", tmp_path / "filled.csv").rates
    assert found["labelled"].to_list() == [20]
    other = drawn.with_columns(label=pl.lit("0"), response=pl.col("response").str.replace("Paris", "Rome"))
    other.write_csv(tmp_path / "other.csv")
    with pytest.raises(InputError, match="row 9 has another answer in the sheet"):
        run_refusals_rate(tmp_path / "detected.parquet", tmp_path / "other.csv")
