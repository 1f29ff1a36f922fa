"""The hand-written codecs against the protobuf classes, byte for byte."""

from __future__ import annotations

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from flussd.core.connections import ProduceAnswer
from flussd.core.wire import hot, messages

int32 = st.integers(-(2**31), 2**31 - 1)
int64 = st.integers(-(2**63), 2**63 - 1)
partition = st.none() | int64
texts = st.text(max_size=20)


@given(int32, int64, int32, st.lists(st.tuples(partition, int32, st.binary(max_size=300)), max_size=4))
def test_produce_requests_are_read_as_protobuf_reads_them(acks, table_id, timeout_ms, buckets):
    """Every field, negative numbers and absent partitions included."""
    request = messages.ProduceLogRequest(acks=acks, table_id=table_id, timeout_ms=timeout_ms)
    for partition_id, bucket, records in buckets:
        part = request.buckets_req.add(bucket_id=bucket, records=records)
        if partition_id is not None:
            part.partition_id = partition_id

    body = hot.parse_produce(memoryview(request.SerializeToString()))

    assert (acks, table_id, timeout_ms) == body[:3]
    assert buckets == [(b.partition_id, b.bucket, bytes(b.records)) for b in body.buckets]


def varint(number, padding=0):
    """Write *number*, and *padding* bytes more than it needs."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    for _ in range(padding):
        out[-1] |= 0x80
        out.append(0)
    return bytes(out)


def read_by_protobuf(data):
    """What protobuf makes of a produce request; None when it refuses."""
    request = messages.ProduceLogRequest()
    try:
        request.ParseFromString(data)
    except DecodeError:
        return None
    if not request.IsInitialized():
        return None
    buckets = [
        (b.partition_id if b.HasField("partition_id") else None, b.bucket_id, b.records)
        for b in request.buckets_req
    ]
    return request.acks, request.table_id, request.timeout_ms, buckets


def read_by_hand(data):
    """What the hand-written parser makes of it; None when it raises Malformed."""
    try:
        body = hot.parse_produce(memoryview(data))
    except hot.Malformed:
        return None
    return *body[:3], [(b.partition_id, b.bucket, bytes(b.records)) for b in body.buckets]


@given(st.binary(max_size=200), st.booleans())
def test_arbitrary_bytes_are_a_request_or_malformed(data, begins_well):
    """Never another exception; and what is read, protobuf reads as well, to the same values."""
    got = read_by_hand(b"\x08\x01\x10\x02\x18\x03" * begins_well + data)

    if got is not None:
        assert read_by_protobuf(b"\x08\x01\x10\x02\x18\x03" * begins_well + data) == got


numbers = st.integers(0, 2**64 - 1) | st.sampled_from([0, 1, 127, 128, 2**31, 2**32 + 5, 2**63, 2**64 - 1])
paddings = st.sampled_from([0] * 8 + [1, 4, 5, 9])
values = {
    0: st.builds(varint, numbers, paddings),
    1: st.binary(min_size=8, max_size=8),
    2: st.builds(lambda data, padding: varint(len(data), padding) + data, st.binary(max_size=9), paddings),
    5: st.binary(min_size=4, max_size=4),
}
# Text of field 4 must be UTF-8 to protobuf, and is skipped by hand; 5 is its neighbour of version 1.
inner_kinds = [(1, 0), (2, 0), (3, 2), (6, 0), (6, 2), (7, 1), (7, 5), (2**29 - 1, 0), (0, 0), (2**29, 0)]


def fields(kinds):
    """Bytes of some fields in any order, some of them more than once."""
    of_kind = st.sampled_from(kinds).flatmap(
        lambda kind: st.builds(
            lambda padding, value: varint(kind[0] << 3 | kind[1], padding) + value,
            paddings,
            values[kind[1]],
        )
    )
    return st.lists(of_kind, max_size=6).map(b"".join)


buckets_of_fields = fields(inner_kinds).map(
    lambda data: b"\x22" + varint(len(data) + 5) + b"\x10\x00\x1a\x01r" + data
)
outer_kinds = [(1, 0), (2, 0), (3, 0), (5, 0), (6, 2), (15, 5), (16, 1)]


@settings(max_examples=400)
@given(st.lists(fields(outer_kinds) | buckets_of_fields, max_size=4).map(b"".join))
def test_foreign_encodings_are_read_as_protobuf_reads_them(data):
    """Padded numbers, unknown fields, repeated scalars, fields in any order.

    Only tags of known fields that are padded may be refused where protobuf takes them.
    """
    whole = b"\x08\x01\x10\x02\x18\x03" + data
    expected, got = read_by_protobuf(whole), read_by_hand(whole)

    assert got is None or expected == got
    if got is None and expected is not None:
        with pytest.raises(hot.Malformed, match="cannot have wire type"):
            hot.parse_produce(memoryview(whole))


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ("", "expected acks, table_id and timeout_ms"),
        ("08011002", "timeout_ms=None"),
        ("080110021803220208", "expected at most 1 bytes, got 2"),
        ("0801100218032204100100", "expected the rest|at most"),
        ("08011002180322021001", "expected bucket_id and records"),
        ("0801100218032206" + "10011a0300", "at most"),
        ("08011002180322041080808001", "expected to end at byte 12, got a field that ends at 13"),
        ("0d00000000", "number 1 cannot have wire type 5"),
        ("080110021803" + "0b0c", "number 1 cannot have wire type 3"),
        ("080110021803" + "33", "got 3"),
        ("08" + "ff" * 10 + "01", "at most 10 bytes"),
        ("08", "the end at byte 1"),
        ("0801100218037d0000", "expected to end at byte 9, got a field that ends at 11"),
    ],
)
def test_malformed_requests_say_why(data, text):
    """Each way to be malformed, with what was expected and what came."""
    with pytest.raises(hot.Malformed, match=text):
        hot.parse_produce(memoryview(bytes.fromhex(data)))


def test_records_are_views_of_the_body():
    """No copy: what changes in the body changes in the records."""
    request = messages.ProduceLogRequest(acks=-1, table_id=7, timeout_ms=30000)
    request.buckets_req.add(bucket_id=1, records=b"before")
    body = bytearray(request.SerializeToString())
    (bucket,) = hot.parse_produce(memoryview(body)).buckets
    body[-6:] = b"after!"

    assert b"after!" == bucket.records


def test_a_cut_request_is_malformed():
    """Cut at every byte, but where the last bucket begins."""
    request = messages.ProduceLogRequest(acks=-1, table_id=7, timeout_ms=30000)
    start = len(request.SerializeToString())
    request.buckets_req.add(bucket_id=300, records=b"x" * 300)
    whole = memoryview(request.SerializeToString())

    assert () == hot.parse_produce(whole[:start]).buckets
    for cut in range(len(whole)):
        if cut != start:
            with pytest.raises(hot.Malformed):
                hot.parse_produce(whole[:cut])


@given(int32, texts)
def test_errors_are_written_as_protobuf_writes_them(code, text):
    """An empty text is left out; half a surrogate is replaced and ends no process."""
    expected = messages.ErrorResponse(error_code=code, error_message=text or None)

    assert expected.SerializeToString() == hot.error_response(code, text)
    assert messages.ErrorResponse(error_code=1, error_message="?") == messages.ErrorResponse.FromString(
        hot.error_response(1, "\ud800")
    )


@given(st.lists(st.tuples(partition, int32, int64, st.integers(-5, 80), texts), max_size=5))
def test_produce_responses_are_written_as_protobuf_writes_them(answers):
    """Success has an offset and no error code; an error has no offset."""
    expected = messages.ProduceLogResponse()
    for partition_id, bucket, offset, code, text in answers:
        part = expected.buckets_resp.add(bucket_id=bucket)
        if partition_id is not None:
            part.partition_id = partition_id
        if code:
            part.error_code = code
            if text:
                part.error_message = text
        else:
            part.base_offset = offset

    got = hot.produce_response(ProduceAnswer(*answer) for answer in answers)

    assert expected.SerializeToString() == got


chunks = st.lists(st.binary(max_size=200), max_size=3)
filtered_ends = st.just(-1) | st.integers(0, 2**63 - 1)
results = st.tuples(partition, int32, st.integers(-3, 80), texts, int64, int64, chunks, filtered_ends)


@given(st.lists(st.tuples(int64, st.lists(results, max_size=3)), max_size=3))
def test_fetch_responses_are_written_as_protobuf_writes_them(tables):
    """Records in chunks are one field; an error has neither watermark nor records."""
    expected = messages.FetchLogResponse()
    for table_id, buckets in tables:
        table = expected.tables_resp.add(table_id=table_id)
        for partition_id, bucket, code, text, high_watermark, log_start, records, end in buckets:
            part = table.buckets_resp.add(bucket_id=bucket)
            if partition_id is not None:
                part.partition_id = partition_id
            if code:
                part.error_code = code
                if text:
                    part.error_message = text
                continue
            part.high_watermark, part.log_start_offset = high_watermark, log_start
            part.records = b"".join(records)  # present, even when empty
            if end >= 0:
                part.filtered_end_offset = end

    parts = hot.fetch_response_parts(
        hot.FetchTableResult(table_id, tuple(hot.FetchBucketResult(*bucket) for bucket in buckets))
        for table_id, buckets in tables
    )

    assert expected.SerializeToString() == b"".join(bytes(part) for part in parts)


def test_a_fetch_answer_has_few_parts_and_copies_no_records():
    """What stands between chunks of records is one part: a table of empty buckets is a single one."""
    chunk = memoryview(bytearray(b"records"))
    empty = [hot.FetchBucketResult(None, n, high_watermark=5) for n in range(500)]
    full = hot.FetchBucketResult(7, 500, high_watermark=5, records=(chunk, b"more"))

    parts = hot.fetch_response_parts([hot.FetchTableResult(9, (*empty, full, *empty))])

    assert 4 == len(parts)
    assert chunk is parts[1]
    assert 1 == len(hot.fetch_response_parts([hot.FetchTableResult(9, tuple(empty))]))


@given(chunks, st.integers(-3, 80), texts)
def test_scan_responses_are_written_as_protobuf_writes_them(records, code, text):
    """Records in chunks are one field, an error has none."""
    expected = messages.LimitScanResponse()
    if code:
        expected.error_code = code
        if text:
            expected.error_message = text
    else:
        expected.is_log_table = True
        if any(records):
            expected.records = b"".join(records)

    parts = hot.scan_response_parts(records, error_code=code, error_text=text)

    assert expected.SerializeToString() == b"".join(bytes(part) for part in parts)


@given(
    buckets=st.lists(st.binary(max_size=300), max_size=20), targets=st.lists(st.integers(0, 9), max_size=9)
)
def test_fields_are_counted(buckets, targets):
    """Of a message, not of those within it; what is no field is none too few."""
    request = messages.PutKvRequest(acks=-1, table_id=5, timeout_ms=1, target_columns=targets)
    for records in buckets:
        request.buckets_req.add(bucket_id=1, records=records)
    body = memoryview(request.SerializeToString())
    count = 3 + len(buckets) + bool(targets)

    assert hot.has_at_most(body, count)
    assert not hot.has_at_most(body, count - 1)
    assert not hot.has_at_most(memoryview(bytes(body) + b"\x0b"), count + 9)  # a group
    assert not hot.has_at_most(body[:-1], count + 9) or buckets == []
