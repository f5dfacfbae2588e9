"""What the UI shows of a stage: counts, a preview without texts, and its plot."""

import base64
from typing import Any

import dagster as dg
import polars as pl

from curation.publish.plots import figure_png, histogram_chart, refusal_chart, scatter_chart, waterfall_chart
from curation.stages.context import Context, Stage, StageResult
from curation.stages.evidence import pair_evidence

__all__ = ["stage_metadata"]

_PREVIEW_ROWS = 5
_TEXTS = {"messages", "response", "responses", "prompt", "chosen", "rejected", "completion", "anchor", "positive"}
_LONG = {"vector", "gram", "last_gram", "edit", "recipe", "scores", "parameters"}


def stage_metadata(context: Context, stage: Stage, result: StageResult | None) -> dg.MaterializeResult:
    """Counts, facts, a preview and the key plot of a stage that has run."""
    if result is None:
        return dg.MaterializeResult(metadata={"left out": "the recipe does not ask for this stage"})
    metadata: dict[str, Any] = {"dagster/row_count": result.rows, "rejected": result.rejected}
    metadata |= {name: _value(value) for name, value in result.facts.items()}
    version = None
    if stage.table is not None:
        metadata["preview"] = dg.MetadataValue.md(_preview(context.workspace.scan(stage.table)))
        version = context.workspace.version(stage.table)
        metadata["table version"] = -1 if version is None else version
    plot = _plot(context, stage)
    if plot is not None:
        encoded = base64.b64encode(figure_png(plot, scale=1.2)).decode()
        metadata["plot"] = dg.MetadataValue.md(f"![{stage.name}](data:image/png;base64,{encoded})")
    return dg.MaterializeResult(metadata=metadata)


def _value(value: Any) -> Any:
    return value if isinstance(value, int | float) else str(value)


def _preview(frame: pl.LazyFrame) -> str:
    """The first rows as a Markdown table. Texts stay out: they may be dangerous requests."""
    columns = [
        name
        for name in frame.collect_schema().names()
        if name not in _TEXTS | _LONG and not name.startswith("negative_")
    ]
    rows = frame.select(columns).head(_PREVIEW_ROWS).collect()
    head = f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}\n"
    return head + "\n".join(f"| {' | '.join(_cell(v) for v in row)} |" for row in rows.iter_rows())


def _cell(value: object) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    text = " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
    return text if len(text) <= 40 else text[:37] + "..."


def _plot(context: Context, stage: Stage) -> Any:
    """The chart that says most about a stage, None where there is none."""
    if stage.name in {"preference", "retrieval"}:
        rules = context.workspace.read("waterfall").filter(pl.col("dataset") == stage.name)
        return None if rules.is_empty() else waterfall_chart(rules)
    if not context.recipe.builds_pairs or stage.name not in {"pair_scores", "refusals", "publish_preference"}:
        return None
    evidence = pair_evidence(context.workspace, texts=False)
    if evidence.is_empty():
        return None
    if stage.name == "refusals":
        return refusal_chart(evidence)
    if stage.name == "pair_scores":
        return scatter_chart(
            evidence, "strength_mean", "ln_ches", x_title="preference strength", y_title="length-normalised CHES"
        )
    return histogram_chart(evidence, "strength_mean", title="preference strength")
