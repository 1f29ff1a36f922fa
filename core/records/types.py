"""Data types of columns, between schema JSON and values (section 5.4 of the wire protocol).

Nested types are as deep as the client likes up to NESTING_MAX; everything a client may send wrongly is
Refused as a bad table.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import attrs

from flussd.core.records.refusal import Refused
from flussd.core.wire.errors import ErrorCode

NESTING_MAX: Final = 32
"""Deeper types are refused: readers recurse over them, and nobody stores such rows."""

PLAIN: Final = frozenset(
    {"BOOLEAN", "TINYINT", "SMALLINT", "INTEGER", "BIGINT", "FLOAT", "DOUBLE", "STRING", "DATE", "BYTES"}
)
WITH_LENGTH: Final = frozenset({"CHAR", "BINARY"})
WITH_PRECISION: Final = frozenset(
    {"TIME_WITHOUT_TIME_ZONE", "TIMESTAMP_WITHOUT_TIME_ZONE", "TIMESTAMP_WITH_LOCAL_TIME_ZONE"}
)
NESTED: Final = frozenset({"ARRAY", "MAP", "ROW"})

LENGTH_MAX: Final = 2**31 - 1
TIME_PRECISION_MAX: Final = 9
DECIMAL_PRECISION_MAX: Final = 38


@attrs.frozen
class RowField:
    """A field of a ROW; *field_id* shares its numbers with column ids."""

    name: str
    data_type: DataType
    description: str | None
    field_id: int | None

    def with_ids(self, ids: Iterator[int]) -> RowField:
        """Return the field with an id from *ids*, taken before those of the fields within."""
        field_id = next(ids)
        return attrs.evolve(self, field_id=field_id, data_type=self.data_type.with_field_ids(ids))


@attrs.frozen
class DataType:
    """A type by its root *name*; only what that root has is set."""

    name: str
    nullable: bool = True
    length: int | None = None
    precision: int | None = None
    scale: int | None = None
    element: DataType | None = None
    key: DataType | None = None
    value: DataType | None = None
    fields: tuple[RowField, ...] = ()

    def row_fields(self) -> Iterator[RowField]:
        """Yield all fields of rows within, outer ones first, in order."""
        for field in self.fields:
            yield field
            yield from field.data_type.row_fields()
        for inner in (self.element, self.key, self.value):
            if inner is not None:
                yield from inner.row_fields()

    def with_field_ids(self, ids: Iterator[int]) -> DataType:
        """Return the type with its row fields numbered from *ids*, in pre-order."""
        fields = [field.with_ids(ids) for field in self.fields]
        return attrs.evolve(
            self,
            fields=tuple(fields),
            element=None if self.element is None else self.element.with_field_ids(ids),
            key=None if self.key is None else self.key.with_field_ids(ids),
            value=None if self.value is None else self.value.with_field_ids(ids),
        )

    def to_json(self) -> dict[str, Any]:
        """Return the JSON value of the type."""
        told: dict[str, Any] = {"type": self.name}
        if not self.nullable:
            told["nullable"] = False
        numbers = {"length": self.length, "precision": self.precision, "scale": self.scale}
        told |= {key: number for key, number in numbers.items() if number is not None}
        if self.element is not None:
            told["element_type"] = self.element.to_json()
        if self.key is not None and self.value is not None:
            told["key_type"], told["value_type"] = self.key.to_json(), self.value.to_json()
        if self.name == "ROW":
            told["fields"] = [_field_json(field) for field in self.fields]
        return told


def _field_json(field: RowField) -> dict[str, Any]:
    told: dict[str, Any] = {"name": field.name, "field_type": field.data_type.to_json()}
    if field.description is not None:
        told["description"] = field.description
    if field.field_id is not None:
        told["field_id"] = field.field_id
    return told


def bad_table(text: str) -> Refused:
    """Return the refusal of a table's description."""
    return Refused(ErrorCode.INVALID_TABLE_EXCEPTION, text)


