"""The parts ``coconot`` and ``requests`` of ``refusals.py``: requests, by folds and with a source left out."""

from __future__ import annotations

import csv
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from _figures import FIGURES

from curation.embedded._refusals_requests import COMPLIED, WRITTEN, Request, fit_requests, labelled_requests
from curation.refusals.requests import REASONS, RequestModel, open_request_model

SAME = 0.8
"""Requests whose vectors are nearer than this stay on one side of a fold."""
SURE = 0.9
BEFORE = ("coconot_pref", COMPLIED, WRITTEN)
"""What the linear heads that were bundled before had not learned from."""
ALIKE = {"XSTest": ("xstest", "xstest"), "CoCoNot": ("coconot_contrast", "coconot_eval")}


class Found(NamedTuple):
    """Probabilities of n requests, NaN where they were not judged; reasons (n, 5)."""

    refuse: npt.NDArray[np.float64]
    alike: npt.NDArray[np.float64]
    reasons: npt.NDArray[np.float64]


def row(*cells: object) -> None:
    print("| " + " | ".join(str(cell) for cell in cells) + " |", flush=True)


def coconot(data: Path, folds: int = 5) -> None:
    """Refuse or answer, why, look-alikes; our own are in every fit and in no test. First with XSTest left out."""
    from curation.models.encoder import open_encoder

    requests = labelled_requests(data)
    vectors = open_encoder(max_length=64).encode([r.text for r in requests]).vectors
    names = np.array([r.source for r in requests])
    print(f"\nNothing to learn from is {SAME} or more like a request to judge (cosine of MiniLM's vectors).")
    left = [_apart(np.flatnonzero(names != "xstest"), np.flatnonzero(names == "xstest"), vectors)]
    splits = _splits(vectors, names)[:folds]
    for title, some in (("XSTest left out", left), (f"{folds} of 5 folds by prompt", splits)):
        if some:
            _table(
                f"linear heads, as bundled before; {title}",
                requests,
                names,
                _linear(requests, vectors, names, some),
            )
            found = _encoder(requests, some)
            _table(f"as bundled; {title}", requests, names, found, figures=len(some) == 5)


def ordinary(data: Path) -> None:
    """Dolly's closed questions, in no fit: what is thought of requests that nobody would refuse; load and speed."""
    started = time.perf_counter()
    model = open_request_model()
    model.score(["How do I bake bread?"])
    loaded = time.perf_counter() - started
    with next((data / "dolly").glob("*.csv")).open(encoding="utf-8", newline="") as file:
        texts = [line["instruction"] for line in csv.DictReader(file)]
    scores = model.score(texts)
    many = list(dict.fromkeys([*texts, *(request.text for request in labelled_requests(data))]))
    started = time.perf_counter()
    model.score(many)
    rate = len(many) / (time.perf_counter() - started)
    print(f"\nLoad and a first request {loaded:.2f} s; {rate:,.0f} requests a second ({len(many):,}).\n")
    row("Dolly, closed questions", "to refuse", f"surer than {SURE}", "look-alikes", "rows")
    row(*["---"] * 5)
    shares = [scores.refuse >= 0.5, scores.refuse >= SURE, scores.look_alike >= 0.5]
    row("as bundled", *(f"{100 * share.mean():.1f}" for share in shares), len(texts))
    FIGURES.add(
        "requests judged", rate, "requests/s", conditions=f"{len(many):,} requests of Dolly and of the sources"
    )


def _splits(
    vectors: npt.NDArray[np.float32], names: npt.NDArray[np.str_]
) -> list[tuple[npt.NDArray[np.int64], ...]]:
    """Five folds of the public requests, near ones together; our own are in the training part of each."""
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import connected_components
    from sklearn.model_selection import StratifiedGroupKFold

    public, ours = np.flatnonzero(names != WRITTEN), np.flatnonzero(names == WRITTEN)
    near = csr_matrix(vectors[public] @ vectors[public].T >= SAME)
    count, groups = connected_components(near, directed=False)
    print(f"{len(public):,} public requests in {count:,} groups of near ones, and {len(ours)} of our own.")
    folds = StratifiedGroupKFold(5, shuffle=True, random_state=0).split(public, names[public], groups)
    return [_apart(np.concatenate([public[train], ours]), public[test], vectors) for train, test in folds]


