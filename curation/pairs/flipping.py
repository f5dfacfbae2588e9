"""A pair turned round: its answers change places, and with them all that a row says of the one or the other.

When a pair is turned round, and how else pairs are seen, is in ``views``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import polars as pl

from curation.errors import InputError
from curation.pairs.twin_types import common_type, with_common_types

__all__ = ["changed_by_a_flip", "columns_of_all_pairs", "flip_pairs", "twin_of", "was_flipped"]

_CHOSEN, _REJECTED = "chosen", "rejected"
_SIGNED: Final = (
    "strength_mean",
    "strength_length_controlled",
    "label_margin",
    "margin",
    "difficulty",
)
_SHARES: Final = (
    "agreement",
    "label_probability",
    "label_noise_probability",
    "judge_probability",
    "vote_probability",
)
_NOT_MIRRORED: Final = ("ches", "ln_ches", "strength_band", "suggested_action", "annotator_loss_rank")
_OF_ALL_PAIRS: Final = ("in_cycle", "cycle", "judged_both_ways")
"""What ``curation structure`` says of a pair among all of its prompt: one flip may make or break any circle."""
_TEXTS: Final = ("prompt", _CHOSEN, _REJECTED)
_TURNED_TWINS: Final = ("chosen_change", "rejected_change")
"""Of entanglement: with the answers exchanged the step is the opposite one, so that these change their sign too."""
_CASES: Final = (str.lower, str.capitalize, str.upper)
_OTHER: Final = {
    case(one): case(other) for case in _CASES for one, other in ((_CHOSEN, _REJECTED), (_REJECTED, _CHOSEN))
}
_OTHER_VOTE: Final = _OTHER | {"1": "0", "0": "1", "1.0": "0", "0.0": "1", "true": "false", "false": "true"}


def flip_pairs(frame: pl.DataFrame, where: pl.Expr) -> pl.DataFrame:
    """Exchange chosen and rejected where ``where`` holds: every column of one with the other's namesake.

    Columns are namesakes when their names differ in ``chosen`` against ``rejected`` alone (also ``Chosen``,
    ``CHOSEN``). Signed scores (``strength_mean``, ``margin``, …) change their sign, shares (``agreement``,
    ``label_probability``) become one minus themselves; lists of {voter, vote}, and cells that are the word chosen
    or rejected (``judge_verdict``, ``winner``, lists of votes), name the other answer. ``annotator`` stays: it
    names who gave the label that was turned round. ``pair_id`` stays: it names the pair as it was built, and
    ``flipped`` says which rows are exchanged since. Scores that are not mirrored by an exchange (CHES, bands) are
    set to null there; what ``curation structure`` says (``in_cycle``, ``cycle``, ``judged_both_ways``) rests on
    all pairs, and is null in every row once one is exchanged.

    Raises:
        InputError: when two namesakes are of kinds that cannot change places, such as a text and messages, or
            ``margin`` holds numbers as text.
    """
    _need_turnable_margin(frame)
    frame = with_common_types(
        frame, ((n, twin) for n in frame.columns if (twin := twin_of(n)) in frame.columns and twin)
    )
    flip = where.fill_null(value=False)
    changed = _changes(frame)
    structure = columns_of_all_pairs(frame)
    whole = {name: flip.any() if name in structure else flip for name in changed}
    return frame.with_columns(
        *(pl.when(whole[name]).then(turned).otherwise(name).alias(name) for name, turned in changed.items()),
        flipped=was_flipped(frame) ^ flip,
    )


def changed_by_a_flip(frame: pl.DataFrame) -> list[str]:
    """The columns that :func:`flip_pairs` changes, but for ``flipped``."""
    return [*_changes(frame)]


def _changes(frame: pl.DataFrame) -> dict[str, pl.Expr]:
    """Of each column that does not stay, what stands in it once the two answers have changed places."""
    return {name: turned for name in frame.columns if (turned := _turned(frame, name)) is not None}


def columns_of_all_pairs(frame: pl.DataFrame) -> list[str]:
    """The columns of ``curation structure``; without ``in_cycle``, a column ``cycle`` is the user's own."""
    known = frame.schema.get("in_cycle") == pl.Boolean
    return [name for name in _OF_ALL_PAIRS if known and name in frame.columns]