def parse_type(told: Any, where: str, depth: int = 0) -> DataType:
    """Read a type from its JSON value.

    Raises:
        Refused: it is none.
    """
    if depth > NESTING_MAX:
        raise bad_table(f"{where}: types are nested deeper than {NESTING_MAX}")
    if not isinstance(told, dict) or not isinstance(told.get("type"), str):
        raise bad_table(f"{where}: expected an object with a type, got {str(told)[:100]}")
    name, nullable = told["type"], told.get("nullable", True)
    if not isinstance(nullable, bool):
        raise bad_table(f"{where}: nullable: expected true or false, got {nullable!r}")
    if name in PLAIN:
        return DataType(name, nullable)
    if name in WITH_LENGTH:
        length = _number(told, "length", where, 1, LENGTH_MAX)
        return DataType(name, nullable, length=length)
    if name in WITH_PRECISION:
        precision = _number(told, "precision", where, 0, TIME_PRECISION_MAX)
        return DataType(name, nullable, precision=precision)
    if name == "DECIMAL":
        precision = _number(told, "precision", where, 1, DECIMAL_PRECISION_MAX)
        return DataType(
            name, nullable, precision=precision, scale=_number(told, "scale", where, 0, precision)
        )
    if name in NESTED:
        return _parse_nested(told, name, nullable=nullable, where=where, depth=depth + 1)
    raise bad_table(f"{where}: unknown type {name[:100]!r}")


def _parse_nested(told: dict[str, Any], name: str, *, nullable: bool, where: str, depth: int) -> DataType:
    if name == "ARRAY":
        element = parse_type(told.get("element_type"), f"{where}.element", depth)
        return DataType(name, nullable, element=element)
    if name == "MAP":
        # As upstream's MapType does: a key is never null, whatever the JSON says.
        key = attrs.evolve(parse_type(told.get("key_type"), f"{where}.key", depth), nullable=False)
        value = parse_type(told.get("value_type"), f"{where}.value", depth)
        return DataType(name, nullable, key=key, value=value)
    fields = told.get("fields")
    if not isinstance(fields, list):
        raise bad_table(f"{where}: a ROW needs fields")
    parsed = tuple(_parse_field(field, where, depth) for field in fields)
    check_field_names([field.name for field in parsed], where)
    return DataType(name, nullable, fields=parsed)


def check_field_names(names: list[str], where: str) -> None:
    """Refuse names of columns or row fields that are blank, or not unique."""
    if not all(name.strip() for name in names):
        raise bad_table(f"{where}: expected names that are not blank")
    if len(dict.fromkeys(names)) != len(names):
        raise bad_table(f"{where}: names are not unique: {', '.join(names)[:200]}")


def _parse_field(told: Any, where: str, depth: int) -> RowField:
    if not isinstance(told, dict) or not isinstance(told.get("name"), str):
        raise bad_table(f"{where}: a field needs a name, got {str(told)[:100]}")
    data_type = parse_type(told.get("field_type"), f"{where}.{told['name'][:100]}", depth)
    description, field_id = told.get("description"), told.get("field_id")
    if description is not None and not isinstance(description, str):
        raise bad_table(f"{where}: description: expected text")
    if field_id is not None and not is_int(field_id, -1, LENGTH_MAX):
        raise bad_table(f"{where}: field_id: expected a number, got {str(field_id)[:100]}")
    return RowField(told["name"], data_type, description, None if field_id == -1 else field_id)


def is_int(value: Any, least: int, most: int) -> bool:
    """Whether a JSON value is an integer of a range; true and false are none."""
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _number(told: dict[str, Any], key: str, where: str, least: int, most: int) -> int:
    value = told.get(key)
    if not is_int(value, least, most):
        raise bad_table(f"{where}: {key}: expected {least} to {most}, got {str(value)[:100]}")
    assert isinstance(value, int)
    return value
