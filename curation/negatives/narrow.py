"""The running k best of many queries, scanned in bfloat16 and decided in float32: exact, and several times faster.

Processors that multiply bfloat16 natively (AMX, AVX-512 BF16) do so up to ten times as fast as float32. A score so
computed is off by at most a bound that is known: what rounding took from the query, from the document, and from
the score. A document stays a candidate while its score plus its bound reaches the k-th best of the lower bounds;
candidates are then scored in float32. So nothing is lost, and nothing is approximate.

Where the processor has no such instructions, ``search`` scans in float32.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import cache
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from curation.negatives.inputs import Embeddings, Float32, Int64, blocks

__all__ = ["NarrowTops", "most_alike", "multiplies_bfloat16"]

_ROUNDING: Final = 1.01 * 2.0**-9
"""The greatest relative error of rounding a score to the nearest bfloat16."""
_SLACK: Final = 1e-4
"""More than float32 sums of some thousand products are off by, as a share of the vectors' lengths."""
_UNLIKE: Final = 0.02
"""More than all errors together, as a share of the vectors' lengths: no bound above it becomes negative."""
_GROUP: Final = 8
"""Documents of which the best score alone is compared first."""
_PADDED: Final = (64, 256)
"""Documents and queries of a product are made up to multiples of these: each new shape costs its preparation."""
_MANY: Final = 1 / 2
"""Share of a block's groups that may hold a candidate; beyond it, comparing in float32 at once is cheaper."""
_BUFFER_BYTES: Final = 2**28
_ENTRY_BYTES: Final = 12
_RESCORED_AT_ONCE: Final = 16_384


