"""LOOKUP, PREFIX_LOOKUP, LIMIT_SCAN and GET_TABLE_STATS of primary-key tables, and lookups that insert."""

from __future__ import annotations

import pytest

from flussd.core import limits
from flussd.core.records.values import read_value_batch
from flussd.core.wire import messages
from flussd.core.wire.apis import ApiKey
from flussd.core.wire.errors import ErrorCode


def limit_scan(keyed, limit, bucket=0):
    request = messages.LimitScanRequest(table_id=9, bucket_id=bucket, limit=limit)
    return keyed.server.call(ApiKey.LIMIT_SCAN, request)


def stats(keyed):
    request = messages.GetTableStatsRequest(table_id=9)
    request.buckets_req.add(bucket_id=0)
    (bucket,) = keyed.server.call(ApiKey.GET_TABLE_STATS, request).buckets_resp
    return bucket.error_code or bucket.row_count


def insert(keyed, *keys, acks=-1, timeout_ms=1000):
    return keyed.lookup(*keys, insert_if_not_exists=True, acks=acks, timeout_ms=timeout_ms)


def test_lookups_in_their_order(keyed):
    """One value for each key, as often as it is named."""
    keyed.put((1, "a"), (2, None))

    assert [(2, None), None, (1, "a"), (2, None)] == keyed.lookup(2, 3, 1, 2)
    assert [] == keyed.lookup()


def test_several_buckets(make_keyed):
    """Those that are not there are refused alone, and the answer takes its time: it is asked again."""
    keyed = make_keyed()
    keyed.tell(buckets=(0, 1))
    keyed.put((1, "a"), bucket=1)
    request = messages.LookupRequest(table_id=9)
    for bucket in (1, 7, 0):
        request.buckets_req.add(bucket_id=bucket, keys=[keyed.key(1)])

    asked = keyed.server.ask(ApiKey.LOOKUP, request)
    assert keyed.server.answered(asked, ApiKey.LOOKUP) is None
    keyed.server.pass_ms(limits.RETRY_HOLD_MS)
    found = keyed.server.answered(asked, ApiKey.LOOKUP).buckets_resp
    assert [(1, 0, 1), (7, 21, 0), (0, 0, 1)] == [
        (one.bucket_id, one.error_code, len(one.values)) for one in found
    ]


def test_prefix_lookups(keyed):
    """All rows whose key begins with these bytes, in key order; none is a list without rows."""
    keyed.put((300, "a"), (301, "b"), (2, "c"), (301 + 128, "d"))
    request = messages.PrefixLookupRequest(table_id=9)
    prefixes = [keyed.key(300)[:1], keyed.key(2), b"\xff\xff", b""]
    request.buckets_req.add(bucket_id=0, keys=prefixes)

    (bucket,) = keyed.server.call(ApiKey.PREFIX_LOOKUP, request).buckets_resp
    found = [[keyed.row(value)[1] for value in values.values] for values in bucket.value_lists]
    assert [["a"], ["c"], []] == found[:3]
    assert ["a", "b", "c", "d"] == sorted(found[3])


@pytest.mark.parametrize("api", [ApiKey.LOOKUP, ApiKey.PREFIX_LOOKUP, ApiKey.LIMIT_SCAN])
def test_a_short_request_costs_no_gigabytes(keyed, monkeypatch, api):
    """The values of one answer are bounded."""
    monkeypatch.setattr("flussd.core.tablet.reads.LOOKUP_BYTES_MAX", 1000)
    monkeypatch.setattr("flussd.core.tablet.reads.InsertWaiter.left_bytes", 1000, raising=False)
    keyed.put((1, "x" * 600))
    keyed.put((2, "x" * 300))
    keyed.put((3, "x" * 300))

    if api == ApiKey.LIMIT_SCAN:
        assert ErrorCode.RECORD_TOO_LARGE_EXCEPTION == limit_scan(keyed, 3).error_code
        assert not limit_scan(keyed, 2).error_code
        return
    request = messages.request_class(api)(table_id=9)
    for keys in ([1, 1], [1], [2], [3]):
        request.buckets_req.add(bucket_id=0, keys=[keyed.key(key) for key in keys])
    found = keyed.server.call(api, request).buckets_resp
    refused = int(ErrorCode.RECORD_TOO_LARGE_EXCEPTION)
    assert [refused, 0, 0, refused] == [one.error_code for one in found] or api == ApiKey.PREFIX_LOOKUP
    assert refused == found[0].error_code


