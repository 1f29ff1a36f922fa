"""Creating and dropping partitions: checks, and the writes that do it.

A partition is three nodes: its name under the table, its assignment, the parent of its buckets. The
parent of the names is there as long as there are names. Pure functions of the state; callers make a
proposal of what they return.
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Final

from flussd.core.catalog.lookups import partitioned_table_of
from flussd.core.catalog.records import PartitionRecord, TableRecord
from flussd.core.coordinator import changes as ch
from flussd.core.coordinator import layout
from flussd.core.coordinator.config import CoordinatorConfig
from flussd.core.coordinator.elections import assign
from flussd.core.coordinator.state import State
from flussd.core.records.descriptor import ClusterDefaults
from flussd.core.records.options import bad_config
from flussd.core.records.partitions import (
    AutoPartition,
    PartitionSpec,
    auto_partition_of,
    check_spec,
    parse_spec,
)
from flussd.core.records.refusal import Refused
from flussd.core.registry.messages import Check, Create, Delete, SetData, Write
from flussd.core.wire import messages
from flussd.core.wire.errors import ErrorCode

if TYPE_CHECKING:
    from flussd.core.coordinator.ddl import Ddl, Made

PARTITIONS_DROPPED_MAX: Final = 100
"""Partitions dropped by one multi: two writes each."""


# ---- what clients ask ----------------------------------------------------------------------------


def create_partition(ddl: Ddl, state: State, config: CoordinatorConfig) -> Made | None:
    """Decide on CREATE_PARTITION."""
    table, spec = _target(ddl.message, state, creating=True)
    auto = auto_of(table)
    if auto is not None:
        now = local_time(auto, config, ddl.wall_ms)
        auto.check(spec.values[spec.keys.index(auto.column)], now)
    if spec.name in state.catalog.partition_names.get(table.table_id, {}):
        if ddl.message.ignore_if_not_exists:  # the protocol calls the flag so; "exists" is meant
            return None
        raise Refused(ErrorCode.PARTITION_ALREADY_EXISTS, f"{_shown(table, spec.name)} exists")
    check_room(state, table, 1, config.defaults)
    if not state.assignable():
        text = f"{_shown(table, spec.name)}: there are no live tablet servers to take replicas"
        raise Refused(ErrorCode.INVALID_REPLICATION_FACTOR, text)
    ddl.table_id, ddl.partition_id = table.table_id, state.next_partition_id
    return make_partitions(state, table, [spec.name], ddl.change_id)


def drop_partition(ddl: Ddl, state: State, _: CoordinatorConfig) -> Made | None:
    """Decide on DROP_PARTITION."""
    table, spec = _target(ddl.message, state, creating=False)
    partition_id = state.catalog.partition_names.get(table.table_id, {}).get(spec.name)
    if partition_id is None:
        if ddl.message.ignore_if_not_exists:
            return None
        text = f"{_shown(table, spec.name)} does not exist"
        raise Refused(ErrorCode.PARTITION_NOT_EXISTS, text)
    if spec.is_historical:
        text = f"{_shown(table, spec.name)} cannot be dropped: it is the server's"
        raise Refused(ErrorCode.PARTITION_SPEC_INVALID_EXCEPTION, text)
    ddl.table_id, ddl.partition_id = table.table_id, partition_id
    return drop_partitions(state, table, [spec.name], ddl.change_id)


def _target(
    asked: messages.CreatePartitionRequest | messages.DropPartitionRequest, state: State, *, creating: bool
) -> tuple[TableRecord, PartitionSpec]:
    table = partitioned_table_of(state.catalog, asked.table_path)
    pairs = [(pair.key, pair.value) for pair in asked.partition_spec.partition_key_values]
    spec = parse_spec(pairs, table.partition_key)
    check_spec(spec, creating=creating)
    return table, spec


def _shown(table: TableRecord, name: str) -> str:
    return f"partition {name} of table {table.database}.{table.name}"


def check_room(state: State, table: TableRecord, more: int, defaults: ClusterDefaults) -> None:
    """Refuse to make *more* partitions than a table may have (45), or more buckets (49)."""
    count = len(state.catalog.partition_names.get(table.table_id, {})) + more
    where = f"table {table.database}.{table.name}"
    if count > defaults.max_partitions:
        text = f"{where}: expected at most {defaults.max_partitions} partitions, got {count}"
        raise Refused(ErrorCode.PARTITION_MAX_NUM_EXCEPTION, text)
    buckets = count * table.bucket_count
    if buckets > defaults.max_bucket_count:
        most = defaults.max_bucket_count
        text = f"{where}: expected at most {most} buckets in all partitions, got {buckets}"
        raise Refused(ErrorCode.BUCKET_MAX_NUM_EXCEPTION, text)


# ---- writes --------------------------------------------------------------------------------------


def make_partitions(state: State, table: TableRecord, names: list[str], change_id: str) -> Made:
    """Return how to make the partitions *names*, which do not exist."""
    first_id, ids_version = state.next_partition_id, state.partition_ids_version
    next_id = first_id + len(names)
    writes: list[Write] = [
        SetData(layout.PARTITION_IDS, layout.encode_count(next_id), ids_version),
        Check(layout.table_path(table.path), state.table_marks[table.table_id].version),
    ]
    changes: list[ch.Change] = [ch.PartitionIdsMoved(next_id, ids_version + 1)]
    if table.table_id not in state.catalog.partition_names:
        writes.append(Create(layout.partitions_path(table.path)))
    server_ids = state.assignable()
    for partition_id, name in enumerate(names, first_id):
        record = PartitionRecord(table.table_id, partition_id, name, table.bucket_count)
        replicas = assign(table.table_id + partition_id, table.bucket_count, server_ids)
        assignment = layout.encode_assignment(record.group, replicas)
        path = layout.partition_path(table.path, name)
        writes.append(Create(path, layout.encode_partition(record, change_id)))
        writes.append(Create(layout.assignment_path(record.group), assignment))
        writes.append(Create(layout.buckets_path(record.group)))
        changes.append(ch.PartitionMade(record, change_id))
        changes.append(ch.Assigned(record.group, replicas))
    return tuple(writes), tuple(changes)


def drop_partitions(state: State, table: TableRecord, names: list[str], change_id: str) -> Made:
    """Return how to drop the partitions *names*: their nodes go, and tombstones stand for their buckets."""
    writes: list[Write] = []
    changes: list[ch.Change] = []
    known = state.catalog.partition_names[table.table_id]
    for name in names:
        tombstone = layout.Tombstone((table.table_id, known[name]), table.path, change_id)
        writes.append(Delete(layout.partition_path(table.path, name), 0))
        data = layout.encode_tombstone(tombstone)
        writes.append(Create(layout.tombstone_path(tombstone.group), data))
        changes.append(ch.GroupDropped(tombstone))
    if len(names) == len(known):
        writes.append(Delete(layout.partitions_path(table.path)))
    return tuple(writes), tuple(changes)


# ---- automatic partitions ------------------------------------------------------------------------


def auto_of(table: TableRecord) -> AutoPartition | None:
    """Return how a table makes partitions by itself; None if it does not."""
    if not table.is_partitioned:
        return None
    column = table.properties.get("table.auto-partition.key", table.partition_key[0])
    types = {one["name"]: one["data_type"]["type"] for one in table.schemas[table.schema_id]["columns"]}
    of_dates = types.get(column) == "DATE"
    return auto_partition_of(table.partition_key, table.properties, of_dates=of_dates)


def local_time(auto: AutoPartition, config: CoordinatorConfig, wall_ms: int) -> dt.datetime:
    """Return the time in the table's zone; refuse a zone that nobody knows (39)."""
    now = config.zones(auto.zone, wall_ms)
    if now is None:
        raise bad_config(f"table.auto-partition.time-zone: this server knows no zone {auto.zone!r:.100}")
    return now


def check_zone(table: TableRecord, config: CoordinatorConfig, wall_ms: int) -> None:
    """Refuse a table whose automatic partitions are in a zone that nobody knows (39)."""
    auto = auto_of(table)
    if auto is not None:
        local_time(auto, config, wall_ms)
