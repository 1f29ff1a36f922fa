"""Log batches with rows: of every magic, and damaged behind their checksum."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flussd.core.records import batch as b
from flussd.core.records import row_batch as rb
from flussd.core.records.row_batch import ChangeType
from flussd.core.records.rows.atoms import BadRow
from flussd.core.records.rows.codec import RowFormat, row_codec
from flussd.core.records.types import DataType

TYPES = [DataType("INTEGER"), DataType("STRING")]
RECORDS = st.lists(st.tuples(st.sampled_from(ChangeType), st.binary(max_size=30)), max_size=6)


def made(records, magic=0, statistics=b"", count=None):
    """A batch, and its head."""
    payload = rb.row_payload(records)
    count = len(records) if count is None else count
    data = b.build_batch(payload, record_count=count, magic=magic, statistics=statistics)
    return memoryview(data), b.read_head(memoryview(data), 0)


@given(
    RECORDS,
    st.sampled_from([(0, b""), (1, b""), (1, b"some"), (2, b""), (2, b"x" * 40)]),
    st.integers(0, 9),
)
def test_records_of_every_magic(records, kind, before):
    """With and without statistics, which lie before them; anywhere in a view."""
    magic, statistics = kind
    view, _ = made(records, magic, statistics)
    longer = memoryview(bytes(before) + bytes(view) + b"more")

    assert records == list(rb.row_records(longer, b.read_head(longer, before)))


@pytest.mark.parametrize("row_format", [RowFormat.INDEXED, RowFormat.COMPACTED])
def test_rows_of_a_changelog(row_format):
    """Changes and values in their order; rows of an older schema are read with its types."""
    codec = row_codec(row_format, TYPES)
    rows = [(change, (n, None if n % 2 else "x" * n)) for n, change in enumerate(ChangeType)]
    data = rb.build_row_batch([(change, codec.encode(row)) for change, row in rows], schema_id=4)
    (head,) = b.scan_produced(memoryview(data)).heads

    assert rows == rb.read_rows(memoryview(data), head, codec)
    assert (4, -1, -1, False) == (
        head.schema_id,
        head.writer_id,
        head.batch_sequence,
        rb.is_append_only(head),
    )
    newer = row_codec(row_format, TYPES, (1, 2))
    assert [(change, (row[1], None)) for change, row in rows] == rb.read_rows(memoryview(data), head, newer)


@given(RECORDS, st.integers(0, 2), st.data())
def test_damage_behind_the_checksum(records, magic, data):
    """Records, or BadRow."""
    view, _ = made(records, magic)
    bad = bytearray(view)
    for _ in range(3):
        place = data.draw(st.integers(b.HEAD_BYTES[magic] - 8, len(bad) - 1))
        bad[place] = data.draw(st.sampled_from([0, 1, 5, 0x7F, 0x80, 0xFF]))
    head = b.read_head(memoryview(bad), 0)
    if head is None or head.size_bytes > len(bad):
        return
    try:
        found = list(rb.row_records(memoryview(bad), head))
    except BadRow:
        return

    assert head.record_count == len(found)


@pytest.mark.parametrize(
    ("payload", "count", "text"),
    [
        (b"\5\0\0", 1, "record 0 of 1: 3 bytes are left"),
        (b"", 2**31 - 1, "record 0 of 2147483647: 0 bytes are left"),
        (b"\5\0\0\0\0abc", 1, "record 0: expected 1 to 4 bytes, got 5"),
        (b"\0\0\0\0\0", 1, "record 0: expected 1 to 1 bytes, got 0"),
        (b"\xff\xff\xff\xff\0", 1, "record 0: expected 1 to 1 bytes, got -1"),
        (b"\1\0\0\0\5", 1, "record 0: expected a change of 0 to 4, got 5"),
        (b"\1\0\0\0\1more", 1, "4 bytes behind 1 records: expected none"),
    ],
)
def test_problems_have_names(payload, count, text):
    """What, where, expected and got."""
    data = memoryview(b.build_batch(payload, record_count=count))
    with pytest.raises(BadRow, match=f"^{text}$"):
        list(rb.row_records(data, b.read_head(data, 0)))


@pytest.mark.parametrize("size", [-1, 20])
def test_statistics_that_cannot_be(size):
    """Longer than the batch, or less than nothing."""
    view, head = made([], 1)
    bad = bytearray(view)
    struct.pack_into("<i", bad, 48, size)
    with pytest.raises(BadRow, match=f"statistics of {size} bytes in a batch of 52"):
        list(rb.row_records(memoryview(bad), head))
