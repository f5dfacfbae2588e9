"""The report: one HTML file with everything in it, that asks nothing of any network.

Numbers come from ``summary``, figures from ``plots``, the layout from ``report.html.jinja``.
"""

from __future__ import annotations

import base64
import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import polars as pl

from curation.publish import summary
from curation.publish.gates import ALL_DATASETS, GateResult
from curation.publish.next_steps import next_steps
from curation.text import content_hash

if TYPE_CHECKING:
    from curation.publish.chart_style import Figure
    from curation.publish.refusing import BuiltSummary, RefusalSummary
    from curation.refusals.calibrated import StoredCalibration

__all__ = ["ReportData", "Threshold", "format_number", "render_report"]

_CSS: Final = "report.css"
_JS: Final = "report.js"
_TEMPLATE: Final = "report.html.jinja"
_GENERATORS: Final = ("generator_chosen", "generator_rejected")


class Threshold(NamedTuple):
    """A threshold of the selection."""

    column: str
    kind: str
    """min or max"""
    value: float
    note: str = ""
    """Where it comes from, such as a quantile."""


class ReportData(NamedTuple):
    """What a report is made of. Equal data give equal bytes: times are among ``facts`` or nowhere."""

    name: str
    facts: Mapping[str, str]
    """What to say about the run at the top: label to text."""
    waterfall: pl.DataFrame
    """Table ``waterfall``, of one or several datasets."""
    pairs: pl.DataFrame
    """``pair_id``; ``prompt``, ``chosen`` and ``rejected`` (texts or messages); ``status`` (kept or dropped),
    ``rule`` and ``reason``. Where there are any: ``source``, ``category``, ``split``, ``strategy``,
    ``expected_behaviour``, ``generator_chosen``, ``generator_rejected``, ``dangerous`` (true where the text is not
    to be shown unasked) and the columns of ``pair_scores``."""
    rejects: pl.DataFrame
    """Table ``rejects``."""
    refusals: RefusalSummary | None = None
    """Verdicts on all answers."""
    labels: Mapping[str, str] = {}
    """What is known of the labels: of the reward models, the people, and the pairs among themselves."""
    calibration: StoredCalibration | None = None
    """Of the refusal detector."""
    refusal_dataset: BuiltSummary | None = None
    """What the dataset ``refusal`` holds, where it is built."""
    confusion: Sequence[Mapping[str, Any]] = ()
    """Categories that sources give beside those that were found; see ``summarise_confusion``."""
    searches: Sequence[Mapping[str, Any]] = ()
    """Rows of table ``searches``: how near documents were searched for, and with which recall."""
    models: Sequence[Mapping[str, Any]] = ()
    """``step``, ``producer``, ``computed``, ``reused``, ``failed``, ``seconds``."""
    bundled: Sequence[str] = ()
    """Sections of the recipe whose model is the small one of the package."""
    sources: Sequence[Mapping[str, Any]] = ()
    """``source``, ``kind``, ``rows``, ``answers``, ``scored`` and ``rejected`` of each source."""
    gates: Sequence[GateResult] = ()
    thresholds: Sequence[Threshold] = ()
    versions: Mapping[str, str] = {}
    """Table, package or model to version."""
    datasets: Mapping[str, Mapping[str, int]] = {}
    """Published dataset to rows by split."""


def render_report(data: ReportData) -> str:
    """The report as HTML.

    At most 180 pairs are shown as a sample, each text up to 1,500 characters with its full length beside
    it. Text of a pair whose prompt should be refused, or where an answer refuses, is folded away.
    """
    import jinja2

    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["number"] = format_number
    environment.filters["share"] = _share
    script = _resource(_JS)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    pairs = data.pairs
    return environment.from_string(_resource(_TEMPLATE)).render(
        data=data,
        css=_html(_resource(_CSS)),
        script=_html(script),
        script_hash=digest,
        waterfalls=[(name, _inline(chart, name)) for name, chart in _waterfalls(data.waterfall)],
        mining=summary.mining_rows(data.waterfall),
        kept=int((pairs["status"] == "kept").sum()) if pairs.height else 0,
        all_datasets=ALL_DATASETS,
        scores=_scores(pairs),
        figures=_figures(data),
        groups=_groups(pairs),
        rejects=summary.reject_rows(data.rejects),
        sample=summary.sample_pairs(pairs),
        steps=next_steps(
            pairs=pairs,
            bundled=data.bundled,
            sources=data.sources,
            datasets=list(data.datasets),
            failed=any(gate.outcome == "failed" for gate in data.gates),
        ),
    )


