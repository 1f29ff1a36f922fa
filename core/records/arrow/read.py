"""Nodes and buffers of an Arrow body to values, a column at a time (record formats, 2.3).

Batches of any client are read: with or without compression, validity buffers, padding. Bytes that are no
such body are BadRow and nothing else. Nothing is allocated that the bytes, or the limits of a batch, do not
allow: parts of a buffer never overlap. About 0.1 us a value.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from itertools import pairwise
from operator import le
from typing import Any, Final

import attrs

from flussd.core.limits import ARROW_BODY_BYTES_MAX, ARROW_VALUES_MAX
from flussd.core.records.arrow.bits import read_bits
from flussd.core.records.arrow.compression import Expander
from flussd.core.records.arrow.message import Metadata
from flussd.core.records.arrow.units import stored_unit
from flussd.core.records.rows.atoms import CODES, DECIMAL_BYTES_MAX, BadRow, read_text
from flussd.core.records.types import NESTED, NESTING_MAX, DataType
from flussd.core.slices import Slices

Buffer = memoryview | bytes


@attrs.define(eq=False)
class Source:
    """The nodes and buffers of a message, taken one after the other."""

    metadata: Metadata
    body: memoryview
    expander: Expander
    node: int = 0
    buffer: int = 0
    left_values: int = attrs.Factory(lambda: ARROW_VALUES_MAX)

    @classmethod
    def of(cls, metadata: Metadata, body: memoryview) -> Source:
        """Return the source of a message's body. Raises BadRow."""
        return cls(metadata, body, Expander(metadata.codec, ARROW_BODY_BYTES_MAX))

    @property
    def is_spent(self) -> bool:
        """Whether all nodes and buffers were taken."""
        return (self.node, self.buffer) == (len(self.metadata.nodes), len(self.metadata.buffers))

    def next_node(self) -> tuple[int, int]:
        """Return how many values the next node has, and how many of them are null."""
        if self.node == len(self.metadata.nodes):
            raise BadRow(f"expected more nodes than {self.node}")
        count, null_count = self.metadata.nodes[self.node]
        self.node += 1
        if not 0 <= count <= self.left_values:
            raise BadRow(f"a node of {count} values: {self.left_values} are allowed")
        if not 0 <= null_count <= count:
            raise BadRow(f"a node of {count} values: {null_count} of them are null")
        self.left_values -= count
        return count, null_count

    def next_buffer(self, least_bytes: int = 0) -> Buffer:
        """Return the next buffer, expanded; it has *least_bytes* and maybe padding."""
        if self.buffer == len(self.metadata.buffers):
            raise BadRow(f"expected more buffers than {self.buffer}")
        start, size_bytes = self.metadata.buffers[self.buffer]
        if start < 0 or size_bytes < 0 or start + size_bytes > len(self.body):
            raise BadRow(
                f"buffer {self.buffer} at {start} of {size_bytes} bytes: {len(self.body)} are there"
            )
        self.buffer += 1
        data = self.expander.raw(self.body[start : start + size_bytes])
        if len(data) < least_bytes:
            raise BadRow(f"buffer {self.buffer - 1}: expected {least_bytes} bytes, got {len(data)}")
        return data

    def next_validity(self, count: int, null_count: int) -> list[bool] | None:
        """Return which values are there; None when all are, whatever the buffer says then."""
        data = self.next_buffer()
        if not null_count:
            return None
        if len(data) < (count + 7) // 8:
            raise BadRow(
                f"{null_count} nulls of {count} values: expected their bits, got {len(data)} bytes"
            )
        return read_bits(data, count)

    def next_offsets(self, count: int) -> tuple[int, ...]:
        """Return where *count* parts begin, and where the last one ends; they are in order."""
        if not count:
            self.next_buffer()  # maybe one offset, maybe none
            return (0,)
        offsets = struct.unpack_from(f"<{count + 1}i", self.next_buffer(4 * count + 4))
        if offsets[0] < 0 or not all(map(le, offsets, offsets[1:])):
            raise BadRow(f"offsets of {count} values: expected them in order")
        return offsets


def read_columns(types: Sequence[DataType], source: Source) -> Slices[list[list[Any]]]:
    """Return the values of each column; types behind the last column of the body have none. Raises BadRow.

    A body that was written with an older schema has fewer columns. Each is a slice.
    """
    columns: list[list[Any]] = []
    row_count = source.metadata.row_count
    for n, data_type in enumerate(types):
        if source.is_spent:
            break
        if n:
            yield
        try:
            values = _read(source, data_type, 0)
        except BadRow as error:
            raise BadRow(f"column {n} ({data_type.name}): {error}") from None
        if len(values) != row_count:
            raise BadRow(f"column {n} ({data_type.name}): expected {row_count} values, got {len(values)}")
        columns.append(values)
    if not source.is_spent:
        held = len(source.metadata.nodes), len(source.metadata.buffers)
        taken = source.node, source.buffer
        raise BadRow(f"nodes and buffers of {len(types)} columns: expected {taken}, got {held}")
    return columns