def _need_turnable_margin(frame: pl.DataFrame) -> None:
    """Margins in words stay; numbers that are no numbers here would go on saying the opposite.

    Raises:
        InputError: for a ``margin`` of text, JSON text or lists among which there are numbers.
    """
    if "margin" not in frame.columns or not isinstance(
        kind := frame.schema["margin"], pl.String | pl.List | pl.Array
    ):
        return
    said = frame["margin"].drop_nulls()
    if isinstance(kind, pl.String):
        said = said.str.strip_chars(' "').cast(pl.Float64, strict=False).drop_nulls()
    elif not kind.inner.is_numeric():
        return
    if said.len():
        raise InputError(
            "column 'margin' cannot change its sign in a flip: it holds numbers as text, in lists, or beside "
            "values of other types; give each as one number, or null"
        )


def was_flipped(frame: pl.DataFrame) -> pl.Expr:
    """Whether an earlier view has exchanged the answers of a row."""
    kind, said = frame.schema.get("flipped"), pl.col("flipped")
    if kind == pl.String:  # of a CSV file
        said = said.str.strip_chars().str.to_lowercase() == "true"
    return said.fill_null(value=False) if kind in (pl.Boolean, pl.String) else pl.lit(value=False)


def _turned(frame: pl.DataFrame, name: str) -> pl.Expr | None:
    """What stands in a column once the two answers have changed places; None where it stays."""
    twin, kind = twin_of(name), frame.schema[name]
    if twin and twin in frame.columns:
        return _of_the_twin(frame, name, twin)
    if name == "both_fall":
        known = set(_TURNED_TWINS) <= set(frame.columns)
        return pl.all_horizontal(pl.col(c) >= 0 for c in _TURNED_TWINS) if known else pl.lit(None, dtype=pl.Boolean)
    if isinstance(kind, pl.List) and isinstance(kind.inner, pl.Struct):
        return _turned_votes(name, dict(kind.inner.to_schema()))
    if name in _NOT_MIRRORED or name in columns_of_all_pairs(frame):
        return pl.lit(None, dtype=kind)
    words = isinstance(kind, pl.String | pl.Categorical | pl.Enum) or kind == pl.List(pl.String)
    if words and name not in _TEXTS:
        return _turned_words(frame[name])
    return _turned_number(name, kind)


def _of_the_twin(frame: pl.DataFrame, name: str, twin: str) -> pl.Expr:
    kind, other = frame.schema[name], frame.schema[twin]
    numbers = kind.is_numeric() and other.is_numeric()
    if common_type(kind, other) is None:
        raise InputError(
            f"columns {name!r} ({kind}) and {twin!r} ({other}) cannot change places in a flip: "
            f"give both in one form"
        )
    return -pl.col(twin) if name in _TURNED_TWINS and numbers else pl.col(twin)


def _turned_number(name: str, kind: pl.DataType) -> pl.Expr | None:
    """Ours are floats; a user's column of the same name may hold words, or grades from 1 to 5, and stays."""
    if name == "margin" and kind.is_numeric():
        return -pl.col(name).cast(pl.Int64) if kind.is_unsigned_integer() else -pl.col(name)
    if name in _SIGNED and kind.is_float():
        return -pl.col(name)
    if name in _SHARES and kind.is_float():
        return 1 - pl.col(name)
    return 1 / pl.col(name) if name == "length_ratio" and kind.is_float() else None


def _turned_votes(name: str, fields: Mapping[str, Any]) -> pl.Expr | None:
    """Votes for the other answer, whatever the column is called; None where these are no {voter, vote}."""
    if not {"voter", "vote"} <= set(fields):
        return None
    kind, vote = fields["vote"], pl.field("vote")
    if kind == pl.String:
        word = vote.str.strip_chars().str.to_lowercase()
        turned = pl.when(word.is_in(list(_OTHER_VOTE))).then(word.replace(_OTHER_VOTE)).otherwise(vote)
    elif kind == pl.Boolean:
        turned = ~vote
    elif kind.is_numeric():
        turned = pl.when(vote.is_in([0, 1])).then((1 - vote).cast(kind)).otherwise(vote)
    else:
        return None
    return pl.col(name).list.eval(pl.element().struct.with_fields(vote=turned))


def _turned_words(said: pl.Series) -> pl.Expr | None:
    """Cells, or entries of lists, that are the word chosen or rejected; None where none is."""
    words = said.explode() if isinstance(said.dtype, pl.List) else said
    if not words.cast(pl.String).is_in(list(_OTHER)).any():
        return None
    column = pl.col(said.name)
    other = pl.element().replace(_OTHER)
    return column.list.eval(other) if isinstance(said.dtype, pl.List) else column.cast(pl.String).replace(_OTHER)


def twin_of(name: str) -> str | None:
    """``chosen_x`` for ``rejected_x`` and the other way round."""
    for word in _OTHER:  # chosen before rejected, in each spelling
        if word in name:
            return name.replace(word, _OTHER[word])
    return None
