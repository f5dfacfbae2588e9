"""Batches of a server's work in a run: what it replied is kept as it comes, and not only when the batch is whole.

A judge's batch is hundreds of paid replies, and comes into the ledger in one commit. Until then they lie in a file
of the workspace's journal, from which the next run goes on, after a kill as well. What lies there and no batch has
asked for yet stays until the step is done: the next run's batches may have other sizes, or rows in another order.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from curation.engine import Batch, Step, Worker
from curation.journal import journal_path
from curation.kept_replies import REPLIES, KeptReplies
from curation.ledger import Ledger, LedgerKey
from curation.models.kept import keeping
from curation.workspace import Workspace

__all__ = ["KeptStep", "replies_path"]


def replies_path(workspace: Workspace, key: LedgerKey) -> Path:
    """Where replies lie until their batch is in the ledger."""
    path = journal_path(workspace, key)
    return path.with_name(f"{REPLIES}{path.name}")


class KeptStep:
    """A step whose worker asks a server, with its replies kept until they are in the ledger."""

    def __init__(self, step: Step, workspace: Workspace) -> None:
        self._step, self._key, self._workspace = step, step.key, workspace
        self._ledger = Ledger(workspace)
        self._path = replies_path(workspace, self._key)
        self._kept: KeptReplies | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._step, name)

    def open(self) -> Worker:
        """The step's worker. Whoever opens it holds the table's lock, so nobody else writes to the file."""
        self._kept = KeptReplies(self._path)
        ours = _Ours(self._kept, self._workspace)
        with keeping(ours):
            return _Kept(self, ours, self._step.open())

    def forget(self) -> None:
        """Let replies go whose batches are in the ledger, once the disk has them there.

        Raises:
            WorkspaceError: when the disk cannot say so.
        """
        if self._kept is not None and self._kept.count:
            self._ledger.settle(self._key)
            self._kept.forget()

    def close(self, *, done: bool, whole: bool = True) -> None:
        """Let the file go where the step is done, and else leave it.

        Args:
            whole: whether the step had all its inputs. In a trial, replies that were not asked for are for a run.
        """
        if self._kept is None:
            return
        if done:
            self.forget()
        if done and (whole or not self._kept.unused):
            self._kept.remove()
        else:
            self._kept.close()


class _Ours:
    """See ``curation.models.kept.Keeper``. A run that slept while another took its workspace asks for nothing more:
    the other one asks for the same."""

    def __init__(self, kept: KeptReplies, workspace: Workspace) -> None:
        self._kept, self._workspace = kept, workspace

    def find(self, key: str) -> Mapping[str, Any] | None:
        self._workspace.check_ours()
        return self._kept.find(key)

    def add(self, key: str, answer: Mapping[str, Any]) -> None:
        self._kept.add(key, answer)


class _Kept:
    def __init__(self, step: KeptStep, kept: _Ours, worker: Worker) -> None:
        self._step, self._kept, self._worker = step, kept, worker
        self._begun = False

    def __call__(self, batch: pl.DataFrame) -> Batch:
        if self._begun:
            self._step.forget()  # The engine asks for a batch once the last one is in the ledger.
        self._begun = True
        with keeping(self._kept):
            return self._worker(batch)
