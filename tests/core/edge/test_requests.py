"""From frames to events: what is refused before any machine sees it."""

from __future__ import annotations

import pytest

from flussd.core.connections import ProduceReceived, ReplyError, RequestReceived
from flussd.core.edge import requests
from flussd.core.edge.frames import request_frame
from flussd.core.edge.requests import Edge
from flussd.core.records.batch import build_batch
from flussd.core.wire import messages
from flussd.core.wire.apis import ApiKey
from flussd.core.wire.errors import ErrorCode
from flussd.core.wire.served import SERVED_BY_TABLET


def parsed(api_key, message, *, internal=False):
    """What the edge of a tablet server makes of a request."""
    frame = request_frame(api_key, 0, 5, message.SerializeToString())[4:]
    return Edge(2, SERVED_BY_TABLET).parse(1, memoryview(frame), 0, internal=internal)


def offsets(count):
    return messages.ListOffsetsRequest(
        follower_server_id=-1, offset_type=1, table_id=1, bucket_id=[0] * count
    )


def fetch(count):
    request = messages.FetchLogRequest(follower_server_id=-1, max_bytes=1)
    for _ in range(2):  # it counts over all tables
        table = request.tables_req.add(table_id=1, projection_pushdown_enabled=False)
        for _ in range(count // 2 - 1):
            table.buckets_req.add(bucket_id=0, fetch_offset=0, max_fetch_bytes=0)
    return request


def produce(count):
    request = messages.ProduceLogRequest(acks=-1, table_id=1, timeout_ms=1)
    for _ in range(count):
        request.buckets_req.add(bucket_id=0, records=b"")
    return request


@pytest.mark.parametrize(
    ("api_key", "make", "kind"),
    [
        (ApiKey.LIST_OFFSETS, offsets, RequestReceived),
        (ApiKey.FETCH_LOG, fetch, RequestReceived),
        (ApiKey.PRODUCE_LOG, produce, ProduceReceived),
    ],
)
def test_lists_have_a_bound(api_key, make, kind):
    """One item more than may be is refused, with a code that no client sends again by; so many are not."""
    most = requests.REQUEST_ITEMS_MAX
    refused = parsed(api_key, make(most + 2))

    assert kind is type(parsed(api_key, make(most)))
    assert (ReplyError, ErrorCode.UNKNOWN_SERVER_ERROR) == (type(refused), refused.code)
    assert f"expected at most {most}" in refused.text


def of_batches(*counts):
    """A produce request with so many of the smallest batches for each of its buckets."""
    request = messages.ProduceLogRequest(acks=1, table_id=1, timeout_ms=1)
    for bucket_id, count in enumerate(counts):
        request.buckets_req.add(bucket_id=bucket_id, records=build_batch(b"", record_count=1) * count)
    return request


def test_batches_have_a_bound(monkeypatch):
    """Those of all buckets together: 100 MiB of the smallest would keep all others waiting for seconds."""
    monkeypatch.setattr(requests, "REQUEST_ITEMS_MAX", 20)
    refused = [parsed(ApiKey.PRODUCE_LOG, of_batches(*counts)) for counts in ((21,), (15, 6), (21, 500, 3))]

    assert ProduceReceived is type(parsed(ApiKey.PRODUCE_LOG, of_batches(14, 6)))
    for answer in refused:
        assert (ReplyError, ErrorCode.UNKNOWN_SERVER_ERROR) == (type(answer), answer.code)
        assert "expected at most 20 batches" in answer.text


def test_servers_may_list_more():
    """What comes from a server of the cluster has no bound but that of frames."""
    many = offsets(requests.REQUEST_ITEMS_MAX + 2)

    assert RequestReceived is type(parsed(ApiKey.LIST_OFFSETS, many, internal=True))


def test_requests_without_log_data_have_a_bound(monkeypatch):
    """Such a request is not even parsed: its parts may take sixty times its bytes."""
    monkeypatch.setattr(requests, "PLAIN_REQUEST_BYTES_MAX", 100)
    refused = parsed(ApiKey.LIST_OFFSETS, offsets(100))

    assert (ReplyError, ErrorCode.UNKNOWN_SERVER_ERROR) == (type(refused), refused.code)
    assert RequestReceived is type(parsed(ApiKey.LIST_OFFSETS, offsets(50)))


def put(bucket_count, size_bytes):
    request = messages.PutKvRequest(acks=-1, table_id=1, timeout_ms=1)
    for _ in range(bucket_count):
        request.buckets_req.add(bucket_id=0, records=bytes(size_bytes // bucket_count))
    return request


def test_puts_have_a_bound_of_their_own(monkeypatch):
    """They hold rows; their buckets are counted before they are parsed, as those are what takes memory."""
    monkeypatch.setattr(requests, "PLAIN_REQUEST_BYTES_MAX", 1000)
    monkeypatch.setattr(requests, "PUT_REQUEST_BYTES_MAX", 5000)
    monkeypatch.setattr(requests, "REQUEST_ITEMS_MAX", 20)

    assert RequestReceived is type(parsed(ApiKey.PUT_KV, put(17, 4000)))
    for refused in (put(18, 4000), put(1, 5000)):
        answer = parsed(ApiKey.PUT_KV, refused)
        assert (ReplyError, ErrorCode.UNKNOWN_SERVER_ERROR) == (type(answer), answer.code)
    assert ReplyError is type(parsed(ApiKey.LOOKUP, messages.LookupRequest.FromString(lookup(2000))))


def lookup(size_bytes):
    request = messages.LookupRequest(table_id=1)
    request.buckets_req.add(bucket_id=0, keys=[bytes(size_bytes)])
    return request.SerializeToString()
