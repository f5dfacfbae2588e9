"""Documents of the recipes' corpora that hold a forgotten text: what was made of them goes, and they stay away.

A corpus is a file of the user's and is not touched. Its documents are known to the workspace by the hash of their
text alone, so which of them hold a text as a part can only be seen while the text is still there: now.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import polars as pl

from curation.errors import CurationError
from curation.forgetting.matching import Needles
from curation.forgetting.selection import Selection
from curation.forgetting.versions import Versions
from curation.stages.embeddings import documents_of
from curation.text_columns import text_ids

__all__ = ["Corpora", "add_documents", "read_corpora"]


class Corpora(NamedTuple):
    """The documents of every corpus that a run of the workspace named."""

    texts: pl.Series
    unread: list[str]
    """Files that are gone or cannot be read."""


def read_corpora(versions: Versions) -> Corpora:
    """The corpora of all recipes in table ``runs``, as their files are now."""
    recipes = {
        text for place in versions.places for text in place.scan("runs").select("recipe").collect()["recipe"]
    }
    paths = {found for text in recipes if (found := _corpus(json.loads(text)))}
    texts, unread = [pl.Series("text", [], dtype=pl.String)], []
    for path in sorted(paths):
        try:
            texts.append(documents_of(path).alias("text"))
        except CurationError:
            unread.append(path)
    return Corpora(pl.concat(texts).unique(maintain_order=True), unread)


def _corpus(recipe: dict[str, Any]) -> str | None:
    path = (recipe.get("negatives") or {}).get("corpus")
    return None if path is None else str(path)


def add_documents(selection: Selection, corpora: Corpora) -> None:
    """Add the identifiers of the documents that hold one of the texts that go."""
    if not selection.texts:
        return
    held = corpora.texts.filter(Needles((), selection.texts).rows(corpora.texts.to_frame()))
    selection.documents = set(text_ids(held))
    selection.text_ids |= selection.documents
    if selection.documents:
        selection.notes.append(
            f"{len(selection.documents):,} documents of the corpus hold one of its texts: what was made of them "
            f"goes, and the next run turns them away; the file itself stays as it is"
        )
    selection.notes += [
        f"the corpus {path} cannot be read: a document in it that holds one of the texts as a part comes back with "
        f"the next run, unless you take it out there"
        for path in corpora.unread
    ]
