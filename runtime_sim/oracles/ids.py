"""Ids of auto-increment columns, as changelogs tell them: each is given once in the life of its table.

Blocks come from one counter of the table, so what a bucket or a partition got must never be seen in another
one, nor again in the same one after its leader, its server or the registry began anew. That holds for rows
which a power loss took as well: counters are durable, whatever the mode of the logs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import attrs

from flussd.core.records.batch import BatchHead
from flussd.core.replica.events import BucketKey
from flussd.runtime_sim.oracles.violation import Oracle, Violation


class Home(NamedTuple):
    """The row that has an id: the *n*-th that is inserted by the batch with this offset and checksum."""

    key: BucketKey
    base_offset: int
    crc: int
    n: int

    def __str__(self) -> str:
        return f"row {self.n} inserted at {self.base_offset} of bucket {self.key} ({self.crc:#010x})"


@attrs.define(eq=False, repr=False)
class TableIds:
    """All ids of one table that a reader saw given, dropped partitions included."""

    homes: dict[int, Home] = attrs.Factory(dict)

    def logged(self, key: BucketKey, head: BatchHead, ids: Sequence[Any]) -> None:
        """A batch that inserts rows with *ids* was read."""
        for n, one in enumerate(ids):
            home = Home(key, head.base_offset, head.crc, n)
            if one is None or one <= 0:
                raise Violation(Oracle.IDS_ARE_NEW, f"{home}: expected a positive id, got {one}")
            known = self.homes.setdefault(one, home)
            if known != home:
                raise Violation(Oracle.IDS_ARE_NEW, f"{home}: id {one} is that of {known}")
