"""What a power cut leaves on the simulated disk: what was synced for certain, of the rest anything."""

from __future__ import annotations

import pytest

from flussd.runtime_sim.draws import Stream
from flussd.runtime_sim.media import PIECE_BYTES, Inode, Media


def media(seed=1):
    """Return an empty disk."""
    return Media(Stream.of(seed, "test"))


def synced(disk, path):
    """Make a file and its names durable."""
    disk.files[path].sync()
    for folder in ("", "a", "a/b"):
        disk.sync_folder(folder)


def test_what_was_synced_survives():
    """Bytes and names, whatever the mood."""
    for seed in range(50):
        disk = media(seed)
        disk.open("a/b/f").write(0, b"x" * 2000)
        synced(disk, "a/b/f")
        disk.cut_power()

        assert b"x" * 2000 == disk.files["a/b/f"].content


def test_unsynced_writes_survive_in_pieces():
    """Some runs lose all, some nothing, some keep a later piece without an earlier one."""
    kinds = set()
    for seed in range(200):
        inode = Inode()
        inode.write(0, b"a" * PIECE_BYTES + b"b" * PIECE_BYTES)
        inode.cut_power(Stream.of(seed, "test"))
        first, second = inode.content[:PIECE_BYTES], inode.content[PIECE_BYTES:]
        kinds.add((bytes(first[:1]), bytes(second[:1])))

    assert {(b"", b""), (b"a", b"b"), (b"a", b""), (b"\0", b"b")} <= kinds


@pytest.mark.parametrize("folder", ["", "a"])
def test_a_name_needs_all_its_folders(folder):
    """A folder above that was not synced takes the file with it, at least sometimes."""
    lost = 0
    for seed in range(50):
        disk = media(seed)
        disk.open("a/b/f").write(0, b"x")
        disk.files["a/b/f"].sync()
        for other in ("", "a", "a/b"):
            if other != folder:
                disk.sync_folder(other)
        disk.cut_power()
        lost += "a/b/f" not in disk.files

    assert 0 < lost < 50


def test_a_removed_file_may_come_back():
    """A removal is durable only with its folder."""
    came_back = 0
    for seed in range(50):
        disk = media(seed)
        disk.open("a/b/f").write(0, b"x")
        synced(disk, "a/b/f")
        disk.remove("a/b/f")
        disk.cut_power()
        came_back += "a/b/f" in disk.files

    assert 0 < came_back < 50


def test_a_failed_sync_loses_dirty_pages():
    """This boot still reads them, a later sync does not write them, the next boot does not have them."""
    lost = 0
    for seed in range(50):
        inode = Inode()
        inode.write(0, b"x" * 100)
        inode.fail_sync(Stream.of(seed, "test"))
        assert b"x" * 100 == inode.content
        inode.sync()
        inode.cut_power(Stream.of(seed, "later"))
        lost += inode.content != b"x" * 100

    assert 0 < lost < 50


def test_a_rename_is_one_step():
    """After a power cut there is the old content or the new one, under the new name."""
    seen = set()
    for seed in range(50):
        disk = media(seed)
        disk.open("f").write(0, b"old")
        disk.files["f"].sync()
        disk.sync_folder("")
        disk.open("f.tmp").write(0, b"new")
        disk.files["f.tmp"].sync()
        disk.rename("f.tmp", "f")
        disk.cut_power()
        seen.add(bytes(disk.files["f"].content))

    assert {b"old", b"new"} == seen
