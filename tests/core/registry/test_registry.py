"""Group commit, start and stop, snapshots: the machine around the tree."""

import random

import pytest

from flussd.core import files as f
from flussd.core.machine import Announce, Fatal, Stopped, StopRequested
from flussd.core.registry import messages as m
from flussd.core.registry.messages import Create, Delete, GetData, Multi, Outcome, SetData
from flussd.core.registry.registry import Phase, RegistryMachine


def submit(node, xid, *writes):
    node.step(m.OperationReceived(1, xid, Multi(writes)))


def test_one_group_on_its_way(node):
    """1. A write is on its way. 2. Five more come. 3. They go out as one record, with one sync."""
    node.open(1)
    submit(node, 0, Create("/0"))
    for n in range(1, 6):
        submit(node, n, Create(f"/{n}"))
    assert [f.WriteFile, f.SyncFile] == [type(effect) for effect in node.pending]
    node.complete()
    node.complete()

    assert [0] == [said.xid for said in node.said]
    assert [f.WriteFile, f.SyncFile] == [type(effect) for effect in node.pending]
    assert [0, 1, 2, 3, 4, 5] == [said.xid for said in node.run()]


def test_reads_alone_need_no_disk(node):
    """Reads are answered in the same step, without a write."""
    node.open(1)
    node.step(m.OperationReceived(1, 7, GetData("/")))

    assert [7] == [said.xid for said in node.said]
    assert not node.pending


def test_a_refused_write_needs_no_disk(node):
    """What changed nothing is not logged."""
    node.open(1)
    submit(node, 7, Delete("/no"))

    assert [Outcome.NO_NODE] == [said.answer.outcome for said in node.said]
    assert not node.pending


def test_early_requests_wait_for_recovery(make_node):
    """What comes before recovery has ended is answered after it, in order."""
    node = make_node()
    node.start()
    node.step(m.SessionRequested(1, 0, 1000))
    submit(node, 5, Create("/a"))
    node.step(m.OperationReceived(1, 6, GetData("/a")))

    session, write, read = node.run()

    assert (1, 5, 6) == (session.link, write.xid, read.xid)
    assert read.answer.outcome is Outcome.OK
    facts = (("zxid", 0), ("cut_bytes", 0))
    assert Announce("recovered", "zxid 0, 1 nodes, cut 0 bytes", facts) == node.announced[0]


@pytest.mark.parametrize(("which", "error"), [(0, "IO"), (1, "IO"), (1, "FULL")])
def test_a_failed_write_or_sync_is_fatal(node, which, error):
    """1. The write, or the sync, fails. 2. Nothing of the group is told, now or later."""
    node.open(1)
    submit(node, 1, Create("/a"))
    for _ in range(which):
        node.complete()
    node.fail_next = f.DiskError[error]

    assert [] == node.run()
    text = f"registry: cannot write log-00000000000000000001: {f.DiskError[error].value}"
    assert [Fatal(text)] == node.announced[1:]
    assert Phase.OVER is node.machine.phase


def test_stop_makes_all_durable_first(node):
    """1. Two writes, one of them waiting. 2. Stop. 3. Both are answered, then it stops."""
    node.open(1)
    submit(node, 1, Create("/a"))
    submit(node, 2, Create("/b"))
    node.step(StopRequested())
    submit(node, 3, Create("/c"))

    outcomes = {said.xid: said.answer.outcome for said in node.run()}

    assert {3: Outcome.UNKNOWN, 1: Outcome.OK, 2: Outcome.OK} == outcomes
    assert [Stopped()] == node.announced[1:]


def test_stop_when_idle_and_when_new(node):
    """With nothing to do it stops at once, also before it has begun."""
    assert [Stopped()] == RegistryMachine().step(StopRequested(), 0)
    node.step(StopRequested())

    assert [Stopped()] == node.announced[1:]


