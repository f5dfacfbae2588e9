"""One type for two columns that change places: objects may lack keys that others have. What turns is in ``views``.

Left to itself polars takes the wider of two types of objects where one has all keys of the other, and then fails.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import polars as pl

__all__ = ["common_type", "with_common_types"]


def common_type(one: Any, other: Any) -> Any | None:
    """A type that holds the values of both; None where there is none, as of a text and messages."""
    if isinstance(one, pl.List) and isinstance(other, pl.List):
        inner = common_type(one.inner, other.inner)
        return None if inner is None else pl.List(inner)
    if isinstance(one, pl.Struct) and isinstance(other, pl.Struct):
        first, second = dict(one.to_schema()), dict(other.to_schema())
        fields: dict[str, Any] = {
            n: common_type(first.get(n, pl.Null()), second.get(n, pl.Null())) for n in {**first, **second}
        }
        return None if None in fields.values() else pl.Struct(fields)
    if pl.Null in (one, other):
        return other if one == pl.Null else one
    if one != other and one.is_numeric() and other.is_numeric():
        sides = (pl.lit(None, dtype=kind) for kind in (one, other))
        return pl.select(pl.when(True).then(next(sides)).otherwise(next(sides))).dtypes[0]
    return one if one == other else None


def with_common_types(frame: pl.DataFrame, twins: Iterable[tuple[str, str]]) -> pl.DataFrame:
    """The frame with the columns of each two in the type that holds both, where there is one."""
    schema = frame.schema
    made: dict[str, pl.Expr] = {}
    for two in twins:
        wanted = common_type(*(schema[name] for name in two))
        if wanted is not None and wanted.is_nested():
            made |= {name: _as_type(pl.col(name), schema[name], wanted) for name in two if schema[name] != wanted}
    return frame.with_columns(**made)


def _as_type(values: pl.Expr, kind: Any, wanted: Any) -> pl.Expr:
    if kind == wanted or not isinstance(kind, pl.List | pl.Struct):
        return values.cast(wanted)
    if isinstance(kind, pl.List):
        return values.list.eval(_as_type(pl.element(), kind.inner, wanted.inner))
    has = dict(kind.to_schema())
    fields = [
        (_as_type(values.struct.field(name), has[name], of) if name in has else pl.lit(None, dtype=of)).alias(name)
        for name, of in wanted.to_schema().items()
    ]
    return pl.when(values.is_not_null()).then(pl.struct(fields))
