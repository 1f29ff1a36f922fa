"""Which batches of which writer a bucket has: duplicates get their old offsets, gaps are refused.

The window holds the last five batches of a writer, which is what a client keeps in flight, and all of
it is kept in checkpoints. Writers expire by log time, so every replica forgets at the same offset
(cluster-behaviour section 6, F6 and N-W4). States are immutable: undoing an append is putting the old
one back.
"""

from __future__ import annotations

import enum
from typing import Final, TypeAlias

import attrs

from flussd.core.limits import DEDUP_WINDOW_BATCHES, WRITER_EXPIRY_MS

SEQUENCE_MAX: Final = 2**31 - 1
NO_WRITER: Final = -1

Batch: TypeAlias = tuple[int, int, int]  # sequence, first offset, end offset
WriterState: TypeAlias = tuple[tuple[Batch, ...], int]  # the newest batches; last timestamp


class Verdict(enum.Enum):
    """What to do with a batch."""

    NEXT = "append it"
    DUPLICATE = "it is there already"
    OUT_OF_ORDER = "a batch before it is missing, or it is too old to be known"


def following(sequence: int) -> int:
    """Return the sequence after *sequence*; the last one is followed by 0."""
    return 0 if sequence == SEQUENCE_MAX else sequence + 1


@attrs.define(eq=False)
class Writers:
    """The writers of one bucket."""

    states: dict[int, WriterState] = attrs.Factory(dict)

    def judge(self, writer_id: int, sequence: int) -> tuple[Verdict, Batch | None]:
        """Tell what a leader does with a batch; for a duplicate, also which batch it repeats."""
        state = self.states.get(writer_id)
        if state is None:
            return (Verdict.NEXT if sequence == 0 else Verdict.OUT_OF_ORDER), None
        batches = state[0]
        if sequence == following(batches[-1][0]):
            return Verdict.NEXT, None
        for batch in batches:
            if batch[0] == sequence:
                return Verdict.DUPLICATE, batch
        return Verdict.OUT_OF_ORDER, None

    def expected(self, writer_id: int) -> int:
        """Return the sequence that would be taken next."""
        state = self.states.get(writer_id)
        return following(state[0][-1][0]) if state else 0

    def add(
        self, writer_id: int, sequence: int, first_offset: int, end_offset: int, timestamp_ms: int
    ) -> WriterState | None:
        """Note a batch that the log now has; return the writer's state before it."""
        before = self.states.get(writer_id)
        batches = before[0] if before else ()
        kept = (*batches[-DEDUP_WINDOW_BATCHES + 1 :], (sequence, first_offset, end_offset))
        self.states[writer_id] = (kept, timestamp_ms)
        return before

    def undo(self, writer_id: int, before: WriterState | None) -> None:
        """Put back what `add` returned; the newest additions first."""
        if before is None:
            del self.states[writer_id]
        else:
            self.states[writer_id] = before

    def expire(self, log_time_ms: int) -> None:
        """Forget who wrote nothing for seven days of log time."""
        limit_ms = log_time_ms - WRITER_EXPIRY_MS
        for writer_id in [w for w, (_, last_ms) in self.states.items() if last_ms < limit_ms]:
            del self.states[writer_id]

    def to_json(self) -> list[list[object]]:
        """Return the states for a checkpoint, by writer id."""
        return [
            [w, last_ms, [list(b) for b in batches]]
            for w, (batches, last_ms) in sorted(self.states.items())
        ]

    @classmethod
    def from_json(cls, told: list[list[object]]) -> Writers:
        """Return what `to_json` told."""
        states: dict[int, WriterState] = {}
        for writer_id, last_ms, batches in told:
            assert isinstance(writer_id, int)
            assert isinstance(last_ms, int)
            assert isinstance(batches, list)
            states[writer_id] = (tuple((s, f, e) for s, f, e in batches), last_ms)
        return cls(states)

    def clone(self) -> Writers:
        """Return a copy; states are immutable and shared."""
        return Writers(dict(self.states))
