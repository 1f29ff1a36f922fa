"""Values to the nodes and buffers of an Arrow body, a column at a time (record formats, 2.3).

Values are those that `rows.atoms` tells of. What their type cannot hold is BadValue and nothing else, and
so is more than the limits of a batch allow: both are seen before much is allocated. Buffers are as Java
writes them: with a validity buffer for each node, whether anything is null or not. About 0.1 us a value.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate, chain
from typing import Any, Final, TypeAlias

import attrs

from flussd.core.limits import ARROW_BODY_BYTES_MAX, ARROW_VALUES_MAX
from flussd.core.records.arrow.bits import bit_bytes, ones
from flussd.core.records.arrow.units import stored_unit
from flussd.core.records.rows.atoms import CODES, DECIMAL_BYTES_MAX, MISFIT, BadValue, text_bytes
from flussd.core.records.types import NESTED, NESTING_MAX, DataType
from flussd.core.slices import Slices

Values: TypeAlias = Sequence[Any]  # a list or a tuple


@attrs.define(eq=False)
class Body:
    """Columns in the order of a message: (length, nulls) of each node, and raw buffers."""

    nodes: list[tuple[int, int]] = attrs.Factory(list)
    buffers: list[bytes] = attrs.Factory(list)
    left_bytes: int = attrs.Factory(lambda: ARROW_BODY_BYTES_MAX)
    left_values: int = attrs.Factory(lambda: ARROW_VALUES_MAX)

    def start(self, values: Values) -> int:
        """Begin the node of *values* with its validity; return how many of them are null."""
        count, null_count = len(values), values.count(None)
        self.left_values -= count
        self.expect(0)
        self.nodes.append((count, null_count))
        self.add(bit_bytes([value is not None for value in values]) if null_count else ones(count))
        return null_count

    def expect(self, size_bytes: int) -> None:
        """Refuse what would be too much with a buffer of *size_bytes*."""
        if size_bytes > self.left_bytes:
            raise BadValue(f"a batch: expected up to {ARROW_BODY_BYTES_MAX} bytes, got more")
        if self.left_values < 0:
            raise BadValue(f"a batch: expected up to {ARROW_VALUES_MAX} values, got more")

    def add(self, data: bytes) -> None:
        """Add a buffer."""
        self.expect(len(data))
        self.left_bytes -= len(data)
        self.buffers.append(data)

    def add_offsets(self, sizes: Iterable[int], count: int) -> int:
        """Add where *count* parts of such sizes begin and end; return the last end."""
        offsets = list(accumulate(sizes, initial=0))
        self.expect(max(offsets[-1], 4 * len(offsets)))
        self.add(struct.pack(f"<{count + 1}i", *offsets))
        return offsets[-1]


def write_columns(types: Sequence[DataType], rows: Sequence[Values]) -> Slices[Body]:
    """Return the columns of *rows*, which have a value for each of *types*. Raises BadValue.

    Each column is a slice.
    """
    arity, body = len(types), Body()
    sizes = list(map(len, rows))
    if sizes.count(arity) != len(rows):
        wrong = next(size for size in sizes if size != arity)
        raise BadValue(f"a row: expected {arity} values, got {wrong}")
    columns: Iterable[Values] = zip(*rows, strict=True) if rows else [()] * arity
    for n, values in enumerate(columns):
        if n:
            yield
        try:
            _write(body, types[n], values, 0)
        except MISFIT as error:
            raise BadValue(f"column {n} ({types[n].name}): {error}") from None
    return body


def _write(body: Body, data_type: DataType, values: Values, depth: int) -> None:
    """Write a column, and those within it; *depth* types lie around it."""
    if data_type.name in NESTED:
        if depth >= NESTING_MAX:
            raise BadValue(f"types are nested deeper than {NESTING_MAX}")
        _NESTED[data_type.name](body, data_type, values, depth + 1)
    else:
        write = _WRITERS.get(data_type.name, _write_fixed)
        write(body, data_type, values)


# ---- scalars -------------------------------------------------------------------------------------


def _write_fixed(body: Body, data_type: DataType, values: Values) -> None:
    null_count = body.start(values)
    held = [0 if value is None else value for value in values] if null_count else values
    body.add(struct.pack(f"<{len(values)}{CODES[data_type.name]}", *held))


def _write_in_units(body: Body, data_type: DataType, values: Values) -> None:
    """Write TIME and timestamps, in the unit of their precision; floor, also before 1970."""
    unit = stored_unit(data_type)
    null_count, up, down = body.start(values), unit.multiplier, unit.divisor
    held = [0 if value is None else value for value in values] if null_count else values
    if down != 1:
        held = [value // down for value in held]
    elif up != 1:
        held = [value * up for value in held]
    body.add(struct.pack(f"<{len(values)}{unit.code}", *held))


def _write_bits(body: Body, _type: DataType, values: Values) -> None:
    null_count = body.start(values)
    body.add(bit_bytes([value or False for value in values] if null_count else values))


def _write_decimals(body: Body, _type: DataType, values: Values) -> None:
    body.start(values)
    body.expect(DECIMAL_BYTES_MAX * len(values))
    body.add(
        b"".join([(value or 0).to_bytes(DECIMAL_BYTES_MAX, "little", signed=True) for value in values])
    )


def _write_texts(body: Body, _type: DataType, values: Values) -> None:
    null_count = body.start(values)
    held = ["" if value is None else value for value in values] if null_count else values
    sizes = list(map(len, held))
    body.expect(sum(sizes))  # A text has as many bytes as letters, or up to four times that.
    text = "".join(held)
    if not text.isascii():
        parts = list(map(text_bytes, held))
        body.add_offsets(map(len, parts), len(parts))
        body.add(b"".join(parts))
        return
    body.add_offsets(sizes, len(sizes))
    body.add(text.encode("ascii"))


def _write_octets(body: Body, _type: DataType, values: Values) -> None:
    null_count = body.start(values)
    held = [b"" if value is None else value for value in values] if null_count else values
    size_bytes = body.add_offsets(map(len, held), len(held))
    data = b"".join(held)
    if len(data) != size_bytes:  # memoryviews of wider items
        raise BadValue(f"expected bytes, got {size_bytes} items of {len(data)} bytes")
    body.add(data)


def _write_padded(body: Body, data_type: DataType, values: Values) -> None:
    assert data_type.length is not None
    width_bytes = data_type.length
    body.start(values)
    body.expect(width_bytes * len(values))  # Nulls take their width as well, which may be 2 GiB.
    null = bytes(width_bytes) if None in values else b""
    held = [null if value is None else value for value in values]
    sizes = list(map(len, held))
    if sizes.count(width_bytes) != len(sizes):
        wrong = next(size for size in sizes if size != width_bytes)
        raise BadValue(f"expected {width_bytes} bytes, got {wrong}")
    data = b"".join(held)
    if len(data) != width_bytes * len(held):
        raise BadValue(f"expected bytes, got items of {len(data)} bytes")
    body.add(data)


_WRITERS: Final[dict[str, Callable[[Body, DataType, Values], None]]] = {
    "BOOLEAN": _write_bits,
    "TIME_WITHOUT_TIME_ZONE": _write_in_units,
    "TIMESTAMP_WITHOUT_TIME_ZONE": _write_in_units,
    "TIMESTAMP_WITH_LOCAL_TIME_ZONE": _write_in_units,
    "DECIMAL": _write_decimals,
    "CHAR": _write_texts,
    "STRING": _write_texts,
    "BYTES": _write_octets,
    "BINARY": _write_padded,
}
"""Every other type that is not nested is a number of fixed width."""


# ---- types with types within ---------------------------------------------------------------------


def _write_list(body: Body, data_type: DataType, values: Values, depth: int) -> None:
    assert data_type.element is not None
    body.start(values)
    _write(body, data_type.element, _flat(body, values), depth)


def _write_map(body: Body, data_type: DataType, values: Values, depth: int) -> None:
    assert data_type.key is not None
    assert data_type.value is not None
    body.start(values)
    pairs = _flat(body, values)
    body.start(pairs)
    keys, held = zip(*pairs, strict=True) if pairs else ((), ())
    if None in keys:
        raise BadValue("a map: expected keys that are not null")
    _write(body, data_type.key, keys, depth)
    _write(body, data_type.value, held, depth)


def _flat(body: Body, values: Values) -> list[Any]:
    """Add the offsets of lists, and return their elements; a null has none."""
    held = [() if value is None else value for value in values]
    count = body.add_offsets(map(len, held), len(held))
    if count > body.left_values:
        raise BadValue(f"a batch: expected up to {ARROW_VALUES_MAX} values, got more")
    return list(chain.from_iterable(held))


def _write_row(body: Body, data_type: DataType, values: Values, depth: int) -> None:
    body.start(values)
    nulls = (None,) * len(data_type.fields)
    held = [nulls if value is None else value for value in values]
    if any(len(value) != len(nulls) for value in held):
        raise BadValue(f"a row: expected {len(nulls)} values in each")
    columns: Iterable[Values] = zip(*held, strict=True) if held else [()] * len(nulls)
    for field, column in zip(data_type.fields, columns, strict=True):
        _write(body, field.data_type, column, depth)


_NESTED: Final = {"ARRAY": _write_list, "MAP": _write_map, "ROW": _write_row}
