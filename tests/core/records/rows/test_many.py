"""Rows that are read many at once are those that are read one by one, and so are their faults."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flussd.core.records.rows.atoms import BadRow
from flussd.core.records.rows.codec import RowFormat, row_codec
from flussd.core.records.rows.many import many_rows
from flussd.core.records.types import DataType

TYPES = [
    DataType("INTEGER"),
    DataType("BIGINT"),
    DataType("STRING"),
    DataType("DOUBLE"),
    DataType("BOOLEAN"),
    DataType("DATE"),
    DataType("DECIMAL", precision=12, scale=2),
    DataType("DECIMAL", precision=30, scale=2),
    DataType("TIMESTAMP_WITHOUT_TIME_ZONE", precision=3),
    DataType("TIMESTAMP_WITH_LOCAL_TIME_ZONE", precision=9),
    DataType("BYTES"),
]
INTS, LONGS = st.integers(-(1 << 31), (1 << 31) - 1), st.integers(-(1 << 63), (1 << 63) - 1)
TEXTS = st.text(max_size=200) | st.binary(max_size=9).map(lambda b: b.decode("utf-8", "surrogateescape"))
VALUES = [
    INTS,
    LONGS,
    TEXTS,
    st.floats(allow_nan=False),
    st.booleans(),
    INTS,
    st.integers(-(10**12), 10**12),
    st.integers(-(10**30), 10**30),
    st.integers(-(10**12), 10**12).map(lambda ms: ms * 1_000_000),
    st.integers(-(10**18), 10**18),
    st.binary(max_size=20),
]
FULL_ROWS = st.tuples(*VALUES)
ROWS = FULL_ROWS | st.tuples(*[st.none() | value for value in VALUES])


@pytest.mark.parametrize("row_format", RowFormat)
@given(rows=st.lists(ROWS, max_size=6), skip_bytes=st.integers(0, 3))
def test_many_rows(row_format, rows, skip_bytes):
    """Of every format, with and without nulls, behind other bytes."""
    codec = row_codec(row_format, TYPES)
    data = [bytes(skip_bytes) + codec.encode(row) for row in rows]

    assert rows == many_rows(codec, skip_bytes=skip_bytes)(data)


@given(rows=st.lists(FULL_ROWS, min_size=1, max_size=3), data=st.data())
def test_damage_is_that_of_one_row(rows, data):
    """The same text, whatever byte is another one or missing."""
    codec = row_codec(RowFormat.COMPACTED, TYPES)
    encoded = [codec.encode(row) for row in rows]
    n = data.draw(st.integers(0, len(rows) - 1))
    at = data.draw(st.integers(0, len(encoded[n]) - 1))
    byte = data.draw(st.binary(max_size=2))
    encoded[n] = encoded[n][:at] + byte + encoded[n][at + 1 :]

    assert told(lambda: [codec.decode(row) for row in encoded]) == told(lambda: many_rows(codec)(encoded))


@pytest.mark.parametrize("row", [b"\0\5\2ab\0", b"\0\5\2a", b"\0\5\x82", b"\0", b""])
def test_rows_that_do_not_end_where_their_last_column_does(row):
    """Longer, and cut at several places; behind a row that is whole."""
    codec = row_codec(RowFormat.COMPACTED, [DataType("INTEGER"), DataType("STRING")])
    with pytest.raises(BadRow) as bad:
        many_rows(codec)([b"\0\5\2ab", row])

    assert told(lambda: codec.decode(row)) == f"bad: {bad.value}"


def told(read):
    """What was read, or why it was not; NaN equals NaN."""
    try:
        return repr(read())
    except BadRow as bad:
        return f"bad: {bad}"
