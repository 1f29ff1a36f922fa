"""Invariant tested: whatever bytes come as an ARROW batch, they are its rows or a named error.

    python fuzz/arrow_batches.py [SECONDS [SEED]]
    python fuzz/arrow_batches.py canary        (must fail: buffers are believed to be long enough)

Rows of random types are written with every compression, then flipped, cut, lengthened or left alone. What
was left alone must be read as it was written, what was changed must be read as that many rows or be BadRow;
no batch may become more values than a multiple of its bytes, or of what its buffers were compressed to.
"""

from __future__ import annotations

import random
import struct

import attrs
from rows import STAMPS, damage, drawn_or_null, drawn_type, size_of
from trials import run_trials

from flussd.core.limits import ARROW_VALUES_MAX
from flussd.core.records import batch as b
from flussd.core.records.arrow import read
from flussd.core.records.arrow.batches import build_arrow_batch, read_arrow_rows
from flussd.core.records.arrow.compression import Compression
from flussd.core.records.project import NotProjectable, Projection, Projections, layout_of
from flussd.core.records.row_batch import ChangeType
from flussd.core.records.rows.atoms import BadRow
from flussd.core.records.types import DataType

TIME = "TIME_WITHOUT_TIME_ZONE"
EXPANSION_MAX = 40_000
"""What ZSTD and LZ4 make of a byte at most, in values of a bit each."""


def exact(data_type: DataType) -> DataType:
    """Return the type with a precision that cuts no digit of the values that `rows` draws."""
    if data_type.name == TIME:
        return attrs.evolve(data_type, precision=6)
    if data_type.name in STAMPS:
        return attrs.evolve(data_type, precision=9)
    inner = {
        name: exact(one)
        for name in ("element", "key", "value")
        if (one := getattr(data_type, name)) is not None
    }
    fields = tuple(attrs.evolve(field, data_type=exact(field.data_type)) for field in data_type.fields)
    return attrs.evolve(data_type, fields=fields, **inner)


def projected(data: bytes, types: list[DataType], draw: random.Random) -> None:
    """Project what may be a batch; it is bytes, or refused."""
    layout = layout_of([{"data_type": one.to_json()} for one in types])
    try:
        Projections().apply([data], Projection((draw.randrange(len(types)),), {1: layout}))
    except NotProjectable:
        return


def trial(seed: int) -> str:
    """Read a batch, whole or damaged; return how that ended."""
    draw = random.Random(seed)
    types = [exact(drawn_type(draw)) for _ in range(draw.randrange(1, 6))]
    rows = [tuple(drawn_or_null(one, draw) for one in types) for _ in range(draw.choice((1, 3, 40)))]
    changes = [draw.choice(list(ChangeType)) for _ in rows]
    compression = draw.choice(list(Compression))
    data = bytearray(build_arrow_batch(types, rows, changes, schema_id=1, compression=compression))
    records = list(zip(changes, rows, strict=True))
    view = memoryview(bytes(data))
    head = b.read_head(view, 0)
    assert head is not None
    assert records == read_arrow_rows(types, view, head), (seed, types)
    damaged = data[b.HEAD_BYTES[0] :]
    for _ in range(draw.choice((1, 1, 2, 5))):
        damage(damaged, draw)
    data[b.HEAD_BYTES[0] :] = damaged
    struct.pack_into("<i", data, b.LENGTH_AT, len(data) - b.BEFORE_LENGTH_BYTES)
    projected(bytes(data), types, draw)
    view = memoryview(bytes(data))
    try:
        found = read_arrow_rows(types, view, head._replace(size_bytes=len(data)))
    except BadRow:
        return "refused"
    assert len(found) == len(rows), (seed, len(found))
    size = sum(size_of(row) for _, row in found)
    assert size <= min(8 * ARROW_VALUES_MAX, EXPANSION_MAX * len(data)), (seed, size)
    return "read"


def break_it() -> None:
    """Break the code under test, as the canary says."""
    next_buffer = read.Source.next_buffer
    read.Source.next_buffer = lambda source, _least_bytes=0: next_buffer(source)  # type: ignore[method-assign]


if __name__ == "__main__":
    run_trials(trial, break_it)