def test_limit_scans(keyed):
    """The first rows by their keys' bytes."""
    assert not limit_scan(keyed, 5).HasField("records")
    for n in (5, 3, 4, 1, 2):
        keyed.put((n, str(n)))
    keyed.put(4)

    for limit in (1, 3, 100):
        answer = limit_scan(keyed, limit)
        rows = [keyed.row(value)[0] for value in read_value_batch(answer.records)]
        assert [1, 2, 3, 5][:limit] == rows
        assert answer.HasField("is_log_table")
        assert not answer.is_log_table
    for limit in (0, -1):
        assert not limit_scan(keyed, limit).HasField("records")


def test_row_counts(keyed):
    """Inserts count, deletes count off, updates do not; after a restart it is the same."""
    assert 0 == stats(keyed)
    keyed.put((1, "a"), (2, "b"), (3, "c"))
    keyed.put((1, "d"), 2)
    assert 2 == stats(keyed)
    keyed.server.restart()
    keyed.tell(epoch=2)

    assert 2 == stats(keyed)


def test_no_row_count_of_a_wal_image(make_keyed):
    """It is not told which upserts are inserts."""
    keyed = make_keyed()
    keyed.properties["table.changelog.image"] = "WAL"
    keyed.tell()

    assert ErrorCode.INVALID_TABLE_EXCEPTION == stats(keyed)
    keyed.put((1, "a"))
    assert ErrorCode.INVALID_TABLE_EXCEPTION == stats(keyed)


def test_an_added_column(keyed):
    """New rules at the next put; old rows are as they were, also for the next leader."""
    keyed.put((1, "a"))
    more = {"name": "c", "data_type": {"type": "STRING"}, "id": 2}
    wider = keyed.schemas[0] | {"columns": [*keyed.schemas[0]["columns"], more], "highest_field_id": 2}
    keyed.schemas = (keyed.schemas[0], wider)
    keyed.tell()

    keyed.put((2, "b"), schema_id=1)
    assert ErrorCode.SCHEMA_NOT_EXIST == keyed.put((2, "b"), schema_id=3).error_code
    assert [(1, "a"), (2, "b")] == keyed.lookup(1, 2)
    keyed.server.restart()
    keyed.tell(epoch=2)
    request_id = keyed.ask_lookup(1, 2)
    (bucket,) = keyed.server.answered(request_id, ApiKey.LOOKUP).buckets_resp
    assert [b"\x02\x00", b"\x02\x00"] == [value.values[:2] for value in bucket.values]


# ---- lookups that insert -------------------------------------------------------------------------


def test_missing_rows_are_inserted(keyed):
    """Once each, with nulls; those that are there stay, and nothing is logged when all are."""
    keyed.put((1, "a"))

    assert [(2, None), (1, "a"), (2, None)] == insert(keyed, 2, 1, 2)
    assert 4 == keyed.put((1, "b")).log_end_offset
    assert [(2, None), (1, "b")] == insert(keyed, 2, 1)
    assert 6 == keyed.put((1, "c")).log_end_offset


def test_acks_of_inserts(keyed):
    """They and a timeout are needed, and checked."""
    for more, code in [
        ({}, ErrorCode.UNKNOWN_SERVER_ERROR),
        ({"acks": -1}, ErrorCode.UNKNOWN_SERVER_ERROR),
        ({"timeout_ms": 1}, ErrorCode.UNKNOWN_SERVER_ERROR),
        ({"acks": 7, "timeout_ms": 1}, ErrorCode.INVALID_REQUIRED_ACKS),
    ]:
        asked = keyed.ask_lookup(1, insert_if_not_exists=True, **more)
        assert code == keyed.server.answered(asked, ApiKey.LOOKUP).error_code
    for acks in (0, 1, -1):
        assert [(acks, None)] == insert(keyed, acks, acks=acks)


def test_an_insert_that_cannot_be(keyed):
    """A key that is none is refused, and so is a bucket that is not led."""
    request = messages.LookupRequest(table_id=9, insert_if_not_exists=True, acks=1, timeout_ms=1)
    request.buckets_req.add(bucket_id=0, keys=[b"\xff"])
    (bucket,) = keyed.server.call(ApiKey.LOOKUP, request).buckets_resp
    assert ErrorCode.UNKNOWN_SERVER_ERROR == bucket.error_code

    keyed.tell(leader=4, epoch=2)
    asked = keyed.ask_lookup(1, insert_if_not_exists=True, acks=1, timeout_ms=1000)
    keyed.server.pass_ms(limits.RETRY_HOLD_MS)
    assert ErrorCode.NOT_LEADER_OR_FOLLOWER == keyed.looked_up(asked)


def test_an_insert_without_buckets(keyed):
    """Is answered with as many."""
    request = messages.LookupRequest(table_id=9, insert_if_not_exists=True, acks=1, timeout_ms=1)

    assert [] == list(keyed.server.call(ApiKey.LOOKUP, request).buckets_resp)
