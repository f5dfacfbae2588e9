"""Stage ``refusals``: tell refusals from answers among the candidates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

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
from curation.refusals.calibrated import (
    CALIBRATED,
    StoredCalibration,
    apply_calibration,
    draw_line,
    load_calibration,
)
from curation.refusals.sorting import Sorted, sort_requests
from curation.refusals.taxonomy import open_taxonomy
from curation.stages.answered import answered
from curation.stages.context import Context, Stage, StageResult
from curation.stages.requests import judges_requests, prompt_requests
from curation.stages.sorting import (
    asking_of,
    open_sorter,
    sorted_by,
    sorts_remotely,
    unsorted_facts,
    unsorted_failures,
)
from curation.text import last_user_text, messages_text
from schemas import TABLES

if TYPE_CHECKING:
    from curation.refusals.sorting import Sorter

__all__ = [
    "STAGE",
    "RefusalStep",
    "candidate_refusals",
    "detector_fingerprint",
    "refusal_step",
    "sorts_all_requests",
]

_STEP_VERSION = 3
_VERDICT = ("refusal_probability", "refusal_class", "refusal_kind", "refusal_truncated")
_KNOWN = "known_"
_RAW = "raw_"
"""Before columns of the inputs: the verdict as it was before any calibration, where it is in the ledger."""
_SORTED = "sorted_into"
"""Column of the inputs: the category of the request, where stage ``requests`` has sorted it."""


def detector_fingerprint(options: RefusalDetection) -> str:
    """What the verdicts depend on: the detector or judge, the calibration, the taxonomy."""
    chosen = _uncalibrated(options)
    calibrated = f"{CALIBRATED}{load_calibration(options.calibration).fingerprint}" if options.calibration else ""
    by = f" by {sorted_by(options)}" if options.taxonomy else ""
    return f"{chosen}{calibrated}{by}"


def _uncalibrated(options: RefusalDetection) -> str:
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


@dataclass(frozen=True)
class RefusalStep:
    """Detection with one detector."""

    options: RefusalDetection

    @property
    def name(self) -> str:
        return "refusals"

    @property
    def batch_rows(self) -> int:
        return self.options.batch_rows

    @property
    def is_remote(self) -> bool:
        """Whether a server answers, which is paid for, and not a model in this process."""
        judge = self.options.judge
        return (judge is not None and is_address(judge.model)) or sorts_remotely(self.options)

    @property
    def key(self) -> LedgerKey:
        producer = f"{detector_fingerprint(self.options)} step{_STEP_VERSION}"
        return LedgerKey("refusals", "candidate_id", "detector", producer)

    @property
    def known_columns(self) -> tuple[str, ...]:
        """What a row that lacks only its category need not be asked for again."""
        return _VERDICT

    def open(self) -> Worker:
        options = self.options
        calibration = load_calibration(options.calibration) if options.calibration else None
        return _Detecting(_open(options), options, calibration)


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
    detector: RefusalDetector
    options: RefusalDetection
    calibration: StoredCalibration | None
    sorter: Sorter | None = None

    def __call__(self, batch: pl.DataFrame) -> Batch:
        told = self._told(batch)
        raw = _judged_before(batch) & ~told
        known, before, asked = batch.filter(told), batch.filter(raw), batch.filter(~told & ~raw)
        batch, verdicts = pl.concat([asked, before, known]), self._verdicts(asked)
        for rows, prefix in ((before, _RAW), (known, _KNOWN)):
            if not rows.is_empty():
                verdicts = pl.concat([verdicts, _known_verdicts(rows, prefix)])
        category, unsorted = self._categories(batch, verdicts["refusal_class"])
        rows = verdicts.insert_column(-1, category.alias("refusal_category"))
        unread = rows["refusal_class"].is_null()
        if self.calibration is not None:
            fresh = apply_calibration(rows.head(asked.height + before.height), self.calibration)
            rows = pl.concat([fresh, draw_line(rows.tail(known.height), self.calibration)])
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

    def _told(self, batch: pl.DataFrame) -> pl.Series:
        """Whether a verdict is known and only its category was missing, row by row.

        Under a threshold of its category's own, what was drawn as compliance may be a refusal, and of which class
        is not kept: that is asked again.
        """
        if f"{_KNOWN}refusal_class" not in batch.columns:
            return pl.Series([False] * batch.height, dtype=pl.Boolean)
        known = pl.col(f"{_KNOWN}refusal_class")
        told = known.is_not_null() & ((known != "compliance") | (not _by_category(self.calibration)))
        return batch.select(told=told.fill_null(value=False)).to_series()

    def _verdicts(self, batch: pl.DataFrame) -> pl.DataFrame:
        """candidate_id and ``_VERDICT``, as the detector gives them."""
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

    def _categories(self, batch: pl.DataFrame, names: pl.Series) -> Sorted:
        """Of the requests whose answers refuse; with thresholds per category of all requests.

        Where stage ``requests`` has sorted all of them, or there is no verdict, nobody is asked.
        """
        everywhere = _by_category(self.calibration)
        if _SORTED in batch.columns:
            told = batch.select(
                pl.when(names.ne_missing("compliance") | everywhere).then(_SORTED).alias("category")
            )
            return Sorted(told.to_series(), pl.Series("unread", [False] * batch.height, dtype=pl.Boolean))
        asked = [last_user_text(messages) for messages in batch["messages"].to_list()]
        wanted = [
            p if c is not None and (everywhere or c != "compliance") else None
            for p, c in zip(asked, names, strict=True)
        ]
        if self.options.taxonomy is not None and any(text is not None for text in wanted):
            self.sorter = self.sorter or open_sorter(self.options)
        if self.sorter is None:
            none = pl.Series("category", [None] * len(wanted), dtype=pl.String)
            return Sorted(none, pl.Series("unread", [False] * len(wanted), dtype=pl.Boolean))
        return sort_requests(wanted, self.sorter)


def _judged_before(batch: pl.DataFrame) -> pl.Series:
    """Whether the detector's own verdict is in the ledger, row by row: a calibration need not ask for it again."""
    if f"{_RAW}refusal_class" not in batch.columns:
        return pl.Series([False] * batch.height, dtype=pl.Boolean)
    return batch[f"{_RAW}refusal_class"].is_not_null()


