"""LIMIT_SCAN, GET_TABLE_STATS and filters: the last rows, how many there are, and which are left out."""

from __future__ import annotations

import pytest

from flussd.core.files import DiskError
from flussd.core.limits import TERM_COMMIT_HOLD_MS
from flussd.core.records.aligned import Domain, Kind
from flussd.core.records.batch import build_batch, crc_is_right, heads_in
from flussd.core.records.statistics import Bounds, build_statistics
from flussd.core.tablet import scan
from flussd.core.wire import messages
from flussd.core.wire.apis import ApiKey
from flussd.core.wire.errors import ErrorCode

FILE = f"buckets/9/0/{0:020d}.log"


def ask(server, limit, bucket=0, table_id=9):
    request = messages.LimitScanRequest(table_id=table_id, bucket_id=bucket, limit=limit)
    return server.ask(ApiKey.LIMIT_SCAN, request)


def scanned(server, limit, **more):
    """The answer, and the first offsets and counts of its batches."""
    answer = server.answered(ask(server, limit, **more), ApiKey.LIMIT_SCAN)
    view = memoryview(answer.records)
    heads = list(heads_in(view))
    assert sum(head.size_bytes for head in heads) == len(view)
    assert all(crc_is_right(view, head) for head in heads)
    return answer, [(head.base_offset, head.record_count) for head in heads]


def test_the_last_rows(server, batch):
    """Batches that hold the last ones, whole; the first may begin before them."""
    for count in (3, 2, 1):
        server.produced(batch(count=count))

    expected = {0: [], 1: [(5, 1)], 2: [(3, 2), (5, 1)], 3: [(3, 2), (5, 1)]}
    expected |= {limit: [(0, 3), (3, 2), (5, 1)] for limit in (4, 6, 7, 2**31 - 1)}
    for limit, batches in expected.items():
        answer, found = scanned(server, limit)
        assert batches == found
        assert answer.is_log_table
        assert not answer.HasField("error_code")


def test_an_empty_log(server):
    """No records, and no error."""
    answer, found = scanned(server, 5)

    assert ([], True, False) == (found, answer.is_log_table, answer.HasField("records"))


@pytest.mark.parametrize("ends", ["orderly", "killed"])
def test_over_segments(make_server, batch, ends):
    """Spans of several files make one answer, of the running process and of the next one."""
    server = make_server(segment_bytes=500)
    server.tell()
    for sequence in range(30):
        server.produced(batch(sequence, count=2, writer_id=4, payload=bytes(100)))
    assert len(server.machine.buckets.replicas[9, -1, 0].log.segments) > 5

    for _ in range(2):
        for limit in range(1, 62):
            first = max(0, 60 - limit) // 2 * 2
            assert [(offset, 2) for offset in range(first, 60, 2)] == scanned(server, limit)[1]
        if ends == "orderly":
            server.driver.stop()
            server.driver.halted = False
        server.start()
        server.tell(epoch=2)


def test_cold_bytes_are_checked(make_server, batch):
    """One bad batch makes an error of the whole: fewer rows than there are would be a wrong answer."""
    server = make_server()
    server.tell()
    for sequence in range(20):
        server.produced(batch(sequence, writer_id=4, payload=bytes(100)))
    server.driver.stop()
    server.driver.halted = False
    server.start()
    server.tell(epoch=2)
    server.disk.files[FILE][-10] ^= 1

    answer, found = scanned(server, 5)

    assert (ErrorCode.CORRUPT_MESSAGE, []) == (answer.error_code, found)
    assert FILE in answer.error_message
    assert any("unreadable" in str(announced) for announced in server.announced)


def test_cold_bytes_are_checked_before_hot_ones(make_server, batch):
    """An answer that begins in a file of an earlier process and ends with new bytes."""
    server = make_server(segment_bytes=500)
    server.tell()
    for sequence in range(6):
        server.produced(batch(sequence, writer_id=4, payload=bytes(100)))
    server.driver.stop()
    server.driver.halted = False
    server.start()
    server.tell(epoch=2)
    server.produced(batch(6, writer_id=4, payload=bytes(100)))
    assert [(n, 1) for n in range(7)] == scanned(server, 7)[1]
    server.disk.files[FILE][100] ^= 1

    assert ErrorCode.CORRUPT_MESSAGE == scanned(server, 7)[0].error_code
    assert [(6, 1)] == scanned(server, 1)[1]


def test_a_read_error(server, batch):
    """The disk does not give the bytes: an error in the answer, and the next one is right."""
    server.produced(batch())
    server.disk.failures.append(("read", DiskError.IO))

    assert ErrorCode.LOG_STORAGE_EXCEPTION == scanned(server, 1)[0].error_code
    assert [(0, 1)] == scanned(server, 1)[1]


def test_refusals(server, batch, monkeypatch):
    """Limits below 0, more bytes than one answer has, and buckets that are not here, after a pause."""
    server.produced(batch(payload=bytes(100)))
    assert ErrorCode.LOG_OFFSET_OUT_OF_RANGE_EXCEPTION == scanned(server, -1)[0].error_code
    monkeypatch.setattr(scan, "LIMIT_SCAN_BYTES_MAX", 100)
    assert ErrorCode.RECORD_TOO_LARGE_EXCEPTION == scanned(server, 1)[0].error_code
    for where in ({"bucket": 7}, {"table_id": 77}):
        request_id = ask(server, 1, **where)
        assert server.answered(request_id, ApiKey.LIMIT_SCAN) is None
        server.pass_ms(25)
        code = server.answered(request_id, ApiKey.LIMIT_SCAN).error_code
        assert ErrorCode.UNKNOWN_TABLE_OR_BUCKET_EXCEPTION == code


