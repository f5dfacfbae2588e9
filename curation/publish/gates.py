"""Gates: what must hold of the datasets before they are published. Measuring only, nothing is written.

Each gate is one number against one threshold, and its message says which and by how much.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final, NamedTuple

import polars as pl

from curation.errors import GateError, RecipeError, closest
from curation.publish.drift import DRIFT, NOTHING_BEFORE, Measured

__all__ = ["ALL_DATASETS", "DEFAULT_THRESHOLDS", "GATES_OF", "GateResult", "check_gates", "raise_if_blocked"]

DEFAULT_THRESHOLDS: Final[Mapping[str, float]] = {
    "min_rows": 1,
    "max_tie_rate": 0.05,
    "max_duplicate_rate": 0.0,
    "max_leaking_prompts": 0,
    "min_chosen_refusal_rate": 0.0,
    "max_chosen_refusal_rate": 1.0,
    "max_reward_length_correlation": 1.0,
    "max_truncated_chosen_rate": 0.0,
    "max_empty_categories": 0,
    "max_contaminated_prompts": 0,
    "max_size_change": 0.5,
    "max_score_drift": 0.25,
    "max_refusal_rate_change": 0.1,
    "max_source_shift": 0.3,
    "max_category_shift": 0.3,
    "max_language_shift": 0.1,
}
"""Every gate, and the threshold where none is given. ``min_`` and ``max_`` say which way it binds."""

ALL_DATASETS: Final = "all"
"""What stands for a dataset's name where a gate is about all of them together."""

_OF_ANY: Final = ("min_rows", "max_duplicate_rate", *DRIFT)
_OF_ALL: Final = ("max_leaking_prompts", "max_empty_categories", "max_contaminated_prompts")
GATES_OF: Final[Mapping[str, tuple[str, ...]]] = {
    "preference": tuple(gate for gate in DEFAULT_THRESHOLDS if gate not in _OF_ALL),
    "preference_unpaired": _OF_ANY,
    "reward_augmented": _OF_ANY,
    "refusal": _OF_ANY,
    "retrieval": _OF_ANY,
    ALL_DATASETS: _OF_ALL,
}
"""Dataset to the gates that can be measured on it."""

_OF_CHANGE: Final = ("shift", "change", "drift")
_CONTENT: Final = {
    "preference": ("prompt", "chosen", "rejected"),
    "preference_unpaired": ("prompt", "completion", "label"),
    "reward_augmented": ("prompt", "chosen", "rejected"),
    "refusal": ("messages",),
    "retrieval": ("anchor", "positive"),
}


class GateResult(NamedTuple):
    """One gate, measured on one dataset."""

    name: str
    dataset: str
    value: float | None
    """None where there was nothing to measure; the gate then passes."""
    threshold: float
    passed: bool
    blocking: bool
    """Whether a failure keeps the datasets from being published; otherwise it is a warning."""
    message: str

    @property
    def outcome(self) -> str:
        """passed, failed, warning or not measured: what people should read of it."""
        if not self.passed:
            return "failed" if self.blocking else "warning"
        return "passed" if self.value is not None else "not measured"


