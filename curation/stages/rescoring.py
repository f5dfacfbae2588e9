"""Scores of an anchor and a document by a slow model, from the ledger where they are there. No stage is here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from curation.engine import Batch, Step, Worker, failures_frame
from curation.ledger import LedgerKey
from curation.negatives.inputs import Int64
from curation.negatives.rescoring import TextScorer, cross_encoder_fingerprint, open_cross_encoder
from curation.recipe import Reward
from curation.recipe.negatives import Rescorer
from curation.stages.context import Context
from curation.stages.rewards import RewardStep, whole_means
from curation.text import response_id

__all__ = ["CrossEncoderStep", "LedgerScorer", "rescoring_step"]

_STEP_VERSION = 1


@dataclass(frozen=True)
class CrossEncoderStep:
    """Scoring pairs of texts with a cross-encoder. Its scores lie beside the rewards, under its own name."""

    model: str
    batch_rows: int

    @property
    def name(self) -> str:
        return "cross-encoder"

    @property
    def key(self) -> LedgerKey:
        producer = f"cross-encoder {cross_encoder_fingerprint(self.model)} step{_STEP_VERSION}"
        return LedgerKey("rewards", "candidate_id", "model", producer)

    def open(self) -> Worker:
        return _PairScoring(open_cross_encoder(self.model))


@dataclass
class _PairScoring:
    scorer: TextScorer

    def __call__(self, batch: pl.DataFrame) -> Batch:
        scores = np.asarray(self.scorer(batch["anchor"].to_list(), batch["response"].to_list()), dtype=np.float64)
        finite = np.isfinite(scores)
        rows = pl.DataFrame({"candidate_id": batch["candidate_id"], "score": scores}).filter(pl.Series(finite))
        failures = [
            {
                "row_id": row,
                "item_id": row,
                "rule": "non_finite_score",
                "value": "",
                "reason": "the cross-encoder gave a value that is not a finite number",
            }
            for row in batch["candidate_id"].filter(pl.Series(~finite))
        ]
        return Batch(rows.select("candidate_id", rewards=pl.concat_list("score")), failures_frame(failures))


def rescoring_step(options: Rescorer) -> Step:
    """The step of the model that a recipe names."""
    if options.kind == "cross_encoder":
        return CrossEncoderStep(options.model, options.batch_rows)
    return RewardStep(Reward(model=options.model, batch_rows=options.batch_rows, **options.options))


class LedgerScorer:
    """A ``PairScorer`` over row numbers; each pair is paid for once.

    A pair that the model failed on has no score (NaN), and its document is not trusted.
    """

    def __init__(
        self, context: Context, options: Rescorer, *, anchors: pl.DataFrame, documents: Sequence[str]
    ) -> None:
        """
        Args:
            anchors: prompt_id, messages, anchor; one row an anchor.
            documents: the corpus.
        """
        self._context = context
        self._step = rescoring_step(options)
        self._anchors = anchors.select("prompt_id", "messages", "anchor").with_row_index("row")
        self._documents = documents

    def score(self, anchors: Int64, documents: Int64) -> npt.NDArray[Any]:
        texts = [self._documents[row] for row in documents.tolist()]
        pairs = pl.DataFrame({"row": anchors, "response": texts}, schema={"row": pl.UInt32, "response": pl.String})
        pairs = pairs.join(self._anchors, on="row", maintain_order="left")
        ids = [response_id(p, r) for p, r in pairs.select("prompt_id", "response").iter_rows()]
        pairs = pairs.with_columns(candidate_id=pl.Series(ids, dtype=pl.String))
        self._context.compute(self._step, pairs.unique("candidate_id", maintain_order=True))
        scores = whole_means(self._context.ledger.fetch(self._step.key, pairs["candidate_id"]))
        found = pairs.select("candidate_id").join(scores, on="candidate_id", how="left", maintain_order="left")
        return found["score"].cast(pl.Float64).fill_null(np.nan).to_numpy()
