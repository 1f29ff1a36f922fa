"""What a request does to the tree, the sessions and the watches, and what is to be said about it.

The registry without its disk: `execute` returns what must be durable before anything in `said` may leave.
It must never look at a clock or a file. Its caller owes it requests in the order in which they came.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Final, TypeAlias

import attrs

from flussd.core.registry import messages as m
from flussd.core.registry.changes import Changes, NodeDeleted, SessionClosed, SessionOpened, encode_changes
from flussd.core.registry.messages import Answer, GetChildren, GetData, Multi, Outcome
from flussd.core.registry.multi import TRANSACTION_BYTES_MAX, execute, read, size_bytes_of
from flussd.core.registry.session import Sessions
from flussd.core.registry.tree import Tree
from flussd.core.registry.watches import Watches

_ZXID_BITS: Final = 40
"""Session ids are chance above, and the zxid that opened them below: unique, also across directories."""

SESSION_TIMEOUT_MS_MAX: Final = 24 * 3600 * 1000
"""Nobody is taken for alive after a day of silence, whatever it asked for."""

CHANGE_BYTES: Final = 32
"""More than a change needs in the log besides its path and data, and than a transaction does."""

_CHANCE_MASK: Final = (1 << 63 - _ZXID_BITS) - 1


@attrs.frozen
class SessionTimedOut:
    """Our own note among what waits: the deadline of *session_id* has passed."""

    session_id: int


Request: TypeAlias = (
    m.SessionRequested | m.SessionEnded | m.LinkLost | m.OperationReceived | SessionTimedOut
)


@attrs.define(eq=False)
class Service:
    """Change it through its methods alone; *said* is emptied by its owner."""

    tree: Tree = attrs.Factory(Tree)
    sessions: Sessions = attrs.Factory(Sessions)
    watches: Watches = attrs.Factory(Watches)
    said: list[m.AnswerOperation | m.AnswerSession | m.FireWatch] = attrs.Factory(list)
    chance: int = 0
    now_ms: int = 0

    def recovered(self, tree: Tree, now_ms: int) -> None:
        """Go on from *tree*; each of its sessions has its whole timeout from now on."""
        self.tree = tree
        self.sessions = Sessions()
        for session_id, timeout_ms in sorted(tree.sessions.items()):
            self.sessions.open(session_id, timeout_ms, now_ms)

    def hear(self, event: Request | m.SessionHeard, now_ms: int) -> None:
        """Note a sign of life, which does not wait for its turn."""
        match event:
            case m.OperationReceived(link):
                self.sessions.heard(self.sessions.at(link), now_ms)
            case m.SessionRequested(_, session_id) | m.SessionHeard(session_id):
                self.sessions.heard(self.sessions.by_id.get(session_id), now_ms)

    def need_bytes(self, request: Request) -> int:
        """Return how large the transaction of *request* may be at most; 0 when it changes nothing."""
        match request:
            case m.OperationReceived(_, _, Multi() as multi):
                need_bytes = size_bytes_of(multi)
                return CHANGE_BYTES + need_bytes if need_bytes <= TRANSACTION_BYTES_MAX else 0
            case m.SessionRequested(_, 0):
                return 2 * CHANGE_BYTES
            case m.SessionEnded(session_id) | SessionTimedOut(session_id):
                paths = self.tree.owned.get(session_id, {})
                return 2 * CHANGE_BYTES + sum(CHANGE_BYTES + len(path.encode()) for path in paths)
        return 0

    def execute(self, request: Request, now_ms: int) -> bytes:
        """Do *request*; return the transaction that must be made durable, empty when nothing changed."""
        self.now_ms = now_ms
        changes = self.EXECUTE[type(request)](self, request)
        return encode_changes(changes) if changes else b""

    # ---- operations -------------------------------------------------------------------------------

    def _operation(self, event: m.OperationReceived) -> Changes:
        session = self.sessions.at(event.link)
        changes: Changes = ()
        if session is None:
            answer = Answer(Outcome.SESSION_EXPIRED)
        elif session.link != event.link:
            answer = Answer(Outcome.UNKNOWN)  # it speaks through another link now
        elif isinstance(event.operation, Multi):
            answer, changes = execute(self.tree, event.operation, session.session_id, self.tree.zxid + 1)
            self._fire(changes)
        else:
            answer = self._read(session.session_id, event.operation)
        self.said.append(m.AnswerOperation(event.link, event.xid, answer))
        return changes

    def _read(self, session_id: int, operation: GetData | GetChildren) -> Answer:
        answer = read(self.tree, operation)
        if operation.watch and isinstance(operation, GetData):
            self.watches.add_data(session_id, operation.path)
        elif operation.watch and answer.outcome is Outcome.OK:
            self.watches.add_children(session_id, operation.path)
        return answer

    def _fire(self, changes: Changes) -> None:
        for change in changes:
            for session_id, path, changed in self.watches.fire(change):
                link = self.sessions.by_id[session_id].link
                assert link is not None, "watches go with the link"
                self.said.append(m.FireWatch(link, path, changed))

    # ---- sessions ---------------------------------------------------------------------------------

    def _request(self, event: m.SessionRequested) -> Changes:
        session_id = event.session_id
        changes: Changes = ()
        if session_id == 0:
            session_id, changes = self._open(min(max(1, event.timeout_ms), SESSION_TIMEOUT_MS_MAX))
        elif session_id not in self.sessions.by_id:
            self.said.append(m.AnswerSession(event.link, 0))
            return ()
        self.watches.drop(session_id)
        self._detach(event.link)
        self.sessions.attach(session_id, event.link)
        self.said.append(m.AnswerSession(event.link, session_id))
        return changes

    def _open(self, timeout_ms: int) -> tuple[int, Changes]:
        zxid = self.tree.zxid + 1
        assert zxid < 1 << _ZXID_BITS
        session_id = (self.chance & _CHANCE_MASK) << _ZXID_BITS | zxid
        self.sessions.open(session_id, timeout_ms, self.now_ms)
        return session_id, self._apply((SessionOpened(session_id, timeout_ms),))

    def _end(self, event: m.SessionEnded | SessionTimedOut) -> Changes:
        session_id = event.session_id
        if session_id not in self.sessions.by_id:
            return ()  # ended twice
        self.watches.drop(session_id)
        link = self.sessions.close(session_id)
        paths = self.tree.owned.get(session_id, {})
        changes = self._apply((*map(NodeDeleted, paths), SessionClosed(session_id)))
        if link is not None:
            self.said.append(m.AnswerSession(link, 0))
        return changes

    def _lose(self, event: m.LinkLost) -> Changes:
        self._detach(event.link)
        return ()

    def _detach(self, link: int) -> None:
        session_id = self.sessions.detach(link)
        if session_id:
            self.watches.drop(session_id)

    def _apply(self, changes: Changes) -> Changes:
        zxid = self.tree.zxid + 1
        for change in changes:
            self.tree.apply(change, zxid)
        self.tree.zxid = zxid
        self._fire(changes)
        return changes

    # ---- copies -----------------------------------------------------------------------------------

    def clone(self) -> Service:
        """Return a copy that shares nothing that changes."""
        copies = (self.tree.clone(), self.sessions.clone(), self.watches.clone())
        return Service(*copies, list(self.said), self.chance, self.now_ms)

    def state(self) -> tuple[object, ...]:
        """Return what a digest must cover."""
        return (self.tree.digest(), self.sessions.state(), self.watches.state(), self.said, self.chance)

    def check_all(self) -> None:
        """Assert that the parts agree."""
        self.tree.check_all()
        self.sessions.check_all()
        self.watches.check_all()
        assert sorted(self.tree.sessions) == sorted(self.sessions.by_id)
        assert all(self.sessions.by_id[session_id].link is not None for session_id in self.watches.held)

    EXECUTE: ClassVar[dict[type[Request], Callable[[Service, Any], Changes]]] = {
        m.SessionRequested: _request,
        m.SessionEnded: _end,
        SessionTimedOut: _end,
        m.LinkLost: _lose,
        m.OperationReceived: _operation,
    }
