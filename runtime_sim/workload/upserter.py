"""Clients of primary-key tables that write and that follow: puts by an idempotent writer, and changelogs.

An upserter is a writer in all but what its batches are: a put has records for few keys, some of them twice,
and names columns now and then. A follower is a reader of the batches that servers made of puts; who wrote
one is told by writer and sequence, and nobody did where a lookup inserted rows.
"""

from __future__ import annotations

from typing import Any, ClassVar

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
from flussd.runtime_sim.workload.writer import RETRIABLE, Lane, Writer


@attrs.define(eq=False, repr=False)
class Upserter(Writer):
    """One writer of one primary-key table."""

    API_KEY: ClassVar[ApiKey] = ApiKey.PUT_KV
    # A tablet server may not have heard of a schema that the coordinator told the client of.
    RETRIABLE: ClassVar[frozenset[ErrorCode]] = RETRIABLE | {ErrorCode.SCHEMA_NOT_EXIST}

    def _make(self, lane: Lane, identity: Identity) -> SentBatch:
        draws, spec = self.client.draws, self.table.spec
        assert isinstance(spec, KeyedSpec)
        schema_id = self._schema_id(lane)
        who, partition = f"{identity.client}.{identity.number}", lane.place.partition
        records = [
            drawn_record(draws, spec, schema_id, partition=partition, who=f"{who}.{n}")
            for n in range(draws.between(1, self.config.records_max))
        ]
        return make_put(
            spec,
            identity,
            tuple(records),
            targets=drawn_targets(draws, spec, len(spec.types(schema_id))),
            overwrites=draws.chance(OVERWRITE_PPM),
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
