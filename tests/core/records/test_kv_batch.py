"""Batches of PUT_KV and of values: what is built is read; what is damaged is refused as a whole."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flussd.core.records import kv_batch as kv
from flussd.core.records import values as v
from flussd.core.records.rows.atoms import BadRow

# An empty row is none: it deletes, as in upstream.
RECORDS = st.lists(
    st.tuples(
        st.binary(max_size=30) | st.binary(min_size=128, max_size=200),
        st.none() | st.binary(min_size=1, max_size=30),
    ),
    max_size=6,
)


def read(data):
    """The head and the records of a batch."""
    head = kv.read_kv_head(memoryview(data))
    return head, kv.kv_records(memoryview(data), head)


@given(RECORDS, st.integers(-1, 2**15 - 1), st.integers(-1, 2**63 - 1), st.integers(-1, 2**31 - 1))
def test_what_is_built_is_read(records, schema_id, writer_id, sequence):
    """Every field, keys and rows, deletes, and the checksum."""
    data = kv.build_kv_batch(records, schema_id=schema_id, writer_id=writer_id, batch_sequence=sequence)
    head, found = read(data)

    assert records == found
    assert (len(data), 0) == head[:2]
    assert (schema_id, 0, writer_id, sequence, len(records)) == head[3:]
    assert kv.crc_is_right(memoryview(data), head)


@given(RECORDS)
def test_a_cut_batch_is_refused(records):
    """At every byte, and so is one with a byte more: nothing may be applied by half."""
    data = kv.build_kv_batch(records, schema_id=1)
    for bad in (*(data[:cut] for cut in range(len(data))), data + b"\0"):
        with pytest.raises(kv.BadKvBatch):
            read(bad)


@given(RECORDS, st.randoms(use_true_random=False))
def test_flipped_bits(records, draw):
    """Records or BadKvBatch; the checksum tells, whoever looks at it."""
    data = bytearray(kv.build_kv_batch(records, schema_id=1))
    for _ in range(draw.choice((1, 2, 5))):
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    try:
        head, found = read(data)
    except kv.BadKvBatch:
        return

    assert head.record_count == len(found)
    assert bytes(data) == kv.build_kv_batch(records, schema_id=1) or not kv.crc_is_right(
        memoryview(data), head
    )


@given(st.binary(max_size=100), st.integers(0, 5))
def test_any_bytes(body, count):
    """Behind a head that is right, and alone."""
    dressed = struct.pack("<ibIhbqii", 24 + len(body), 0, 0, 1, 0, -1, -1, count) + body
    for data in (body, dressed):
        try:
            found = read(data)[1]
        except kv.BadKvBatch:
            continue

        assert (count, dressed) == (len(found), data)


def head(**changes):
    """A batch of one record with some fields of its head changed."""
    fields = {"length": 30, "magic": 0, "count": 1, "record": b"\2\0\0\0\1k"} | changes
    packed = struct.pack("<ibIhbqii", fields["length"], fields["magic"], 0, 1, 0, -1, -1, fields["count"])
    return packed + fields["record"]


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "a kv batch: expected at least 28 bytes, got 0"),
        (head(magic=1), "a kv batch: expected magic 0, got 1"),
        (head(length=31), "a kv batch that tells 35 bytes: got 34"),
        (head(count=2), "a kv batch of 34 bytes: expected 0 to 1 records, got 2"),
        (head(count=-1), "a kv batch of 34 bytes: expected 0 to 1 records, got -1"),
        (head(count=0), "6 bytes behind 0 records: expected none"),
        (head(record=b"\3\0\0\0\1k"), "record 0: expected 1 to 2 bytes, got 3"),
        (head(record=b"\0\0\0\0\1k"), "record 0: expected 1 to 2 bytes, got 0"),
        (head(record=b"\2\0\0\0\2k"), "record 0: a key of 2 bytes in 2"),
        (head(length=35, count=2, record=b"\2\0\0\0\2k\1\0\0\0\0"), "record 0: a key of 2 bytes in 2"),
        (head(record=b"\2\0\0\0\xff\xff"), "record 0: the size of its key does not end"),
        (head(record=b"\1\0\0\0\0k"), "1 bytes behind 1 records: expected none"),
    ],
)
def test_problems_have_names(data, text):
    """What, where, expected and got."""
    with pytest.raises(kv.BadKvBatch, match=f"^{text}$"):
        read(data)


# ---- values --------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(-(2**15), 2**15 - 1), st.binary(max_size=30)), max_size=6))
def test_values_and_their_batches(given_values):
    """Each apart, and all of them in one; cut at any byte it is refused."""
    stored = [v.stored_value(*one) for one in given_values]
    data = v.build_value_batch(stored)

    assert given_values == [v.split_value(one) for one in stored]
    assert stored == v.read_value_batch(data)
    for cut in range(len(data)):
        with pytest.raises(BadRow):
            v.read_value_batch(data[:cut])
    with pytest.raises(BadRow, match="at least 2 bytes, got 1"):
        v.split_value(b"\1")


@given(st.binary(max_size=60), st.integers(-1, 5))
def test_any_bytes_as_values(body, count):
    """Behind a head that is right: values or BadRow."""
    try:
        found = v.read_value_batch(struct.pack("<ibi", 5 + len(body), 0, count) + body)
    except BadRow:
        return

    assert count == len(found)
