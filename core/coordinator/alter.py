"""Altering tables and databases: from a request to the write that does it.

A table gets columns, all of them behind those it has, or other options; never both in one request. Each
alteration leaves its mark in the node that it replaces. What changes nothing is not written.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

import attrs

from flussd.core.catalog.lookups import database_of, table_of
from flussd.core.catalog.records import DatabaseRecord, SchemaRecord, TableRecord
from flussd.core.coordinator import changes as ch
from flussd.core.coordinator import layout
from flussd.core.coordinator.config import CoordinatorConfig
from flussd.core.coordinator.partitions import check_zone
from flussd.core.coordinator.state import State
from flussd.core.records.aggregation import AggFunction, canonical_name
from flussd.core.records.descriptor import (
    TableDescriptor,
    parse_database_descriptor,
    parse_table_descriptor,
    validate,
)
from flussd.core.records.json_text import load_object
from flussd.core.records.names import check_table_path
from flussd.core.records.options import PREFIX, bad_config, check_alterable
from flussd.core.records.refusal import Refused
from flussd.core.records.schema import SYSTEM_COLUMNS, Column, Schema
from flussd.core.records.types import bad_table, check_field_names, parse_type
from flussd.core.registry.messages import Create, SetData, Write
from flussd.core.wire import messages
from flussd.core.wire.errors import ErrorCode

if TYPE_CHECKING:
    from flussd.core.coordinator.ddl import Ddl, Made

SET: Final = 0
DELETE: Final = 1
LAST: Final = 0
"""Where a new column goes: all else is refused."""


def _refused(text: str) -> Refused:
    return Refused(ErrorCode.UNKNOWN_SERVER_ERROR, text)


def _changes_of(asked: Iterable[messages.PbAlterConfig]) -> list[tuple[str, str | None]]:
    """Return (key, new value or None) of each change; refuse what is neither SET nor DELETE (-1)."""
    changes: list[tuple[str, str | None]] = []
    for change in asked:
        key = change.config_key
        if change.op_type not in (SET, DELETE):
            raise _refused(f"property {key[:200]}: expected 0 (set) or 1 (delete), got {change.op_type}")
        if change.op_type == SET and not change.HasField("config_value"):
            raise _refused(f"property {key[:200]}: it is to be set, and there is no value")
        changes.append((key, change.config_value if change.op_type == SET else None))
    return changes


def _put(into: dict[str, str], key: str, value: str | None) -> None:
    if value is None:
        into.pop(key, None)
    else:
        into[key] = value


# ---- databases -----------------------------------------------------------------------------------


def alter_database(ddl: Ddl, state: State, _: CoordinatorConfig) -> Made | None:
    """Decide on ALTER_DATABASE."""
    asked = ddl.message
    if asked.database_name not in state.catalog.databases and asked.ignore_if_not_exists:
        return None
    before = database_of(state.catalog, asked.database_name)
    descriptor = parse_database_descriptor(before.json)
    properties = dict(descriptor.custom_properties)
    for key, value in _changes_of(asked.config_changes):
        _put(properties, key, value)
    comment = asked.comment if asked.HasField("comment") else descriptor.comment
    descriptor = attrs.evolve(descriptor, comment=comment, custom_properties=tuple(properties.items()))
    told = layout.encode(json.loads(descriptor.to_json()))
    if told == before.json:
        return None
    record = DatabaseRecord(before.name, told, before.created_ms, max(before.modified_ms, ddl.wall_ms))
    mark = state.database_marks[record.name]
    data = layout.encode_database(record, mark.change_id, ddl.change_id)
    writes: tuple[Write, ...] = (SetData(layout.database_path(record.name), data, mark.version),)
    made = ch.DatabaseMade(record, mark.version + 1, mark.change_id, ddl.change_id)
    return writes, (made,)


# ---- tables --------------------------------------------------------------------------------------


def alter_table(ddl: Ddl, state: State, config: CoordinatorConfig) -> Made | None:
    """Decide on ALTER_TABLE."""
    asked = ddl.message
    path = (asked.table_path.database_name, asked.table_path.table_name)
    check_table_path(*path)
    _check_kind(asked)
    if path not in state.catalog.tables and asked.ignore_if_not_exists:
        return None
    table = table_of(state.catalog, asked.table_path)
    before = parse_table_descriptor(table.json)
    if asked.add_columns:
        schema = _with_columns(before.schema, asked.add_columns)
        after = attrs.evolve(before, schema=schema)
    else:
        after = _with_options(before, asked.config_changes)
    if after == before:
        return None
    validate(after, config.defaults)
    ddl.table_id = table.table_id
    return _write(ddl, state, config, table, after)


def _check_kind(asked: messages.AlterTableRequest) -> None:
    """Refuse what no table can do (-1), and changes of two kinds in one request (56)."""
    for what, wanted in (
        ("dropped", asked.drop_columns),
        ("renamed", asked.rename_columns),
        ("modified", asked.modify_columns),
    ):
        if wanted:
            raise _refused(f"columns cannot be {what}, only added")
    if asked.HasField("modify_bucket_count"):
        raise _refused("the number of buckets cannot be changed")
    if asked.add_columns and asked.config_changes:
        text = "expected new columns or other options in one request, got both"
        raise Refused(ErrorCode.INVALID_ALTER_TABLE_EXCEPTION, text)


def _write(
    ddl: Ddl, state: State, config: CoordinatorConfig, table: TableRecord, after: TableDescriptor
) -> Made:
    told = json.loads(after.to_json())
    schemas, schema_json = table.schema_records, layout.encode(told["schema"])
    writes: list[Write] = []
    if schema_json != schemas[-1].json:
        schemas = (*schemas, SchemaRecord(table.schema_id + 1, schema_json))
        path = f"{layout.schemas_path(table.path)}/{table.schema_id + 1}"
        writes.append(Create(path, schema_json))
    record = TableRecord.of(
        table.path,
        table.table_id,
        layout.encode(told),
        schemas,
        created_ms=table.created_ms,
        modified_ms=max(table.modified_ms, ddl.wall_ms),
    )
    check_zone(record, config, ddl.wall_ms)
    mark = state.table_marks[table.table_id]
    data = layout.encode_table(record, mark.change_id, ddl.change_id)
    writes.append(SetData(layout.table_path(table.path), data, mark.version))
    made = ch.TableMade(record, mark.version + 1, mark.change_id, ddl.change_id)
    return tuple(writes), (made,)


def _with_options(before: TableDescriptor, changes: Iterable[messages.PbAlterConfig]) -> TableDescriptor:
    properties, custom = dict(before.properties), dict(before.custom_properties)
    for key, value in _changes_of(changes):
        check_alterable(key)
        _put(properties if key.startswith(PREFIX) else custom, key, value)
    return attrs.evolve(before, properties=properties, custom_properties=custom)


def _with_columns(before: Schema, added: Iterable[messages.PbAddColumn]) -> Schema:
    """Return the schema with new columns at its end; their ids go on behind the highest in use."""
    ids = itertools.count(before.highest_field_id + 1)
    columns, names = list(before.columns), dict.fromkeys(column.name for column in before.columns)
    for asked in added:
        name = asked.column_name
        if asked.column_position_type != LAST:
            raise _refused(
                f"column {name[:100]}: new columns go last (0), got {asked.column_position_type}"
            )
        if name in names:
            text = f"column {name[:100]} is in the table already"
            raise Refused(ErrorCode.INVALID_ALTER_TABLE_EXCEPTION, text)
        names[name] = None
        columns.append(_new_column(asked, ids))
    check_field_names(list(names), "schema: columns")
    return attrs.evolve(before, columns=tuple(columns), highest_field_id=next(ids) - 1)


def _new_column(asked: messages.PbAddColumn, ids: Any) -> Column:
    name = asked.column_name
    if name in SYSTEM_COLUMNS:
        raise bad_table(f"column {name}: the name is that of a system column")
    told = load_object(asked.data_type_json, f"column {name[:100]}", ErrorCode.INVALID_TABLE_EXCEPTION)
    data_type = parse_type(told, f"column {name[:100]}")
    if not data_type.nullable:
        raise _refused(f"column {name[:100]}: a new column must be nullable: older rows have no value")
    column_id = next(ids)
    comment = asked.comment if asked.HasField("comment") else None
    return Column(name, data_type.with_field_ids(ids), comment, column_id, _aggregation(asked))


def _aggregation(asked: messages.PbAddColumn) -> AggFunction | None:
    if not asked.HasField("agg_function_type"):
        return None
    canonical = canonical_name(asked.agg_function_type)
    if canonical is None:
        text = f"there is no aggregation function {asked.agg_function_type[:100]}"
        raise bad_config(f"column {asked.column_name[:100]}: {text}")
    return AggFunction(canonical, tuple([(pair.key, pair.value) for pair in asked.agg_function_params]))
