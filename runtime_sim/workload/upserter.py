"""Clients of primary-key tables that write and that follow: puts by an idempotent writer, and changelogs.

An upserter is a writer in all but what its batches are: a put has records for few keys, some of them twice,
and names columns now and then. One that spreads writes to several buckets at a time, and puts into one
request what is about the same columns; each of its buckets is answered, and sent again, by itself.

A follower is a reader of the batches that servers made of puts; who wrote one is told by writer and
sequence, and nobody did where a lookup inserted rows.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final

import attrs

from flussd.core.records.batch import BatchHead
from flussd.core.wire import messages
from flussd.core.wire.apis import ApiKey
from flussd.core.wire.errors import ErrorCode
from flussd.runtime_sim.oracles.keyed import KeyedLedger
from flussd.runtime_sim.workload.batches import Identity, SentBatch
from flussd.runtime_sim.workload.keyed_batches import (
    OVERWRITE_PPM,
    SentPut,
    drawn_record,
    drawn_targets,
    make_put,
)
from flussd.runtime_sim.workload.keyed_tables import KeyedSpec
from flussd.runtime_sim.workload.reader import Cursor, Reader
from flussd.runtime_sim.workload.writer import IN_FLIGHT_MAX, RETRIABLE, Lane, Part, Writer

BESIDE_PPM: Final = 600_000
"""Chance of each other bucket to get a put, too, when one gets one."""


@attrs.define(eq=False, repr=False)
class Upserter(Writer):
    """One writer of one primary-key table."""

    API_KEY: ClassVar[ApiKey] = ApiKey.PUT_KV
    # A tablet server may not have heard of a schema that the coordinator told the client of.
    RETRIABLE: ClassVar[frozenset[ErrorCode]] = RETRIABLE | {ErrorCode.SCHEMA_NOT_EXIST}

    like: SentPut | None = None  # what is put now is about the columns that this put is about

    def _add(self, lane: Lane) -> None:
        super()._add(lane)
        if not self.config.spreads:
            return
        put = lane.open[-1]
        assert isinstance(put, SentPut)
        self.like = put
        for other in self.lanes:
            may_add = other is not lane and other.place == lane.place
            if may_add and len(other.open) < 2 * IN_FLIGHT_MAX and self.client.draws.chance(BESIDE_PPM):
                super()._add(other)
                self.client.world.after(0, self.pump, other)  # unless it goes with this one
        self.like = None

    def _parts(self, lane: Lane, run: list[SentBatch], address: str) -> list[Part]:
        parts = [(lane, run)]
        for other in self.lanes if self.config.spreads else ():
            put = self._next_put(other)
            is_there = other.place == lane.place and address == self._address_of(other)
            if other is not lane and is_there and put is not None and _shares(put, run[0]):
                parts.append((other, [put]))
        if len(parts) > 1:
            self.client.world.count("puts of several buckets")
        return parts

    def _address_of(self, lane: Lane) -> str | None:
        return self.client.leader_of(lane.place, lane.bucket)

    def _next_put(self, lane: Lane) -> SentBatch | None:
        """Return the put of a lane that is to be sent next, if it may be sent now."""
        if self.client.world.now_us < lane.not_before_us:
            return None
        return next((put for put in list(lane.open)[:IN_FLIGHT_MAX] if not put.is_sent), None)

    def _make(self, lane: Lane, identity: Identity) -> SentBatch:
        draws, spec, like = self.client.draws, self.table.spec, self.like
        assert isinstance(spec, KeyedSpec)
        schema_id = self._schema_id(lane) if like is None else like.schema_id
        who, partition = f"{identity.client}.{identity.number}", lane.place.partition
        records = [
            drawn_record(draws, spec, schema_id, partition=partition, who=f"{who}.{n}")
            for n in range(draws.between(1, self.config.records_max))
        ]
        if like is None:
            targets = drawn_targets(draws, spec, len(spec.types(schema_id)))
            overwrites = draws.chance(OVERWRITE_PPM)
        else:
            targets, overwrites = like.targets, like.overwrites
        return make_put(
            spec,
            identity,
            tuple(records),
            targets=targets,
            overwrites=overwrites,
            writer_id=lane.writer_id,
            sequence=lane.next_sequence,
            schema_id=schema_id,
            acks=self.config.acks,
            generation=lane.generation,
        )

    def _request(self, lane: Lane, run: list[SentBatch]) -> Any:
        (put,) = run
        assert isinstance(put, SentPut)
        return messages.PutKvRequest(
            acks=self.config.acks,
            table_id=lane.key[0],
            timeout_ms=self.config.timeout_ms,
            target_columns=put.targets,
            agg_mode=1 if put.overwrites else None,
        )

    @staticmethod
    def _offset_told(bucket: Any) -> int:
        return int(bucket.log_end_offset)


def _shares(one: SentBatch, other: SentBatch) -> bool:
    """Whether two puts are about the same columns, which is said once a request."""
    assert isinstance(one, SentPut)
    assert isinstance(other, SentPut)
    return (one.targets, one.overwrites) == (other.targets, other.overwrites)


@attrs.define(eq=False, repr=False)
class Follower(Reader):
    """One reader of the changelog of one primary-key table."""

    def _identity(self, cursor: Cursor, view: memoryview, head: BatchHead) -> Identity | None:  # noqa: ARG002
        assert isinstance(cursor.ledger, KeyedLedger)
        return cursor.ledger.identity_of(head)

    def _note(
        self, cursor: Cursor, identity: Identity, data: memoryview, head: BatchHead, generation: int
    ) -> None:
        assert isinstance(cursor.ledger, KeyedLedger)
        cursor.ledger.logged(head, identity, bytes(data), generation)
