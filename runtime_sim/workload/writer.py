"""A writer: idempotent, pipelined, stubborn. It does what the official clients do, and notes what it did.

Up to five batches in flight a bucket, in the order of their sequence; whatever is not acknowledged is sent
again as it was. When a server has forgotten the writer, the batches that are open are given up (nobody
knows whether they are in the log) and a new writer id is asked for. Partitions that it finds are written to
until they are gone; what was open in them then is given up, too.
"""

from __future__ import annotations

from collections import deque
from typing import Any, ClassVar, Final, TypeAlias

import attrs

from flussd.core.replica.events import BucketKey
from flussd.core.wire import messages
from flussd.core.wire.apis import ApiKey
from flussd.core.wire.errors import ErrorCode
from flussd.runtime_sim.oracles.ledger import Ledger, Ledgers
from flussd.runtime_sim.oracles.violation import Oracle, Violation
from flussd.runtime_sim.workload.batches import Identity, SentBatch, make_batch
from flussd.runtime_sim.workload.client import Answer, Client, Place
from flussd.runtime_sim.workload.places import Places, TableInUse
from flussd.runtime_sim.workload.rows import drawn_values
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
    statistics_ppm: int  # chance of a batch to have them
    spreads: bool = False  # sends batches of several buckets in one request


@attrs.define(eq=False, repr=False)
class Lane:
    """What a writer writes to one bucket."""

    place: Place
    key: BucketKey
    ledger: Ledger
    writer_id: int = -1
    generation: int = 0
    next_sequence: int = 0
    open: deque[SentBatch] = attrs.Factory(deque)  # not acknowledged, in order
    not_before_us: int = 0
    acked_count: int = 0
    given_up_count: int = 0
    acked: tuple[int, int] = (-1, -1)  # writer id, and its greatest sequence that was acknowledged
    acked_generation: int = 0  # the ledger's when that was sent

    @property
    def bucket(self) -> int:
        """Its bucket's number."""
        return self.key[2]


Part: TypeAlias = tuple[Lane, list[SentBatch]]
"""What a request is about in one bucket."""


