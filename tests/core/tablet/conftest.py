"""One tablet server behind its driver: real frames in, real frames out, a disk in memory."""

from __future__ import annotations

import itertools
import json

import pytest

from flussd.core.driver import Driver, Ports
from flussd.core.edge import frames
from flussd.core.edge.requests import Edge
from flussd.core.machine import Started
from flussd.core.records.batch import build_batch
from flussd.core.records.keys import key_encoder
from flussd.core.records.kv_batch import build_kv_batch
from flussd.core.records.rows.codec import RowFormat, row_codec
from flussd.core.records.types import DataType
from flussd.core.registry import messages as r
from flussd.core.tablet.config import TabletConfig
from flussd.core.tablet.tablet import TabletServer
from flussd.core.wire import messages, private
from flussd.core.wire.apis import ApiKey
from flussd.core.wire.served import SERVED_BY_TABLET

INCARNATION = 55
SCHEMA = {
    "version": 1,
    "columns": [
        {"name": "a", "data_type": {"type": "INTEGER"}, "id": 0},
        {"name": "b", "data_type": {"type": "STRING"}, "id": 1},
    ],
    "highest_field_id": 1,
}
KEYED_SCHEMA = SCHEMA | {
    "columns": [
        {"name": "a", "data_type": {"type": "INTEGER", "nullable": False}, "id": 0},
        {"name": "b", "data_type": {"type": "STRING"}, "id": 1},
    ],
    "primary_key": ["a"],
}
KEYED = {"table.log.format": "COMPACTED", "table.kv.format": "COMPACTED"}


class Clock:
    """Time that a test moves."""

    def __init__(self):
        self.now, self.wall, self.alarm = 1000, 1_700_000_000_000, None

    def now_ms(self):
        return self.now

    def wall_ms(self):
        return self.wall + self.now

    def wake_at(self, at_ms):
        self.alarm = at_ms


class Network:
    """Keeps what was sent."""

    def __init__(self):
        self.sent = []  # (connection, kind, request id, body)
        self.paused = set()
        self.closed = []

    def send(self, connection, parts):
        data = b"".join(bytes(part) for part in parts)
        for frame in frames.FrameBuffer(min_bytes=5).feed(data):
            kind, request_id, body = frames.split_response(frame)
            self.sent.append((connection, kind, request_id, bytes(body)))

    def close(self, connection):
        self.closed.append(connection)

    def connect(self, address, done):
        raise AssertionError("a tablet server connects to nobody")

    def pause(self, connection):
        self.paused.add(connection)

    def resume(self, connection):
        self.paused.discard(connection)


class Registry:
    """Answers what a tablet server asks: its registration, and the writer id counter."""

    def __init__(self):
        self.counter, self.version, self.driver, self.silent = None, 0, None, False
        self.node, self.incarnation = None, INCARNATION - 1  # our registration, and the last one's id

    def submit(self, token, operation):
        if not self.silent:
            self.driver.post(r.RegistryAnswered(token, self.answer(operation)))

    def answer(self, operation):
        if isinstance(operation, r.GetData) and operation.path.endswith("/3"):
            if self.node is None:
                return r.Answer(r.Outcome.NO_NODE)
            stat = r.Stat(self.incarnation, self.incarnation, 0, 0, 7, 0)
            return r.Answer(r.Outcome.OK, data=self.node, stat=stat)
        if isinstance(operation, r.GetData):
            if self.counter is None:
                return r.Answer(r.Outcome.NO_NODE)
            stat = r.Stat(1, 1, self.version, 0, 0, 0)
            return r.Answer(r.Outcome.OK, data=self.counter, stat=stat)
        (write,) = operation.writes
        if write.path.endswith("writer_id"):
            self.counter, self.version = write.data, self.version + 1
        if isinstance(write, r.Delete):
            self.node = None
            return r.Answer(r.Outcome.OK, created=(None,), stats=(None,))
        if write.path.endswith("/3"):
            self.node, self.incarnation = write.data, self.incarnation + 1
        stat = r.Stat(self.incarnation, self.incarnation, 0, 0, 7, 0)
        return r.Answer(r.Outcome.OK, created=(write.path,), stats=(stat,))


