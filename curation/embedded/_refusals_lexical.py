"""Fits the lexical heads of the refusal detector. The features are curation/refusals/lexical.py's."""

from __future__ import annotations

import json
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from curation.embedded._refusals_data import KINDS, Answer
from curation.refusals.lexical import cue_names, cues, load_lexicon, ngrams, phrases_in, read
from curation.refusals.lexical_model import LEXICAL_WEIGHTS, LEXICON, VOCABULARY, LexicalModel, sparse_row

__all__ = ["Features", "features", "fit_lexical", "save_lexical"]

_CUE_SCALE: Final = 0.3
_C: Final = 10.0
_MIN_DOCUMENTS: Final = 2


class Features(NamedTuple):
    """Counts and cues of n answers."""

    counts: list[Counter[str]]
    cues: npt.NDArray[np.float32]


def features(texts: Sequence[str], folder: Path) -> Features:
    """The lexical features of n answers."""
    lexicon = load_lexicon(folder / LEXICON)
    readings = [read(text) for text in texts]
    present = phrases_in(readings, lexicon)
    values = [cues(reading, lexicon, phrases) for reading, phrases in zip(readings, present, strict=True)]
    return Features([ngrams(reading) for reading in readings], np.stack(values))


class _Constant(NamedTuple):
    """A head that always says the same."""

    coef_: npt.NDArray[np.float64]
    intercept_: npt.NDArray[np.float64]


class _Design(NamedTuple):
    matrix: Any
    vocabulary: list[str]
    idf: npt.NDArray[np.float32]


def _design(given: Features, rows: Sequence[int]) -> _Design:
    documents: Counter[str] = Counter()
    for row in rows:
        documents.update(given.counts[row].keys())
    vocabulary = sorted(gram for gram, n in documents.items() if n >= _MIN_DOCUMENTS)
    idf = np.array([np.log((1 + len(rows)) / (1 + documents[g])) + 1 for g in vocabulary], dtype=np.float32)
    return _Design(_matrix(given, rows, vocabulary, idf), vocabulary, idf)


def _matrix(given: Features, rows: Sequence[int], vocabulary: Sequence[str], idf: npt.NDArray[np.float32]) -> Any:
    import scipy.sparse as sp

    place = {gram: column for column, gram in enumerate(vocabulary)}
    parts = [sparse_row(given.counts[row], place, idf) for row in rows]
    starts = np.cumsum([0, *(len(columns) for columns, _ in parts)])
    grams = sp.csr_matrix(
        (np.concatenate([v for _, v in parts]), np.concatenate([c for c, _ in parts]), starts),
        shape=(len(rows), len(vocabulary)),
    )
    return sp.hstack([grams, sp.csr_matrix(given.cues[list(rows)] * _CUE_SCALE)]).tocsr()


def _logistic(matrix: Any, target: npt.NDArray[Any], weights: npt.NDArray[Any] | None, c: float) -> Any:
    from sklearn.linear_model import LogisticRegression

    if len(np.unique(target)) < 2:  # a source that does not tell these two apart
        level = 0.0 if not len(target) else (5.0 if target[0] else -5.0)
        return _Constant(np.zeros((1, matrix.shape[1])), np.array([level]))
    model = LogisticRegression(C=c, solver="liblinear", random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return model.fit(matrix, target, sample_weight=weights)


def fit_lexical(
    answers: Sequence[Answer],
    given: Features,
    rows: Sequence[int],
    folder: Path,
    *,
    soft: npt.NDArray[np.float64] | None = None,
    weights: npt.NDArray[np.float64] | None = None,
    kinds_alone: Sequence[Answer] = (),
) -> LexicalModel:
    """Fit all heads on ``rows``.

    Args:
        answers: n labelled answers.
        given: their features.
        rows: which of them to learn from.
        folder: where the lexicon is.
        soft: (n,) a probability of refusal per answer to learn from in place of the label.
        weights: (n,) how much each answer counts.
        kinds_alone: more refusals, which teach the kinds and nothing else.
    """
    import scipy.sparse as sp

    rows = list(rows)
    design = _design(given, rows)
    weight = np.ones(len(rows)) if weights is None else weights[rows]
    target = np.array([answers[r].refusal for r in rows], dtype=float) if soft is None else soft[rows]
    doubled = sp.vstack([design.matrix, design.matrix]).tocsr()
    both = np.concatenate([np.ones(len(rows)), np.zeros(len(rows))])
    shares = np.concatenate([target, 1 - target]) * np.concatenate([weight, weight])
    keep = shares > 0
    heads = [_logistic(doubled[np.flatnonzero(keep)], both[keep], shares[keep], _C)]
    split = [i for i, r in enumerate(rows) if answers[r].refusal and answers[r].refusal_class is not None]
    partial = np.array([answers[rows[i]].refusal_class == "partial_refusal" for i in split])
    heads.append(_logistic(design.matrix[split], partial, None, _C / 3))
    told = [i for i, r in enumerate(rows) if answers[r].kind is not None]
    kinds = np.array([*(answers[rows[i]].kind for i in told), *(answer.kind for answer in kinds_alone)])
    known = design.matrix[told]
    if kinds_alone:
        more = features([answer.text for answer in kinds_alone], folder)
        known = sp.vstack([known, _matrix(more, range(len(kinds_alone)), design.vocabulary, design.idf)]).tocsr()
    for kind in KINDS:
        mine = kinds == kind
        counts = np.where(mine, 0.5 / max(1, mine.sum()), 0.5 / max(1, (~mine).sum()))
        heads.append(_logistic(known, mine, counts * len(kinds), _C / 3))
    return _model(design, heads, folder)


def _model(design: _Design, heads: Sequence[Any], folder: Path) -> LexicalModel:
    weights = np.stack([head.coef_[0] for head in heads], axis=1).astype(np.float32)
    size = len(design.vocabulary)
    return LexicalModel(
        lexicon=load_lexicon(folder / LEXICON),
        vocabulary=design.vocabulary,
        idf=design.idf,
        ngram_weights=np.ascontiguousarray(weights[:size]),
        cue_weights=np.ascontiguousarray(weights[size:]) * np.float32(_CUE_SCALE),
        bias=np.array([head.intercept_[0] for head in heads], dtype=np.float32),
    )


def save_lexical(model: LexicalModel, folder: Path) -> None:
    """Write vocabulary and weights."""
    from safetensors.numpy import save_file

    vocabulary, arrays = model.state()
    assert arrays["cue_weights"].shape[0] == len(cue_names(load_lexicon(folder / LEXICON)))
    (folder / VOCABULARY).write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
    save_file(arrays, folder / LEXICAL_WEIGHTS)