@attrs.define(eq=False, repr=False)
class Writer:
    """One writer of one table."""

    API_KEY: ClassVar[ApiKey] = ApiKey.PRODUCE_LOG
    RETRIABLE: ClassVar[frozenset[ErrorCode]] = RETRIABLE

    client: Client
    table: TableInUse
    config: WriterConfig
    ledgers: Ledgers
    lanes: list[Lane] = attrs.Factory(list)
    places: Places = attrs.field(init=False)
    writer_id: int = -1
    acked_count: int = 0  # batches
    is_asking_id: bool = False
    _count: int = 0

    def __attrs_post_init__(self) -> None:
        self.places = Places(self.client, self.table, self._found, self._gone)

    def start(self) -> None:
        """Begin to write."""
        self.places.start()
        self._produce()

    @property
    def has_open(self) -> bool:
        """Whether anything is not acknowledged."""
        return any(lane.open for lane in self.lanes)

    def _found(self, place: Place, partition_id: int) -> None:
        for bucket in range(self.table.spec.buckets):
            key = (self.table.table_id, partition_id, bucket)
            self.lanes.append(Lane(place, key, self.ledgers.of(key)))

    def _gone(self, place: Place, partition_id: int) -> None:
        """Give the lanes of a partition up; nobody knows what of them was written."""
        gone = [lane for lane in self.lanes if lane.key[1] == partition_id]
        self.lanes = [lane for lane in self.lanes if lane.key[1] != partition_id]
        for lane in gone:
            self.client.note("gave up", f"{place.partition} bucket {lane.bucket}: {len(lane.open)} open")
            lane.open.clear()

    # ---- making batches ------------------------------------------------------------------------

    def _produce(self) -> None:
        client = self.client
        if client.is_stopping:
            return
        if self.lanes:
            lane = client.draws.choice(self.lanes)
            if self.writer_id < 0:
                self._ask_id(lane)
            elif len(lane.open) < 2 * IN_FLIGHT_MAX:
                self._add(lane)
            self.pump(lane)
        client.later(1, self.config.pause_ms, self._produce)

    def _add(self, lane: Lane) -> None:
        if lane.writer_id != self.writer_id:
            lane.writer_id, lane.next_sequence = self.writer_id, 0
            lane.generation = lane.ledger.generation
        self._count += 1
        batch = self._make(lane, Identity(self.client.node, self._count))
        lane.next_sequence += 1
        lane.open.append(batch)
        lane.ledger.will_send(batch)

    def _make(self, lane: Lane, identity: Identity) -> SentBatch:
        draws, config = self.client.draws, self.config
        schema_id = self._schema_id(lane)
        return make_batch(
            identity,
            writer_id=lane.writer_id,
            sequence=lane.next_sequence,
            values=drawn_values(draws, draws.between(1, config.records_max)),
            filler=draws.filler(draws.between(0, config.payload_bytes_max)),
            partition=lane.place.partition,
            added_columns=schema_id - 1,
            schema_id=schema_id,
            acks=config.acks,
            generation=lane.generation,
            magic=config.magic,
            with_statistics=draws.chance(config.statistics_ppm),
        )

    def _schema_id(self, lane: Lane) -> int:
        """Draw the schema of a batch: the newest one, or an old one that somebody still uses."""
        newest = self.client.schema_ids.get(lane.place.table, 1)
        return newest if self.client.draws.chance(700_000) else self.client.draws.between(1, newest)

    # ---- sending -------------------------------------------------------------------------------

    def pump(self, lane: Lane) -> None:
        """Send what may be sent."""
        now_us = self.client.world.now_us
        if now_us < lane.not_before_us or not lane.open:
            return
        address = self.client.leader_of(lane.place, lane.bucket)
        if address is None:
            self._learn(lane)
            return
        run: list[SentBatch] = []
        for batch in list(lane.open)[:IN_FLIGHT_MAX]:
            if not batch.is_sent:
                run.append(batch)
            # Those of one request have to follow each other (seed 202).
            if run and (batch.is_sent or len(run) == self.config.batches_per_request):
                self._send(lane, run, address)
                run = []
        if run:
            self._send(lane, run, address)

    def _send(self, lane: Lane, run: list[SentBatch], address: str) -> None:
        request, parts = self._request(lane, run), self._parts(lane, run, address)
        for one, batches in parts:
            for batch in batches:
                batch.is_sent = True
                batch.send_count += 1
                batch.was_oldest = batch is one.open[0]
                batch.sent_generation = one.ledger.generation
            bucket = request.buckets_req.add(
                bucket_id=one.bucket, records=b"".join(batch.data for batch in batches)
            )
            if one.place.partition:
                bucket.partition_id = one.key[1]

        def answered(answer: Answer) -> None:
            told = self._told(parts, answer)
            for one, batches in parts:
                self._answered(one, batches, answer, told.get(one.bucket))

        self.client.ask(address, self.API_KEY, request, answered)

    def _parts(self, lane: Lane, run: list[SentBatch], _: str) -> list[Part]:
        """Return what a request is about: *run*, and what else goes to the same server now."""
        return [(lane, run)]

    def _request(self, lane: Lane, _: list[SentBatch]) -> Any:
        return messages.ProduceLogRequest(
            acks=self.config.acks, table_id=lane.key[0], timeout_ms=self.config.timeout_ms
        )

    # ---- answers -------------------------------------------------------------------------------

    def _told(self, parts: list[Part], answer: Answer) -> dict[int, Any]:
        """Return the answers of the buckets of a request, by bucket; none when it failed as a whole."""
        if answer.message is None:
            return {}
        told = {bucket.bucket_id: bucket for bucket in answer.message.buckets_resp}
        asked = [lane.bucket for lane, _ in parts]
        if sorted(asked) != sorted(bucket.bucket_id for bucket in answer.message.buckets_resp):
            text = f"{self.client.name}: buckets {asked} were asked, {list(told)} answered"
            raise Violation(Oracle.ANSWERS_MAKE_SENSE, text)
        return told

    def _answered(self, lane: Lane, run: list[SentBatch], answer: Answer, bucket: Any) -> None:
        run = [batch for batch in run if batch in lane.open]
        if not run:
            return  # given up meanwhile
        code, told_offset, text = answer.code, -1, answer.text
        if bucket is not None:
            code, text = bucket.error_code, bucket.error_message
            told_offset = self._offset_told(bucket)
        if code == 0:
            self._acked(lane, run, told_offset)
        elif code == ErrorCode.OUT_OF_ORDER_SEQUENCE_EXCEPTION:
            self._out_of_order(lane, run[0], text)
        elif answer.is_lost or code in self.RETRIABLE:
            self._again(lane, run, code)
        else:
            raise Violation(Oracle.ANSWERS_MAKE_SENSE, f"{self.client.name}: a batch got {code}: {text}")
        for batch in run:
            batch.is_sent = False  # of those that are still open
        self.pump(lane)

    @staticmethod
    def _offset_told(bucket: Any) -> int:
        """Return the offset that tells where the first batch of a request is."""
        return int(bucket.base_offset)

    def _acked(self, lane: Lane, run: list[SentBatch], told_offset: int) -> None:
        for batch in run:
            self.client.note("acked", f"bucket {lane.bucket} {batch.identity} at {told_offset}")
            if batch is run[0]:
                lane.ledger.acked(batch, told_offset, self.config.acks, batch.sent_generation)
            else:  # the first may have been there, and others have written in between
                lane.ledger.acked_behind(batch, self.config.acks, batch.sent_generation)
            lane.open.remove(batch)
            if (batch.writer_id, batch.sequence) > lane.acked:  # ids only grow
                lane.acked, lane.acked_generation = (batch.writer_id, batch.sequence), batch.sent_generation
            self._counted(lane)
            self.client.world.count("batches acknowledged")

    def _counted(self, lane: Lane) -> None:
        lane.acked_count += 1
        self.acked_count += 1

    def _again(self, lane: Lane, run: list[SentBatch], code: int) -> None:
        world, draws = self.client.world, self.client.draws
        self.client.note("refused", f"bucket {lane.bucket} {run[0].identity}: {code}")
        world.count("batches sent again", len(run))
        delay_us = draws.between(5 * MS, 150 * MS)
        lane.not_before_us = world.now_us + delay_us
        world.after(delay_us, self.pump, lane)
        self._learn(lane)

    def _out_of_order(self, lane: Lane, batch: SentBatch, text: str) -> None:
        if not batch.was_oldest:
            self._again(lane, [batch], ErrorCode.OUT_OF_ORDER_SEQUENCE_EXCEPTION)
            return
        if lane.acked[0] == batch.writer_id and batch.sequence < lane.acked[1]:
            # As upstream's clients: one behind it is acknowledged, so it is in the log, out of the window.
            # Both may be lost since then; this answer does not tell (seed 2453 at bece901).
            lane.ledger.acked_behind(batch, self.config.acks, lane.acked_generation)
            lane.open.remove(batch)
            self._counted(lane)
            self.client.world.count("batches known by a later one")
            return
        lane.ledger.forgot_writer(batch, text)
        self.client.note("forgotten", f"bucket {lane.bucket} {batch.identity}: {text}")
        self.client.world.count("writers forgotten")
        lane.given_up_count += len(lane.open)
        lane.open.clear()
        if lane.writer_id == self.writer_id:
            self.writer_id = -1
            self._ask_id(lane)

    # ---- what it has to know -------------------------------------------------------------------

    def _ask_id(self, lane: Lane) -> None:
        if self.is_asking_id:
            return
        address = self.client.leader_of(lane.place, lane.bucket)
        if address is None:
            self._learn(lane)
            return
        self.is_asking_id = True
        request = messages.InitWriterRequest()
        request.table_path.add(database_name=lane.place.database, table_name=lane.place.table)

        def answered(answer: Answer) -> None:
            self.is_asking_id = False
            if answer.message is not None:
                self._given(answer.message.writer_id)
            else:
                self._learn(lane)

        self.client.ask(address, ApiKey.INIT_WRITER, request, answered)

    def _given(self, writer_id: int) -> None:
        for ledger in self.ledgers.by_key.values():
            if (writer_id, 0) in ledger.by_sequence:
                text = f"{self.client.name}: writer id {writer_id} was given out before"
                raise Violation(Oracle.CATALOG_IS_TRUE, text)
        self.writer_id = writer_id

    def _learn(self, lane: Lane) -> None:
        self.places.learn(lane.place, self._pump_all)

    def _pump_all(self) -> None:
        for lane in self.lanes:
            self.pump(lane)

    def facts(self) -> dict[str, Any]:
        """Return the state in a few words, for a dump."""
        return {
            "writer_id": self.writer_id,
            "lanes": [
                [*lane.key, lane.acked_count, [tuple(batch.identity) for batch in lane.open]]
                for lane in self.lanes
            ],
        }
