"""Producer offsets: the first registration of an id is kept until it is deleted, or its time is over.

From a request to the write that does it, and what the coordinator deletes by itself. A registration whose
time is over is gone for everybody at that moment; that its node goes a little later is seen by nobody.
Flink's sinks register where they began, and find it again after a failure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from flussd.core.catalog.records import NO_PARTITION
from flussd.core.coordinator import changes as ch
from flussd.core.coordinator.admin_records import (
    PRODUCERS,
    Offsets,
    ProducerRecord,
    encode_producer,
    producer_path,
)
from flussd.core.coordinator.config import CoordinatorConfig
from flussd.core.coordinator.proposals import Proposal, Why
from flussd.core.coordinator.state import State
from flussd.core.records.names import check_producer_id
from flussd.core.records.refusal import Refused
from flussd.core.registry.messages import Create, Delete, Write
from flussd.core.wire import messages
from flussd.core.wire.errors import ErrorCode

if TYPE_CHECKING:
    from collections.abc import Iterable

    from flussd.core.coordinator.ddl import Ddl, Made

CREATED: Final = 0
EXISTED: Final = 1

TTL_MS: Final = 24 * 3_600_000
"""Of a registration that names none; upstream's `coordinator.producer-offsets.ttl`."""

PRODUCERS_MAX: Final = 10_000
"""Registrations at a time: each may be as large as a node of the registry."""

EXPIRED_MAX: Final = 100
"""Registrations deleted by one multi; the rest goes into the next."""

EXPIRES_MS_MAX: Final = 2**63 - 1
"""The last moment that the answer can name."""


def register(ddl: Ddl, state: State, _: CoordinatorConfig) -> Made | None:
    """Decide on REGISTER_PRODUCER_OFFSETS."""
    asked = ddl.message
    check_producer_id(asked.producer_id)
    known = state.producers.by_id.get(asked.producer_id)
    if known is not None and known.expires_ms > ddl.wall_ms:
        ddl.answer = messages.RegisterProducerOffsetsResponse(result=EXISTED)
        return None
    if known is None and len(state.producers.by_id) >= PRODUCERS_MAX:
        text = f"producer {asked.producer_id}: expected at most {PRODUCERS_MAX} registrations"
        raise Refused(ErrorCode.UNKNOWN_SERVER_ERROR, text)
    ddl.answer = messages.RegisterProducerOffsetsResponse(result=CREATED)
    ttl_ms = asked.ttl_ms if asked.HasField("ttl_ms") else TTL_MS
    expires_ms = min(ddl.wall_ms + ttl_ms, EXPIRES_MS_MAX)
    record = ProducerRecord(asked.producer_id, expires_ms, offsets_of(asked.table_offsets), ddl.change_id)
    path = producer_path(record.producer_id)
    writes: list[Write] = []
    changes: list[ch.Change] = []
    if known is not None:
        writes.append(Delete(path, 0))
        changes.append(ch.ProducerGone(record.producer_id))
    elif not state.producers.by_id:
        writes.append(Create(PRODUCERS))
    writes.append(Create(path, encode_producer(record)))
    return tuple(writes), (*changes, ch.ProducerRegistered(record))


def offsets_of(tables: Iterable[messages.PbProducerTableOffsets]) -> Offsets:
    """Return offsets in order, the last of each bucket; a table without any is left out."""
    found: dict[int, dict[tuple[int, int], int]] = {}
    for table in tables:
        for one in table.bucket_offsets:
            partition_id = one.partition_id if one.HasField("partition_id") else NO_PARTITION
            found.setdefault(table.table_id, {})[partition_id, one.bucket_id] = one.log_end_offset
    return tuple(
        (table_id, tuple((*key, offset) for key, offset in sorted(offsets.items())))
        for table_id, offsets in sorted(found.items())
    )


def delete(ddl: Ddl, state: State, _: CoordinatorConfig) -> Made | None:
    """Decide on DELETE_PRODUCER_OFFSETS."""
    producer_id = ddl.message.producer_id
    check_producer_id(producer_id)
    return deletion(state, [producer_id]) if producer_id in state.producers.by_id else None


def deletion(state: State, producer_ids: list[str]) -> Made:
    """Return how to delete registrations; the last one takes the parent with it."""
    writes: list[Write] = [Delete(producer_path(one), 0) for one in producer_ids]
    if len(producer_ids) == len(state.producers.by_id):
        writes.append(Delete(PRODUCERS))
    return tuple(writes), tuple([ch.ProducerGone(one) for one in producer_ids])


def expire(state: State, wall_ms: int) -> Proposal | None:
    """Return the deletion of (the first of) the registrations whose time is over."""
    ended = state.producers.ended(wall_ms, EXPIRED_MAX)
    return Proposal(Why.EXPIRE, *deletion(state, ended)) if ended else None


def get(
    state: State, asked: messages.GetProducerOffsetsRequest, wall_ms: int
) -> messages.GetProducerOffsetsResponse:
    """Answer GET_PRODUCER_OFFSETS: an empty message for an id that nobody registered."""
    check_producer_id(asked.producer_id)
    record = state.producers.by_id.get(asked.producer_id)
    response = messages.GetProducerOffsetsResponse()
    if record is None or record.expires_ms <= wall_ms:
        return response
    response.producer_id, response.expiration_time = record.producer_id, record.expires_ms
    for table_id, offsets in record.offsets:
        table = response.table_offsets.add(table_id=table_id)
        for partition_id, bucket, offset in offsets:
            told: Any = table.bucket_offsets.add(bucket_id=bucket, log_end_offset=offset)
            if partition_id != NO_PARTITION:
                told.partition_id = partition_id
    return response
