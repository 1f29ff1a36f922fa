"""Column projection: against what the Java server did, and against pyarrow."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flussd.core.records.batch import build_batch, read_head
from flussd.core.records.project import NotProjectable, Projection, Projections, layout_of

COLUMNS = {
    "INTEGER": pa.int32(),
    "STRING": pa.string(),
    "DECIMAL": pa.decimal128(12, 2),
    "BOOLEAN": pa.bool_(),
    "BYTES": pa.binary(),
}
NESTED = [
    ({"type": "ARRAY", "element_type": {"type": "STRING"}}, pa.list_(pa.string()), [["a", None], None, []]),
    (
        {"type": "MAP", "key_type": {"type": "STRING"}, "value_type": {"type": "BIGINT"}},
        pa.map_(pa.string(), pa.int64()),
        [[("k", 1)], None, []],
    ),
    (
        {
            "type": "ROW",
            "fields": [
                {"name": "x", "field_type": {"type": "INTEGER"}},
                {"name": "y", "field_type": {"type": "STRING"}},
            ],
        },
        pa.struct([("x", pa.int32()), ("y", pa.string())]),
        [{"x": 1, "y": "a"}, None, {"x": None, "y": None}],
    ),
]
PLAIN = [
    ({"type": "INTEGER"}, pa.int32(), [1, None, 3]),
    ({"type": "STRING"}, pa.string(), ["a", None, "longer value"]),
    ({"type": "BYTES"}, pa.binary(), [b"", b"xy", None]),
    ({"type": "BOOLEAN"}, pa.bool_(), [True, None, False]),
]


def _payload(kinds, compression):
    arrays = [pa.array(values, type=kind) for _, kind, values in kinds]
    names = [str(n) for n in range(len(kinds))]
    batch = pa.record_batch(arrays, names=names)
    options = pa.ipc.IpcWriteOptions(compression=compression)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema, options=options) as writer:
        writer.write_batch(batch)
    stream = sink.getvalue().to_pybytes()
    schema_bytes = 8 + int.from_bytes(stream[4:8], "little")
    return stream[schema_bytes:-8], batch


@pytest.mark.parametrize("compression", [None, "zstd"])
@pytest.mark.parametrize("magic", [0, 1])
@given(st.data())
def test_any_columns_of_any_types(compression, magic, data):
    """What pyarrow reads from the projected batch are the chosen columns, unchanged."""
    kinds = data.draw(st.lists(st.sampled_from(PLAIN + NESTED), min_size=1, max_size=6))
    wanted = sorted(data.draw(st.sets(st.integers(0, len(kinds) - 1), min_size=1)))
    payload, batch = _payload(kinds, compression)
    stored = build_batch(payload, record_count=3, magic=magic, base_offset=40)
    layout = layout_of([{"data_type": kind} for kind, _, _ in kinds])

    parts = Projections().apply([stored, stored], Projection(tuple(wanted), {1: layout}))

    joined = b"".join(bytes(part) for part in parts)
    head = read_head(memoryview(joined), 0)
    assert len(joined) == 2 * head.size_bytes
    assert (40, 3) == (head.base_offset, head.record_count)
    arrow = joined[48 + 4 * magic : head.size_bytes]
    schema = pa.schema([batch.schema.field(n) for n in wanted])
    assert batch.select(wanted) == pa.ipc.read_record_batch(pa.py_buffer(arrow), schema)


def test_projection_is_what_the_java_server_sends():
    """Vector V451: a changelog batch projected to its second column; the flatbuffer's layout is ours."""
    vectors = json.loads((Path(__file__).resolve().parents[2] / "data/vectors.json").read_text())
    vector = next(v for v in vectors["vectors"] if v["id"] == "V451")
    stored, expected = (
        bytes.fromhex(vector["input"]["batch_hex"]),
        bytes.fromhex(vector["expected"]["batch_hex"]),
    )
    layout = layout_of([{"data_type": {"type": "INTEGER"}}, {"data_type": {"type": "STRING"}}])

    parts = Projections().apply([stored], Projection((1,), {1: layout}))

    joined = b"".join(bytes(part) for part in parts)
    assert expected[:8] == joined[:8]
    assert expected[12:51] == joined[12:51]  # the head behind the length, and the change types
    body = bytes.fromhex(vector["expected"]["body_hex"])
    assert joined.endswith((body, body.rstrip(b"\0")))
    schema = pa.schema([("b", pa.string())])
    ours = pa.ipc.read_record_batch(pa.py_buffer(joined[51:]), schema)
    assert ["a", None, "longer value"] == ours.column(0).to_pylist()


@given(st.binary(max_size=300), st.integers(0, 40))
def test_what_is_no_arrow_message_is_refused(payload, count):
    """Arbitrary payloads: NotProjectable or bytes, never another exception."""
    stored = build_batch(payload, record_count=count)
    try:
        Projections().apply(
            [stored], Projection((0,), {1: layout_of([{"data_type": {"type": "INTEGER"}}])})
        )
    except NotProjectable:
        return
    assert not payload


@given(st.data())
def test_a_flipped_byte_is_refused_or_projected(data):
    """Damage in the metadata of a real message never raises anything else."""
    payload, _ = _payload(PLAIN, None)
    bad = bytearray(payload)
    bad[data.draw(st.integers(0, 300)) % len(bad)] = data.draw(st.integers(0, 255))
    layout = layout_of([{"data_type": kind} for kind, _, _ in PLAIN])
    try:
        Projections().apply([build_batch(bytes(bad), record_count=3)], Projection((0, 2), {1: layout}))
    except NotProjectable:
        return
