"""The figures of the report, the card and the user interface, as Altair charts, SVG or PNG.

Data are counted or sampled with polars first: a chart's specification holds a few hundred marks, however
many pairs there are. Colours are readable on light and on dark ground.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

import polars as pl

if TYPE_CHECKING:
    import altair as alt

    Figure: TypeAlias = alt.Chart | alt.LayerChart

__all__ = [
    "INK",
    "Bound",
    "density_chart",
    "figure_png",
    "figure_svg",
    "histogram_chart",
    "refusal_chart",
    "scatter_chart",
    "source_chart",
    "waterfall_chart",
]

INK: Final = "#7b818c"
"""The colour of text and axes; a page may replace it in an SVG by its own."""

_STATUS_COLOURS: Final = {"kept": "#3f83c9", "dropped": "#e2893b"}
_CLASS_COLOURS: Final = {"full refusal": "#b4456e", "partial refusal": "#dd9fb6"}
_DENSITY_COLOUR: Final = "#3f83c9"
_BINS: Final = 40
_TAIL: Final = 0.005
_MOST_POINTS: Final = 1_500
_FONT: Final = "Liberation Sans, Arial, sans-serif"


class Bound(NamedTuple):
    """A threshold to draw."""

    axis: str
    """x or y"""
    value: float
    label: str


def waterfall_chart(waterfall: pl.DataFrame, *, width: int = 300) -> Figure:
    """What each rule removed and left, one bar a rule; the rows of one dataset of table ``waterfall``."""
    alt = _altair()
    rows: list[dict[str, Any]] = []
    ordered: list[dict[str, Any]] = waterfall.sort("position").to_dicts()
    if ordered:
        start = ordered[0]["left"] + ordered[0]["removed"]
        rows.append({"rule": "input", "label": f"{start:,}", "left": start, "removed": 0})
    for number, row in enumerate(ordered):
        name = row["rule"].replace("_", " ")
        taken = f"{row['left']:,}" + (f"  (−{row['removed']:,})" if row["removed"] else "")
        rows.append(
            {"rule": f"{number + 1}. {name}", "label": taken, "left": row["left"], "removed": row["removed"]}
        )
    bars = [
        {"rule": r["rule"], "part": part, "rows": r[key], "from": low, "to": low + r[key]}
        for r in rows
        for part, key, low in (("kept", "left", 0), ("dropped", "removed", r["left"]))
    ]
    order = [r["rule"] for r in rows]
    y = alt.Y(
        "rule:N",
        sort=order,
        title=None,
        axis=alt.Axis(labelLimit=200, labelPadding=8, ticks=False, domain=False),
    )
    base = alt.Chart(_values(bars)).mark_bar(height=15, cornerRadius=2)
    marks = base.encode(
        y=y,
        x=alt.X("from:Q", title="rows", axis=alt.Axis(format="~s", tickCount=4)),
        x2="to:Q",
        color=_colours("part", _STATUS_COLOURS, {"kept": "left", "dropped": "removed"}),
    )
    ends = [{**r, "end": r["left"] + r["removed"]} for r in rows]
    text = alt.Chart(_values(ends)).mark_text(align="left", dx=6, color=INK, fontSize=11)
    labels = text.encode(y=y, x="end:Q", text="label:N")
    return _styled(alt.layer(marks, labels).properties(width=width, height=alt.Step(24)))


def histogram_chart(
    pairs: pl.DataFrame,
    column: str,
    *,
    title: str | None = None,
    unit: str = "pairs",
    legend: bool = True,
    width: int = 300,
    height: int = 130,
) -> Figure | None:
    """How many kept and dropped pairs have which score; None where no pair has it.

    The outermost 0.5 % on each side count in the outermost bins.

    Args:
        pairs: the column, and ``status`` (kept or dropped).
        column: a numeric column.
        title: of the axis; the column's name by default, none if empty.
        unit: what is counted.
        legend: whether to say which colour is which.
        width: in pixels.
        height: in pixels.
    """
    alt = _altair()
    counted = _binned(pairs.lazy().filter(_finite(column)), column)
    if counted is None:
        return None
    rows, low, high = counted
    name = column.replace("_", " ") if title is None else title or None
    chart = (
        alt.Chart(_values(rows))
        .mark_rect(stroke=None)
        .encode(
            x=alt.X("from:Q", title=name, scale=alt.Scale(domain=[low, high], nice=False), axis=_few_ticks()),
            x2="to:Q",
            y=alt.Y("above:Q", title=unit, axis=alt.Axis(tickCount=4, format="~s")),
            y2="upto:Q",
            color=_colours("status", _STATUS_COLOURS, legend=legend),
        )
    )
    return _styled(chart.properties(width=width, height=height))


def refusal_chart(pairs: pl.DataFrame, *, width: int = 420) -> Figure | None:
    """The share of answers that refuse, for chosen and rejected, among all pairs and the kept ones."""
    alt = _altair()
    rows = _refusal_shares(pairs)
    if not rows:
        return None
    order = [f"{side}, {group}" for side in ("chosen", "rejected") for group in ("all", "kept")]
    y = alt.Y("set:N", sort=order, title=None, axis=alt.Axis(labelPadding=8, ticks=False, domain=False))
    top = max(0.1, *(float(r["to"]) for r in rows)) * 1.15
    x_axis = alt.Axis(format="%", tickCount=5)
    bars = (
        alt.Chart(_values(rows))
        .mark_bar(height=18, cornerRadius=2)
        .encode(
            y=y,
            x=alt.X(
                "from:Q",
                title="share of the answers that refuse",
                scale=alt.Scale(domain=[0, top]),
                axis=x_axis,
            ),
            x2="to:Q",
            color=_colours("class", _CLASS_COLOURS),
        )
    )
    totals = [{**r, "label": f"{r['to']:.1%}"} for r in rows if r["class"] == "partial refusal"]
    text = alt.Chart(_values(totals)).mark_text(align="left", dx=6, color=INK, fontSize=11)
    return _styled(
        alt.layer(bars, text.encode(y=y, x="to:Q", text="label:N")).properties(width=width, height=alt.Step(28))
    )


def density_chart(
    frame: pl.DataFrame, x: str, y: str, *, x_title: str, y_title: str, width: int = 420, height: int = 240
) -> Figure | None:
    """How many rows lie where, for two numeric columns; None where no row has both. Darker is more."""
    alt = _altair()
    have = frame.lazy().filter(_finite(x), _finite(y)).select(x, y)
    ranges = have.select(
        pl.all().quantile(_TAIL).name.prefix("low_"), pl.all().quantile(1 - _TAIL).name.prefix("high_")
    )
    row = ranges.collect().row(0, named=True)
    if row[f"low_{x}"] is None:
        return None
    (x_low, x_step), (y_low, y_step) = (_step(row[f"low_{c}"], row[f"high_{c}"]) for c in (x, y))
    cells = (
        have.group_by(_bin(x, x_low, x_step).alias("i"), _bin(y, y_low, y_step).alias("j"))
        .len()
        .sort("i", "j")
        .collect()
    )
    most = float(cells["len"].cast(pl.Float64).max() or 1.0)  # type: ignore[arg-type]
    values = [
        {"x": x_low + i * x_step, "x2": x_low + (i + 1) * x_step, "y": y_low + j * y_step,
         "y2": y_low + (j + 1) * y_step, "pairs": n, "shade": (n / most) ** 0.5}
        for i, j, n in cells.iter_rows()
    ]  # fmt: skip
    chart = (
        alt.Chart(_values(values))
        .mark_rect(color=_DENSITY_COLOUR, stroke=None)
        .encode(
            x=alt.X("x:Q", title=x_title, axis=_few_ticks(), scale=alt.Scale(nice=False)),
            x2="x2:Q",
            y=alt.Y("y:Q", title=y_title, axis=alt.Axis(tickCount=5), scale=alt.Scale(nice=False)),
            y2="y2:Q",
            opacity=alt.Opacity("shade:Q", scale=alt.Scale(domain=[0, 1], range=[0.08, 1]), legend=None),
        )
    )
    return _styled(chart.properties(width=width, height=height))


def source_chart(
    pairs: pl.DataFrame, column: str, *, title: str, bounds: Sequence[Bound] = (), width: int = 420
) -> Figure | None:
    """A score by source: median, middle half and middle nine tenths; None where no pair has it.

    The sources with the most pairs are shown, at most twelve.
    """
    alt = _altair()
    have = pairs.filter(_finite(column), pl.col("source").is_not_null())
    if have.is_empty():
        return None
    shares = {"low": 0.05, "q1": 0.25, "middle": 0.5, "q3": 0.75, "high": 0.95}
    rows = (
        have.group_by("source")
        .agg(pl.len().alias("pairs"), *(pl.col(column).quantile(q).alias(name) for name, q in shares.items()))
        .sort("pairs", "source", descending=[True, False])
        .head(12)
        .to_dicts()
    )
    names = alt.Y("source:N", title=None, sort=[row["source"] for row in rows])
    base = alt.Chart(_values(rows)).encode(y=names)
    layers = [
        base.mark_rule(color=INK).encode(x=alt.X("low:Q", title=title, axis=_few_ticks()), x2="high:Q"),
        base.mark_bar(color=_DENSITY_COLOUR, height=14).encode(x="q1:Q", x2="q3:Q"),
        base.mark_tick(color="white", thickness=2, height=14).encode(x="middle:Q"),
    ]
    for bound in bounds:
        line = alt.Chart(_values([{"value": bound.value}])).mark_rule(
            color=_STATUS_COLOURS["dropped"], strokeDash=[5, 4]
        )
        layers.append(line.encode(x="value:Q"))
    return _styled(alt.layer(*layers).properties(width=width))


def scatter_chart(
    pairs: pl.DataFrame,
    x: str,
    y: str,
    *,
    x_title: str,
    y_title: str,
    bounds: Sequence[Bound] = (),
    width: int = 420,
    height: int = 240,
) -> Figure | None:
    """Kept and dropped pairs by two scores, at most 1,500 of them, with thresholds as lines.

    Points outside the middle 99 % of either score are drawn at the rim. The sample depends on ``pair_id``
    alone.
    """
    alt = _altair()
    have = pairs.filter(_finite(x), _finite(y)).select("pair_id", "status", x, y)
    if have.is_empty():
        return None
    clipped = [pl.col(c).clip(pl.col(c).quantile(_TAIL), pl.col(c).quantile(1 - _TAIL)) for c in (x, y)]
    points = have.with_columns(clipped).sort(pl.col("pair_id").hash(seed=7), "pair_id").head(_MOST_POINTS)
    note = f", {points.height:,} of {have.height:,} pairs" if points.height < have.height else ""
    values = points.select("status", x=pl.col(x).cast(float).round(6), y=pl.col(y).cast(float).round(6)).to_dicts()
    rim = alt.Scale(zero=False, nice=True)
    marks = (
        alt.Chart(_values(values))
        .mark_circle(size=14, opacity=0.5)
        .encode(
            x=alt.X("x:Q", title=x_title + note, axis=_few_ticks(), scale=rim),
            y=alt.Y("y:Q", title=y_title, axis=alt.Axis(tickCount=5), scale=rim),
            color=_colours("status", _STATUS_COLOURS),
        )
    )
    layers: list[Any] = [marks]
    for bound in bounds:
        line = alt.Chart(_values([{"at": bound.value, "label": bound.label}]))
        channel = {"x": alt.X("at:Q")} if bound.axis == "x" else {"y": alt.Y("at:Q")}
        layers.append(line.mark_rule(color=INK, strokeDash=[5, 3], strokeWidth=1.3).encode(**channel))
    return _styled(alt.layer(*layers).properties(width=width, height=height))


def figure_svg(chart: Figure) -> str:
    """A chart as SVG; equal charts give equal text."""
    return _svg(json.dumps(chart.to_dict(validate=False)))


@functools.lru_cache(maxsize=64)
def _svg(specification: str) -> str:
    import vl_convert

    return str(vl_convert.vegalite_to_svg(specification))


def figure_png(chart: Figure, *, scale: float = 1.5) -> bytes:
    """A chart as PNG on white ground."""
    import vl_convert

    return bytes(
        vl_convert.vegalite_to_png(
            json.dumps(chart.properties(background="white").to_dict(validate=False)), scale=scale
        )
    )


def _altair() -> Any:
    import altair

    return altair


def _values(rows: list[dict[str, Any]]) -> Any:
    """Rows as one JSON text, which Altair does not walk through and validate value by value."""
    alt = _altair()
    return alt.InlineData(values=json.dumps(rows), format=alt.JsonDataFormat(type="json"))


def _finite(column: str) -> pl.Expr:
    return pl.col(column).cast(pl.Float64).is_finite()


def _refusal_shares(pairs: pl.DataFrame) -> list[dict[str, Any]]:
    """The parts of each bar of :func:`refusal_chart`."""
    rows = []
    for side in ("chosen", "rejected"):
        column = f"{side}_refusal_class"
        if column not in pairs.columns or pairs[column].null_count() == pairs.height:
            continue
        for group, of in (("all", pairs), ("kept", pairs.filter(pl.col("status") == "kept"))):
            known = of[column].drop_nulls()
            low = 0.0
            for name in ("full_refusal", "partial_refusal"):
                high = low + (int((known == name).sum()) / len(known) if len(known) else 0.0)
                bar = {"set": f"{side}, {group}", "class": name.replace("_", " ")}
                rows.append({**bar, "from": low, "to": high})
                low = high
    return rows


def _step(low: float, high: float) -> tuple[float, float]:
    """Where the first bin begins, and the width of each."""
    width = (high - low) / _BINS
    return (float(low), float(width)) if width > 0 else (float(low) - 0.5, 1 / _BINS)


def _bin(column: str, low: float, step: float) -> pl.Expr:
    return ((pl.col(column).cast(pl.Float64) - low) / step).floor().clip(0, _BINS - 1).cast(pl.Int64)


def _binned(have: pl.LazyFrame, column: str) -> tuple[list[dict[str, Any]], float, float] | None:
    """Counts by bin and status, and the first and last edge."""
    value = pl.col(column).cast(pl.Float64)
    found = have.select(low=value.quantile(_TAIL), high=value.quantile(1 - _TAIL))
    edges = found.collect().row(0, named=True)
    if edges["low"] is None:
        return None
    low, step = _step(edges["low"], edges["high"])
    counts = have.group_by(_bin(column, low, step).alias("bin"), "status").len().collect()
    pairs = {(i, status): n for i, status, n in counts.iter_rows()}
    rows = []
    for i in sorted({i for i, _ in pairs}):
        below = 0
        for status in _STATUS_COLOURS:
            upto = below + pairs.get((i, status), 0)
            if upto > below:
                gap = step * 0.06
                ends = {"from": low + i * step + gap, "to": low + (i + 1) * step - gap}
                rows.append({**ends, "status": status, "above": below, "upto": upto})
            below = upto
    return rows, low, low + _BINS * step


def _few_ticks() -> Any:
    return _altair().Axis(tickCount=6, grid=False)


def _colours(
    field: str, colours: dict[str, str], names: dict[str, str] | None = None, *, legend: bool = True
) -> Any:
    alt = _altair()
    scale = alt.Scale(domain=list(colours), range=list(colours.values()))
    expression = "datum.label"
    for value, name in (names or {}).items():
        expression = f"datum.label == '{value}' ? '{name}' : ({expression})"
    box = alt.Legend(title=None, orient="top", labelExpr=expression, offset=4, symbolType="square")
    return alt.Color(f"{field}:N", scale=scale, legend=box if legend else None)


def _styled(chart: Any) -> Figure:
    figure: Figure = (
        chart.configure(background="transparent", font=_FONT, aria=False)
        .configure_view(stroke=None)
        .configure_axis(
            labelColor=INK,
            titleColor=INK,
            gridColor=INK,
            gridOpacity=0.18,
            domainColor=INK,
            domainOpacity=0.5,
            tickColor=INK,
            tickOpacity=0.5,
            titleFontWeight="normal",
            titleFontSize=12,
            labelFontSize=11,
        )
        .configure_legend(labelColor=INK, labelFontSize=11)
    )
    return figure
