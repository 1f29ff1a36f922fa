"""The hub's own clockwork, without sockets: timers, what is put off, and sleep."""

import select

import pytest

from flussd.runtime_real.hub import Hub


@pytest.fixture
def hub():
    hub = Hub()
    yield hub
    hub.close()


def test_timers_ring_in_order_and_not_early(hub):
    """Calls come at their time or after, sorted, and the sleep is no longer than the nearest."""
    rung = []
    now_ms = hub.time.sample()
    for delay_ms in (30, 10, 20):
        hub.call_at(now_ms + delay_ms, lambda d=delay_ms: rung.append((d, hub.time.now_ms)))
    wait_ms = hub._wait_ms()
    while len(rung) < 3:
        hub.wake_up(hub.epoll.poll(0.01))

    assert 0 < wait_ms <= 10
    assert [10, 20, 30] == [delay_ms for delay_ms, _ in rung]
    assert all(at_ms >= now_ms + delay_ms for delay_ms, at_ms in rung)


def test_what_is_put_off_is_never_reentered(hub):
    """A put-off call runs after the one that put it off has returned, and in order."""
    order = []

    def outer():
        hub.soon(order.append, "inner")
        order.append("outer")

    hub.soon(outer)
    hub.soon(order.append, "second")
    hub.wake_up([])

    assert ["outer", "second", "inner"] == order


def test_the_hub_sleeps_when_there_is_nothing(hub):
    """No event, no work: an idle server costs nothing."""
    hub.wake_up([])

    assert [] == hub.epoll.poll(0)
    assert hub._wait_ms() > 1000
    assert select.select([hub.epoll.fileno()], [], [], 0.05)[0] == []
