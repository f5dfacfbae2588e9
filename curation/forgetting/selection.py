"""What has to go when a prompt, a source or an answer is forgotten: everything that came from it, by identifier.

Old versions of the tables count, too: what an earlier recipe made of the prompt is still in their files. Nothing
is removed here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import polars as pl

from curation.errors import InputError
from curation.forgetting.matching import LONG
from curation.forgetting.versions import Versions
from curation.stages.forgotten import Forgotten
from curation.text import pair_id, response_id

__all__ = ["Selection", "select", "source_of"]

_MINIMUM_PREFIX: Final = 6


@dataclass
class Selection:
    """Identifiers and texts that go, and what else is to be said."""

    sources: set[str] = field(default_factory=set)
    prompts: set[str] = field(default_factory=set)
    answers: set[str] = field(default_factory=set)
    inputs: set[str] = field(default_factory=set)
    pairs: set[str] = field(default_factory=set)
    requests: set[str] = field(default_factory=set)
    """Rows of ``generations`` that were asked for prompts that go."""
    replaced: list[list[str]] = field(default_factory=list)
    """request_id, generator and prompt_id of answers that go while their prompt stays: not to be asked again."""
    statistics: set[str] = field(default_factory=set)
    text_ids: set[str] = field(default_factory=set)
    documents: set[str] = field(default_factory=set)
    """Those of ``text_ids`` that are of documents of a corpus which hold a text as a part."""
    scores: set[str] = field(default_factory=set)
    """Identifiers under which a rescorer's scores are kept in ``rewards``."""
    all_scores: bool = False
    """Whether all scores of rescorers go."""
    trained: bool = False
    """Whether a pair goes that reward heads may have been trained on."""
    texts: list[str] = field(default_factory=list)
    """As they are stored."""
    common: list[str] = field(default_factory=list)
    """Beginnings that they share with texts that stay."""
    notes: list[str] = field(default_factory=list)

    @property
    def identifiers(self) -> list[str]:
        """Every identifier of which nothing may be left."""
        every = (self.prompts, self.answers, self.pairs, self.requests, self.statistics, self.text_ids, self.scores)
        return sorted(set().union(*every))

    @property
    def is_replaced(self) -> pl.Expr:
        """Which rows of ``generations`` are among ``replaced``: two models may have been asked the same request."""
        keys = [f"{request} {generator}" for request, generator, _ in self.replaced]
        return pl.concat_str("request_id", "generator", separator=" ").is_in(keys)

    @property
    def is_empty(self) -> bool:
        return not (self.sources or self.prompts or self.answers)


def select(versions: Versions, given: Sequence[str]) -> Selection:
    """Follow what was named to everything that came from it.

    Raises:
        InputError: when nothing, or more than one thing, has one of the names.
    """
    found = Selection()
    rows = versions.ids("inputs")
    for name in given:
        _resolve(versions, rows, name, found)
    if found.is_empty:
        return found
    _sources(versions, rows, found)
    _mutated(versions, found)
    _answers(versions, rows, found)
    gone = pl.col("prompt_id").is_in(list(found.prompts)) | pl.col("source").is_in(list(found.sources))
    found.inputs |= set(rows.filter(gone)["input_id"])
    _requests(versions, found)
    _pairs(versions, rows, found)
    passes = versions.ids("policy_stats")
    touched = passes.filter(
        pl.col("prompt_id").is_in(list(found.prompts))
        | pl.col("candidate_ids").list.eval(pl.element().is_in(list(found.answers))).list.any()
    )
    found.statistics |= set(touched["stats_id"])
    return found


def _resolve(versions: Versions, rows: pl.DataFrame, name: str, found: Selection) -> None:
    """What a person named: a source, or the identifier of a prompt or an answer, or its first digits."""
    rejected = versions.ids("rejects").filter(pl.col("table") == "inputs")
    rejected = rejected.filter(source_of(pl.col("row_id")) == name)
    if name in set(rows["source"]) or not rejected.is_empty():
        found.sources.add(name)
        return
    rewrites = set(versions.ids("rewrites")["prompt_id"])
    tables = ("inputs", "prompts", "mutations", "generations")
    prompts = _matching(name, (versions.ids(t)["prompt_id"] for t in tables)) - rewrites
    provided = rows["candidate_ids"].explode().drop_nulls()
    made = (versions.ids(t)["candidate_id"] for t in ("candidates", "constructed"))
    answers = _matching(name, (provided, *made))
    if len(prompts) + len(answers) > 1:
        raise InputError(f"{name!r} is the beginning of several identifiers: give more digits")
    found.prompts |= prompts
    found.answers |= answers
    if prompts or answers:
        return
    known = Forgotten(versions.workspace)
    if not any(known.has(kind, [name]).item() for kind in ("prompt", "answer", "source")):
        raise InputError(
            f"{versions.workspace.url} has no prompt, answer or source {name!r}: expected an identifier (at least "
            f"{_MINIMUM_PREFIX} of its digits; `curation explain` shows it) or the name of a source"
        )
    found.notes.append(f"{name} was forgotten before")


def source_of(input_id: pl.Expr) -> pl.Expr:
    """The source of an input row ``<source>#<row>``. The name of a source may have a ``#`` of its own."""
    return input_id.str.replace(r"#\d+\z", "")


def _matching(name: str, columns: Iterable[pl.Series]) -> set[str]:
    long = len(name) >= _MINIMUM_PREFIX
    return {i for c in columns for i in (c.filter(c.str.starts_with(name)) if long else c.filter(c == name))}


