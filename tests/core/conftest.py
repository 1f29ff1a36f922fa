"""A disk in memory and a loop, for tests of machines that write files."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import settings

from flussd.core.files import DiskError
from flussd.core.storage import Files

# The same examples everywhere: a test that fails on one machine fails on all.
settings.register_profile("flussd", deadline=None, derandomize=True)
settings.load_profile("flussd")


class MemoryDisk:
    """The disk port over a dict; fails where a test says so; everything ends at once."""

    def __init__(self):
        self.files: dict[str, bytearray] = {}
        self.failures: deque[tuple[str, DiskError]] = (
            deque()
        )  # (operation, error): the next such operation fails
        self.log: list[str] = []

    def _fails(self, operation, file):
        self.log.append(f"{operation} {file}")
        for n, (failing, error) in enumerate(self.failures):
            if failing == operation:
                del self.failures[n]
                return error
        return None

    def write(self, file, position, views, done):
        error = self._fails("write", file)
        data = b"".join(bytes(view) for view in views)
        if error is not None:
            data = data[: len(data) // 2]  # a failed write may leave a part
        content = self.files.setdefault(file, bytearray())
        content.extend(bytes(max(0, position - len(content))))
        content[position : position + len(data)] = data
        done(error)

    def read(self, file, position, size_bytes, done):
        error = self._fails("read", file)
        if error is None and file not in self.files:
            error = DiskError.MISSING
        done(b"" if error else bytes(self.files[file][position : position + size_bytes]), error)

    def read_later(self, file, position, size_bytes, done):
        self.read(file, position, size_bytes, done)

    def sync(self, file, done):
        error = self._fails("sync", file)
        done(error or (None if file in self.files else DiskError.MISSING))

    def sync_folder(self, folder, done):
        done(self._fails("sync_folder", folder))

    def truncate(self, file, size_bytes, done):
        error = self._fails("truncate", file)
        if error is None and file in self.files:
            del self.files[file][size_bytes:]
        done(error or (None if file in self.files else DiskError.MISSING))

    def rename(self, old, new, done):
        error = self._fails("rename", old)
        if error is None:
            self.files[new] = self.files.pop(old)
        done(error)

    def remove(self, path, done):
        error = self._fails("remove", path)
        if error is None:
            for file in [f for f in self.files if f == path or f.startswith(path + "/")]:
                del self.files[file]
        done(error)

    def list(self, folder, done):
        prefix = folder + "/" if folder else ""
        error = self._fails("list", folder)
        done(tuple(sorted((f, len(c)) for f, c in self.files.items() if f.startswith(prefix))), error)


@pytest.fixture
def memory_disk():
    """Return an empty disk."""
    return MemoryDisk()


@pytest.fixture
def make_files():
    """Return a function that gives (file effects performer, queue of completions) over a disk."""

    def make(disk):
        queue = deque()
        return Files(disk, queue.append), queue

    return make
