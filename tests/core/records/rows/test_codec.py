"""Rows of every type in every format: what is written is read, and what is damaged is BadRow alone."""

import datetime as dt
import math
import random
import struct
import tracemalloc
from decimal import Decimal

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flussd.core.records.rows.atoms import BadRow, BadValue
from flussd.core.records.rows.codec import RowFormat, decode_row, encode_row, row_codec
from flussd.core.records.types import NESTING_MAX, DataType, RowField

FORMATS = pytest.mark.parametrize("row_format", RowFormat)
TIME = "TIME_WITHOUT_TIME_ZONE"
STAMPS = ("TIMESTAMP_WITHOUT_TIME_ZONE", "TIMESTAMP_WITH_LOCAL_TIME_ZONE")
BITS = {"TINYINT": 8, "SMALLINT": 16, "INTEGER": 32, "BIGINT": 64}
MS = 10**6
INT, STRING, BIGINT, DOUBLE = (DataType(name) for name in ("INTEGER", "STRING", "BIGINT", "DOUBLE"))


def row_type(*types):
    return DataType("ROW", fields=tuple(RowField(f"f{n}", one, None, n) for n, one in enumerate(types)))


def array(element):
    return DataType("ARRAY", element=element)


# ---- any type, and any value of it ---------------------------------------------------------------

SCALARS = st.one_of(
    st.sampled_from(["BOOLEAN", *BITS, "FLOAT", "DOUBLE", "STRING", "BYTES", "DATE"]).map(DataType),
    st.integers(1, 9).map(lambda n: DataType("CHAR", length=4 * n)),
    st.integers(1, 9).map(lambda n: DataType("BINARY", length=n)),
    st.integers(1, 38).flatmap(
        lambda n: st.integers(0, n).map(lambda scale: DataType("DECIMAL", precision=n, scale=scale))
    ),
    st.builds(lambda n: DataType(TIME, precision=n), st.integers(0, 9)),
    st.builds(lambda name, n: DataType(name, precision=n), st.sampled_from(STAMPS), st.integers(0, 9)),
)
TYPES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        inner.map(array),
        st.builds(lambda key, value: DataType("MAP", key=key, value=value), inner, inner),
        st.lists(inner, max_size=3).map(lambda types: row_type(*types)),
    ),
    max_leaves=6,
)


def values_of(data_type):
    """Values of a type, null left out; those of floats are numbers."""
    name = data_type.name
    if name == "BOOLEAN":
        return st.booleans()
    if name in BITS:
        most = 2 ** (BITS[name] - 1)
        return st.integers(-3, 300).filter(lambda n: n < most) | st.integers(-most, most - 1)
    if name in ("FLOAT", "DOUBLE"):
        return st.floats(allow_nan=False, width=32 if name == "FLOAT" else 64)
    if name in ("CHAR", "STRING"):
        most = data_type.length // 4 if name == "CHAR" else 200
        return st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=most)
    if name in ("BINARY", "BYTES"):
        size = data_type.length or 0
        return st.binary(min_size=size, max_size=size or 20)
    if name == "DECIMAL":
        most = 10**data_type.precision - 1
        return st.integers(-most, most)
    if name == "DATE":
        return st.integers(-700_000, 2_900_000)  # the years of Python
    if name == TIME:
        return st.integers(0, 86_400_000 - 1)
    if name in STAMPS:
        fine = st.integers(-(2**62), 2**62)  # what Arrow has in nanoseconds
        return fine if data_type.precision > 3 else fine.map(lambda ns: ns // MS * MS)
    if name == "ARRAY":
        return st.lists(st.none() | values_of(data_type.element), max_size=40)
    if name == "MAP":
        pair = st.tuples(values_of(data_type.key), st.none() | values_of(data_type.value))
        return st.lists(pair, max_size=5)
    return rows_of([field.data_type for field in data_type.fields])


def rows_of(types):
    return st.tuples(*(st.none() | values_of(one) for one in types))


@st.composite
def typed_rows(draw, types=TYPES):
    """Some types, and a row of them."""
    drawn = draw(st.lists(types, min_size=1, max_size=12))
    return drawn, draw(rows_of(drawn))


@given(typed_rows())
def test_every_format_gives_back_what_it_was_given(given_row):
    """The values, in every format; so all of them agree."""
    types, values = given_row
    for row_format in RowFormat:
        codec = row_codec(row_format, types)
        data = codec.encode(values)

        assert values == codec.decode(data) == codec.decode(memoryview(bytearray(data)))
        assert data == codec.encode(codec.decode(data))


@given(typed_rows(), st.data())
def test_columns_alone(given_row, data):
    """Any positions in any order, some of them twice, some behind the last column."""
    types, values = given_row
    columns = data.draw(st.lists(st.integers(0, len(types) + 1), max_size=6))
    padded = (*values, None, None)
    for row_format in RowFormat:
        row = encode_row(row_format, types, values)

        assert tuple(padded[n] for n in columns) == row_codec(row_format, types, columns).decode(row)


# ---- pyarrow has the same values -----------------------------------------------------------------

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
    TIME: pa.time32("ms"),
}


