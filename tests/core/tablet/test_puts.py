"""PUT_KV and LOOKUP: rows are merged, logged, visible once committed, and found by the next leader."""

from __future__ import annotations

import pytest

from flussd.core import limits
from flussd.core.files import DiskError
from flussd.core.records.batch import heads_in
from flussd.core.replica.stored import Durability
from flussd.core.wire import messages
from flussd.core.wire.apis import ApiKey
from flussd.core.wire.errors import ErrorCode

FILE = f"buckets/9/0/{0:020d}.log"


def batches(keyed):
    """The (base offset, writer id, sequence, record count) of each batch in the file."""
    view = memoryview(bytes(keyed.server.disk.files[FILE]))
    return [(h.base_offset, h.writer_id, h.batch_sequence, h.record_count) for h in heads_in(view)]


def test_upserts_and_deletes(keyed):
    """Inserts take one offset, updates two, deletes one; each answer has the end of the log behind it."""
    assert 2 == keyed.put((1, "a"), (2, "b")).log_end_offset
    assert [(1, "a"), (2, "b"), None] == keyed.lookup(1, 2, 3)
    assert 5 == keyed.put((1, "c"), 2).log_end_offset
    assert [(1, "c"), None] == keyed.lookup(1, 2)
    assert 6 == keyed.put(3).log_end_offset

    assert [(0, -1, -1, 2), (2, -1, -1, 3), (5, -1, -1, 0)] == batches(keyed)


@pytest.mark.parametrize("acks", [0, 1, -1])
def test_every_acks_is_answered(keyed, acks):
    """With the end offset, and the row is there."""
    assert 1 == keyed.put((1, "a"), acks=acks).log_end_offset
    assert [(1, "a")] == keyed.lookup(1)


def test_bad_acks(keyed):
    """Refuse the whole request."""
    answer = keyed.server.answered(keyed.ask_put((1, "a"), acks=2), ApiKey.PUT_KV)

    assert ErrorCode.INVALID_REQUIRED_ACKS == answer.error_code


def test_a_duplicate_gets_the_first_end(keyed):
    """And changes nothing, though rows were written since."""
    assert 1 == keyed.put((1, "a"), writer_id=5, sequence=0).log_end_offset
    assert 3 == keyed.put((1, "b"), writer_id=5, sequence=1).log_end_offset

    assert 1 == keyed.put((1, "a"), writer_id=5, sequence=0).log_end_offset
    assert [(1, "b")] == keyed.lookup(1)
    assert 2 == len(batches(keyed))


def test_a_gap_is_refused(keyed):
    """And nothing of the batch is seen by a later one."""
    answer = keyed.put((1, "a"), writer_id=5, sequence=3)

    assert ErrorCode.OUT_OF_ORDER_SEQUENCE_EXCEPTION == answer.error_code
    assert [None] == keyed.lookup(1)
    assert 1 == keyed.put((1, "b")).log_end_offset


def test_one_bad_bucket_does_not_hold_up_the_others(make_keyed):
    """Each bucket of a request has its own answer, in order."""
    keyed = make_keyed()
    keyed.tell(buckets=(0, 1))
    request = messages.PutKvRequest(acks=-1, table_id=9, timeout_ms=1000)
    for bucket, batch in [
        (0, keyed.batch([(1, "a")])),
        (1, b"none"),
        (7, b""),
        (0, keyed.batch([(1, "b")])),
    ]:
        request.buckets_req.add(bucket_id=bucket, records=batch)

    asked = keyed.server.ask(ApiKey.PUT_KV, request)
    keyed.server.pass_ms(limits.RETRY_HOLD_MS)  # one of its answers would be sent again at once
    answer = keyed.server.answered(asked, ApiKey.PUT_KV)
    expected = [(0, 1, 0), (1, 0, 14), (7, 0, 21), (0, 3, 0)]
    assert expected == [(one.bucket_id, one.log_end_offset, one.error_code) for one in answer.buckets_resp]


def test_an_empty_request(keyed):
    """Is answered with as many buckets."""
    request = messages.PutKvRequest(acks=-1, table_id=9, timeout_ms=1000)

    assert [] == list(keyed.server.call(ApiKey.PUT_KV, request).buckets_resp)


def test_rows_are_visible_once_committed(make_keyed, memory_disk):
    """With group_fsync a put is merged with the ones before it, and read when the sync has covered it."""
    keyed = make_keyed(durability=Durability.GROUP_FSYNC)
    keyed.tell()
    keyed.put((1, "a"))
    held = []
    memory_disk.sync = lambda file, done: held.append(done)

    asked = [keyed.ask_put((1, "b")), keyed.ask_put((1, "c"), acks=1)]
    assert [None, 5] == [put and put.log_end_offset for put in map(keyed.put_answer, asked)]
    assert [(1, "a")] == keyed.lookup(1)
    while held:
        held.pop()(None)
        keyed.server.driver.run()
    assert 3 == keyed.put_answer(asked[0]).log_end_offset
    assert [(1, "c")] == keyed.lookup(1)


