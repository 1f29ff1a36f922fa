"""A tiny node for the registry machine: files that a power cut tears, and links that record."""

from __future__ import annotations

import random
from collections import deque
from typing import Any

import attrs
import pytest

from flussd.core import files as f
from flussd.core.machine import Announce, Fatal, Started, Stopped, WakeAt, Woken
from flussd.core.registry import messages as m
from flussd.core.registry.registry import Phase, RegistryMachine

PIECE_BYTES = 512
SAID = (m.AnswerOperation, m.AnswerSession, m.FireWatch)
FILE_EFFECTS = (f.WriteFile, f.SyncFile, f.ReadFile, f.ReplaceFile, f.RemoveFile, f.ListFolder)


@attrs.define(eq=False)
class ModelFile:
    """One file: what a power cut leaves for certain, what the page cache has, and what still may fall."""

    durable: bytes = b""
    cached: bytes = b""
    dirty: list[tuple[int, int]] = attrs.Factory(list)
    before_last: bytes = b""  # what the page cache had before the last write

    def write(self, position: int, data: bytes) -> None:
        self.before_last = self.cached
        cached = self.cached.ljust(position, b"\0")
        self.cached = cached[:position] + data + cached[position + len(data) :]
        self.dirty.append((position, position + len(data)))

    def sync(self) -> None:
        for start, end in self.dirty:
            durable = self.durable.ljust(start, b"\0")
            self.durable = durable[:start] + self.cached[start:end] + durable[end:]
        self.dirty.clear()

    def cut_power(self, draw: random.Random) -> None:
        """Keep what was synced, and any pieces of the rest, in any state."""
        kept = bytearray(self.durable)
        end = draw.choice(
            (len(self.durable), draw.randint(len(self.durable), len(self.cached)), len(self.cached))
        )
        mood = draw.randrange(4)
        for start in range(0, end, PIECE_BYTES):
            low, high = max(start, len(self.durable)), min(start + PIECE_BYTES, end)
            if low < high:
                fates = (self.cached[low:high], bytes(high - low), draw.randbytes(high - low))
                kept += fates[draw.choice(((0,), (0, 0, 1), (0, 1, 2), (1, 2))[mood])]
        self.durable = self.cached = bytes(kept)
        self.dirty.clear()


