"""The disk port in virtual time: latencies, order, errors; what the bytes do is in media.py.

Operations on one file take effect in the order of the calls, those on different files in any. What was
under way when the process dies is done up to some point, a write perhaps in part. A host has one disk;
each process reaches it through a handle of its own, which goes deaf when the process ends.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any, Final

import attrs

from flussd.core.files import DiskError
from flussd.core.ports import Buffers, Done, ListDone, ReadDone
from flussd.runtime_sim.draws import Stream
from flussd.runtime_sim.media import Media, folder_of
from flussd.runtime_sim.world import MS, World

LATENCY_US: Final = {
    "write": (10, 3 * MS),
    "read": (20, 4 * MS),
    "read_later": (20, 4 * MS),
    "sync": (300, 25 * MS),
    "sync_folder": (200, 15 * MS),
    "truncate": (20, 2 * MS),
    "rename": (20, 2 * MS),
    "remove": (20, 4 * MS),
    "list": (50, 5 * MS),
}
"""Least and most; most operations are nearer to the least."""

REFUSED_READ_ONLY: Final = frozenset({"write", "rename", "remove"})
"""What changes the names of a folder, with a write to a file that is not there."""


class Fate(enum.Enum):
    """How an operation takes effect."""

    WHOLE = "as it was asked"
    TORN = "in part: the process died meanwhile"


@attrs.define(eq=False, repr=False)
class Operation:
    """One operation on its way; *do* makes it take effect, torn or whole, and returns its result."""

    kind: str
    paths: tuple[str, ...]
    do: Callable[[DiskError | None, Fate], tuple[Any, ...]]
    done: Callable[..., None]
    end: int = 0  # of a write


@attrs.define(eq=False, repr=False)
class HostDisk:
    """The disk of one host, and the faults that it has at the moment."""

    world: World
    draws: Stream
    media: Media
    under_way: dict[int, Operation] = attrs.Factory(dict)  # in the order in which they take effect
    errors: dict[str, int] = attrs.Factory(dict)  # kind of operation -> how many will fail
    full_until_us: int = -1
    full_refuses_all: bool = False  # also what overwrites, as where bytes are copied on write
    read_only_until_us: int = -1  # no file can be made, renamed or removed; those there can grow
    slow_until_us: int = -1
    slow_factor: int = 1
    on_hit: dict[str, Callable[[], None]] = attrs.Factory(dict)  # fault -> told when it takes effect
    _busy_until_us: dict[str, int] = attrs.Factory(dict)
    _number: int = 0

    def start(self, operation: Operation, size_bytes: int = 0) -> None:
        """Let *operation* take effect after a while, behind all that came before on its paths."""
        least_us, most_us = LATENCY_US[operation.kind]
        latency_us = self.draws.long_tail(least_us, most_us) + size_bytes // 500
        if self.world.now_us < self.slow_until_us:
            latency_us *= self.slow_factor
            self._hit("slow_disk")
        at_us = self.world.now_us + latency_us
        for path in operation.paths:
            at_us = max(at_us, self._last_on(path, operation.kind) + 1)
        for path in operation.paths:
            self._busy_until_us[path] = at_us
        self._number += 1
        self.under_way[self._number] = operation
        self.world.at(at_us, self._take_effect, self._number)

    def _last_on(self, path: str, kind: str) -> int:
        """Return when the last operation on *path*, what is below it or above it, takes effect."""
        busy = self._busy_until_us
        last = busy.get(path, 0)
        above = path
        while above:  # as deep as the path is
            above = folder_of(above)
            last = max(last, busy.get(above, 0))
        if kind in {"list", "remove"}:  # the only ones whose path may be a folder
            prefix = path + "/" if path else ""
            last = max([last, *[at_us for other, at_us in busy.items() if other.startswith(prefix)]])
        return last

    def _take_effect(self, number: int) -> None:
        operation = self.under_way.pop(number, None)
        if operation is None:
            return  # its process died
        if not self.under_way:
            self._busy_until_us.clear()
        operation.done(*operation.do(self._error_of(operation), Fate.WHOLE))

    def _error_of(self, operation: Operation) -> DiskError | None:
        left = self.errors.get(operation.kind, 0)
        if left > 0:
            self.errors[operation.kind] = left - 1
            self._hit(f"io_{operation.kind}")
            return DiskError.IO
        if operation.kind == "write" and self.world.now_us < self.full_until_us:
            inode = self.media.files.get(operation.paths[0])
            if self.full_refuses_all or inode is None or operation.end > len(inode.content):
                self._hit("disk_full")
                return DiskError.FULL
        names_change = operation.kind != "write" or operation.paths[0] not in self.media.files
        read_only = operation.kind in REFUSED_READ_ONLY and self.world.now_us < self.read_only_until_us
        if read_only and names_change:
            self._hit("read_only")
            return DiskError.DENIED
        return None

    def _hit(self, fault: str) -> None:
        if fault in self.on_hit:
            self.on_hit[fault]()

    def end_process(self) -> None:
        """The process died: some of what was under way is done, one write perhaps in part."""
        numbers = sorted(self.under_way)
        done_count = self.draws.below(len(numbers) + 1)
        for n, number in enumerate(numbers):
            operation = self.under_way.pop(number)
            if n < done_count:
                operation.do(None, Fate.WHOLE)
            elif n == done_count and operation.kind == "write" and self.draws.chance(500_000):
                operation.do(None, Fate.TORN)
        self._busy_until_us.clear()

    def cut_power(self) -> int:
        """The host lost power; return how much that hit."""
        self.end_process()
        self.errors.clear()
        return self.media.cut_power()


@attrs.define(eq=False, repr=False)
class ProcessDisk:
    """The disk port of one process."""

    host: HostDisk
    enter: Callable[..., None]  # calls into the process, while it lives
    run: Callable[[], None] = lambda: None  # the driver's: delivers what completions queued

    def _start(
        self,
        kind: str,
        paths: tuple[str, ...],
        do: Callable[[DiskError | None, Fate], tuple[Any, ...]],
        done: Callable[..., None],
        size_bytes: int = 0,
        end: int = 0,
    ) -> None:
        def ended(*result: Any) -> None:
            self.enter(self._ended, done, result)

        self.host.start(Operation(kind, paths, do, ended, end), size_bytes)

    def _ended(self, done: Callable[..., None], result: tuple[Any, ...]) -> None:
        done(*result)
        self.run()

    def write(self, file: str, position: int, views: Buffers, done: Done) -> None:
        """Write at *position*, creating the file and its folders; *views* are free on return."""
        data = b"".join(views)
        media, draws = self.host.media, self.host.draws

        def do(error: DiskError | None, fate: Fate) -> tuple[DiskError | None]:
            if error is DiskError.DENIED:
                return (error,)
            part = data[: draws.below(len(data) + 1)] if fate is Fate.TORN or error is not None else data
            if part or error is None:
                media.open(file).write(position, part)
            return (error,)

        self._start("write", (file,), do, done, len(data), position + len(data))

    def read(self, file: str, position: int, size_bytes: int, done: ReadDone) -> None:
        """Read up to *size_bytes*; short only at the end of the file."""
        self._read("read", file, position, size_bytes, done)

    def read_later(self, file: str, position: int, size_bytes: int, done: ReadDone) -> None:
        """Read as `read` does; errors that are meant for reads spare it."""
        self._read("read_later", file, position, size_bytes, done)

    def _read(self, kind: str, file: str, position: int, size_bytes: int, done: ReadDone) -> None:
        def do(error: DiskError | None, _: Fate) -> tuple[bytes, DiskError | None]:
            inode = self.host.media.files.get(file)
            if error is None and inode is None:
                error = DiskError.MISSING
            if error is not None or inode is None:
                return b"", error
            return bytes(inode.content[position : position + size_bytes]), None

        self._start(kind, (file,), do, done, size_bytes)

    def sync(self, file: str, done: Done) -> None:
        """Make the bytes of *file* durable, as far as written before this call."""

        def do(error: DiskError | None, _: Fate) -> tuple[DiskError | None]:
            inode = self.host.media.files.get(file)
            if inode is None:
                return (DiskError.MISSING,)
            if error is None:
                inode.sync()
            else:
                inode.fail_sync(self.host.draws)
            return (error,)

        self._start("sync", (file,), do, done)

    def sync_folder(self, folder: str, done: Done) -> None:
        """Make the names in *folder* durable."""

        def do(error: DiskError | None, _: Fate) -> tuple[DiskError | None]:
            if error is None:
                self.host.media.sync_folder(folder)
            return (error,)

        self._start("sync_folder", (folder + "/.",), do, done)

    def truncate(self, file: str, size_bytes: int, done: Done) -> None:
        """Cut *file*."""

        def do(error: DiskError | None, _: Fate) -> tuple[DiskError | None]:
            inode = self.host.media.files.get(file)
            if error is None and inode is None:
                error = DiskError.MISSING
            if error is None and inode is not None:
                inode.truncate(size_bytes)
            return (error,)

        self._start("truncate", (file,), do, done)

    def rename(self, old: str, new: str, done: Done) -> None:
        """Give *old* the name *new* in one step, replacing what had it."""

        def do(error: DiskError | None, _: Fate) -> tuple[DiskError | None]:
            media = self.host.media
            if error is None and old not in media.files:
                error = DiskError.MISSING
            if error is None:
                media.rename(old, new)
            return (error,)

        self._start("rename", (old, new), do, done)

    def remove(self, path: str, done: Done) -> None:
        """Remove a file, or a folder with all in it; a missing one is no error."""

        def do(error: DiskError | None, _: Fate) -> tuple[DiskError | None]:
            if error is None:
                self.host.media.remove(path)
            return (error,)

        self._start("remove", (path,), do, done)

    def list(self, folder: str, done: ListDone) -> None:
        """List all files below *folder* with their sizes, sorted by path."""

        def do(error: DiskError | None, _: Fate) -> tuple[Any, DiskError | None]:
            files = self.host.media.files
            if error is not None:
                return (), error
            return tuple((file, len(files[file].content)) for file in self.host.media.below(folder)), None

        self._start("list", (folder,), do, done)
