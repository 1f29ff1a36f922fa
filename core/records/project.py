"""Column projection of stored ARROW batches: byte slices and a new head, without decompression.

An Arrow record batch is a small flatbuffer of counts and offsets before a body of buffers. Projecting
it is choosing the buffers of the wanted top-level columns and writing a new flatbuffer; the body's bytes
are only referred to. Sources: sections 2.1-2.4 of the record formats. What a client stored may be
anything: bytes that are no such message raise NotProjectable, nothing else.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias

import attrs

from flussd.core.records.arrow.message import read_message, record_batch_metadata
from flussd.core.records.batch import BatchHead, read_head
from flussd.core.records.rows.atoms import BadRow

Layout: TypeAlias = tuple[tuple[int, int], ...]  # (nodes, buffers) of each top-level column
Bytes: TypeAlias = memoryview | bytes

NESTING_MAX: Final = 64
"""Types nested deeper than this are refused at creation; the walk has a bound of its own."""

APPEND_ONLY: Final = 1

WIDENING_MAX: Final = 8
"""Stored bytes that are read at most for each byte that a client may get."""

PROJECTED_BATCHES_MAX: Final = 256
"""Batches of one bucket in an answer of more bytes than were asked for: some 2 ms of work."""

_TWO_BUFFERS: Final = (1, 2)
_THREE_BUFFERS: Final = (1, 3)


class NotProjectable(ValueError):  # noqa: N818 - it says what the bytes are not
    """The stored bytes are not an Arrow record batch of the table's schema."""


class NotKnownYet(NotProjectable):
    """The batch is of a schema that is newer than all that are known: soon it will be."""


