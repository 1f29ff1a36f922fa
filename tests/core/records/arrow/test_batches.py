"""ARROW batches of every type: what is written is read, here and by pyarrow, and the other way round."""

import struct
from decimal import Context, Decimal

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flussd.core.records import batch as b
from flussd.core.records.arrow.batches import (
    arrow_message,
    build_arrow_batch,
    read_arrow_message,
    read_arrow_rows,
)
from flussd.core.records.arrow.compression import Compression
from flussd.core.records.project import Projection, Projections, layout_of
from flussd.core.records.row_batch import ChangeType
from flussd.core.records.rows.atoms import BadRow, BadValue
from flussd.core.records.types import NESTING_MAX, DataType, RowField

COMPRESSIONS = pytest.mark.parametrize("compression", Compression)
OF_PYARROW = {Compression.NONE: None, Compression.LZ4_FRAME: "lz4", Compression.ZSTD: "zstd"}
TIME = "TIME_WITHOUT_TIME_ZONE"
STAMPS = ("TIMESTAMP_WITHOUT_TIME_ZONE", "TIMESTAMP_WITH_LOCAL_TIME_ZONE")
BITS = {"TINYINT": 8, "SMALLINT": 16, "INTEGER": 32, "BIGINT": 64}
INT, STRING, BIGINT, DOUBLE, BYTES = (
    DataType(name) for name in ("INTEGER", "STRING", "BIGINT", "DOUBLE", "BYTES")
)
NS_OF = (10**9, *[10**6] * 3, *[10**3] * 3, *[1] * 3)  # of a unit, by precision
UNITS = ("s", *["ms"] * 3, *["us"] * 3, *["ns"] * 3)


def row_type(*types):
    return DataType("ROW", fields=tuple(RowField(f"f{n}", one, None, n) for n, one in enumerate(types)))


def array(element):
    return DataType("ARRAY", element=element)


def map_type(key, value):
    return DataType("MAP", key=key, value=value)


# ---- any type, and any value of it ---------------------------------------------------------------

SCALARS = st.one_of(
    st.sampled_from(["BOOLEAN", *BITS, "FLOAT", "DOUBLE", "STRING", "BYTES", "DATE"]).map(DataType),
    st.integers(1, 9).map(lambda n: DataType("CHAR", length=4 * n)),
    st.integers(1, 9).map(lambda n: DataType("BINARY", length=n)),
    st.integers(1, 38).map(lambda n: DataType("DECIMAL", precision=n, scale=n // 2)),
    st.builds(lambda n: DataType(TIME, precision=n), st.integers(0, 9)),
    st.builds(lambda name, n: DataType(name, precision=n), st.sampled_from(STAMPS), st.integers(0, 9)),
)
TYPES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        inner.map(array),
        st.builds(map_type, inner, inner),
        st.lists(inner, max_size=3).map(lambda types: row_type(*types)),
    ),
    max_leaves=6,
)


