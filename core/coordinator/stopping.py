"""An orderly stop of the coordinator: the change in flight first, then our active node, then the end.

It never waits for long: what the registry does not answer in time stays in doubt. Its owner owes it
`begin` once, and `go_on` after every event from then on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import attrs

from flussd.core.coordinator import layout
from flussd.core.coordinator.proposals import Why
from flussd.core.machine import Stopped
from flussd.core.registry import messages as r

if TYPE_CHECKING:
    from flussd.core.coordinator.coordinator import Coordinator

STOP_MS: Final = 1_000
"""How long an orderly stop waits for the registry."""


@attrs.frozen
class Leave:
    """The deletion of our active node, at an orderly stop."""


@attrs.define(eq=False)
class Stop:
    """How far a stop has come."""

    owner: Coordinator
    give_up_ms: int = -1  # when it waits no longer; -1: there is none, or it is over
    is_leaving: bool = False  # the deletion of our active node was asked for, or there is no such node
    is_done: bool = False

    def begin(self, *, was_active: bool) -> None:
        """The coordinator takes nothing new in from now on."""
        self.give_up_ms = self.owner.now_ms + STOP_MS
        self.is_leaving = not was_active

    def go_on(self) -> None:
        """Leave once the change in flight, if any, is confirmed; or when it takes too long."""
        if self.is_done:
            return
        owner = self.owner
        flight = owner.pipeline.flight
        late = owner.now_ms >= self.give_up_ms
        if flight is not None and flight.why is Why.DDL and not late:
            return
        owner.requests.finish_waits()
        owner.requests.refuse_all()
        if late or not owner.session_id or (self.is_leaving and not self._asked_to_leave()):
            self.end()
        elif not self.is_leaving:
            self.is_leaving = True
            check = r.Check(layout.EPOCH, owner.epoch_version)
            owner.submit(Leave(), r.Multi((check, r.Delete(layout.ACTIVE))))

    def _asked_to_leave(self) -> bool:
        return any(isinstance(why, Leave) for _, why in self.owner.asked.values())

    def end(self) -> None:
        """Stop, whatever is in doubt."""
        if not self.is_done:
            self.is_done, self.give_up_ms = True, -1
            self.owner.requests.disown_current()
            self.owner.emit(Stopped())

    def facts(self) -> tuple[Any, ...]:
        """Return what a digest must cover."""
        return (self.give_up_ms, self.is_done)