def _read(source: Source, data_type: DataType, depth: int) -> list[Any]:
    """Return the values of a column; *depth* types lie around it."""
    if data_type.name in NESTED and depth >= NESTING_MAX:
        raise BadRow(f"types are nested deeper than {NESTING_MAX}")
    count, null_count = source.next_node()
    validity = source.next_validity(count, null_count)
    if data_type.name in NESTED:
        values = _NESTED[data_type.name](source, data_type, count, depth + 1)
    else:
        values = _READERS.get(data_type.name, _read_fixed)(source, data_type, count)
    if validity is None:
        return values
    return [value if there else None for value, there in zip(values, validity, strict=True)]


# ---- scalars -------------------------------------------------------------------------------------


def _numbers(source: Source, code: str, count: int) -> tuple[Any, ...]:
    numbers = struct.Struct(f"<{count}{code}")
    return numbers.unpack_from(source.next_buffer(numbers.size))


def _read_fixed(source: Source, data_type: DataType, count: int) -> list[Any]:
    return list(_numbers(source, CODES[data_type.name], count))


def _read_in_units(source: Source, data_type: DataType, count: int) -> list[Any]:
    unit = stored_unit(data_type)
    numbers, up, down = _numbers(source, unit.code, count), unit.multiplier, unit.divisor
    if up != 1:
        return [number // up for number in numbers]
    return [number * down for number in numbers] if down != 1 else list(numbers)


def _read_bits(source: Source, _type: DataType, count: int) -> list[Any]:
    return read_bits(source.next_buffer((count + 7) // 8), count)


def _read_decimals(source: Source, _type: DataType, count: int) -> list[Any]:
    size_bytes = DECIMAL_BYTES_MAX * count
    data = source.next_buffer(size_bytes)[:size_bytes]
    return [high << 64 | low for low, high in struct.iter_unpack("<Qq", data)]


def _read_octets(source: Source, _type: DataType, count: int) -> list[Any]:
    offsets = source.next_offsets(count)
    data = bytes(source.next_buffer(offsets[-1]))
    return [data[start:end] for start, end in pairwise(offsets)]


def _read_texts(source: Source, _type: DataType, count: int) -> list[Any]:
    offsets = source.next_offsets(count)
    data = bytes(source.next_buffer(offsets[-1]))
    if not data.isascii():
        return [read_text(data[start:end]) for start, end in pairwise(offsets)]
    text = data.decode("ascii")
    return [text[start:end] for start, end in pairwise(offsets)]


def _read_padded(source: Source, data_type: DataType, count: int) -> list[Any]:
    assert data_type.length is not None
    width_bytes = data_type.length
    data = bytes(source.next_buffer(width_bytes * count))
    return [data[start : start + width_bytes] for start in range(0, width_bytes * count, width_bytes)]


_READERS: Final[dict[str, Callable[[Source, DataType, int], list[Any]]]] = {
    "BOOLEAN": _read_bits,
    "TIME_WITHOUT_TIME_ZONE": _read_in_units,
    "TIMESTAMP_WITHOUT_TIME_ZONE": _read_in_units,
    "TIMESTAMP_WITH_LOCAL_TIME_ZONE": _read_in_units,
    "DECIMAL": _read_decimals,
    "CHAR": _read_texts,
    "STRING": _read_texts,
    "BYTES": _read_octets,
    "BINARY": _read_padded,
}
"""Every other type that is not nested is a number of fixed width."""


# ---- types with types within ---------------------------------------------------------------------


def _read_list(source: Source, data_type: DataType, count: int, depth: int) -> list[Any]:
    assert data_type.element is not None
    offsets = source.next_offsets(count)
    elements = _read(source, data_type.element, depth)
    return _parts(offsets, elements)


def _parts(offsets: tuple[int, ...], elements: list[Any]) -> list[Any]:
    if offsets[-1] > len(elements):
        raise BadRow(f"lists of {offsets[-1]} elements: got {len(elements)}")
    return [elements[start:end] for start, end in pairwise(offsets)]


def _read_map(source: Source, data_type: DataType, count: int, depth: int) -> list[Any]:
    assert data_type.key is not None
    assert data_type.value is not None
    offsets = source.next_offsets(count)
    entry_count, null_count = source.next_node()
    source.next_validity(entry_count, 0)
    keys = _read(source, data_type.key, depth)
    values = _read(source, data_type.value, depth)
    if null_count or None in keys:
        raise BadRow("a map with a null key")
    if not entry_count == len(keys) == len(values):
        raise BadRow(f"maps of {entry_count} entries: got {len(keys)} keys and {len(values)} values")
    return _parts(offsets, list(zip(keys, values, strict=True)))


def _read_row(source: Source, data_type: DataType, count: int, depth: int) -> list[Any]:
    columns = [_read(source, field.data_type, depth) for field in data_type.fields]
    sizes = list(map(len, columns))
    if sizes.count(count) != len(sizes):
        raise BadRow(f"rows: expected {count} values in each field, got {sizes}")
    return list(zip(*columns, strict=True)) if columns else [()] * count


_NESTED: Final = {"ARRAY": _read_list, "MAP": _read_map, "ROW": _read_row}