def test_large_puts_leave_others_their_turn(keyed, monkeypatch):
    """Batches wait in order of arrival, each for a turn of its own."""
    monkeypatch.setattr("flussd.core.tablet.puts.PUT_SLICE_BYTES", 1)
    request = messages.PutKvRequest(acks=-1, table_id=9, timeout_ms=1000)
    for n in range(5):
        request.buckets_req.add(bucket_id=0, records=keyed.batch([(1, str(n))]))

    answer = keyed.server.call(ApiKey.PUT_KV, request)
    assert [1, 3, 5, 7, 9] == [one.log_end_offset for one in answer.buckets_resp]
    assert [(1, "4")] == keyed.lookup(1)


@pytest.mark.parametrize("orderly", [True, False])
def test_the_next_process_has_the_rows(keyed, orderly):
    """All that was acknowledged, whatever ended the process."""
    for n in range(50):
        keyed.put((n % 7, str(n)), writer_id=5, sequence=n)
    keyed.put(3)

    keyed.server.restart(orderly=orderly)
    keyed.tell(epoch=2)
    assert [(n, str(n + (49 if n == 0 else 42))) if n != 3 else None for n in range(7)] == keyed.lookup(
        *range(7)
    )
    assert (
        keyed.put((1, "x"), writer_id=5, sequence=49).log_end_offset == 93
    )  # a duplicate, after a restart


def test_the_next_leader_waits_for_its_commit(make_keyed, memory_disk):
    """With group_fsync, rows behind the last sync are merged with at once, and read when it is done."""
    keyed = make_keyed(durability=Durability.GROUP_FSYNC)
    keyed.tell()
    keyed.put((1, "a"))
    sync, held = memory_disk.sync, []
    keyed.server.restart()
    memory_disk.sync = lambda file, done: (
        held.append((file, done)) if file.endswith("log") else sync(file, done)
    )
    keyed.tell(epoch=2)

    assert 3 == keyed.put((1, "b"), acks=1).log_end_offset
    waiting = keyed.ask_lookup(1)
    assert "waits" == keyed.looked_up(waiting)
    while held:
        sync(*held.pop())
        keyed.server.driver.run()
    assert [(1, "a")] == keyed.looked_up(waiting)  # the first sync covered the start of the term
    assert [(1, "b")] == keyed.lookup(1)


def test_a_failed_write_is_taken_back(keyed):
    """The put is refused, and later puts do not see its rows."""
    keyed.put((1, "a"))
    keyed.server.disk.failures.append(("write", DiskError.FULL))

    assert ErrorCode.DISK_WRITE_LOCKED == keyed.put((1, "b"), (2, "b")).error_code
    assert [(1, "a"), None] == keyed.lookup(1, 2)
    assert 2 == keyed.put((2, "c")).log_end_offset
    keyed.server.restart()
    keyed.tell(epoch=2)
    assert [(1, "a"), (2, "c")] == keyed.lookup(1, 2)


def test_leadership_lost(keyed):
    """Rows are dropped; readers and writers are told."""
    keyed.put((1, "a"))
    keyed.tell(leader=4, epoch=2)

    asked = [keyed.ask_put((1, "b")), keyed.ask_lookup(1)]
    keyed.server.pass_ms(limits.RETRY_HOLD_MS)
    assert (
        ErrorCode.NOT_LEADER_OR_FOLLOWER
        == keyed.server.answered(asked[0], ApiKey.PUT_KV).buckets_resp[0].error_code
    )
    assert ErrorCode.NOT_LEADER_OR_FOLLOWER == keyed.looked_up(asked[1])
    keyed.tell(epoch=3)
    assert [(1, "a")] == keyed.lookup(1)


def test_its_log_takes_no_other_batches(keyed, batch):
    """PRODUCE_LOG into a primary-key table would be rows that nobody can fold."""
    assert ErrorCode.INVALID_TABLE_EXCEPTION == keyed.server.produced(batch()).error_code


def test_of_a_log_table(server):
    """There are no rows."""
    request = messages.PutKvRequest(acks=-1, table_id=9, timeout_ms=1000)
    request.buckets_req.add(bucket_id=0, records=b"")
    lookup = messages.LookupRequest(table_id=9)
    lookup.buckets_req.add(bucket_id=0, keys=[b""])

    answers = server.call(ApiKey.PUT_KV, request), server.call(ApiKey.LOOKUP, lookup)
    assert [20, 20] == [answer.buckets_resp[0].error_code for answer in answers]
