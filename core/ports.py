"""The outside, as the driver sees it: a handful of methods that both runtimes implement.

Every *done* is called exactly once, at once or later, on the driver's own thread; it only queues.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from flussd.core.files import DiskError
from flussd.core.registry.messages import Answer, Changed, Operation

Done = Callable[[DiskError | None], None]
ReadDone = Callable[[bytes, DiskError | None], None]
ListDone = Callable[[tuple[tuple[str, int], ...], DiskError | None], None]
Buffers = Sequence[memoryview | bytes]


class Disk(Protocol):
    """Files below one folder. Operations on one file take effect in the order of the calls."""

    def write(self, file: str, position: int, views: Buffers, done: Done) -> None:
        """Write at *position*, creating the file and its folders; *views* are free on return."""

    def read(self, file: str, position: int, size_bytes: int, done: ReadDone) -> None:
        """Read up to *size_bytes*; short only at the end of the file."""

    def read_later(self, file: str, position: int, size_bytes: int, done: ReadDone) -> None:
        """Read as `read` does, at some time from now on, when nobody has to wait for it."""

    def sync(self, file: str, done: Done) -> None:
        """Make the bytes of *file* durable, as far as written before this call."""

    def sync_folder(self, folder: str, done: Done) -> None:
        """Make the names in *folder* durable."""

    def truncate(self, file: str, size_bytes: int, done: Done) -> None:
        """Cut *file*."""

    def rename(self, old: str, new: str, done: Done) -> None:
        """Give *old* the name *new* in one step, replacing what had it."""

    def remove(self, path: str, done: Done) -> None:
        """Remove a file, or a folder with all in it; a missing one is no error."""

    def list(self, folder: str, done: ListDone) -> None:
        """List all files below *folder* with their sizes, sorted by path."""


class Network(Protocol):
    """Connections. Frames come in through the driver's methods, each in a mutable buffer."""

    def send(self, connection: int, parts: Buffers) -> None:
        """Send *parts* as one frame or several; they are free on return. A gone one is no error."""

    def close(self, connection: int) -> None:
        """Close; the driver's connection_closed() follows, unless it was gone already."""

    def connect(self, address: str, done: Callable[[int | None], None]) -> None:
        """Open an internal connection; None when refused or not answered in time."""

    def pause(self, connection: int) -> None:
        """Read no more from *connection* until resume."""

    def resume(self, connection: int) -> None:
        """Read from *connection* again."""


class RegistryPort(Protocol):
    """The way of one node's machine to the registry; answers come as events through the driver."""

    def submit(self, token: int, operation: Operation) -> None:
        """Ask; RegistryAnswered with *token* follows exactly once, UNKNOWN when the link broke."""


class Sessions(Protocol):
    """The registry machine's way to its clients."""

    def answer_session(self, link: int, session_id: int) -> None:
        """Tell *link* its session; 0: the one it asked for has expired."""

    def answer(self, link: int, xid: int, answer: Answer) -> None:
        """Answer an operation."""

    def fire(self, link: int, path: str, changed: Changed) -> None:
        """Tell *link* what a watch saw."""


class Clock(Protocol):
    """Time, read once per wake-up, and the one alarm."""

    def now_ms(self) -> int:
        """Return monotonic milliseconds."""

    def wall_ms(self) -> int:
        """Return milliseconds since 1970; may jump."""

    def wake_at(self, at_ms: int) -> None:
        """Call the driver's wake() at *at_ms* or soon after; replaces the earlier alarm."""
