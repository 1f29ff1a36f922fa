"""A large put is merged in slices, and the sockets of others are served between them."""

import json
import re
import threading
import time

import pytest

from flussd.core.records.keys import primary_key_encoder
from flussd.core.records.kv_batch import build_kv_batch
from flussd.core.records.rows.codec import RowFormat, row_codec
from flussd.core.records.types import DataType
from flussd.core.wire import messages
from flussd.core.wire.apis import ApiKey

ROWS = 60_000
TYPES = (DataType("INTEGER", nullable=False), DataType("STRING"))
TABLE = {
    "version": 1,
    "schema": {
        "version": 1,
        "columns": [
            {"name": "k", "data_type": {"type": "INTEGER", "nullable": False}, "id": 0},
            {"name": "s", "data_type": {"type": "STRING"}, "id": 1},
        ],
        "primary_key": ["k"],
        "highest_field_id": 1,
    },
    "partition_key": [],
    "bucket_key": ["k"],
    "bucket_count": 1,
    "properties": {},
    "custom_properties": {},
}


def put_of(table_id, count):
    """Return a put of *count* rows."""
    encode = row_codec(RowFormat.COMPACTED, TYPES).encode
    key_of = primary_key_encoder(None, TYPES[:1], format_version=2, is_bucket_key=True).encode
    records = [(key_of([n]), encode((n, f"the text of row {n}"))) for n in range(count)]
    request = messages.PutKvRequest(acks=-1, table_id=table_id, timeout_ms=60_000)
    request.buckets_req.add(bucket_id=0, records=build_kv_batch(records, schema_id=1))
    return request


def timed(call, *arguments):
    """Return what *call* returns, and the seconds that it took."""
    began = time.perf_counter()
    answer = call(*arguments)
    return answer, time.perf_counter() - began


def until(ask, is_good):
    """Ask until the answer is good: a new table has no leader yet."""
    end = time.monotonic() + 20
    while not is_good(answer := ask()):
        assert time.monotonic() < end, answer
        time.sleep(0.02)


@pytest.mark.alone
def test_a_large_put_stalls_nobody(raw, start_flussd):
    """1. One client puts many rows. 2. Another one appends meanwhile: none of its appends takes long.

    The measure is the put itself: in one piece, the longest append would take as long.
    """
    server = start_flussd("--port", 0)
    coordinator = raw(server.bootstrap_servers)
    tablet = re.search(r"tablets=(\S+)", server.lines[0])[1]
    coordinator.create("small")
    wanted = messages.CreateTableRequest(table_json=json.dumps(TABLE).encode(), ignore_if_exists=False)
    wanted.table_path.database_name, wanted.table_path.table_name = "fluss", "large"
    coordinator.ask(ApiKey.CREATE_TABLE, wanted)
    small, large = coordinator.table_id("small"), coordinator.table_id("large")
    appender, putter = raw(tablet), raw(tablet)
    empty, full = put_of(large, 0), put_of(large, ROWS)
    until(lambda: appender.produce(small, b"x"), lambda answer: answer[0] == 0)
    until(lambda: putter.ask(ApiKey.PUT_KV, empty), lambda answer: not answer.buckets_resp[0].error_code)

    ended, appends = [], []
    thread = threading.Thread(target=lambda: ended.append(timed(putter.ask, ApiKey.PUT_KV, full)))
    thread.start()
    while not ended:
        appends.append(timed(appender.produce, small, b"x"))
    thread.join()

    ((answer, put_seconds),) = ended
    assert ROWS == answer.buckets_resp[0].log_end_offset - 1  # the empty put took one
    assert {0} == {code for (code, _), _ in appends}
    longest = max(seconds for _, seconds in appends)
    assert longest < put_seconds / 4, (longest, put_seconds, len(appends))
