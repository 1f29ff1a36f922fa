"""Writes to the registry, with what will be true once they are confirmed.

Pure functions of the state. Each proposal becomes one multi that also checks the coordinator epoch; it
names the version of all that it replaces, so that versions after it are known before it is sent. The
caller keeps one proposal in flight at a time.
"""

from __future__ import annotations

import enum
from typing import Final

import attrs

from flussd.core.coordinator import layout
from flussd.core.coordinator.changes import (
    Change,
    GroupErased,
    RecordErased,
    RecordSet,
    ServerGone,
)
from flussd.core.coordinator.elections import first_record, successor
from flussd.core.coordinator.state import State
from flussd.core.registry.messages import Create, Delete, SetData, Write

WRITES_MAX: Final = 128
"""Bucket records written by one multi: 2 to 3 ms of work, and 50 KiB of the 1 MiB that ZooKeeper allows."""

BUCKETS_MADE_MAX: Final = WRITES_MAX // 2
"""Each takes two writes, its folder and its record; so does erasing."""

GROUPS_ERASED_MAX: Final = 80
"""Each takes three writes."""


class Why(enum.Enum):
    """What a proposal is for."""

    DECREE = "a tablet server does not answer"
    ELECT = "buckets have the wrong leader"
    DDL = "a client asked for it"
    AUTO = "a table makes and drops partitions by itself"
    MAKE = "buckets have no record yet"
    EXPIRE = "registered offsets are too old"
    ERASE = "dropped buckets are deleted everywhere"


@attrs.frozen
class Proposal:
    """*writes* make *changes* true; *subject* is the number of a DDL request, or a server's id."""

    why: Why
    writes: tuple[Write, ...]
    changes: tuple[Change, ...]
    subject: int = -1


def decree(state: State, server_id: int, epoch: int) -> Proposal:
    """Take a server's registration away, and the leadership of (the first of) its buckets."""
    registration = state.servers[server_id]
    others = {known: one for known, one in state.servers.items() if known != server_id}
    writes: list[Write] = [Delete(layout.server_path(server_id), registration.version)]
    changes: list[Change] = [ServerGone(server_id, registration.incarnation)]
    for key in list(state.hosted.get(server_id, ()))[:WRITES_MAX]:
        record = state.catalog.bucket(key)
        assert record is not None
        if record.leader_id == server_id:
            _set_record(state, RecordSet(successor(record, others, epoch), 0), writes, changes)
    return Proposal(Why.DECREE, tuple(writes), tuple(changes), server_id)


def elect(state: State, epoch: int) -> Proposal:
    """Give (the first of) the buckets with a wrong leader the right one."""
    writes: list[Write] = []
    changes: list[Change] = []
    for key in list(state.unelected)[:WRITES_MAX]:
        record = state.catalog.bucket(key)
        assert record is not None
        _set_record(state, RecordSet(successor(record, state.servers, epoch), 0), writes, changes)
    return Proposal(Why.ELECT, tuple(writes), tuple(changes))


def _set_record(state: State, to: RecordSet, writes: list[Write], changes: list[Change]) -> None:
    version = state.versions[to.record.key]
    path, data = layout.record_path(to.record.key), layout.encode_record(to.record)
    writes.append(SetData(path, data, version))
    changes.append(RecordSet(to.record, version + 1))


def make_records(state: State, epoch: int) -> Proposal:
    """Make (the first of) the missing bucket records, of one table or partition after the other."""
    writes: list[Write] = []
    changes: list[Change] = []
    for group in state.unmade:
        for bucket in state.missing_records(group, BUCKETS_MADE_MAX - len(changes)):
            key = (*group, bucket)
            record = first_record(key, state.assignments[group][bucket], state.servers, epoch)
            writes.append(Create(layout.bucket_path(key)))
            writes.append(Create(layout.record_path(key), layout.encode_record(record)))
            changes.append(RecordSet(record, 0))
        if len(changes) >= BUCKETS_MADE_MAX:
            break
    return Proposal(Why.MAKE, tuple(writes), tuple(changes))


def erase(state: State) -> Proposal | None:
    """Erase what nobody has a replica of: bucket records, then the rest of their table or partition."""
    if state.erasable:
        writes: list[Write] = []
        keys = list(state.erasable)[:BUCKETS_MADE_MAX]
        for key in keys:
            writes.append(Delete(layout.record_path(key), state.versions[key]))
            writes.append(Delete(layout.bucket_path(key)))
        return Proposal(Why.ERASE, tuple(writes), tuple([RecordErased(key) for key in keys]))
    gone = [group for group in state.tombstones if not state.record_count.get(group)]
    if not gone:
        return None
    writes = []
    for group in gone[:GROUPS_ERASED_MAX]:
        if group in state.assignments:  # else it was partitioned
            writes.append(Delete(layout.buckets_path(group)))
            writes.append(Delete(layout.assignment_path(group), 0))
        writes.append(Delete(layout.tombstone_path(group), 0))
    return Proposal(Why.ERASE, tuple(writes), tuple([GroupErased(g) for g in gone[:GROUPS_ERASED_MAX]]))
