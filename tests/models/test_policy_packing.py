"""The packed token tree: what it holds, and that every sequence can be read back from it."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from curation.models.policy.packing import Packed, pack

SEQUENCES = st.lists(
    st.lists(st.integers(0, 2), min_size=1, max_size=9).map(lambda ids: np.array(ids, dtype=np.int64)),
    min_size=1,
    max_size=8,
)


def prefixes(sequences: list[np.ndarray]) -> set[tuple[int, ...]]:
    return {tuple(s[:n].tolist()) for s in sequences for n in range(1, len(s) + 1)}


def seen_by(packed: Packed, segment: int) -> list[int]:
    """The token ids that the last token of a segment sees, its own last."""
    found = packed.segments[segment]
    places = [i for span in found.above for i in range(*span)] + list(range(found.start, found.stop))
    return packed.ids[places].tolist()


@given(SEQUENCES, st.integers(1, 4))
def test_every_sequence_can_be_read_back(sequences: list[np.ndarray], min_shared: int) -> None:
    packed = pack(sequences, min_shared=min_shared)
    for sequence, where in zip(sequences, packed.where, strict=True):
        assert packed.ids[where].tolist() == sequence.tolist()
        assert packed.positions[where].tolist() == list(range(len(sequence)))


@given(SEQUENCES)
def test_each_distinct_prefix_is_one_token(sequences: list[np.ndarray]) -> None:
    assert len(pack(sequences).ids) == len(prefixes(sequences))


@given(SEQUENCES, st.integers(1, 4))
def test_a_segment_sees_a_prefix_of_some_sequence(sequences: list[np.ndarray], min_shared: int) -> None:
    packed = pack(sequences, min_shared=min_shared)
    for i, segment in enumerate(packed.segments):
        seen = seen_by(packed, i)
        assert tuple(seen) in prefixes(sequences)
        assert segment.depth + segment.stop - segment.start == len(seen)


def test_segments_cover_the_row_once() -> None:
    packed = pack([np.array([1, 2, 3]), np.array([1, 2, 4]), np.array([5])])
    spans = [(s.start, s.stop) for s in packed.segments]
    assert sorted(i for span in spans for i in range(*span)) == list(range(len(packed.ids)))


def test_thousands_of_nested_prefixes_do_not_recurse() -> None:
    packed = pack([np.arange(n, dtype=np.int64) for n in range(1, 3000, 2)])
    assert len(packed.ids) == 2999
