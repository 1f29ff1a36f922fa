"""A writer: idempotent, pipelined, stubborn. It does what the official clients do, and notes what it did.

Up to five batches in flight a bucket, in the order of their sequence; whatever is not acknowledged is sent
again as it was. When a server has forgotten the writer, the batches that are open are given up (nobody
knows whether they are in the log) and a new writer id is asked for.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final

import attrs

from flussd.core.wire import messages
from flussd.core.wire.apis import ApiKey
from flussd.core.wire.errors import ErrorCode
from flussd.runtime_sim.oracles.ledger import Ledger, Ledgers
from flussd.runtime_sim.oracles.violation import Oracle, Violation
from flussd.runtime_sim.workload.batches import Identity, SentBatch, make_batch
from flussd.runtime_sim.workload.client import Answer, Client, TablePath
from flussd.runtime_sim.world import MS

IN_FLIGHT_MAX: Final = 5

RETRIABLE: Final = frozenset(
    {
        ErrorCode.NETWORK_EXCEPTION,
        ErrorCode.LOG_STORAGE_EXCEPTION,
        ErrorCode.NOT_LEADER_OR_FOLLOWER,
        ErrorCode.UNKNOWN_TABLE_OR_BUCKET_EXCEPTION,
        ErrorCode.REQUEST_TIME_OUT,
        ErrorCode.STORAGE_EXCEPTION,
        ErrorCode.NOT_ENOUGH_REPLICAS_EXCEPTION,
        ErrorCode.LEADER_NOT_AVAILABLE_EXCEPTION,
        ErrorCode.DISK_WRITE_LOCKED,
    }
)
"""What a writer may be told, and tries again."""


@attrs.frozen
class WriterConfig:
    """How one writer writes; drawn from the seed."""

    acks: int
    pause_ms: int
    payload_bytes_max: int
    records_max: int
    timeout_ms: int
    magic: int
    batches_per_request: int


@attrs.define(eq=False, repr=False)
class Lane:
    """What a writer writes to one bucket."""

    bucket: int
    ledger: Ledger
    writer_id: int = -1
    generation: int = 0
    next_sequence: int = 0
    open: deque[SentBatch] = attrs.Factory(deque)  # not acknowledged, in order
    not_before_us: int = 0
    acked_count: int = 0
    given_up_count: int = 0
    acked: tuple[int, int] = (-1, -1)  # writer id, and its greatest sequence that was acknowledged


@attrs.define(eq=False, repr=False)
class Writer:
    """One writer of one table."""

    client: Client
    path: TablePath
    table_id: int
    config: WriterConfig
    ledgers: Ledgers
    buckets: int
    lanes: list[Lane] = attrs.field(init=False)
    writer_id: int = -1
    is_asking_id: bool = False
    is_learning: bool = False
    _count: int = 0

    def __attrs_post_init__(self) -> None:
        self.lanes = [
            Lane(bucket, self.ledgers.of((self.table_id, -1, bucket))) for bucket in range(self.buckets)
        ]

    def start(self) -> None:
        """Begin to write."""
        self._produce()

    @property
    def acked_count(self) -> int:
        """How many batches were acknowledged."""
        return sum(lane.acked_count for lane in self.lanes)

    @property
    def has_open(self) -> bool:
        """Whether anything is not acknowledged."""
        return any(lane.open for lane in self.lanes)

    # ---- making batches ------------------------------------------------------------------------

    def _produce(self) -> None:
        client = self.client
        if client.is_stopping:
            return
        lane = client.draws.choice(self.lanes)
        if self.writer_id < 0:
            self._ask_id()
        elif len(lane.open) < 2 * IN_FLIGHT_MAX:
            self._add(lane)
        self.pump(lane)
        client.later(1, self.config.pause_ms, self._produce)

    def _add(self, lane: Lane) -> None:
        draws, config = self.client.draws, self.config
        if lane.writer_id != self.writer_id:
            lane.writer_id, lane.next_sequence = self.writer_id, 0
            lane.generation = lane.ledger.generation
        self._count += 1
        batch = make_batch(
            Identity(self.client.node, self._count),
            writer_id=lane.writer_id,
            sequence=lane.next_sequence,
            record_count=draws.between(1, config.records_max),
            acks=config.acks,
            generation=lane.generation,
            filler=draws.filler(draws.between(0, config.payload_bytes_max)),
            magic=config.magic,
        )
        lane.next_sequence += 1
        lane.open.append(batch)
        lane.ledger.sent[batch.identity] = batch

    # ---- sending -------------------------------------------------------------------------------

    def pump(self, lane: Lane) -> None:
        """Send what may be sent."""
        now_us = self.client.world.now_us
        if now_us < lane.not_before_us or not lane.open:
            return
        address = self.client.leader_of(self.path, lane.bucket)
        if address is None:
            self._learn()
            return
        run: list[SentBatch] = []
        for batch in list(lane.open)[:IN_FLIGHT_MAX]:
            if batch.is_sent:
                continue
            run.append(batch)
            if len(run) == self.config.batches_per_request:
                self._send(lane, run, address)
                run = []
        if run:
            self._send(lane, run, address)

    def _send(self, lane: Lane, run: list[SentBatch], address: str) -> None:
        for batch in run:
            batch.is_sent = True
            batch.send_count += 1
            batch.was_oldest = batch is lane.open[0]
            batch.sent_generation = lane.ledger.generation
        request = messages.ProduceLogRequest(
            acks=self.config.acks, table_id=self.table_id, timeout_ms=self.config.timeout_ms
        )
        request.buckets_req.add(bucket_id=lane.bucket, records=b"".join(batch.data for batch in run))

        def answered(answer: Answer) -> None:
            self._answered(lane, run, answer)

        self.client.ask(address, ApiKey.PRODUCE_LOG, request, answered)

    # ---- answers -------------------------------------------------------------------------------

    def _answered(self, lane: Lane, run: list[SentBatch], answer: Answer) -> None:
        run = [batch for batch in run if batch in lane.open]
        if not run:
            return  # given up meanwhile
        code, base_offset, text = answer.code, -1, answer.text
        if answer.message is not None:
            (bucket,) = answer.message.buckets_resp
            code, text = bucket.error_code, bucket.error_message
            base_offset = bucket.base_offset
        if code == 0:
            self._acked(lane, run, base_offset)
        elif code == ErrorCode.OUT_OF_ORDER_SEQUENCE_EXCEPTION:
            self._out_of_order(lane, run[0], text)
        elif answer.is_lost or code in RETRIABLE:
            self._again(lane, run, code)
        else:
            raise Violation(Oracle.ANSWERS_MAKE_SENSE, f"{self.client.name}: a batch got {code}: {text}")
        for batch in run:
            batch.is_sent = False  # of those that are still open
        self.pump(lane)

    def _acked(self, lane: Lane, run: list[SentBatch], base_offset: int) -> None:
        for batch in run:
            self.client.note("acked", f"bucket {lane.bucket} {batch.identity} at {base_offset}")
            if batch is run[0]:
                lane.ledger.acked(batch, base_offset, self.config.acks, batch.sent_generation)
            else:  # the first may have been there, and others have written in between
                lane.ledger.acked_behind(batch, self.config.acks, batch.sent_generation)
            lane.open.remove(batch)
            lane.acked = max(lane.acked, (batch.writer_id, batch.sequence))  # ids only grow
            lane.acked_count += 1
            self.client.world.count("batches acknowledged")

    def _again(self, lane: Lane, run: list[SentBatch], code: int) -> None:
        world, draws = self.client.world, self.client.draws
        self.client.note("refused", f"bucket {lane.bucket} {run[0].identity}: {code}")
        world.count("batches sent again", len(run))
        delay_us = draws.between(5 * MS, 150 * MS)
        lane.not_before_us = world.now_us + delay_us
        world.after(delay_us, self.pump, lane)
        self._learn()

    def _out_of_order(self, lane: Lane, batch: SentBatch, text: str) -> None:
        if not batch.was_oldest:
            self._again(lane, [batch], ErrorCode.OUT_OF_ORDER_SEQUENCE_EXCEPTION)
            return
        if lane.acked[0] == batch.writer_id and batch.sequence < lane.acked[1]:
            # As upstream's clients: one behind it is acknowledged, so it is in the log, out of the window.
            lane.ledger.acked_behind(batch, self.config.acks, batch.sent_generation)
            lane.open.remove(batch)
            lane.acked_count += 1
            self.client.world.count("batches known by a later one")
            return
        lane.ledger.forgot_writer(batch, text)
        self.client.note("forgotten", f"bucket {lane.bucket} {batch.identity}: {text}")
        self.client.world.count("writers forgotten")
        lane.given_up_count += len(lane.open)
        lane.open.clear()
        if lane.writer_id == self.writer_id:
            self.writer_id = -1
            self._ask_id()

    # ---- what it has to know -------------------------------------------------------------------

    def _ask_id(self) -> None:
        if self.is_asking_id:
            return
        address = self.client.leader_of(self.path, 0)
        if address is None:
            self._learn()
            return
        self.is_asking_id = True
        request = messages.InitWriterRequest()
        request.table_path.add(database_name=self.path[0], table_name=self.path[1])
        self.client.ask(address, ApiKey.INIT_WRITER, request, self._id_answered)

    def _id_answered(self, answer: Answer) -> None:
        self.is_asking_id = False
        if answer.message is not None:
            self._given(answer.message.writer_id)
        else:
            self._learn()

    def _given(self, writer_id: int) -> None:
        for ledger in self.ledgers.by_key.values():
            if any(batch.writer_id == writer_id for batch in ledger.sent.values()):
                text = f"{self.client.name}: writer id {writer_id} was given out before"
                raise Violation(Oracle.CATALOG_IS_TRUE, text)
        self.writer_id = writer_id

    def _learn(self) -> None:
        if self.is_learning:
            return
        self.is_learning = True
        self.client.learn(self.path, self._learned)

    def _learned(self, worked: bool) -> None:  # noqa: FBT001
        delay = (5, 60) if worked else (50, 300)
        self.client.later(*delay, self._pump_all)

    def _pump_all(self) -> None:
        self.is_learning = False
        for lane in self.lanes:
            self.pump(lane)

    def facts(self) -> dict[str, Any]:
        """Return the state in a few words, for a dump."""
        return {
            "writer_id": self.writer_id,
            "lanes": [
                [lane.bucket, lane.acked_count, [tuple(batch.identity) for batch in lane.open]]
                for lane in self.lanes
            ],
        }
