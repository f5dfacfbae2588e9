"""The texts of what is to be forgotten, and which of them stay because something else holds them, too."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from curation.forgetting.matching import HEAD, found_in
from curation.forgetting.selection import Selection
from curation.forgetting.versions import Versions
from curation.stages.embeddings import text_id
from curation.text import messages_text
from curation.workspace import LEDGER_TABLES

__all__ = ["add_texts"]

_ANSWERS = ("response", "reasoning")


def add_texts(versions: Versions, selection: Selection) -> None:
    """Fill in ``texts`` and ``text_ids``: what only the forgotten rows hold."""
    whole: set[str] = set()
    contents: set[str] = set()
    for table in ("inputs", "prompts", "mutations"):
        keys = versions.rows(table, "prompt_id", selection.prompts, ("prompt_id", "messages"))
        for messages in keys["messages"].to_list():
            contents |= {m["content"] for m in messages}
            whole.add(messages_text(messages))
    answers = set(_answers(versions, selection))
    texts = {text for text in contents | answers if text and text.strip()}
    kept = _kept(versions, selection)
    shared = found_in(kept, sorted(texts)) if texts else set()
    selection.texts = sorted(text for text in texts if text.strip() not in shared)
    selection.common = sorted(found_in(kept, [text.strip()[:HEAD] for text in selection.texts]))
    shared_ids = {text_id(text) for text in shared}
    selection.text_ids = {text_id(text) for text in whole | contents | answers if text} - shared_ids
    stays = len(texts) - len(selection.texts)
    if stays:
        selection.notes.append(
            f"{stays:,} of its texts stand in other rows, too: these rows, and what is kept under the text alone "
            f"(embeddings), stay"
        )


def _answers(versions: Versions, selection: Selection) -> Iterator[str]:
    rows = versions.rows("inputs", "prompt_id", selection.prompts, ("candidate_ids", "responses"))
    yield from rows["responses"].explode().drop_nulls()
    own = versions.ids("inputs").filter(
        pl.col("candidate_ids").list.eval(pl.element().is_in(list(selection.answers))).list.any()
    )
    rows = versions.rows("inputs", "input_id", set(own["input_id"]), ("candidate_ids", "responses"))
    for ids, responses in rows.iter_rows():
        yield from (text for name, text in zip(ids, responses, strict=True) if name in selection.answers)
    for table in ("candidates", "constructed"):
        found = versions.rows(table, "candidate_id", selection.answers, _ANSWERS)
        yield from (text for column in _ANSWERS for text in found[column].drop_nulls())
    found = versions.rows("generations", "request_id", selection.requests, _ANSWERS)
    yield from (text for column in _ANSWERS for text in found[column].drop_nulls())
    asked = {request for request, _, _ in selection.replaced}
    found = versions.rows("generations", "request_id", asked, ("request_id", "generator", *_ANSWERS))
    found = found.filter(selection.is_replaced)
    yield from (text for column in _ANSWERS for text in found[column].drop_nulls())


def _kept(versions: Versions, selection: Selection) -> pl.Series:
    """Every text of the rows that stay."""
    parts: list[pl.Series] = []
    prompts, answers = list(selection.prompts), list(selection.answers)
    for table, columns in (
        ("inputs", ("messages",)), ("mutations", ("messages",)), ("candidates", _ANSWERS),
        ("constructed", _ANSWERS), ("generations", _ANSWERS),
    ):  # fmt: skip
        places = versions.places[:1] if table in LEDGER_TABLES else versions.places
        for place in places:
            rows = place.scan(table).filter(~pl.col("prompt_id").is_in(prompts))
            if table == "inputs":
                rows = rows.filter(~pl.col("input_id").is_in(list(selection.inputs)))
                said = rows.select("candidate_ids", "responses").explode("candidate_ids", "responses")
                stay = said.filter(~pl.col("candidate_ids").is_in(answers)).select(text="responses")
                parts.append(stay.collect()["text"])
            elif table in ("candidates", "constructed"):
                rows = rows.filter(~pl.col("candidate_id").is_in(answers))
            elif table == "generations":
                rows = rows.filter(~pl.col("request_id").is_in(list(selection.requests)) & ~selection.is_replaced)
            for column in columns:
                text = rows.select(text=column)
                if column == "messages":
                    text = text.explode("text").select(pl.col("text").struct.field("content").alias("text"))
                parts.append(text.collect()["text"])
    return pl.concat([pl.Series("text", [], dtype=pl.String), *parts]).drop_nulls().unique()
