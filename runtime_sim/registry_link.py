"""Between a node and the registry, over a network that loses questions and answers.

Behaves as a ZooKeeper client does: the session survives the connection, for its timeout; a question whose
answer did not come is UNKNOWN; that a session has expired is learnt only from the registry, after
reconnecting. It must give every question exactly one answer while its process lives.
"""

from __future__ import annotations

from typing import Any, Final

import attrs

from flussd.core.registry import messages as r
from flussd.runtime_sim.draws import Stream
from flussd.runtime_sim.network import End, Network
from flussd.runtime_sim.processes import Process
from flussd.runtime_sim.world import MS

REGISTRY_ADDRESS: Final = "registry"

SESSION_TIMEOUT_MS: Final = 3_000
"""Short, so that cuts outlast it often enough."""

PING_US: Final = 600 * MS
SILENCE_US: Final = 1_500 * MS
"""Without a word from the registry for this long, the client breaks the connection itself."""

RECONNECT_US: Final = (20 * MS, 400 * MS)


@attrs.frozen
class Question:
    """What travels to the registry: an event of its machine, without the link's number."""

    event: Any


@attrs.frozen
class Pong:
    """The answer to a sign of life."""


@attrs.define(eq=False, repr=False)
class RegistryLink:
    """The registry port of one process, and the receiver of its end of the connection."""

    process: Process
    network: Network
    draws: Stream
    end: End | None = None
    session_id: int = 0
    is_attached: bool = False  # the registry has confirmed our session on this connection
    asked: dict[int, None] = attrs.Factory(dict)  # tokens without an answer, in order
    watches: dict[tuple[str, bool], None] = attrs.Factory(dict)  # path, is for children; not fired yet
    heard_us: int = 0
    _connecting: bool = False

    # ---- the port ------------------------------------------------------------------------------

    def submit(self, token: int, operation: r.Operation) -> None:
        """Ask, or say at once that nobody can be asked."""
        assert token not in self.asked, f"registry link: token {token} is in use"
        self.asked[token] = None
        if self.end is None or not self.is_attached:
            delay_us = self.draws.between(1 * MS, 100 * MS)
            self.network.world.after(delay_us, self._answered, token, r.Answer(r.Outcome.UNKNOWN))
            return
        if isinstance(operation, r.GetData | r.GetChildren) and operation.watch:
            self.watches[operation.path, isinstance(operation, r.GetChildren)] = None
        self.end.send(Question(r.OperationReceived(0, token, operation)))

    # ---- connecting ----------------------------------------------------------------------------

    def open(self) -> None:
        """Connect, and stay connected."""
        self._connect()
        self._ping()

    def _connect(self) -> None:
        if self.process.is_dead or self._connecting or self.end is not None:
            return
        self._connecting = True
        self.network.connect(self.process.node, REGISTRY_ADDRESS, self, self._connected)

    def _connected(self, end: End | None) -> None:
        self._connecting = False
        if self.process.is_dead:
            if end is not None:
                end.abandon()
        elif end is None:
            self._connect_later()
        else:
            self.end, self.heard_us = end, self.network.world.now_us
            self.process.ends[end] = None
            self._ask_session()

    def _connect_later(self) -> None:
        self.network.world.after(self.draws.between(*RECONNECT_US), self._connect)

    def _ask_session(self) -> None:
        assert self.end is not None
        self.end.send(Question(r.SessionRequested(0, self.session_id, SESSION_TIMEOUT_MS)))

    def _ping(self) -> None:
        if self.process.is_dead:
            return
        if self.end is not None:
            if self.network.world.now_us - self.heard_us > SILENCE_US and not self.process.is_paused:
                self.end.close()
                self.lost()
            elif self.session_id and not self.process.is_paused:
                self.end.send(Question(r.SessionHeard(self.session_id)))
        self.network.world.after(PING_US, self._ping)

    # ---- the receiver --------------------------------------------------------------------------

    def lost(self) -> None:
        """The connection is gone: nobody knows what became of the open questions."""
        if self.end is not None:
            self.process.ends.pop(self.end, None)
        self.end, self.is_attached = None, False
        for token in list(self.asked):
            self._answered(token, r.Answer(r.Outcome.UNKNOWN))
        if not self.process.is_dead:
            self._connect_later()

    def received(self, payload: Any) -> None:
        """The registry said something."""
        self.heard_us = self.network.world.now_us
        if isinstance(payload, r.AnswerSession):
            self._session_answered(payload.session_id)
        elif isinstance(payload, r.AnswerOperation):
            self._answered(payload.xid, payload.answer)
        elif isinstance(payload, r.FireWatch):
            self._fired(payload.path, payload.changed)

    def _session_answered(self, session_id: int) -> None:
        if session_id == 0:
            self.session_id, self.is_attached = 0, False
            self.watches.clear()
            self._post(r.RegistrySessionLost())
            if self.end is not None:
                self._ask_session()
            return
        self.is_attached = True
        if session_id != self.session_id:
            self.session_id = session_id
            self._post(r.RegistrySessionOpened(session_id))
            return
        # The watches went with the old connection: the machine reads again, and sets them again.
        watches, self.watches = self.watches, {}
        for path, is_for_children in watches:
            self._post(r.WatchFired(path, r.Changed.CHILDREN if is_for_children else r.Changed.DATA))

    def _fired(self, path: str, changed: r.Changed) -> None:
        self.watches.pop((path, True), None)
        self.watches.pop((path, False), None)
        self._post(r.WatchFired(path, changed))

    def _answered(self, token: int, answer: r.Answer) -> None:
        if token in self.asked:
            del self.asked[token]
            self._post(r.RegistryAnswered(token, answer))

    def _post(self, event: Any) -> None:
        self.process.post(event)


@attrs.define(eq=False, repr=False)
class RegistryDoor:
    """The registry's side: accepts links, and carries what its machine says (its sessions port)."""

    process: Process
    ends: dict[int, End] = attrs.Factory(dict)  # by link
    _link: int = 0

    def accept(self, end: End) -> None:
        """A client connected."""
        self._link += 1
        self.ends[self._link] = end
        self.process.ends[end] = None
        end.receiver = Doorway(self, self._link)

    def _tell(self, link: int, payload: Any) -> None:
        end = self.ends.get(link)
        if end is not None:
            end.send(payload)

    def answer_session(self, link: int, session_id: int) -> None:
        """Tell *link* its session; 0: the one it asked for has expired."""
        self._tell(link, r.AnswerSession(link, session_id))

    def answer(self, link: int, xid: int, answer: r.Answer) -> None:
        """Answer an operation."""
        self._tell(link, r.AnswerOperation(link, xid, answer))

    def fire(self, link: int, path: str, changed: r.Changed) -> None:
        """Tell *link* what a watch saw."""
        self._tell(link, r.FireWatch(link, path, changed))


@attrs.define(eq=False, repr=False)
class Doorway:
    """The receiver of one link at the registry."""

    door: RegistryDoor
    link: int

    def received(self, payload: Question) -> None:
        """A client asked, or gave a sign of life."""
        event = payload.event
        if isinstance(event, r.SessionHeard):
            self.door.ends[self.link].send(Pong())
        else:
            event = attrs.evolve(event, link=self.link)
        self.door.process.post(event)

    def lost(self) -> None:
        """The client is gone."""
        end = self.door.ends.pop(self.link)
        self.door.process.ends.pop(end, None)
        self.door.process.post(r.LinkLost(self.link))
