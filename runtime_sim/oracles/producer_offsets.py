"""What must be true of registered producer offsets, as one client saw its own requests end.

Every attempt to register has a serial of its own, which is the offset that it registers: what is read
tells whose attempt won. An attempt without an answer may win later, a deletion without one may happen
later. The caller owes it one client that sends one request at a time, in the order of the calls here.
"""

from __future__ import annotations

from typing import Final

import attrs

from flussd.runtime_sim.oracles.violation import Oracle, Violation
from flussd.runtime_sim.world import MS, World

DAY_MS: Final = 24 * 3_600_000
"""The lifetime of a registration that names none."""

SLACK_MS: Final = 50
"""What clocks that drift by 200 ppm differ by within a run, with room for rounding."""


@attrs.define(eq=False, repr=False)
class Attempt:
    """One registration: sent and, as far as is known, done within [*sent_us*, *done_us*]."""

    serial: int
    ttl_ms: int
    sent_us: int
    done_us: int = -1  # -1: nobody knows whether it was done
    refused: bool = False  # it was told that another one is there


@attrs.define(eq=False, repr=False)
class Producer:
    """What is known of one id."""

    attempts: dict[int, Attempt] = attrs.Factory(dict)
    winner: Attempt | None = None
    may_be_deleted: bool = False  # a deletion ended without an answer; it may still come

    @property
    def in_doubt(self) -> list[Attempt]:
        """Attempts that may win at any time."""
        return [one for one in self.attempts.values() if one.done_us < 0 and not one.refused]


@attrs.define(eq=False, repr=False)
class ProducerTruth:
    """All ids of a run; the coordinator's wall clock jumps by *jumps_ms* at most, in all."""

    world: World
    jumps_ms: int
    producers: dict[str, Producer] = attrs.Factory(dict)

    def of(self, producer_id: str) -> Producer:
        """Return what is known of an id."""
        return self.producers.setdefault(producer_id, Producer())

    # ---- registrations -------------------------------------------------------------------------

    def sent(self, producer_id: str, serial: int, ttl_ms: int) -> None:
        """A registration goes out."""
        self.of(producer_id).attempts[serial] = Attempt(serial, ttl_ms, self.world.now_us)

    def created(self, producer_id: str, serial: int) -> None:
        """It was told that it is the first."""
        known = self.of(producer_id)
        if known.winner is not None and not known.may_be_deleted and not self._may_be_over(known.winner):
            text = f"{producer_id}: {known.winner.serial} is registered, and {serial} was made the first"
            raise Violation(Oracle.FIRST_REGISTRATION, text)
        self._wins(known, known.attempts[serial])

    def existed(self, producer_id: str, serial: int) -> None:
        """It was told that another one is there."""
        known = self.of(producer_id)
        attempt = known.attempts[serial]
        attempt.refused = True
        if not self._may_be_there(known, attempt.sent_us):
            text = f"{producer_id}: nothing is registered, and {serial} was told that it came too late"
            raise Violation(Oracle.FIRST_REGISTRATION, text)

    def not_sent(self, producer_id: str, serial: int) -> None:
        """It was refused before anything was done."""
        del self.of(producer_id).attempts[serial]

    def _wins(self, known: Producer, attempt: Attempt) -> None:
        attempt.done_us = self.world.now_us
        known.winner = attempt

    # ---- reads and deletions -------------------------------------------------------------------

    def read(self, producer_id: str, serial: int | None, asked_us: int) -> None:
        """A server, asked at *asked_us*, said what is registered; None: nothing."""
        known = self.of(producer_id)
        if serial is None:
            self._not_there(producer_id, known)
            return
        attempt = known.attempts.get(serial)
        if attempt is None or attempt.refused:
            text = f"{producer_id}: {serial} is registered, which was never sent or came too late"
            raise Violation(Oracle.FIRST_REGISTRATION, text)
        winner = known.winner
        if attempt is not winner:
            is_there = winner is not None and not known.may_be_deleted and not self._may_be_over(winner)
            if is_there or attempt.done_us >= 0:
                expected = "nothing" if winner is None else str(winner.serial)
                text = f"{producer_id}: expected {expected} to be registered, got {serial}"
                raise Violation(Oracle.FIRST_REGISTRATION, text)
            self._wins(known, attempt)
        if self._must_be_over(attempt, asked_us):
            text = f"{producer_id}: {serial} is registered, which lives for {attempt.ttl_ms} ms"
            raise Violation(Oracle.FIRST_REGISTRATION, text)

    def _not_there(self, producer_id: str, known: Producer) -> None:
        winner = known.winner
        if winner is None or known.may_be_deleted or self._may_be_over(winner):
            return
        age_ms = (self.world.now_us - winner.sent_us) // MS
        text = f"{producer_id}: {winner.serial} is gone after {age_ms} ms, and lives for {winner.ttl_ms} ms"
        raise Violation(Oracle.FIRST_REGISTRATION, text)

    def deleted(self, producer_id: str) -> None:
        """A deletion succeeded."""
        self.of(producer_id).winner = None

    def deletion_lost(self, producer_id: str) -> None:
        """A deletion ended without an answer."""
        self.of(producer_id).may_be_deleted = True

    # ---- what time tells -----------------------------------------------------------------------

    def _may_be_there(self, known: Producer, at_us: int) -> bool:
        winner = known.winner
        return bool(known.in_doubt) or (winner is not None and not self._must_be_over(winner, at_us))

    def _may_be_over(self, attempt: Attempt) -> bool:
        age_ms = (self.world.now_us - attempt.sent_us) // MS
        return age_ms + self.jumps_ms + SLACK_MS >= attempt.ttl_ms

    def _must_be_over(self, attempt: Attempt, at_us: int) -> bool:
        """Whether it was over at *at_us*: late answers tell of a time since they were asked for."""
        age_ms = (at_us - attempt.done_us) // MS
        return attempt.done_us >= 0 and age_ms - self.jumps_ms - SLACK_MS > attempt.ttl_ms