def values_of(data_type):
    """Values of a type, null left out; times and timestamps have no finer digits than their unit."""
    name = data_type.name
    if name == "BOOLEAN":
        return st.booleans()
    if name in BITS or name == "DATE":
        most = 2 ** (BITS.get(name, 32) - 1)
        return st.integers(-most, most - 1)
    if name in ("FLOAT", "DOUBLE"):
        return st.floats(allow_nan=False, width=32 if name == "FLOAT" else 64)
    if name in ("CHAR", "STRING"):
        return st.text(st.characters(exclude_categories=["Cs"]), max_size=9) | st.text("ab", max_size=40)
    if name in ("BINARY", "BYTES"):
        size = data_type.length or 0
        return st.binary(min_size=size, max_size=size or 20)
    if name == "DECIMAL":
        most = 10**data_type.precision - 1
        return st.integers(-most, most)
    if name == TIME:
        return st.integers(0, 86_399).map(lambda n: n * 1000 + (data_type.precision > 0) * n % 1000)
    if name in STAMPS:
        unit = NS_OF[data_type.precision]
        return st.integers(-(2**62) // unit, 2**62 // unit).map(lambda n: n * unit)
    if name == "ARRAY":
        return st.lists(st.none() | values_of(data_type.element), max_size=10)
    if name == "MAP":
        pair = st.tuples(values_of(data_type.key), st.none() | values_of(data_type.value))
        return st.lists(pair, max_size=4)
    return rows_of([field.data_type for field in data_type.fields])


def rows_of(types):
    return st.tuples(*(st.none() | values_of(one) for one in types))


@st.composite
def tables(draw):
    """Some types, rows of them, and a change of each."""
    types = draw(st.lists(TYPES, min_size=1, max_size=5))
    rows = draw(st.lists(rows_of(types), min_size=1, max_size=20))
    changes = draw(st.lists(st.sampled_from(ChangeType), min_size=len(rows), max_size=len(rows)))
    return types, rows, changes


# ---- the same in pyarrow -------------------------------------------------------------------------

ARROW = {
    "BOOLEAN": pa.bool_(),
    "TINYINT": pa.int8(),
    "SMALLINT": pa.int16(),
    "INTEGER": pa.int32(),
    "BIGINT": pa.int64(),
    "FLOAT": pa.float32(),
    "DOUBLE": pa.float64(),
    "STRING": pa.string(),
    "CHAR": pa.string(),
    "BYTES": pa.binary(),
    "DATE": pa.date32(),
}


def arrow_type(data_type):
    name, precision = data_type.name, data_type.precision
    if name in ARROW:
        return ARROW[name]
    if name == "BINARY":
        return pa.binary(data_type.length)
    if name == "DECIMAL":
        return pa.decimal128(precision, data_type.scale)
    if name == TIME:
        return (pa.time32 if precision <= 3 else pa.time64)(UNITS[precision])
    if name in STAMPS:
        return pa.timestamp(UNITS[precision])
    if name == "ARRAY":
        return pa.list_(arrow_type(data_type.element))
    if name == "MAP":
        return pa.map_(arrow_type(data_type.key), arrow_type(data_type.value))
    return pa.struct([(field.name, arrow_type(field.data_type)) for field in data_type.fields])


def into_arrow(value, data_type):
    """A value as pyarrow takes it: numbers of the type's unit."""
    name = data_type.name
    if value is None:
        return None
    if name == "DECIMAL":
        return Decimal(value).scaleb(-data_type.scale, Context(prec=40))
    if name == TIME:
        return value * 10**6 // NS_OF[data_type.precision]
    if name in STAMPS:
        return value // NS_OF[data_type.precision]
    if name == "ARRAY":
        return [into_arrow(one, data_type.element) for one in value]
    if name == "MAP":
        return [(into_arrow(key, data_type.key), into_arrow(held, data_type.value)) for key, held in value]
    if name == "ROW":
        fields = zip(data_type.fields, value, strict=True)
        return {field.name: into_arrow(one, field.data_type) for field, one in fields}
    return value


def arrow_batch(types, rows):
    """The rows as pyarrow has them."""
    arrays = [
        pa.array([into_arrow(row[n], one) for row in rows], arrow_type(one)) for n, one in enumerate(types)
    ]
    return pa.record_batch(arrays, names=[str(n) for n in range(len(types))])


def of_pyarrow(batch, compression):
    """The encapsulated message of a batch, as pyarrow writes it."""
    options = pa.ipc.IpcWriteOptions(compression=OF_PYARROW[compression])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema, options=options) as writer:
        writer.write_batch(batch)
    stream = sink.getvalue().to_pybytes()
    return stream[8 + int.from_bytes(stream[4:8], "little") : -8]


def only_head(view):
    (head,) = b.scan_produced(memoryview(view)).heads
    return head


def message_of(data):
    """The message of a changelog batch of magic 0."""
    return data[48 + only_head(data).record_count :]


@COMPRESSIONS
@given(table=tables())
def test_what_is_written_is_read(compression, table):
    """Here and by pyarrow, which finds nothing wrong with it; whatever stands around it in its view."""
    types, rows, changes = table
    data = build_arrow_batch(types, rows, changes, schema_id=4, compression=compression, zstd_level=1)
    longer = memoryview(b"before" + data + data)

    assert list(zip(changes, rows, strict=True)) == read_arrow_rows(types, longer, b.read_head(longer, 6))
    expected = arrow_batch(types, rows)
    found = pa.ipc.read_record_batch(pa.py_buffer(message_of(data)), expected.schema)
    found.validate(full=True)
    assert expected.equals(found)