def _sources(versions: Versions, rows: pl.DataFrame, found: Selection) -> None:
    """The prompts and answers that only the forgotten sources brought."""
    if not found.sources:
        return
    theirs = rows.filter(pl.col("source").is_in(list(found.sources)))
    now = versions.ids("inputs", current=True)
    others = now.filter(
        ~pl.col("source").is_in(list(found.sources)) & ~pl.col("prompt_id").is_in(list(found.prompts))
    )
    stay = set(others["prompt_id"])
    shared = set(theirs["prompt_id"]) & stay
    found.prompts |= set(theirs["prompt_id"]) - stay
    brought = set(theirs["candidate_ids"].explode().drop_nulls())
    asked = versions.rows("generations", "prompt_id", shared, ("prompt_id", "response"))
    said = {response_id(p, r) for p, r in asked.select("prompt_id", "response").iter_rows()}
    found.answers |= brought - set(others["candidate_ids"].explode().drop_nulls()) - said
    if shared:
        found.notes.append(
            f"{len(shared):,} prompts stay, for other sources bring them, too; only the answers that no other "
            f"source and no model gave go"
        )


def _mutated(versions: Versions, found: Selection) -> None:
    """Prompts that were made from those that go, unless another one that stays leads to them, too."""
    made = versions.ids("mutations")
    now = versions.ids("inputs", current=True).filter(~pl.col("source").is_in(list(found.sources)))
    own = set(now["prompt_id"])
    while True:
        gone = list(found.prompts)
        children = set(made.filter(pl.col("parent_id").is_in(gone))["prompt_id"]) - found.prompts
        stay = set(made.filter(~pl.col("parent_id").is_in(gone))["prompt_id"]) | own
        if not children - stay:
            if children:
                found.notes.append(f"{len(children):,} mutated prompts stay: other prompts lead to them, too")
            return
        found.prompts |= children - stay


def _answers(versions: Versions, rows: pl.DataFrame, found: Selection) -> None:
    """Every answer to the prompts, and every answer elsewhere that was made from one of them."""
    gone = pl.col("prompt_id").is_in(list(found.prompts))
    found.answers |= set(rows.filter(gone)["candidate_ids"].explode().drop_nulls())
    asked = versions.rows("generations", "prompt_id", found.prompts, ("prompt_id", "response"))
    found.answers |= {response_id(p, r) for p, r in asked.select("prompt_id", "response").iter_rows()}
    made = pl.concat([versions.ids("candidates"), versions.ids("constructed")], how="diagonal")
    found.answers |= set(made.filter(gone)["candidate_id"])
    provided = set(versions.ids("inputs", current=True).filter(~gone)["candidate_ids"].explode().drop_nulls())
    while True:
        children = set(made.filter(pl.col("parent_id").is_in(list(found.answers)))["candidate_id"])
        if not children - found.answers - provided:
            return
        found.answers |= children - provided


def _requests(versions: Versions, found: Selection) -> None:
    """What models were asked: for the prompts that go, and where an answer that goes came back."""
    rewrites = versions.ids("rewrites")
    gone = rewrites.filter(pl.col("for_prompt").is_in(list(found.prompts)))
    asked = found.prompts | set(gone["prompt_id"])
    ledger = versions.ids("generations")
    found.requests |= set(ledger.filter(pl.col("prompt_id").is_in(list(asked)))["request_id"])
    named = versions.rows("candidates", "candidate_id", found.answers, ("prompt_id", "response"))
    named = pl.concat(
        [named, versions.rows("constructed", "candidate_id", found.answers, ("prompt_id", "response"))]
    ).filter(~pl.col("prompt_id").is_in(list(found.prompts)))
    for prompt, response in named.unique().iter_rows():
        own = {prompt, *rewrites.filter(pl.col("for_prompt") == prompt)["prompt_id"]}
        columns = ("request_id", "generator", "prompt_id", "response")
        replies = versions.rows("generations", "prompt_id", own, columns, current=True)
        hits = replies.filter(_is_made_of(response))
        found.replaced += [list(row) for row in hits.select(columns[:3]).iter_rows()]


def _is_made_of(response: str) -> pl.Expr:
    """Whether an answer stands in a reply; a short one as the whole of it, or after reasoning or a new line."""
    reply = pl.col("response")
    if len(response.strip()) >= LONG:
        return reply.str.contains(response, literal=True)
    return reply.str.contains(rf"(?:\A|[>\n])\s*{pl.escape_regex(response.strip())}\s*\z")


def _pairs(versions: Versions, rows: pl.DataFrame, found: Selection) -> None:
    """The pairs of the prompts and answers, also those that the sources brought and a rule dropped."""
    touches: Any = pl.col("prompt_id").is_in(list(found.prompts))
    known = versions.ids("pairs")
    sides = [pl.col(f"{side}_id").is_in(list(found.answers)) for side in ("chosen", "rejected")]
    found.pairs |= set(known.filter(touches | sides[0] | sides[1])["pair_id"])
    source = pl.col("source").is_in(list(found.sources))
    of_answers = pl.col("candidate_ids").list.eval(pl.element().is_in(list(found.answers))).list.any()
    brought = rows.filter((touches | source | of_answers) & (pl.col("kind") == "pair"))
    found.trained = not brought.is_empty()
    for row in brought.iter_rows(named=True):
        ids = row["candidate_ids"]
        for one, other in ((0, 1), (1, 0)):
            if {ids[one], ids[other]} & found.answers or row["prompt_id"] in found.prompts:
                found.pairs.add(pair_id(row["prompt_id"], ids[one], ids[other]))