def _known_verdicts(batch: pl.DataFrame, prefix: str) -> pl.DataFrame:
    """What ``_verdicts`` gives, of rows whose verdict is in the ledger."""
    return batch.select("candidate_id", pl.col(f"{prefix}{name}" for name in _VERDICT)).rename(
        {f"{prefix}{name}": name for name in _VERDICT}
    )


def _by_category(calibration: StoredCalibration | None) -> bool:
    return calibration is not None and bool(calibration.thresholds)


def sorts_all_requests(options: RefusalDetection) -> bool:
    """Whether every verdict has the category of its request, and not only one that the answer refuses."""
    return _by_category(load_calibration(options.calibration) if options.calibration else None)


def refusal_step(context: Context) -> RefusalStep:
    """The step that a recipe asks for; its detector must be set."""
    assert context.recipe.refusals is not None
    return RefusalStep(context.recipe.refusals)


def candidate_refusals(context: Context, candidates: pl.Series) -> pl.DataFrame:
    """candidate_id, refusal_probability, refusal_class, refusal_kind, refusal_category; no rows where the recipe
    detects no refusals."""
    if context.recipe.refusals is None:
        return TABLES["refusals"].create_empty()
    return context.ledger.fetch(refusal_step(context).key, candidates)


def _with_categories(context: Context, candidates: pl.DataFrame) -> pl.DataFrame:
    """The answers with the category of their request, where stage ``requests`` has sorted every one of them."""
    options = context.recipe.refusals
    if options is None or options.taxonomy is None or not judges_requests(context.recipe):
        return candidates
    judged = prompt_requests(context, candidates["prompt_id"].unique(maintain_order=True))
    known = judged.select("prompt_id", pl.col("refusal_category").alias(_SORTED))
    if candidates.join(known, on="prompt_id", how="anti").height:
        return candidates
    return candidates.join(known, on="prompt_id", how="left", maintain_order="left")


def _with_verdicts_before(context: Context, candidates: pl.DataFrame) -> pl.DataFrame:
    """The answers with the detector's own verdict on each, where a run without a calibration has asked for it."""
    options = context.recipe.refusals
    if options is None or options.calibration is None:
        return candidates
    plain = RefusalStep(options.model_copy(update={"calibration": None})).key
    found = context.ledger.fetch(plain, candidates["candidate_id"])
    raw = found.select("candidate_id", pl.col(_VERDICT).name.prefix(_RAW))
    return candidates.join(raw, on="candidate_id", how="left", maintain_order="left")


def _sorted_since(context: Context, inputs: pl.DataFrame) -> pl.DataFrame | None:
    """Verdicts without the category that their request has by now: a judge's reply could not be read before."""
    options = context.recipe.refusals
    assert options is not None
    if _SORTED not in inputs.columns or options.sorting is None or options.sorting.judge is None:
        return None
    found = candidate_refusals(context, inputs["candidate_id"]).filter(pl.col("refusal_category").is_null())
    refuses = pl.lit(sorts_all_requests(options)) | (pl.col("refusal_class") != "compliance")
    late = (
        inputs.select("candidate_id", _SORTED)
        .join(found, on="candidate_id")
        .filter(pl.col(_SORTED).is_not_null() & refuses)
    )
    return found.join(late, on="candidate_id", how="semi", maintain_order="left")


def run(context: Context) -> StageResult:
    candidates = answered(context)
    step = refusal_step(context)
    inputs = _with_verdicts_before(context, _with_categories(context, candidates))
    report = context.compute(step, inputs, again=_sorted_since(context, inputs))
    found = candidate_refusals(context, candidates["candidate_id"])
    facts: dict[str, int | str] = {"computed": report.computed, "detector": report.producer}
    facts |= dict(found["refusal_class"].value_counts(sort=True).iter_rows())
    facts |= unsorted_facts(context, step.key, candidates["candidate_id"])
    options = step.options
    if options.calibration is not None:
        names = [c.name for c in open_taxonomy(options.taxonomy).categories] if options.taxonomy else []
        facts["thresholds"] = load_calibration(options.calibration).in_words(_uncalibrated(options), names)
    if cut := int(found["refusal_truncated"].sum()):
        facts["too long, read at both ends"] = cut
    if unknown := found["refusal_truncated"].null_count():
        facts["not recorded whether read whole"] = unknown
    return StageResult("refusals", candidates.height, min(report.failed, candidates.height - found.height), facts)


STAGE = Stage(
    name="refusals",
    group="scores",
    description="Whether each candidate refuses: its probability, class, kind, and the category of the request.",
    needs=("prompts", "candidates", "requests"),
    run=run,
    table="refusals",
    enabled=lambda recipe: recipe.refusals is not None,
    uses_model=True,
)