@COMPRESSIONS
@given(table=tables(), magic=st.sampled_from([0, 1, 2]), append_only=st.booleans())
def test_what_pyarrow_writes_is_read(compression, table, magic, append_only):
    """In batches of every magic, with and without statistics and changes, missing validity buffers."""
    types, rows, changes = table
    message = of_pyarrow(arrow_batch(types, rows), compression)
    data = b.build_batch(
        (b"" if append_only else bytes(changes)) + message,
        record_count=len(rows),
        magic=magic,
        append_only=append_only,
        statistics=b"some" if magic else b"",
    )
    told = [ChangeType.APPEND_ONLY] * len(rows) if append_only else changes

    assert list(zip(told, rows, strict=True)) == read_arrow_rows(types, memoryview(data), only_head(data))


@given(tables(), st.integers(1, 3))
def test_columns_that_came_later_are_null(table, count):
    """A batch of an older schema, read with the types of a newer one."""
    types, rows, changes = table
    data = build_arrow_batch(types, rows, changes, schema_id=1, compression=Compression.NONE)
    newer = [*types, *[array(INT)] * count]
    expected = [(change, (*row, *[None] * count)) for change, row in zip(changes, rows, strict=True)]

    assert expected == read_arrow_rows(newer, memoryview(data), only_head(data))
    if len(types) > 1:
        with pytest.raises(BadRow, match="nodes and buffers of 1 columns"):
            read_arrow_rows(types[:1], memoryview(data), only_head(data))


@given(tables(), st.sampled_from(Compression), st.data())
def test_projection_of_changelogs(table, compression, data):
    """The changes stay before the message, which has the wanted columns alone; for several batches."""
    types, rows, changes = table
    wanted = sorted(data.draw(st.sets(st.integers(0, len(types) - 1), min_size=1)))
    stored = build_arrow_batch(types, rows, changes, schema_id=3, compression=compression)
    empty = build_arrow_batch(types, [], [], schema_id=3)
    layout = layout_of([{"data_type": one.to_json()} for one in types])

    parts = Projections().apply([stored + empty, stored], Projection(tuple(wanted), {3: layout}))
    view = memoryview(b"".join(bytes(part) for part in parts))
    heads = list(b.heads_in(view))

    assert [len(rows), 0, len(rows)] == [head.record_count for head in heads]
    expected = [(change, tuple(row[n] for n in wanted)) for change, row in zip(changes, rows, strict=True)]
    left = [types[n] for n in wanted]
    assert [expected, [], expected] == [read_arrow_rows(left, view, head) for head in heads]


# ---- single cases --------------------------------------------------------------------------------


def test_the_head_of_a_changelog():
    """Magic 0, not append only, and the writer's numbers."""
    changes = [ChangeType.UPDATE_BEFORE, ChangeType.UPDATE_AFTER]
    data = build_arrow_batch([INT], [(1,), (2,)], changes, schema_id=5, writer_id=9, batch_sequence=4)
    head = only_head(data)

    assert (0, 0, 5, 0, 1, 9, 4, 2) == (head.magic, head.base_offset, *head[7:])
    assert b"\x02\x03\xff\xff\xff\xff" == data[48:54]


@COMPRESSIONS
def test_without_rows_it_is_a_head(compression):
    """And what pyarrow writes without rows is read as none."""
    data = build_arrow_batch([INT, array(STRING)], [], [], schema_id=1, compression=compression)
    other = b.build_batch(of_pyarrow(arrow_batch([INT], []), compression), record_count=0)

    assert 48 == len(data)
    assert [] == read_arrow_rows([INT], memoryview(data), only_head(data))
    assert [] == read_arrow_rows([INT], memoryview(other), only_head(other))


@COMPRESSIONS
def test_large_batches(compression):
    """Buffers beyond a block of LZ4, which are compressed where they shrink, and are raw where not."""
    rows = [(n, "text" * 20, bytes([n * n % 251, n % 256]) * 30) for n in range(20_000)]
    types = [INT, STRING, BYTES]
    data = build_arrow_batch(
        types, rows, [ChangeType.INSERT] * 20_000, schema_id=1, compression=compression
    )
    found = pa.ipc.read_record_batch(pa.py_buffer(message_of(data)), arrow_batch(types, rows[:1]).schema)

    assert (compression is Compression.NONE) == (len(data) > 2_000_000)
    assert rows == [row for _, row in read_arrow_rows(types, memoryview(data), only_head(data))]
    assert arrow_batch(types, rows).equals(found)


def test_slices_of_pyarrow():
    """Offsets and validity of a batch that is a part of another one."""
    types = [STRING, array(INT), DataType("BOOLEAN"), map_type(INT, STRING)]
    rows = [("x" * n, [n] * (n % 3), n % 2 == 0, [(n, None)]) for n in range(20)]
    rows[11] = (None,) * 4
    message = memoryview(of_pyarrow(arrow_batch(types, rows).slice(7, 9), Compression.NONE))

    assert rows[7:16] == read_arrow_message(types, message, 9)


