"""Databases, tables, partitions, nodes and bucket records, indexed for those who ask.

Both machines keep one: the coordinator from what the registry confirmed, a tablet server from what the
coordinator tells it. It never decides anything. An entry may come before what it belongs to (a bucket
before its table); a reader must bear that.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final

import attrs

from flussd.core.catalog import entries
from flussd.core.catalog.records import (
    NO_PARTITION,
    BucketKey,
    BucketRecord,
    ConfigsRecord,
    DatabaseRecord,
    NodeRecord,
    PartitionRecord,
    TablePath,
    TableRecord,
)

if TYPE_CHECKING:
    from flussd.core.wire import private

_HASH_MASK: Final = (1 << 128) - 1


@attrs.define(eq=False)
class Catalog:
    """Read its fields; change it through its methods alone."""

    coordinator: NodeRecord | None = None
    nodes: dict[int, NodeRecord] = attrs.Factory(dict)  # live tablet servers, by id
    databases: dict[str, DatabaseRecord] = attrs.Factory(dict)
    tables: dict[TablePath, TableRecord] = attrs.Factory(dict)
    buckets: dict[BucketKey, BucketRecord] = attrs.Factory(dict)
    names: dict[str, dict[str, None]] = attrs.Factory(dict)  # database -> names of its tables
    by_id: dict[int, TableRecord] = attrs.Factory(dict)
    partitions: dict[int, PartitionRecord] = attrs.Factory(dict)  # by partition id
    partition_names: dict[int, dict[str, int]] = attrs.Factory(dict)  # table id -> name -> id
    configs: ConfigsRecord = attrs.Factory(ConfigsRecord)
    _hash: int = attrs.Factory(lambda: _hash_of(ConfigsRecord()))  # sum of the hashes of all entries

    # ---- readers -------------------------------------------------------------------------------

    def bucket(self, key: BucketKey) -> BucketRecord | None:
        """Return the record of a bucket; None when it has none (yet)."""
        return self.buckets.get(key)

    def table_by_id(self, table_id: int) -> TableRecord | None:
        """Return a table that was not dropped."""
        return self.by_id.get(table_id)

    def table_names(self, database: str) -> list[str]:
        """Return the names of the tables of a database, sorted."""
        return sorted(self.names.get(database, ()))

    def table_count(self, database: str) -> int:
        """Return how many tables a database has."""
        return len(self.names.get(database, ()))

    def partitions_of(self, table_id: int) -> list[PartitionRecord]:
        """Return the partitions of a table, by name."""
        names = self.partition_names.get(table_id, {})
        return [self.partitions[names[name]] for name in sorted(names)]

    # ---- what the coordinator tells ------------------------------------------------------------

    def apply(self, update: private.UpdateCatalogRequest) -> None:
        """Take all entries of *update* in; the caller sees to snapshots and sequence numbers."""
        if update.HasField("coordinator"):
            self.put_coordinator(entries.node(update.coordinator))
        if update.configs_changed:
            self.put_configs(entries.configs(update.configs))
        if update.nodes_changed:
            self.put_nodes(entries.node(entry) for entry in update.nodes)
        for database in update.databases:
            if not database.dropped:
                self.put_database(entries.database(database))
        for table in update.tables:
            if table.dropped:
                self.drop_table(table.table_id)
            else:
                self.put_table(entries.table(table))
        for partition in update.partitions:
            if partition.dropped:
                self.drop_partition(partition.partition_id)
            else:
                self.put_partition(entries.partition(partition))
        for bucket in update.buckets:
            if bucket.dropped:
                self.drop_bucket(entries.key_of(bucket))
            else:
                self.put_bucket(entries.bucket(bucket))
        for database in update.databases:
            if database.dropped:
                self.drop_database(database.name)

    # ---- changes -------------------------------------------------------------------------------

    def put_coordinator(self, coordinator: NodeRecord) -> None:
        """The coordinator is *coordinator*."""
        self._exchange(self.coordinator, coordinator)
        self.coordinator = coordinator

    def put_nodes(self, nodes: Iterable[NodeRecord]) -> None:
        """*nodes* are all the live tablet servers there are."""
        for node in self.nodes.values():
            self._exchange(node, None)
        self.nodes = {node.server_id: node for node in sorted(nodes, key=lambda node: node.server_id)}
        for node in self.nodes.values():
            self._exchange(None, node)

    def put_configs(self, configs: ConfigsRecord) -> None:
        """The cluster configs are *configs*."""
        self._exchange(self.configs, configs)
        self.configs = configs

    def put_database(self, database: DatabaseRecord) -> None:
        """There is a database, or it changed."""
        self._exchange(self.databases.get(database.name), database)
        self.databases[database.name] = database

    def drop_database(self, name: str) -> None:
        """There is no such database; its tables are dropped each by itself."""
        self._exchange(self.databases.pop(name, None), None)

    def put_table(self, table: TableRecord) -> None:
        """There is a table, or it changed; another one of the same name is gone."""
        before = self.tables.get(table.path)
        if before is not None and before.table_id != table.table_id:
            self.drop_table(before.table_id)
            before = None
        self._exchange(before, table)
        self.tables[table.path] = self.by_id[table.table_id] = table
        self.names.setdefault(table.database, {})[table.name] = None

    def drop_table(self, table_id: int, *, with_buckets: bool = True) -> None:
        """There is no such table, nor any of its partitions; the caller may see to its buckets."""
        for partition in self.partitions_of(table_id):
            self.drop_partition(partition.partition_id)
        table = self.by_id.pop(table_id, None)
        if table is None:
            return
        self._exchange(table, None)
        del self.tables[table.path]
        names = self.names[table.database]
        del names[table.name]
        if not names:
            del self.names[table.database]
        for bucket in range(table.bucket_count if with_buckets else 0):
            self.drop_bucket((table_id, NO_PARTITION, bucket))

    def put_partition(self, partition: PartitionRecord) -> None:
        """There is a partition."""
        self._exchange(self.partitions.get(partition.partition_id), partition)
        self.partitions[partition.partition_id] = partition
        self.partition_names.setdefault(partition.table_id, {})[partition.name] = partition.partition_id

    def drop_partition(self, partition_id: int, *, with_buckets: bool = True) -> None:
        """There is no such partition; the caller may see to its buckets."""
        partition = self.partitions.pop(partition_id, None)
        if partition is None:
            return
        self._exchange(partition, None)
        names = self.partition_names[partition.table_id]
        if names.get(partition.name) == partition_id:  # else another one has the name already
            del names[partition.name]
        if not names:
            del self.partition_names[partition.table_id]
        for bucket in range(partition.bucket_count if with_buckets else 0):
            self.drop_bucket((*partition.group, bucket))

    def put_bucket(self, record: BucketRecord) -> None:
        """A bucket's record is made, or replaced."""
        self._exchange(self.buckets.get(record.key), record)
        self.buckets[record.key] = record

    def drop_bucket(self, key: BucketKey) -> None:
        """There is no such bucket."""
        self._exchange(self.buckets.pop(key, None), None)

    # ---- digest, clone, check ------------------------------------------------------------------

    def _exchange(self, before: Any, after: Any) -> None:
        if before is not None:
            self._hash -= _hash_of(before)
        if after is not None:
            self._hash += _hash_of(after)

    def digest(self) -> bytes:
        """Return a digest of all entries, kept up with each change."""
        return (self._hash & _HASH_MASK).to_bytes(16)

    def clone(self) -> Catalog:
        """Return a copy that shares nothing that changes."""
        names = {database: dict(tables) for database, tables in self.names.items()}
        return attrs.evolve(
            self,
            nodes=dict(self.nodes),
            databases=dict(self.databases),
            tables=dict(self.tables),
            buckets=dict(self.buckets),
            names=names,
            by_id=dict(self.by_id),
            partitions=dict(self.partitions),
            partition_names={table: dict(names) for table, names in self.partition_names.items()},
        )

    def check_all(self) -> None:
        """Assert that the indexes agree."""
        assert len(self.by_id) == len(self.tables) == sum(map(len, self.names.values()))
        for path, table in self.tables.items():
            assert self.by_id[table.table_id] is table
            assert table.path == path
            assert table.name in self.names[table.database]
        assert len(self.partitions) == sum(map(len, self.partition_names.values()))
        for partition_id, partition in self.partitions.items():
            assert partition_id == self.partition_names[partition.table_id][partition.name]
        for key, record in self.buckets.items():
            assert record.key == key
        everything = [
            *([self.coordinator] if self.coordinator else []),
            *self.nodes.values(),
            *self.databases.values(),
            *self.tables.values(),
            *self.partitions.values(),
            *self.buckets.values(),
            self.configs,
        ]
        assert sum(map(_hash_of, everything)) == self._hash


def _hash_of(record: Any) -> int:
    if isinstance(record, BucketRecord):
        return record.number
    return int.from_bytes(blake2b(repr(record).encode("utf-8", "surrogatepass"), digest_size=16).digest())
