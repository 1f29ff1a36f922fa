"""The log's form, and what recovery makes of damage."""

import random

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flussd.core.machine import Fatal
from flussd.core.registry.changes import (
    Corrupt,
    DataSet,
    NodeCreated,
    NodeDeleted,
    SessionClosed,
    SessionOpened,
    decode_changes,
    encode_changes,
)
from flussd.core.registry.log import HEAD_BYTES, encode_group, encode_head, read_log, require_torn
from flussd.core.registry.messages import Create, Outcome
from flussd.core.registry.recovery import Recovery
from flussd.core.registry.snapshot import decode_snapshot, encode_snapshot
from flussd.core.registry.tree import Tree

PATHS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
IDS = st.integers(0, (1 << 64) - 1)
CHANGES = st.lists(
    st.one_of(
        st.builds(NodeCreated, PATHS, st.binary(max_size=50), IDS),
        st.builds(DataSet, PATHS, st.binary(max_size=50)),
        st.builds(NodeDeleted, PATHS),
        st.builds(SessionOpened, IDS, st.integers(1, 1 << 40)),
        st.builds(SessionClosed, IDS),
    ),
    min_size=1,
    max_size=4,
).map(tuple)
LOG = "log-00000000000000000001"


@given(CHANGES)
def test_changes_come_back(changes):
    """What is decoded is what was encoded."""
    data = encode_changes(changes)

    assert (changes, len(data)) == decode_changes(memoryview(data), 0)


@given(st.lists(st.lists(CHANGES, min_size=1, max_size=3), max_size=4))
def test_groups_come_back(groups):
    """Groups keep their places, zxids and transactions."""
    data, zxid, places = encode_head(7, 1), 1, []
    for group in groups:
        places.append((len(data), zxid))
        data += encode_group(7, len(data), zxid, len(group), b"".join(map(encode_changes, group)))
        zxid += len(group)

    log = read_log(LOG, data, 1)

    assert (len(data), None) == (log.end, log.damage)
    assert places == [(group.position, group.first_zxid) for group in log.groups]
    assert [tuple(group) for group in groups] == [group.transactions for group in log.groups]


def three_groups():
    """A log of three groups, and where each begins."""
    data, places = encode_head(7, 1), []
    for zxid in (1, 2, 3):
        places.append(len(data))
        body = encode_changes((NodeCreated(f"/{zxid}", bytes(600), 0),))
        data += encode_group(7, len(data), zxid, 1, body)
    return data, places


def test_every_damaged_byte_is_found():
    """1. One byte is wrong. 2. In the last group that is a torn tail. 3. Anywhere before it is not."""
    whole, places = three_groups()
    for at in range(len(whole)):
        data = bytearray(whole)
        data[at] ^= 0x40
        if at < places[2]:
            with pytest.raises(Corrupt):
                require_torn(LOG, bytes(data), read_log(LOG, bytes(data), 1))
            continue
        log = read_log(LOG, bytes(data), 1)
        require_torn(LOG, bytes(data), log)
        assert (2, places[2]) == (len(log.groups), log.end)


def test_every_torn_length_is_a_tail():
    """A file that ends anywhere behind its head is a log with a torn tail."""
    whole, places = three_groups()
    for size_bytes in range(HEAD_BYTES, len(whole) + 1):
        log = read_log(LOG, whole[:size_bytes], 1)
        require_torn(LOG, whole[:size_bytes], log)
        assert log.end == max(end for end in (*places, len(whole)) if end <= size_bytes)


def test_a_record_inside_the_data_of_another_is_no_record():
    """A client writes what looks like a later group; it does not know the salt, so a tear stays a tear."""
    whole, places = three_groups()
    inner = encode_group(8, places[2] + 100, 4, 1, encode_changes((NodeDeleted("/1"),)))
    body = encode_changes((NodeCreated("/3", inner, 0),))
    data = bytearray(whole[: places[2]] + encode_group(7, places[2], 3, 1, body))
    data[places[2]] ^= 1

    log = read_log(LOG, bytes(data), 1)
    require_torn(LOG, bytes(data), log)

    assert log.damage is not None


def test_a_record_of_another_file_is_no_record():
    """Blocks that an older file left on the disk, whole and at their old place, are a torn tail."""
    whole, places = three_groups()
    stale = encode_group(8, places[2], 3, 1, encode_changes((NodeDeleted("/1"),)))
    moved = whole[places[0] : places[1]]
    for tail in (stale, moved):
        data = whole[: places[2]] + tail
        log = read_log(LOG, data, 1)
        require_torn(LOG, data, log)

        assert (2, places[2]) == (len(log.groups), log.end)


def test_fatal_text_says_what_and_where(node):
    """1. A group that had been synced is damaged. 2. The next start says so, in one line."""
    node.open(1)
    node.do(1, Create("/a", b"precious"))
    node.do(1, Create("/b"))
    file = node.files[LOG]
    file.cached = file.cached.replace(b"precious", b"previous")
    node.announced.clear()
    node.start()
    node.run()

    (fatal,) = node.announced
    assert isinstance(fatal, Fatal)
    assert fatal.text.startswith(f"registry: {LOG} at 97: expected checksum 0x")
    assert fatal.text.endswith("it had been synced, for a whole group follows at 164")


