"""Schemas of tables, between JSON and values (section 5.3 of the wire protocol)."""

from __future__ import annotations

import itertools
import json
from typing import Any, Final

import attrs

from flussd.core.records.aggregation import AggFunction, canonical_name
from flussd.core.records.types import (
    LENGTH_MAX,
    DataType,
    bad_table,
    check_field_names,
    is_int,
    parse_type,
)

SYSTEM_COLUMNS: Final = frozenset(
    {"__offset", "__timestamp", "__bucket", "_change_type", "_log_offset", "_commit_timestamp"}
)


@attrs.frozen
class Column:
    """A column; *column_id* stays the same over schema versions."""

    name: str
    data_type: DataType
    comment: str | None
    column_id: int
    aggregation: AggFunction | None = None


@attrs.frozen
class Schema:
    """The columns of a table in order, and what they are for."""

    columns: tuple[Column, ...]
    primary_key: tuple[str, ...]  # empty: a log table
    auto_increment: tuple[str, ...]
    highest_field_id: int

    def column(self, name: str) -> Column | None:
        """Return a column by its name."""
        return next((column for column in self.columns if column.name == name), None)

    def by_name(self) -> dict[str, Column]:
        """Return the columns by their names, for those who look for many: a key may have thousands."""
        return {column.name: column for column in self.columns}

    def to_value(self) -> dict[str, Any]:
        """Return the JSON value, with ids and the defaults that upstream writes."""
        told: dict[str, Any] = {"version": 1, "columns": [_column_json(column) for column in self.columns]}
        if self.primary_key:
            told["primary_key"] = list(self.primary_key)
        if self.auto_increment:
            told["auto_increment_column"] = list(self.auto_increment)
        told["highest_field_id"] = self.highest_field_id
        return told

    def to_json(self) -> bytes:
        """Return the schema as clients get it."""
        return json.dumps(self.to_value(), ensure_ascii=False, separators=(",", ":")).encode()


def _column_json(column: Column) -> dict[str, Any]:
    told: dict[str, Any] = {"name": column.name, "data_type": column.data_type.to_json()}
    if column.comment is not None:
        told["comment"] = column.comment
    if column.aggregation is not None:
        function: dict[str, Any] = {"type": column.aggregation.name}
        if column.aggregation.parameters:
            function["parameters"] = dict(column.aggregation.parameters)
        told["agg_function"] = function
    told["id"] = column.column_id
    return told


def parse_schema(told: Any) -> Schema:
    """Read a schema from its JSON value, and number its columns if the client did not.

    Raises:
        Refused: it is none, or contradicts itself.
    """
    if not isinstance(told, dict) or not isinstance(told.get("columns"), list):
        raise bad_table("schema: expected an object with columns")
    primary_key = _names(told, "primary_key")
    auto_increment = _names(told, "auto_increment_column")
    keys = frozenset(primary_key or ())
    columns = [_parse_column(column, keys) for column in told["columns"]]
    names = [name for name, *_ in columns]
    if not columns:
        raise bad_table("schema: expected at least one column")
    check_field_names(names, "schema: columns")
    if primary_key is not None:
        _check_primary_key(primary_key, names)
    numbered = _number(columns)
    schema = Schema(numbered, primary_key or (), auto_increment or (), _highest(told, numbered))
    if schema.auto_increment:
        _check_auto_increment(schema)
    return schema


def _names(told: dict[str, Any], key: str) -> tuple[str, ...] | None:
    names = told.get(key)
    if names is None:
        return None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise bad_table(f"schema: {key}: expected a list of names")
    return tuple(names)


def _check_primary_key(primary_key: tuple[str, ...], names: list[str]) -> None:
    if not primary_key:
        raise bad_table("schema: the primary key has no column")
    known = frozenset(names)
    for name in primary_key:
        if name not in known:
            raise bad_table(f"schema: primary key column {name[:100]} is not in the schema")
    if len(dict.fromkeys(primary_key)) != len(primary_key):
        raise bad_table("schema: the primary key has a column twice")


