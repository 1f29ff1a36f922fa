"""Blocks of ids of auto-increment columns, taken from the counters of tables in the registry.

A counter belongs to a column of a table and is made and dropped with the table. It tells the last id of the
last block; a block is taken by a write of the version that was read. Ids need only be new: a block whose
write has an unknown outcome is lost, and so is what a bucket has left when it is led no more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs

from flussd.core.catalog.records import TableRecord
from flussd.core.registry.messages import (
    Answer,
    GetData,
    Multi,
    Operation,
    Outcome,
    RegistrySubmit,
    SetData,
)
from flussd.core.replica.events import BucketKey
from flussd.core.tablet.parked import Waiter
from flussd.core.wire.errors import ErrorCode

if TYPE_CHECKING:
    from flussd.core.tablet.tablet import TabletServer

RETRY_MS: Final = 200
"""Pause before the registry is asked again."""

COUNTER_BYTES: Final = 8


@attrs.define(eq=False)
class IdsRetry(Waiter):
    """Time to ask for ids of a bucket again."""

    key: BucketKey = (-1, -1, -1)


@attrs.frozen
class Asked:
    """An operation in flight: a read, or with *blocks* the write that takes them."""

    key: BucketKey
    blocks: tuple[tuple[int, int], ...] = ()


@attrs.define(eq=False)
class AutoIds:
    """Who wants ids, and what the registry was asked for them."""

    server: TabletServer
    wanted: dict[BucketKey, int] = attrs.Factory(dict)  # bucket -> how many ids it needs
    asked: dict[int, Asked] = attrs.Factory(dict)

    def want(self, key: BucketKey, count: int) -> None:
        """A bucket needs *count* more ids; puts are told when it has them."""
        is_new = key not in self.wanted
        self.wanted[key] = count
        if is_new:
            self._read(key)

    def _read(self, key: BucketKey) -> None:
        table = self.server.catalog.table_by_id(key[0])
        if key not in self.server.keyed.buckets or table is None:
            self._done(key)
        else:  # who leads has a session
            self._submit(Asked(key), GetData(counter_path(table)))

    def _submit(self, asked: Asked, operation: Operation) -> None:
        token = self.server.next_token()
        self.asked[token] = asked
        self.server.emit(RegistrySubmit(token, operation))

    def _later(self, key: BucketKey) -> None:
        self.server.retry_later(IdsRetry(-1, -1, self.server.now_ms + RETRY_MS, key=key))

    def retry(self, waiter: IdsRetry) -> None:
        """A pause is over."""
        self._read(waiter.key)

    def answered(self, token: int, answer: Answer) -> None:
        """The registry answered."""
        asked = self.asked.pop(token)
        if answer.outcome is Outcome.OK and not asked.blocks:
            self._take(asked.key, answer)
        elif answer.outcome is Outcome.OK:
            bucket = self.server.keyed.buckets.get(asked.key)
            if bucket is not None:
                for first, last in asked.blocks:
                    bucket.ids.add(first, last)
            self._done(asked.key)
        elif answer.outcome is Outcome.NOT_STORED:
            text = f"the registry cannot store the counter of ids: {answer.outcome.value}"
            self.wanted.pop(asked.key)
            self.server.puts.refuse_lacking(asked.key, ErrorCode.DISK_WRITE_LOCKED, text)
        elif answer.outcome is Outcome.BAD_VERSION:
            self._read(asked.key)  # another bucket took a block meanwhile
        else:
            self._later(asked.key)

    def _take(self, key: BucketKey, answer: Answer) -> None:
        table = self.server.catalog.table_by_id(key[0])
        if key not in self.server.keyed.buckets or table is None:
            self._done(key)
            return
        size = self.server.keyed.rules_of(key[0]).id_cache_size
        last = int.from_bytes(answer.data, "big", signed=True)
        blocks = blocks_of(last, size, self.wanted[key])
        data = blocks[-1][1].to_bytes(COUNTER_BYTES, "big", signed=True)
        assert answer.stat is not None
        write = SetData(counter_path(table), data, answer.stat.version)
        self._submit(Asked(key, blocks), Multi((write,)))

    def _done(self, key: BucketKey) -> None:
        self.wanted.pop(key)
        self.server.puts.got_ids(key)


def blocks_of(last: int, size: int, count: int) -> tuple[tuple[int, int], ...]:
    """Return (first, last) of the blocks of *size* ids behind *last* that have *count* ids.

    One of many ids stands for those that follow each other. Sizes below 1 are taken as upstream takes them:
    each block has one id, which is the same for ever, or falls.
    """
    if size >= 1:
        return ((last + 1, last + size * -(-count // size)),)
    return tuple([(last + n * size + 1, last + n * size + size) for n in range(count)])


def counter_path(table: TableRecord) -> str:
    """Return where the counter of a table with an auto-increment column is."""
    assert table.auto_increment_id is not None
    tables = f"/fluss/metadata/databases/{table.database}/tables"
    return f"{tables}/{table.name}/auto_inc/col_{table.auto_increment_id}"
