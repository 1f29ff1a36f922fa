"""How a tablet server begins with what its disk holds."""

from __future__ import annotations

from flussd.core.tablet.buckets import RECOVERIES_AT_ONCE


def test_a_bounded_number_of_buckets_is_read_at_a_time(server, batch, monkeypatch):
    """The others wait for these, so that memory does not grow with the number of buckets; all come."""
    count = 3 * RECOVERIES_AT_ONCE
    server.tell(buckets=tuple(range(count)))
    for bucket in range(count):
        server.produced(batch(), bucket=bucket)
    held, read = [], server.disk.read
    monkeypatch.setattr(server.disk, "read", lambda *asked: held.append(asked))
    server.start()
    most = 0
    while held:
        most = max(most, len({asked[0].rpartition("/")[0] for asked in held}))
        assert not server.machine.buckets.recovered
        read(*held.pop(0))
        server.driver.run()

    assert RECOVERIES_AT_ONCE == most
    assert server.machine.buckets.recovered
    assert [1] * count == [replica.log.end_offset for replica in server.machine.buckets.replicas.values()]
