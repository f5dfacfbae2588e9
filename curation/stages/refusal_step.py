"""The step of stage ``refusals``: a detector's verdicts, and what a calibration makes of them.

Which answers it is given, and what it was told before, is in ``refusals``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import polars as pl

from curation.engine import Batch, Worker, failures_frame
from curation.ledger import LedgerKey
from curation.models.chat import is_address
from curation.models.protocols import RefusalDetector
from curation.models.refusals import (
    judge_fingerprint,
    open_refusal_detector,
    open_refusal_judge,
    refusal_fingerprint,
)
from curation.recipe import RefusalDetection
from curation.refusals.calibrated import CALIBRATED, StoredCalibration, apply_calibration, load_calibration
from curation.refusals.sorting import Sorted, sort_requests
from curation.stages.sorting import asking_of, open_sorter, sorted_by, sorts_remotely, unsorted_failures
from curation.text import last_user_text, messages_text

if TYPE_CHECKING:
    from curation.refusals.sorting import Sorter

__all__ = ["RAW", "SORTED", "VERDICT", "RefusalStep", "sorts_all_requests", "uncalibrated_fingerprint"]

_STEP_VERSION: Final = 3
VERDICT: Final = ("refusal_probability", "refusal_class", "refusal_kind", "refusal_truncated")
_KNOWN: Final = "known_"
RAW: Final = "raw_"
"""Before columns of the inputs of a calibrated step: the detector's own verdict on each answer."""
SORTED: Final = "sorted_into"
"""Column of the inputs: the category of the request, where stage ``requests`` has sorted it."""


def _fingerprint(options: RefusalDetection) -> str:
    """What the verdicts depend on: the detector or judge, the calibration, the taxonomy."""
    chosen = uncalibrated_fingerprint(options)
    calibrated = f"{CALIBRATED}{load_calibration(options.calibration).fingerprint}" if options.calibration else ""
    by = f" by {sorted_by(options)}" if options.taxonomy else ""
    return f"{chosen}{calibrated}{by}"


def uncalibrated_fingerprint(options: RefusalDetection) -> str:
    judge = options.judge
    if judge is not None:
        return judge_fingerprint(
            judge.model, asking=asking_of(judge), backend=judge.backend, revision=judge.revision
        )
    return refusal_fingerprint(
        options.model,
        refusal_labels=options.refusal_labels,
        classifier_input=options.classifier_input,
        max_length=options.max_length,
    )


def sorts_all_requests(options: RefusalDetection) -> bool:
    """Whether every verdict has the category of its request, and not only one that the answer refuses."""
    return options.calibration is not None and bool(load_calibration(options.calibration).thresholds)


@dataclass(frozen=True)
class RefusalStep:
    """Detection with one detector. With a calibration nobody is asked: what the detector has said is ``RAW``."""

    options: RefusalDetection

    @property
    def name(self) -> str:
        return "refusals"

    @property
    def batch_rows(self) -> int:
        return self.options.batch_rows

    @property
    def is_judged_remotely(self) -> bool:
        """Whether a server gives the verdicts themselves."""
        judge = self.options.judge if self.options.calibration is None else None
        return judge is not None and is_address(judge.model)

    @property
    def is_remote(self) -> bool:
        """Whether a server answers, which is paid for, and not a model in this process."""
        return self.is_judged_remotely or sorts_remotely(self.options)

    @property
    def key(self) -> LedgerKey:
        producer = f"{_fingerprint(self.options)} step{_STEP_VERSION}"
        return LedgerKey("refusals", "candidate_id", "detector", producer)

    @property
    def known_columns(self) -> tuple[str, ...]:
        """What a row that lacks only its category need not be asked for again."""
        return VERDICT if self.options.calibration is None else ()

    def open(self) -> Worker:
        options = self.options
        categories = _Categories(options, everywhere=sorts_all_requests(options))
        if options.calibration is not None:
            return _Calibrating(load_calibration(options.calibration), categories)
        return _Detecting(_open(options), categories)


def _open(options: RefusalDetection) -> RefusalDetector:
    judge = options.judge
    if judge is not None:
        return open_refusal_judge(
            judge.model,
            asking=asking_of(judge),
            backend=judge.backend,
            revision=judge.revision,
            concurrency=judge.concurrency,
            timeout=judge.timeout,
        )
    return open_refusal_detector(
        options.model,
        refusal_labels=options.refusal_labels,
        classifier_input=options.classifier_input,
        max_length=options.max_length,
    )


