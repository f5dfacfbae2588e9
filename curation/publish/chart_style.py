"""How charts look, and how they become SVG or PNG. What they show is in :mod:`curation.publish.plots`."""

from __future__ import annotations

import functools
import json
from typing import TYPE_CHECKING, Any, Final, TypeAlias

if TYPE_CHECKING:
    import altair as alt

    Figure: TypeAlias = alt.Chart | alt.LayerChart

__all__ = ["INK", "altair", "colour_scale", "few_ticks", "figure_png", "figure_svg", "inline_values", "styled"]

INK: Final = "#7b818c"
"""The colour of text and axes; a page may replace it in an SVG by its own."""
_FONT: Final = "Liberation Sans, Arial, sans-serif"


def figure_svg(chart: Figure) -> str:
    """A chart as SVG; equal charts give equal text."""
    return _svg(json.dumps(chart.to_dict(validate=False)))


@functools.lru_cache(maxsize=64)
def _svg(specification: str) -> str:
    import vl_convert

    return str(vl_convert.vegalite_to_svg(specification))


def figure_png(chart: Figure, *, scale: float = 1.5) -> bytes:
    """A chart as PNG on white ground."""
    return _png(json.dumps(chart.properties(background="white").to_dict(validate=False)), scale)


@functools.lru_cache(maxsize=16)  # the datasets made of the same pairs have the same charts
def _png(specification: str, scale: float) -> bytes:
    import vl_convert

    return bytes(vl_convert.vegalite_to_png(specification, scale=scale))


def altair() -> Any:
    import altair

    return altair


def inline_values(rows: list[dict[str, Any]]) -> Any:
    """Rows as one JSON text, which Altair does not walk through and validate value by value."""
    alt = altair()
    return alt.InlineData(values=json.dumps(rows), format=alt.JsonDataFormat(type="json"))


def few_ticks() -> Any:
    return altair().Axis(tickCount=6, grid=False)


def colour_scale(
    field: str, colours: dict[str, str], names: dict[str, str] | None = None, *, legend: bool = True
) -> Any:
    alt = altair()
    scale = alt.Scale(domain=list(colours), range=list(colours.values()))
    expression = "datum.label"
    for value, name in (names or {}).items():
        expression = f"datum.label == '{value}' ? '{name}' : ({expression})"
    box = alt.Legend(title=None, orient="top", labelExpr=expression, offset=4, symbolType="square")
    return alt.Color(f"{field}:N", scale=scale, legend=box if legend else None)


def styled(chart: Any) -> Figure:
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
