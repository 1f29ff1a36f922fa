"""The registry: one machine that holds the tree, answers sessions, and makes every change durable.

Group commit: while no sync is on its way, everything that waits is executed in order against the tree,
written as one record and synced; all that came of it (answers to reads too, and watch events) is held
until it is durable, and what arrives meanwhile waits. It must never tell anything that a power cut could
take back. A change is executed only when there is room for its record in the log (room.py); when the disk
gives none, it is refused, and all else goes on. When a write fails all the same, the tree is ahead of the
disk: a disk that only refused is asked again until it takes the same bytes, and meanwhile everything waits;
after any other error, and after a failed sync, the process ends: a restart reads the truth. Its caller owes
it the completions of its effects, in any order between files.

A log is born whole, by ReplaceFile with its head, before the first group goes into it: at each start, and
when the one before has grown enough, together with a snapshot. See log.py for what this makes provable.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable
from hashlib import blake2b
from typing import Any, ClassVar, Final, TypeAlias

import attrs

from flussd.core import files as f
from flussd.core.machine import Announce, Fatal, Started, Stopped, StopRequested, WakeAt, Woken
from flussd.core.registry import messages as m
from flussd.core.registry.changes import Corrupt
from flussd.core.registry.log import HEAD_BYTES, encode_group, encode_head, salt_of
from flussd.core.registry.messages import Answer, Outcome
from flussd.core.registry.recovery import Recovery, log_name, snapshot_name
from flussd.core.registry.room import ROOM_BYTES, Room, only_refused
from flussd.core.registry.service import Request, Service, SessionTimedOut
from flussd.core.registry.snapshot import encode_snapshot
from flussd.core.registry.tree import Tree

LOG_BYTES_MAX: Final = 4 * 1024 * 1024
"""Logs larger than this are replaced by a snapshot: they are replayed in about 0.2 s."""

LOG_FILES_MAX: Final = 16
"""More logs than this are replaced as well: each start begins one."""

GROUP_BYTES_MAX: Final = 1024 * 1024
"""A group takes no more operations after this: with one largest transaction, it stays below 2 MiB."""

RETRY_MS: Final = 500
"""Pause before a disk that refused is asked again for what nobody can be refused."""


class Phase(enum.IntEnum):
    """How far the registry is; it only goes forward."""

    NEW = 0
    RECOVERING = 1
    SERVING = 2
    STOPPING = 3
    OVER = 4  # stopped, or failed


class Asked(enum.Enum):
    """Why a file effect was started."""

    LISTING = "list"
    READING = "read"
    OPENING = "start"
    GROUP = "write"
    ROOM = "make room in"
    SNAPSHOT = "write the snapshot"
    CLEANING = "remove"


Completion: TypeAlias = (
    f.FileWritten | f.FileSynced | f.FileRead | f.FileReplaced | f.FileRemoved | f.FolderListed
)


_DIGESTED_APART: Final = frozenset({"service", "recovery", "_effects"})


@attrs.define(eq=False)
class RegistryMachine:
    """Change it through step() alone; its fields are open to readers."""

    log_bytes_max: int = attrs.field(default=LOG_BYTES_MAX, kw_only=True)
    room_bytes: int = attrs.field(default=ROOM_BYTES, kw_only=True)
    phase: Phase = Phase.NEW
    now_ms: int = 0
    service: Service = attrs.Factory(Service)
    waiting: deque[Request] = attrs.Factory(deque)
    asked: dict[int, tuple[Asked, str]] = attrs.Factory(dict)  # token -> why, and which file
    group_count: int = 0  # completions that the group on its way still needs
    record: bytes = b""  # the group on its way
    group_held: bool = False  # the disk refused it; the last that it needs is the alarm, and then all again
    postponed: list[Request] = attrs.Factory(list)  # what nobody can be refused, until there is room
    retry_ms: int = -1  # when the disk is asked again for those two
    trouble: Asked | None = None  # what the disk refused last, and did not do since
    log: str = ""  # the file that groups go into
    log_ready: bool = False  # it is there, and durable; else groups wait
    preparing: bool = False  # it is being made, or gets more room
    log_salt: int = 0
    room: Room = attrs.Factory(Room)  # in the log, for the next group
    log_bytes: int = 0  # of all logs since the last snapshot
    old_files: list[str] = attrs.Factory(list)  # what the next snapshot makes superfluous
    snapshot_due: bool = False  # the log that is being started begins behind a snapshot
    snapshot_zxid: int = -1  # of the snapshot on its way
    recovery: Recovery | None = None
    alarm_ms: int = -1
    _token: int = 0
    _effects: list[Any] = attrs.Factory(list)

    @property
    def tree(self) -> Tree:
        """The tree, which may be ahead of the disk."""
        return self.service.tree

    def step(self, event: Any, now_ms: int) -> list[Any]:
        """Take *event* in at *now_ms*; return the effects, in order."""
        assert now_ms >= self.now_ms, "time runs forward"
        self.now_ms = now_ms
        self.TABLE[type(event)][self.phase](self, event)
        self._set_alarm()
        self.check()
        effects, self._effects = self._effects, []
        return effects

    def check(self) -> None:
        """Assert what holds between any two steps."""
        busy = self.group_count > 0
        assert busy or not self.service.said, "only a group on its way holds anything back"
        if self.phase is Phase.SERVING:
            assert busy or self.preparing or not self.waiting, "nothing waits without a reason"
            assert self.retry_ms >= 0 or not self.postponed, "what is postponed has its time"
            assert self.room.position >= HEAD_BYTES

    def check_all(self) -> None:
        """Assert all that holds between any two steps."""
        self.check()
        self.service.check_all()

    # ---- start ------------------------------------------------------------------------------------

    def _start(self, event: Started) -> None:
        self.phase = Phase.RECOVERING
        self.service.chance = event.chance
        self.recovery = Recovery()
        self._effects.append(f.ListFolder(self._ask(Asked.LISTING, "its folder"), ""))

    def _recover(self, recovery: Recovery, completion: f.FolderListed | f.FileRead) -> None:
        try:
            if isinstance(completion, f.FolderListed):
                wanted = recovery.listed(completion.files)
            else:
                wanted = recovery.read(completion.data)
        except Corrupt as error:
            self._fail(f"registry: {error}")
            return
        if wanted is not None:
            file, size_bytes = wanted
            self._effects.append(f.ReadFile(self._ask(Asked.READING, file), file, 0, max(1, size_bytes)))
            return
        self.service.recovered(recovery.tree, self.now_ms)
        self.old_files = recovery.names
        self.log_bytes = recovery.log_bytes
        self._start_log()

    def _start_log(self) -> None:
        """Start the log for the next group; after recovery it begins with the last group again."""
        last = self.recovery.last_group if self.recovery is not None else None
        first_zxid = last.first_zxid if last is not None else self.tree.zxid + 1
        self.log, self.log_ready, self.preparing = log_name(first_zxid), False, True
        self.old_files = [name for name in self.old_files if name != self.log]
        self.log_salt = salt_of(self.service.chance, first_zxid)
        data = encode_head(self.log_salt, first_zxid)
        if last is not None:
            count = len(last.transactions)
            data += encode_group(self.log_salt, HEAD_BYTES, first_zxid, count, last.body)
        self.room = Room(len(data), len(data) + self.room_bytes)
        token = self._ask(Asked.OPENING, self.log)
        self._effects.append(f.ReplaceFile(token, self.log, data + bytes(self.room_bytes)))

    def _opened(self) -> None:
        self.log_ready, self.preparing = True, False
        self._disk_did(Asked.OPENING)
        if self.phase is Phase.RECOVERING:
            self._recovered()
        if self.snapshot_due:
            self._write_snapshot()
        self._go_on()

    def _recovered(self) -> None:
        assert self.recovery is not None
        self.phase = Phase.SERVING
        self.service.recovered(self.tree, self.now_ms)  # each session gets its whole timeout from now
        if len(self.old_files) >= LOG_FILES_MAX:
            self.log_bytes = max(self.log_bytes, self.log_bytes_max)
        text = f"zxid {self.tree.zxid}, {len(self.tree.nodes)} nodes, cut {self.recovery.cut_bytes} bytes"
        facts = (("zxid", self.tree.zxid), ("cut_bytes", self.recovery.cut_bytes))
        self._effects.append(Announce("recovered", "; ".join([text, *self.recovery.refused]), facts))
        self.recovery = None

    # ---- requests ---------------------------------------------------------------------------------

    def _queue(self, event: Request) -> None:
        self.waiting.append(event)

    def _receive(self, event: Request) -> None:
        """A request is also a sign of life, even if it has to wait."""
        self.service.hear(event, self.now_ms)
        self.waiting.append(event)
        self._go_on()

    def _heard(self, event: m.SessionHeard) -> None:
        self.service.hear(event, self.now_ms)

    def _refuse(self, event: m.OperationReceived) -> None:
        """We are stopping: the client must ask whoever comes after us."""
        self._effects.append(m.AnswerOperation(event.link, event.xid, Answer(Outcome.UNKNOWN)))

    def _woken(self, _: Woken) -> None:
        self.alarm_ms = -1
        if 0 <= self.retry_ms <= self.now_ms:
            self._retry()
        if self.phase is not Phase.SERVING:
            return
        self.waiting.extend(
            SessionTimedOut(session_id) for session_id in self.service.sessions.expire(self.now_ms)
        )
        self._go_on()

    def _set_alarm(self) -> None:
        times = [self.retry_ms] if self.retry_ms >= 0 else []
        if self.phase is Phase.SERVING and (expiry_ms := self.service.sessions.next_ms()) is not None:
            times.append(expiry_ms)
        next_ms = min(times, default=-1)
        if next_ms >= 0 and (self.alarm_ms < 0 or next_ms < self.alarm_ms):
            self.alarm_ms = next_ms
            self._effects.append(WakeAt(next_ms))

    # ---- groups -----------------------------------------------------------------------------------

    def _go_on(self) -> None:
        """Execute what waits, group by group, until one has to be made durable."""
        while self.waiting and self.group_count == 0 and not self.preparing:  # each turn takes one at least
            if self.log_ready and self._roll_due():
                self.snapshot_due = True
                self.old_files.append(self.log)
                self._start_log()
            elif not self._has_room(self.waiting[0]):
                self._make_room(self.service.need_bytes(self.waiting[0]))
            else:
                self._group()
        if self.phase is Phase.STOPPING and self.group_count == 0 and not self.preparing:
            self.phase = Phase.OVER
            self._effects.append(Stopped())

    def _group(self) -> None:
        first_zxid = self.tree.zxid + 1
        transactions: list[bytes] = []
        size_bytes = 0
        while self.waiting and size_bytes < GROUP_BYTES_MAX and self._has_room(self.waiting[0], size_bytes):
            request = self.waiting.popleft()
            if isinstance(request, m.LinkLost):
                self._forget_postponed(request.link)
            transaction = self.service.execute(request, self.now_ms)
            if transaction:
                transactions.append(transaction)
                size_bytes += len(transaction)
        if not transactions:
            self._release()
            return
        count = len(transactions)
        assert self.tree.zxid == first_zxid + count - 1
        body = b"".join(transactions)
        self.record = encode_group(self.log_salt, self.room.position, first_zxid, count, body)
        self.room.used(len(self.record))
        self.log_bytes += len(self.record)
        self._send_group()

    def _send_group(self) -> None:
        self.group_count = 2
        position = self.room.position - len(self.record)
        token = self._ask(Asked.GROUP, self.log)
        self._effects.append(f.WriteFile(token, self.log, position, (self.record,)))
        self._effects.append(f.SyncFile(self._ask(Asked.GROUP, self.log), self.log))

    def _release(self) -> None:
        self._effects += self.service.said
        self.service.said.clear()

    def _group_done(self) -> None:
        self.group_count -= 1
        if self.group_count > 0:
            return
        if self.group_held:
            self.group_count, self.retry_ms = 1, self.now_ms + RETRY_MS
            return
        self.record = b""
        self._disk_did(Asked.GROUP)
        self._release()
        self._go_on()

    # ---- a disk that refuses ----------------------------------------------------------------------

    def _has_room(self, request: Request, before_bytes: int = 0) -> bool:
        """Return whether *request* may be executed, behind *before_bytes* of the same group."""
        need_bytes = self.service.need_bytes(request)
        return not need_bytes or (self.log_ready and self.room.has(before_bytes + need_bytes))

    def _make_room(self, need_bytes: int) -> None:
        """Begin the log again that could not be begun, or lengthen the one that there is."""
        if not self.log_ready:
            self._start_log()
            return
        self.preparing = True
        position, zeros = self.room.missing(need_bytes, self.room_bytes)
        token = self._ask(Asked.ROOM, self.log)
        self._effects.append(f.WriteFile(token, self.log, position, (zeros,)))

    def _room_made(self) -> None:
        self.preparing, self.room.end = False, self.room.asked
        self._disk_did(Asked.ROOM)
        self._go_on()

    def _no_room(self) -> None:
        """Refuse all that waits for it. Nothing of that was executed; what needs no room goes on."""
        self.preparing = False
        waiting, self.waiting = self.waiting, deque()
        for request in waiting:
            if self._has_room(request):
                self.waiting.append(request)
            elif isinstance(request, m.OperationReceived):
                answer = Answer(Outcome.NOT_STORED)
                self._effects.append(m.AnswerOperation(request.link, request.xid, answer))
            else:
                self.postponed.append(request)
        self.retry_ms = self.now_ms + RETRY_MS
        self._go_on()

    def _retry(self) -> None:
        """Ask the disk again."""
        lacks_room = self.trouble in (Asked.ROOM, Asked.OPENING)
        self.retry_ms = self.now_ms + RETRY_MS if lacks_room else -1
        if self.group_held:
            self.group_held = False
            self._send_group()
        self.waiting.extendleft(reversed(self.postponed))
        self.postponed.clear()
        if lacks_room and self.group_count == 0 and not self.preparing:
            self._make_room(self.room_bytes)  # somebody wants to know that all is well again

    def _forget_postponed(self, link: int) -> None:
        """Nobody waits for a session at *link* any more."""
        self.postponed = [
            one for one in self.postponed if not (isinstance(one, m.SessionRequested) and one.link == link)
        ]

    def _in_trouble(self, why: Asked, text: str) -> None:
        if self.trouble is None:
            self._effects.append(Announce("refuses changes", text))
        self.trouble = why

    def _disk_did(self, why: Asked) -> None:
        """It did what it may have refused before; a small group proves nothing of the room for others."""
        if self.trouble is why or (self.trouble is not None and why is not Asked.GROUP):
            self.trouble = None
            self._effects.append(Announce("takes changes again"))

    # ---- snapshots --------------------------------------------------------------------------------

    def _roll_due(self) -> bool:
        grown = self.log_bytes >= self.log_bytes_max and self.room.position > HEAD_BYTES
        return grown and self.snapshot_zxid < 0

    def _write_snapshot(self) -> None:
        """Nothing was executed since the log was started, so the state is the one before its first."""
        assert self.log == log_name(self.tree.zxid + 1)
        self.snapshot_due = False
        self.snapshot_zxid = self.tree.zxid
        self.log_bytes = 0
        file = snapshot_name(self.snapshot_zxid)
        self._effects.append(
            f.ReplaceFile(self._ask(Asked.SNAPSHOT, file), file, encode_snapshot(self.tree))
        )

    def _snapshot_done(self, file: str, error: f.DiskError | None) -> None:
        self.snapshot_zxid = -1
        if error is not None:
            # The logs are all there, and the next one will be tried when they have grown again.
            self._effects.append(Announce("snapshot failed", f"{file}: {error.value}"))
        else:
            for old in self.old_files:
                self._effects.append(f.RemoveFile(self._ask(Asked.CLEANING, old), old))
            self.old_files.clear()
        self.old_files.append(file)
        self._go_on()

    # ---- completions, and the end -----------------------------------------------------------------

    def _ask(self, why: Asked, file: str) -> int:
        self._token += 1
        self.asked[self._token] = (why, file)
        return self._token

    def _completed(self, event: Completion) -> None:
        why, file = self.asked.pop(event.token)
        if why is Asked.SNAPSHOT:
            self._snapshot_done(file, event.error)
        elif why is Asked.CLEANING:
            return  # what could not be removed is found by the next start
        elif event.error is not None:
            self._refused(why, event, f"cannot {why.value} {file}: {event.error.value}")
        elif why is Asked.GROUP:
            self._group_done()
        elif why is Asked.ROOM:
            self._room_made()
        elif why is Asked.OPENING:
            self._opened()
        else:
            assert self.recovery is not None
            assert isinstance(event, f.FolderListed | f.FileRead)
            self._recover(self.recovery, event)

    def _refused(self, why: Asked, event: Completion, text: str) -> None:
        """Tell an error that can be waited for from one after which nothing is known."""
        can_wait = only_refused(event) and self.phase is not Phase.RECOVERING
        if why is not Asked.ROOM and not can_wait:
            self._fail(f"registry: {text}")
            return
        self._in_trouble(why, text)
        if why is Asked.GROUP:
            self.group_held = True
            self._group_done()
        else:
            self._no_room()

    def _fail(self, text: str) -> None:
        """Nothing that was held may be told: a restart finds out what became of it."""
        self.phase = Phase.OVER
        self.service.said.clear()
        self.waiting.clear()
        self.postponed.clear()
        self.group_count, self.group_held, self.retry_ms = 0, False, -1
        self._effects.append(Fatal(text))

    def _stop(self, _: StopRequested) -> None:
        if self.phase is Phase.SERVING:
            self.phase = Phase.STOPPING
            self.postponed.clear()  # sessions end at their timeout, too
            self._go_on()
            return
        self.phase = Phase.OVER  # nothing was begun that a restart would not do again
        for request in self.waiting:
            if isinstance(request, m.OperationReceived):
                self._refuse(request)
        self.waiting.clear()
        self._effects.append(Stopped())

    def _ignore(self, _: Any) -> None:
        """Too early to matter (sessions begin anew when we serve), or too late."""

    def _impossible(self, event: Any) -> None:
        raise AssertionError(f"registry: {event} while {self.phase.name}")

    # ---- copies -----------------------------------------------------------------------------------

    def clone(self) -> RegistryMachine:
        """Return a copy that shares nothing that changes."""
        copy = attrs.evolve(self, service=self.service.clone(), room=attrs.evolve(self.room), effects=[])
        copy.waiting, copy.asked = deque(self.waiting), dict(self.asked)
        copy.old_files, copy.postponed = list(self.old_files), list(self.postponed)
        copy.recovery = self.recovery.clone() if self.recovery is not None else None
        return copy

    def digest(self) -> bytes:
        """Return a digest of the state."""
        rest = attrs.asdict(self, recurse=False, filter=lambda field, _: field.name not in _DIGESTED_APART)
        recovery = self.recovery.state() if self.recovery is not None else None
        parts = (sorted(rest.items()), self.service.state(), recovery)
        return blake2b(repr(parts).encode("utf-8", "surrogatepass"), digest_size=16).digest()

    TABLE: ClassVar[dict[type, tuple[Callable[[RegistryMachine, Any], None], ...]]] = {
        # event              NEW          RECOVERING   SERVING      STOPPING    OVER
        Started:            (_start,      _impossible, _impossible, _impossible, _ignore),
        m.SessionRequested: (_queue,      _queue,      _receive,    _ignore,    _ignore),
        m.SessionHeard:     (_ignore,     _ignore,     _heard,      _ignore,    _ignore),
        m.SessionEnded:     (_queue,      _queue,      _receive,    _ignore,    _ignore),
        m.LinkLost:         (_queue,      _queue,      _receive,    _ignore,    _ignore),
        m.OperationReceived:(_queue,      _queue,      _receive,    _refuse,    _ignore),
        Woken:              (_ignore,     _ignore,     _woken,      _woken,     _ignore),
        f.FolderListed:     (_impossible, _completed,  _impossible, _impossible, _ignore),
        f.FileRead:         (_impossible, _completed,  _impossible, _impossible, _ignore),
        f.FileWritten:      (_impossible, _impossible, _completed,  _completed, _ignore),
        f.FileSynced:       (_impossible, _impossible, _completed,  _completed, _ignore),
        f.FileReplaced:     (_impossible, _completed,  _completed,  _completed, _ignore),
        f.FileRemoved:      (_impossible, _impossible, _completed,  _completed, _ignore),
        StopRequested:      (_stop,       _stop,       _stop,       _ignore,    _ignore),
    }  # fmt: skip