class Server:
    """A tablet server with one client and one coordinator connection."""

    CLIENT, COORDINATOR = 1, 2

    def __init__(self, disk, **config):
        self.disk, self.config = (
            disk,
            TabletConfig(server_id=3, host="here", port=9124, internal_address="memory:3", **config),
        )
        self.clock, self.network, self.registry = Clock(), Network(), Registry()
        self.announced, self.sequence, self.ids = [], 0, itertools.count(1)
        self.start()

    def start(self):
        self.machine = TabletServer(self.config)
        self.registry.node, self.registry.incarnation = None, INCARNATION - 1
        ports = Ports(self.clock, self.disk, self.network, self.registry, announce=self.announced.append)
        edge = Edge(2, SERVED_BY_TABLET, frozenset({private.UPDATE_CATALOG, private.AWAIT_REPORTS}))
        self.driver = Driver(self.machine, ports, edge)
        self.registry.driver = self.driver
        self.driver.start(Started(self.clock.wall_ms(), "boot", "dir", 1))
        self.driver.post(r.RegistrySessionOpened(7))
        self.driver.run()
        self.driver.connection_opened(self.CLIENT, internal=False)
        self.driver.connection_opened(self.COORDINATOR, internal=True)
        self.sequence = 0

    def pass_ms(self, count):
        """Let time pass, ringing alarms as they come due."""
        end = self.clock.now + count
        while self.clock.alarm is not None and self.clock.alarm <= end:
            self.clock.now, self.clock.alarm = max(self.clock.now, self.clock.alarm), None
            self.driver.wake()
        self.clock.now = end

    def ask(self, api_key, message, connection=CLIENT, version=0):
        """Send a request; return its id."""
        request_id = next(self.ids)
        frame = frames.request_frame(api_key, version, request_id, message.SerializeToString())[4:]
        self.driver.frame_received(connection, memoryview(bytearray(frame)))
        self.machine.check_all()
        return request_id

    def answered(self, request_id, api_key):
        """Return the answer: None, an error response, or the response."""
        found = [(kind, body) for _, kind, sent_id, body in self.network.sent if sent_id == request_id]
        assert len(found) <= 1
        if not found:
            return None
        kind, body = found[0]
        made = private.response_class(api_key) if kind == frames.SUCCESS else messages.ErrorResponse
        return made.FromString(body)

    def call(self, api_key, message, **more):
        """Send a request and return its answer."""
        return self.answered(self.ask(api_key, message, **more), api_key)

    def tell(
        self,
        *,
        buckets=(0,),
        leader=3,
        epoch=1,
        dropped=False,
        table_id=9,
        schemas=(SCHEMA,),
        properties=None,
    ):
        """Be the coordinator: tell the whole catalog, with one table."""
        self.sequence += 1
        update = private.UpdateCatalogRequest(
            coordinator_epoch=1,
            tablet_incarnation=INCARNATION,
            sequence=self.sequence,
            snapshot_begin=True,
            snapshot_end=True,
            nodes_changed=True,
        )
        update.nodes.add(server_id=3, host="here", port=9124, incarnation=INCARNATION)
        update.databases.add(name="d", json=b"{}", created_ms=1, modified_ms=1)
        if not dropped:
            table = {
                "version": 1, "schema": schemas[-1], "partition_key": [], "bucket_key": [],
                "bucket_count": len(buckets), "properties": properties or {}, "custom_properties": {},
            }  # fmt: skip
            entry = update.tables.add(
                database="d", name="t", table_id=table_id, json=json.dumps(table).encode(),
                schema_id=len(schemas),
            )  # fmt: skip
            for schema_id, schema in enumerate(schemas, 1):
                entry.schemas.add(schema_id=schema_id, json=json.dumps(schema).encode())
        for bucket in buckets:
            entry = update.buckets.add(
                table_id=table_id, bucket=bucket, dropped=dropped, leader_epoch=epoch
            )
            if not dropped:
                entry.leader_id, entry.leader_incarnation, entry.min_isr = leader, INCARNATION, 1
                entry.isr.append(3)
                entry.replicas.append(3)
        return self.call(private.UPDATE_CATALOG, update, connection=self.COORDINATOR)

    def poll(self, wall_ms):
        """Be the coordinator: ask for news."""
        request = private.AwaitReportsRequest(
            coordinator_epoch=1,
            tablet_incarnation=INCARNATION,
            after_sequence=0,
            wait_ms=1,
            wall_ms=wall_ms,
        )
        return self.ask(private.AWAIT_REPORTS, request, connection=self.COORDINATOR)

    def produce(self, *batches, bucket=0, acks=-1, table_id=9, timeout_ms=30_000):
        """Send a produce request of one bucket; return its id."""
        request = messages.ProduceLogRequest(acks=acks, table_id=table_id, timeout_ms=timeout_ms)
        request.buckets_req.add(bucket_id=bucket, records=b"".join(batches))
        return self.ask(ApiKey.PRODUCE_LOG, request)

    def produced(self, *batches, **more):
        """Send a produce request and return the answer of its bucket."""
        answer = self.answered(self.produce(*batches, **more), ApiKey.PRODUCE_LOG)
        return answer.buckets_resp[0] if answer is not None else None

    def fetch(
        self, offset, *, min_bytes=1, wait_ms=500, bucket=0, max_bytes=1 << 20, table_id=9, columns=()
    ):
        """Send a fetch of one bucket; return its id."""
        request = messages.FetchLogRequest(
            follower_server_id=-1, max_bytes=max_bytes, min_bytes=min_bytes, max_wait_ms=wait_ms
        )
        table = request.tables_req.add(
            table_id=table_id, projection_pushdown_enabled=bool(columns), projected_fields=columns
        )
        table.buckets_req.add(bucket_id=bucket, fetch_offset=offset, max_fetch_bytes=max_bytes)
        return self.ask(ApiKey.FETCH_LOG, request)

    def restart(self, *, orderly=False):
        """End the process, by SIGKILL unless *orderly*, and begin the next one."""
        if orderly:
            self.driver.stop()
        self.start()

    def fetched(self, request_id):
        """Return the answer of a fetch's bucket, None while it is parked."""
        answer = self.answered(request_id, ApiKey.FETCH_LOG)
        return answer.tables_resp[0].buckets_resp[0] if answer is not None else None


