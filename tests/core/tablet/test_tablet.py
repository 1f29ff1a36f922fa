"""The tablet server behind its driver: requests as clients send them, answers as they get them."""

from __future__ import annotations

import pytest

from flussd.core.files import DiskError
from flussd.core.limits import ACCEPTED_REQUESTS_PER_CONNECTION
from flussd.core.records.batch import build_batch, crc_is_right, read_head
from flussd.core.registry import messages as r
from flussd.core.replica.stored import Durability
from flussd.core.wire import messages, private
from flussd.core.wire.apis import ApiKey
from flussd.core.wire.errors import ErrorCode


def _heads(records):
    view, at, heads = memoryview(records), 0, []
    while at < len(view):
        head = read_head(view, at)
        assert crc_is_right(view, head)
        heads.append(head)
        at += head.size_bytes
    return heads


def _asked_offsets(server, offset_type, timestamp_ms=None, bucket=0):
    request = messages.ListOffsetsRequest(follower_server_id=-1, offset_type=offset_type, table_id=9)
    request.bucket_id.append(bucket)
    if timestamp_ms is not None:
        request.startTimestamp = timestamp_ms
    return server.ask(ApiKey.LIST_OFFSETS, request)


def _offsets(server, *asked, **more):
    request_id = _asked_offsets(server, *asked, **more)
    return server.answered(request_id, ApiKey.LIST_OFFSETS).buckets_resp[0]


def test_produce_then_fetch(server, batch):
    """What was appended is read from the start, from the middle of a batch, and not beyond the end."""
    assert 0 == server.produced(batch(count=3)).base_offset
    assert 3 == server.produced(batch(count=2), batch(count=2)).base_offset

    whole = server.fetched(server.fetch(-2))
    assert [(0, 3), (3, 2), (5, 2)] == [(h.base_offset, h.record_count) for h in _heads(whole.records)]
    assert (7, False) == (whole.high_watermark, whole.HasField("error_code"))
    middle = server.fetched(server.fetch(4))
    assert [3, 5] == [head.base_offset for head in _heads(middle.records)]
    assert ErrorCode.LOG_OFFSET_OUT_OF_RANGE_EXCEPTION == server.fetched(server.fetch(8)).error_code


def test_a_parked_fetch_is_woken_by_the_append(server, batch):
    """It waits without data, and is answered within the step that moves the watermark."""
    waiting = server.fetch(0)
    assert server.fetched(waiting) is None
    server.produced(batch())

    assert [0] == [head.base_offset for head in _heads(server.fetched(waiting).records)]


def test_a_parked_fetch_ends_at_its_time(server):
    """Not before max_wait, and then empty."""
    waiting = server.fetch(0, wait_ms=500)
    server.pass_ms(499)
    assert server.fetched(waiting) is None
    server.pass_ms(2)

    answer = server.fetched(waiting)
    assert (b"", 0) == (answer.records, answer.high_watermark)


def test_min_bytes_are_waited_for(server, batch):
    """One batch is not enough; the second one is."""
    size_bytes = len(batch())
    waiting = server.fetch(0, min_bytes=size_bytes + 1)
    server.produced(batch())
    assert server.fetched(waiting) is None
    server.produced(batch())

    assert 2 == len(_heads(server.fetched(waiting).records))


def test_a_bucket_that_is_not_here_is_answered_after_a_pause(server, batch):
    """21 for what the cluster does not have; clients resend at once, so the answer takes 25 ms."""
    request_id = server.produce(batch(), bucket=7)
    assert server.answered(request_id, ApiKey.PRODUCE_LOG) is None
    server.pass_ms(25)

    answer = server.answered(request_id, ApiKey.PRODUCE_LOG).buckets_resp[0]
    assert ErrorCode.UNKNOWN_TABLE_OR_BUCKET_EXCEPTION == answer.error_code


def test_what_comes_behind_a_held_refusal_is_refused_too(server, batch):
    """1. A refusal is held; 2. the bucket is led again; 3. a later batch must not overtake the refused one.

    Found by seed 208 of the simulator: ten later batches pushed it out of the writer's window.
    """
    server.produced(batch(0, writer_id=4))
    server.tell(leader=4, epoch=2)
    first = server.produce(batch(0, writer_id=4))
    server.tell(epoch=3)
    second = server.produce(batch(1, writer_id=4))
    server.pass_ms(25)

    for request_id in (first, second):
        answer = server.answered(request_id, ApiKey.PRODUCE_LOG).buckets_resp[0]
        assert ErrorCode.NOT_LEADER_OR_FOLLOWER == answer.error_code
    assert {} == server.machine.produces.holding
    assert [0, 1] == [server.produced(batch(n, writer_id=4)).base_offset for n in (0, 1)]


