"""A sink: registers where producers began, reads it back, deletes it; as Flink's sinks do at a restart.

One request at a time, for a handful of ids. What it sees goes to the oracle; ambiguous ends are kept as
such.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import attrs

from flussd.core.wire import messages
from flussd.core.wire.apis import ApiKey
from flussd.core.wire.errors import ErrorCode
from flussd.runtime_sim.cluster import COORDINATOR_ADDRESS
from flussd.runtime_sim.oracles.producer_offsets import DAY_MS, ProducerTruth
from flussd.runtime_sim.oracles.violation import Oracle, Violation
from flussd.runtime_sim.plan import Fault, FaultKind
from flussd.runtime_sim.workload.client import Answer, Client

IDS: Final = 6
LATER: Final = frozenset(
    {
        ErrorCode.NOT_COORDINATOR_LEADER_EXCEPTION,
        ErrorCode.DISK_WRITE_LOCKED,  # the registry has no room for it
    }
)
LIFETIMES_MS: Final = (0, 300, 2_000, 6_000, 20_000, DAY_MS, DAY_MS, DAY_MS)


def jumps_ms(plan: Sequence[Fault]) -> int:
    """Return how far the coordinator's wall clock jumps in all, by a plan."""
    jumps = [fault for fault in plan if fault.kind is FaultKind.CLOCK_JUMP and "coordinator" in fault.nodes]
    return sum(abs(fault.count) for fault in jumps)


@attrs.define(eq=False, repr=False)
class Sink:
    """One client of producer offsets."""

    client: Client
    truth: ProducerTruth
    serial: int = 0  # of the newest registration; the offset that it registers
    is_busy: bool = False
    unread: list[str] = attrs.Factory(list)  # of the audit
    is_auditing: bool = False

    def start(self) -> None:
        """Begin to work."""
        self.client.later(50, 500, self._act)

    def _act(self) -> None:
        if self.client.is_stopping or self.is_auditing:
            return
        act = self.client.draws.choice(
            (self._register, self._register, self._read, self._read, self._delete)
        )
        self.is_busy = True
        act(f"producer_{self.client.draws.between(1, IDS)}", self._next)

    def _next(self) -> None:
        self.is_busy = False
        self.client.later(10, 800, self._act)

    def _ask(self, api_key: ApiKey, request: Any, answered: Callable[[Answer], None]) -> None:
        self.client.note(api_key.name.lower(), f"{request.producer_id}")
        self.client.ask(COORDINATOR_ADDRESS, api_key, request, answered)

    def _register(self, producer_id: str, done: Callable[[], None]) -> None:
        self.serial += 1
        serial, ttl_ms = self.serial, self.client.draws.choice(LIFETIMES_MS)
        request = messages.RegisterProducerOffsetsRequest(producer_id=producer_id)
        if ttl_ms != DAY_MS:
            request.ttl_ms = ttl_ms
        request.table_offsets.add(table_id=1).bucket_offsets.add(bucket_id=0, log_end_offset=serial)

        def answered(answer: Answer) -> None:
            if answer.message is not None and answer.message.result == 0:
                self.truth.created(producer_id, serial)
                self.client.world.count("producers registered")
            elif answer.message is not None:
                self.truth.existed(producer_id, serial)
            elif not answer.is_lost:
                self._expect_later(answer)
                self.truth.not_sent(producer_id, serial)
            done()

        self.truth.sent(producer_id, serial, ttl_ms)
        self._ask(ApiKey.REGISTER_PRODUCER_OFFSETS, request, answered)

    def _read(self, producer_id: str, done: Callable[[], None]) -> None:
        asked_us = self.client.world.now_us

        def answered(answer: Answer) -> None:
            if answer.message is not None:
                found = [
                    one.log_end_offset for t in answer.message.table_offsets for one in t.bucket_offsets
                ]
                self.truth.read(producer_id, found[0] if found else None, asked_us)
                self.client.note("offsets", f"{producer_id}: {found}")
            elif not answer.is_lost:
                self._expect_later(answer)
            if answer.message is None and self.is_auditing:
                self.unread.append(producer_id)
            done()

        request = messages.GetProducerOffsetsRequest(producer_id=producer_id)
        self._ask(ApiKey.GET_PRODUCER_OFFSETS, request, answered)

    def _delete(self, producer_id: str, done: Callable[[], None]) -> None:
        def answered(answer: Answer) -> None:
            if answer.message is not None:
                self.truth.deleted(producer_id)
                self.client.world.count("producers deleted")
            elif answer.is_lost:
                self.truth.deletion_lost(producer_id)
            else:
                self._expect_later(answer)
            done()

        request = messages.DeleteProducerOffsetsRequest(producer_id=producer_id)
        self._ask(ApiKey.DELETE_PRODUCER_OFFSETS, request, answered)

    def _expect_later(self, answer: Answer) -> None:
        """Only these refusals make sense: nothing was done."""
        if answer.code not in LATER:
            text = f"a request about a producer: {answer.code}: {answer.text}"
            raise Violation(Oracle.ANSWERS_MAKE_SENSE, text)

    # ---- the end -------------------------------------------------------------------------------

    def unaudited(self) -> str:
        """Read every id once more, in calm; return what is missing of that."""
        if not self.is_auditing and not self.is_busy:
            self.is_auditing = True
            self.unread = sorted(self.truth.producers)
            self._audit_next()
        return f"producers not read: {', '.join(self.unread)}" if self.is_busy or self.unread else ""

    def _audit_next(self) -> None:
        self.is_busy = bool(self.unread)
        if self.unread:
            self._read(self.unread.pop(), lambda: self.client.later(1, 50, self._audit_next))