def check_gates(
    frames: Mapping[str, pl.DataFrame],
    thresholds: Mapping[str, float] | None = None,
    *,
    families: pl.DataFrame | None = None,
    categories: Sequence[str] = (),
    warn_only: Collection[str] = (),
    previous: Mapping[str, pl.DataFrame] | None = None,
    contaminated: pl.Series | None = None,
    truncated: pl.DataFrame | None = None,
) -> list[GateResult]:
    """Measure every gate on the datasets of a run.

    Args:
        frames: dataset name (a key of ``GATES_OF``) to rows.
        thresholds: gate to threshold, in place of :data:`DEFAULT_THRESHOLDS`.
        families: ``prompt_id``, ``family_id``: leakage is counted by family, by prompt without it.
        categories: those that the prompts have; each should be among the published rows.
        warn_only: gates whose failure does not block.
        previous: dataset to the rows that were published last, for the gates that watch for drift; a dataset
            without any passes them, and the result says that it is the first version.
        contaminated: identifiers of prompts that stand in an evaluation set; None where nobody looked.
        truncated: ``pair_id`` and ``truncated`` of the pairs whose chosen answer is known to be whole or cut off.

    Raises:
        RecipeError: when a threshold or ``warn_only`` names no gate.
    """
    for name in (*(thresholds or {}), *warn_only):
        if name not in DEFAULT_THRESHOLDS:
            raise RecipeError(
                f"gates: there is no gate {name!r}{closest(name, DEFAULT_THRESHOLDS)}; "
                f"there are {', '.join(DEFAULT_THRESHOLDS)}"
            )
    limits = {**DEFAULT_THRESHOLDS, **(thresholds or {})}
    results = []
    for dataset, frame in frames.items():
        measures = {name: measure(dataset, frame) for name, measure in _OF_ONE_DATASET.items()}
        if dataset == "preference":
            measures["max_truncated_chosen_rate"] = _truncated(frame, truncated)
        for name, measured in measures.items():
            if measured[0] is not None:
                blocking = name not in warn_only
                results.append(_result(name, dataset, measured, threshold=limits[name], blocking=blocking))
        before = (previous or {}).get(dataset)
        for name, compare in DRIFT.items():
            moved = (None, NOTHING_BEFORE) if before is None else compare(before, frame)
            results.append(_result(name, dataset, moved, threshold=limits[name], blocking=name not in warn_only))
    for name, measured in {
        "max_leaking_prompts": _leaking(frames, families),
        "max_empty_categories": _empty_categories(frames, categories),
        "max_contaminated_prompts": _contaminated(frames, contaminated),
    }.items():
        blocking = name not in warn_only
        results.append(_result(name, ALL_DATASETS, measured, threshold=limits[name], blocking=blocking))
    return results


def raise_if_blocked(results: Sequence[GateResult]) -> None:
    """Raise GateError naming every blocking gate that failed, if any did."""
    failed = [r.message for r in results if r.blocking and not r.passed]
    if failed:
        raise GateError(
            f"not published, {len(failed)} of {len(results)} gates failed: {'; '.join(failed)}. "
            f"What was published before stays. Look at the report, or change the thresholds under gates"
        )


def _rows(dataset: str, frame: pl.DataFrame) -> Measured:
    return float(frame.height), "rows"


def _ties(dataset: str, frame: pl.DataFrame) -> Measured:
    # A recipe may ask for a margin of 0 in some bands: ties are measured on the rewards themselves.
    column = "strength_mean" if "strength_mean" in frame.columns and frame["strength_mean"].count() else "margin"
    margins = frame[column].drop_nulls().drop_nans() if column in frame.columns else pl.Series(dtype=pl.Float64)
    return _share(int((margins == 0).sum()), len(margins)), "of the pairs with a margin have margin 0"


def _duplicates(dataset: str, frame: pl.DataFrame) -> Measured:
    columns = [c for c in _CONTENT.get(dataset, ()) if c in frame.columns]
    if not columns:
        return None, ""
    extra = frame.height - frame.select(columns).hash_rows(seed=1).n_unique()
    return _share(extra, frame.height), "of the rows repeat an earlier one"


def _chosen_refusals(dataset: str, frame: pl.DataFrame) -> Measured:
    if "chosen_refusal_class" not in frame.columns:
        return None, ""
    known = frame["chosen_refusal_class"].drop_nulls()
    refusing = int((known != "compliance").sum())
    return _share(refusing, len(known)), "of the chosen answers refuse, wholly or in part"


def _truncated(frame: pl.DataFrame, known: pl.DataFrame | None) -> Measured:
    """An answer that stops in the middle of a sentence teaches to stop there, whatever its reward."""
    if known is None or "pair_id" not in frame.columns:
        return None, ""
    cut = frame.select("pair_id").join(known, on="pair_id")["truncated"]
    return _share(int(cut.sum()), len(cut)), "of the chosen answers were cut off, at the most tokens or by a filter"


def _reward_length(dataset: str, frame: pl.DataFrame) -> Measured:
    """|Spearman| of margin and length difference in characters."""
    if not {"margin", "chosen", "rejected"} <= set(frame.columns):
        return None, ""

    def length(side: str) -> pl.Expr:
        return pl.col(side).list.eval(pl.element().struct.field("content").str.len_chars()).list.sum().cast(int)

    found = (
        frame.lazy()
        .select("margin", difference=length("chosen") - length("rejected"))
        .filter(pl.col("margin").is_finite())
        .collect()
    )
    if found.height < 3 or found["margin"].n_unique() < 2 or found["difference"].n_unique() < 2:
        return None, ""
    value = found.select(pl.corr("margin", "difference", method="spearman").abs()).item()
    return float(value), "is the absolute rank correlation of reward margin and length difference"


