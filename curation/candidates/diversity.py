"""Samples of one prompt that say nearly the same. Duplicates across prompts are in :mod:`curation.hygiene`."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl

from curation.errors import InputError
from curation.hygiene.shingles import shingle

__all__ = ["near_identical"]


def near_identical(answers: pl.DataFrame, *, threshold: float, ngram: int = 3) -> pl.Series:
    """For each answer the sample that it repeats, or null.

    An answer repeats a sample of the same prompt with a lower index that is kept itself when the Jaccard
    index of their sets of word n-grams (lower case, without punctuation but for signs: -3 is not 3, see
    :mod:`curation.hygiene.signs`) is at least ``threshold``. Of several
    such samples the lowest index is named. So of the answers that repeat nothing no two are this similar.

    Args:
        answers: ``prompt_id``, ``sample_index`` (distinct in a prompt), ``response``, in any order.
        threshold: in (0, 1]; 1 drops only answers with the same set of n-grams.
        ngram: words of an n-gram.

    Returns:
        (n,) Int64, named ``repeats``, in the order of the input.
    """
    if not 0 < threshold <= 1:
        raise InputError(
            f"the similarity of near-identical samples is {threshold}, expected more than 0, at most 1"
        )
    repeats: list[int | None] = [None] * answers.height
    if answers.is_empty():
        return pl.Series("repeats", repeats, dtype=pl.Int64)
    found = shingle(answers["response"], n=ngram)
    index = answers["sample_index"].to_numpy()
    rows = answers.select("prompt_id", "sample_index").with_row_index("row").sort("prompt_id", "sample_index")
    for group in rows.group_by("prompt_id", maintain_order=True).agg("row")["row"]:
        members = group.to_numpy()
        if members.size < 2:
            continue
        near = _similar(found.hashes, found.offsets, members, threshold)
        kept = np.ones(members.size, dtype=bool)
        for place in range(1, members.size):
            earlier = np.flatnonzero(near[place, :place] & kept[:place])
            if earlier.size:
                kept[place] = False
                repeats[members[place]] = int(index[members[earlier[0]]])
    return pl.Series("repeats", repeats, dtype=pl.Int64)


def _similar(
    hashes: npt.NDArray[np.uint64],
    offsets: npt.NDArray[np.int64],
    members: npt.NDArray[np.uint32],
    threshold: float,
) -> npt.NDArray[np.bool_]:
    """(k, k): whether the Jaccard index of two texts' n-gram sets reaches the threshold."""
    from scipy import sparse

    sets = [np.unique(hashes[offsets[row] : offsets[row + 1]]) for row in members]
    sizes = np.array([len(one) for one in sets], dtype=np.int64)
    _, columns = np.unique(np.concatenate(sets), return_inverse=True)
    starts = np.concatenate([[0], np.cumsum(sizes)])
    shape = (len(sets), int(columns.max()) + 1)
    matrix = sparse.csr_array((np.ones(len(columns), dtype=np.int32), columns, starts), shape=shape)
    shared = (matrix @ matrix.T).toarray()
    either = sizes[:, None] + sizes[None, :] - shared
    return np.asarray(shared >= threshold * either - 1e-9)