def test_snapshots_replace_logs(make_node):
    """1. The log grows beyond its limit. 2. A snapshot and a new log replace it. 3. Nothing is lost."""
    node = make_node(log_bytes_max=2000)
    node.start()
    node.run()
    node.open(1)
    for n in range(100):
        assert node.do(1, Create(f"/{n}", bytes(100))).outcome is Outcome.OK

    digest = node.machine.tree.digest()
    assert 2 >= len(node.files)
    assert any(name.startswith("snapshot-") for name in node.files)
    node.start()
    node.run()
    assert digest == node.machine.tree.digest()


def test_answers_go_on_while_a_snapshot_is_written(make_node):
    """The snapshot is on its way, and the next group is answered before it is there."""
    node = make_node(log_bytes_max=100)
    node.start()
    node.run()
    node.open(1)
    node.do(1, Create("/a", bytes(100)))
    submit(node, 1, SetData("/a", b"1"))
    node.complete()  # the new log

    snapshot, *group = node.pending
    assert [f.ReplaceFile, f.WriteFile, f.SyncFile] == [type(effect) for effect in node.pending]
    node.pending.clear()
    node.pending.extend(group)
    assert [1] == [said.xid for said in node.run()]
    assert snapshot.file.startswith("snapshot-")


def test_a_failed_snapshot_costs_nothing(make_node):
    """1. There is no room for the snapshot. 2. All goes on, over a restart, and it is tried again."""
    node = make_node(log_bytes_max=3000)
    node.start()
    node.run()
    node.open(1)
    for n in range(100):
        submit(node, n, Create(f"/{n}", bytes(100)))
        while node.pending:
            if isinstance(node.pending[0], f.ReplaceFile) and node.pending[0].file[0] == "s" and n < 70:
                node.fail_next = f.DiskError.FULL
            node.complete()
        if n == 60:
            assert "snapshot failed" in [said.what for said in node.announced]
            node.start()
            node.run()
            node.step(m.SessionRequested(1, max(node.machine.tree.sessions), 1000))

    assert 101 == len(node.machine.tree.nodes)
    assert 2 >= len(node.files)


def test_many_restarts_leave_few_files(node):
    """Each start begins a log; sooner or later a snapshot removes them all."""
    node.open(1)
    for n in range(40):
        node.start()
        node.run()
        node.open(1)
        assert node.do(1, Create(f"/{n}")).outcome is Outcome.OK

    assert 18 >= len(node.files)
    assert 41 == len(node.machine.tree.nodes)


def test_clone_and_digest(make_node):
    """A clone has the digest of its original, answers alike, and shares nothing that changes."""
    draw = random.Random(5)
    node = make_node(log_bytes_max=1000)
    node.start()
    for n in range(300):
        before = node.machine.digest()
        copy = node.machine.clone()
        assert before == copy.digest()
        if node.pending and draw.random() < 0.5:
            node.complete()
        elif draw.random() < 0.2:
            node.step(m.SessionRequested(draw.randrange(3), 0, 1000))
        else:
            create = Multi((Create(f"/{n}", ephemeral=draw.random() < 0.5),))
            read = GetData(f"/{n + 1}", watch=True)
            node.step(m.OperationReceived(draw.randrange(3), n, draw.choice((create, read))))
        node.machine.check_all()
        copy.check_all()
        assert before == copy.digest()
        assert node.last_effects == copy.step(node.last_event, node.now_ms)
        assert node.machine.digest() == copy.digest()


def test_equal_trees_have_equal_digests(make_node):
    """The order in which digests are asked for does not matter, nor do changes that were taken back."""
    digests = []
    for eager in (True, False):
        node = make_node()
        node.start()
        node.run()
        node.open(1)
        for writes in (
            (Create("/a"),),
            (SetData("/a", b"1"), Delete("/no")),
            (Create("/a/b"),),
            (Delete("/a/b"),),
        ):
            node.do(1, *writes)
            if not eager:
                node.machine.tree._hash = 0
                for path, tree_node in node.machine.tree.nodes.items():
                    tree_node.hash = 0
                    node.machine.tree._stale[path] = None
        digests.append(node.machine.tree.digest())

    assert digests[0] == digests[1]


def test_table_is_total():
    """Every event has a handler in every phase."""
    assert [5] == sorted({len(row) for row in RegistryMachine.TABLE.values()})
    assert len(Phase) == 5