def _apart(
    train: npt.NDArray[np.int64], test: npt.NDArray[np.int64], vectors: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Without the requests to learn from that are nearly one of those to judge."""
    return train[(vectors[train] @ vectors[test].T).max(axis=1) < SAME], test


def _encoder(requests: Sequence[Request], splits: Sequence[tuple[npt.NDArray[np.int64], ...]]) -> Found:
    found = _nothing(len(requests))
    for train, test in splits:
        scores = RequestModel(fit_requests(requests, train.tolist())).score([requests[r].text for r in test])
        found.refuse[test], found.alike[test], found.reasons[test] = scores
    return found


def _linear(
    requests: Sequence[Request],
    vectors: npt.NDArray[np.float32],
    names: npt.NDArray[np.str_],
    splits: Sequence[tuple[npt.NDArray[np.int64], ...]],
) -> Found:
    """Balanced logistic regressions over MiniLM's vectors (C = 10), without ``BEFORE``."""
    from sklearn.linear_model import LogisticRegression

    found = _nothing(len(requests))
    reasons = np.array([-1 if r.reason is None else REASONS.index(r.reason) for r in requests])
    targets = [np.array([r.refuse for r in requests]), np.array([bool(r.look_alike) for r in requests])]
    for train, test in splits:
        rows = train[~np.isin(names[train], BEFORE)]
        told = rows[reasons[rows] >= 0]
        fits = [
            LogisticRegression(C=10.0, max_iter=2_000, class_weight="balanced").fit(vectors[some], target[some])
            for some, target in ((rows, targets[0]), (rows, targets[1]), (told, reasons))
        ]
        chances = [fit.predict_proba(vectors[test]) for fit in fits]
        found.refuse[test], found.alike[test] = chances[0][:, 1], chances[1][:, 1]
        found.reasons[test] = 0.0
        found.reasons[np.ix_(test, fits[2].classes_)] = chances[2]
    return found


def _nothing(rows: int) -> Found:
    return Found(np.full(rows, np.nan), np.full(rows, np.nan), np.full((rows, len(REASONS)), np.nan))


def _table(
    title: str, requests: Sequence[Request], names: npt.NDArray[np.str_], found: Found, *, figures: bool = False
) -> None:
    refuse = np.array([r.refuse for r in requests])
    print(f"\n### Requests: {title}, %\n")
    row("set", "refuse or answer", f"surer than {SURE}", "of these right", "reason", "rows")
    row(*["---"] * 6)
    for name in sorted(set(names)):
        mine = np.flatnonzero((names == name) & np.isfinite(found.refuse))
        if not len(mine):
            continue
        hits = (found.refuse[mine] >= 0.5) == refuse[mine]
        sure = np.maximum(found.refuse[mine], 1 - found.refuse[mine]) >= SURE
        told = [r for r in mine if requests[r].reason is not None]
        right = [REASONS[found.reasons[r].argmax()] == requests[r].reason for r in told]
        kept = f"{100 * hits[sure].mean():.1f}" if sure.any() else ""
        cells = [100 * hits.mean(), 100 * sure.mean()]
        why = f"{100 * np.mean(right):.1f}" if right else ""
        row(name, *(f"{c:.1f}" for c in cells), kept, why, len(mine))
        if figures:
            FIGURES.add(
                f"requests: refuse or answer, {name}", float(cells[0]), "%", conditions=f"5 folds, {len(mine)} rows"
            )
    _look_alikes(names, refuse, np.array([bool(r.look_alike) for r in requests]), found, figures=figures)


def _look_alikes(
    names: npt.NDArray[np.str_],
    refuse: npt.NDArray[np.int64],
    alike: npt.NDArray[np.bool_],
    found: Found,
    *,
    figures: bool,
) -> None:
    """How well look-alikes are told from requests to refuse, and from ordinary ones."""
    from sklearn.metrics import roc_auc_score

    judged = np.isfinite(found.alike)
    print()
    row("look-alikes of", "found", "against", "taken for look-alikes", "area under the curve", "rows")
    row(*["---"] * 6)
    for title, (good, bad) in ALIKE.items():
        for name, others in ((bad, refuse == 1), ("self_instruct", refuse == 0)):
            mine, other = judged & (names == good) & alike, judged & (names == name) & others
            if not mine.any() or not other.any():
                continue
            area = roc_auc_score(
                np.r_[np.ones(mine.sum()), np.zeros(other.sum())], np.r_[found.alike[mine], found.alike[other]]
            )
            told, taken = ((found.alike[rows] >= 0.5).mean() for rows in (mine, other))
            rows = f"{mine.sum()} and {other.sum()}"
            row(title, f"{100 * told:.1f}", name, f"{100 * taken:.1f}", f"{area:.3f}", rows)
            if figures:
                FIGURES.add(
                    f"look-alikes of {title} against {name}", float(area), "area under the curve",
                    conditions=f"5 folds, {mine.sum()} and {other.sum()} rows",
                )  # fmt: skip
