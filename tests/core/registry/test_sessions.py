"""Sessions: timeouts, links that break and move, ephemeral nodes."""

from flussd.core.machine import WakeAt
from flussd.core.registry import messages as m
from flussd.core.registry.messages import (
    AnswerSession,
    Changed,
    Create,
    FireWatch,
    GetChildren,
    GetData,
    Multi,
    Outcome,
)


def test_silence_ends_a_session(node):
    """1. A session owns a node, and is silent. 2. At its timeout the node goes, and both sides hear."""
    session_id = node.open(1, timeout_ms=1000)
    node.open(2, timeout_ms=60_000)
    created = node.do(1, Create("/e", ephemeral=True))
    node.ask(2, GetData("/e", watch=True))
    node.said.clear()

    node.advance(999)
    assert [] == node.run()
    node.advance(1)

    assert session_id == created.stats[0].ephemeral_owner
    assert [FireWatch(2, "/e", Changed.DELETED), AnswerSession(1, 0)] == node.run()
    assert node.ask(1, GetData("/")).outcome is Outcome.SESSION_EXPIRED
    assert node.ask(2, GetData("/e")).outcome is Outcome.NO_NODE


def test_signs_of_life(node):
    """Pings and operations each start the timeout again."""
    session_id = node.open(1, timeout_ms=1000)
    node.advance(900)
    node.step(m.SessionHeard(session_id))
    node.advance(900)
    node.ask(1, GetData("/"))
    node.said.clear()
    node.advance(999)
    assert [] == node.run()
    node.advance(1)

    assert [AnswerSession(1, 0)] == node.run()


def test_the_only_alarm_is_the_next_deadline(node):
    """An idle registry asks to be woken once, for the earliest deadline; without sessions never."""
    assert node.alarm_ms is None
    node.open(1, timeout_ms=5000)
    node.open(2, timeout_ms=3000)
    assert 3000 == node.alarm_ms

    effects = node.machine.step(m.SessionHeard(node.machine.service.sessions.links[2]), 100)
    assert [] == [effect for effect in effects if isinstance(effect, WakeAt)]
    node.now_ms = 100
    node.advance(3000)

    assert 3100 == node.now_ms
    assert [AnswerSession(2, 0)] == node.run()
    assert 5000 == node.alarm_ms


def test_orderly_end(node):
    """A client that says goodbye takes its ephemeral nodes with it at once, and nobody else's."""
    one, two = node.open(1), node.open(2)
    node.do(1, Create("/p"), Create("/e1", ephemeral=True), Create("/e2", ephemeral=True))
    node.do(2, Create("/e3", ephemeral=True))
    node.step(m.SessionEnded(one))
    node.step(m.SessionEnded(one))

    assert [AnswerSession(1, 0)] == node.run()
    assert ("e3", "p") == node.ask(2, GetChildren("/")).children
    assert [two] == list(node.machine.tree.sessions)
    node.machine.check_all()


def test_a_session_survives_its_link(node):
    """1. The link breaks. 2. The client comes back in time. 3. Its ephemeral node is still there."""
    session_id = node.open(1)
    node.do(1, Create("/e", ephemeral=True))
    node.step(m.LinkLost(1))
    node.advance(900)
    node.step(m.SessionRequested(2, session_id, 1000))

    assert [AnswerSession(2, session_id)] == node.run()
    assert node.ask(2, GetData("/e")).outcome is Outcome.OK
    assert node.ask(1, GetData("/e")).outcome is Outcome.SESSION_EXPIRED


def test_a_session_moves(node):
    """The link that lost its session to another is not told that it expired, since it did not."""
    session_id = node.open(1)
    node.step(m.SessionRequested(2, session_id, 1000))
    node.run()

    assert node.ask(1, GetData("/")).outcome is Outcome.UNKNOWN
    assert node.ask(2, GetData("/")).outcome is Outcome.OK
    node.step(m.LinkLost(1))
    assert node.ask(2, GetData("/")).outcome is Outcome.OK


def test_coming_back_too_late(node):
    """A session that has expired is not opened again."""
    session_id = node.open(1)
    node.step(m.LinkLost(1))
    node.advance(1000)
    node.step(m.SessionRequested(2, session_id, 1000))

    assert [AnswerSession(2, 0)] == node.run()


def test_operations_before_the_end_are_done(node):
    """1. A sync is on its way. 2. An operation waits. 3. The session times out. 4. Order is kept."""
    node.open(1)
    node.open(2, timeout_ms=9000)
    node.step(m.OperationReceived(2, 1, Multi((Create("/busy"),))))
    node.advance(500)
    node.step(m.OperationReceived(1, 2, Multi((Create("/e", ephemeral=True),))))
    node.advance(1000)
    node.step(m.OperationReceived(1, 3, Multi((Create("/late", ephemeral=True),))))

    busy, done, end, late = node.run()

    assert (1, Outcome.OK) == (busy.xid, busy.answer.outcome)
    assert (2, Outcome.OK) == (done.xid, done.answer.outcome)
    assert AnswerSession(1, 0) == end
    assert (3, Outcome.SESSION_EXPIRED) == (late.xid, late.answer.outcome)
    assert ("busy",) == node.ask(2, GetChildren("/")).children


def test_a_restart_gives_each_session_its_whole_timeout(node):
    """1. 900 of 1000 ms have passed. 2. The process ends, and is back much later. 3. 1000 ms are left."""
    session_id = node.open(1)
    node.do(1, Create("/e", ephemeral=True))
    node.now_ms = 50_000
    node.start()
    node.run()
    node.advance(999)
    assert [] == node.run()
    assert "/e" in node.machine.tree.nodes
    assert [session_id] == sorted(node.machine.service.sessions.by_id)
    node.advance(1)
    node.run()

    assert "/e" not in node.machine.tree.nodes


def test_session_ids_are_never_used_again(node):
    """Ids differ after an end, and after a restart."""
    ids = [node.open(1), node.open(2)]
    node.step(m.SessionEnded(ids[1]))
    node.run()
    node.start()
    node.run()
    ids.append(node.open(3))

    assert 3 == len(dict.fromkeys(ids))
    assert all(0 < session_id < 1 << 63 for session_id in ids)


def test_odd_timeouts_are_bounded(node):
    """A client cannot ask for an endless session, nor for one that has ended before it began."""
    for link, (asked, given) in enumerate([(-5, 1), (0, 1), (7, 7), (1 << 80, 24 * 3600 * 1000)]):
        session_id = node.open(link, timeout_ms=asked)

        assert given == node.machine.tree.sessions[session_id]
