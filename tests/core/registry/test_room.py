"""A disk that takes no more: changes are refused or wait, all else goes on, and nothing told is lost."""

import random

import pytest

from flussd.core import files as f
from flussd.core.machine import Announce, Fatal, Stopped, StopRequested
from flussd.core.registry import messages as m
from flussd.core.registry.messages import Create, GetData, Multi, Outcome, SetData
from flussd.core.registry.registry import Phase
from flussd.core.registry.room import ROOM_BYTES

BIG = bytes(ROOM_BYTES // 3)


def fill(node):
    """Use up what room the log has on a full disk; return how many changes still went in."""
    node.full = "grow"
    for n in range(100):
        if node.do(1, Create(f"/fill-{n}", BIG)).outcome is Outcome.NOT_STORED:
            return n
    raise AssertionError("it was never full")


def told(node):
    return [said.what for said in node.announced if isinstance(said, Announce)]


def test_a_full_disk_refuses_changes(node):
    """1. The disk is full. 2. The room lasts a while. 3. Changes are refused. 4. Space heals."""
    node.open(1, 100_000)
    taken = fill(node)
    digest = node.machine.tree.digest()

    assert taken == 2
    assert Outcome.NOT_STORED is node.do(1, SetData("/fill-0", BIG)).outcome
    assert BIG == node.ask(1, GetData("/fill-0")).data
    assert digest == node.machine.tree.digest()
    assert Outcome.OK is node.do(1, Create("/small")).outcome  # there is room for that one yet
    assert ["recovered", "refuses changes"] == told(node)
    node.advance(3_000)
    assert [] == node.run()
    assert ["recovered", "refuses changes"] == told(node)
    node.full = ""
    node.advance(600)
    node.run()
    assert ["recovered", "refuses changes", "takes changes again"] == told(node)
    assert Outcome.OK is node.do(1, Create("/after", BIG)).outcome
    assert ["recovered", "refuses changes", "takes changes again"] == told(node)


@pytest.mark.parametrize("error", list(f.DiskError))
def test_no_error_of_making_room_is_fatal(node, error):
    """Nothing was executed, so whatever the disk says, nothing has to be taken back."""
    node.open(1)
    node.step(m.OperationReceived(1, 1, Multi((Create("/a", bytes(2 * ROOM_BYTES)),))))
    node.fail_next = error

    assert [Outcome.NOT_STORED] == [said.answer.outcome for said in node.run()]
    assert Phase.SERVING is node.machine.phase
    assert Outcome.OK is node.do(1, Create("/a", bytes(2 * ROOM_BYTES))).outcome


def test_what_was_refused_is_not_there_after_a_crash(make_node):
    """1. Full. 2. Refused. 3. The process is killed, or the power goes. 4. Only what was told is there."""
    for seed in range(20):
        draw = random.Random(seed)
        node = make_node(draw=draw)
        node.start()
        node.run()
        node.open(1)
        fill(node)
        digest = node.machine.tree.digest()
        node.full = ""
        draw.choice((node.kill, node.cut_power))(draw)
        node.start()
        node.run()

        assert digest == node.machine.tree.digest()


def test_sessions_wait_for_room(node):
    """1. No room. 2. A session is asked for twice, one of them by a link that goes. 3. With space: one."""
    node.open(1, 100_000)
    fill(node)
    while node.do(1, Create(f"/s-{len(node.machine.tree.nodes)}")).outcome is Outcome.OK:
        pass
    node.step(m.SessionRequested(2, 0, 1000))
    node.step(m.SessionRequested(3, 0, 1000))
    node.step(m.LinkLost(2))
    assert [] == node.run()
    node.advance(5_000)
    assert [] == node.run()
    node.full = ""
    node.advance(1_000)

    assert [3] == [said.link for said in node.run()]
    node.machine.check_all()


def test_a_session_whose_end_has_no_room_ends_later(node):
    """1. Its timeout passes while nothing can be stored. 2. With space it ends, and its nodes with it."""
    node.open(1, 1_000)
    node.do(1, Create("/mine" + "x" * 3000, ephemeral=True))
    fill(node)
    while node.do(1, Create(f"/s-{len(node.machine.tree.nodes)}", bytes(1000))).outcome is Outcome.OK:
        pass
    node.advance(3_000)
    node.run()
    assert 1 == len(node.machine.tree.sessions)
    node.full = ""
    node.advance(1_000)

    assert [0] == [said.session_id for said in node.run() if isinstance(said, m.AnswerSession)]
    assert {} == node.machine.tree.sessions


@pytest.mark.parametrize("error", ["FULL", "DENIED", "TOO_MANY_FILES"])
def test_a_refused_group_waits_for_the_disk(node, error):
    """1. The disk refuses to overwrite zeros. 2. Nothing is told, nor refused. 3. It is written again."""
    node.open(1, 100_000)
    node.step(m.OperationReceived(1, 1, Multi((Create("/a"),))))
    node.fail_next = f.DiskError[error]
    assert [] == node.run()
    node.step(m.OperationReceived(1, 2, GetData("/a")))
    assert [] == node.run()
    node.full = "all"
    node.advance(2_000)
    assert [] == node.run()
    node.full = ""
    node.advance(600)

    assert [(1, Outcome.OK), (2, Outcome.OK)] == [(said.xid, said.answer.outcome) for said in node.run()]
    assert ["recovered", "refuses changes", "takes changes again"] == told(node)
    node.start()
    node.run()
    assert "/a" in node.machine.tree.nodes


def test_a_new_log_waits_for_the_disk(make_node):
    """1. The log has grown, and there is no space for the next one. 2. It is begun once there is."""
    node = make_node(log_bytes_max=2_000)
    node.start()
    node.run()
    node.open(1, 100_000)
    node.do(1, Create("/a", bytes(3_000)))
    node.full = "grow"
    outcomes = [node.do(1, Create(f"/{n}")).outcome for n in range(3)]
    read = node.ask(1, GetData("/a"))
    node.full = ""
    after = node.do(1, Create("/b"))
    digest = node.machine.tree.digest()
    node.start()
    node.run()

    assert [Outcome.NOT_STORED] * 3 == outcomes
    assert (Outcome.OK, Outcome.OK) == (read.outcome, after.outcome)
    assert digest == node.machine.tree.digest()
    assert [] == [said for said in node.announced if isinstance(said, Fatal)]


def test_a_start_without_space_says_so(node):
    """At the start there is nobody to serve yet: one line, and the supervisor's next try."""
    node.full = "grow"
    node.start()
    node.run()

    assert "cannot start log-00000000000000000001: no space left on the disk" in node.announced[-1].text
    assert isinstance(node.announced[-1], Fatal)


def test_a_stop_without_space(node):
    """What can wait for no room is refused, and the stop is orderly."""
    node.open(1)
    fill(node)
    node.step(m.SessionRequested(2, 0, 1000))
    node.step(m.OperationReceived(1, 1, Multi((Create("/x", BIG),))))
    node.step(StopRequested())
    node.run()

    assert Stopped() == node.announced[-1]


def test_room_is_no_torn_tail(node):
    """The zeros behind the last group are not counted as cut, after a stop or a crash."""
    node.open(1)
    node.do(1, Create("/a"))
    node.start()
    node.run()

    assert "cut 0 bytes" in node.announced[-1].text
