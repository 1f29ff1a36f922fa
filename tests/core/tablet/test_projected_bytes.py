"""Fetches of some columns: the limit is of the bytes that are sent, not of those that are stored."""

from __future__ import annotations

import pyarrow as pa
import pytest

from flussd.core.records.batch import heads_in
from flussd.core.wire import messages
from flussd.core.wire.apis import ApiKey

ROWS, BATCHES = 500, 12


@pytest.fixture
def stored(server, batch):
    """Twelve equal batches of an int and a long string; their size."""
    arrays = [pa.array(range(ROWS), pa.int32()), pa.array(["x" * 40] * ROWS)]
    rows = pa.record_batch(arrays, names=["a", "b"])
    message = batch(count=ROWS, payload=rows.serialize().to_pybytes())
    for _ in range(BATCHES):
        server.produced(message)
    return len(message)


def fetch(server, *, columns, limit_bytes, buckets=(0,), max_bytes=1 << 24):
    """Fetch *columns* from the start; return the heads of the batches of each bucket, and their bytes."""
    request = messages.FetchLogRequest(
        follower_server_id=-1, max_bytes=max_bytes, min_bytes=1, max_wait_ms=500
    )
    table = request.tables_req.add(table_id=9, projection_pushdown_enabled=True)
    table.projected_fields.extend(columns)
    for bucket in buckets:
        table.buckets_req.add(bucket_id=bucket, fetch_offset=0, max_fetch_bytes=limit_bytes)
    (answer,) = server.call(ApiKey.FETCH_LOG, request).tables_resp
    records = [memoryview(bucket.records) for bucket in answer.buckets_resp]
    return [(list(heads_in(view)), len(view)) for view in records]


def test_the_limit_is_of_what_is_sent(server, stored):
    """A reader of one narrow column gets more batches than fit into its limit as they are stored."""
    limit_bytes = 3 * stored
    ((both, _),) = fetch(server, columns=(0, 1), limit_bytes=limit_bytes)
    ((narrow, sent_bytes),) = fetch(server, columns=(0,), limit_bytes=limit_bytes)

    assert [n * ROWS for n in range(3)] == [head.base_offset for head in both]
    assert [n * ROWS for n in range(6)] == [head.base_offset for head in narrow]
    assert sent_bytes <= limit_bytes


def test_what_is_sent_does_not_pass_the_limit(server, stored):
    """A wide column that remains fills the limit; its first batch comes whole, whatever the limit."""
    ((wide, sent_bytes),) = fetch(server, columns=(1,), limit_bytes=3 * stored)
    ((first, _),) = fetch(server, columns=(1,), limit_bytes=1)

    assert [n * ROWS for n in range(3)] == [head.base_offset for head in wide]
    assert sent_bytes <= 3 * stored
    assert [0] == [head.base_offset for head in first]


def test_buckets_share_the_whole(server, stored, batch):
    """What one bucket may have more than its limit is not taken from the others."""
    server.tell(buckets=(0, 1))
    ((alone, _),) = fetch(server, columns=(0,), limit_bytes=2 * stored, max_bytes=4 * stored)
    (first, _), (_, _) = fetch(
        server, columns=(0,), limit_bytes=2 * stored, max_bytes=4 * stored, buckets=(0, 1)
    )

    assert 4 == len(alone)
    assert 2 == len(first)