_OF_ONE_DATASET: Final[Mapping[str, Callable[[str, pl.DataFrame], Measured]]] = {
    "min_rows": _rows,
    "max_tie_rate": _ties,
    "max_duplicate_rate": _duplicates,
    "min_chosen_refusal_rate": _chosen_refusals,
    "max_chosen_refusal_rate": _chosen_refusals,
    "max_reward_length_correlation": _reward_length,
}


def _prompt_key(frame: pl.DataFrame) -> str:
    """The anchors of a retrieval dataset are prompts too."""
    return "prompt_id" if "prompt_id" in frame.columns else "anchor_id"


def _leaking(frames: Mapping[str, pl.DataFrame], families: pl.DataFrame | None) -> Measured:
    """Prompts, or families of prompts, with rows in more than one split of any of the datasets."""
    keyed = []
    for frame in frames.values():
        keyed.append(frame.lazy().select(pl.col(_prompt_key(frame)).alias("prompt_id"), "split").unique())
    if not keyed:
        return 0.0, "prompts are in more than one split"
    splits = pl.concat(keyed)
    group, unit = pl.col("prompt_id"), "prompts are in more than one split"
    if families is not None:
        splits = splits.join(families.lazy().select("prompt_id", "family_id"), on="prompt_id", how="left")
        group, unit = pl.coalesce("family_id", "prompt_id"), "families of prompts are in more than one split"
    leaking = splits.group_by(group.alias("group")).agg(n=pl.col("split").n_unique()).filter(pl.col("n") > 1)
    return float(leaking.select(pl.len()).collect().item()), unit


def _empty_categories(frames: Mapping[str, pl.DataFrame], categories: Sequence[str]) -> Measured:
    having = [frame["category"] for frame in frames.values() if "category" in frame.columns]
    if not categories or not having:
        return None, "categories of the prompts have no published row"
    published = set(pl.concat(having).unique())
    missing = sorted(set(categories) - published)
    names = f" ({', '.join(missing[:5])}{', …' if len(missing) > 5 else ''})" if missing else ""
    unit = "category of the prompts has" if len(missing) == 1 else "categories of the prompts have"
    return float(len(missing)), f"{unit} no published row{names}"


def _contaminated(frames: Mapping[str, pl.DataFrame], found: pl.Series | None) -> Measured:
    """Published prompts that stand in an evaluation set."""
    if found is None:
        return None, "the recipe names no evaluation sets"
    prompts = [frame[_prompt_key(frame)].alias("prompt_id") for frame in frames.values()]
    if not prompts:
        return None, "no dataset has prompts"
    both = pl.concat(prompts).unique().is_in(found.implode())
    return float(both.sum()), "published prompts stand in an evaluation set"


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _result(name: str, dataset: str, measured: Measured, *, threshold: float, blocking: bool) -> GateResult:
    value, unit = measured
    at_least = name.startswith("min_")
    about = "all datasets" if dataset == ALL_DATASETS else dataset
    if value is None:
        message = f"{about}: {name}: nothing to measure" + (f", {unit}" if unit else "")
        return GateResult(name, dataset, None, threshold, True, blocking, message)
    passed = value >= threshold if at_least else value <= threshold
    bound = "at least" if at_least else "at most"
    by = "" if passed else f", {_number(abs(value - threshold), name)} too {'few' if at_least else 'many'}"
    if any(word in name for word in ("rate", "correlation", *_OF_CHANGE)):
        by = by.replace("few", "low").replace("many", "high")
    shown, limit = _number(value, name), _number(threshold, name)
    message = f"{about}: {name}: {shown} {unit}; allowed is {bound} {limit}{by}"
    return GateResult(name, dataset, value, threshold, passed, blocking, message)


def _number(value: float, name: str) -> str:
    if any(word in name for word in ("rate", "shift", "change")):
        return f"{value:.2%}" if value == 0 or abs(value) >= 0.0001 else f"{value:.1e}"
    return (
        f"{value:,.0f}"
        if float(value).is_integer() and not {"correlation", "drift"} & set(name.split("_"))
        else f"{value:.3f}"
    )