def arrow_type(data_type):
    name = data_type.name
    if name in ARROW:
        return ARROW[name]
    if name == "BINARY":
        return pa.binary(data_type.length)
    if name == "DECIMAL":
        return pa.decimal128(data_type.precision, data_type.scale)
    if name in STAMPS:
        return pa.timestamp("ns" if data_type.precision > 3 else "ms")
    if name == "ARRAY":
        return pa.list_(arrow_type(data_type.element))
    if name == "MAP":
        return pa.map_(arrow_type(data_type.key), arrow_type(data_type.value))
    return pa.struct([(field.name, arrow_type(field.data_type)) for field in data_type.fields])


def into_arrow(value, data_type):
    name = data_type.name
    if value is None:
        return None
    if name == "DECIMAL":
        return Decimal((int(value < 0), tuple(map(int, str(abs(value)))), -data_type.scale))
    if name in STAMPS and data_type.precision <= 3:
        return value // MS
    if name == "ARRAY":
        return [into_arrow(one, data_type.element) for one in value]
    if name == "MAP":
        return [(into_arrow(key, data_type.key), into_arrow(held, data_type.value)) for key, held in value]
    if name == "ROW":
        return {
            f.name: into_arrow(one, f.data_type) for f, one in zip(data_type.fields, value, strict=True)
        }
    return value


def out_of_arrow(value, data_type):
    name = data_type.name
    if value is None:
        return None
    if name == "DECIMAL":
        return int(Decimal(value.as_tuple()._replace(exponent=0)))
    if name == "DATE":
        return (value - dt.date(1970, 1, 1)).days
    if name == TIME:
        return ((value.hour * 60 + value.minute) * 60 + value.second) * 1000 + value.microsecond // 1000
    if name in STAMPS:
        if data_type.precision > 3:
            return value.value  # of pandas, which has nanoseconds
        return (value - dt.datetime(1970, 1, 1)) // dt.timedelta(milliseconds=1) * MS  # noqa: DTZ001
    if name == "ARRAY":
        return [out_of_arrow(one, data_type.element) for one in value]
    if name == "MAP":
        return [
            (out_of_arrow(key, data_type.key), out_of_arrow(one, data_type.value)) for key, one in value
        ]
    if name == "ROW":
        return tuple(out_of_arrow(value[f.name], f.data_type) for f in data_type.fields)
    return value


