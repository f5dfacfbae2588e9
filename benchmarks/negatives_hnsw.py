"""HNSW beside the exact search and clusters: CPU seconds to search once, and recall.

    .venv/bin/python benchmarks/negatives_hnsw.py [--sizes 20000x20000 ...] [--k 51]

Embeddings as in ``negatives_speed.py``. CPU seconds of the process, which is what counts where the machine is
shared; one run of each. Nothing is written: the table is printed, and stands in docs/benchmarks/negatives.md.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch  # noqa: F401  whoever embedded has imported it
from negatives_speed import make_embeddings

from curation.negatives.index import search
from curation.negatives.search import exact_search

WAYS: tuple[dict[str, Any], ...] = (
    {"index": "flat"},
    {"index": "ivf"},
    {"index": "hnsw"},
    {"index": "hnsw", "storage": "float16"},
    {"index": "hnsw", "storage": "int8"},
)
TESTED = 500
"""Queries on which the recall is measured; another sample than the search's own."""


def measure(anchors: int, documents: int, k: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        make_embeddings(anchors, documents, "topics", Path(folder))
        queries, corpus = (np.load(Path(folder) / f"{name}.npy") for name in ("anchors", "corpus"))
    picked = np.sort(np.random.default_rng(99).choice(anchors, min(TESTED, anchors), replace=False))
    truth = exact_search(queries[picked], corpus, k)
    for way in WAYS:
        start = time.process_time()
        found = search(queries, corpus, k, **way)
        seconds = time.process_time() - start
        hits = [np.isin(t, f).mean() for t, f in zip(truth.rows, found.found.rows[picked], strict=True)]
        print(
            f"| {anchors:,} × {documents:,} | {seconds:.1f} | {np.mean(hits):.4f} | {found.recall:.4f} "
            f"| {found.method} |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", nargs="+", default=["20000x20000"])
    parser.add_argument("--k", type=int, default=51)
    options = parser.parse_args()
    print("| queries × documents | CPU s | recall | its own estimate | method |\n|---|--:|--:|--:|---|", flush=True)
    for size in options.sizes:
        anchors, documents = map(int, size.split("x"))
        measure(anchors, documents, options.k)


if __name__ == "__main__":
    main()
