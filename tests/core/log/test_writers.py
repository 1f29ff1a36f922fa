"""Deduplication: what a leader does with each batch of an idempotent writer."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from flussd.core.limits import DEDUP_WINDOW_BATCHES, WRITER_EXPIRY_MS
from flussd.core.log.writers import SEQUENCE_MAX, Verdict, Writers


def _with(count: int) -> Writers:
    writers = Writers()
    for sequence in range(count):
        writers.add(7, sequence, 10 * sequence, 10 * sequence + 10, 1000 + sequence)
    return writers


def test_a_new_writer_begins_with_zero():
    """Any other first sequence is out of order."""
    writers = Writers()

    assert writers.judge(7, 0) == (Verdict.NEXT, None)
    assert writers.judge(7, 1) == (Verdict.OUT_OF_ORDER, None)


def test_the_window_knows_the_last_five():
    """A batch of the window is a duplicate with its old offsets; an older one is out of order."""
    writers = _with(8)

    assert DEDUP_WINDOW_BATCHES == 5
    for sequence in range(3, 8):
        assert (Verdict.DUPLICATE, (sequence, 10 * sequence, 10 * sequence + 10)) == writers.judge(
            7, sequence
        )
    assert writers.judge(7, 2) == (Verdict.OUT_OF_ORDER, None)
    assert writers.judge(7, 8) == (Verdict.NEXT, None)
    assert writers.judge(7, 9) == (Verdict.OUT_OF_ORDER, None)


def test_after_the_last_sequence_comes_zero():
    """Sequences wrap around after 2**31 - 1."""
    writers = Writers()
    writers.add(7, SEQUENCE_MAX, 0, 1, 0)

    assert writers.judge(7, 0) == (Verdict.NEXT, None)
    assert writers.expected(7) == 0


@given(st.integers(0, 9), st.integers(1, 9))
def test_undo_puts_back_what_was(kept, undone):
    """Additions undone in reverse order leave no trace."""
    writers, plain = _with(kept), _with(kept)
    before = []
    for sequence in range(kept, kept + undone):
        before.append(writers.add(7, sequence, 10 * sequence, 10 * sequence + 10, 1000 + sequence))
    for state in reversed(before):
        writers.undo(7, state)

    assert plain.states == writers.states


def test_writers_expire_by_log_time():
    """Seven days of log time without a batch; a day less is nothing."""
    writers = _with(1)

    writers.expire(1000 + WRITER_EXPIRY_MS)
    assert 7 in writers.states
    writers.expire(1001 + WRITER_EXPIRY_MS)
    assert 7 not in writers.states


def test_json_keeps_the_whole_window():
    """What a checkpoint holds is what there was."""
    writers = _with(8)

    assert writers.states == Writers.from_json(writers.to_json()).states
