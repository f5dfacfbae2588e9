"""Threads for search: one per shard of the queries, each with a BLAS and an OpenMP of one thread.

A matrix product of a cluster is small, so two products side by side use two cores better than one product
spread over both; and faiss, torch and numpy each bring an OpenMP of their own, which fight when each takes
all cores.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from curation.negatives.inputs import blocks

__all__ = ["default_threads", "over_shards"]


def default_threads() -> int:
    """``OMP_NUM_THREADS`` where it is set, else the cores this process may use."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdigit() and int(asked) > 0:
        return int(asked)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def over_shards(work: Callable[[slice], None], rows: int, *, threads: int | None = None) -> None:
    """Calls ``work`` with each of up to ``threads`` consecutive shards of ``range(rows)``, side by side."""
    import faiss
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    count = max(1, min(threads or default_threads(), rows))
    shards = list(blocks(rows, -(-rows // count))) if rows else []

    torch = sys.modules.get("torch")
    before = torch.get_num_threads() if torch else 1

    def one(shard: slice) -> None:
        faiss.omp_set_num_threads(1)  # of this thread alone
        if torch:
            torch.set_num_threads(1)
        work(shard)

    try:
        with threadpool_limits(limits=1, user_api="blas"), ThreadPoolExecutor(count) as pool:
            for done in [pool.submit(one, shard) for shard in shards]:
                done.result()
    finally:
        if torch:
            torch.set_num_threads(before)