@pytest.fixture
def server(memory_disk):
    """A server that was told of a table 9 with one bucket, which it leads."""
    server = Server(memory_disk)
    server.tell()
    return server


class Keyed:
    """Calls to the primary-key table 9 of a server: a (INT) is the key, b is a STRING."""

    TYPES = (DataType("INTEGER", nullable=False), DataType("STRING"))

    def __init__(self, server):
        self.server, self.properties, self.schemas = server, dict(KEYED), (KEYED_SCHEMA,)
        self.codec = row_codec(RowFormat.COMPACTED, self.TYPES)

    def tell(self, **more):
        return self.server.tell(schemas=self.schemas, properties=self.properties, **more)

    def key(self, a):
        return key_encoder(None, self.TYPES[:1]).encode([a])

    def batch(self, rows, *, writer_id=-1, sequence=-1, schema_id=1):
        """A batch of (a, b) to upsert, or of a to delete."""
        records = [
            (self.key(row), None) if isinstance(row, int) else (self.key(row[0]), self.codec.encode(row))
            for row in rows
        ]
        return build_kv_batch(records, schema_id=schema_id, writer_id=writer_id, batch_sequence=sequence)

    def ask_put(self, *rows, bucket=0, acks=-1, timeout_ms=30_000, targets=(), batch=None, **more):
        """Send a put of one bucket; return its id."""
        request = messages.PutKvRequest(
            acks=acks, table_id=9, timeout_ms=timeout_ms, target_columns=targets
        )
        batch = self.batch(rows, **more) if batch is None else batch
        request.buckets_req.add(bucket_id=bucket, records=batch)
        return self.server.ask(ApiKey.PUT_KV, request)

    def put(self, *rows, **more):
        """Send a put, and return the answer of its bucket; None while it waits."""
        return self.put_answer(self.ask_put(*rows, **more))

    def put_answer(self, request_id):
        """Return the answer of the bucket of a put; None while it waits."""
        answer = self.server.answered(request_id, ApiKey.PUT_KV)
        return answer.buckets_resp[0] if answer is not None else None

    def ask_lookup(self, *keys, bucket=0, api=ApiKey.LOOKUP, **more):
        make = messages.LookupRequest if api == ApiKey.LOOKUP else messages.PrefixLookupRequest
        request = make(table_id=9, **more)
        request.buckets_req.add(bucket_id=bucket, keys=[self.key(key) for key in keys])
        return self.server.ask(api, request)

    def looked_up(self, request_id):
        """What a lookup found: rows and None, an error code, or "waits"."""
        answer = self.server.answered(request_id, ApiKey.LOOKUP)
        if answer is None:
            return "waits"
        (bucket,) = answer.buckets_resp
        if bucket.error_code:
            return bucket.error_code
        return [self.row(value.values) if value.HasField("values") else None for value in bucket.values]

    def lookup(self, *keys, **more):
        return self.looked_up(self.ask_lookup(*keys, **more))

    def row(self, value):
        """Read a stored value of schema 1."""
        assert value[:2] == b"\x01\x00"
        return self.codec.decode(value[2:])


@pytest.fixture
def make_keyed(memory_disk):
    """Make a server that was told of nothing, and calls to its primary-key table."""
    return lambda **config: Keyed(Server(memory_disk, **config))


@pytest.fixture
def keyed(make_keyed):
    """Calls to a primary-key table 9 with one bucket, which its server leads."""
    keyed = make_keyed()
    keyed.tell()
    return keyed


@pytest.fixture
def make_server(memory_disk):
    """Make a server with a configuration of the test's own, told of nothing."""
    return lambda **config: Server(memory_disk, **config)


@pytest.fixture
def batch():
    """Make one batch."""

    def make(sequence=-1, count=1, writer_id=-1, payload=b"x"):
        return build_batch(payload, record_count=count, writer_id=writer_id, batch_sequence=sequence)

    return make