@given(typed_rows(), st.sampled_from(RowFormat))
def test_arrow_has_the_same_values(given_row, row_format):
    """A row of any format, put into Arrow and taken out of it, is the same row."""
    types, values = given_row
    decoded = decode_row(row_format, types, encode_row(row_format, types, values))
    arrays = [
        pa.array([into_arrow(value, one)], arrow_type(one))
        for value, one in zip(decoded, types, strict=True)
    ]

    assert values == tuple(
        out_of_arrow(one.to_pylist()[0], kind) for one, kind in zip(arrays, types, strict=True)
    )


# ---- damage --------------------------------------------------------------------------------------


def read_or_refused(codec, data):
    """The values, or None if the bytes are refused; anything else is an error of ours."""
    try:
        values = codec.decode(data)
    except BadRow:
        return None
    assert isinstance(values, tuple)
    assert len(codec.types) == len(values)
    return values


@given(typed_rows(), st.sampled_from(RowFormat))
def test_every_cut_is_refused_or_padding(given_row, row_format):
    """No cut row is read whole; only zeros behind the last value of an aligned one may be missing."""
    types, values = given_row
    codec = row_codec(row_format, types)
    data = codec.encode(values)
    for cut in range(len(data)):
        found = read_or_refused(codec, data[:cut])

        assert found is None or (row_format is RowFormat.ALIGNED and found == values)


