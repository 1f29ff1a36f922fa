"""One-shot watches, as ZooKeeper has them."""

import pytest

from flussd.core.registry import messages as m
from flussd.core.registry.messages import (
    Changed,
    Create,
    Delete,
    FireWatch,
    GetChildren,
    GetData,
    Multi,
    Outcome,
    SetData,
)


@pytest.fixture
def two(node):
    """Links 1 and 2 have sessions; /a exists."""
    node.open(1)
    node.open(2)
    node.do(1, Create("/a"))
    node.said.clear()
    return node


def fired(node, *writes):
    """What the watches told while link 1 wrote *writes*."""
    assert node.do(1, *writes).outcome is Outcome.OK
    said, node.said = node.said, []
    return said


def test_data_watch_fires_once(two):
    """1. Link 2 watches /a. 2. It changes twice. 3. Link 2 hears of the first change only."""
    two.ask(2, GetData("/a", watch=True))

    assert [FireWatch(2, "/a", Changed.DATA)] == fired(two, SetData("/a", b"1"))
    assert [] == fired(two, SetData("/a", b"2"))


def test_watch_on_missing_node_fires_when_it_appears(two):
    """A read of what is not there sets the watch all the same, like exists()."""
    assert two.ask(2, GetData("/new", watch=True)).outcome is Outcome.NO_NODE

    assert [FireWatch(2, "/new", Changed.CREATED)] == fired(two, Create("/new"))


def test_children_watch_on_missing_node_is_none(two):
    """A list of the children of what is not there sets no watch."""
    assert two.ask(2, GetChildren("/new", watch=True)).outcome is Outcome.NO_NODE

    assert [] == fired(two, Create("/new"), Create("/new/x"), Delete("/new/x"), Delete("/new"))


def test_children_watch(two):
    """It fires when a child comes or goes, not when one changes, nor for grandchildren."""
    two.do(1, Create("/a/x"))
    two.ask(2, GetChildren("/a", watch=True))

    assert [] == fired(two, SetData("/a/x", b"1"), SetData("/a", b"1"), Create("/a/x/deep"))
    assert [FireWatch(2, "/a", Changed.CHILDREN)] == fired(two, Create("/a/y"))
    assert [] == fired(two, Delete("/a/y"))


def test_delete_tells_a_double_watcher_once(two):
    """Who watches data and children of a node hears once of its end; the parent's watcher hears too."""
    two.ask(2, GetData("/a", watch=True))
    two.ask(2, GetChildren("/a", watch=True))
    two.ask(2, GetChildren("/", watch=True))

    told = [FireWatch(2, "/a", Changed.DELETED), FireWatch(2, "/", Changed.CHILDREN)]
    assert told == fired(two, Delete("/a"))
    assert [] == fired(two, Create("/a"), Create("/a/x"))


def test_one_multi_fires_in_order_of_its_writes(two):
    """Events of one multi come in the order of its writes."""
    two.ask(2, GetData("/a", watch=True))
    two.ask(2, GetData("/b", watch=True))

    told = [FireWatch(2, "/b", Changed.CREATED), FireWatch(2, "/a", Changed.DELETED)]
    assert told == fired(two, Create("/b"), SetData("/b", b"1"), Delete("/a"))


def test_refused_multi_fires_nothing(two):
    """What was taken back has not happened."""
    two.ask(2, GetData("/a", watch=True))

    assert two.do(1, SetData("/a", b"1"), Delete("/no")).outcome is Outcome.NO_NODE

    assert [] == two.said
    assert [FireWatch(2, "/a", Changed.DATA)] == fired(two, SetData("/a", b"1"))


def test_event_comes_before_the_answer_of_a_later_read(two):
    """1. A write and a read of the watcher are in one group. 2. Event first, then what the read saw."""
    two.ask(2, GetData("/a", watch=True))
    two.step(m.OperationReceived(1, 1, Multi((Create("/busy"),))))  # holds the others back
    two.step(m.OperationReceived(1, 2, Multi((SetData("/a", b"new"),))))
    two.step(m.OperationReceived(2, 3, GetData("/a")))

    first, event, write, read = two.run()

    assert (1, FireWatch(2, "/a", Changed.DATA), 2, 3) == (first.xid, event, write.xid, read.xid)
    assert b"new" == read.answer.data


def test_nothing_is_told_before_the_sync(two):
    """Answers and events wait for the sync, not for the write alone."""
    two.ask(2, GetData("/a", watch=True))
    two.step(m.OperationReceived(1, 1, Multi((SetData("/a", b"new"),))))
    assert [] == two.said
    two.complete()
    assert [] == two.said
    two.complete()

    assert 2 == len(two.said)


def test_watches_go_with_the_link(two):
    """1. The watcher's link breaks. 2. It comes back by another. 3. Its old watch is gone."""
    session_id = two.machine.service.sessions.links[2]
    two.ask(2, GetData("/a", watch=True))
    two.step(m.LinkLost(2))
    two.step(m.SessionRequested(3, session_id, 1000))
    assert [m.AnswerSession(3, session_id)] == two.run()

    assert [] == fired(two, SetData("/a", b"1"))
    two.machine.check_all()
