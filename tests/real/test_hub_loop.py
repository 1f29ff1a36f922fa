"""The hub's own clockwork, without sockets: timers, what is put off, sleep, and trio beside it."""

import select
import threading

import pytest
import trio

from flussd.runtime_real.host import Host
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


def test_what_nobody_waits_for_comes_behind_the_answers(hub):
    """It runs in the same wake-up, and is no reason to stay awake."""
    order = []

    class Output:
        def flush(self):
            order.append("sent")

    def served():
        hub.behind(order.append, "behind")
        hub.dirty.append(Output())

    hub.soon(served)
    hub.wake_up([])

    assert ["sent", "behind"] == order
    assert hub._wait_ms() > 1000


def test_the_hub_sleeps_when_there_is_nothing(hub):
    """No event, no work: an idle server costs nothing."""
    hub.wake_up([])

    assert [] == hub.epoll.poll(0)
    assert hub._wait_ms() > 1000
    assert select.select([hub.epoll.fileno()], [], [], 0.05)[0] == []


def test_trio_gets_its_turns_beside_the_hub(hub):
    """Timers of both ring while the hub serves; `stop` ends it and the result of the guest is returned."""
    rung = []

    async def beside():
        for _ in range(3):
            await trio.sleep(0.01)
            rung.append("trio")
        await trio.to_thread.run_sync(rung.append, "thread")
        hub.soon(hub.stop)
        hub.wake()

    async def main():
        hub.call_at(hub.time.sample() + 5, lambda: rung.append("hub"))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(beside)
            await hub.run()
        return "ended"

    assert "ended" == Host(hub).run(main)
    assert ["hub", "trio", "trio", "trio", "thread"] == rung
    assert not hub.serving


def test_a_failing_wake_up_comes_out_of_run(hub):
    """It passes through trio, so that nurseries end what runs beside the hub."""
    seen = []

    def fail():
        raise ZeroDivisionError("planted")

    async def main():
        hub.call_at(hub.time.sample() + 5, fail)
        try:
            await hub.run()
        except ZeroDivisionError as error:
            seen.append(error)
            await trio.lowlevel.checkpoint()
            raise

    with pytest.raises(ZeroDivisionError, match="planted"):
        Host(hub).run(main)
    assert 1 == len(seen)


def test_a_cancelled_run_ends_the_serving(hub):
    """What runs beside the hub may end it, by an exception or a cancel scope."""

    async def main():
        with trio.move_on_after(0.02):
            await hub.run()
        assert not hub.serving
        await trio.sleep(0.01)  # trio goes on without the hub

    Host(hub).run(main)


def test_other_threads_reach_trio_while_the_hub_sleeps(hub):
    """`run_sync_soon` from another thread ends the hub's sleep of a minute."""

    async def main():
        token = trio.lowlevel.current_trio_token()
        timer = threading.Timer(0.05, token.run_sync_soon, [hub.stop])
        timer.start()
        with trio.fail_after(5):
            await hub.run()
        timer.join()

    Host(hub).run(main)


def test_a_hub_is_not_run_by_trio_alone(hub):
    """It would wait for ever: nobody turns it."""
    with pytest.raises(AssertionError, match="turned by a Host"):
        trio.run(hub.run)
