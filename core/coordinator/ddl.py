"""Requests that change the catalog, and those that create and drop databases and tables.

From a request to the write that does it; partitions, alterations and configs have modules of their own.

`propose` checks a request against the state and returns a proposal, or None when there is nothing to do;
it is called again when an earlier proposal is known not to have been applied. Every proposal leaves a mark
in the registry (a change id, a table id), so that after an unknown outcome `was_applied` can tell from a
freshly loaded state what became of it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, ClassVar, Final, TypeAlias

import attrs

from flussd.core.catalog.lookups import database_of, table_of
from flussd.core.catalog.records import NO_PARTITION, DatabaseRecord, SchemaRecord, TableRecord
from flussd.core.coordinator import changes as ch
from flussd.core.coordinator import layout, producer_offsets, rebalance, server_tags
from flussd.core.coordinator.alter import alter_database, alter_table
from flussd.core.coordinator.cluster_configs import alter_cluster_configs
from flussd.core.coordinator.config import CoordinatorConfig
from flussd.core.coordinator.elections import assign
from flussd.core.coordinator.partitions import (
    PARTITIONS_DROPPED_MAX,
    check_zone,
    create_partition,
    drop_partition,
    drop_partitions,
)
from flussd.core.coordinator.proposals import Proposal, Why
from flussd.core.coordinator.state import State
from flussd.core.coordinator.tables import Described, describe
from flussd.core.records.descriptor import parse_database_descriptor
from flussd.core.records.names import check_database_name, check_table_path
from flussd.core.records.refusal import Refused
from flussd.core.registry.messages import Check, Create, Delete, SetData, Write
from flussd.core.wire import messages
from flussd.core.wire.apis import ApiKey
from flussd.core.wire.errors import ErrorCode

CASCADE_WRITES_MAX: Final = 200
"""When a multi that drops tables has this many writes, the rest goes into another."""

NOT_FOR_TABLETS: Final = frozenset(
    {
        ApiKey.REGISTER_PRODUCER_OFFSETS,
        ApiKey.DELETE_PRODUCER_OFFSETS,
        ApiKey.ADD_SERVER_TAG,
        ApiKey.REMOVE_SERVER_TAG,
        ApiKey.REBALANCE,
    }
)
"""What no tablet server is told of: these are answered once they are applied."""

Made: TypeAlias = tuple[tuple[Write, ...], tuple[ch.Change, ...]]


@attrs.define(eq=False)
class Ddl:
    """A request that changes the catalog; *connection* is -1 once its client has left."""

    serial: int
    connection: int
    request_id: int
    api_key: int
    message: Any
    wall_ms: int
    change_id: str = ""  # of the newest proposal
    table_id: int = -1  # that the newest proposal is about
    partition_id: int = -1
    answer: Any = None  # of success; None: the empty one
    proposed: bool = False  # a proposal was sent, and nothing has told that it was not applied

    # ---- deciding ------------------------------------------------------------------------------

    def propose(self, state: State, config: CoordinatorConfig, change_id: str) -> Proposal | None:
        """Return what to write; None when the request is fulfilled already.

        Raises:
            Refused: the request cannot be fulfilled.
        """
        self.change_id = change_id
        made = self.HANDLERS[self.api_key](self, state, config)
        self.proposed = made is not None
        if made is None:
            return None
        return Proposal(Why.DDL, made[0], made[1], self.serial)

    def was_applied(self, state: State) -> bool:
        """Tell from a freshly loaded *state* whether the newest proposal was applied."""
        if self.api_key in (ApiKey.CREATE_DATABASE, ApiKey.ALTER_DATABASE):
            mark = state.database_marks.get(self.message.database_name)
        elif self.api_key in (ApiKey.CREATE_TABLE, ApiKey.ALTER_TABLE):
            mark = state.table_marks.get(self.table_id)
        elif self.api_key == ApiKey.CREATE_PARTITION:
            return state.partition_marks.get(self.partition_id) == self.change_id
        elif self.api_key == ApiKey.ALTER_CLUSTER_CONFIGS:
            return state.configs_mark[1] == self.change_id
        elif self.api_key == ApiKey.REGISTER_PRODUCER_OFFSETS:
            record = state.producers.by_id.get(self.message.producer_id)
            return record is not None and record.change_id == self.change_id
        elif self.api_key in (ApiKey.ADD_SERVER_TAG, ApiKey.REMOVE_SERVER_TAG):
            return state.tags.change_id == self.change_id
        elif self.api_key == ApiKey.REBALANCE:
            return state.rebalance is not None and state.rebalance.change_id == self.change_id
        else:
            return self.is_fulfilled(state)
        return mark is not None and self.change_id in (mark.change_id, mark.altered_by)

    def is_fulfilled(self, state: State) -> bool:
        """Tell, after its proposal was applied, whether anything is left to do."""
        if self.api_key == ApiKey.DROP_DATABASE:
            return self.message.database_name not in state.catalog.databases
        if self.api_key == ApiKey.DROP_TABLE:
            return self.table_id not in state.catalog.by_id
        if self.api_key == ApiKey.DROP_PARTITION:
            return self.partition_id not in state.catalog.partitions
        if self.api_key == ApiKey.DELETE_PRODUCER_OFFSETS:
            return self.message.producer_id not in state.producers.by_id
        return True

    def is_led(self, state: State) -> bool:
        """Tell, after it was fulfilled, whether the buckets that it made have leaders."""
        if self.api_key == ApiKey.CREATE_TABLE:
            return state.is_led(self.table_id)
        return state.is_group_led((self.table_id, self.partition_id))

    @property
    def makes_buckets(self) -> bool:
        """Whether its answer waits for leaders."""
        return self.api_key in (ApiKey.CREATE_TABLE, ApiKey.CREATE_PARTITION)

    def response(self) -> Any:
        """Return the answer of success."""
        return messages.response_class(self.api_key)() if self.answer is None else self.answer

    @property
    def tells_tablets(self) -> bool:
        """Whether its answer waits until the tablet servers know."""
        return self.api_key not in NOT_FOR_TABLETS

    # ---- databases -----------------------------------------------------------------------------

    def _create_database(self, state: State, _: CoordinatorConfig) -> Made | None:
        name = self.message.database_name
        check_database_name(name)
        data = self.message.database_json if self.message.HasField("database_json") else None
        descriptor = layout.encode(json.loads(parse_database_descriptor(data).to_json()))
        if name in state.catalog.databases:
            if self.message.ignore_if_exists:
                return None
            raise Refused(ErrorCode.DATABASE_ALREADY_EXIST, f"database {name} exists")
        record = DatabaseRecord(name, descriptor, self.wall_ms, self.wall_ms)
        writes = (
            Create(layout.database_path(name), layout.encode_database(record, self.change_id)),
            Create(layout.tables_path(name)),
        )
        return writes, (ch.DatabaseMade(record, 0, self.change_id),)

    def _drop_database(self, state: State, _: CoordinatorConfig) -> Made | None:
        name = self.message.database_name
        if name not in state.catalog.databases and self.message.ignore_if_not_exists:
            return None
        database_of(state.catalog, name)
        if name == layout.DEFAULT_DATABASE:
            raise Refused(ErrorCode.UNKNOWN_SERVER_ERROR, f"database {name} cannot be dropped")
        tables = state.catalog.table_names(name)
        if tables and not self.message.cascade:
            text = f"database {name} has {len(tables)} tables, {tables[0]} for one"
            raise Refused(ErrorCode.DATABASE_NOT_EMPTY, text)
        writes: list[Write] = []
        changes: list[ch.Change] = []
        for table in tables:
            is_full = len(writes) >= CASCADE_WRITES_MAX
            if is_full or not self._drop(state, state.catalog.tables[name, table], writes, changes):
                break
        else:
            writes.append(Delete(layout.tables_path(name)))
            writes.append(Delete(layout.database_path(name), state.database_marks[name].version))
            changes.append(ch.DatabaseGone(name))
        return tuple(writes), tuple(changes)

    # ---- tables --------------------------------------------------------------------------------

    def _create_table(self, state: State, config: CoordinatorConfig) -> Made | None:
        path = (self.message.table_path.database_name, self.message.table_path.table_name)
        check_table_path(*path)
        described = describe(self.message.table_json, config.defaults)
        _check_replication(described.replication_factor, len(state.assignable()))
        if path in state.catalog.tables:
            if self.message.ignore_if_exists:
                return None
            raise Refused(ErrorCode.TABLE_ALREADY_EXIST, f"table {path[0]}.{path[1]} exists")
        database_of(state.catalog, path[0])
        self.table_id = state.next_table_id
        record = TableRecord.of(
            path,
            self.table_id,
            described.json,
            (SchemaRecord(1, described.schema_json),),
            created_ms=self.wall_ms,
            modified_ms=self.wall_ms,
        )
        check_zone(record, config, self.wall_ms)
        return self._made_table(state, record, described)

    def _made_table(self, state: State, record: TableRecord, described: Described) -> Made:
        path, table_id = record.path, record.table_id
        next_id, ids_version = state.next_table_id + 1, state.table_ids_version
        writes: list[Write] = [
            SetData(layout.TABLE_IDS, layout.encode_count(next_id), ids_version),
            Check(layout.database_path(path[0]), state.database_marks[path[0]].version),
            Create(layout.table_path(path), layout.encode_table(record, self.change_id)),
            Create(layout.schemas_path(path)),
            Create(f"{layout.schemas_path(path)}/1", described.schema_json),
        ]
        if record.auto_increment_id is not None:
            writes.append(Create(layout.counters_path(path)))
            counter = layout.counter_path(path, record.auto_increment_id)
            writes.append(Create(counter, layout.encode_count(0)))
        changes: list[ch.Change] = [
            ch.TableIdsMoved(next_id, ids_version + 1),
            ch.TableMade(record, 0, self.change_id),
        ]
        if not described.is_partitioned:  # else each partition has an assignment of its own
            replicas = assign(table_id, described.bucket_count, state.assignable())
            group = (table_id, NO_PARTITION)
            assignment = layout.encode_assignment(group, replicas)
            writes.append(Create(layout.assignment_path(group), assignment))
            writes.append(Create(layout.buckets_path(group)))
            changes.append(ch.Assigned(group, replicas))
        return tuple(writes), tuple(changes)

    def _drop_table(self, state: State, _: CoordinatorConfig) -> Made | None:
        path = (self.message.table_path.database_name, self.message.table_path.table_name)
        if path not in state.catalog.tables and self.message.ignore_if_not_exists:
            return None
        table = table_of(state.catalog, self.message.table_path)
        self.table_id = table.table_id
        writes: list[Write] = []
        changes: list[ch.Change] = []
        self._drop(state, table, writes, changes)
        return tuple(writes), tuple(changes)

    def _drop(
        self, state: State, table: TableRecord, writes: list[Write], changes: list[ch.Change]
    ) -> bool:
        """Remove a table's metadata and leave tombstones; its buckets are erased later.

        Partitions go first. Of a table with very many only some go, and False is returned.
        """
        names = list(state.catalog.partition_names.get(table.table_id, ()))
        if names:
            made = drop_partitions(state, table, names[:PARTITIONS_DROPPED_MAX], self.change_id)
            writes += made[0]
            changes += made[1]
        if len(names) > PARTITIONS_DROPPED_MAX:
            return False
        tombstone = layout.Tombstone((table.table_id, NO_PARTITION), table.path, self.change_id)
        schemas = layout.schemas_path(table.path)
        writes.extend(Delete(f"{schemas}/{schema.schema_id}", 0) for schema in table.schema_records)
        writes.append(Delete(schemas))
        if table.auto_increment_id is not None:  # its version is that of the last tablet server's write
            writes.append(Delete(layout.counter_path(table.path, table.auto_increment_id)))
            writes.append(Delete(layout.counters_path(table.path)))
        writes.append(Delete(layout.table_path(table.path), state.table_marks[table.table_id].version))
        data = layout.encode_tombstone(tombstone)
        writes.append(Create(layout.tombstone_path(tombstone.group), data))
        changes.append(ch.GroupDropped(tombstone))
        return True

    HANDLERS: ClassVar[dict[int, Callable[[Ddl, State, CoordinatorConfig], Made | None]]] = {
        ApiKey.CREATE_DATABASE: _create_database,
        ApiKey.DROP_DATABASE: _drop_database,
        ApiKey.CREATE_TABLE: _create_table,
        ApiKey.DROP_TABLE: _drop_table,
        ApiKey.ALTER_DATABASE: alter_database,
        ApiKey.ALTER_TABLE: alter_table,
        ApiKey.CREATE_PARTITION: create_partition,
        ApiKey.DROP_PARTITION: drop_partition,
        ApiKey.ALTER_CLUSTER_CONFIGS: alter_cluster_configs,
        ApiKey.REGISTER_PRODUCER_OFFSETS: producer_offsets.register,
        ApiKey.DELETE_PRODUCER_OFFSETS: producer_offsets.delete,
        ApiKey.ADD_SERVER_TAG: server_tags.add,
        ApiKey.REMOVE_SERVER_TAG: server_tags.remove,
        ApiKey.REBALANCE: rebalance.start,
    }


def _check_replication(wanted: int, live_count: int) -> None:
    if wanted > live_count:
        text = f"replication factor {wanted}: there are {live_count} live tablet servers to take replicas"
        raise Refused(ErrorCode.INVALID_REPLICATION_FACTOR, text)
    if wanted > 1:
        text = f"replication factor {wanted}: flussd 0.1 keeps one replica of each bucket"
        raise Refused(ErrorCode.INVALID_REPLICATION_FACTOR, text)