@cache
def multiplies_bfloat16() -> bool:
    """Whether this processor has instructions for products of bfloat16, and PyTorch uses them."""
    import torch

    checks = (getattr(torch.cpu, name, None) for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"))
    there: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return there and any(check is not None and check() for check in checks)


def most_alike(vectors: Float32, centroids: Any) -> tuple[Int64, Float32]:
    """For each vector the most similar centroid and the score, both but for rounding to bfloat16.

    Args:
        vectors: (n, d).
        centroids: (c, d) bfloat16 tensor.
    """
    import torch

    scores = torch.from_numpy(np.ascontiguousarray(vectors)).to(torch.bfloat16) @ centroids.t()
    own = scores.view(torch.int16).numpy().argmax(axis=1)
    best = scores[torch.arange(len(own)), torch.from_numpy(own)].float().numpy()
    # Of negative floats the bits are in reverse order.
    below = np.flatnonzero(best < 0)
    if len(below):
        own[below] = (vectors[below] @ centroids.float().numpy().T).argmax(axis=1)
    return own, best


def _width(k: int) -> int:
    """How many candidates of a query are held: room for new ones beside the k best and the doubtful."""
    return 2 * k + 64


class _Scratch:
    """Memory for the scores of a block, used again for every block of one thread."""

    def __init__(self) -> None:
        import torch

        self._scores = torch.empty(0, dtype=torch.bfloat16)

    def scores(self, rows: int, columns: int) -> Any:
        """(rows, columns) bfloat16 with arbitrary content."""
        import torch

        if self._scores.numel() < rows * columns:
            self._scores = torch.empty(rows * columns, dtype=torch.bfloat16)
        return self._scores[: rows * columns].view(rows, columns)


class _Block(NamedTuple):
    """Documents that are shown to queries."""

    exact: Float32
    """(r, d)."""
    narrow: Any
    """(r or a little more, d) bfloat16."""
    lost: float
    """The greatest distance between a document and what is left of it in bfloat16."""
    length: float
    """Of the longest document; 1 but for integers."""
    ids: Int64
    """(r,) their corpus rows, rising."""

    def cut(self, rows: int) -> tuple[_Block, _Block]:
        """The first rows, and the others."""
        rest = self._replace(exact=self.exact[rows:], narrow=_padded(self.narrow[rows:]), ids=self.ids[rows:])
        return self._replace(exact=self.exact[:rows], narrow=self.narrow[:rows], ids=self.ids[:rows]), rest


class NarrowTops:
    """The running k best of n queries; see ``tops.Tops``."""

    documents_at_once = 2_048

    def __init__(self, queries: Embeddings, k: int) -> None:
        self.queries = np.ascontiguousarray(queries, dtype=np.float32)
        self._narrow, self._lost = _narrowed(self.queries)
        self._k, n, width = k, len(queries), _width(k)
        self._ids = np.full((n, width), -1, np.int32)
        self._low = np.full((n, width), -np.inf, np.float32)
        self._high = np.full((n, width), -np.inf, np.float32)
        self._counts = np.zeros(n, np.int64)
        self._limit = np.full(n, -np.inf, np.float32)
        """What the upper bound of a score must reach: the k-th best of the lower bounds so far."""
        self._documents: Float32 = np.empty((0, self.queries.shape[1]), np.float32)
        self._first = 0
        self._scratch = threading.local()

    @staticmethod
    def queries_at_once(k: int) -> int:
        """How many queries fit in the memory that candidates may take."""
        return max(1_024, _BUFFER_BYTES // (_ENTRY_BYTES * _width(k)))

    def open(self, documents: Float32, first: int) -> None:
        """Says which documents, from corpus row ``first`` on, the next blocks are from."""
        self._documents, self._first = documents, first

    def block(self, documents: Float32, ids: Int64) -> _Block:
        """Some of the open documents, and their corpus rows, ready to be shown."""
        narrow, lost = _narrowed(documents)
        length = float(np.sqrt(np.einsum("nd,nd->n", documents, documents).max(initial=0.0)))
        return _Block(documents, _padded(narrow), float(lost.max(initial=0.0)), length, ids)

    def add(self, who: Int64, block: _Block) -> None:
        """Shows a block of documents to some queries, each named once."""
        # What has no k candidates, or only unlike ones, has no bound that integers could be compared with.
        ready = self._limit[who] > _UNLIKE * block.length
        if not ready.all():
            self._add_wide(who[~ready], block)
            who = who[ready]
        if len(who):
            self._take(who, block, self._scores(who, block.narrow))

    def start(self, who: Int64, blocks: Sequence[_Block]) -> None:
        """As :meth:`add` of each block; many at once, so that few documents become candidates and go again."""
        import torch

        if not blocks:
            return

        first = blocks[0]._replace(
            lost=max(block.lost for block in blocks), length=max(block.length for block in blocks)
        )
        scores = self._scores(who, torch.cat([block.narrow for block in blocks]))
        best = _best_of_groups(scores)
        if len(best) >= self._k:
            last = len(best) - self._k
            least = np.partition(np.ascontiguousarray(best.T[: len(who)]), last, axis=1)[:, last]
            found = (np.maximum(least, 0).astype(np.int32) << 16).view(np.float32)
            bound = found - self._error(who, first) - found * np.float32(_ROUNDING)
            self._limit[who] = np.maximum(self._limit[who], np.where(least > 0, bound, -np.inf))
        ready = self._limit[who] > _UNLIKE * first.length
        at = 0
        for block in blocks:
            if ready.all():
                self._take(who, block, scores[at : at + len(block.narrow)])
            else:
                self.add(who, block)
            at += len(block.narrow)

    def _scores(self, who: Int64, documents: Any) -> Any:
        """(documents, queries and padding) bfloat16 products."""
        import torch

        padding = -len(who) % _PADDED[1]
        scores = self._scratch_of_thread().scores(len(documents), len(who) + padding)
        torch.mm(documents, self._narrow_of(who, padding).t(), out=scores)
        return scores

    def _take(self, who: Int64, block: _Block, scores: Any) -> None:
        """What may matter becomes a candidate; the rest is passed over by the group."""
        import torch

        # The order of positive floats is that of their bits as integers; negative ones are below them.
        bits = scores.view(torch.int16).numpy()
        bits[len(block.ids) :] = np.iinfo(np.int16).min
        least = np.pad(
            self._least_bits(who, block), (0, bits.shape[1] - len(who)), constant_values=np.iinfo(np.int16).max
        )
        hits = np.flatnonzero(_best_of_groups(scores) >= least)
        if len(hits) > _MANY * len(bits) / _GROUP * len(who):
            self._add_wide(who, block)
        elif len(hits):
            group, column = np.divmod(hits, len(least))
            members = bits.reshape(-1, _GROUP, len(least))[group, :, column]
            at, place = np.nonzero(members >= least[column][:, None])
            found = (members[at, place].astype(np.int32) << 16).view(np.float32)
            column = column[at]
            off = self._error(who[column], block) + np.abs(found) * np.float32(_ROUNDING)
            self._put(who, column, block, group[at] * _GROUP + place, found, off, wide=False)

    def _add_wide(self, who: Int64, block: _Block) -> None:
        """By float32 products: at first, and where bfloat16 cannot tell most of the documents apart."""
        if len(block.ids) < self._k:
            self._add_all(who, block)
            return
        scores, off = self.queries[who] @ block.exact.T, np.float32(_SLACK * block.length)
        last = len(block.ids) - self._k
        self._limit[who] = np.maximum(self._limit[who], np.partition(scores, last, axis=1)[:, last] - off)
        column, row = np.divmod(np.flatnonzero(scores >= self._limit[who][:, None] - off), len(block.ids))
        found = scores[column, row]
        self._put(who, column, block, row, found, np.broadcast_to(off, found.shape), wide=True)

    def _add_all(self, who: Int64, block: _Block) -> None:
        """Every document of a block becomes a candidate, as many at once as there is room for."""
        while len(block.ids):
            room = self._ids.shape[1] - int(self._counts[who].max())
            if room < self._k:
                crowded = who[self._counts[who] > self._k]
                self._decide(crowded)
                continue
            first, block = block.cut(room)
            scores = self.queries[who] @ first.exact.T
            off = np.float32(_SLACK * block.length)
            place = self._counts[who][:, None] + np.arange(scores.shape[1])
            self._ids[who[:, None], place] = first.ids
            self._low[who[:, None], place] = scores - off
            self._high[who[:, None], place] = scores + off
            self._counts[who] += scores.shape[1]
            self._compact(who)

    def settle(self, shard: slice) -> None:
        """Scores the candidates of the open documents in float32 and keeps the k best of each query."""
        size = max(1, _RESCORED_AT_ONCE // self._low.shape[1])
        for at in blocks(shard.stop - shard.start, size):
            who = np.arange(shard.start + at.start, shard.start + at.stop)
            self._compact(who)
            self._decide(who)

    def finish(self, rows: Int64, scores: Float32) -> None:
        """Writes the k best, sorted, to (n, k) arrays; everything must be settled."""
        k = min(self._k, self._ids.shape[1])
        rows[:, :k], scores[:, :k] = self._ids[:, :k], self._low[:, :k]

    def _narrow_of(self, who: Int64, padding: int) -> Any:
        """(w + padding, d): the queries, then the last one again and again."""
        import torch

        if not padding and int(who[-1]) - int(who[0]) + 1 == len(who):
            return self._narrow[int(who[0]) : int(who[-1]) + 1]
        return torch.index_select(self._narrow, 0, torch.from_numpy(np.pad(who, (0, padding), mode="edge")))

    def _scratch_of_thread(self) -> _Scratch:
        if not hasattr(self._scratch, "own"):
            self._scratch.own = _Scratch()
        own: _Scratch = self._scratch.own
        return own

    def _least_bits(self, who: Int64, block: _Block) -> npt.NDArray[np.int16]:
        """The bits of the least score whose upper bound reaches the limit, rounded down."""
        least = (self._limit[who] - self._error(who, block)) / (1 + _ROUNDING)
        bits: npt.NDArray[np.int16] = (np.maximum(least, 0).astype(np.float32).view(np.int32) >> 16).astype(
            np.int16
        )
        return bits

    def _error(self, who: Int64, block: _Block) -> Float32:
        """(w,) how far scores may be off before they are rounded: |xy − x̂ŷ| ≤ |x − x̂||y| + |x̂||y − ŷ|."""
        error: Float32 = self._lost[who] * np.float32(block.length) + np.float32(
            1.01 * block.lost + _SLACK * block.length
        )
        return error

    def _put(
        self, who: Int64, column: Int64, block: _Block, row: Int64, found: Float32, off: Float32, *, wide: bool
    ) -> None:
        """Adds candidates: query ``who[column]``, document ``row`` of the block, score, and its error."""
        new = np.bincount(column, minlength=len(who))
        full = np.flatnonzero(self._counts[who] + new > self._ids.shape[1])
        if len(full):
            self._compact(who[full])
            full = full[self._counts[who[full]] + new[full] > self._ids.shape[1]]
            if len(full):
                add_again = self._add_wide if new.max() > self._k and not wide else self._add_all
                add_again(who[full], block)
                stays = np.isin(column, full, invert=True)
                column, row, found, off = column[stays], row[stays], found[stays], off[stays]
        order = np.argsort(column.astype(np.uint16), kind="stable")
        column, row, found, off = column[order], row[order], found[order], off[order]
        new = np.bincount(column, minlength=len(who))
        query = who[column]
        place = self._counts[query] + np.arange(len(column)) - np.repeat(np.cumsum(new) - new, new)
        self._ids[query, place] = block.ids[row]
        self._low[query, place] = found - off
        self._high[query, place] = found + off
        self._counts[who] += new

    def _compact(self, who: Int64) -> None:
        """Raises the limits, and drops the candidates that cannot be among the k best."""
        widest = int(self._counts[who].max(initial=0))
        if not widest:
            return
        low, high, ids = self._low[who, :widest], self._high[who, :widest], self._ids[who, :widest]
        if widest >= self._k:
            last = widest - self._k
            self._limit[who] = np.maximum(self._limit[who], np.partition(low, last, axis=1)[:, last])
        keep = (high >= self._limit[who][:, None]) & (ids >= 0)
        self._replace(who, keep, ids, low, high)

    def _replace(self, who: Int64, keep: Any, ids: Any, low: Float32, high: Float32) -> None:
        """Puts what is kept, in its order, in place of all that the queries had."""
        widest = int(self._counts[who].max(initial=0))
        place = keep.cumsum(axis=1) - 1
        row, column = np.nonzero(keep)
        place, query = place[row, column], who[row]
        for array, values, empty in ((self._ids, ids, -1), (self._low, low, -np.inf), (self._high, high, -np.inf)):
            array[who, :widest] = empty
            array[query, place] = values[row, column]
        self._counts[who] = keep.sum(axis=1)

    def _decide(self, who: Int64) -> None:
        """Scores candidates in float32 and keeps the k best, sorted by score and row."""
        widest = int(self._counts[who].max(initial=0))
        if not widest:
            return
        ids, low, high = self._ids[who, :widest], self._low[who, :widest], self._high[who, :widest]
        documents = self._documents[np.where(low < high, ids - self._first, 0)]
        exact = np.einsum("nd,nkd->nk", self.queries[who], documents)
        low = np.where(low < high, exact, low)
        order = np.lexsort((ids, -low), axis=1)[:, : self._k]
        kept_ids, kept = np.take_along_axis(ids, order, axis=1), np.take_along_axis(low, order, axis=1)
        self._replace(who, kept_ids >= 0, kept_ids, kept, kept)
        if order.shape[1] == self._k:
            self._limit[who] = np.maximum(self._limit[who], kept[:, -1])


def _best_of_groups(scores: Any) -> npt.NDArray[np.int16]:
    """(groups, queries) the bits of the best score of each group of documents."""
    import torch

    bits = scores.view(torch.int16).numpy()
    best: npt.NDArray[np.int16] = np.maximum.reduce(bits.reshape(-1, _GROUP, bits.shape[1]), axis=1)
    return best


def _padded(narrow: Any) -> Any:
    import torch

    padding = -len(narrow) % _PADDED[0]
    return torch.nn.functional.pad(narrow, (0, 0, 0, padding)) if padding else narrow


def _narrowed(vectors: Float32) -> tuple[Any, Float32]:
    """(bfloat16 tensor, (n,) the length of what rounding took)."""
    import torch

    whole = torch.from_numpy(np.ascontiguousarray(vectors))
    narrow = whole.to(torch.bfloat16)
    lost = np.empty(len(vectors), np.float32)
    for part in blocks(len(vectors), 4_096):
        lost[part] = torch.linalg.vector_norm(whole[part] - narrow[part].float(), dim=1).numpy()
    return narrow, lost