def format_number(value: Any) -> str:
    """A value for people: 12,345 · 0.123 · −1.2e−05 · yes · a list of these; – for None."""
    if isinstance(value, list | tuple):
        return ", ".join(format_number(v) for v in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return _plain_number(value).replace("-", "−")
    return "–" if value is None else str(value)


def _plain_number(value: float) -> str:
    if not math.isfinite(value):
        return "not finite"
    if float(value).is_integer():
        return f"{value:,.0f}"
    if abs(value) < 0.001:
        return f"{value:.2g}"
    return f"{value:,.3f}" if abs(value) < 10 else f"{value:,.1f}"


def _html(text: str) -> Any:
    """Text of ours that is HTML already."""
    import markupsafe

    return markupsafe.Markup(text)


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


def _resource(name: str) -> str:
    return resources.files("curation.publish").joinpath(name).read_text(encoding="utf-8")


def _waterfalls(waterfall: pl.DataFrame) -> list[tuple[str, Figure]]:
    from curation.publish.plots import waterfall_chart

    names = waterfall["dataset"].unique().sort().to_list()
    return [(name, waterfall_chart(waterfall.filter(pl.col("dataset") == name))) for name in names]


def _groups(pairs: pl.DataFrame) -> list[tuple[str, list[dict[str, Any]]]]:
    """By source, category and strategy; by generator where more than one gave answers."""
    groups = [(by, summary.group_rows(pairs, by)) for by in ("source", "category", "strategy")]
    several = [(by, rows) for by in _GENERATORS if len(rows := summary.group_rows(pairs, by)) > 1]
    return groups + [(by.replace("_", " of "), rows) for by, rows in several]


def _scores(pairs: pl.DataFrame) -> list[tuple[summary.ScoreSummary, Any]]:
    from curation.publish.plots import histogram_chart

    found = []
    for column in summary.numeric_scores(pairs):
        facts = summary.score_summary(pairs, column)
        chart = histogram_chart(pairs, column, title="", legend=False)
        if chart is not None:
            found.append((facts, _inline(chart, column)))
    return found


def _figures(data: ReportData) -> dict[str, Any]:
    """The figures that compare two things; None where the pairs lack a column for it."""
    from curation.publish.plots import density_chart, refusal_chart

    figures: dict[str, Any] = dict.fromkeys(("refusals", "length", "ches", "sources"))
    if data.pairs.is_empty():
        return figures
    pairs = summary.with_length_difference(data.pairs)
    refusals = refusal_chart(pairs)
    figures["refusals"] = refusals and _inline(refusals, "refusals")
    if "strength_mean" in pairs.columns:
        length = density_chart(
            pairs,
            "length_difference",
            "strength_mean",
            x_title="chosen minus rejected, characters",
            y_title="reward margin (mean)",
        )
        figures["length"] = length and _inline(length, "length")
        figures["correlation"] = pairs.select(
            pl.corr("length_difference", "strength_mean", method="spearman")
        ).item()
        if "ln_ches" in pairs.columns:
            figures["ches"] = _ches_figure(pairs, data.thresholds)
            figures["sources"] = _source_figure(pairs, data.thresholds)
    return figures


def _ches_figure(pairs: pl.DataFrame, thresholds: Sequence[Threshold]) -> Any:
    from curation.publish.plots import Bound, scatter_chart

    axes = {"ln_ches": "x", "strength_mean": "y"}
    chart = scatter_chart(
        pairs,
        "ln_ches",
        "strength_mean",
        x_title="length-normalised CHES",
        y_title="reward margin (mean)",
        bounds=[Bound(axes[t.column], t.value, t.kind) for t in thresholds if t.column in axes],
    )
    return chart and _inline(chart, "ches")


def _source_figure(pairs: pl.DataFrame, thresholds: Sequence[Threshold]) -> Any:
    from curation.publish.plots import Bound, source_chart

    bounds = [Bound("x", t.value, t.kind) for t in thresholds if t.column == "ln_ches"]
    chart = source_chart(pairs, "ln_ches", title="length-normalised CHES", bounds=bounds)
    return chart and _inline(chart, "sources")


def _inline(chart: Figure, key: str) -> Any:
    """A figure as SVG inside HTML: ids that no other figure has, and the page's text colour."""
    from curation.publish.chart_style import INK, figure_svg

    svg = figure_svg(chart)
    prefix = f"f{content_hash(key)[:8]}"
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{prefix}-\1"', svg)
    svg = re.sub(r"url\(#([^)]+)\)", rf"url(#{prefix}-\1)", svg)
    svg = svg.replace(f'"{INK}"', '"currentColor"')
    return _html(svg[svg.index("<svg") :])
