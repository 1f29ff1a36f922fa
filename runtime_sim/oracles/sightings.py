"""What clients were told of the rows of a bucket; judged at the end, when its whole changelog is known.

Whatever is told at one moment is the fold of one beginning of the changelog. That ends no sooner than what
was known to be committed when the question was sent, and no later than the watermark had come when the
answer arrived. A sighting is worth nothing once the log lost what it was about; its ledger leaves it out.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from typing import Protocol

import attrs

from flussd.runtime_sim.oracles.violation import Oracle, Violation
from flussd.runtime_sim.workload.keyed_batches import Key, Row

Rows = Mapping[Key, Row]


@attrs.frozen(eq=False)
class History:
    """The rows of a bucket after each batch of its changelog: those at *ends*[n] are *rows*[n]."""

    ends: Sequence[int]
    rows: Sequence[Rows]
    in_order: Sequence[Key]  # all keys, in the order of their bytes

    def between(self, least_offset: int, most_offset: int) -> Sequence[Rows]:
        """Return the rows at the last end up to *least_offset*, and at all after it up to *most_offset*."""
        return self.rows[self.first_at(least_offset) : bisect_right(self.ends, most_offset)]

    def first_at(self, offset: int) -> int:
        """Return the number of the last end up to *offset*."""
        return max(0, bisect_right(self.ends, offset) - 1)


class Seen(Protocol):
    """What was told: it knows whether rows agree with it."""

    def agrees(self, rows: Rows, history: History) -> bool:
        """Whether it can be told of *rows*."""


@attrs.frozen
class Values:
    """Rows of keys that were looked up; None: there is none."""

    values: tuple[tuple[Key, Row | None], ...]

    def agrees(self, rows: Rows, _: History) -> bool:
        """Whether each key has its row."""
        return all(same(rows.get(key), row) for key, row in self.values)


@attrs.frozen
class Run:
    """Rows in the order of their keys, of all that begin with *prefix*; up to *limit* of them if any."""

    values: tuple[Row, ...]
    prefix: tuple[int, ...] = ()
    limit: int | None = None

    def agrees(self, rows: Rows, history: History) -> bool:
        """Whether these are the first ones, and all of them unless there are more than wanted."""
        keys = [key for key in history.in_order if key in rows and key[: len(self.prefix)] == self.prefix]
        keys = keys[: self.limit]
        return len(keys) == len(self.values) and all(
            same(rows[key], row) for key, row in zip(keys, self.values, strict=True)
        )


@attrs.frozen
class Count:
    """How many rows there are."""

    count: int

    def agrees(self, rows: Rows, _: History) -> bool:
        """Whether there are so many."""
        return len(rows) == self.count


def same(one: Row | None, other: Row | None) -> bool:
    """Whether two rows are equal when the shorter one has nulls for columns that were added."""
    if one is None or other is None:
        return one is other
    length = max(len(one), len(other))
    return one + (None,) * (length - len(one)) == other + (None,) * (length - len(other))


@attrs.frozen
class Sighting:
    """*who* was told *seen* of rows at an offset of [*least*, *most*]; of a snapshot it was named."""

    who: str
    seen: Seen
    least_offset: int
    most_offset: int
    generation: int
    is_snapshot: bool = False

    def judge(self, name: str, history: History) -> None:
        """Look for the moment at which it was true."""
        if self.is_snapshot and self.least_offset not in history.ends:
            self._broken(Oracle.SCANS_ARE_SNAPSHOTS, name, history, "no batch ends there")
        moments = history.between(self.least_offset, self.most_offset)
        if any(self.seen.agrees(rows, history) for rows in moments):
            return
        first = history.first_at(self.least_offset)
        stop = first + len(moments)
        if self.is_snapshot:
            self._broken(Oracle.SCANS_ARE_SNAPSHOTS, name, history, self._moments(history))
        before = any(self.seen.agrees(rows, history) for rows in history.rows[:first])
        after = any(self.seen.agrees(rows, history) for rows in history.rows[stop:])
        oracle = Oracle.ROWS_ARE_THE_FOLD
        if before != after:
            oracle = Oracle.ROWS_ARE_FRESH if before else Oracle.ROWS_ARE_COMMITTED
        self._broken(oracle, name, history, self._moments(history))

    def _moments(self, history: History) -> str:
        ends = [
            end
            for end, rows in zip(history.ends, history.rows, strict=True)
            if self.seen.agrees(rows, history)
        ]
        return f"it is true at {ends}"

    def _broken(self, oracle: Oracle, name: str, history: History, text: str) -> None:
        at = bisect_left(history.ends, self.least_offset)
        rows = history.rows[min(at, len(history.rows) - 1)]
        window = f"at [{self.least_offset}, {self.most_offset}]"
        raise Violation(
            oracle, f"{name}: {self.who} got {self.seen} {window}: {text}; rows are {dict(rows)}"
        )