def test_a_new_leader_scans_after_its_first_commit(server, batch):
    """Until then rows may be missing that were read before: it waits, and for no longer than a second."""
    server.produced(batch(count=3))
    replica = server.machine.buckets.replicas[9, -1, 0]
    replica.term_start_offset = 4
    late, early = ask(server, 1), ask(server, 2)
    assert server.answered(early, ApiKey.LIMIT_SCAN) is None
    server.pass_ms(TERM_COMMIT_HOLD_MS)
    code = server.answered(late, ApiKey.LIMIT_SCAN).error_code
    assert ErrorCode.LEADER_NOT_AVAILABLE_EXCEPTION == code
    waiting = ask(server, 1)
    server.produced(batch(count=2))

    assert server.answered(waiting, ApiKey.LIMIT_SCAN).records


def stats(server, *buckets, table_id=9):
    request = messages.GetTableStatsRequest(table_id=table_id)
    for bucket in buckets:
        request.buckets_req.add(bucket_id=bucket)
    return server.ask(ApiKey.GET_TABLE_STATS, request)


def test_row_counts(make_server, batch):
    """Of each bucket that was asked for, in that order; no request of nothing."""
    server = make_server()
    server.tell(buckets=(0, 1))
    server.produced(batch(count=3))

    answer = server.answered(stats(server, 1, 0), ApiKey.GET_TABLE_STATS)
    assert [(1, 0), (0, 3)] == [(entry.bucket_id, entry.row_count) for entry in answer.buckets_resp]
    assert [] == list(server.answered(stats(server), ApiKey.GET_TABLE_STATS).buckets_resp)


def test_a_new_leader_counts_what_it_found(server, batch):
    """1. Rows are acknowledged; 2. the server falls, and leads again; 3. a count fell below them."""
    server.produced(batch(count=3))
    replica = server.machine.buckets.replicas[9, -1, 0]
    replica.committed, replica.term_start_offset = (0, 0, 0, -1), 3

    assert [3] == [
        entry.row_count for entry in server.answered(stats(server, 0), ApiKey.GET_TABLE_STATS).buckets_resp
    ]


def test_row_counts_of_what_is_not_here(server):
    """Each unknown bucket has its own error, after a pause; the others their counts."""
    request_id = stats(server, 0, 7)
    server.pass_ms(25)
    known, unknown = server.answered(request_id, ApiKey.GET_TABLE_STATS).buckets_resp

    assert (0, False) == (known.row_count, known.HasField("error_code"))
    assert (7, ErrorCode.UNKNOWN_TABLE_OR_BUCKET_EXCEPTION) == (unknown.bucket_id, unknown.error_code)


# ---- filters -------------------------------------------------------------------------------------


def told(least, most):
    """A batch whose first column lies between these."""
    section = build_statistics([(0, Domain(Kind.INTEGER), Bounds(0, least, most))])
    return build_batch(b"x", record_count=2, magic=1, statistics=section)


def filtered(server, offset, value, *, schema_id=1, max_bytes=1 << 20):
    """What a fetch of rows with the first column equal to *value* gets."""
    request = messages.FetchLogRequest(follower_server_id=-1, max_bytes=max_bytes)
    table = request.tables_req.add(table_id=9, projection_pushdown_enabled=False)
    table.buckets_req.add(bucket_id=0, fetch_offset=offset, max_fetch_bytes=max_bytes)
    table.filter_schema_id, table.filter_predicate.type = schema_id, 0
    leaf = table.filter_predicate.leaf
    leaf.function, leaf.field_id = 0, 0
    leaf.literals.add(literal_type=3, is_null=False, int_value=value)
    bucket = server.fetched(server.ask(ApiKey.FETCH_LOG, request))
    heads = heads_in(memoryview(bucket.records))
    end = bucket.filtered_end_offset if bucket.HasField("filtered_end_offset") else None
    return [head.base_offset for head in heads], end, bucket.high_watermark


@pytest.mark.parametrize("is_cold", [False, True])
def test_batches_without_a_match_are_left_out(server, is_cold):
    """In front, between, and at the end, where the answer says how far it went."""
    server.produced(told(1, 2), told(5, 9), told(1, 2), told(8, 9), told(1, 2))
    if is_cold:
        server.driver.stop()
        server.driver.halted = False
        server.start()
        server.tell(epoch=2)

    assert ([2, 6], 10, 10) == filtered(server, 0, 8)
    assert ([0, 4, 8], None, 10) == filtered(server, 0, 1)
    assert ([], 10, 10) == filtered(server, 3, 77)
    assert ([], None, 10) == filtered(server, 10, 77)
    assert ([0, 2, 4, 6, 8], None, 10) == filtered(server, 0, 77, schema_id=5)


def test_a_reader_comes_to_the_end_in_small_steps(server):
    """Each answer is bounded by bytes that were read, and leads on; nothing that matches is skipped."""
    for n in range(20):
        server.produced(told(n, n))
    offset, found = 0, []
    while offset < 40:
        batches, end, _ = filtered(server, offset, 13, max_bytes=250)
        found += batches
        last = batches[-1] + 2 if batches else 0
        assert max(last, end or 0) > offset
        offset = max(last, end or 0)

    assert [26] == found
