"""Scores of anchors with documents, which a rescorer keeps beside the rewards under a hash of both.

Such a row names neither its prompt nor its text, and its anchor may be another prompt than the one that goes. So
the hashes are made again: of the prompts that go with every document, and of every prompt with the documents that
go. Where that would be too many, all scores of a rescorer go. Rewards of answers are not here.
"""

from __future__ import annotations

from typing import Final

import polars as pl

from curation.forgetting.corpora import Corpora
from curation.forgetting.selection import Selection
from curation.forgetting.versions import Versions
from curation.text_columns import response_ids, text_ids

__all__ = ["add_scores", "without_answer"]

_MOST_HASHES: Final = 10_000_000
"""About half a minute."""
_AT_ONCE: Final = 1_000_000


def add_scores(versions: Versions, selection: Selection, corpora: Corpora) -> None:
    """Add the identifiers of the scores in which something is that goes, or ask for all of them to go."""
    kept = without_answer(versions)
    if kept.is_empty():
        return
    answers = versions.texts("candidates", "response")
    documents = pl.concat([answers, corpora.texts.rename(answers.name)]).unique(maintain_order=True)
    theirs = documents.filter(text_ids(documents).is_in(list(selection.text_ids)))
    anchors = versions.ids("prompts")["prompt_id"].unique(maintain_order=True)
    gone = pl.Series(sorted(selection.prompts), dtype=pl.String)
    unseen = bool(corpora.unread) and len(gone) > 0
    if unseen or len(gone) * len(documents) + len(anchors) * len(theirs) > _MOST_HASHES:
        selection.all_scores = True
        why = "a corpus cannot be read" if unseen else "there are too many"
        selection.notes.append(
            f"all {len(kept):,} scores that a rescorer gave to anchors with documents go, for {why} to see which "
            f"of them are of what goes; the next run computes them again"
        )
        return
    selection.scores = _named(gone, documents, kept) | _named(anchors, theirs, kept)


def without_answer(versions: Versions) -> pl.Series:
    """The identifiers in table ``rewards`` that are of no answer of the workspace: those of a rescorer."""
    scored = versions.places[0].scan("rewards").select("candidate_id").unique().collect()
    provided = versions.ids("inputs")["candidate_ids"].explode().drop_nulls()
    made = [versions.ids(table)["candidate_id"] for table in ("candidates", "constructed")]
    known = pl.concat([column.alias("candidate_id") for column in (provided, *made)]).unique()
    left = scored.join(known.to_frame(), on="candidate_id", how="anti")
    if left.is_empty():
        return left["candidate_id"]
    # Answers that were sampled and not taken have rewards, too.
    sampled = versions.places[0].scan("generations").select("prompt_id", "response").collect()
    drawn = response_ids(sampled["prompt_id"], sampled["response"]).alias("candidate_id")
    return left.join(drawn.unique().to_frame(), on="candidate_id", how="anti")["candidate_id"].sort()


def _named(anchors: pl.Series, documents: pl.Series, kept: pl.Series) -> set[str]:
    """Which of the identifiers are of one of these anchors with one of these documents."""
    found: set[str] = set()
    if anchors.is_empty() or documents.is_empty():
        return found
    for part in documents.to_frame("text").iter_slices(max(_AT_ONCE // len(anchors), 1)):
        both = part.join(anchors.to_frame("anchor"), how="cross")
        ids = response_ids(both["anchor"], both["text"])
        found |= set(ids.filter(ids.is_in(kept.implode())))
    return found
