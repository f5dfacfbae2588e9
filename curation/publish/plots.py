"""The figures of the report, the card and the user interface, as Altair charts.

Data are counted or sampled with polars first: a chart's specification holds a few hundred marks, however
many pairs there are. Colours are readable on light and on dark ground. How charts look is in ``chart_style``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import polars as pl

from curation.publish.bins import TAIL, bin_of, bins_between, counts_by_bin, finite
from curation.publish.chart_style import INK, altair, colour_scale, few_ticks, inline_values, styled

if TYPE_CHECKING:
    from curation.publish.chart_style import Figure

__all__ = [
    "Bound",
    "density_chart",
    "histogram_chart",
    "refusal_chart",
    "scatter_chart",
    "source_chart",
    "waterfall_chart",
]

_STATUS_COLOURS: Final = {"kept": "#3f83c9", "dropped": "#e2893b"}
_CLASS_COLOURS: Final = {"full refusal": "#b4456e", "partial refusal": "#dd9fb6"}
_DENSITY_COLOUR: Final = "#3f83c9"
_MOST_POINTS: Final = 1_500


class Bound(NamedTuple):
    """A threshold to draw."""

    axis: str
    """x or y"""
    value: float
    label: str


def waterfall_chart(waterfall: pl.DataFrame, *, width: int = 300) -> Figure:
    """What each rule removed and left, one bar a rule; the rows of one dataset of table ``waterfall``."""
    alt = altair()
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
    base = alt.Chart(inline_values(bars)).mark_bar(height=15, cornerRadius=2)
    marks = base.encode(
        y=y,
        x=alt.X("from:Q", title="rows", axis=alt.Axis(format="~s", tickCount=4)),
        x2="to:Q",
        color=colour_scale("part", _STATUS_COLOURS, {"kept": "left", "dropped": "removed"}),
    )
    ends = [{**r, "end": r["left"] + r["removed"]} for r in rows]
    text = alt.Chart(inline_values(ends)).mark_text(align="left", dx=6, color=INK, fontSize=11)
    labels = text.encode(y=y, x="end:Q", text="label:N")
    return styled(alt.layer(marks, labels).properties(width=width, height=alt.Step(24)))


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
    alt = altair()
    counted = counts_by_bin(pairs.lazy().filter(finite(column)), column, statuses=_STATUS_COLOURS)
    if counted is None:
        return None
    rows, low, high = counted
    name = column.replace("_", " ") if title is None else title or None
    chart = (
        alt.Chart(inline_values(rows))
        .mark_rect(stroke=None)
        .encode(
            x=alt.X("from:Q", title=name, scale=alt.Scale(domain=[low, high], nice=False), axis=few_ticks()),
            x2="to:Q",
            y=alt.Y("above:Q", title=unit, axis=alt.Axis(tickCount=4, format="~s")),
            y2="upto:Q",
            color=colour_scale("status", _STATUS_COLOURS, legend=legend),
        )
    )
    return styled(chart.properties(width=width, height=height))


def refusal_chart(pairs: pl.DataFrame, *, width: int = 420) -> Figure | None:
    """The share of answers that refuse, for chosen and rejected, among all pairs and the kept ones."""
    alt = altair()
    rows = _refusal_shares(pairs)
    if not rows:
        return None
    order = [f"{side}, {group}" for side in ("chosen", "rejected") for group in ("all", "kept")]
    y = alt.Y("set:N", sort=order, title=None, axis=alt.Axis(labelPadding=8, ticks=False, domain=False))
    top = max(0.1, *(float(r["to"]) for r in rows)) * 1.15
    x_axis = alt.Axis(format="%", tickCount=5)
    bars = (
        alt.Chart(inline_values(rows))
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
            color=colour_scale("class", _CLASS_COLOURS),
        )
    )
    totals = [{**r, "label": f"{r['to']:.1%}"} for r in rows if r["class"] == "partial refusal"]
    text = alt.Chart(inline_values(totals)).mark_text(align="left", dx=6, color=INK, fontSize=11)
    return styled(
        alt.layer(bars, text.encode(y=y, x="to:Q", text="label:N")).properties(width=width, height=alt.Step(28))
    )


def density_chart(
    frame: pl.DataFrame, x: str, y: str, *, x_title: str, y_title: str, width: int = 420, height: int = 240
) -> Figure | None:
    """How many rows lie where, for two numeric columns; None where no row has both. Darker is more."""
    alt = altair()
    have = frame.lazy().filter(finite(x), finite(y)).select(x, y)
    ranges = have.select(
        pl.all().quantile(TAIL).name.prefix("low_"), pl.all().quantile(1 - TAIL).name.prefix("high_")
    )
    row = ranges.collect().row(0, named=True)
    if row[f"low_{x}"] is None:
        return None
    (x_low, x_step), (y_low, y_step) = (bins_between(row[f"low_{c}"], row[f"high_{c}"]) for c in (x, y))
    cells = (
        have.group_by(bin_of(x, x_low, x_step).alias("i"), bin_of(y, y_low, y_step).alias("j"))
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
        alt.Chart(inline_values(values))
        .mark_rect(color=_DENSITY_COLOUR, stroke=None)
        .encode(
            x=alt.X("x:Q", title=x_title, axis=few_ticks(), scale=alt.Scale(nice=False)),
            x2="x2:Q",
            y=alt.Y("y:Q", title=y_title, axis=alt.Axis(tickCount=5), scale=alt.Scale(nice=False)),
            y2="y2:Q",
            opacity=alt.Opacity("shade:Q", scale=alt.Scale(domain=[0, 1], range=[0.08, 1]), legend=None),
        )
    )
    return styled(chart.properties(width=width, height=height))


def source_chart(
    pairs: pl.DataFrame, column: str, *, title: str, bounds: Sequence[Bound] = (), width: int = 420
) -> Figure | None:
    """A score by source: median, middle half and middle nine tenths; None where no pair has it.

    The sources with the most pairs are shown, at most twelve.
    """
    alt = altair()
    have = pairs.filter(finite(column), pl.col("source").is_not_null())
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
    base = alt.Chart(inline_values(rows)).encode(y=names)
    layers = [
        base.mark_rule(color=INK).encode(x=alt.X("low:Q", title=title, axis=few_ticks()), x2="high:Q"),
        base.mark_bar(color=_DENSITY_COLOUR, height=14).encode(x="q1:Q", x2="q3:Q"),
        base.mark_tick(color="white", thickness=2, height=14).encode(x="middle:Q"),
    ]
    for bound in bounds:
        line = alt.Chart(inline_values([{"value": bound.value}])).mark_rule(
            color=_STATUS_COLOURS["dropped"], strokeDash=[5, 4]
        )
        layers.append(line.encode(x="value:Q"))
    return styled(alt.layer(*layers).properties(width=width))


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
    alt = altair()
    have = pairs.filter(finite(x), finite(y)).select("pair_id", "status", x, y)
    if have.is_empty():
        return None
    clipped = [pl.col(c).clip(pl.col(c).quantile(TAIL), pl.col(c).quantile(1 - TAIL)) for c in (x, y)]
    points = have.with_columns(clipped).sort(pl.col("pair_id").hash(seed=7), "pair_id").head(_MOST_POINTS)
    note = f", {points.height:,} of {have.height:,} pairs" if points.height < have.height else ""
    values = points.select("status", x=pl.col(x).cast(float).round(6), y=pl.col(y).cast(float).round(6)).to_dicts()
    rim = alt.Scale(zero=False, nice=True)
    marks = (
        alt.Chart(inline_values(values))
        .mark_circle(size=14, opacity=0.5)
        .encode(
            x=alt.X("x:Q", title=x_title + note, axis=few_ticks(), scale=rim),
            y=alt.Y("y:Q", title=y_title, axis=alt.Axis(tickCount=5), scale=rim),
            color=colour_scale("status", _STATUS_COLOURS),
        )
    )
    layers: list[Any] = [marks]
    for bound in bounds:
        line = alt.Chart(inline_values([{"at": bound.value, "label": bound.label}]))
        channel = {"x": alt.X("at:Q")} if bound.axis == "x" else {"y": alt.Y("at:Q")}
        layers.append(line.mark_rule(color=INK, strokeDash=[5, 3], strokeWidth=1.3).encode(**channel))
    return styled(alt.layer(*layers).properties(width=width, height=height))


def _refusal_shares(pairs: pl.DataFrame) -> list[dict[str, Any]]:
    """The parts of each bar of :func:`refusal_chart`."""
    rows = []
    for side in ("chosen", "rejected"):
        column = f"{side}_refusal_class"
        if column not in pairs.columns or pairs[column].null_count() == pairs.height:
            continue
        for group, of in (("all", pairs), ("kept", pairs.filter(pl.col("status") == "kept"))):
            known = of[column].drop_nulls()
            if known.is_empty():
                continue
            low = 0.0
            for name in ("full_refusal", "partial_refusal"):
                high = low + int((known == name).sum()) / len(known)
                bar = {"set": f"{side}, {group}", "class": name.replace("_", " ")}
                rows.append({**bar, "from": low, "to": high})
                low = high
    return rows
