"""What the UI shows of a stage: counts, what changed, a preview without texts, and its plot."""

import base64
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import dagster as dg
import polars as pl

from curation.changes import gate_changes, rejects_by_rule, table_change
from curation.engine import StepReport
from curation.publish.chart_style import figure_png
from curation.stages.context import Context, Stage, StageResult
from curation.stages.figures import stage_figure
from curation.text import content_hash
from curation.workspace import LEDGER_TABLES
from schemas import TABLES

__all__ = ["stage_metadata"]

_PREVIEW_ROWS: Final = 5
_PREVIEW_COLUMNS: Final = 10
_CELL: Final = 20
_NAME: Final = 60
_HIDDEN: Final = {
    *("messages", "response", "responses", "prompt", "chosen", "rejected", "completion", "anchor", "positive"),
    *("vector", "gram", "last_gram", "edit", "recipe", "scores", "parameters", "matched_text", "reasoning"),
    "system_prompt",
}


def stage_metadata(
    context: Context,
    stage: Stage,
    result: StageResult | None,
    *,
    before: Mapping[str, int | None],
    reports: Sequence[StepReport],
) -> dg.MaterializeResult:
    """Counts, facts, what changed, a preview and the key plot of a stage that has run.

    Args:
        before: the versions of its table and of ``rejects`` before it ran.
        reports: what its model steps did.
    """
    if result is None:
        return dg.MaterializeResult(
            metadata={"left out": "the recipe does not ask for this stage"}, data_version=dg.DataVersion("left out")
        )
    metadata: dict[str, Any] = {"dagster/row_count": result.rows, "rejected": result.rejected}
    version = None if stage.table is None else context.workspace.version(stage.table)
    if stage.table is not None:
        metadata["since the last run"] = _change(context, stage.table, before[stage.table], version)
    metadata |= _changed_rules_and_gates(context, stage, before)
    plot = stage_figure(context, stage.name)
    if plot is not None:
        encoded = base64.b64encode(figure_png(plot, scale=1.2)).decode()
        metadata["plot"] = dg.MetadataValue.md(f"![{stage.name}](data:image/png;base64,{encoded})")
    if stage.table is not None:
        metadata["preview"] = dg.MetadataValue.md(_preview(context.workspace.scan(stage.table)))
    metadata |= {name: _value(value) for name, value in result.facts.items()}
    if reports:
        metadata |= {"computed": sum(r.computed for r in reports), "reused": sum(r.reused for r in reports)}
    if version is not None:
        metadata["table version"] = version
    data_version = dg.DataVersion(_data_version(context, stage, result, [r.producer for r in reports]))
    return dg.MaterializeResult(metadata=metadata, data_version=data_version)


def _changed_rules_and_gates(
    context: Context, stage: Stage, before: Mapping[str, int | None]
) -> dict[str, dg.MetadataValue]:
    """Rejects by rule, the last time and now, and the gates that say something else than the last time."""
    shown: dict[str, dg.MetadataValue] = {}
    rules = rejects_by_rule(context.workspace, stage.name, since=before["rejects"])
    if rules:
        shown["rejected by rule"] = dg.MetadataValue.md(_markdown(("rule", "last run", "this run"), rules))
    if stage.name == "gates":
        names = ("dataset", "gate", "last value", "value", "last threshold", "threshold", "held", "holds")
        changes = gate_changes(context.workspace, since=before["gates"])
        shown["gates that changed"] = dg.MetadataValue.md(_markdown(names, changes) if changes else "none")
    return shown


def _value(value: Any) -> Any:
    if isinstance(value, int | float):
        return value
    text = str(value)
    return dg.MetadataValue.path(text) if text.startswith("/") else text


def _change(context: Context, table: str, before: int | None, after: int | None) -> str:
    if before == after:
        return "unchanged"
    change = table_change(context.workspace, table, since=before)
    if before is None:
        return f"first written: {change}"
    counts = [context.workspace.scan(table, version=v).select(pl.len()).collect().item() for v in (before, after)]
    return f"{change} ({counts[0]:,} rows before, {counts[1]:,} now)"


def _data_version(context: Context, stage: Stage, result: StageResult, producers: Sequence[str]) -> str:
    """The same for the same content, so that what reads it is up to date.

    A table's version changes exactly when its content does. A ledger's also does when small files are
    merged or when another recipe adds rows, so there and for files it is what they are made from.
    """
    if stage.table is not None and stage.table not in LEDGER_TABLES:
        return f"{stage.table}@{context.workspace.version(stage.table)}"
    made_from = sorted(set(stage.needs) & set(TABLES) - LEDGER_TABLES)
    versions = [f"{name}@{context.workspace.version(name)}" for name in made_from]
    return content_hash(
        stage.name, str(stage.version), context.recipe.content_hash, str(result.rows), *producers, *versions
    )[:16]


def _preview(frame: pl.LazyFrame) -> str:
    """The first rows as a Markdown table. Texts stay out: they may be dangerous requests."""
    names = [
        name
        for name, dtype in frame.collect_schema().items()
        if name not in _HIDDEN and not name.startswith("negative_") and not dtype.is_nested()
    ]
    columns, more = names[:_PREVIEW_COLUMNS], names[_PREVIEW_COLUMNS:]
    rows = frame.select(columns).head(_PREVIEW_ROWS).collect()
    if rows.is_empty():
        return "no rows"
    note = f"\n\nand the columns {', '.join(more)}" if more else ""
    return _markdown(columns, rows.iter_rows(), width=_CELL) + note


def _markdown(columns: Sequence[str], rows: Iterable[Sequence[object]], *, width: int = _NAME) -> str:
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    return "\n".join(lines + [f"| {' | '.join(_cell(v, width) for v in row)} |" for row in rows])


def _cell(value: object, width: int) -> str:
    if value is None:
        return ""
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    text = " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
    return text if len(text) <= width else text[: width - 1] + "…"
