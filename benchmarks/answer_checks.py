"""How many real answers the answer checks take for broken: none of them came straight from a sampler.

    python benchmarks/answer_checks.py [--data ../shared/data]

Reads every answer of the data folder's answer sets and prints the findings by rule, with the row numbers, and
the time. No text is printed.
"""

from __future__ import annotations

import argparse
import gzip
import json
import time
from collections.abc import Iterator
from pathlib import Path

import polars as pl
from _figures import FIGURES, shared_data

from curation.candidates.checks import check_answers


def answers(folder: Path) -> Iterator[tuple[str, str, str]]:
    """set, prompt, answer."""
    with gzip.open(folder / "hh_harmless" / "test.jsonl.gz", "rt") as file:
        for line in file:
            row = json.loads(line)
            for side in ("chosen", "rejected"):
                prompt, _, answer = row[side].rpartition("\n\nAssistant:")
                yield "hh_harmless", prompt, answer
    for row in json.loads((folder / "chatgpt_refusals" / "all_hand_labeled.json").read_text()):
        yield "chatgpt_refusals", row["prompt"], row["response"]
    for line in (folder / "ultrafeedback_noise" / "clean.jsonl").read_text().splitlines():
        row = json.loads(line)
        for side in ("chosen", "rejected"):
            yield "ultrafeedback", text_of(row.get("prompt")), text_of(row[side])
    for path in sorted((folder / "xstest").glob("*")):
        if path.suffix == ".csv" and "completion" in path.name:
            frame = pl.read_csv(path)
            yield from (("xstest", p, a) for p, a in frame.select("prompt", "completion").drop_nulls().iter_rows())
    for row in json.loads((folder / "pandalm" / "testset-v1.json").read_text()):
        for side in ("response1", "response2"):
            yield "pandalm", f"{row['instruction']}\n{row['input']}", row[side]


def text_of(value: object) -> str:
    if isinstance(value, list):
        return str(value[-1]["content"])
    return str(value or "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path)
    rows = list(answers(shared_data(parser.parse_args().data)))
    frame = pl.DataFrame(rows, schema={"set": pl.String, "prompt": pl.String, "response": pl.String}, orient="row")
    started = time.perf_counter()
    checked = check_answers(frame)
    seconds = time.perf_counter() - started
    print(f"{frame.height:,} answers, {frame['response'].str.len_chars().sum():,} characters, {seconds:.2f} s")
    found = checked["rule"].count()
    FIGURES.add("real answers taken for broken", found, "answers", conditions=f"of {frame.height:,}")
    FIGURES.add("answer checks", frame.height / seconds, "answers/s")
    print(checked.group_by("set").agg(pl.len(), reasoning=pl.col("reasoning").count()).sort("set"))
    for name, rule, value, at in (
        checked.with_row_index().drop_nulls("rule").select("set", "rule", "value", "index").iter_rows()
    ):
        print(f"{name:>18} {rule:<18} row {at:>6} {value}")


if __name__ == "__main__":
    main()
    FIGURES.write()
