"""The disk port on real files: bytes, order, bounds, and what the file system refuses."""

import contextlib
import errno
import os
import resource
import select
import subprocess
import sys
from pathlib import Path

import pytest

from flussd.core.files import DiskError
from flussd.runtime_real.disk import FileDisk
from flussd.runtime_real.workers import Workers


class Calls(list):
    """Records the arguments of each completion."""

    def __call__(self, *arguments):
        self.append(arguments[0] if len(arguments) == 1 else arguments)


class Bench:
    """A disk whose workers are served by hand."""

    def __init__(self, folder: Path):
        self.workers = Workers()
        self.runs = Calls()
        self.disk = FileDisk(folder, self.workers, lambda: self.runs(None))

    def call(self, name, *arguments):
        """Make one call and return what its completion got."""
        calls = Calls()
        getattr(self.disk, name)(*arguments, calls)
        self.settle()
        assert len(calls) == 1
        return calls[0]

    def settle(self):
        while self.workers.outstanding_count:
            assert select.select([self.workers.wake_fd], [], [], 10)[0]
            self.workers.ready(1)


def open_descriptors():
    return [int(path.name) for path in Path("/proc/self/fd").iterdir()]


@pytest.fixture
def bench(tmp_path):
    bench = Bench(tmp_path / "node")
    yield bench
    bench.settle()
    bench.workers.close()
    bench.disk.close()


def test_what_is_written_is_read(bench):
    """Folders are made on the way, several views are one write, and a read ends with the file."""
    wrote = bench.call("write", "a/b/c.log", 3, (b"one", memoryview(b"two"), b"", b"three"))

    assert wrote is None
    assert (b"\0\0\0onetwothree", None) == bench.call("read", "a/b/c.log", 0, 100)
    assert (b"two", None) == bench.call("read", "a/b/c.log", 6, 3)
    assert (b"", None) == bench.call("read", "a/b/c.log", 99, 3)


def test_a_read_for_later_waits_until_it_is_called(bench):
    """The disk only says what is to be done; the hub calls it once all answers are sent."""
    bench.call("write", "log", 0, (b"0123456789",))
    later, came = [], Calls()
    bench.disk.later = lambda call, *arguments: later.append((call, arguments))
    bench.disk.read_later("log", 2, 3, came)
    assert came == []

    for call, arguments in later:
        call(*arguments)

    assert came == [(b"234", None)]


def test_more_views_than_one_call_takes(bench):
    """The kernel takes 1024 buffers a call; a write of more is still one write."""
    views = tuple(b"%04d" % n for n in range(3000))

    assert bench.call("write", "f", 0, views) is None
    assert (b"".join(views), None) == bench.call("read", "f", 0, 20_000)


def test_views_are_free_on_return(bench):
    """A buffer can be used again at once, as the hub does."""
    buffer = bytearray(b"first")
    bench.call("write", "f", 0, (memoryview(buffer),))
    buffer[:] = b"later"

    assert (b"first", None) == bench.call("read", "f", 0, 5)


def test_short_writes_are_continued(bench, monkeypatch):
    """The kernel may take less than it was given, at any point of any view."""
    whole = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: whole(fd, bytes(data)[:2], at))
    monkeypatch.setattr(os, "pwritev", lambda fd, views, at: whole(fd, b"".join(views)[:3], at))

    assert bench.call("write", "one", 0, (b"0123456789",)) is None
    assert bench.call("write", "many", 0, (b"01", b"2345", b"6", b"789")) is None
    assert (b"0123456789", None) == bench.call("read", "one", 0, 10)
    assert (b"0123456789", None) == bench.call("read", "many", 0, 10)


def test_missing_files(bench):
    """Reading, syncing, cutting and renaming what is not there is MISSING; removing is no error."""
    assert (b"", DiskError.MISSING) == bench.call("read", "no/such", 0, 1)
    assert DiskError.MISSING == bench.call("sync", "no")
    assert DiskError.MISSING == bench.call("sync_folder", "no")
    assert DiskError.MISSING == bench.call("truncate", "no", 0)
    assert DiskError.MISSING == bench.call("rename", "no", "other")
    assert bench.call("remove", "no/such") is None
    assert ((), None) == bench.call("list", "no/such")


def test_truncate_rename_and_list(bench):
    """Names and sizes are what was asked, sorted by path, and the target of a rename is replaced."""
    bench.call("write", "b/2", 0, (b"old",))
    bench.call("write", "b/1", 0, (b"123456",))
    bench.call("write", "a", 0, (b"x",))
    bench.call("truncate", "b/1", 4)
    bench.call("rename", "b/1", "b/2")

    assert ((("a", 1), ("b/2", 4)), None) == bench.call("list", "")
    assert ((("b/2", 4),), None) == bench.call("list", "b")
    assert (b"1234", None) == bench.call("read", "b/2", 0, 9)


def test_a_folder_goes_at_once_and_for_good(bench, tmp_path):
    """A removed folder is out of sight on return and off the disk soon; its name can be used again."""
    bench.call("write", "t/0/log", 0, (b"old",))
    calls = Calls()
    bench.disk.remove("t", calls)

    assert [None] == calls
    assert ((), None) == bench.call("list", "")
    bench.call("write", "t/0/log", 0, (b"n",))
    assert (b"n", None) == bench.call("read", "t/0/log", 0, 9)
    assert [] == list((tmp_path / "node" / ".gone").iterdir())


def test_a_start_removes_what_an_earlier_process_left(tmp_path):
    """A process can end between taking a folder out of sight and removing it."""
    (tmp_path / ".gone" / "7").mkdir(parents=True)
    FileDisk(tmp_path, Workers())

    assert not (tmp_path / ".gone").exists()


