"""ZooKeeper's rules for writes, through the machine."""

import pytest

from flussd.core.registry.messages import (
    Answer,
    Check,
    Create,
    Delete,
    GetChildren,
    GetData,
    Outcome,
    SetData,
    Stat,
)
from flussd.core.registry.multi import TRANSACTION_BYTES_MAX, WRITE_OVERHEAD_BYTES


def test_create_and_read(node):
    """A created node has its data, its transaction twice, and versions of zero."""
    node.open(1)

    answer = node.do(1, Create("/a", b"data"))

    stat = Stat(czxid=2, mzxid=2, version=0, cversion=0, ephemeral_owner=0, children_count=0)
    assert answer == Answer(Outcome.OK, created=("/a",), stats=(stat,))
    assert node.ask(1, GetData("/a")) == Answer(Outcome.OK, data=b"data", stat=stat)


def test_set_moves_version_and_mzxid(node):
    """Setting data counts the version up; the right version is needed, or -1."""
    node.open(1)
    node.do(1, Create("/a", b"0"))

    assert node.do(1, SetData("/a", b"1", 0)).stats == (Stat(2, 3, 1, 0, 0, 0),)
    assert node.do(1, SetData("/a", b"2", 0)) == Answer(Outcome.BAD_VERSION, failed_index=0)
    assert node.do(1, SetData("/a", b"2", -1)).stats == (Stat(2, 4, 2, 0, 0, 0),)
    assert node.ask(1, GetData("/a")).data == b"2"


def test_cversion_counts_creations_and_deletions(node):
    """The version of the children counts both; the parent's own version does not move."""
    node.open(1)
    node.do(1, Create("/a"))
    node.do(1, Create("/a/x"))
    node.do(1, Create("/a/y"))
    node.do(1, Delete("/a/x"))

    answer = node.ask(1, GetChildren("/a"))

    assert answer.children == ("y",)
    assert answer.stat == Stat(2, 2, version=0, cversion=3, ephemeral_owner=0, children_count=1)


def test_sequential_numbers_count_all_creations(node):
    """The number is that of children ever created in the parent, sequential or not; gone ones count."""
    node.open(1)
    node.do(1, Create("/q"))

    assert node.do(1, Create("/q/n-", sequential=True)).created == ("/q/n-0000000000",)
    node.do(1, Create("/q/plain"))
    node.do(1, Delete("/q/plain"))
    assert node.do(1, Create("/q/n-", sequential=True)).created == ("/q/n-0000000002",)
    assert node.do(1, Create("/q/", sequential=True)).created == ("/q/0000000003",)


def test_sequential_in_one_multi(node):
    """Writes of a multi see those before them."""
    node.open(1)

    answer = node.do(1, Create("/q"), Create("/q/a", sequential=True), Create("/q/b", sequential=True))

    assert answer.created == ("/q", "/q/a0000000000", "/q/b0000000001")
    assert {2} == {stat.czxid for stat in answer.stats}


@pytest.mark.parametrize(
    ("write", "outcome"),
    [
        (Create("/no/child"), Outcome.NO_NODE),
        (Create("/a"), Outcome.NODE_EXISTS),
        (Create("/"), Outcome.NODE_EXISTS),
        (Create("/e/child"), Outcome.NO_CHILDREN_FOR_EPHEMERALS),
        (Create("a"), Outcome.BAD_PATH),
        (Create(""), Outcome.BAD_PATH),
        (Create("/a/"), Outcome.BAD_PATH),
        (Create("/a/.."), Outcome.BAD_PATH),
        (Create("/a/\0"), Outcome.BAD_PATH),
        (Create("/a/\ud800"), Outcome.BAD_PATH),
        (SetData("/no", b""), Outcome.NO_NODE),
        (SetData("/a", b"", 1), Outcome.BAD_VERSION),
        (SetData("/a", b"", -2), Outcome.BAD_VERSION),
        (Delete("/no"), Outcome.NO_NODE),
        (Delete("/a", 1), Outcome.BAD_VERSION),
        (Delete("/a"), Outcome.NOT_EMPTY),
        (Delete("/"), Outcome.BAD_PATH),
        (Check("/no", -1), Outcome.NO_NODE),
        (Check("/a", 1), Outcome.BAD_VERSION),
    ],
)
def test_refusals(node, write, outcome):
    """Each refusal names its write, and takes back those before it, as if they had never been."""
    node.open(1)
    node.do(1, Create("/a"), Create("/a/b"), Create("/e", ephemeral=True))
    before = node.machine.tree.digest()

    answer = node.do(
        1, Create("/new", b"x"), SetData("/a", b"y"), Delete("/a/b"), Create("/a/b"), Delete("/e"),
        Create("/e", ephemeral=True), Check("/a", 1), SetData("/a", b"", 1), Create("/a/c"),
        Delete("/new"), Create("/new"), SetData("/new", b""), Check("/a/b", 0), Check("/e", 0), write,
    )  # fmt: skip

    assert answer == Answer(outcome, failed_index=14)
    assert before == node.machine.tree.digest()
    node.machine.check_all()


def test_check_only(node):
    """A multi of checks changes nothing, not even the zxid."""
    node.open(1)

    assert node.do(1, Check("/", 0)) == Answer(Outcome.OK, created=(None,), stats=(None,))
    assert node.do(1) == Answer(Outcome.OK)
    assert node.machine.tree.zxid == 1


def test_too_large(node):
    """A transaction of the largest size passes, one byte more does not."""
    node.open(1)
    room = TRANSACTION_BYTES_MAX - WRITE_OVERHEAD_BYTES - len("/a")

    assert node.do(1, Create("/a", bytes(room + 1))) == Answer(Outcome.TOO_LARGE)
    assert node.do(1, Create("/a", bytes(room))).outcome is Outcome.OK


def test_reads_of_missing_nodes(node):
    """Reads of what is not there say so."""
    node.open(1)

    assert node.ask(1, GetData("/no")) == Answer(Outcome.NO_NODE)
    assert node.ask(1, GetChildren("/no")) == Answer(Outcome.NO_NODE)
