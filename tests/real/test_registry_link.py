"""The bridge between the embedded registry and the nodes of its process, over real files."""

import attrs
import pytest

from flussd.core.machine import Stopped
from flussd.core.registry.messages import (
    Answer,
    Changed,
    Create,
    GetChildren,
    GetData,
    Multi,
    Outcome,
    RegistryAnswered,
    RegistrySessionLost,
    RegistrySessionOpened,
    SetData,
    WatchFired,
)
from flussd.core.registry.registry import RegistryMachine
from flussd.runtime_real.clock import WakeUpTime
from flussd.runtime_real.hub import Hub
from flussd.runtime_real.node import registry_node
from flussd.runtime_real.registry import SESSION_TIMEOUT_MS, RegistryLink, RegistrySessions


@attrs.define(eq=False)
class WarpTime(WakeUpTime):
    """Time that a test can push on."""

    ahead_ms: int = 0

    def sample(self):
        WakeUpTime.sample(self)
        self.now_ms += self.ahead_ms
        return self.now_ms

    def sample_ns(self):
        now_ns = WakeUpTime.sample_ns(self)
        self.now_ms += self.ahead_ms
        return now_ns + self.ahead_ms * 1_000_000


class StrawNode:
    """Stands for a node's driver: remembers what was posted."""

    def __init__(self):
        self.events = []
        self.halted = False
        self.stepping = False

    def post(self, event):
        assert not self.stepping, "never from within a step"
        self.events.append(event)

    def run(self):
        pass


class Bench:
    """A registry on real files, and a hub that is woken by hand."""

    def __init__(self, folder):
        self.announced = []
        self.folder = folder
        self.hub = Hub(WarpTime())
        self.sessions = RegistrySessions(self.hub)
        self.node = registry_node(
            self.hub,
            folder,
            RegistryMachine(),
            self.sessions,
            lambda _, effect: self.announced.append(effect),
        )
        self.node.start(boot_id="boot", directory_id="directory")
        self.until(lambda: "recovered" in self.node.states)

    def link(self, number):
        link = RegistryLink(number, self.hub, self.node.driver)
        link.node = StrawNode()
        self.sessions.links[number] = link
        link.open()
        self.until(lambda: link.node.events)
        return link

    def until(self, condition):
        for _ in range(1000):
            if condition():
                return
            self.hub.wake_up(self.hub.epoll.poll(0.01))
        raise AssertionError("it did not happen")

    def ask(self, link, token, operation):
        link.node.stepping = True
        link.submit(token, operation)
        link.node.stepping = False
        self.until(lambda: any(getattr(event, "token", None) == token for event in link.node.events))
        return link.node.events.pop().answer

    def end(self):
        self.hub.close()
        self.node.disk.close()


@pytest.fixture
def bench(tmp_path):
    bench = Bench(tmp_path)
    yield bench
    bench.end()


def test_sessions_questions_and_watches(bench):
    """Two nodes have sessions of their own; one sees what the other writes, and its watch fires once."""
    one, other = bench.link(1), bench.link(2)
    opened = [*one.node.events, *other.node.events]
    one.node.events.clear()
    other.node.events.clear()
    created = bench.ask(one, 7, Multi((Create("/a", b"1"), Create("/a/b", b"2"))))
    read = bench.ask(other, 7, GetData("/a", watch=True))
    written = bench.ask(one, 8, Multi((SetData("/a", b"3"),)))
    bench.until(lambda: other.node.events)
    refused = bench.ask(one, 9, Multi((Create("/a"),)))

    assert 2 == len({event.session_id for event in opened if isinstance(event, RegistrySessionOpened)})
    assert Outcome.OK is created.outcome is written.outcome
    assert b"1" == read.data
    assert [WatchFired("/a", Changed.DATA)] == other.node.events
    assert (Outcome.NODE_EXISTS, 0) == (refused.outcome, refused.failed_index)


def test_a_closed_session_takes_its_nodes_along(bench):
    """A node that leaves in order is gone at once for the others."""
    one, other = bench.link(1), bench.link(2)
    bench.ask(one, 1, Multi((Create("/ids"), Create("/ids/1", ephemeral=True))))
    before = bench.ask(other, 1, GetChildren("/ids", watch=True))
    other.node.events.clear()
    one.close()
    bench.until(lambda: other.node.events)
    after = bench.ask(other, 2, GetChildren("/ids"))

    assert ("1",) == before.children
    assert () == after.children


def test_sessions_are_kept_alive(bench):
    """A node need not do anything for its session; three timeouts later it is the same one."""
    link = bench.link(1)
    session_id = link.session_id
    for _ in range(12):
        bench.hub.time.ahead_ms += SESSION_TIMEOUT_MS // 4
        for _ in range(3):
            bench.hub.wake_up([])

    assert Outcome.OK is bench.ask(link, 1, Multi((Create("/e", ephemeral=True),))).outcome
    assert session_id == link.session_id


def test_a_lost_session_is_replaced(bench):
    """A process that stood still for longer than the timeout is told, and gets a new session."""
    link = bench.link(1)
    first = link.session_id
    link.node.events.clear()
    bench.node.driver.wake()
    link.is_open = False  # as if its pings did not get through
    bench.hub.time.ahead_ms += SESSION_TIMEOUT_MS + 1000
    bench.hub.time.sample()
    bench.node.driver.wake()
    link.is_open = True
    bench.until(lambda: len(link.node.events) >= 2)

    assert [RegistrySessionLost(), RegistrySessionOpened(link.session_id)] == link.node.events
    assert link.session_id not in {0, first}


def test_a_registry_that_stopped_answers_unknown(bench):
    """What was asked after the end, and what was open at it, may or may not have been done."""
    link = bench.link(1)
    bench.node.driver.stop()
    bench.until(lambda: any(isinstance(effect, Stopped) for effect in bench.announced))
    after = bench.ask(link, 1, GetData("/"))

    assert Answer(Outcome.UNKNOWN) == after


def test_the_tree_is_there_after_a_kill(bench, tmp_path):
    """What was answered is on the disk: another process reads it, without any orderly end."""
    link = bench.link(1)
    bench.ask(link, 1, Multi((Create("/kept", b"yes"),)))
    again = Bench(tmp_path)
    try:
        read = again.ask(again.link(1), 1, GetData("/kept"))
    finally:
        again.end()

    assert (Outcome.OK, b"yes") == (read.outcome, read.data)
    assert all(not isinstance(event, RegistryAnswered) or event.answer for event in link.node.events)
