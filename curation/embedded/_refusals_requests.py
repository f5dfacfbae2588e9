"""Fits the heads that judge requests. The heads are read in curation/refusals/requests.py."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from curation.refusals.requests import REASONS, REQUEST_WEIGHTS
from curation.refusals.taxonomy import open_taxonomy

__all__ = ["Request", "fit_heads", "labelled_requests", "save_heads"]

_C: Final = 10.0


class Request(NamedTuple):
    """One labelled request."""

    text: str
    source: str
    refuse: int
    look_alike: int
    reason: str | None
    """One of ``REASONS``; None where it should be answered or nobody said."""


def labelled_requests(data: Path) -> list[Request]:
    """CoCoNot's evaluation sets, XSTest's prompts, CatQA and the requests of self-instruct."""
    taxonomy = open_taxonomy("coconot")
    rows: list[Request] = []
    for line in _lines(data / "coconot/coconot_eval.jsonl"):
        row = json.loads(line)
        rows.append(Request(row["prompt"], "coconot_eval", 1, 0, taxonomy.name_of_label(row["category"])))
    for line in _lines(data / "coconot/coconot_contrast_eval.jsonl"):
        rows.append(Request(json.loads(line)["prompt"], "coconot_contrast", 0, 1, None))
    with (data / "xstest/xstest_prompts.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            unsafe = int(row["label"] == "unsafe")
            rows.append(Request(row["prompt"], "xstest", unsafe, 1 - unsafe, "safety" if unsafe else None))
    content = json.loads((data / "catqa/catqa_english.json").read_text(encoding="utf-8"))
    for parts in content.values():
        for questions in parts.values():
            rows += [Request(text, "catqa", 1, 0, "safety") for text in questions]
    for name in ("seed_tasks", "user_oriented_instructions"):
        for line in _lines(data / f"self_instruct/{name}.jsonl"):
            rows.append(Request(json.loads(line)["instruction"], "self_instruct", 0, 0, None))
    return [row for row in rows if row.text.strip()]


def _lines(path: Path) -> list[str]:
    return [line for line in path.read_text(encoding="utf-8").split("\n") if line]


def fit_heads(
    vectors: npt.NDArray[np.float32], requests: Sequence[Request], rows: Sequence[int]
) -> dict[str, npt.NDArray[np.float32]]:
    """``weights`` (dimension, 7) and ``bias`` (7,) fitted on ``rows``."""
    chosen = list(rows)
    x = vectors[chosen]
    refuse = np.array([requests[r].refuse for r in chosen])
    alike = np.array([requests[r].look_alike for r in chosen])
    heads = [_logistic(x, refuse), _logistic(x, alike)]
    told = [i for i, r in enumerate(chosen) if requests[r].reason is not None]
    reasons = np.array([REASONS.index(str(requests[chosen[i]].reason)) for i in told])
    several = _logistic(x[told], reasons)
    weights = np.concatenate([*(h.coef_ for h in heads), several.coef_]).T
    bias = np.concatenate([*(h.intercept_ for h in heads), several.intercept_])
    return {"weights": np.ascontiguousarray(weights, dtype=np.float32), "bias": bias.astype(np.float32)}


def _logistic(x: npt.NDArray[np.float32], y: npt.NDArray[Any]) -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=_C, max_iter=2_000, class_weight="balanced").fit(x, y)


def save_heads(heads: dict[str, npt.NDArray[np.float32]], folder: Path) -> None:
    """Write the heads."""
    from safetensors.numpy import save_file

    save_file(heads, folder / REQUEST_WEIGHTS)
