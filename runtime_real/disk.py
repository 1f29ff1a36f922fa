"""The disk port on a real folder: reads and writes inline, syncs in a thread.

An inline write costs 2 us, a hop to a thread 100. Order per file needs no queue: all but sync happens
before the call returns, and a sync holds the open file itself, so that a truncation, rename or removal
behind it cannot turn it to other bytes. Paths are checked: nothing outside the folder is ever touched.
The caller owes it one thread, and that nobody else writes below the folder.
"""

from __future__ import annotations

import errno
import itertools
import os
import shutil
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeAlias

import attrs

from flussd.core.files import DiskError
from flussd.core.ports import Buffers, Done, ListDone, ReadDone
from flussd.runtime_real.workers import Workers

OPEN_FILES_MAX: Final = 256
"""Open files kept per node: the active segments of a hundred buckets, far below the usual 1024."""

IOV_MAX: Final = 1024
"""Buffers of one pwritev on Linux."""

HIDDEN: Final = "."
"""What begins so belongs to the runtime: machines neither see nor name it."""

SYNC_TIMES_MAX: Final = 1024
"""Latest times of syncs that are kept for those who watch the disk."""

GONE: Final = ".gone"
"""Where folders wait for the thread that removes them; emptied at the next start, too."""

ERRORS: Final = {
    errno.ENOSPC: DiskError.FULL,
    errno.EDQUOT: DiskError.FULL,
    errno.EFBIG: DiskError.FULL,
    errno.EIO: DiskError.IO,
    errno.EACCES: DiskError.DENIED,
    errno.EPERM: DiskError.DENIED,
    errno.EROFS: DiskError.DENIED,
    errno.EMFILE: DiskError.TOO_MANY_FILES,
    errno.ENFILE: DiskError.TOO_MANY_FILES,
    errno.ENOENT: DiskError.MISSING,
    errno.ENOTDIR: DiskError.MISSING,
}


SyncEnd: TypeAlias = tuple[DiskError | None, int]  # how it ended, and after how many ns


def disk_error(error: OSError) -> DiskError:
    """Return how the core names *error*; what has no name of its own is an input/output error."""
    return ERRORS.get(error.errno or 0, DiskError.IO)


@attrs.define(eq=False)
class OpenFile:
    """A descriptor; closed when it is out of the cache and no sync runs on it."""

    fd: int
    cached: bool = True
    syncing: list[Done] = attrs.Factory(list)  # whom the running sync serves
    waiting: list[Done] = attrs.Factory(list)  # whom the next one will: one sync for all of them

    def close_if_unused(self) -> None:
        """Close the descriptor unless someone holds it."""
        if not self.cached and not self.syncing and self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


@attrs.define(eq=False)
class SyncTimes:
    """How long the syncs of one node took, in the thread that did them."""

    count: int = 0
    failed_count: int = 0
    sum_ns: int = 0
    latest_ns: deque[int] = attrs.Factory(lambda: deque(maxlen=SYNC_TIMES_MAX))

    def add(self, took_ns: int, error: DiskError | None) -> None:
        """Count one."""
        self.count += 1
        self.sum_ns += took_ns
        self.latest_ns.append(took_ns)
        if error is not None:
            self.failed_count += 1


