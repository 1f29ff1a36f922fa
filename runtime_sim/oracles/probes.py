"""What clients were told of a log without seeing all of it; judged at the end, when all of it is known.

A probe is worth nothing once the log lost what it was about; its ledger leaves those out.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeAlias

import attrs

from flussd.core.records.batch import BatchHead
from flussd.runtime_sim.oracles.violation import Oracle, Violation
from flussd.runtime_sim.workload.rows import Values, Wanted


@attrs.frozen
class LeftOut:
    """A reader got nothing of the offsets [start, end): none of their rows is *wanted*."""

    who: str
    start_offset: int
    end_offset: int
    wanted: Wanted
    generation: int

    def judge(
        self, name: str, offsets: Sequence[int], in_log: Mapping[int, BatchHead], values: ValuesOf
    ) -> None:
        """Look at the batches that were left out."""
        first = bisect_left(offsets, self.start_offset)
        for offset in offsets[first : bisect_left(offsets, self.end_offset)]:
            head = in_log[offset]
            if offset + head.last_offset_delta >= self.end_offset:
                text = f"{name}: {self.who} was told to go on at {self.end_offset}, within {offset}"
                raise Violation(Oracle.FILTERS_KEEP_MATCHES, text)
            if self.wanted.matches(values(head)):
                text = f"{name}: {self.who} wants {self.wanted}, and did not get the batch at {offset}"
                raise Violation(Oracle.FILTERS_KEEP_MATCHES, text)


@attrs.frozen
class ByTime:
    """The first batch committed at *commit_ms* or later is at *offset*; *committed_offset* were there."""

    commit_ms: int
    offset: int
    committed_offset: int
    generation: int

    def judge(
        self, name: str, offsets: Sequence[int], in_log: Mapping[int, BatchHead], _: ValuesOf
    ) -> None:
        """Look at the batch before the offset, and at the one there; the times of all are in order."""
        n = bisect_left(offsets, self.offset)
        if n and (before := in_log[offsets[n - 1]]).commit_timestamp_ms >= self.commit_ms:
            text = f"{before.base_offset} is of {before.commit_timestamp_ms}"
            self._broken(name, text)
        if not offsets or not offsets[0] <= self.offset < self.committed_offset:
            return
        head = in_log.get(self.offset)
        if head is None or head.commit_timestamp_ms < self.commit_ms:
            self._broken(name, f"there is {head}")

    def _broken(self, name: str, text: str) -> None:
        told = f"{name}: the offset of time {self.commit_ms} is {self.offset}, and {text}"
        raise Violation(Oracle.TIMES_ARE_ORDERED, told)


Probe: TypeAlias = LeftOut | ByTime
ValuesOf: TypeAlias = Callable[[BatchHead], Values]


def judge_probes(
    name: str, probes: Iterable[Probe], in_log: Mapping[int, BatchHead], values: ValuesOf
) -> None:
    """Judge what was told of the log *name*, of which *in_log* has all batches by offset."""
    offsets = sorted(in_log)
    for probe in probes:
        probe.judge(name, offsets, in_log, values)