@attrs.frozen
class Projection:
    """The wanted *columns*, ascending, and the layout of every schema that a batch may have."""

    columns: tuple[int, ...]
    layouts: Mapping[int, Layout]

    @property
    def widening(self) -> int:
        """How many times the bytes that a client may get are read: few columns are left of them."""
        most = max(map(len, self.layouts.values()), default=1)
        return max(1, min(most // max(1, len(self.columns)), WIDENING_MAX))


def layout_of(columns: Sequence[Mapping[str, Any]]) -> Layout:
    """Return the layout of a schema's columns, given as in the schema JSON."""
    return tuple(_count(column["data_type"]) for column in columns)


def _count(data_type: Mapping[str, Any]) -> tuple[int, int]:
    """Return how many nodes and buffers a column of *data_type* has, nested ones included."""
    nodes = buffers = 0
    todo = [data_type]
    while todo:
        current = todo.pop()
        name = str(current["type"]).upper()
        own = _OWN.get(name, _TWO_BUFFERS)
        nodes, buffers = nodes + own[0], buffers + own[1]
        if name == "ARRAY":
            todo.append(current["element_type"])
        elif name == "MAP":
            todo += [current["key_type"], current["value_type"]]
        elif name == "ROW":
            todo += [field["field_type"] for field in current["fields"]]
    return nodes, buffers


_OWN: Final = {
    "CHAR": _THREE_BUFFERS,
    "STRING": _THREE_BUFFERS,
    "BYTES": _THREE_BUFFERS,
    "ARRAY": (1, 2),
    "MAP": (2, 3),  # the list, and the struct of its entries
    "ROW": (1, 1),
}
"""Nodes and buffers of a type itself; every other type has one node and two buffers."""


class Projections:
    """Applies projections to the bytes of a fetch answer."""

    def apply(self, chunks: Sequence[Bytes], projection: Projection, limit_bytes: int = 0) -> list[Bytes]:
        """Return the projected batches of *chunks*, each of which holds whole ones.

        With a limit, as many of the first ones as fit into *limit_bytes*, at least one. Those before
        the first whose schema is not known yet; NotKnownYet if that is the very first.
        """
        parts: list[Bytes] = []
        size_bytes = 0
        for count, (view, head) in enumerate(_batches(chunks)):
            try:
                batch = _project(view, head, projection)
            except NotKnownYet:
                if parts:
                    break  # the reader comes back for it
                raise
            size_bytes += sum(map(len, batch))
            if limit_bytes and count and (size_bytes > limit_bytes or count >= PROJECTED_BATCHES_MAX):
                break
            parts += batch
        return parts


def _batches(chunks: Sequence[Bytes]) -> Iterator[tuple[memoryview, BatchHead]]:
    for chunk in chunks:
        view = memoryview(chunk)
        for head in _heads(view):
            yield view, head


def _heads(view: memoryview) -> Iterator[BatchHead]:
    at = 0
    while at < len(view):
        head = read_head(view, at)
        if head is None or at + head.size_bytes > len(view):
            raise NotProjectable(f"no whole batch at {at}")
        yield head
        at += head.size_bytes


def _project(view: memoryview, head: BatchHead, projection: Projection) -> list[Bytes]:
    head_bytes = HEAD_BYTES[head.magic]
    batch = view[head.position : head.position + head.size_bytes]
    if len(batch) == head_bytes:
        return [batch]
    layout = projection.layouts.get(head.schema_id)
    if layout is None and head.schema_id > max(projection.layouts, default=0):
        raise NotKnownYet(f"schema {head.schema_id} of the table is not known here yet")
    if layout is None:
        raise NotProjectable(f"the table has no schema {head.schema_id}")
    statistics_bytes = struct.unpack_from("<i", batch, head_bytes - 4)[0] if head.magic else 0
    types_bytes = 0 if head.attributes & APPEND_ONLY else head.record_count
    arrow_at = head_bytes + statistics_bytes + types_bytes
    if statistics_bytes < 0 or arrow_at > len(batch):
        raise NotProjectable(f"statistics of {statistics_bytes} bytes in a batch of {len(batch)}")
    types = batch[head_bytes + statistics_bytes : arrow_at]
    metadata, body = _project_message(batch[arrow_at:], layout, projection.columns)
    new_head = bytearray(batch[:head_bytes])
    size_bytes = head_bytes + len(types) + len(metadata) + sum(map(len, body))
    struct.pack_into("<i", new_head, 8, size_bytes - 12)
    if head.magic:
        struct.pack_into("<i", new_head, head_bytes - 4, 0)  # statistics are not sent
    return [bytes(new_head), types, metadata, *body]


HEAD_BYTES: Final = (48, 52, 56)


def _project_message(
    message: memoryview, layout: Layout, columns: tuple[int, ...]
) -> tuple[bytes, list[Bytes]]:
    """Return the new encapsulated metadata, and the slices of the body that it describes."""
    try:
        batch, body = read_message(message)
    except BadRow as error:
        raise NotProjectable(str(error)) from error
    known = sum(nodes for nodes, _ in layout), sum(buffers for _, buffers in layout)
    if (len(batch.nodes), len(batch.buffers)) != known:
        got = len(batch.nodes), len(batch.buffers)
        raise NotProjectable(f"nodes and buffers: expected {known} for the schema, got {got}")
    nodes: list[tuple[int, int]] = []
    buffers: list[tuple[int, int]] = []
    slices: list[Bytes] = []
    offset = 0
    for first_node, node_count, first_buffer, buffer_count in _places(layout, columns):
        nodes += batch.nodes[first_node : first_node + node_count]
        for index in range(first_buffer, first_buffer + buffer_count):
            start, size_bytes = batch.buffers[index]
            last = index + 1 == len(batch.buffers)
            end = len(body) if last else batch.buffers[index + 1][0]
            if not 0 <= start <= end <= len(body):
                raise NotProjectable(f"buffer {index} at [{start}, {end}) of {len(body)}")
            buffers.append((offset, size_bytes))
            offset += end - start
            if end > start:
                slices.append(body[start:end])
    return record_batch_metadata(batch.row_count, nodes, buffers, offset, batch.codec), slices


def _places(layout: Layout, columns: tuple[int, ...]) -> Iterator[tuple[int, int, int, int]]:
    """Yield (first node, nodes, first buffer, buffers) of each wanted column that the schema has."""
    wanted = frozenset(columns)
    node = buffer = 0
    for column, (nodes, buffers) in enumerate(layout):
        if column in wanted:
            yield node, nodes, buffer, buffers
        node, buffer = node + nodes, buffer + buffers
