"""Every write of the active coordinator: one proposal in flight, checked against its epoch.

The order of importance: servers that do not answer, wrong leaders, what clients asked, new bucket
records, automatic partitions, offsets of producers that are too old, erasing. A proposal that is confirmed
is applied; one that is not (another coordinator was faster, or nobody knows) ends this term: everything is
read again under a new epoch, which also makes sure that the old write can never be applied late. One that
the registry could not store was not applied: clients are refused, and what is our own wish is proposed
again after a pause.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs

from flussd.core.coordinator import layout, producer_offsets, proposals
from flussd.core.coordinator.changes import TableMade
from flussd.core.coordinator.proposals import Proposal, Why
from flussd.core.registry.messages import Answer, Check, Multi, Outcome
from flussd.core.wire.errors import ErrorCode

if TYPE_CHECKING:
    from flussd.core.coordinator.coordinator import Coordinator

NEVER: Final = (Outcome.TOO_LARGE, Outcome.BAD_PATH)
"""What the registry will say again, however often it is asked."""

REST_MS: Final = 1_000
"""Pause after a proposal of our own that the registry could not store."""

SLICED: Final = frozenset({Why.DECREE, Why.ELECT, Why.MAKE, Why.ERASE})
"""Of hundreds of changes, of which each is true without the others: applied over several steps."""


@attrs.define(eq=False)
class Pipeline:
    """The proposal in flight, if any; confirmed and not wholly applied, it is in flight yet."""

    owner: Coordinator
    flight: Proposal | None = None
    rest_ms: int = -1  # nothing is proposed before
    applied_count: int = -1  # of its changes, once it is confirmed; -1: it is not

    def go_on(self) -> bool:
        """Do the next piece of work; return whether it was a long one.

        First what follows from a drop, then what is confirmed; then the most important proposal is sent.
        """
        state, slice_count = self.owner.state, self.owner.config.slice_buckets
        if state.closing:
            state.close_some(slice_count)
            return True
        if self.flight is not None:
            if self.applied_count < 0:
                return False
            self._apply_some()
            return True
        if self.owner.now_ms < self.rest_ms:
            return False
        self.rest_ms = -1
        proposal = self._next()
        if proposal is None:
            return False
        self.flight = proposal
        check = Check(layout.EPOCH, self.owner.epoch_version)
        self.owner.submit(proposal, Multi((check, *proposal.writes)))
        return len(proposal.changes) > slice_count

    def drop(self) -> None:
        """Nothing is in flight any more: it is through, or the term is over."""
        self.flight, self.applied_count = None, -1

    @property
    def has_work(self) -> bool:
        """Whether there is something to do that waits for nobody."""
        return bool(self.owner.state.closing) or self.applied_count >= 0

    def _apply_some(self) -> None:
        """Apply (the next of) the changes that are confirmed; bucket records stand each for itself."""
        flight = self.flight
        assert flight is not None
        first = self.applied_count
        changes = flight.changes[first : first + self.owner.config.slice_buckets]
        self.applied_count += len(changes)
        for change in changes:
            self.owner.state.apply(change)
        if self.applied_count == len(flight.changes):
            self.drop()

    def _next(self) -> Proposal | None:
        owner = self.owner
        state, epoch = owner.state, owner.epoch
        if not owner.scan.is_running:  # else we learn in a moment who is there
            for server_id in owner.links.doomed():
                if server_id in state.servers:
                    return proposals.decree(state, server_id, epoch)
        if state.unelected:
            return proposals.elect(state, epoch)
        asked = owner.requests.next_proposal()
        if asked is not None:
            return asked
        if state.unmade:
            return proposals.make_records(state, epoch)
        return (
            owner.auto.next_proposal()
            or producer_offsets.expire(state, owner.wall_now_ms)
            or proposals.erase(state)
        )

    def answered(self, proposal: Proposal, answer: Answer) -> None:
        """What became of the proposal in flight."""
        assert proposal is self.flight
        owner = self.owner
        if answer.outcome is Outcome.OK and proposal.why in SLICED:
            self.applied_count = 0
            return
        self.flight = None
        if answer.outcome is Outcome.OK:
            for change in proposal.changes:
                owner.state.apply(change)
                if isinstance(change, TableMade):
                    owner.auto.look_at(change.record)
            if proposal.why is Why.DDL:
                owner.requests.applied()
        elif answer.outcome in NEVER and proposal.why is Why.DDL:
            text = f"the registry refuses it: {answer.outcome.value}"
            owner.requests.refused(ErrorCode.UNKNOWN_SERVER_ERROR, text)
        elif answer.outcome is Outcome.NOT_STORED:
            owner.requests.refuse_unstored(f"the registry cannot store it: {answer.outcome.value}")
            if proposal.why is not Why.DDL:
                self.rest_ms = owner.now_ms + REST_MS
        elif proposal.why is Why.DECREE and answer.failed_index == 1:
            owner.scan.begin()  # the server left, or came back, by itself
        else:
            owner.restart(f"cannot write ({proposal.why.value}): {answer.outcome.value}")