def test_lost_files_are_fatal(make_node):
    """A snapshot or log that others prove to have existed must be there."""
    for lost in ("snapshot", "log"):
        node = make_node(log_bytes_max=500)
        node.start()
        node.run()
        node.open(1)
        for n in range(20):
            assert node.do(1, Create(f"/{n}", bytes(50))).outcome is Outcome.OK
        node.files = {name: file for name, file in node.files.items() if not name.startswith(lost)}
        node.announced.clear()
        node.start()
        node.run()

        assert [Fatal] == [type(said) for said in node.announced]


def test_a_log_must_reach_its_successor():
    """1. A log has a successor that is empty. 2. What the successor's name promises must be there."""
    whole, places = three_groups()
    successor = "log-00000000000000000004"
    listing = ((LOG, len(whole)), (successor, HEAD_BYTES))
    for size_bytes, reached in ((len(whole), True), (len(whole) - 1, False), (places[2], False)):
        recovery = Recovery()
        assert recovery.listed(listing) == (LOG, len(whole))
        if reached:
            assert recovery.read(whole[:size_bytes]) == (successor, HEAD_BYTES)
            assert recovery.read(encode_head(9, 4)) is None
            assert (3, None) == (recovery.tree.zxid, recovery.last_group)
        else:
            with pytest.raises(
                Corrupt, match=f"{LOG} at {places[2]}: expected transactions up to 3, got up to 2"
            ):
                recovery.read(whole[:size_bytes])


def test_what_a_recovery_cut_stays_cut():
    """1. A successor begins with zxid 3. 2. The old log reads well beyond that. 3. They do not count."""
    whole, _ = three_groups()
    body = encode_changes((NodeCreated("/other", b"", 0),))
    successor = encode_head(9, 3) + encode_group(9, HEAD_BYTES, 3, 1, body)
    recovery = Recovery()
    recovery.listed(((LOG, len(whole)), ("log-00000000000000000003", len(successor))))
    recovery.read(whole)
    recovery.read(successor)

    assert ["/", "/1", "/2", "/other"] == sorted(recovery.tree.nodes)
    assert recovery.last_group is not None
    assert (3, body) == (recovery.last_group.first_zxid, recovery.last_group.body)


def test_an_older_snapshot_serves_if_the_logs_reach_back(node):
    """1. A snapshot is damaged. 2. All logs are still there, so nothing is lost; and it is said."""
    node.open(1)
    node.do(1, Create("/a"))
    node.files["snapshot-00000000000000000001"] = attrs.evolve(node.files[LOG], cached=b"rot")
    node.announced.clear()
    node.start()
    node.run()

    (recovered,) = node.announced
    assert recovered.what == "recovered"
    assert "snapshot-00000000000000000001: expected a snapshot, got 3 bytes" in recovered.text
    assert "/a" in node.machine.tree.nodes


def test_unknown_level_is_refused():
    """Files of a newer version are not guessed at."""
    data = bytearray(encode_head(7, 1))
    data[8] = 2

    with pytest.raises(Corrupt, match="log at 8: expected format level 1, got 2"):
        read_log("log", bytes(data), 1)


@pytest.fixture
def tree(node):
    node.open(1)
    node.do(1, Create("/a", b"x"), Create("/a/b", ephemeral=True), Create("/a.", b"y"))
    return node.machine.tree


def test_snapshots_come_back(tree):
    """A snapshot holds all; equal trees give equal bytes."""
    data = encode_snapshot(tree)

    copy = decode_snapshot("s", data)

    copy.check_all()
    assert tree.digest() == copy.digest()
    assert data == encode_snapshot(copy)


def test_every_damaged_byte_of_a_snapshot_is_found(tree):
    """No wrong byte, and no missing end, goes unseen."""
    whole = encode_snapshot(tree)
    for at in range(len(whole)):
        data = bytearray(whole)
        data[at] ^= 1
        for damaged in (bytes(data), whole[:at]):
            with pytest.raises(Corrupt):
                decode_snapshot("s", damaged)


@given(st.binary(max_size=300), st.integers(0, 2))
def test_bytes_with_a_right_checksum_raise_nothing_else(noise, seed):
    """Even sealed nonsense is Corrupt, never another exception."""
    draw = random.Random(seed)
    body = bytearray(encode_changes((NodeCreated("/a", noise[:20], 5), NodeDeleted("/b"))) + noise)
    for _ in range(3):
        body[draw.randrange(len(body))] = draw.randrange(256)
    data = encode_head(7, 1) + encode_group(7, HEAD_BYTES, 1, 1, bytes(body))

    try:
        log = read_log(LOG, data, 1)
        for group in log.groups:
            Tree().replay(group.transactions[0], 1)
    except Corrupt as error:
        text = str(error)
        assert "\n" not in text