@dataclass
class _Detecting:
    """Asks the detector, but for what it has said already."""

    detector: RefusalDetector
    categories: _Categories

    def __call__(self, batch: pl.DataFrame) -> Batch:
        told = pl.Series([False] * batch.height, dtype=pl.Boolean)
        if f"{_KNOWN}refusal_class" in batch.columns:
            told = batch[f"{_KNOWN}refusal_class"].is_not_null()
        known, asked = batch.filter(told), batch.filter(~told)
        batch, verdicts = pl.concat([asked, known]), self._verdicts(asked)
        if not known.is_empty():
            verdicts = pl.concat([verdicts, _verdicts_of(known, _KNOWN)])
        category, unsorted = self.categories.of(batch, verdicts["refusal_class"])
        rows = verdicts.insert_column(-1, category.alias("refusal_category"))
        unread = rows["refusal_class"].is_null()
        failures = [
            {
                "row_id": name,
                "item_id": name,
                "rule": "unreadable_verdict",
                "value": None,
                "reason": "the judge gave no verdict that can be read",
            }
            for name in rows.filter(unread)["candidate_id"]
        ]
        more = unsorted_failures(rows.filter(unsorted)["candidate_id"])
        return Batch(rows.filter(~unread), pl.concat([failures_frame(failures), more]))

    def _verdicts(self, batch: pl.DataFrame) -> pl.DataFrame:
        """candidate_id and ``VERDICT``, as the detector gives them."""
        prompts = [messages_text(messages) for messages in batch["messages"].to_list()]
        found = self.detector.detect(prompts, batch["response"].to_list())
        return pl.DataFrame(
            {
                "candidate_id": batch["candidate_id"],
                "refusal_probability": pl.Series(found.probability, dtype=pl.Float64),
                "refusal_class": pl.Series(found.refusal_class, dtype=pl.String),
                "refusal_kind": pl.Series(found.kind, dtype=pl.String),
                "refusal_truncated": pl.Series(found.truncated, dtype=pl.Boolean),
            }
        )


@dataclass
class _Calibrating:
    """Draws the line anew in what the detector has said."""

    calibration: StoredCalibration
    categories: _Categories

    def __call__(self, batch: pl.DataFrame) -> Batch:
        verdicts = _verdicts_of(batch, RAW)
        category, unsorted = self.categories.of(batch, verdicts["refusal_class"])
        rows = verdicts.insert_column(-1, category.alias("refusal_category"))
        failures = unsorted_failures(rows.filter(unsorted)["candidate_id"])
        return Batch(apply_calibration(rows, self.calibration), failures)


def _verdicts_of(batch: pl.DataFrame, prefix: str) -> pl.DataFrame:
    """candidate_id and ``VERDICT`` of rows whose verdict is in the ledger."""
    return batch.select("candidate_id", pl.col(f"{prefix}{name}" for name in VERDICT)).rename(
        {f"{prefix}{name}": name for name in VERDICT}
    )


@dataclass
class _Categories:
    """Of the requests whose answers refuse, or of all. Who sorts is opened when there is something to be sorted."""

    options: RefusalDetection
    everywhere: bool
    sorter: Sorter | None = None

    def of(self, batch: pl.DataFrame, classes: pl.Series) -> Sorted:
        """Where stage ``requests`` has sorted all of them, or there is no verdict, nobody is asked."""
        if SORTED in batch.columns:
            told = batch.select(
                pl.when(classes.ne_missing("compliance") | self.everywhere).then(SORTED).alias("category")
            )
            return Sorted(told.to_series(), pl.Series("unread", [False] * batch.height, dtype=pl.Boolean))
        asked = [last_user_text(messages) for messages in batch["messages"].to_list()]
        wanted = [
            p if c is not None and (self.everywhere or c != "compliance") else None
            for p, c in zip(asked, classes, strict=True)
        ]
        if self.options.taxonomy is not None and any(text is not None for text in wanted):
            self.sorter = self.sorter or open_sorter(self.options)
        if self.sorter is None:
            none = pl.Series("category", [None] * len(wanted), dtype=pl.String)
            return Sorted(none, pl.Series("unread", [False] * len(wanted), dtype=pl.Boolean))
        return sort_requests(wanted, self.sorter)
