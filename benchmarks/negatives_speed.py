"""Mining speed and memory beside sentence-transformers' mine_hard_negatives(use_faiss=True).

Same embeddings, same settings, each run in a process of its own, the two by turns; medians and the ratio
of each pair of runs. The peer is given ready embeddings through a model that looks them up, so that both
are timed on mining alone.

    .venv/bin/python benchmarks/negatives_speed.py [--sizes 50000x50000 20000x200000] [--repeats 3]
        [--data-kind topics|random] [--scratch DIR] [--phase all|make|time|recall]

Where the machine can be had alone only for minutes, give a ``--scratch`` folder and run the phases one by one:
``make`` the embeddings, ``time`` the two alone on the machine, then ``recall``, which prints the row. What was
measured is kept in the folder. ``--plot FILE.svg`` draws seconds against size from all of the folder's results.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from _figures import FIGURES, needs

DIMENSION = 384
SETTINGS: dict[str, Any] = {"num_negatives": 5, "range_max": 50, "relative_margin": 0.05}


def make_embeddings(anchors: int, documents: int, kind: str, folder: Path, seed: int = 0) -> None:
    """Unit vectors with topics (or none), a falling spectrum, and anchors near their positive."""
    rng = np.random.default_rng(seed)
    spectrum = np.arange(1, DIMENSION + 1, dtype=np.float32) ** -0.5
    if kind == "random":
        spectrum[:] = 1
    spectrum /= np.linalg.norm(spectrum)
    topics = rng.standard_normal((max(50, documents // 200), DIMENSION), dtype=np.float32) * spectrum
    corpus = np.lib.format.open_memmap(
        folder / "corpus.npy", mode="w+", dtype=np.float32, shape=(documents, DIMENSION)
    )
    for start in range(0, documents, 50_000):
        rows = min(50_000, documents - start)
        part = rng.standard_normal((rows, DIMENSION), dtype=np.float32) * spectrum
        if kind == "topics":
            part += topics[rng.integers(0, len(topics), rows)]
        corpus[start : start + rows] = part / np.linalg.norm(part, axis=1, keepdims=True)
    positives = (
        rng.permutation(documents)[:anchors] if anchors <= documents else rng.integers(0, documents, anchors)
    )
    vectors = corpus[positives] + 0.7 * rng.standard_normal((anchors, DIMENSION), dtype=np.float32) * spectrum
    np.save(folder / "anchors.npy", vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
    np.save(folder / "positives.npy", positives)
    corpus.flush()


class Lookup:
    """What sentence-transformers needs of a model, over ready embeddings."""

    device = "cpu"

    def __init__(self, anchors: Any, corpus: Any) -> None:
        self._anchors, self._corpus = anchors, corpus

    def get_embedding_dimension(self) -> int:
        return DIMENSION

    def encode_query(self, texts: list[str], **_: Any) -> Any:
        return self._anchors[: len(texts)]

    def encode_document(self, texts: list[str], **_: Any) -> Any:
        return self._corpus

    @staticmethod
    def similarity_pairwise(left: Any, right: Any) -> Any:
        import torch

        return (torch.as_tensor(left) * torch.as_tensor(right)).sum(dim=1)


def run_peer(folder: Path) -> dict[str, Any]:
    from datasets import Dataset, disable_progress_bars
    from sentence_transformers.util import mine_hard_negatives

    disable_progress_bars()
    anchors, corpus = np.load(folder / "anchors.npy"), np.load(folder / "corpus.npy")
    positives = np.load(folder / "positives.npy")
    data = Dataset.from_dict({"a": [f"a{i}" for i in range(len(anchors))], "p": [f"d{i}" for i in positives]})
    texts = [f"d{i}" for i in range(len(corpus))]
    start, cpu = time.perf_counter(), time.process_time()
    mined = mine_hard_negatives(
        data,
        Lookup(anchors, corpus),
        corpus=texts,
        use_faiss=True,
        verbose=False,
        output_format="n-tuple",
        **SETTINGS,
    )
    return {"seconds": time.perf_counter() - start, "cpu": time.process_time() - cpu, "rows": len(mined)}


def run_ours(folder: Path) -> dict[str, Any]:
    import torch  # noqa: F401  whoever embedded has imported it; the peer's import is not timed either

    from curation.negatives.mining import mine_hard_negatives

    anchors, corpus = np.load(folder / "anchors.npy"), np.load(folder / "corpus.npy")
    positives = np.load(folder / "positives.npy")
    start, cpu = time.perf_counter(), time.process_time()
    mined = mine_hard_negatives(
        anchor_embeddings=anchors, corpus_embeddings=corpus, positives=positives, **SETTINGS
    )
    return {
        "seconds": time.perf_counter() - start,
        "cpu": time.process_time() - cpu,
        "rows": int((mined.negatives >= 0).all(axis=1).sum()),
        "recall": mined.recall,
        "method": mined.method,
    }


def measure_recall(folder: Path) -> dict[str, Any]:
    """Recall@50 of our search on queries that its own tuning did not see, against faiss's flat index."""
    import faiss

    from curation.negatives.index import search

    anchors, corpus = np.load(folder / "anchors.npy"), np.load(folder / "corpus.npy")
    found = search(anchors, corpus, 51).found
    rows = np.random.default_rng(99).choice(len(anchors), min(1_000, len(anchors)), replace=False)
    _, truth = faiss.knn(anchors[rows], corpus, 50, metric=faiss.METRIC_INNER_PRODUCT)
    hits = [len(np.intersect1d(a[:50], b)) for a, b in zip(found.rows[rows], truth, strict=True)]
    return {"recall": float(np.mean(hits) / 50)}


