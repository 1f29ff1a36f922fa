"""Invariant tested: whatever bytes come as a row or a batch of rows, they are values or a named error.

    python fuzz/rows.py [SECONDS [SEED]]
    python fuzz/rows.py canary        (must fail: slots are believed to lie within their row on purpose)

Rows of random types are written in every format, then flipped, cut, lengthened or left alone. What was left
alone must be read as it was written, what was changed must be read as a row or be BadRow; no row may take
more memory than a multiple of its bytes. The same rows go through batches of PUT_KV and of log tables.
"""

from __future__ import annotations

import random
from typing import Any

from trials import run_trials

from flussd.core.records import batch as b
from flussd.core.records import kv_batch as kv
from flussd.core.records import row_batch as rb
from flussd.core.records.keys import key_encoder
from flussd.core.records.rows import slots
from flussd.core.records.rows.atoms import BadRow
from flussd.core.records.rows.codec import RowCodec, RowFormat, row_codec
from flussd.core.records.types import DataType, RowField

INTEGERS = {
    "TINYINT": 8,
    "SMALLINT": 16,
    "INTEGER": 32,
    "BIGINT": 64,
    "DATE": 32,
    "TIME_WITHOUT_TIME_ZONE": 32,
}
STAMPS = ("TIMESTAMP_WITHOUT_TIME_ZONE", "TIMESTAMP_WITH_LOCAL_TIME_ZONE")
SCALARS = (*INTEGERS, *STAMPS, "BOOLEAN", "FLOAT", "DOUBLE", "STRING", "CHAR", "BYTES", "BINARY", "DECIMAL")


def drawn_type(draw: random.Random, depth: int = 0) -> DataType:
    """Return any type, nested up to three levels."""
    if depth < 3 and draw.random() < 0.3:
        inner = [drawn_type(draw, depth + 1) for _ in range(draw.randrange(1, 4))]
        match draw.randrange(3):
            case 0:
                return DataType("ARRAY", element=inner[0])
            case 1:
                return DataType("MAP", key=inner[0], value=inner[-1])
        fields = tuple(RowField(f"f{n}", one, None, n) for n, one in enumerate(inner))
        return DataType("ROW", fields=fields)
    name = draw.choice(SCALARS)
    if name in ("CHAR", "BINARY"):
        return DataType(name, length=draw.randrange(1, 10))
    if name == "DECIMAL":
        return DataType(name, precision=draw.randrange(1, 39), scale=0)
    return DataType(name, precision=draw.randrange(10) if name in STAMPS else None)


def drawn_value(data_type: DataType, draw: random.Random) -> Any:
    """Return any value of a type that is not null."""
    name = data_type.name
    if name in INTEGERS:
        return draw.getrandbits(draw.choice((3, INTEGERS[name] - 1))) * draw.choice((1, -1))
    if name in STAMPS:
        fine = draw.getrandbits(draw.choice((10, 60)))
        return fine if data_type.precision and data_type.precision > 3 else fine // 10**6 * 10**6
    match name:
        case "BOOLEAN":
            return draw.random() < 0.5
        case "FLOAT" | "DOUBLE":
            return float(draw.getrandbits(20))
        case "STRING":
            return "text é " * draw.randrange(4)
        case "CHAR":
            return "c" * draw.randrange(1 + (data_type.length or 0))
        case "BINARY":
            return draw.randbytes(data_type.length or 0)
        case "BYTES":
            return draw.randbytes(draw.randrange(20))
        case "DECIMAL":
            return draw.randrange(10 ** (data_type.precision or 1)) * draw.choice((1, -1))
    if data_type.element is not None:
        return [drawn_or_null(data_type.element, draw) for _ in range(draw.choice((0, 1, 3, 40)))]
    if data_type.key is not None and data_type.value is not None:
        count = draw.randrange(4)
        return [
            (drawn_value(data_type.key, draw), drawn_or_null(data_type.value, draw)) for _ in range(count)
        ]
    return tuple(drawn_or_null(field.data_type, draw) for field in data_type.fields)


def drawn_or_null(data_type: DataType, draw: random.Random) -> Any:
    """Return null, or any value."""
    return None if draw.random() < 0.2 else drawn_value(data_type, draw)


def damage(data: bytearray, draw: random.Random) -> None:
    """Change *data* in one way."""
    at = draw.randrange(len(data) + 1)
    match draw.randrange(5):
        case 0 if at < len(data):
            data[at] ^= 1 << draw.randrange(8)
        case 1:
            del data[at:]
        case 2:
            data[at:at] = draw.randbytes(draw.randrange(20))
        case 3:
            # What a count, a size or an offset may be.
            data[at : at + 4] = draw.choice((-1, 1, 7, 1000, 2**31 - 1)).to_bytes(4, "little", signed=True)
        case _ if at < len(data):
            data[at] = draw.choice((0, 0x7F, 0x80, 0xFF))


def size_of(value: Any) -> int:
    """Return how much a value holds: its texts and bytes, and one for each value."""
    if isinstance(value, list | tuple):
        return 1 + sum(size_of(one) for one in value)
    return 1 + (len(value) if isinstance(value, str | bytes) else 0)


def read(codec: RowCodec, data: bytes) -> str:
    """Read what may be a row; return how that ended."""
    try:
        values = codec.decode(data)
    except BadRow:
        return "refused"
    # Each level of nesting copies its bytes once, and a null of a row is one bit.
    assert size_of(values) <= 5 * 8 * (len(data) + len(codec.types)), (size_of(values), len(data))
    return "read"


def through_batches(row: bytes, types: list[DataType], draw: random.Random) -> str:
    """Put a row into both kinds of batches, damage them, and read them again."""
    key = key_encoder(None, types[:1]).encode([drawn_value(types[0], draw)])
    sent = bytearray(kv.build_kv_batch([(key, row), (key, None)], schema_id=1))
    logged = bytearray(rb.build_row_batch([(rb.ChangeType.INSERT, row)] * 3, schema_id=1))
    changed = draw.random() < 0.8
    if changed:
        damage(sent, draw)
        damage(logged, draw)
    ended = "batches"
    try:
        records = kv.kv_records(memoryview(sent), kv.read_kv_head(memoryview(sent)))
        assert changed or records == [(key, row or None), (key, None)]
    except kv.BadKvBatch:
        assert changed
        ended = "batches refused"
    head = b.read_head(memoryview(logged), 0)
    if head is not None and head.size_bytes <= len(logged):
        try:
            rows = list(rb.row_records(memoryview(logged), head))
            assert changed or [(rb.ChangeType.INSERT, row)] * 3 == rows
        except BadRow:
            assert changed
    return ended


def trial(seed: int) -> str:
    """Read a row, whole or damaged; return how that ended."""
    draw = random.Random(seed)
    types = [drawn_type(draw) for _ in range(draw.randrange(1, 6))]
    values = tuple(drawn_or_null(one, draw) for one in types)
    codec = row_codec(draw.choice(list(RowFormat)), types)
    row = codec.encode(values)
    assert codec.decode(row) == values, (seed, codec.row_format, types)
    if draw.random() < 0.2:
        return through_batches(row, types, draw)
    data = bytearray(row)
    for _ in range(draw.choice((1, 1, 2, 5))):
        damage(data, draw)
    return read(codec, bytes(data))


def break_it() -> None:
    """Break the code under test, as the canary says."""
    slots._part = lambda data, offset, size_bytes, _spent: (data * size_bytes)[offset : offset + size_bytes]


if __name__ == "__main__":
    run_trials(trial, break_it)
