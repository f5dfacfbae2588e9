"""Whole columns of texts and messages: their identifiers and texts, equal to those that ``curation.text`` gives.

Row by row in Python, these were most of the time of the stages that call no model. No files, no models.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from curation.text import normalise, prompt_id

__all__ = [
    "message_texts",
    "nested_series",
    "normalised",
    "prompt_ids",
    "response_id_lists",
    "response_ids",
    "text_ids",
]

_PLAIN: Final = r"^[\x20-\x7E\n]*$"
_ID_HEX_DIGITS: Final = 32


def message_texts(messages: pl.Series) -> pl.Series:
    """:func:`curation.text.messages_text` of each list of messages; null of null."""
    if messages.dtype == pl.Null:
        return messages.cast(pl.String)
    each = pl.element().struct
    joined = pl.col("m").list.eval(pl.format("{}: {}", each.field("role"), each.field("content"))).list.join("\n\n")
    alone = pl.col("m").list.get(0, null_on_oob=True).struct.field("content")
    frame = pl.DataFrame({"m": messages})
    return (
        frame.select(pl.when(pl.col("m").list.len() == 1).then(alone).otherwise(joined))
        .to_series()
        .alias(messages.name)
    )


def normalised(texts: pl.Series) -> pl.Series:
    """:func:`curation.text.normalise` of each text; null of null."""
    frame = pl.DataFrame({"text": texts.cast(pl.String)})
    # Of printable ASCII and line feeds, normalising only takes spaces away: that polars can do. Elsewhere Unicode
    # has a say, and regular expressions of Rust and Python do not agree on what is white space.
    plain = pl.col("text").str.contains(_PLAIN)
    done = frame.select(
        pl.when(plain).then(pl.col("text").str.replace_all(r"(?m) +$", "").str.strip_chars(" \n")).alias("done"),
        other=~plain,
    )
    if not done["other"].any():
        return done["done"].alias(texts.name)
    other = done["other"].fill_null(value=False)
    rest = [normalise(text) for text in frame["text"].filter(other)]
    return done["done"].scatter(other.arg_true(), pl.Series(rest, dtype=pl.String)).alias(texts.name)


def text_ids(texts: pl.Series) -> pl.Series:
    """The identifier of each text to encode: ``content_hash("text", normalise(text))``."""
    start = _part("text")
    ids = [_digest(start, text) for text in normalised(texts)]
    return pl.Series(texts.name, ids, dtype=pl.String)


def response_ids(prompts: pl.Series, responses: pl.Series) -> pl.Series:
    """:func:`curation.text.response_id` of each response (text) to the prompt with the identifier beside it."""
    start = _part("response")
    pairs = zip(prompts, normalised(responses), strict=True)
    ids = [_digest(start + _part(prompt), text) for prompt, text in pairs]
    return pl.Series(responses.name, ids, dtype=pl.String)


def prompt_ids(messages: pl.Series) -> pl.Series:
    """:func:`curation.text.prompt_id` of each list of messages."""
    if (messages.list.len() == 0).any():
        return pl.Series(messages.name, [prompt_id(turns) for turns in messages.to_list()], dtype=pl.String)
    turns = pl.DataFrame({"m": messages}).with_row_index("row").explode("m").unnest("m")
    first = turns["row"].is_first_distinct()
    start = _part("prompt")
    ids: list[str] = []
    digest = sha256(start)
    for new, role, content in zip(first, turns["role"], normalised(turns["content"]), strict=True):
        if new and ids:
            ids[-1] = digest.hexdigest()[:_ID_HEX_DIGITS]
        if new:
            digest = sha256(start)
            ids.append("")
        digest.update(_part(role) + _part(content))
    if ids:
        ids[-1] = digest.hexdigest()[:_ID_HEX_DIGITS]
    return pl.Series(messages.name, ids, dtype=pl.String)


def response_id_lists(prompts: pl.Series, responses: pl.Series) -> pl.Series:
    """:func:`response_ids` of lists of responses; an empty list of an empty one."""
    lengths = responses.list.len()
    each = prompts.gather(np.repeat(np.arange(len(prompts)), lengths.to_numpy()))
    ids = response_ids(each, responses.explode(empty_as_null=False))
    offsets = np.concatenate([[0], np.cumsum(lengths.to_numpy(), dtype=np.int64)])
    return _nested(responses.name, ids, offsets)


def _nested(name: str, values: pl.Series, offsets: npt.NDArray[np.int64]) -> pl.Series:
    """A column of lists: list i is ``values[offsets[i]:offsets[i + 1]]``."""
    import pyarrow as pa

    array = pa.LargeListArray.from_arrays(pa.array(offsets, type=pa.int64()), values.to_arrow())
    made = pl.Series(name, array)
    assert isinstance(made, pl.Series)
    return made


def nested_series(name: str, values: Sequence[Any], dtype: pl.DataType | type[pl.DataType]) -> pl.Series:
    """``pl.Series(name, values, dtype=dtype)`` of Python values that are of that type already.

    polars makes a Series of each list first; Arrow does not.
    """
    import pyarrow as pa

    if not isinstance(dtype, pl.List | pl.Struct):
        return pl.Series(name, values, dtype=dtype)
    kind = pl.Series([], dtype=dtype).to_arrow().type
    return pl.Series(name, pa.array(values, type=kind)).cast(dtype)


def _part(text: str) -> bytes:
    """A part of :func:`curation.text.content_hash`: where it ends, and the text."""
    data = text.encode("utf-8", "surrogatepass")
    return len(data).to_bytes(8, "little") + data


def _digest(start: bytes, text: str) -> str:
    return sha256(start + _part(text)).hexdigest()[:_ID_HEX_DIGITS]
