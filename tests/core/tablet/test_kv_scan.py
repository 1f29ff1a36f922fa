"""SCAN_KV: sessions with a snapshot, numbered calls, a limit on their number, and an end."""

from __future__ import annotations

import pytest

from flussd.core import limits
from flussd.core.records.values import read_value_batch
from flussd.core.wire import messages
from flussd.core.wire.apis import ApiKey
from flussd.core.wire.errors import ErrorCode


@pytest.fixture
def scan(keyed):
    """Calls of SCAN_KV, on a table of rows 1 to 5."""

    class Scan:
        def call(self, **more):
            return keyed.server.call(ApiKey.SCAN_KV, messages.ScanKvRequest(**more))

        def open(self, size=1, bucket=0, table_id=9, **more):
            asked = messages.PbScanReqForBucket(table_id=table_id, bucket_id=bucket, **more)
            return self.call(bucket_scan_req=asked, call_seq_id=0, batch_size_bytes=size)

        def go_on(self, scanner_id, number, size=1, **more):
            return self.call(scanner_id=scanner_id, call_seq_id=number, batch_size_bytes=size, **more)

        def rows(self, answer):
            return [keyed.row(value) for value in read_value_batch(answer.records)]

        def to_the_end(self, answer, size=1):
            """The rows of each answer from this one on."""
            found, number = [self.rows(answer)], 1
            while answer.has_more_results:
                answer = self.go_on(answer.scanner_id, number, size)
                found.append(self.rows(answer))
                number += 1
            return found

    for n in range(1, 6):
        keyed.put((n, "x" * n))
    return Scan()


def test_one_answer(scan, keyed):
    """All rows, the watermark, a scanner that is over already."""
    answer = scan.open(1000)

    assert [(n, "x" * n) for n in range(1, 6)] == scan.rows(answer)
    assert (False, 5, True) == (answer.has_more_results, answer.log_offset, bool(answer.scanner_id))
    assert ErrorCode.UNKNOWN_SCANNER_ID == scan.go_on(answer.scanner_id, 1).error_code
    assert not keyed.server.machine.kv_scans.scanners


@pytest.mark.parametrize(("size", "counts"), [(1, [1] * 5), (15, [2, 1, 1, 1]), (20, [2, 2, 1])])
def test_several_answers(scan, size, counts):
    """As many rows as fit, one at least."""
    found = scan.to_the_end(scan.open(size), size)

    assert counts == [len(rows) for rows in found]
    assert [1, 2, 3, 4, 5] == [row[0] for rows in found for row in rows]


@pytest.mark.parametrize("limit", [1, 3, 5, 100])
def test_a_limit(scan, limit):
    """It ends the scan early, and the answer before says so."""
    found = scan.to_the_end(scan.open(limit=limit))

    assert [[(n, "x" * n)] for n in range(1, 6)][:limit] == found


def test_the_rows_are_a_snapshot(scan, keyed):
    """What is put and deleted meanwhile is not seen; the next scan sees it."""
    answer = scan.open()
    keyed.put((6, "new"), (4, "changed"), 2, 5)
    keyed.put((2, "again"))

    assert [(n, "x" * n) for n in range(1, 6)] == [row for rows in scan.to_the_end(answer) for row in rows]
    expected = [(1, "x"), (2, "again"), (3, "xxx"), (4, "changed"), (6, "new")]
    assert expected == scan.rows(scan.open(1000))


def test_an_answer_has_a_bound(scan, keyed, monkeypatch):
    """Whatever a call allows."""
    monkeypatch.setattr("flussd.core.tablet.kv_scan.SCAN_KV_BYTES_MAX", 20)

    assert [2, 2, 1] == [len(rows) for rows in scan.to_the_end(scan.open(1 << 30), 1 << 30)]


def test_puts_keep_nothing_for_a_scan_that_is_over(scan, keyed):
    """However it ended."""
    rows = keyed.server.machine.keyed.buckets[9, -1, 0].table._rows
    scan.to_the_end(scan.open())
    scan.go_on(scan.open().scanner_id, 1, close_scanner=True)
    scan.go_on(scan.open().scanner_id, 7)
    scan.open()
    assert 1 == len(rows.snapshots)
    keyed.server.pass_ms(limits.SCANNER_TTL_MS)

    assert [] == rows.snapshots


def test_an_empty_bucket(keyed, scan):
    """No scanner, no rows, the watermark."""
    keyed.put(*range(1, 6))

    answer = scan.open()
    assert (False, 10) == (answer.has_more_results, answer.log_offset)
    assert not answer.HasField("scanner_id")
    assert not answer.HasField("records")


def test_calls_have_numbers(scan):
    """A wrong one, or none, ends the session."""
    for number in ({"call_seq_id": 2}, {"call_seq_id": 0}, {}):
        scanner_id = scan.open().scanner_id
        answer = scan.call(scanner_id=scanner_id, batch_size_bytes=1, **number)
        assert ErrorCode.INVALID_SCAN_REQUEST == answer.error_code
        assert ErrorCode.UNKNOWN_SCANNER_ID == scan.go_on(scanner_id, 1).error_code