@attrs.define(eq=False)
class FileDisk:
    """Files below *folder*; *run* is called after completions that come later."""

    folder: Path
    workers: Workers
    run: Callable[[], None] = lambda: None
    later: Callable[..., None] = lambda call, *arguments: call(*arguments)  # behind what others wait for
    syncs: SyncTimes = attrs.Factory(SyncTimes)
    open_max: int = OPEN_FILES_MAX  # this node's share of the descriptors
    _root: str = attrs.field(init=False)
    _open: OrderedDict[str, OpenFile] = attrs.Factory(OrderedDict)
    _gone_names: itertools.count[int] = attrs.Factory(itertools.count)

    def __attrs_post_init__(self) -> None:
        self._root = os.fspath(self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(self.folder / GONE, ignore_errors=True)

    # ---- the port ------------------------------------------------------------------------------

    def write(self, file: str, position: int, views: Buffers, done: Done) -> None:
        """Write *views* at *position*, creating the file and its folders."""
        try:
            _write_all(self._opened(file, create=True).fd, position, views)
        except OSError as error:
            done(disk_error(error))
        else:
            done(None)

    def read(self, file: str, position: int, size_bytes: int, done: ReadDone) -> None:
        """Read up to *size_bytes*; short only at the end of the file."""
        try:
            data = _read_all(self._opened(file, create=False).fd, position, size_bytes)
        except OSError as error:
            done(b"", disk_error(error))
        else:
            done(data, None)

    def read_later(self, file: str, position: int, size_bytes: int, done: ReadDone) -> None:
        """Read as `read` does, once the answers of this wake-up are sent."""
        self.later(self.read, file, position, size_bytes, done)

    def sync(self, file: str, done: Done) -> None:
        """Make the bytes of *file* durable, as far as written before this call."""
        try:
            opened = self._opened(file, create=False)
        except OSError as error:
            done(disk_error(error))
            return
        if opened.syncing:
            opened.waiting.append(done)
        else:
            self._start_sync(opened, [done])

    def sync_folder(self, folder: str, done: Done) -> None:
        """Make the names in *folder* durable."""
        try:
            # Opened here: a removal right behind this call must not make it fail.
            fd = os.open(self._path(folder), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            done(disk_error(error))
            return

        def job() -> SyncEnd:
            try:
                return _synced(os.fsync, fd)
            finally:
                os.close(fd)

        self.workers.submit("sync", job, lambda end: self._folder_synced(done, end))

    def truncate(self, file: str, size_bytes: int, done: Done) -> None:
        """Cut *file*."""
        try:
            os.ftruncate(self._opened(file, create=False).fd, size_bytes)
        except OSError as error:
            done(disk_error(error))
        else:
            done(None)

    def rename(self, old: str, new: str, done: Done) -> None:
        """Give *old* the name *new* in one step, replacing what had it."""
        old_path, new_path = self._path(old), self._path(new)
        self._forget(old)
        self._forget(new)
        try:
            os.replace(old_path, new_path)  # noqa: PTH105 - a Path costs more than the call
        except OSError as error:
            done(disk_error(error))
        else:
            done(None)

    def remove(self, path: str, done: Done) -> None:
        """Remove a file, or a folder with all in it; a missing one is no error."""
        full = self._path(path)
        assert path, "the node's own folder is not removed"
        self._forget(path)
        try:
            os.unlink(full)  # noqa: PTH108 - see rename
        except (FileNotFoundError, NotADirectoryError):
            done(None)
        except (IsADirectoryError, PermissionError) as error:
            done(self._remove_folder(full) if os.path.isdir(full) else disk_error(error))  # noqa: PTH112
        except OSError as error:
            done(disk_error(error))
        else:
            done(None)

    def close(self) -> None:
        """Close all files; the workers must have ended."""
        while self._open:
            self._evict()

    # ---- inside --------------------------------------------------------------------------------

    def _path(self, path: str) -> str:
        """Return the full path; *path* comes from our own code, so a bad one is a bug."""
        if not path:
            return self._root
        for part in path.split("/"):
            assert part, f"expected a relative path without empty parts, got {path!r}"
            assert not part.startswith(HIDDEN), f"expected no part that begins with a dot, got {path!r}"
        assert "\0" not in path, f"expected no NUL, got {path!r}"
        return f"{self._root}/{path}"

    def _opened(self, file: str, *, create: bool) -> OpenFile:
        opened = self._open.get(file)
        if opened is not None:
            self._open.move_to_end(file)
            return opened
        path = self._path(file)
        assert file, "a folder is not a file"
        while len(self._open) >= self.open_max:
            self._evict()
        opened = self._open[file] = OpenFile(self._open_fd(path, create=create))
        return opened

    def _open_fd(self, path: str, *, create: bool) -> int:
        flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0)
        try:
            return os.open(path, flags, 0o644)
        except FileNotFoundError:
            if not create:
                raise
            os.makedirs(os.path.dirname(path), exist_ok=True)  # noqa: PTH103, PTH120 - see rename
            return os.open(path, flags, 0o644)
        except OSError as error:
            if error.errno not in {errno.EMFILE, errno.ENFILE} or not self._open:
                raise
            while self._open:  # sockets took the descriptors: give ours back before giving up
                self._evict()
            return os.open(path, flags, 0o644)

    def _evict(self) -> None:
        _, opened = self._open.popitem(last=False)
        opened.cached = False
        opened.close_if_unused()

    def _forget(self, path: str) -> None:
        """Take *path*, and what lies below it, out of the cache."""
        prefix = path + "/"
        for name in [name for name in self._open if name == path or name.startswith(prefix)]:
            opened = self._open.pop(name)
            opened.cached = False
            opened.close_if_unused()

    def _start_sync(self, opened: OpenFile, dones: list[Done]) -> None:
        opened.syncing = dones
        fd = opened.fd
        self.workers.submit(
            "sync", lambda: _synced(os.fdatasync, fd), lambda end: self._sync_ended(opened, end)
        )

    def _sync_ended(self, opened: OpenFile, end: SyncEnd) -> None:
        error, took_ns = end
        self.syncs.add(took_ns, error)
        dones, opened.syncing = opened.syncing, []
        if opened.waiting:
            waiting, opened.waiting = opened.waiting, []
            self._start_sync(opened, waiting)
        opened.close_if_unused()
        for done in dones:
            done(error)
        self.run()

    def _folder_synced(self, done: Done, end: SyncEnd) -> None:
        error, took_ns = end
        self.syncs.add(took_ns, error)
        done(error)
        self.run()

    def _remove_folder(self, full: str) -> DiskError | None:
        """Take the folder out of sight at once; a thread removes it, which may take long."""
        gone = f"{self._root}/{GONE}"
        target = f"{gone}/{next(self._gone_names)}"
        try:
            os.makedirs(gone, exist_ok=True)  # noqa: PTH103 - see rename
            os.rename(full, target)  # noqa: PTH104 - see rename
        except OSError as error:
            return disk_error(error)
        self.workers.submit("remove", lambda: shutil.rmtree(target, ignore_errors=True), lambda _: None)
        return None

    # Last in the class: the port's name hides the type in the annotations that follow it.
    def list(self, folder: str, done: ListDone) -> None:
        """List all files below *folder* with their sizes, sorted by path."""
        try:
            found = _files_below(self._path(folder), folder)
        except OSError as error:
            done((), disk_error(error))
        else:
            done(tuple(sorted(found)), None)


def _write_all(fd: int, position: int, views: Buffers) -> None:
    if len(views) == 1:
        written = os.pwrite(fd, views[0], position)
        if written == len(views[0]):
            return
        views = (memoryview(views[0])[written:],)
        position += written
    left = [memoryview(view) for view in views if len(view)]
    while left:
        written = os.pwritev(fd, left[:IOV_MAX], position)
        if not written:
            raise OSError(errno.ENOSPC, "nothing was written")
        position += written
        while left and written >= len(left[0]):
            written -= len(left.pop(0))
        if written:
            left[0] = left[0][written:]


def _read_all(fd: int, position: int, size_bytes: int) -> bytes:
    data = os.pread(fd, size_bytes, position)
    if len(data) == size_bytes or not data:
        return data
    chunks = [data]
    missing = size_bytes - len(data)
    while missing:  # a short read is the end of the file, or a signal
        position += len(data)
        data = os.pread(fd, missing, position)
        if not data:
            break
        chunks.append(data)
        missing -= len(data)
    return b"".join(chunks)


def _synced(sync: Callable[[int], None], fd: int) -> SyncEnd:
    began_ns = time.perf_counter_ns()
    error = None
    try:
        sync(fd)
    except OSError as failure:
        error = disk_error(failure)
    return error, time.perf_counter_ns() - began_ns


def _files_below(full: str, folder: str) -> list[tuple[str, int]]:
    found: list[tuple[str, int]] = []
    waiting = [(full, folder)]
    while waiting:
        here, name = waiting.pop()
        try:
            entries = list(os.scandir(here))
        except (FileNotFoundError, NotADirectoryError):
            continue  # a missing folder is an empty one
        for entry in entries:
            if entry.name.startswith(HIDDEN):
                continue
            path = f"{name}/{entry.name}" if name else entry.name
            if entry.is_dir(follow_symlinks=False):
                waiting.append((entry.path, path))
            else:
                found.append((path, entry.stat().st_size))
    return found