@given(typed_rows(), st.sampled_from(RowFormat), st.randoms(use_true_random=False))
def test_flipped_bits(given_row, row_format, draw):
    """A value or BadRow, and what was read can be written again, or is no value of its type."""
    types, values = given_row
    codec = row_codec(row_format, types)
    data = codec.encode(values)
    for _ in range(20):
        flipped = bytearray(data)
        for _ in range(draw.choice((1, 1, 2, 8))):
            flipped[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        found = read_or_refused(codec, bytes(flipped))
        if found is not None:
            codec.encode(found)


@given(st.lists(TYPES, max_size=10), st.sampled_from(RowFormat), st.binary(max_size=200))
def test_any_bytes(types, row_format, data):
    """Of any types; some columns alone as well."""
    read_or_refused(row_codec(row_format, types), data)
    try:
        row_codec(row_format, types, [0, 3]).decode(data)
    except BadRow:
        return


WRONG = st.sampled_from(
    [2**70, -(2**200), 1e300, -1, 300, True, "text", "\ud800", "x" * 50, b"bytes", [1], [None], (1, 2), {}]
) | st.sampled_from([[(None, 1)], [("a", 1, 2)], object(), [["a"]], [2**40]])


@given(TYPES, st.sampled_from(RowFormat), WRONG)
def test_values_of_another_type(data_type, row_format, value):
    """Bytes or BadValue."""
    try:
        data = encode_row(row_format, [data_type], [value])
    except BadValue as bad:
        data = str(bad)

    assert isinstance(data, bytes) or data.startswith("column 0 (")


@FORMATS
def test_a_row_of_another_length(row_format):
    """Too few values and too many; too many bytes, but for padding."""
    with pytest.raises(BadValue, match="a row: expected 2 values, got 1"):
        encode_row(row_format, [INT, INT], [1])
    with pytest.raises(BadValue, match="a row: expected 2 values, got 3"):
        encode_row(row_format, [INT, INT], [1, 2, 3])
    if row_format is not RowFormat.ALIGNED:
        data = encode_row(row_format, [INT], [1])
        with pytest.raises(
            BadRow, match=f"a row of 1 columns: expected {len(data)} bytes, got {len(data) + 1}"
        ):
            decode_row(row_format, [INT], data + b"\0")


@FORMATS
def test_errors_tell_the_column(row_format):
    """Where the row ends, and what does not fit."""
    types = [INT, array(STRING), BIGINT]
    data = encode_row(row_format, types, (1, ["longer than seven"], 2))
    with pytest.raises(BadValue, match=r"column 2 \(BIGINT\): "):
        encode_row(row_format, types, (1, [], 2**63))
    with pytest.raises(BadRow, match=r"column 1 of 3|row of 3 columns"):
        decode_row(row_format, types, data[:20])


# ---- what is hostile -----------------------------------------------------------------------------


def wrapped(row_format, data):
    """An array's bytes as the only value of a row."""
    if row_format is RowFormat.COMPACTED:
        size = len(data)
        groups = []
        while size > 0x7F:
            groups.append(size & 0x7F | 0x80)
            size >>= 7
        return b"\0" + bytes((*groups, size)) + data
    if row_format is RowFormat.INDEXED:
        return b"\0" + struct.pack("<i", len(data)) + data
    return bytes(8) + struct.pack("<ii", len(data), 16) + data


@FORMATS
@pytest.mark.parametrize("count", [-1, 4, 2**31 - 1, -(2**31)])
def test_counts_beyond_the_bytes(row_format, count):
    """Refused before anything is made of them, whatever the elements are."""
    data = wrapped(row_format, struct.pack("<i", count) + bytes(12))
    for element in ("BOOLEAN", "STRING", "BIGINT"):
        if (count, element) == (4, "BOOLEAN"):
            continue  # these fit
        with pytest.raises(BadRow, match=f"an array of {count} elements in 16 bytes"):
            decode_row(row_format, [array(DataType(element))], data)


@FORMATS
def test_slots_that_share_their_bytes(row_format):
    """Ten thousand slots that name the same 100 kB would be a gigabyte: refused before that."""
    count, size = 10_000, 100_000
    start = 4 + (count + 31) // 32 * 4
    start += -start % 8
    slots = struct.pack("<ii", size, start + 8 * count) * count
    data = struct.pack("<i", count) + bytes(start - 4) + slots + bytes(size)
    row = wrapped(row_format, data)
    codec = row_codec(row_format, [array(STRING)])
    tracemalloc.start()
    with pytest.raises(BadRow, match="they overlap"):
        codec.decode(row)
    _, most_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert most_bytes < 10 * len(row)


@FORMATS
def test_rows_within_rows_are_made_once(row_format):
    """Thirty levels of rows; two codecs for each level would be a thousand million."""
    data_type, value = INT, 7
    for _ in range(NESTING_MAX - 2):
        data_type, value = row_type(data_type), (value,)
    row = encode_row(row_format, [data_type], (value,))

    assert (value,) == decode_row(row_format, [data_type], row)


@FORMATS
def test_types_as_deep_as_a_table_may_have_them(row_format):
    """As deep as allowed, one level more is refused."""
    for depth in (NESTING_MAX, NESTING_MAX + 1):
        data_type, value = INT, 7
        for n in range(depth):
            data_type, value = (array(data_type), [value]) if n % 2 else (row_type(data_type), (value,))
        if depth > NESTING_MAX:
            with pytest.raises(BadValue, match=f"deeper than {NESTING_MAX}"):
                row_codec(row_format, [data_type])
        else:
            row = encode_row(row_format, [data_type], (value,))
            assert (value,) == decode_row(row_format, [data_type], row)


@FORMATS
def test_maps_that_are_none(row_format):
    """Another number of values than of keys; a null key, read and written."""
    three, two = (encode_row(RowFormat.INDEXED, [array(INT)], ([7] * n,))[5:] for n in (3, 2))
    null = encode_row(RowFormat.INDEXED, [array(INT)], ([None, 7],))[5:]
    kind = [DataType("MAP", key=INT, value=INT)]
    for keys, values, text in ((three, two, "a map of 3 keys"), (null, two, "a null key")):
        data = struct.pack("<i", len(keys)) + keys + values
        with pytest.raises(BadRow, match=text):
            decode_row(row_format, kind, wrapped(row_format, data))
    for size in (-1, 1000):
        with pytest.raises(BadRow, match=f"a map with {size} bytes of keys"):
            decode_row(row_format, kind, wrapped(row_format, struct.pack("<i", size) + three + three))
    with pytest.raises(BadValue, match="keys that are not null"):
        encode_row(row_format, kind, [[(None, 1)]])


# ---- single types --------------------------------------------------------------------------------


@FORMATS
@given(st.binary(max_size=20))
def test_texts_that_are_no_utf_8_stay_what_they_are(row_format, data):
    """Their bytes come back, as from the Java server, which looks into no text."""
    row = encode_row(row_format, [DataType("BYTES")], [data])
    (text,) = decode_row(row_format, [STRING], row)

    assert row == encode_row(row_format, [STRING], [text])


@FORMATS
def test_not_a_number(row_format):
    """In a column and in an array, where every one of them becomes that of Java."""
    odd = struct.unpack("<d", struct.pack("<Q", 0xFFF8_0000_0000_0001))[0]
    types = [DOUBLE, array(DOUBLE), array(DataType("FLOAT"))]
    data = encode_row(row_format, types, (odd, [odd], [odd]))
    alone, doubles, floats = decode_row(row_format, types, data)

    assert all(math.isnan(value) for value in (alone, *doubles, *floats))
    assert struct.pack("<Q", 0x7FF8_0000_0000_0000) in data
    assert struct.pack("<I", 0x7FC0_0000) in data


@FORMATS
def test_finer_digits_are_cut(row_format):
    """Down, before 1970 as well, where a timestamp has milliseconds alone."""
    types = [DataType(STAMPS[0], precision=n) for n in (3, 4)]
    data = encode_row(row_format, types, (-1, -1))

    assert (-MS, -1) == decode_row(row_format, types, data)


def test_a_nanosecond_beyond_its_millisecond():
    """In the formats that have the two apart."""
    kind = [DataType(STAMPS[0], precision=9)]
    bad = struct.pack("<qi", 5, MS)
    compacted = bytes((0, 5)) + bytes((0x80 | MS & 0x7F, 0x80 | MS >> 7 & 0x7F, MS >> 14))
    aligned = bytes(8) + struct.pack("<iiq", MS, 16, 5)
    for row_format, data in zip(RowFormat, (compacted, b"\0" + bad, aligned), strict=True):
        with pytest.raises(BadRow, match="expected nanoseconds below 1000000, got 1000000"):
            decode_row(row_format, kind, data)


def test_widths_of_indexed_rows():
    """CHAR loses the zeros at its end, BINARY does not; what is too wide is refused, as are 2 GiB."""
    types = [DataType("CHAR", length=4), DataType("BINARY", length=4)]
    data = encode_row(RowFormat.INDEXED, types, ("é", b"a\0"))

    assert bytes((0, 0xC3, 0xA9, 0, 0)) + b"a\0\0\0" == data
    assert ("é", b"a\0\0\0") == decode_row(RowFormat.INDEXED, types, data)
    with pytest.raises(BadValue, match=r"column 0 \(CHAR\): expected up to 4 bytes, got 6"):
        encode_row(RowFormat.INDEXED, types, ("ééé", b""))
    with pytest.raises(BadValue, match="expected up to 104857600 bytes, got 1"):
        encode_row(RowFormat.INDEXED, [DataType("CHAR", length=2**31 - 1)], ["a"])


def test_integers_that_do_not_end():
    """More groups than their width has."""
    for name, count in (("INTEGER", 5), ("BIGINT", 10)):
        with pytest.raises(BadRow, match=f"expected up to {count} bytes, got more"):
            decode_row(RowFormat.COMPACTED, [DataType(name)], b"\0" + b"\x80" * 12)


def test_wide_rows():
    """As many columns as a schema has null bits for, and more than one word of them."""
    draw = random.Random(1)
    for arity in (0, 1, 7, 8, 9, 55, 56, 57, 64, 1000):
        values = tuple(draw.choice((None, n)) for n in range(arity))
        for row_format in RowFormat:
            types = [INT] * arity
            assert values == decode_row(row_format, types, encode_row(row_format, types, values))