def test_offsets_that_do_not_begin_at_zero():
    """As Arrow allows them; pyarrow never writes them."""
    message = bytearray(arrow_message([STRING], [("abc",), ("de",)], Compression.NONE))
    at = message.rindex(struct.pack("<3i", 0, 3, 5))
    struct.pack_into("<3i", message, at, 1, 3, 4)

    assert [("bc",), ("d",)] == read_arrow_message([STRING], memoryview(message), 2)


@given(st.lists(st.binary(max_size=6), min_size=1, max_size=5))
def test_texts_that_are_no_utf_8_stay_what_they_are(parts):
    """Their bytes come back, as in rows."""
    texts = [(part.decode("utf-8", "surrogateescape"),) for part in parts]
    message = arrow_message([STRING], texts)

    assert texts == read_arrow_message([STRING], memoryview(message), len(texts))
    assert arrow_message([BYTES], [(part,) for part in parts]) == message


def test_what_a_unit_is_too_coarse_for_is_cut_downwards():
    """Before 1970 as well; times have milliseconds alone."""
    types = [DataType(STAMPS[0], precision=n) for n in (0, 3, 6, 9)] + [DataType(TIME, precision=0)]
    message = arrow_message(types, [(-1, -1, -1, -1, 1999), (1, 1, 1, 1, 0)])
    expected = [(-(10**9), -(10**6), -(10**3), -1, 1000), (0, 0, 0, 1, 0)]

    assert expected == read_arrow_message(types, memoryview(message), 2)


WRONG = st.sampled_from(
    [2**70, -(2**200), 1e300, -1, 300, True, "text", "\ud800", "x" * 50, b"bytes", [1], [None], (1, 2), {}]
) | st.sampled_from([[(None, 1)], [("a", 1, 2)], object(), [["a"]]])


@given(TYPES, WRONG)
def test_values_of_another_type(data_type, value):
    """Bytes or BadValue, and nothing else."""
    try:
        told = arrow_message([data_type], [(value,), (None,)])[:4]
    except BadValue as bad:
        told = str(bad)

    assert told == b"\xff" * 4 or told.startswith("column 0 (")


@pytest.mark.parametrize(
    ("data_type", "value", "text"),
    [
        (INT, 2**31, r"column 0 \(INTEGER\): "),
        (DataType(STAMPS[0], precision=9), 2**63, r"column 0 \(TIMESTAMP_WITHOUT_TIME_ZONE\): "),
        (DataType("DECIMAL", precision=38, scale=0), 2**127, r"column 0 \(DECIMAL\): "),
        (DataType("BINARY", length=4), b"abc", r"column 0 \(BINARY\): expected 4 bytes, got 3"),
        (map_type(INT, INT), [(None, 1)], "expected keys that are not null"),
        (row_type(INT, INT), (1,), "a row: expected 2 values in each"),
        (BYTES, memoryview(bytes(8)).cast("i"), "expected bytes, got 2 items of 8 bytes"),
    ],
)
def test_errors_tell_the_column(data_type, value, text):
    """What does not fit, and where."""
    with pytest.raises(BadValue, match=text):
        arrow_message([data_type], [(value,)])


def test_rows_of_another_length():
    """Too few values and too many."""
    for row in [(1,), (1, 2, 3)]:
        with pytest.raises(BadValue, match=f"a row: expected 2 values, got {len(row)}"):
            arrow_message([INT, INT], [(1, 2), row])


def test_types_as_deep_as_a_table_may_have_them():
    """As deep as allowed, one level more is refused by both sides."""
    for depth in (NESTING_MAX, NESTING_MAX + 1):
        data_type, value = INT, 7
        for n in range(depth):
            data_type, value = (array(data_type), [value]) if n % 2 else (row_type(data_type), (value,))
        if depth <= NESTING_MAX:
            message = memoryview(arrow_message([data_type], [(value,), (None,)]))

            assert [(value,), (None,)] == read_arrow_message([data_type], message, 2)
            continue
        with pytest.raises(BadValue, match=f"deeper than {NESTING_MAX}"):
            arrow_message([data_type], [(value,)])
        with pytest.raises(BadRow, match="column 0"):
            read_arrow_message([data_type], message, 2)