def test_bad_acks_and_bad_batches(server, batch):
    """18 for the whole request; 14 for a bucket, and nothing of it is stored."""
    bad = server.answered(server.produce(batch(), acks=2), ApiKey.PRODUCE_LOG)
    assert ErrorCode.INVALID_REQUIRED_ACKS == bad.error_code
    flipped = bytearray(batch())
    flipped[-1] ^= 1
    assert ErrorCode.CORRUPT_RECORD_EXCEPTION == server.produced(batch(), bytes(flipped)).error_code

    assert 0 == _offsets(server, 1).offset


def test_offsets_by_time(server, batch):
    """Earliest, latest, the first batch at a time, a time behind all, a time to come."""
    times = []
    for _ in range(5):
        times.append(server.clock.wall_ms())
        server.produced(batch(count=2))
        server.pass_ms(10)

    assert [0, 10] == [_offsets(server, kind).offset for kind in (0, 1)]
    assert [0, 2, 4, 6, 8] == [_offsets(server, 2, time).offset for time in times]
    assert 4 == _offsets(server, 2, times[1] + 1).offset
    assert 10 == _offsets(server, 2, times[-1] + 1).offset
    future = server.clock.wall_ms() + 1000
    assert ErrorCode.INVALID_TIMESTAMP_EXCEPTION == _offsets(server, 2, future).error_code
    without = messages.ListOffsetsRequest(follower_server_id=-1, offset_type=2, table_id=9, bucket_id=[0])
    answer = server.call(ApiKey.LIST_OFFSETS, without)
    assert ErrorCode.UNKNOWN_SERVER_ERROR == answer.buckets_resp[0].error_code


def test_an_offset_by_time_is_of_what_was_looked_at(make_server, batch, memory_disk, monkeypatch):
    """A batch that is committed while older ones are looked at is not passed over (seed 2079)."""
    server = make_server(durability=Durability.GROUP_FSYNC)
    server.tell()
    server.produced(batch(count=2))
    server.pass_ms(10)
    held = []
    monkeypatch.setattr(memory_disk, "sync", lambda file, done: held.append(done))
    server.produced(batch(count=3))  # its time is known, its sync is not over
    read = memory_disk.read
    monkeypatch.setattr(memory_disk, "read", lambda *a: held.append(lambda _: read(*a)))
    asked = _asked_offsets(server, 2, server.clock.wall_ms())
    assert server.answered(asked, ApiKey.LIST_OFFSETS) is None

    while held:  # first the sync, which commits
        held.pop(0)(None)
        server.driver.run()

    assert 2 == server.answered(asked, ApiKey.LIST_OFFSETS).buckets_resp[0].offset


def test_writer_ids_grow_and_are_never_given_twice(server):
    """Over restarts too: a block is taken from the registry before it is used."""
    given = [server.call(ApiKey.INIT_WRITER, messages.InitWriterRequest()).writer_id for _ in range(3)]
    server.start()
    given += [server.call(ApiKey.INIT_WRITER, messages.InitWriterRequest()).writer_id for _ in range(3)]

    assert sorted(set(given)) == given


def test_a_restart_keeps_everything(server, batch):
    """The process ends without a word; a new epoch leads the same log, cold reads included."""
    for sequence in range(50):
        server.produced(batch(sequence, count=2, writer_id=4, payload=bytes(3000)))
    server.start()
    server.tell(epoch=2)

    assert 98 == server.produced(batch(49, count=2, writer_id=4, payload=bytes(3000))).base_offset
    for offset in (0, 1, 37, 99):
        heads = _heads(server.fetched(server.fetch(offset)).records)
        assert heads[0].base_offset == offset - offset % 2
        assert heads[-1].base_offset <= 98


