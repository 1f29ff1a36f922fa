"""Between the embedded registry and the nodes of the same process: sessions, questions, watches.

Everything is put off to the hub's queue, so that neither driver is ever called from within the other.
There is no network that could lose anything: an answer is UNKNOWN only when the registry has stopped.
The caller owes it: `open` once the registry is ready, and `close` at a node's orderly end.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

import attrs

from flussd.core.driver import Driver
from flussd.core.registry.messages import (
    Answer,
    Changed,
    LinkLost,
    Operation,
    OperationReceived,
    Outcome,
    RegistryAnswered,
    RegistrySessionLost,
    RegistrySessionOpened,
    SessionEnded,
    SessionHeard,
    SessionRequested,
    WatchFired,
)
from flussd.runtime_real.hub import Hub

SESSION_TIMEOUT_MS: Final = 20_000
"""A node shares the registry's process: only a machine that is stuck can miss it."""

HEARD_EVERY_MS: Final = SESSION_TIMEOUT_MS // 3
"""Two may be late before a session is lost."""


@attrs.define(eq=False)
class RegistryLink:
    """The registry port of one node; *number* names the link to the registry's machine."""

    number: int
    hub: Hub
    registry: Driver
    node: Driver = attrs.field(init=False)
    session_id: int = 0  # 0: there is none
    is_open: bool = False
    operations: Counter[str] = attrs.Factory(Counter)  # by kind, since the start
    _asked: dict[int, None] = attrs.Factory(dict)  # tokens that wait for an answer, in order

    # ---- the node's side -----------------------------------------------------------------------

    def open(self) -> None:
        """Ask for a session, and keep it alive from then on."""
        self.is_open = True
        self._tell(SessionRequested(self.number, 0, SESSION_TIMEOUT_MS))
        self._hear()

    def close(self) -> None:
        """End the session in order: what the node registered for itself goes at once."""
        if not self.is_open:
            return
        self.is_open = False
        if self.session_id:
            self._tell(SessionEnded(self.session_id))
        self._tell(LinkLost(self.number))

    def submit(self, token: int, operation: Operation) -> None:
        """Ask; the token is what pairs the answer, on both sides."""
        assert token not in self._asked, f"token {token} is in use"
        self._asked[token] = None
        self.operations[type(operation).__name__] += 1
        if self.registry.halted or not self.is_open:
            self.hub.soon(self._answered, token, Answer(Outcome.UNKNOWN))
        else:
            self._tell(OperationReceived(self.number, token, operation))

    @property
    def waiting_count(self) -> int:
        """Operations that were not answered yet."""
        return len(self._asked)

    # ---- the registry's side, called by the hub ------------------------------------------------

    def session_answered(self, session_id: int) -> None:
        """Take a session in, or the loss of ours: then ask for a new one."""
        if session_id:
            self.session_id = session_id
            self._post(RegistrySessionOpened(session_id))
            return
        self.session_id = 0
        self._post(RegistrySessionLost())
        if self.is_open:
            self._tell(SessionRequested(self.number, 0, SESSION_TIMEOUT_MS))

    def answered(self, token: int, answer: Answer) -> None:
        """Take the answer to an operation in."""
        self._answered(token, answer)

    def fired(self, path: str, changed: Changed) -> None:
        """Take in what a watch saw."""
        self._post(WatchFired(path, changed))

    # ---- inside --------------------------------------------------------------------------------

    def _answered(self, token: int, answer: Answer) -> None:
        if token in self._asked:
            del self._asked[token]
            self._post(RegistryAnswered(token, answer))

    def _hear(self) -> None:
        if not self.is_open or self.registry.halted:
            return
        if self.session_id:
            self._tell(SessionHeard(self.session_id))
        self.hub.call_at(self.hub.time.now_ms + HEARD_EVERY_MS, self._hear)

    def _tell(self, event: object) -> None:
        self.hub.soon(_deliver, self.registry, event)

    def _post(self, event: object) -> None:
        _deliver(self.node, event)


@attrs.define(eq=False)
class RegistrySessions:
    """The sessions port of the registry's driver: the links of all nodes by number."""

    hub: Hub
    links: dict[int, RegistryLink] = attrs.Factory(dict)

    def answer_session(self, link: int, session_id: int) -> None:
        """Tell *link* its session; 0: the one it asked for has expired."""
        if link in self.links:
            self.hub.soon(self.links[link].session_answered, session_id)

    def answer(self, link: int, xid: int, answer: Answer) -> None:
        """Answer an operation."""
        if link in self.links:
            self.hub.soon(self.links[link].answered, xid, answer)

    def fire(self, link: int, path: str, changed: Changed) -> None:
        """Tell *link* what a watch saw."""
        if link in self.links:
            self.hub.soon(self.links[link].fired, path, changed)


def _deliver(driver: Driver, event: object) -> None:
    if not driver.halted:
        driver.post(event)
        driver.run()
