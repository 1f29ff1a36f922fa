"""Reading ahead: what a reader will ask for next is at hand before it asks.

A reader of a log asks for what follows its last answer, and waits while that is read. Its bytes are
held here for the moment, one span for each place where a reader stands. A reader that waits at the end
asks for what is just being written: small writes are held until the run of the driver in which they
ended is over. Whatever changes a file makes it forgotten, so that an answer never has what the file no
longer has. Part of the driver's side: used by storage.py, which tells of writes and changes, and by the
driver, which reads spans through it.
"""

from __future__ import annotations

from typing import TypeAlias

import attrs

from flussd.core.files import DiskError
from flussd.core.limits import AHEAD_BYTES_MAX, AHEAD_BYTES_MIN, AHEAD_HELD_BYTES, FRESH_BYTES_MAX
from flussd.core.ports import Buffers, Disk, ReadDone

Place: TypeAlias = tuple[str, int]  # file, position


@attrs.define(eq=False)
class ReadAhead:
    """Spans read before they are asked for; at most AHEAD_HELD_BYTES, the oldest files' go first."""

    disk: Disk
    least_bytes: int = AHEAD_BYTES_MIN  # of an answer that makes us read on
    held_bytes: int = 0
    _held: dict[str, dict[int, bytes]] = attrs.Factory(dict)  # file -> position -> what was there
    _reading: dict[Place, object] = attrs.Factory(dict)  # on their way, each with its own mark
    _writing: dict[Place, bytes] = attrs.Factory(dict)  # small writes on their way
    _fresh: dict[Place, bytes] = attrs.Factory(dict)  # those that ended in this run

    def read(self, file: str, position: int, size_bytes: int, done: ReadDone) -> None:
        """Read as the disk does, but give at once what is held; it is held no more then."""
        if self._fresh:
            fresh = self._fresh.get((file, position), b"")
            if len(fresh) >= size_bytes:
                done(fresh[:size_bytes], None)
                return
        self._reading.pop((file, position), None)  # it comes too late: this read will not wait for it
        if file not in self._held:
            self.disk.read(file, position, size_bytes, done)
            return
        head = self._take(file, position)
        if len(head) >= size_bytes:
            done(head[:size_bytes], None)
            return

        def rest_read(rest: bytes, error: DiskError | None) -> None:
            done(b"" if error is not None else head + rest if head else rest, error)

        self.disk.read(file, position + len(head), size_bytes - len(head), rest_read)

    def goes_on(self, file: str, position: int, size_bytes: int) -> None:
        """A reader got *size_bytes* that end at *position*: read about as much of what follows."""
        place = file, position
        if size_bytes < self.least_bytes or place in self._reading or position in self._held.get(file, ()):
            return
        mark = self._reading[place] = object()

        def came(data: bytes, error: DiskError | None) -> None:
            if self._reading.get(place) is mark:
                del self._reading[place]
                if data and error is None:  # else the reader asks the disk itself, and hears of it
                    self._hold(file, position, data)

        self.disk.read_later(file, position, min(size_bytes, AHEAD_BYTES_MAX), came)

    def writes(self, place: Place, views: Buffers) -> bytes:
        """Copy a small write that begins, for `wrote`; nothing of a large one."""
        if sum(map(len, views)) > FRESH_BYTES_MAX:
            return b""
        data = self._writing[place] = b"".join(views)
        return data

    def wrote(self, place: Place, data: bytes, error: DiskError | None) -> None:
        """The write that gave *data* ended: who asks for it before `run_ended` gets it from here."""
        if self._writing.get(place) is data:
            del self._writing[place]
            if error is None:
                self._fresh[place] = data

    def run_ended(self) -> None:
        """Everybody who waited for what was written has asked for it."""
        if self._fresh:
            self._fresh.clear()

    def changed(self, file: str, position: int) -> None:
        """Forget what is held of *file* behind *position*: it is about to be written or cut."""
        if self._writing or self._fresh:
            for written in (self._writing, self._fresh):
                for place, data in list(written.items()):
                    if place[0] == file and place[1] + len(data) > position:
                        del written[place]
        if self._reading:
            for place in [place for place in self._reading if place[0] == file]:
                del self._reading[place]
        if file in self._held:
            ends = {at: at + len(data) for at, data in self._held[file].items()}
            for at in [at for at, end in ends.items() if end > position]:
                self._take(file, at)

    def changed_below(self, folder: str) -> None:
        """Forget all that is held of files below *folder*: it is about to be removed."""
        prefix = folder + "/"
        places = (*self._reading, *self._writing, *self._fresh)
        for file in [*self._held, *(file for file, _ in places)]:
            if file.startswith(prefix):
                self.changed(file, 0)

    def _hold(self, file: str, position: int, data: bytes) -> None:
        while self._held and self.held_bytes + len(data) > AHEAD_HELD_BYTES:
            oldest = next(iter(self._held))
            self._take(oldest, next(iter(self._held[oldest])))
        held = self._held.pop(file, {})  # and in again: now it is the newest
        held[position] = data
        self._held[file] = held
        self.held_bytes += len(data)

    def _take(self, file: str, position: int) -> bytes:
        held = self._held[file]
        data = held.pop(position, b"")
        self.held_bytes -= len(data)
        if not held:
            del self._held[file]
        return data