def test_cold_reads_find_their_batch_and_check_it(make_server, batch):
    """After an orderly stop nothing is scanned: places are looked for, bad batches are not sent."""
    server = make_server()
    server.tell()
    for sequence in range(100):
        server.produced(batch(sequence, count=2, writer_id=4, payload=bytes(3000)))
    server.driver.stop()
    server.driver.halted = False
    server.start()
    server.tell(epoch=2)
    replica = server.machine.buckets.replicas[9, -1, 0]
    assert not replica.log.active.dense.offsets

    for offset in (0, 1, 111, 199):
        heads = _heads(server.fetched(server.fetch(offset, max_bytes=10_000)).records)
        assert heads[0].base_offset == offset - offset % 2
        assert len(heads) <= 3
    file = f"buckets/9/0/{0:020d}.log"
    server.disk.files[file][150_000] ^= 1
    heads = _heads(server.fetched(server.fetch(90)).records)
    bad = heads[-1].base_offset + 2
    assert ErrorCode.CORRUPT_MESSAGE == server.fetched(server.fetch(bad)).error_code
    assert any("unreadable" in str(announced) for announced in server.announced)


def test_roles_follow_the_catalog(server, batch):
    """Another leads: refused; we again, in a newer epoch: served, and reported."""
    server.tell(leader=4, epoch=2)
    request_id = server.produce(batch())
    server.pass_ms(25)
    refused = server.answered(request_id, ApiKey.PRODUCE_LOG).buckets_resp[0]
    assert ErrorCode.NOT_LEADER_OR_FOLLOWER == refused.error_code
    server.tell(epoch=3)
    assert 0 == server.produced(batch()).base_offset

    poll = private.AwaitReportsRequest(
        coordinator_epoch=1, tablet_incarnation=55, after_sequence=0, wait_ms=100, wall_ms=0
    )
    answer = server.call(private.AWAIT_REPORTS, poll, connection=server.COORDINATOR)
    assert [(private.LEADING, 3)] == [(report.kind, report.leader_epoch) for report in answer.reports]


def test_a_decreed_server_registers_anew_and_serves_nothing_before(server, batch):
    """Its node is deleted under it: it steps down at once, and has another incarnation."""
    server.registry.node = None
    server.driver.post(r.WatchFired("/fluss/tabletservers/ids/3", r.Changed.DELETED))
    server.driver.run()

    assert 56 == server.machine.registration.incarnation
    request_id = server.produce(batch())
    server.pass_ms(25)
    refused = server.answered(request_id, ApiKey.PRODUCE_LOG).buckets_resp[0]
    assert ErrorCode.NOT_LEADER_OR_FOLLOWER == refused.error_code


def test_commands_for_another_incarnation_are_refused(server):
    """Rule 3: what is not for our present registration is not obeyed."""
    update = private.UpdateCatalogRequest(coordinator_epoch=1, tablet_incarnation=54, sequence=99)
    refused = server.call(private.UPDATE_CATALOG, update, connection=server.COORDINATOR)
    assert ErrorCode.INELIGIBLE_REPLICA_EXCEPTION == refused.error_code
    update = private.UpdateCatalogRequest(coordinator_epoch=0, tablet_incarnation=55, sequence=99)
    refused = server.call(private.UPDATE_CATALOG, update, connection=server.COORDINATOR)
    assert ErrorCode.INVALID_COORDINATOR_EXCEPTION == refused.error_code


def test_private_requests_from_clients_are_refused(server):
    """On a listener that clients reach, our own keys do not exist."""
    poll = private.AwaitReportsRequest(
        coordinator_epoch=1, tablet_incarnation=55, after_sequence=0, wait_ms=100, wall_ms=0
    )
    assert ErrorCode.UNSUPPORTED_VERSION == server.call(private.AWAIT_REPORTS, poll).error_code


def test_a_dropped_bucket_leaves_nothing(server, batch):
    """Its files go, a parked reader is told, and the coordinator hears of it."""
    server.produced(batch())
    waiting = server.fetch(1)
    server.tell(dropped=True, epoch=1)

    assert [] == [file for file in server.disk.files if file.startswith("buckets/9/")]
    assert {} == server.machine.buckets.owners
    server.pass_ms(500)
    assert ErrorCode.UNKNOWN_TABLE_OR_BUCKET_EXCEPTION == server.fetched(waiting).error_code