@attrs.define(eq=False)
class Node:
    """The machine, its disk, and all that it said; `floor` is the zxid that must survive."""

    log_bytes_max: int = 4 * 1024 * 1024
    room_bytes: int = 64 * 1024
    machine: RegistryMachine = attrs.field(init=False)
    files: dict[str, ModelFile] = attrs.Factory(dict)
    gone: dict[str, ModelFile] = attrs.Factory(dict)  # removed, but perhaps not durably
    shaky: dict[str, ModelFile | None] = attrs.Factory(dict)  # what an undurable replacement replaced
    draw: random.Random | None = None  # decides which file's operation ends next; None: all in order
    pending: deque[Any] = attrs.Factory(deque)
    said: list[Any] = attrs.Factory(list)
    announced: list[Any] = attrs.Factory(list)
    history: dict[int, bytes] = attrs.Factory(dict)  # zxid -> digest of the tree after it
    history_before: dict[int, bytes] = attrs.Factory(dict)  # the same, before the last start
    floor: int = 0
    now_ms: int = 0
    alarm_ms: int | None = None
    starts: int = 0
    last_event: Any = None
    last_effects: list[Any] = attrs.Factory(list)
    fail_next: f.DiskError | None = None  # for the next write or sync that completes
    full: str = ""  # "grow": no file can grow, or be made; "all": nor can bytes be overwritten

    def start(self) -> None:
        """Begin a new process on the same files."""
        self.starts += 1
        self.machine = RegistryMachine(log_bytes_max=self.log_bytes_max, room_bytes=self.room_bytes)
        self.pending.clear()
        self.alarm_ms = None
        self.step(Started(0, "boot", "directory", 0x1234567890ABCDEF * self.starts & (1 << 64) - 1))

    def run(self) -> list[Any]:
        """Complete all that is pending; return what was said since the last call."""
        while self.pending:
            self.complete()
        said, self.said = self.said, []
        return said

    def step(self, event: Any) -> None:
        zxid = self.machine.tree.zxid
        self.last_event, self.last_effects = event, self.machine.step(event, self.now_ms)
        for effect in self.last_effects:
            if isinstance(effect, SAID):
                self.said.append(effect)
                self.floor = max(self.floor, zxid)  # what this step changed is not durable yet
            elif isinstance(effect, WakeAt):
                self.alarm_ms = effect.at_ms
            elif isinstance(effect, FILE_EFFECTS):
                self.pending.append(effect)
                if isinstance(effect, f.WriteFile):
                    file = self.files.setdefault(effect.file, ModelFile())
                    file.write(effect.position, b"".join(effect.views))
            else:
                assert isinstance(effect, Announce | Fatal | Stopped)
                self.announced.append(effect)
        if self.machine.phase is Phase.SERVING:
            self.history[self.machine.tree.zxid] = self.machine.tree.digest()

    def complete(self) -> None:
        """Do the oldest pending effect, or that of any file."""
        at = 0
        if self.draw is not None:
            names = [getattr(effect, "file", "") for effect in self.pending]
            at = self.draw.choice([n for n, name in enumerate(names) if name not in names[:n]])
        effect = self.pending[at]
        del self.pending[at]
        error = None
        if isinstance(effect, f.WriteFile | f.SyncFile | f.ReplaceFile):
            error, self.fail_next = self.fail_next, None
        if error is None and self.is_too_much(effect):
            error = f.DiskError.FULL
        match effect:
            case f.WriteFile():
                if error is not None:
                    self.write_part(effect, self.draw or random.Random(0))
                self.step(f.FileWritten(effect.token, error))
            case f.SyncFile():
                if error is None:
                    self.files[effect.file].sync()
                self.files[effect.file].dirty.clear()  # after an error the kernel takes the pages for clean
                self.step(f.FileSynced(effect.token, error))
            case f.ReplaceFile():
                if error is None:
                    self.replace(effect)
                elif self.draw is not None and self.draw.random() < 0.5:
                    self.replace_for_now(effect)
                self.step(f.FileReplaced(effect.token, error))
            case f.ReadFile():
                data = self.files[effect.file].cached[effect.position :][: effect.size_bytes]
                self.step(f.FileRead(effect.token, data))
            case f.RemoveFile():
                if effect.file in self.files:
                    self.gone[effect.file] = self.files.pop(effect.file)
                self.step(f.FileRemoved(effect.token))
            case f.ListFolder():
                listing = tuple(sorted((name, len(file.cached)) for name, file in self.files.items()))
                self.step(f.FolderListed(effect.token, listing))

    def is_too_much(self, effect: Any) -> bool:
        """Whether a full disk refuses *effect*."""
        if isinstance(effect, f.WriteFile):
            end = effect.position + sum(map(len, effect.views))
            return self.full == "all" or (
                self.full == "grow" and end > len(self.files[effect.file].before_last)
            )
        return bool(self.full) and isinstance(effect, f.ReplaceFile)

    def write_part(self, effect: f.WriteFile, draw: random.Random) -> None:
        """The write got only so far; it is the last one of its file."""
        file = self.files[effect.file]
        data, position = b"".join(effect.views), effect.position
        part = data[: draw.randint(0, len(data))]
        before = file.before_last.ljust(position, b"\0") if part else file.before_last
        file.cached = before[:position] + part + before[position + len(part) :]
        file.dirty = [
            (start, min(end, len(file.cached))) for start, end in file.dirty if start < len(file.cached)
        ]

    def replace(self, effect: f.ReplaceFile) -> None:
        self.gone.pop(effect.file, None)
        self.shaky.pop(effect.file, None)
        self.files[effect.file] = ModelFile(effect.data, effect.data)

    def replace_for_now(self, effect: f.ReplaceFile) -> None:
        """Replace, but let a power cut take it back."""
        before = self.shaky.get(effect.file, self.files.get(effect.file))
        self.replace(effect)
        self.shaky[effect.file] = before

    def kill(self, draw: random.Random) -> None:
        """End the process: the page cache lives on, and what was asked may yet have been done."""
        for effect in self.pending:
            if isinstance(effect, f.WriteFile) and draw.random() < 0.3:
                self.write_part(effect, draw)
            if isinstance(effect, f.ReplaceFile) and draw.random() < 0.5:
                self.replace_for_now(effect)
        self.pending.clear()

    def cut_power(self, draw: random.Random) -> None:
        self.kill(draw)
        for name, file in sorted(self.gone.items()):
            if draw.random() < 0.3 and name not in self.files:
                self.files[name] = file
        self.gone.clear()
        for name, before in sorted(self.shaky.items()):
            if name in self.files and draw.random() < 0.5:
                del self.files[name]
                if before is not None:
                    self.files[name] = before
        self.shaky.clear()
        for _, file in sorted(self.files.items()):
            file.cut_power(draw)

    def advance(self, ms: int) -> None:
        """Let *ms* pass, ringing the alarm when it is due."""
        end_ms = self.now_ms + ms
        while self.alarm_ms is not None and self.alarm_ms <= end_ms:
            self.now_ms, self.alarm_ms = max(self.now_ms, self.alarm_ms), None
            self.step(Woken())
        self.now_ms = end_ms

    def open(self, link: int, timeout_ms: int = 1000) -> int:
        """Open a session at *link*; return its id."""
        self.step(m.SessionRequested(link, 0, timeout_ms))
        (answer,) = self.run()
        assert isinstance(answer, m.AnswerSession)
        return answer.session_id

    def ask(self, link: int, operation: m.Operation, xid: int = 0) -> m.Answer:
        """Ask, and wait; return the answer, which must be the last thing said."""
        self.step(m.OperationReceived(link, xid, operation))
        said = self.run()
        assert isinstance(said[-1], m.AnswerOperation)
        self.said = said[:-1]
        return said[-1].answer

    def do(self, link: int, *writes: m.Write) -> m.Answer:
        """Ask for one multi."""
        return self.ask(link, m.Multi(writes))


@pytest.fixture(scope="session")
def make_node() -> type[Node]:
    """The class, for tests that need many."""
    return Node


@pytest.fixture
def node() -> Node:
    """A node that has started on an empty folder."""
    fresh = Node()
    fresh.start()
    fresh.run()
    return fresh
