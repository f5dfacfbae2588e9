"""What every push has in common: what it would change, and what it did. Where it pushes to is elsewhere.

``hub`` pushes to the Hugging Face Hub, ``url`` to a folder that fsspec knows.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, NamedTuple

from curation.errors import InputError
from curation.publish.history import History
from curation.publish.published_folder import PublishedFolder

__all__ = ["PushPlan", "PushResult", "check_lineage", "plan_push"]

_SHARD: Final = re.compile(r"(data|evidence)/(.*/)?(train|validation|test)-\d{5}-of-\d{5}\.parquet")


class PushPlan(NamedTuple):
    """What a push changes at its destination."""

    uploads: Mapping[str, int]
    """Path to bytes, of files that are new or differ."""
    deletes: tuple[str, ...]
    unchanged: int
    """Files that are there already, byte for byte."""

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to do."""
        return not self.uploads and not self.deletes


class PushResult(NamedTuple):
    """What a push did, or would do."""

    destination: str
    version: str
    outcome: str
    """pushed, proposed (in a pull request), unchanged, or would push."""
    plan: PushPlan
    notes: tuple[str, ...] = ()
    """What else there is to say, one line each."""


def plan_push(published: PublishedFolder, same: Mapping[str, bool], *, earlier: History | None) -> PushPlan:
    """Compare a dataset with what is at its destination.

    Files there are deleted only when a push of this package put them there: shards, and what the history
    there or here names. Anything else, such as a licence or an image that somebody added, stays.

    Args:
        published: the dataset.
        same: path to whether the content is ours, of every file at the destination.
        earlier: the history at the destination, None where there is none.
    """
    uploads = {path: facts.size for path, facts in published.facts.items() if not same.get(path, False)}
    ours = {path for path in same if _SHARD.fullmatch(path)}
    ours |= {*earlier.files, *earlier.others} if earlier else set()
    deletes = sorted(path for path in same if path in ours and path not in published.facts)
    return PushPlan(uploads, tuple(deletes), len(published.facts) - len(uploads))


def check_lineage(published: PublishedFolder, earlier: History | None, *, where: str, force: bool) -> None:
    """Refuse to push over versions that the dataset's own history does not hold.

    Raises:
        InputError: naming both histories and what to do.
    """
    mine = published.history
    if earlier is None or force:
        return
    if earlier.dataset != mine.dataset:
        raise InputError(
            f"{where} holds the dataset {earlier.dataset!r}, and this is {mine.dataset!r}: push it elsewhere, or "
            f"replace it with --force"
        )
    if not mine.continues(earlier):
        raise InputError(
            f"{where} holds a history (up to {earlier.latest.name} of {earlier.latest.date}) that this workspace "
            f"has not written, and pushing would lose its changelog: push from the workspace that wrote it, to "
            f"another place, or over it with --force and a --tag of its own"
        )
