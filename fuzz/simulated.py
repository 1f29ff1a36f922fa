"""A whole cluster in one process, without faults, to which a target sends frames. No target itself.

It is the simulator's: registry, coordinator and a tablet server with their drivers, edges and disks, in
virtual time. Whatever breaks in a machine comes out as an exception; a server that gave up is one too.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from typing import Any, Final

import attrs
from trials import WrongAnswer

from flussd.core.edge.frames import FRAME_HEAD_RESPONSE_BYTES, FrameBuffer, request_frame
from flussd.core.records.batch import build_batch, heads_in
from flussd.core.replica.stored import Durability
from flussd.core.wire import messages
from flussd.core.wire.apis import ApiKey
from flussd.runtime_sim.cluster import COORDINATOR_ADDRESS, FIRST_CLIENT, FIRST_TABLET, Cluster, Shape
from flussd.runtime_sim.network import End, Network
from flussd.runtime_sim.world import MS, SECOND, World

ADDRESSES: Final = (COORDINATOR_ADDRESS, "tablet-0:9124")
SHAPE: Final = attrs.evolve(
    Shape.drawn(1),
    tablet_count=1,
    durability=Durability.PAGE_CACHE,
    segment_bytes=16_000,
    checkpoint_bytes=20_000,
    registry_log_bytes=30_000,
    retention_interval_ms=700,
)
ANSWER_US: Final = 5 * SECOND
"""In virtual time; an answer that is held takes 200 ms."""


WRITE_TRIES: Final = 20
"""A table that was created a moment ago has no leader yet; each refusal is held for 25 ms."""


def descriptor(*, partitioned: bool = False, buckets: int = 2) -> bytes:
    """Return the descriptor of a table of an integer and a text."""
    columns = [
        {"name": "a", "data_type": {"type": "INTEGER"}, "id": 0},
        {"name": "p", "data_type": {"type": "STRING"}, "id": 1},
    ]
    value = {
        "version": 1,
        "schema": {"version": 1, "columns": columns, "highest_field_id": 1},
        "partition_key": ["p"] if partitioned else [],
        "bucket_key": [],
        "bucket_count": buckets,
        "properties": {},
        "custom_properties": {},
    }
    return json.dumps(value).encode()


def path(message: Any, database: str, table: str) -> Any:
    """Fill in the table of a request; return the request."""
    message.table_path.database_name, message.table_path.table_name = database, table
    return message


@attrs.define(eq=False)
class Line:
    """One connection of a client to one server."""

    cluster: SimulatedCluster
    server: int
    end: End | None = None
    is_closed: bool = False
    answers: list[bytes] = attrs.Factory(list)
    frames: FrameBuffer = attrs.Factory(lambda: FrameBuffer(min_bytes=FRAME_HEAD_RESPONSE_BYTES))

    def open(self) -> Line:
        """Connect."""
        network = self.cluster.network
        network.connect(FIRST_CLIENT, ADDRESSES[self.server], self, self._connected)
        self.cluster.run(lambda: self.end is None and not self.is_closed)
        return self

    def _connected(self, end: End | None) -> None:
        self.end, self.is_closed = end, end is None

    def received(self, payload: bytes) -> None:
        """Take bytes of answers in."""
        self.answers += [bytes(frame) for frame in self.frames.feed(payload)]

    def lost(self) -> None:
        """The server closed."""
        self.is_closed = True

    def send(self, data: bytes) -> None:
        """Send bytes."""
        assert self.end is not None
        self.end.send(data)

    def close(self) -> None:
        """Close from our side."""
        if self.end is not None and not self.is_closed:
            self.end.close()

    def wait(self, count: int) -> bool:
        """Wait for *count* answers or the close; return whether one of these came."""
        return self.cluster.run(lambda: len(self.answers) < count and not self.is_closed)

    def ask(self, api_key: int, message: Any) -> Any:
        """Ask in order; return the answer, which must be a success."""
        return self.ask_frame(request_frame(api_key, 0, 7, message.SerializeToString()), api_key)

    def ask_frame(self, frame: bytes, api_key: int) -> Any:
        """Ask by a whole frame; return the answer, which must be a success."""
        self.answers.clear()
        self.send(frame)
        if not self.wait(1) or not self.answers:
            raise WrongAnswer(f"a good request of API key {api_key} got no answer")
        kind, request_id = struct.unpack_from(">bi", self.answers[0])
        if (kind, request_id) != (0, 7):
            text = messages.ErrorResponse.FromString(self.answers[0][5:])
            raise WrongAnswer(f"a good request of API key {api_key} got {text}")
        return messages.response_class(api_key).FromString(self.answers[0][5:])


@attrs.define(eq=False)
class SimulatedCluster:
    """One cluster with a table `watched.t` for good requests; `close` looks at what is left behind."""

    seed: int = 1
    world: World = attrs.field(init=False)
    network: Network = attrs.field(init=False)
    cluster: Cluster = attrs.field(init=False)
    lines: list[Line] = attrs.field(init=False)  # of good requests, by server
    probe_id: int = -1
    probe_count: int = 0

    def __attrs_post_init__(self) -> None:
        self.world = World(self.seed)
        self.network = Network(self.world, self.seed, least_us=1, most_us=2)
        self.cluster = Cluster(self.world, self.network, SHAPE)
        self.cluster.start()
        if not self.world.run_while(lambda: not self.cluster.is_ready(), 30 * SECOND):
            raise WrongAnswer("the cluster does not get ready")
        self.lines = [self.line(0), self.line(1)]
        self.lines[0].ask(
            ApiKey.CREATE_DATABASE,
            messages.CreateDatabaseRequest(database_name="watched", ignore_if_exists=True),
        )
        self.probe_id = self.create("watched", "t", descriptor(buckets=1))

    def line(self, server: int) -> Line:
        """Return a new connection."""
        return Line(self, server).open()

    def run(self, waiting: Callable[[], bool]) -> bool:
        """Let time pass until *waiting* is False; return whether that came."""
        return self.world.run_while(waiting, self.world.now_us + ANSWER_US, MS)

    def create(self, database: str, table: str, described: bytes) -> int:
        """Create a table; return its id once its buckets are led."""
        request = path(
            messages.CreateTableRequest(table_json=described, ignore_if_exists=True), database, table
        )
        self.lines[0].ask(ApiKey.CREATE_TABLE, request)
        return int(
            self.lines[0]
            .ask(ApiKey.GET_TABLE_INFO, path(messages.GetTableInfoRequest(), database, table))
            .table_id
        )

    def create_partition(self, database: str, table: str, value: str) -> int:
        """Create a partition; return its id."""
        request = path(messages.CreatePartitionRequest(ignore_if_not_exists=True), database, table)
        request.partition_spec.partition_key_values.add(key="p", value=value)
        self.lines[0].ask(ApiKey.CREATE_PARTITION, request)
        listed = path(messages.ListPartitionInfosRequest(), database, table)
        return int(self.lines[0].ask(ApiKey.LIST_PARTITION_INFOS, listed).partitions_info[0].partition_id)

    def write(self, table_id: int, payload: bytes, partition_id: int | None = None) -> Any:
        """Write a batch to bucket 0; return the answer."""
        request = messages.ProduceLogRequest(acks=-1, table_id=table_id, timeout_ms=1000)
        bucket = request.buckets_req.add(bucket_id=0, records=build_batch(payload, record_count=1))
        if partition_id is not None:
            bucket.partition_id = partition_id
        for _ in range(WRITE_TRIES):
            (answer,) = self.lines[1].ask(ApiKey.PRODUCE_LOG, request).buckets_resp
            if not answer.error_code:
                return answer
        raise WrongAnswer(f"a good write got {answer}")

    def probe(self) -> None:
        """Write a batch and read it, as a client that does nothing wrong."""
        self.probe_count += 1
        payload = b"probe %d" % self.probe_count
        bucket = self.write(self.probe_id, payload)
        fetch = messages.FetchLogRequest(follower_server_id=-1, max_bytes=1 << 20)
        table = fetch.tables_req.add(table_id=self.probe_id, projection_pushdown_enabled=False)
        table.buckets_req.add(bucket_id=0, fetch_offset=bucket.base_offset, max_fetch_bytes=1 << 20)
        got = self.lines[1].ask(ApiKey.FETCH_LOG, fetch).tables_resp[0].buckets_resp[0]
        heads = list(heads_in(memoryview(got.records)))
        if not heads or heads[0].base_offset != bucket.base_offset or payload not in got.records:
            raise WrongAnswer(f"a good read does not find what was written: {got}")

    def check(self) -> None:
        """Hold all machines to all that they promise of themselves; none may have given up."""
        for node in self.cluster.nodes:
            if node.process_count != 1 or node.process is None:
                raise WrongAnswer(f"{node.name} ended")
            node.machine.check_all()

    def close(self) -> None:
        """Close the good connections; nothing may wait for anybody any more."""
        for line in self.lines:
            line.close()
        self.world.run_until(self.world.now_us + SECOND)
        self.check()
        node = self.cluster.nodes[FIRST_TABLET]
        server, open_now = node.machine, node.process.driver._budgets
        waiting = server.parked.waiters.values()
        left = [one for one in waiting if one.connection >= 0 and one.connection not in open_now]
        if left or server.produces.by_ticket or server.produces.holding:
            raise WrongAnswer(f"somebody is left waiting for a connection that is gone: {left}")