def _check_auto_increment(schema: Schema) -> None:
    if len(schema.auto_increment) != 1:
        raise bad_table("schema: expected one auto-increment column")
    column = schema.column(schema.auto_increment[0])
    if column is None:
        raise bad_table(
            f"schema: auto-increment column {schema.auto_increment[0][:100]} is not in the schema"
        )
    if not schema.primary_key or column.name in schema.primary_key:
        raise bad_table("schema: an auto-increment column needs a primary key that it is not part of")
    if column.data_type.name not in ("INTEGER", "BIGINT"):
        raise bad_table(f"schema: auto-increment column {column.name}: expected INTEGER or BIGINT")


_Raw = tuple[str, DataType, str | None, int | None, AggFunction | None]


def _parse_column(told: Any, primary_key: frozenset[str]) -> _Raw:
    if not isinstance(told, dict) or not isinstance(told.get("name"), str):
        raise bad_table(f"schema: a column needs a name, got {str(told)[:100]}")
    name, comment, column_id = told["name"], told.get("comment"), told.get("id")
    data_type = parse_type(told.get("data_type"), f"column {name[:100]}")
    if comment is not None and not isinstance(comment, str):
        raise bad_table(f"column {name[:100]}: comment: expected text")
    if column_id is not None and not is_int(column_id, -1, LENGTH_MAX):
        raise bad_table(f"column {name[:100]}: id: expected a number")
    if name in primary_key:
        data_type = attrs.evolve(data_type, nullable=False)
    if name in SYSTEM_COLUMNS:
        raise bad_table(f"column {name}: the name is that of a system column")
    column_id = None if column_id == -1 else column_id
    aggregation = _parse_aggregation(told.get("agg_function"), name)
    if aggregation is not None and name in primary_key:
        raise bad_table(f"column {name[:100]}: a primary key column has no aggregation function")
    return name, data_type, comment, column_id, aggregation


def _parse_aggregation(told: Any, column: str) -> AggFunction | None:
    if told is None:
        return None
    name = told.get("type") if isinstance(told, dict) else None
    if not isinstance(name, str):
        raise bad_table(f"column {column[:100]}: agg_function: expected a type, got {str(name)[:100]}")
    parameters = told.get("parameters") or {}
    if not isinstance(parameters, dict) or not all(isinstance(value, str) for value in parameters.values()):
        raise bad_table(f"column {column[:100]}: aggregation parameters: expected texts")
    # As ColumnJsonSerde does: a function that nobody knows is dropped, not refused.
    canonical = canonical_name(name)
    return None if canonical is None else AggFunction(canonical, tuple(parameters.items()))


def _number(columns: list[_Raw]) -> tuple[Column, ...]:
    """Give ids in pre-order when none was given; else check that all were, once each."""
    given = [column_id for _, _, _, column_id, _ in columns]
    if all(column_id is None for column_id in given):
        ids = itertools.count()
        made = []
        for name, data_type, comment, _, aggregation in columns:
            column_id = next(ids)
            made.append(Column(name, data_type.with_field_ids(ids), comment, column_id, aggregation))
        return tuple(made)
    if any(column_id is None for column_id in given):
        raise bad_table("schema: expected an id for every column, or for none")
    following = itertools.count(1 + max(column_id for column_id in given if column_id is not None))
    nested = [field.field_id for _, data_type, *_ in columns for field in data_type.row_fields()]
    if any(field_id is None for field_id in nested) and any(field_id is not None for field_id in nested):
        raise bad_table("schema: expected an id for every field of a row, or for none")
    bare = any(field_id is None for field_id in nested)
    columns_with_ids = tuple(
        Column(
            name,
            data_type.with_field_ids(following) if bare else data_type,
            comment,
            column_id,
            aggregation,
        )
        for name, data_type, comment, column_id, aggregation in columns
        if column_id is not None
    )
    ids_in_use = _ids(columns_with_ids)
    if len(dict.fromkeys(ids_in_use)) != len(ids_in_use):
        raise bad_table("schema: ids of columns and fields are not unique")
    return columns_with_ids


def _ids(columns: tuple[Column, ...]) -> list[int]:
    ids = []
    for column in columns:
        ids.append(column.column_id)
        ids += [f.field_id for f in column.data_type.row_fields() if f.field_id is not None]
    return ids


def _highest(told: dict[str, Any], columns: tuple[Column, ...]) -> int:
    highest = max(_ids(columns))
    given = told.get("highest_field_id")
    if given is None:
        return highest
    if not is_int(given, -1, LENGTH_MAX):
        raise bad_table("schema: highest_field_id: expected a number")
    return max(highest, int(given))
