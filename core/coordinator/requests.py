"""What clients asked of the coordinator and were not answered yet, and how each is answered.

DDL requests queue for the pipeline, one proposed at a time; once applied, they wait until the tablet
servers know (a client that asks a tablet server right after a creation does not ask twice). Read-only
requests wait only for a leader, or while the coordinator loads. All waiting is bounded.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import attrs

from flussd.core.catalog import answers
from flussd.core.connections import CloseConnection, Reply, ReplyError, RequestReceived
from flussd.core.coordinator import producer_offsets, rebalance
from flussd.core.coordinator.ddl import Ddl
from flussd.core.coordinator.proposals import Proposal
from flussd.core.coordinator.state import State
from flussd.core.limits import LEADERLESS_HOLD_MS
from flussd.core.records.refusal import Refused
from flussd.core.wire.apis import ApiKey
from flussd.core.wire.errors import ErrorCode

if TYPE_CHECKING:
    from flussd.core.coordinator.coordinator import Coordinator

QUESTIONS: Final[dict[int, Callable[[State, Any, int], Any]]] = {
    ApiKey.GET_PRODUCER_OFFSETS: producer_offsets.get,
    ApiKey.LIST_REBALANCE_PROGRESS: rebalance.progress,
    ApiKey.CANCEL_REBALANCE: rebalance.cancel,
}
"""Answered at once, from what only the coordinator knows; called with the wall time."""

DDL_QUEUE_MAX: Final = 1000
"""DDL requests that wait for their turn: some seconds of work for the registry."""

DDL_WAIT_MS: Final = 5_000
"""How long a DDL answer waits for the tablet servers; then it is true all the same."""

HELD_MAX: Final = 10_000
"""Read-only requests held at a time; beyond it they are answered at once."""

LOADING_HOLD_MS: Final = 5_000
"""How long requests wait for a coordinator that is starting."""


@attrs.define(eq=False)
class Wait:
    """A DDL request that was applied: its answer waits for the tablet servers."""

    ddl: Ddl
    deadline_ms: int
    number: int = -1  # the change that they must have confirmed; -1: bucket records are still made


@attrs.define(eq=False)
class Held:
    """A request that waits: for a leader, or for us."""

    event: RequestReceived
    deadline_ms: int


@attrs.define(eq=False)
class Requests:
    """All unanswered requests, in the order in which they came."""

    owner: Coordinator
    queue: deque[Ddl] = attrs.Factory(deque)
    current: Ddl | None = None  # proposed, and not known to be applied or not
    waits: dict[int, Wait] = attrs.Factory(dict)  # by the DDL's serial
    held: dict[int, Held] = attrs.Factory(dict)
    _serial: int = 0

    # ---- coming in -----------------------------------------------------------------------------

    def received(self, event: RequestReceived) -> None:
        """A request for the active coordinator."""
        if event.api_key in Ddl.HANDLERS:
            self._queue(event)
        elif event.api_key not in answers.ANSWERED and event.api_key not in QUESTIONS:
            text = f"API key {event.api_key} is not served by the coordinator"
            self._refuse(event, ErrorCode.UNSUPPORTED_VERSION, text)
        elif not self._answer(event, final=len(self.held) >= HELD_MAX):
            self._hold(event, LEADERLESS_HOLD_MS)

    def hold(self, event: RequestReceived) -> None:
        """A request for a coordinator that is starting."""
        if len(self.held) < HELD_MAX:
            self._hold(event, LOADING_HOLD_MS)
        else:
            self.refuse_as_inactive(event)

    def _hold(self, event: RequestReceived, wait_ms: int) -> None:
        self._serial += 1
        self.held[self._serial] = Held(event, self.owner.now_ms + wait_ms)

    def refuse_as_inactive(self, event: RequestReceived) -> None:
        """A request that only an active coordinator may answer."""
        text = f"this coordinator is {self.owner.role.name.lower()}"
        self._refuse(event, ErrorCode.NOT_COORDINATOR_LEADER_EXCEPTION, text)

    def _queue(self, event: RequestReceived) -> None:
        if len(self.queue) >= DDL_QUEUE_MAX:
            text = f"{DDL_QUEUE_MAX} changes of the catalog wait already"
            self._refuse(event, ErrorCode.UNKNOWN_SERVER_ERROR, text)
            return
        self._serial += 1
        self.queue.append(
            Ddl(
                self._serial,
                event.connection,
                event.request_id,
                event.api_key,
                event.message,
                event.wall_ms,
            )
        )

    # ---- answers -------------------------------------------------------------------------------

    def _answer(self, event: RequestReceived, *, final: bool) -> bool:
        """Answer a read-only request; return False when it is worth waiting, unless *final*."""
        state = self.owner.state
        try:
            if event.api_key in QUESTIONS:
                message = QUESTIONS[event.api_key](state, event.message, self.owner.wall_now_ms)
                self._reply(event, message)
                return True
            answer = answers.answer(state.catalog, event.api_key, event.message, event.client)
        except Refused as refused:
            self._refuse(event, refused.code, refused.text)
            return True
        if answer.leaderless and not final:
            return False
        self._reply(event, answer.message)
        return True

    def _reply(self, to: RequestReceived | Ddl, message: Any) -> None:
        if to.connection in self.owner.connections:
            self.owner.emit(Reply(to.connection, to.request_id, message))

    def _refuse(self, to: RequestReceived | Ddl, code: ErrorCode, text: str) -> None:
        if to.connection in self.owner.connections:
            self.owner.emit(ReplyError(to.connection, to.request_id, int(code), text))

    # ---- the life of a DDL request -------------------------------------------------------------

    def next_proposal(self) -> Proposal | None:
        """Answer what needs no write; return the next proposal, if any."""
        owner = self.owner
        while self.queue:
            ddl = self.queue.popleft()
            try:
                proposal = ddl.propose(owner.state, owner.config, owner.next_change_id())
            except Refused as refused:
                self._refuse(ddl, refused.code, refused.text)
                continue
            if proposal is not None:
                self.current = ddl
                return proposal
            self._reply(ddl, ddl.response())
        return None

    def applied(self) -> None:
        """The newest proposal of the current request is true."""
        ddl, self.current = self.current, None
        assert ddl is not None
        if not ddl.is_fulfilled(self.owner.state):
            self.queue.appendleft(ddl)
            return
        if not ddl.tells_tablets:
            self._reply(ddl, ddl.response())
            return
        deadline_ms = self.owner.now_ms + DDL_WAIT_MS
        number = -1 if ddl.makes_buckets else self.owner.state.change_number
        self.waits[ddl.serial] = Wait(ddl, deadline_ms, number)

    def refused(self, code: ErrorCode, text: str) -> None:
        """The registry does not take the current proposal."""
        ddl, self.current = self.current, None
        assert ddl is not None
        self._refuse(ddl, code, text)

    def refuse_unstored(self, text: str) -> None:
        """The registry's disk takes nothing: refuse who waits, rather than one after the other."""
        if self.current is not None:
            self.refused(ErrorCode.DISK_WRITE_LOCKED, text)
        waiting, self.queue = self.queue, deque([ddl for ddl in self.queue if ddl.proposed])
        for ddl in waiting:
            if not ddl.proposed:  # else a part of it may be true already: it gets its turn
                self._refuse(ddl, ErrorCode.DISK_WRITE_LOCKED, text)

    def resolve(self) -> None:
        """A fresh state tells what became of a proposal whose outcome was unknown."""
        ddl = self.current
        if ddl is None:
            return
        if ddl.was_applied(self.owner.state):
            self.applied()
        else:
            self.current = None
            self.queue.appendleft(ddl)

    # ---- waiting -------------------------------------------------------------------------------

    def look_again(self) -> None:
        """Answer all whose waiting is over; the coordinator is active."""
        for serial, wait in list(self.waits.items()):
            if self._is_over(wait):
                del self.waits[serial]
                self._reply(wait.ddl, wait.ddl.response())
        for serial, held in list(self.held.items()):
            if held.event.api_key in Ddl.HANDLERS:
                self._queue(held.event)
            elif not self._answer(held.event, final=self.owner.now_ms >= held.deadline_ms):
                # It may have waited for us until now, and waits for a leader from now on.
                held.deadline_ms = min(held.deadline_ms, self.owner.now_ms + LEADERLESS_HOLD_MS)
                continue
            del self.held[serial]

    def _is_over(self, wait: Wait) -> bool:
        owner, table_id = self.owner, wait.ddl.table_id
        if owner.now_ms >= wait.deadline_ms:
            return True
        if wait.ddl.makes_buckets and table_id in owner.state.catalog.by_id:
            if table_id in owner.auto.due or not wait.ddl.is_led(owner.state):
                return False
            if wait.number < 0:
                wait.number = owner.state.change_number
        return owner.links.have_confirmed(wait.number)

    def give_up_late(self) -> None:
        """Refuse what waited too long for us to become active."""
        for serial, held in list(self.held.items()):
            if self.owner.now_ms >= held.deadline_ms:
                del self.held[serial]
                self.refuse_as_inactive(held.event)

    def next_ms(self) -> int | None:
        """Return when somebody's patience ends."""
        times = [wait.deadline_ms for wait in self.waits.values()]
        times += [held.deadline_ms for held in self.held.values()]
        return min(times, default=None)

    # ---- ends ----------------------------------------------------------------------------------

    def finish_waits(self) -> None:
        """Tell those whose change was applied: we can learn no more about the tablet servers."""
        for wait in self.waits.values():
            self._reply(wait.ddl, wait.ddl.response())
        self.waits.clear()

    def refuse_all(self) -> None:
        """Refuse all that was not begun: another coordinator is active, or none of ours any more."""
        self.finish_waits()
        for held in self.held.values():
            self.refuse_as_inactive(held.event)
        self.held.clear()
        text = f"this coordinator is {self.owner.role.name.lower()}"
        for ddl in self.queue:
            if ddl.proposed:  # a part of it was applied, or may have been
                self._disown(ddl)
            else:
                self._refuse(ddl, ErrorCode.NOT_COORDINATOR_LEADER_EXCEPTION, text)
        self.queue.clear()

    def disown_current(self) -> None:
        """Nobody here will ever know what became of the current request: only silence is true."""
        ddl, self.current = self.current, None
        if ddl is not None:
            self._disown(ddl)

    def _disown(self, ddl: Ddl) -> None:
        if ddl.connection in self.owner.connections:
            self.owner.emit(CloseConnection(ddl.connection))

    def forget(self, connection: int) -> None:
        """A client left; what it asked for and was proposed goes on."""
        self.queue = deque([ddl for ddl in self.queue if ddl.connection != connection or ddl.proposed])
        gone = [serial for serial, held in self.held.items() if held.event.connection == connection]
        for serial in gone:
            del self.held[serial]
        done = [serial for serial, wait in self.waits.items() if wait.ddl.connection == connection]
        for serial in done:
            del self.waits[serial]

    def facts(self) -> tuple[Any, ...]:
        """Return what a digest must cover."""
        return (
            [ddl.serial for ddl in self.queue],
            self.current.serial if self.current is not None else -1,
            [(serial, wait.number) for serial, wait in self.waits.items()],
            list(self.held),
        )

    def clone(self, owner: Coordinator) -> Requests:
        """Return a copy for *owner* that shares nothing that changes."""
        ddls = {ddl.serial: attrs.evolve(ddl) for ddl in self._ddls()}
        copy = attrs.evolve(self, owner=owner)
        copy.queue = deque([ddls[ddl.serial] for ddl in self.queue])
        copy.current = ddls[self.current.serial] if self.current is not None else None
        copy.waits = {
            serial: attrs.evolve(wait, ddl=ddls[wait.ddl.serial]) for serial, wait in self.waits.items()
        }
        copy.held = {serial: attrs.evolve(held) for serial, held in self.held.items()}
        return copy

    def _ddls(self) -> list[Ddl]:
        current = [self.current] if self.current is not None else []
        return [*self.queue, *current, *(wait.ddl for wait in self.waits.values())]
