"""Whatever was told survives every crash, and the rest is there in groups, in order, or not at all."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flussd.core.files import DiskError
from flussd.core.machine import Fatal
from flussd.core.registry import messages as m
from flussd.core.registry.messages import Create, Delete, GetData, Multi, SetData
from flussd.core.registry.registry import Phase

LINKS = st.integers(1, 3)
PLACES = ("/a", "/b", "/a/c", "/a/d")
PATHS = st.sampled_from(["/a", "/b", "/a/c", "/a/d", "/b/e"])
SIZES = st.sampled_from([0, 10, 400, 1500])
WRITES = st.one_of(
    st.builds(
        lambda path, size, ephemeral, sequential: Create(path, b"#" * size, ephemeral, sequential),
        PATHS,
        SIZES,
        st.booleans(),
        st.booleans(),
    ),
    st.builds(lambda path, size: SetData(path, b"=" * size), PATHS, SIZES),
    st.builds(Delete, PATHS),
)
ACTIONS = st.one_of(
    st.tuples(st.just("ask"), LINKS, st.lists(WRITES, min_size=1, max_size=3).map(tuple)),
    st.tuples(st.just("ask"), LINKS, st.lists(WRITES, min_size=1, max_size=3).map(tuple)),
    st.tuples(st.just("read"), LINKS, PATHS),
    st.tuples(st.just("open"), LINKS),
    st.tuples(st.just("lose"), LINKS),
    st.tuples(st.just("advance"), st.sampled_from([1, 300, 1100])),
    st.tuples(st.just("complete"), st.integers(1, 4)),
    st.tuples(st.just("complete"), st.integers(1, 4)),
    st.tuples(st.just("run")),
    st.tuples(st.just("fail")),
    st.tuples(st.just("disk"), st.sampled_from(["", "grow", "all"])),
    st.tuples(st.sampled_from(["kill", "cut"])),
)


def perform(node, draw, action):
    """Do one *action*; a node that failed begins anew."""
    match action:
        case ("ask", link, writes):
            node.step(m.OperationReceived(link, 0, Multi(writes)))
        case ("read", link, path):
            node.step(m.OperationReceived(link, 0, GetData(path, watch=True)))
        case ("open", link):
            node.step(m.SessionRequested(link, 0, 1000))
        case ("lose", link):
            node.step(m.LinkLost(link))
        case ("advance", ms):
            node.advance(ms)
        case ("complete", count):
            for _ in range(min(count, len(node.pending))):
                node.complete()
        case ("run",):
            node.run()
        case ("fail",):
            node.fail_next = draw.choice((DiskError.FULL, DiskError.IO, DiskError.TOO_MANY_FILES))
        case ("disk", full):
            node.full = full
        case ("kill",):
            restart(node, draw)
        case ("cut",):
            node.cut_power(draw)
            restart(node, draw)
    if node.machine.phase is Phase.OVER:
        restart(node, draw)


def restart(node, draw):
    """Begin a new process; when it serves, compare what it found with what there must be."""
    node.kill(draw)
    node.fail_next, node.full = None, ""
    node.announced.clear()
    node.start()
    while node.machine.phase is not Phase.SERVING:
        assert not any(isinstance(said, Fatal) for said in node.announced), node.announced
        if draw.random() < 0.1:  # again, in the middle of recovery
            if draw.random() < 0.5:
                node.cut_power(draw)
            node.kill(draw)
            node.start()
        node.complete()
    zxid = node.machine.tree.zxid
    assert node.floor <= zxid, "what was told is lost"
    assert node.history_before[zxid] == node.machine.tree.digest(), "not a state that ever was"
    node.machine.check_all()
    node.history = {at: digest for at, digest in node.history_before.items() if at <= zxid}
    node.history[zxid] = node.machine.tree.digest()


def crash_story(make_node, actions, seed):
    draw = random.Random(seed)
    sizes = {
        "log_bytes_max": draw.choice((300, 3000, 30_000)),
        "room_bytes": draw.choice((0, 100, 2000, 64 * 1024)),
    }
    node = make_node(**sizes, draw=draw)
    node.start()
    node.run()
    for action in actions:
        node.history_before = node.history
        perform(node, draw, action)
        node.machine.check_all()
    node.history_before = node.history
    node.cut_power(draw)
    restart(node, draw)


@settings(deadline=None, max_examples=150)
@given(st.lists(ACTIONS, max_size=40), st.integers(0, 1 << 32))
def test_crashes(make_node, actions, seed):
    """1. Random work, at any point of which the process dies or the power goes. 2. See above."""
    crash_story(make_node, actions, seed)


@pytest.mark.parametrize("seed", range(60))
def test_long_crash_stories(make_node, seed):
    """The same, with much more work between crashes."""
    draw = random.Random(seed)
    actions = []
    for _ in range(400):
        writes = tuple(
            draw.choice(
                (
                    Create(draw.choice(PLACES), draw.randbytes(draw.choice((5, 700))),
                           draw.random() < 0.2, draw.random() < 0.3),
                    SetData(draw.choice(PLACES[:3]), draw.randbytes(draw.choice((5, 1500)))),
                    Delete(draw.choice(PLACES)),
                )
            )
            for _ in range(draw.randint(1, 3))
        )  # fmt: skip
        link = draw.randint(1, 3)
        kinds = (("ask", link, writes), ("ask", link, writes), ("open", link), ("complete", 2), ("run",))
        full = draw.choice(("", "", "grow", "all"))
        rare = (("cut",), ("kill",), ("fail",), ("advance", 200), ("disk", full), ("disk", full))
        actions.append(draw.choice(rare) if draw.random() < 0.06 else draw.choice(kinds))
    crash_story(make_node, actions, seed)
