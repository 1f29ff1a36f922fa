"""Rounds of checkpoints: none while data come in at full speed, all that are wanted together, none lost."""

import pytest

from flussd.core.files import DiskError

PAUSE_MS = 5_000


@pytest.fixture
def server(make_server):
    """Two buckets, which want a checkpoint after 1 000 bytes."""
    server = make_server(checkpoint_bytes=1_000, checkpoint_pause_ms=PAUSE_MS)
    server.tell(buckets=(0, 1))
    return server


def fill(server, batch, bucket=0):
    """Append more than a checkpoint's worth."""
    for _ in range(30):
        assert 0 == server.produced(batch(), bucket=bucket).error_code


def behind(server, bucket=0):
    """How many offsets of a bucket no checkpoint covers."""
    replica = server.machine.buckets.replicas[9, -1, bucket]
    return replica.log.end_offset - replica.durable.base.end[0]


def test_nothing_is_synced_before_the_round(server, batch):
    """A sync that no acknowledgement waits for costs the rate of those who write."""
    server.disk.log.clear()
    fill(server, batch)
    server.pass_ms(PAUSE_MS - 1)

    assert [] == [line for line in server.disk.log if "sync" in line]
    assert behind(server)


def test_a_round_is_for_all_who_want_it(server, batch):
    """Five seconds after the first of them, though nobody writes any more."""
    fill(server, batch, bucket=1)
    server.pass_ms(PAUSE_MS // 2)
    fill(server, batch, bucket=0)
    server.pass_ms(PAUSE_MS // 2)

    assert [0, 0] == [behind(server, bucket) for bucket in (0, 1)]


def test_who_wants_none_is_left_alone(server, batch):
    """A bucket with less than a checkpoint's worth."""
    fill(server, batch, bucket=0)
    server.produced(batch(), bucket=1)
    server.pass_ms(PAUSE_MS)

    assert 0 == behind(server, 0)
    assert 0 < behind(server, 1)


def test_rounds_go_on(server, batch):
    """Each as the first."""
    for _ in range(3):
        fill(server, batch)
        assert behind(server)
        server.pass_ms(PAUSE_MS)
        assert not behind(server)


def test_a_failed_checkpoint_is_wanted_again(server, batch):
    """The old one stays good; the next appends ask for another round."""
    fill(server, batch)
    server.disk.failures.append(("rename", DiskError.FULL))
    server.pass_ms(PAUSE_MS)
    assert behind(server)
    fill(server, batch)
    server.pass_ms(PAUSE_MS)

    assert not behind(server)


def test_a_dropped_bucket_is_forgotten(server, batch):
    """The round comes when the bucket is gone."""
    fill(server, batch)
    server.tell(buckets=(0, 1), dropped=True)
    server.pass_ms(PAUSE_MS)

    assert {} == server.machine.buckets.replicas
    assert {} == server.machine.buckets.checkpoints_wanted
