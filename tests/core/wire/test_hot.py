"""The hand-written codecs against the protobuf classes, byte for byte."""

from __future__ import annotations

import pytest
from hypothesis import given
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


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_a_request_or_malformed(data):
    """Never anything else; and what protobuf refuses is refused."""
    try:
        body = hot.parse_produce(memoryview(data))
    except hot.Malformed:
        return
    assert isinstance(body, hot.ProduceBody)


@given(st.data())
def test_a_cut_request_is_malformed(data):
    """Cut at any byte within the last bucket."""
    request = messages.ProduceLogRequest(acks=-1, table_id=7, timeout_ms=30000)
    request.buckets_req.add(bucket_id=300, records=b"x" * 300)
    whole = request.SerializeToString()
    start = len(messages.ProduceLogRequest(acks=-1, table_id=7, timeout_ms=30000).SerializeToString())
    cut = data.draw(st.integers(start + 1, len(whole) - 1))

    with pytest.raises(hot.Malformed):
        hot.parse_produce(memoryview(whole)[:cut])


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
results = st.tuples(partition, int32, st.integers(-3, 80), texts, int64, int64, chunks)


@given(st.lists(st.tuples(int64, st.lists(results, max_size=3)), max_size=3))
def test_fetch_responses_are_written_as_protobuf_writes_them(tables):
    """Records in chunks are one field; an error has neither watermark nor records."""
    expected = messages.FetchLogResponse()
    for table_id, buckets in tables:
        table = expected.tables_resp.add(table_id=table_id)
        for partition_id, bucket, code, text, high_watermark, log_start, records in buckets:
            part = table.buckets_resp.add(bucket_id=bucket)
            if partition_id is not None:
                part.partition_id = partition_id
            if code:
                part.error_code = code
                if text:
                    part.error_message = text
                continue
            part.high_watermark, part.log_start_offset = high_watermark, log_start
            if any(records):
                part.records = b"".join(records)

    parts = hot.fetch_response_parts(
        hot.FetchTableResult(table_id, tuple(hot.FetchBucketResult(*bucket) for bucket in buckets))
        for table_id, buckets in tables
    )

    assert expected.SerializeToString() == b"".join(bytes(part) for part in parts)
