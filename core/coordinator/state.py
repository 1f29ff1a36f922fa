"""What the coordinator knows to be true: the registry's content, and what follows from it.

`apply` is the only way in, at load and in live operation alike. Beside the facts it keeps the work that
they imply: buckets without a record, records that name the wrong leader, leaders that have not reported,
replicas to be deleted. Nothing here is decided, and nothing unconfirmed gets in.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from hashlib import blake2b
from typing import Any, Final, TypeAlias

import attrs

from flussd.core.catalog.catalog import Catalog
from flussd.core.catalog.records import (
    NO_LEADER,
    NO_PARTITION,
    BucketKey,
    BucketRecord,
    GroupKey,
    NodeRecord,
)
from flussd.core.coordinator import changes as ch
from flussd.core.coordinator.admin_records import RebalanceRecord, ServerTag, TagsRecord
from flussd.core.coordinator.elections import is_right
from flussd.core.coordinator.layout import Registration, Tombstone
from flussd.core.coordinator.producers import Producers

_HASH_MASK: Final = (1 << 128) - 1


class Kind(enum.IntEnum):
    """Of what a tablet server is to be told."""

    DATABASE = 0
    TABLE = 1
    BUCKET = 2
    DROP = 3  # to the servers that have a replica
    NODES = 4
    PARTITION = 5
    CONFIGS = 6


Item: TypeAlias = tuple[Kind, Any]  # (kind, what identifies it)


@attrs.frozen
class Mark:
    """Of a database's or a table's node: its version, and which changes made it and altered it last."""

    version: int
    change_id: str
    altered_by: str = ""


@attrs.define(eq=False)
class State:
    """Change it through apply() and the two reports; its fields are open to readers."""

    catalog: Catalog = attrs.Factory(Catalog)
    servers: dict[int, Registration] = attrs.Factory(dict)
    database_marks: dict[str, Mark] = attrs.Factory(dict)
    table_marks: dict[int, Mark] = attrs.Factory(dict)
    partition_marks: dict[int, str] = attrs.Factory(dict)  # partition id -> the change that made it
    assignments: dict[GroupKey, tuple[tuple[int, ...], ...]] = attrs.Factory(dict)
    versions: dict[BucketKey, int] = attrs.Factory(dict)  # of the records' nodes
    dropping: dict[BucketKey, BucketRecord] = attrs.Factory(dict)  # records of what is dropped
    tombstones: dict[GroupKey, Tombstone] = attrs.Factory(dict)
    next_table_id: int = 0
    table_ids_version: int = 0
    next_partition_id: int = 0
    partition_ids_version: int = 0
    configs_mark: tuple[int, str] = (-1, "")  # version, change id
    producers: Producers = attrs.Factory(Producers)
    tags: TagsRecord = attrs.Factory(TagsRecord)
    rebalance: RebalanceRecord | None = None  # the current or last one
    # What follows from the above:
    record_count: dict[GroupKey, int] = attrs.Factory(dict)  # records there are
    hosted: dict[int, dict[BucketKey, None]] = attrs.Factory(dict)  # server -> its live buckets
    unmade: dict[GroupKey, None] = attrs.Factory(dict)  # bucket records are not all made
    unelected: dict[BucketKey, None] = attrs.Factory(dict)  # records that name the wrong leader
    # Reports of the tablet servers, known only to this process:
    awaited: dict[GroupKey, dict[BucketKey, int]] = attrs.Factory(dict)  # leaders not heard of
    undeleted: dict[BucketKey, dict[int, None]] = attrs.Factory(dict)  # dropped -> servers to report
    deletable: dict[int, dict[BucketKey, None]] = attrs.Factory(dict)  # server -> dropped buckets
    closing: dict[GroupKey, int] = attrs.Factory(dict)  # dropped -> its first bucket to be seen to
    erasable: dict[BucketKey, None] = attrs.Factory(dict)  # dropped, and deleted everywhere
    change_number: int = 0
    items: list[Item] = attrs.Factory(list)  # changed since somebody last took them
    _hash: int = 0  # over records with their versions

    def apply(self, change: ch.Change) -> None:
        """Take in a fact that the registry confirmed."""
        self.change_number += 1
        _APPLY[type(change)](self, change)

    # ---- databases, tables, partitions ------------------------------------------------------------------

    def _database_made(self, change: ch.DatabaseMade) -> None:
        self.catalog.put_database(change.record)
        mark = Mark(change.version, change.change_id, change.altered_by)
        self.database_marks[change.record.name] = mark
        self.items.append((Kind.DATABASE, change.record.name))

    def _database_gone(self, change: ch.DatabaseGone) -> None:
        assert not self.catalog.table_count(change.name)
        self.catalog.drop_database(change.name)
        del self.database_marks[change.name]
        self.items.append((Kind.DATABASE, change.name))

    def _table_ids_moved(self, change: ch.TableIdsMoved) -> None:
        self.next_table_id, self.table_ids_version = change.next_id, change.version

    def _table_made(self, change: ch.TableMade) -> None:
        table = change.record
        self.catalog.put_table(table)
        self.table_marks[table.table_id] = Mark(change.version, change.change_id, change.altered_by)
        self.items.append((Kind.TABLE, (table.path, table.table_id)))

    def _partition_ids_moved(self, change: ch.PartitionIdsMoved) -> None:
        self.next_partition_id, self.partition_ids_version = change.next_id, change.version

    def _partition_made(self, change: ch.PartitionMade) -> None:
        self.catalog.put_partition(change.record)
        self.partition_marks[change.record.partition_id] = change.change_id
        self.items.append((Kind.PARTITION, change.record.group))

    def _assigned(self, change: ch.Assigned) -> None:
        self.assignments[change.group] = change.replicas
        self._count(change.group, 0)

    def _count(self, group: GroupKey, more: int) -> None:
        count = self.record_count.get(group, 0) + more
        self.record_count[group] = count
        if group not in self.tombstones and count < len(self.assignments[group]):
            self.unmade[group] = None
        else:
            self.unmade.pop(group, None)

    def _group_dropped(self, change: ch.GroupDropped) -> None:
        tombstone = change.tombstone
        group = tombstone.group
        table_id, partition_id = group
        self.tombstones[group] = tombstone
        self.unmade.pop(group, None)
        self.awaited.pop(group, None)
        if group in self.assignments:
            self.closing[group] = 0
        if partition_id != NO_PARTITION:
            self.catalog.drop_partition(partition_id, with_buckets=False)
            self.partition_marks.pop(partition_id, None)
            self.items.append((Kind.PARTITION, group))
            return
        assert table_id not in self.catalog.partition_names, "its partitions are dropped before it"
        self.catalog.drop_table(table_id, with_buckets=False)
        self.table_marks.pop(table_id, None)
        self.items.append((Kind.TABLE, (tombstone.path, table_id)))

    def close_some(self, count_max: int) -> None:
        """Begin to delete (the first of) the buckets of what was dropped, which follows from the drop."""
        for group in list(self.closing):
            first, end = self.closing[group], len(self.assignments[group])
            stop = min(end, first + count_max)
            for bucket in range(first, stop):
                record = self.catalog.bucket((*group, bucket))
                if record is not None:
                    self._begin_deletion(record)
            count_max -= stop - first
            self.closing[group] = stop
            if stop < end:
                return
            del self.closing[group]

    def _group_erased(self, change: ch.GroupErased) -> None:
        del self.tombstones[change.group]
        self.assignments.pop(change.group, None)
        self.record_count.pop(change.group, None)

    # ---- buckets -------------------------------------------------------------------------------

    def _record_set(self, change: ch.RecordSet) -> None:
        record = change.record
        key, group = record.key, record.key[:2]
        before = self.catalog.bucket(key) or self.dropping.get(key)
        self._exchange(before, self.versions.get(key), record, change.version)
        self.versions[key] = change.version
        if group in self.tombstones:
            self._count(group, 1)
            self._begin_deletion(record)
            return
        if before is None:
            self._count(group, 1)
            for server_id in record.replicas:
                self.hosted.setdefault(server_id, {})[key] = None
        self.catalog.put_bucket(record)
        self._look_at_leader(record)
        awaited = self.awaited.setdefault(group, {})
        if record.leader_id != NO_LEADER:
            awaited[key] = record.leader_epoch
        else:
            awaited.pop(key, None)
        if not awaited:
            del self.awaited[group]
        self.items.append((Kind.BUCKET, key))

    def _look_at_leader(self, record: BucketRecord) -> None:
        if is_right(record, self.servers):
            self.unelected.pop(record.key, None)
        else:
            self.unelected[record.key] = None

    def _begin_deletion(self, record: BucketRecord) -> None:
        key = record.key
        self.dropping[key] = record
        self.unelected.pop(key, None)
        self.catalog.drop_bucket(key)
        self.undeleted[key] = dict.fromkeys(record.replicas)
        for server_id in record.replicas:
            self.hosted.get(server_id, {}).pop(key, None)
            self.deletable.setdefault(server_id, {})[key] = None
        self.items.append((Kind.DROP, key))

    def _record_erased(self, change: ch.RecordErased) -> None:
        key = change.key
        record = self.dropping.pop(key)
        self._exchange(record, self.versions.pop(key), None, None)
        self._count(key[:2], -1)
        self.erasable.pop(key, None)
        for server_id in self.undeleted.pop(key, {}):
            self.deletable[server_id].pop(key, None)

    # ---- cluster configs -----------------------------------------------------------------------

    def _configs_set(self, change: ch.ConfigsSet) -> None:
        self.catalog.put_configs(attrs.evolve(self.catalog.configs, dynamic=change.configs))
        self.configs_mark = (change.version, change.change_id)
        self.items.append((Kind.CONFIGS, None))

    # ---- producers, tags, rebalance: no tablet server is told of them ---------------------------

    def _producer_registered(self, change: ch.ProducerRegistered) -> None:
        self.producers.put(change.record)

    def _producer_gone(self, change: ch.ProducerGone) -> None:
        self.producers.drop(change.producer_id)

    def _tags_set(self, change: ch.TagsSet) -> None:
        self.tags = change.record

    def _rebalance_set(self, change: ch.RebalanceSet) -> None:
        self.rebalance = change.record

    # ---- servers -------------------------------------------------------------------------------

    def _server_seen(self, change: ch.ServerSeen) -> None:
        self.servers[change.registration.server_id] = change.registration
        self._servers_changed(change.registration.server_id)

    def _server_gone(self, change: ch.ServerGone) -> None:
        known = self.servers.get(change.server_id)
        if known is not None and known.incarnation == change.incarnation:
            del self.servers[change.server_id]
            self._servers_changed(change.server_id)

    def _servers_changed(self, server_id: int) -> None:
        live = [
            NodeRecord(one.server_id, one.host, one.port, one.incarnation) for one in self.servers.values()
        ]
        self.catalog.put_nodes(live)
        self.items.append((Kind.NODES, None))
        for key in self.hosted.get(server_id, ()):
            record = self.catalog.bucket(key)
            assert record is not None
            self._look_at_leader(record)

    # ---- reports, which no registry knows ------------------------------------------------------

    def leading(self, key: BucketKey, epoch: int) -> None:
        """A server leads *key* in *epoch*, and takes writes."""
        awaited = self.awaited.get(key[:2], {})
        if awaited.get(key) == epoch:
            self.forget_awaited(key)

    def forget_awaited(self, key: BucketKey) -> None:
        """Wait no more for the leader of *key*: it is there, or in trouble."""
        awaited = self.awaited.get(key[:2], {})
        awaited.pop(key, None)
        if not awaited:
            self.awaited.pop(key[:2], None)

    def deleted(self, key: BucketKey, server_id: int) -> None:
        """A server has erased its replica of a dropped bucket."""
        left = self.undeleted.get(key)
        if left is None or server_id not in left:
            return  # told twice, or erased before
        del left[server_id]
        self.deletable[server_id].pop(key, None)
        if not left:
            self.erasable[key] = None

    # ---- readers -------------------------------------------------------------------------------

    def assignable(self) -> list[int]:
        """Return the servers that new replicas may live on, in order."""
        return sorted(s for s in self.servers if self.tags.of(s) is not ServerTag.PERMANENT_OFFLINE)

    def missing_records(self, group: GroupKey, count_max: int) -> list[int]:
        """Return the first buckets of a table or a partition that have no record."""
        buckets = range(len(self.assignments[group]))
        missing = (b for b in buckets if (*group, b) not in self.versions)
        return [bucket for bucket, _ in zip(missing, range(count_max), strict=False)]

    def is_led(self, table_id: int) -> bool:
        """Whether every bucket of a table is led, in all its partitions."""
        partitions = self.catalog.partition_names.get(table_id, {}).values()
        groups = [(table_id, partition_id) for partition_id in (NO_PARTITION, *partitions)]
        return all(self.is_group_led(group) for group in groups)

    def is_group_led(self, group: GroupKey) -> bool:
        """Whether every bucket has a record, a leader, and a leader that reported."""
        if group in self.unmade or group in self.awaited:
            return False
        for bucket in range(len(self.assignments.get(group, ()))):
            record = self.catalog.bucket((*group, bucket))
            if record is None or record.leader_id == NO_LEADER:
                return False
        return True

    def take_items(self) -> list[Item]:
        """Return what changed since the last call."""
        items, self.items = self.items, []
        return items

    # ---- digest, clone, check ------------------------------------------------------------------

    def _exchange(
        self, before: BucketRecord | None, old: int | None, after: BucketRecord | None, new: int | None
    ) -> None:
        if before is not None:
            self._hash -= _counted(before, old)
        if after is not None:
            self._hash += _counted(after, new)

    def digest(self) -> bytes:
        """Return a digest of the facts."""
        small = (
            sorted(self.servers.items()),
            sorted(self.database_marks.items()),
            sorted(self.table_marks.items()),
            sorted(self.tombstones.items()),
            sorted(self.partition_marks.items()),
            (self.next_table_id, self.table_ids_version, self._hash & _HASH_MASK),
            (self.next_partition_id, self.partition_ids_version),
            self.configs_mark,
            sorted(self.producers.by_id.items()),
            (self.tags, self.rebalance, list(self.closing.items())),
            (len(self.unmade), len(self.unelected), len(self.awaited), len(self.undeleted)),
        )
        return blake2b(self.catalog.digest() + repr(small).encode(), digest_size=16).digest()

    def clone(self) -> State:
        """Return a copy that shares nothing that changes."""
        copy = attrs.evolve(self, catalog=self.catalog.clone(), items=list(self.items))
        copy.producers = self.producers.clone()
        for field in attrs.fields(State):
            value = getattr(self, field.name)
            if isinstance(value, dict):
                setattr(copy, field.name, dict(value))
        for name in ("hosted", "awaited", "undeleted", "deletable"):
            setattr(copy, name, {key: dict(value) for key, value in getattr(self, name).items()})
        return copy

    def check_all(self) -> None:
        """Assert that facts and what follows from them agree."""
        self.catalog.check_all()
        self.producers.check_all()
        for table_id, partition_id in self.tombstones:
            assert partition_id not in self.catalog.partitions
            assert partition_id != NO_PARTITION or table_id not in self.catalog.by_id
        assert self.partition_marks.keys() == self.catalog.partitions.keys()
        for partition in self.catalog.partitions.values():
            assert partition.table_id in self.catalog.by_id
            assert len(self.assignments[partition.group]) == partition.bucket_count
        for group, replicas in self.assignments.items():
            keys = [(*group, bucket) for bucket in range(len(replicas))]
            count = sum(key in self.versions for key in keys)
            assert count == self.record_count[group]
            unmade = group not in self.tombstones and count < len(keys)
            assert unmade == (group in self.unmade)
        for key, record in self.catalog.buckets.items():
            assert is_right(record, self.servers) == (key not in self.unelected)
            assert all(key in self.hosted[server_id] for server_id in record.replicas)
        assert all(group in self.tombstones for group in self.closing)
        for key in self.dropping:
            assert key not in self.catalog.buckets
            assert key[:2] in self.tombstones
            assert bool(self.undeleted[key]) == (key not in self.erasable)
        known = [*self.catalog.buckets.values(), *self.dropping.values()]
        assert sum(_counted(one, self.versions[one.key]) for one in known) == self._hash


def _counted(record: BucketRecord, version: int | None) -> int:
    """Return a record's part in the digest; each version of its node has another factor, all odd."""
    assert version is not None
    return record.number * (2 * version + 1)


_APPLY: Final[dict[type, Callable[[State, Any], None]]] = {
    ch.DatabaseMade: State._database_made,
    ch.DatabaseGone: State._database_gone,
    ch.TableIdsMoved: State._table_ids_moved,
    ch.TableMade: State._table_made,
    ch.PartitionIdsMoved: State._partition_ids_moved,
    ch.PartitionMade: State._partition_made,
    ch.GroupDropped: State._group_dropped,
    ch.Assigned: State._assigned,
    ch.RecordSet: State._record_set,
    ch.RecordErased: State._record_erased,
    ch.GroupErased: State._group_erased,
    ch.ConfigsSet: State._configs_set,
    ch.ProducerRegistered: State._producer_registered,
    ch.ProducerGone: State._producer_gone,
    ch.TagsSet: State._tags_set,
    ch.RebalanceSet: State._rebalance_set,
    ch.ServerSeen: State._server_seen,
    ch.ServerGone: State._server_gone,
}
