"""The sparse and the dense index, against a plain list of batches."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from flussd.core.limits import INDEX_INTERVAL_BYTES
from flussd.core.log.index import DenseIndex, SparseIndex

batches = st.lists(
    st.tuples(st.integers(1, 9), st.integers(48, 90_000), st.integers(0, 3)), min_size=1, max_size=60
)


def _lay(drawn):
    """Return [(offset, end offset, position, size, timestamp)] of batches laid one after the other."""
    offset = position = timestamp = 0
    laid = []
    for count, size, later in drawn:
        timestamp += later
        laid.append((offset, offset + count, position, size, timestamp))
        offset, position = offset + count, position + size
    return laid


@given(batches)
def test_sparse_gives_a_near_boundary_before_every_offset(drawn):
    """It is a batch boundary, not behind the batch, and less than an interval and a batch away."""
    laid = _lay(drawn)
    index, before = SparseIndex(), -1
    for offset, _, position, _, timestamp in laid:
        index.note(offset, position, before)
        before = timestamp

    boundaries = {position for _, _, position, _, _ in laid}
    for first, end, position, _, _ in laid:
        for offset in (first, end - 1):
            found = index.before_offset(offset)
            assert found in boundaries
            assert found <= position
            passed = [size for _, _, p, size, _ in laid if found <= p < position]
            assert sum(passed[:-1]) <= INDEX_INTERVAL_BYTES + max(passed, default=0)


@given(batches, st.integers(-1, 200))
def test_sparse_never_starts_behind_the_first_batch_of_a_time(drawn, wanted):
    """No batch at the time or later lies before the boundary."""
    laid = _lay(drawn)
    index, before = SparseIndex(), -1
    for offset, _, position, _, timestamp in laid:
        index.note(offset, position, before)
        before = timestamp

    start = index.before_timestamp(wanted)
    assert all(timestamp < wanted for _, _, position, _, timestamp in laid if position < start)


@given(batches, st.integers(0, 10**7))
def test_dense_knows_every_batch_and_boundary(drawn, cut):
    """Offsets map to the position of their batch; boundaries are exact on both sides."""
    laid = _lay(drawn)
    end = laid[-1][2] + laid[-1][3]
    index = DenseIndex()
    for offset, _, position, _, _ in laid:
        index.add(offset, position)

    boundaries = [position for _, _, position, _, _ in laid] + [end]
    for first, end_offset, position, _, _ in laid:
        assert index.knows(first)
        assert position == index.at(first) == index.at(end_offset - 1)
    cut %= end + 1
    assert max(b for b in boundaries if b <= cut) == index.boundary(cut, end)
    if cut < end:
        assert min(b for b in boundaries if b > cut) == index.next_boundary(cut, end)


@given(batches, st.integers(0, 59))
def test_truncation_forgets_what_is_behind(drawn, n):
    """After a cut at a boundary, both indexes are what they were when the log was that long."""
    laid = _lay(drawn)
    kept = laid[: n % len(laid)]
    sparse, dense, short_sparse, short_dense = SparseIndex(), DenseIndex(), SparseIndex(), DenseIndex()
    for offset, _, position, _, timestamp in laid:
        sparse.note(offset, position, timestamp)
        dense.add(offset, position)
    for offset, _, position, _, timestamp in kept:
        short_sparse.note(offset, position, timestamp)
        short_dense.add(offset, position)

    cut = laid[len(kept)][2]
    sparse.truncate(cut)
    dense.truncate(cut)
    assert short_sparse.positions == sparse.positions
    assert short_sparse.offsets == sparse.offsets
    assert short_dense.offsets == dense.offsets
