"""What a run says at its end, as plain lines: what was kept and dropped and why, and where everything is."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import polars as pl

if TYPE_CHECKING:
    from curation.pipeline import RunResult

__all__ = ["run_summary"]

_WIDTH = 34


def run_summary(result: RunResult) -> list[str]:
    """The lines to print after a run."""
    workspace = result.workspace
    lines = [""]
    for (dataset,), rules in workspace.read("waterfall").sort("dataset").group_by(["dataset"], maintain_order=True):
        lines += [f"{dataset}: what was dropped, and why", *_waterfall(rules), ""]
    others = _other_rejects(workspace.read("rejects"), workspace.read("waterfall"))
    if others:
        lines += ["other rejects", *others, ""]
    if result.computed == 0 and not result.changed:
        lines.append(f"Nothing to do: all {result.reused:,} model results and every table are up to date.")
    else:
        lines.append(
            f"Done in {result.seconds:.1f} s: {result.computed:,} model results computed, {result.reused:,} reused."
        )
    datasets = [stage.facts["folder"] for stage in result.stages if "folder" in stage.facts]
    lines += [f"dataset  {_short(str(folder))}" for folder in datasets]
    lines += [f"report   {_short(workspace.report_path)}", f"rejects  {_short(workspace.table_path('rejects'))}"]
    return lines


def _waterfall(rules: pl.DataFrame) -> list[str]:
    rows = rules.sort("position").to_dicts()
    start = rows[0]["left"] + rows[0]["removed"]
    lines = [f"  {'at the start':<{_WIDTH}} {'':>10} {start:>10,}"]
    for row in rows:
        removed = f"-{row['removed']:,}" if row["removed"] else "0"
        line = f"  {row['stage'] + ' ' + row['rule']:<{_WIDTH}} {removed:>10} {row['left']:>10,} left"
        lines.append(line + _mining(row))
    return lines


def _mining(row: dict[str, Any]) -> str:
    """For mined negatives: anchors with too few candidates, and what a looser threshold would give."""
    short, threshold = row["anchors_short"], row["next_threshold"]
    said = f"; {short:,} {'anchor' if short == 1 else 'anchors'} short" if short else ""
    if threshold is not None:
        said += f"; {threshold:.4g} in place of {row['threshold']:.4g} would leave {row['next_left']:,}"
        said += " after all thresholds"
    return said


def _other_rejects(rejects: pl.DataFrame, waterfall: pl.DataFrame) -> list[str]:
    """Rejects that no waterfall tells of, by stage and rule. Of rows one does where the sources bring the pairs."""
    told = rejects.filter(pl.col("table").is_in(["inputs", "pairs"])).join(
        waterfall, on=["stage", "rule"], how="semi"
    )
    others = rejects.join(told, on=["table", "row_id", "rule"], how="anti", maintain_order="left")
    counts = others.group_by("stage", "rule", maintain_order=True).len()
    return [f"  {stage + ' ' + rule:<{_WIDTH}} {count:>10,}" for stage, rule, count in counts.iter_rows()]


def _short(path: str) -> str:
    """A path as seen from here, where that is shorter."""
    relative = path if "://" in path else os.path.relpath(path)
    return min(path, relative, key=len)