def test_syncs_of_one_file_share(bench, monkeypatch):
    """While one sync of a file runs, all others wait for a single second one."""
    count = Calls()
    whole = os.fdatasync
    monkeypatch.setattr(os, "fdatasync", lambda fd: (count(fd), whole(fd)))
    bench.call("write", "f", 0, (b"x",))
    calls = Calls()
    for _ in range(5):
        bench.disk.sync("f", calls)
    bench.settle()

    assert [None] * 5 == calls
    assert 2 == len(count)
    assert bench.runs, "the driver must run after a completion that comes later"


def test_a_sync_holds_its_file(bench, monkeypatch):
    """Removal, truncation and eviction behind a running sync cannot turn it to another file."""
    synced = Calls()
    whole = os.fdatasync
    monkeypatch.setattr(os, "fdatasync", lambda fd: (synced(os.fstat(fd).st_ino), whole(fd)))
    bench.call("write", "f", 0, (b"x",))
    inode = (bench.disk.folder / "f").stat().st_ino
    calls = Calls()
    bench.disk.sync("f", calls)
    bench.disk.sync("f", calls)
    bench.disk.remove("f", Calls())
    bench.disk.write("f", 0, (b"another",), Calls())
    bench.settle()

    assert [None, None] == calls
    assert [inode, inode] == synced


def test_a_failed_sync_is_told_to_all_whom_it_served(bench, monkeypatch):
    """An error is no success for anybody, and has its own kind."""

    def fails(fd):
        raise OSError(errno.EIO, "lost")

    bench.call("write", "f", 0, (b"x",))
    monkeypatch.setattr(os, "fdatasync", fails)
    calls = Calls()
    bench.disk.sync("f", calls)
    bench.disk.sync("f", calls)
    bench.settle()

    assert [DiskError.IO] * 2 == calls


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.ENOSPC, DiskError.FULL),
        (errno.EDQUOT, DiskError.FULL),
        (errno.EIO, DiskError.IO),
        (errno.EACCES, DiskError.DENIED),
        (errno.EROFS, DiskError.DENIED),
        (errno.EMFILE, DiskError.TOO_MANY_FILES),
        (errno.ENFILE, DiskError.TOO_MANY_FILES),
        (errno.ENOENT, DiskError.MISSING),
        (errno.EUCLEAN, DiskError.IO),
    ],
)
def test_each_errno_has_its_kind(bench, monkeypatch, number, expected):
    """What the system says at any call becomes one of the five kinds."""

    def fails(*_, **__):
        raise OSError(number, "injected")

    bench.call("write", "there", 0, (b"x",))
    for name in ("pwrite", "pread", "ftruncate", "replace", "unlink", "open"):
        monkeypatch.setattr(os, name, fails)

    assert expected == bench.call("write", "there", 0, (b"x",))
    assert (b"", expected) == bench.call("read", "there", 0, 1)
    assert expected == bench.call("truncate", "there", 0)
    assert expected == bench.call("write", "new", 0, (b"x",))
    assert expected == bench.call("rename", "there", "new")
    expected_of_removal = None if expected is DiskError.MISSING else expected
    assert expected_of_removal == bench.call("remove", "there")


FULL_DISK = """
import resource, sys
from pathlib import Path
from flussd.runtime_real.disk import FileDisk
from flussd.runtime_real.workers import Workers
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
disk = FileDisk(Path(sys.argv[1]), Workers())
disk.write("f", 9_990, (b"x" * 5, b"y" * 100), print)
disk.write("f", 0, (b"z",), print)
disk.list("", print)
"""


def test_a_real_limit_of_size(tmp_path, child_env):
    """The kernel cuts a write short and then refuses: FULL, and the next write that fits succeeds."""
    ran = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path)],
        env=child_env,
        capture_output=True,
        text=True,
        check=True,
    )

    assert ["DiskError.FULL", "None", "(('f', 10000),) None"] == ran.stdout.splitlines()


def test_paths_cannot_leave_the_folder(bench):
    """A path that is absolute, climbs, or is hidden is a bug of ours, and nothing is touched."""
    for path in ("/etc/passwd", "../x", "a/../x", "a//b", ".", "a/./b", ".gone/1", ".node.json", "a\0b"):
        for call in (
            lambda p=path: bench.disk.write(p, 0, (b"x",), print),
            lambda p=path: bench.disk.read(p, 0, 1, print),
            lambda p=path: bench.disk.remove(p, print),
            lambda p=path: bench.disk.rename("a", p, print),
            lambda p=path: bench.disk.list(p, print),
        ):
            with pytest.raises(AssertionError):
                call()
    with pytest.raises(AssertionError):
        bench.disk.remove("", print)


def test_open_files_are_bounded(bench):
    """Old descriptors are closed, also while they are synced, and their files open again."""
    bench.disk.open_max = 4
    before = len(open_descriptors())
    calls = Calls()
    for n in range(40):
        bench.disk.write(f"d/{n}", 0, (b"%d" % n,), Calls())
        bench.disk.sync(f"d/{n}", calls)
    bench.settle()

    assert [None] * 40 == calls
    assert before + 4 >= len(open_descriptors())
    assert (b"17", None) == bench.call("read", "d/17", 0, 9)


def test_descriptors_that_others_took_are_made_up_for(bench):
    """At the process's limit the disk gives back its own descriptors before it fails."""
    for n in range(8):
        bench.call("write", f"{n}", 0, (b"x",))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(open_descriptors())
    taken = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, hard))
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.dup(0))

        wrote = Calls()
        bench.disk.write("new", 0, (b"x",), wrote)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in taken:
            os.close(fd)

    assert [None] == wrote
