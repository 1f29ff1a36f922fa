"""A real server in a process of its own, and blocking connections to it. No target itself."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import attrs
from simulated import descriptor, path
from traffic import DATABASE, PARTITION, PARTITIONED, TABLES, Names, descriptor_of
from trials import WrongAnswer

from flussd.core.edge.frames import request_frame
from flussd.core.records.batch import build_batch
from flussd.core.wire import messages
from flussd.core.wire.apis import ApiKey

SOURCE: Final = Path(__file__).parents[1] / "src"
PROBE_S: Final = 1.0
"""A good request is answered within this, whatever others do."""

START_S: Final = 30.0
WATCHED: Final = "watched"
OWN_DATABASES: Final = frozenset({DATABASE, WATCHED, "fluss"})
OWN_ID: Final = 7


def receive(peer: socket.socket, size_bytes: int) -> bytes:
    """Return exactly *size_bytes*; raise EOFError at the end of the stream."""
    data = bytearray()
    while len(data) < size_bytes:
        piece = peer.recv(min(1 << 20, size_bytes - len(data)))
        if not piece:
            raise EOFError
        data += piece
    return bytes(data)


def receive_frame(peer: socket.socket) -> bytes:
    """Return the next frame without its length."""
    (size_bytes,) = struct.unpack(">i", receive(peer, 4))
    return receive(peer, size_bytes)


@attrs.define(eq=False)
class Good:
    """A connection on which nothing but good requests are sent, and each must succeed in time."""

    peer: socket.socket
    slowest_s: float = 0.0

    def ask(self, api_key: int, message: Any) -> Any:
        """Ask; return the answer."""
        began = time.monotonic()
        self.peer.settimeout(10 * PROBE_S)
        try:
            self.peer.sendall(request_frame(api_key, 0, OWN_ID, message.SerializeToString()))
            frame = receive_frame(self.peer)
        except (OSError, EOFError) as error:
            raise WrongAnswer(f"a good request of API key {api_key}: {error!r}") from None
        took_s = time.monotonic() - began
        self.slowest_s = max(took_s, self.slowest_s)
        kind, request_id = struct.unpack_from(">bi", frame)
        if (kind, request_id) != (0, OWN_ID):
            raise WrongAnswer(
                f"a good request of API key {api_key} got {messages.ErrorResponse.FromString(frame[5:])}"
            )
        if took_s > PROBE_S:
            raise WrongAnswer(f"a good request of API key {api_key} took {took_s:.1f} s")
        return messages.response_class(api_key).FromString(frame[5:])


@attrs.define(eq=False)
class Server:
    """A `flussd local` with the tables of `traffic`, and a table `watched.t` for good requests."""

    folder: Path = attrs.Factory(lambda: Path(tempfile.mkdtemp(prefix="flussd-fuzz-")))
    process: subprocess.Popen[str] = attrs.field(init=False)
    addresses: list[tuple[str, int]] = attrs.Factory(list)  # coordinator, tablet server
    good: list[Good] = attrs.Factory(list)  # the same
    watched_id: int = -1
    written: list[tuple[int, bytes]] = attrs.Factory(list)  # offset and payload of good writes

    def start(self) -> Server:
        """Start it on what the folder holds, and make the tables that are missing."""
        errors = (self.folder / "stderr").open("a", encoding="utf-8")
        command = [sys.executable, "-m", "flussd.cli.flussd", "local", "--port", "0"]
        command += ["--data-dir", str(self.folder / "data")]
        environment = os.environ | {"PYTHONPATH": str(SOURCE)}
        with errors:
            self.process = subprocess.Popen(
                command, env=environment, text=True, stdout=subprocess.PIPE, stderr=errors
            )
        assert self.process.stdout is not None
        ready = self.process.stdout.readline()
        found = re.search(r"bootstrap\.servers=([^:\s]+):(\d+)", ready)
        if found is None:
            raise WrongAnswer(f"the server does not start: {ready}{self.errors()}")
        self.addresses = [(found[1], int(found[2]))]
        self.good = [Good(self.connect(0))]
        (tablet,) = self.good[0].ask(ApiKey.GET_METADATA, messages.MetadataRequest()).tablet_servers
        self.addresses.append((tablet.host, tablet.port))
        self.good.append(Good(self.connect(1)))
        self.make_tables()
        return self

    def connect(self, server: int) -> socket.socket:
        """Return a new connection."""
        try:
            peer = socket.create_connection(self.addresses[server], timeout=PROBE_S)
        except OSError as error:
            raise WrongAnswer(f"cannot connect: {error!r}: {self.errors()}") from None
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return peer

    def errors(self) -> str:
        """Return the end of what it said on standard error."""
        return (self.folder / "stderr").read_text(encoding="utf-8")[-3000:]

    def rss_bytes(self) -> int:
        """Return what it has in memory."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text(encoding="ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def descriptor_count(self) -> int:
        """Return how many files and sockets it has open."""
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    @property
    def is_alive(self) -> bool:
        """Whether it still runs."""
        return self.process.poll() is None

    def stop(self) -> int:
        """Stop it in order; return its exit status."""
        for good in self.good:
            good.peer.close()
        self.process.send_signal(signal.SIGTERM)
        try:
            status = self.process.wait(START_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            status = self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
        return status

    def remove(self) -> None:
        """End it, and remove all that it left."""
        if self.is_alive:
            self.process.kill()
        self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    # ---- good requests -------------------------------------------------------------------------

    def make_tables(self) -> None:
        """Make the tables that there are not yet."""
        ask = self.good[0].ask
        for database in (WATCHED, DATABASE):
            ask(
                ApiKey.CREATE_DATABASE,
                messages.CreateDatabaseRequest(database_name=database, ignore_if_exists=True),
            )
        self.watched_id = self._make_table(WATCHED, "t", descriptor(buckets=1))
        ids = [self._make_table(DATABASE, name, descriptor_of(name)) for name in TABLES]
        made = path(messages.CreatePartitionRequest(ignore_if_not_exists=True), DATABASE, PARTITIONED)
        made.partition_spec.partition_key_values.add(key="p", value=PARTITION)
        ask(ApiKey.CREATE_PARTITION, made)
        if (found := Names(tuple(ids), 0)) != Names():
            raise WrongAnswer(f"tables: expected {Names()}, got {found}")

    def _make_table(self, database: str, name: str, described: bytes) -> int:
        asked = path(
            messages.CreateTableRequest(table_json=described, ignore_if_exists=True), database, name
        )
        self.good[0].ask(ApiKey.CREATE_TABLE, asked)
        return int(
            self.good[0]
            .ask(ApiKey.GET_TABLE_INFO, path(messages.GetTableInfoRequest(), database, name))
            .table_id
        )

    def probe(self) -> None:
        """Ask both servers who is there, write a batch, and read it and an earlier one."""
        if not self.is_alive:
            raise WrongAnswer(f"the server ended with {self.process.returncode}: {self.errors()}")
        for good in self.good:
            metadata = messages.MetadataRequest()
            metadata.table_path.add(database_name=WATCHED, table_name="t")
            (table,) = good.ask(ApiKey.GET_METADATA, metadata).table_metadata
            if table.table_id != self.watched_id:
                raise WrongAnswer(f"metadata: expected table {self.watched_id}, got {table}")
        payload = b"probe %d" % len(self.written)
        request = messages.ProduceLogRequest(acks=-1, table_id=self.watched_id, timeout_ms=1000)
        request.buckets_req.add(bucket_id=0, records=build_batch(payload, record_count=1))
        end = time.monotonic() + PROBE_S
        while True:
            (bucket,) = self.good[1].ask(ApiKey.PRODUCE_LOG, request).buckets_resp
            if not bucket.error_code:
                break
            if self.written or time.monotonic() > end:  # only a new table may have no leader yet
                raise WrongAnswer(f"a good write got {bucket}")
        self.written.append((bucket.base_offset, payload))
        self.read(-1)
        self.read(len(self.written) // 2)

    def read(self, n: int) -> None:
        """Read the *n*th good write."""
        offset, payload = self.written[n]
        fetch = messages.FetchLogRequest(follower_server_id=-1, max_bytes=1 << 20)
        table = fetch.tables_req.add(table_id=self.watched_id, projection_pushdown_enabled=False)
        table.buckets_req.add(bucket_id=0, fetch_offset=offset, max_fetch_bytes=1)
        got = self.good[1].ask(ApiKey.FETCH_LOG, fetch).tables_resp[0].buckets_resp[0]
        if got.error_code or payload not in got.records:
            raise WrongAnswer(f"a good read of offset {offset} does not find {payload!r}: {got}")

    def tidy(self) -> None:
        """Drop what strangers created, so that only a leak makes the server grow."""
        ask = self.good[0].ask
        for name in ask(ApiKey.LIST_DATABASES, messages.ListDatabasesRequest()).database_name:
            if name not in OWN_DATABASES:
                dropped = messages.DropDatabaseRequest(
                    database_name=name, ignore_if_not_exists=True, cascade=True
                )
                ask(ApiKey.DROP_DATABASE, dropped)
        for database in sorted(OWN_DATABASES - {WATCHED}):
            listed = messages.ListTablesRequest(database_name=database)
            for name in ask(ApiKey.LIST_TABLES, listed).table_name:
                if name not in TABLES:
                    ask(
                        ApiKey.DROP_TABLE,
                        path(messages.DropTableRequest(ignore_if_not_exists=True), database, name),
                    )
        listed = path(messages.ListPartitionInfosRequest(), DATABASE, PARTITIONED)
        for one in ask(ApiKey.LIST_PARTITION_INFOS, listed).partitions_info:
            if one.partition_spec.partition_key_values[0].value != PARTITION:
                gone = path(messages.DropPartitionRequest(ignore_if_not_exists=True), DATABASE, PARTITIONED)
                gone.partition_spec.CopyFrom(one.partition_spec)
                ask(ApiKey.DROP_PARTITION, gone)
