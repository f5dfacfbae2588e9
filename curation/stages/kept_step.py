"""Batches of a server's work in a run: what it replied is kept as it comes, and not only when the batch is whole.

A judge's batch is hundreds of paid replies, and comes into the ledger in one commit. Until then they lie in a file
of the workspace's journal, from which the next run goes on, after a kill as well.
"""

from __future__ import annotations

from typing import Any

import polars as pl

from curation.engine import Batch, Step, Worker
from curation.journal import journal_path
from curation.kept_replies import REPLIES, KeptReplies
from curation.models.kept import keeping
from curation.workspace import Workspace

__all__ = ["KeptStep"]


class KeptStep:
    """A step whose worker asks a server, with its replies kept until they are in the ledger."""

    def __init__(self, step: Step, workspace: Workspace) -> None:
        self._step = step
        path = journal_path(workspace, step.key)
        self._path = path.with_name(f"{REPLIES}{path.name}")
        self._kept: KeptReplies | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._step, name)

    def open(self) -> Worker:
        """The step's worker. Whoever opens it holds the table's lock, so nobody else writes to the file."""
        self._kept = KeptReplies(self._path)
        with keeping(self._kept):
            return _Kept(self._kept, self._step.open())

    def close(self, *, done: bool) -> None:
        """Let the file go where the step is done, for all is in the ledger, and else leave it."""
        if self._kept is not None and done:
            self._kept.remove()
        elif self._kept is not None:
            self._kept.close()


class _Kept:
    def __init__(self, kept: KeptReplies, worker: Worker) -> None:
        self._kept, self._worker = kept, worker
        self._begun = False

    def __call__(self, batch: pl.DataFrame) -> Batch:
        if self._begun:
            self._kept.forget()  # The engine asks for a batch once the last one is in the ledger.
        self._begun = True
        with keeping(self._kept):
            return self._worker(batch)