def test_closing(scan):
    """A closed one is unknown; closing what is unknown is fine."""
    scanner_id = scan.open().scanner_id
    for _ in range(2):
        answer = scan.go_on(scanner_id, 1, close_scanner=True)
        assert (scanner_id, False, 0) == (answer.scanner_id, answer.has_more_results, answer.error_code)
    assert ErrorCode.UNKNOWN_SCANNER_ID == scan.go_on(scanner_id, 1).error_code


def test_wrong_calls(scan):
    """Told in the body; a session that was named stays."""
    bucket = messages.PbScanReqForBucket(table_id=9, bucket_id=0)
    scanner_id = scan.open().scanner_id
    for wrong in [
        {"batch_size_bytes": 1},
        {"scanner_id": scanner_id, "bucket_scan_req": bucket, "batch_size_bytes": 1},
        {"bucket_scan_req": bucket, "batch_size_bytes": 0},
        {"bucket_scan_req": bucket, "batch_size_bytes": -1},
        {"bucket_scan_req": bucket},
        {"bucket_scan_req": bucket, "batch_size_bytes": 1, "close_scanner": True},
        {"bucket_scan_req": bucket, "batch_size_bytes": 1, "call_seq_id": 1},
        {"scanner_id": scanner_id, "call_seq_id": 1},
    ]:
        assert ErrorCode.INVALID_SCAN_REQUEST == scan.call(**wrong).error_code, wrong
    assert [(2, "xx")] == scan.rows(scan.go_on(scanner_id, 1))


def test_too_many(scan, monkeypatch):
    """Of a bucket, or of a server; those that are closed do not count."""
    opened = [scan.open().scanner_id for _ in range(limits.SCANNERS_PER_BUCKET)]
    assert ErrorCode.TOO_MANY_SCANNERS == scan.open().error_code
    scan.go_on(opened[3], 1, close_scanner=True)
    assert not scan.open().error_code
    monkeypatch.setattr("flussd.core.tablet.kv_scan.SCANNERS_PER_BUCKET", 100)
    monkeypatch.setattr("flussd.core.tablet.kv_scan.SCANNERS_PER_SERVER", 9)

    assert not scan.open().error_code
    assert ErrorCode.TOO_MANY_SCANNERS == scan.open().error_code


def test_nobody_calls_for_long(scan, keyed):
    """The session expires; each call gives it the time anew."""
    first, second = scan.open().scanner_id, scan.open().scanner_id
    keyed.server.pass_ms(limits.SCANNER_TTL_MS - 1)
    assert not scan.go_on(second, 1).error_code
    keyed.server.pass_ms(1)

    assert ErrorCode.SCANNER_EXPIRED == scan.go_on(first, 1).error_code
    assert [(3, "xxx")] == scan.rows(scan.go_on(second, 2))


def test_expired_ones_are_forgotten_in_the_end(scan, keyed, monkeypatch):
    """Only the last ones are remembered."""
    monkeypatch.setattr("flussd.core.tablet.kv_scan.EXPIRED_SCANNERS", 2)
    opened = [scan.open().scanner_id for _ in range(3)]
    keyed.server.pass_ms(limits.SCANNER_TTL_MS)

    expired, unknown = ErrorCode.SCANNER_EXPIRED, ErrorCode.UNKNOWN_SCANNER_ID
    assert [unknown, expired, expired] == [scan.go_on(one, 1).error_code for one in opened]


def test_a_leader_that_leaves(scan, keyed):
    """Its sessions are over."""
    scanner_id = scan.open().scanner_id
    keyed.tell(leader=4, epoch=2)
    keyed.tell(epoch=3)

    assert ErrorCode.SCANNER_EXPIRED == scan.go_on(scanner_id, 1).error_code
    assert 5 == len(scan.rows(scan.open(1000)))


def test_a_session_outlives_its_connection(scan, keyed):
    """A client may come back over another one."""
    scanner_id = scan.open().scanner_id
    keyed.server.driver.connection_closed(keyed.server.CLIENT)
    keyed.server.driver.connection_opened(keyed.server.CLIENT, internal=False)

    assert [(2, "xx")] == scan.rows(scan.go_on(scanner_id, 1))


def test_no_such_bucket(scan, keyed):
    """Refused in the body, after a moment."""
    request = messages.ScanKvRequest(call_seq_id=0, batch_size_bytes=1)
    request.bucket_scan_req.table_id, request.bucket_scan_req.bucket_id = 9, 7
    asked = keyed.server.ask(ApiKey.SCAN_KV, request)
    keyed.server.pass_ms(limits.RETRY_HOLD_MS)

    answer = keyed.server.answered(asked, ApiKey.SCAN_KV)
    assert ErrorCode.UNKNOWN_TABLE_OR_BUCKET_EXCEPTION == answer.error_code