def test_old_segments_go_by_the_earlier_of_two_clocks(make_server, batch):
    """Seven days, the default of table.log.ttl; a clock that jumps ahead on one server erases nothing."""
    server = make_server(segment_bytes=300, retention_interval_ms=1000)
    server.tell()
    for _ in range(10):
        server.produced(batch(payload=bytes(60)))
    week_ms = 7 * 86_400_000
    for ours_ms, theirs_ms, start in (
        (week_ms + 60_000, 0, 0),
        (0, week_ms + 60_000, 0),
        (week_ms + 60_000,) * 2 + (10,),
    ):
        server.clock.wall = 1_700_000_000_000 + ours_ms
        server.poll(1_700_000_000_000 + theirs_ms)
        server.pass_ms(1000)
        assert start == _offsets(server, 0).offset

    assert ErrorCode.LOG_OFFSET_OUT_OF_RANGE_EXCEPTION == server.fetched(server.fetch(9)).error_code
    assert 10 == server.produced(batch()).base_offset


def test_a_client_that_leaves_takes_its_requests_along(server, batch):
    """Parked fetches and writes of a closed connection are gone."""
    server.fetch(0)
    server.driver.connection_closed(server.CLIENT)

    assert {} == {s: w for s, w in server.machine.parked.waiters.items() if w.connection == server.CLIENT}
    assert {} == server.machine.parked.by_bucket


def test_too_many_requests_pause_the_connection(server):
    """Back-pressure: unread, not refused; answers let it be read again. The coordinator is always read."""
    for _ in range(ACCEPTED_REQUESTS_PER_CONNECTION):
        server.fetch(0)
    assert {server.CLIENT} == server.network.paused
    server.pass_ms(600)
    assert set() == server.network.paused


def test_a_full_disk_is_told_and_reads_go_on(server, batch):
    """70 to the writer, which official clients pass on; what is there is still read."""
    server.produced(batch())
    server.disk.failures.append(("write", DiskError.FULL))

    assert ErrorCode.DISK_WRITE_LOCKED == server.produced(batch()).error_code
    assert 1 == len(_heads(server.fetched(server.fetch(0)).records))
    assert 1 == server.produced(batch()).base_offset


def test_an_orderly_stop_makes_all_durable(server, batch):
    """A checkpoint at the log's end, then the registration is deleted, then Stopped."""
    server.produced(batch())
    server.driver.stop()

    assert "Stopped" in str(server.announced[-1])
    replica = server.machine.buckets.replicas[9, -1, 0]
    assert replica.durable.base.end == replica.log.end


@pytest.mark.parametrize("api_key", [999, 0, -1, 1065, 32767, ApiKey.CREATE_TABLE])
def test_what_is_not_served_is_answered(server, api_key):
    """Unknown keys, and known ones that this server does not serve: an error, never silence."""
    request_id = server.ask(api_key, messages.InitWriterRequest())
    (sent,) = [body for _, _, sent_id, body in server.network.sent if sent_id == request_id]
    answer = messages.ErrorResponse.FromString(sent)

    assert ErrorCode.UNSUPPORTED_VERSION == answer.error_code
    assert "not served" in answer.error_message


def test_big_first_batches_are_sent_whole(server):
    """The first batch of an answer is whole, whatever the limits; the second waits for the next fetch."""
    big = build_batch(bytes(100_000), record_count=1)
    server.produced(big)
    server.produced(big)

    assert 1 == len(_heads(server.fetched(server.fetch(0, max_bytes=10)).records))


def test_an_answer_is_bounded_whatever_is_asked(server, monkeypatch):
    """1. A request names one bucket a hundred times, with no limits of its own; 2. the answer has one."""
    monkeypatch.setattr("flussd.core.tablet.fetch.FETCH_BYTES_MAX", 3_000)
    server.produced(build_batch(bytes(1_000), record_count=1))
    request = messages.FetchLogRequest(follower_server_id=-1, max_bytes=2**31 - 1)
    table = request.tables_req.add(table_id=9, projection_pushdown_enabled=False)
    for _ in range(100):
        table.buckets_req.add(bucket_id=0, fetch_offset=0, max_fetch_bytes=2**31 - 1)
    answers = server.call(ApiKey.FETCH_LOG, request).tables_resp[0].buckets_resp

    assert 100 == len(answers)
    assert 1_000 < sum(len(answer.records) for answer in answers) <= 3_000