def child(task: str, folder: Path) -> dict[str, Any]:
    out = subprocess.run(
        [sys.executable, __file__, "--child", task, "--scratch", str(folder)],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    answer: dict[str, Any] = json.loads(out.stdout.strip().splitlines()[-1])
    return answer


def phases(name: str, kind: str, repeats: int, phase: str, folder: Path) -> str | None:
    """One size, in the folder; the row of the table once the last phase has run."""
    folder.mkdir(parents=True, exist_ok=True)
    anchors, documents = map(int, name.split("x"))
    results = folder / "results.json"
    if phase in ("all", "make"):
        make_embeddings(anchors, documents, kind, folder)
    if phase in ("all", "time"):
        runs = [(child("peer", folder), child("ours", folder)) for _ in range(repeats)]
        results.write_text(json.dumps({"size": name, "kind": kind, "runs": runs}))
    if phase not in ("all", "recall"):
        return None
    measured = json.loads(results.read_text()) | child("recall", folder)
    results.write_text(json.dumps(measured))
    return row(measured)


def row(measured: dict[str, Any]) -> str:
    """A line of the table."""
    anchors, documents = map(int, measured["size"].split("x"))
    runs = measured["runs"]
    peer, ours = (
        {key: statistics.median(pair[side][key] for pair in runs) for key in ("seconds", "cpu", "memory")}
        for side in (0, 1)
    )
    ratio = statistics.median(b["seconds"] / a["seconds"] for a, b in runs)
    FIGURES.add(
        f"hard negatives, {anchors:,} x {documents:,}", ours["seconds"], "s", peer="sentence-transformers, faiss",
        peer_value=peer["seconds"], better="lower", ratio_at_least=8 if documents >= 1_000_000 else None,
        conditions=f"{len(runs)} runs each, by turns; 384 dimensions, embeddings ready",
    )  # fmt: skip
    given = f"{anchors:,} x {documents:,}, against the exact search"
    FIGURES.add("recall@50 of the search", measured["recall"], "share", at_least=0.99, conditions=given)
    return (
        f"| {anchors:,} × {documents:,} | {measured['kind']} | {len(runs)} | {peer['seconds']:.1f} "
        f"| {ours['seconds']:.1f} | **{ratio:.3f}** "
        f"| {ours['cpu'] / peer['cpu']:.2f} | {measured['recall']:.4f} | {runs[0][1]['method']} "
        f"| {peer['memory']:.2f} | {ours['memory']:.2f} | {ours['memory'] / peer['memory']:.2f} |"
    )


def plot(scratch: Path, file: Path) -> None:
    """Seconds against anchors × documents, both on logarithmic axes."""
    import altair as alt

    values = []
    for path in sorted(scratch.glob("*/results.json")):
        measured = json.loads(path.read_text())
        anchors, documents = map(int, measured["size"].split("x"))
        for side, who in ((0, "sentence-transformers, faiss"), (1, "ours")):
            seconds = statistics.median(pair[side]["seconds"] for pair in measured["runs"])
            label = f"{anchors // 1000}k × {documents // 1000}k: {seconds:.1f} s"
            values.append({"pairs": anchors * documents, "seconds": seconds, "who": who, "label": label})
    x = alt.X("pairs:Q", title="anchors × documents", scale=alt.Scale(type="log"), axis=alt.Axis(format=".0e"))
    y = alt.Y("seconds:Q", title="seconds on 2 cores", scale=alt.Scale(type="log"))
    base = alt.Chart(alt.Data(values=values)).encode(x=x, y=y, color=alt.Color("who:N", title=None))
    text = base.mark_text(align="right", dx=-8, dy=-6, fontSize=10).encode(text="label:N")
    alt.layer(base.mark_line(point=True), text).properties(width=520, height=320).save(str(file))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--sizes", nargs="*", default=["50000x50000", "20000x200000"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--data-kind", nargs="*", default=["topics"])
    parser.add_argument("--scratch", type=Path)
    parser.add_argument("--phase", choices=["all", "make", "time", "recall"], default="all")
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--data", help="not used: the embeddings are made here")
    parser.add_argument("--child", choices=["peer", "ours", "recall"])
    arguments = parser.parse_args()
    if arguments.child:
        tasks = {"peer": run_peer, "ours": run_ours, "recall": measure_recall}
        answer = tasks[arguments.child](arguments.scratch)
        answer["memory"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(json.dumps(answer))
        return
    if arguments.plot:
        plot(arguments.scratch, arguments.plot)
        return
    needs("sentence_transformers", install="pip install sentence-transformers")
    FIGURES.packages.extend(["sentence-transformers", "faiss-cpu"])
    packages = ", ".join(
        f"{name} {version(name)}" for name in ("sentence-transformers", "faiss-cpu", "numpy", "torch")
    )
    print(f"{packages}; Python {platform.python_version()}; {os.cpu_count()} cores\n")
    print(
        "| anchors × documents | embeddings | runs | peer s | ours s | ratio | CPU ratio | recall@50 | method "
        "| peer GB | ours GB | ratio |\n|---|---|---|---|---|---|---|---|---|---|---|---|"
    )
    for size in arguments.sizes:
        for kind in arguments.data_kind:
            with contextlib.ExitStack() as stack:
                own = arguments.scratch and arguments.scratch / f"{size}-{kind}"
                folder = own or Path(stack.enter_context(tempfile.TemporaryDirectory()))
                line = phases(size, kind, arguments.repeats, arguments.phase, folder)
                if line:
                    print(line, flush=True)


if __name__ == "__main__":
    main()
    FIGURES.write()
