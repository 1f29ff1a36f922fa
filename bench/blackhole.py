"""A server that acknowledges every write at once and answers every read from one batch: the client's limit.

    python bench/blackhole.py [--port N]        prints `blackhole ready bootstrap.servers=HOST:PORT`

What the official client reaches here is the ceiling for any server. Of a table it keeps its description,
the largest batch, and how many records each bucket was sent; reads get that batch again and again with
rising offsets, up to that count, and projections by flussd's own code; a read that found nothing is
answered by the next write. Nothing is verified, so it must serve nothing but benches. A thread a
connection: blocking calls are the cheapest there are.
"""

from __future__ import annotations

import argparse
import json
import socket
import struct
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import attrs

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

from flussd.core.edge.frames import error_frame, response_frame, response_head
from flussd.core.records.batch import read_head
from flussd.core.records.project import Projection, Projections, layout_of
from flussd.core.wire import hot, messages
from flussd.core.wire.apis import ApiKey
from flussd.core.wire.errors import ErrorCode
from flussd.runtime_real.sockets import quick_ack

HOST = "127.0.0.1"
BUFFER_BYTES = 4 << 20
"""Two of the client's largest writes; a longer frame doubles it."""
ANSWER_BYTES = 1 << 20
"""Records of one answer, as any server gives per bucket by the client's default."""
PARK_SECONDS = 0.5
"""How long a read that found nothing waits, so that a client behind the end does not spin."""
REQUEST = struct.Struct(">ihhi")
OFFSET = struct.Struct("<q")
LENGTH_AND_MAGIC = struct.Struct("<ib")
RECORD_COUNT = struct.Struct("<i")
EARLIEST = 0
PRODUCE_LOG, FETCH_LOG = int(ApiKey.PRODUCE_LOG), int(ApiKey.FETCH_LOG)


def varint(data: bytearray, at: int) -> tuple[int, int]:
    """Return a number and where the next byte is."""
    number = data[at]
    if number < 0x80:
        return number, at + 1
    number, shift = number & 0x7F, 7
    while (byte := data[at + 1]) >= 0x80:
        number, shift, at = number | (byte & 0x7F) << shift, shift + 7, at + 1
    return number | byte << shift, at + 2


@attrs.define(eq=False)
class Table:
    """What is known of a table: its description, its largest batch and the ends of its buckets."""

    table_id: int
    table_json: bytes
    batch: bytes = b""
    ends: dict[int, int] = attrs.Factory(dict)

    def take(self, data: bytearray, at: int, end: int, bucket: int) -> None:
        """Count the records of one bucket, and keep the largest batch."""
        count = 0
        while at < end:
            length, magic = LENGTH_AND_MAGIC.unpack_from(data, at + 8)
            count += RECORD_COUNT.unpack_from(data, at + (48 if magic == 2 else 44))[0]
            if 12 + length > len(self.batch):
                self.batch = bytes(memoryview(data)[at : at + 12 + length])
            at += 12 + length
        self.ends[bucket] = self.ends.get(bucket, 0) + count

    def projected(self, columns: tuple[int, ...]) -> bytes:
        """Return the kept batch with these *columns* only, or whole if there are none."""
        if not columns or not self.batch:
            return self.batch
        layouts = {1: layout_of(json.loads(self.table_json)["schema"]["columns"])}
        return b"".join(Projections().apply([self.batch], Projection(columns, layouts)))


@attrs.define(eq=False)
class Copies:
    """One batch many times over, so that an answer of any number of batches is one slice."""

    source: bytes
    data: bytearray
    batch_bytes: int
    record_count: int

    @classmethod
    def of(cls, table: Table, columns: tuple[int, ...]) -> Copies:
        one = table.projected(columns)
        head = read_head(memoryview(one), 0)
        count = max(1, ANSWER_BYTES // max(1, len(one)))
        return cls(
            table.batch, bytearray(one * count), len(one), head.record_count if head is not None else 0
        )

    def records(self, offset: int, end: int, max_bytes: int) -> memoryview | bytes:
        """Return whole batches of [offset, end), stamped; one at least, if there is one."""
        if not self.record_count:
            return b""
        fits = min(max(1, max_bytes // self.batch_bytes), len(self.data) // self.batch_bytes)
        count = min(fits, (end - offset) // self.record_count)
        for n in range(count):
            OFFSET.pack_into(self.data, n * self.batch_bytes, offset + n * self.record_count)
        return memoryview(self.data)[: count * self.batch_bytes] if count > 0 else b""


@attrs.define(eq=False)
class ParkedRead:
    """A read that found nothing, and what it gets if that stays so for `PARK_SECONDS`."""

    connection: Connection
    request_id: int
    body: bytes
    answer: list[bytes | memoryview]
    tables: frozenset[int]


@attrs.define(eq=False)
class Blackhole:
    """The tables, and the answers of all but the two hot APIs."""

    port: int
    tables: dict[tuple[str, str], Table] = attrs.Factory(dict)
    by_id: dict[int, Table] = attrs.Factory(dict)
    parked: list[ParkedRead] = attrs.Factory(list)
    parking: threading.Lock = attrs.Factory(threading.Lock)  # held from looking for records to parking

    def park(self, read: ParkedRead) -> None:
        """Let *read* wait; the caller holds `parking`."""
        self.parked.append(read)
        timer = threading.Timer(PARK_SECONDS, self.expire, [read])
        timer.daemon = True
        timer.start()

    def wake(self, table_id: int) -> None:
        """Look again for all who wait for this table."""
        with self.parking:
            woken = [read for read in self.parked if table_id in read.tables]
            for read in woken:
                self.parked.remove(read)
        for read in woken:
            read.connection.fetch(read.request_id, read.body)

    def expire(self, read: ParkedRead) -> None:
        """Answer *read*, unless a write did."""
        with self.parking:
            if read not in self.parked:
                return
            self.parked.remove(read)
        read.connection.send_later(read.answer)

    def answer(self, key: int, body: memoryview) -> Any:
        """Return the response message, None if there is no such table."""
        if key not in ANSWERS:
            return None
        request = messages.request_class(key)()
        request.ParseFromString(bytes(body))
        return ANSWERS[key](self, request)

    def create_table(self, request: messages.CreateTableRequest) -> Any:
        table = Table(100 + len(self.by_id), request.table_json)
        path = request.table_path
        self.tables[path.database_name, path.table_name] = self.by_id[table.table_id] = table
        return messages.CreateTableResponse()

    def find(self, path: messages.PbTablePath) -> Table | None:
        return self.tables.get((path.database_name, path.table_name))

    def metadata(self, request: messages.MetadataRequest) -> Any:
        response = messages.MetadataResponse()
        server = response.coordinator_server
        server.node_id, server.host, server.port = 0, HOST, self.port
        response.tablet_servers.add(node_id=0, host=HOST, port=self.port)
        for path in request.table_path:
            if (table := self.find(path)) is None:
                return None
            found = response.table_metadata.add(
                table_id=table.table_id,
                schema_id=1,
                table_json=table.table_json,
                created_time=1,
                modified_time=1,
            )
            found.table_path.CopyFrom(path)
            for bucket in range(json.loads(table.table_json)["bucket_count"]):
                found.bucket_metadata.add(bucket_id=bucket, leader_id=0, replica_id=[0], leader_epoch=0)
        return response

    def table_info(self, request: messages.GetTableInfoRequest) -> Any:
        if (table := self.find(request.table_path)) is None:
            return None
        return messages.GetTableInfoResponse(
            table_id=table.table_id,
            schema_id=1,
            table_json=table.table_json,
            created_time=1,
            modified_time=1,
        )

    def table_schema(self, request: messages.GetTableSchemaRequest) -> Any:
        if (table := self.find(request.table_path)) is None:
            return None
        schema = json.dumps(json.loads(table.table_json)["schema"]).encode()
        return messages.GetTableSchemaResponse(schema_id=1, schema_json=schema)

    def list_offsets(self, request: messages.ListOffsetsRequest) -> Any:
        response = messages.ListOffsetsResponse()
        ends = self.by_id[request.table_id].ends
        for bucket in request.bucket_id:
            offset = 0 if request.offset_type == EARLIEST else ends.get(bucket, 0)
            response.buckets_resp.add(bucket_id=bucket, offset=offset)
        return response


def api_versions(_blackhole: Blackhole, _request: object) -> Any:
    """List what is answered, in its first version."""
    response = messages.ApiVersionsResponse()
    for key in (*ANSWERS, ApiKey.PRODUCE_LOG, ApiKey.FETCH_LOG):
        response.api_versions.add(api_key=key, min_version=0, max_version=0)
    return response


ANSWERS: dict[int, Callable[[Blackhole, Any], Any]] = {
    ApiKey.API_VERSIONS: api_versions,
    ApiKey.CREATE_DATABASE: lambda _blackhole, _request: messages.CreateDatabaseResponse(),
    ApiKey.DROP_DATABASE: lambda _blackhole, _request: messages.DropDatabaseResponse(),
    ApiKey.CREATE_TABLE: Blackhole.create_table,
    ApiKey.DROP_TABLE: lambda _blackhole, _request: messages.DropTableResponse(),
    ApiKey.GET_METADATA: Blackhole.metadata,
    ApiKey.GET_TABLE_INFO: Blackhole.table_info,
    ApiKey.GET_TABLE_SCHEMA: Blackhole.table_schema,
    ApiKey.INIT_WRITER: lambda _blackhole, _request: messages.InitWriterResponse(writer_id=1),
    ApiKey.LIST_OFFSETS: Blackhole.list_offsets,
}


@attrs.define(eq=False)
class Connection:
    """One client: its thread reads and answers in order, and wakes who waits for what it got."""

    blackhole: Blackhole
    peer: socket.socket
    written_id: int = -1  # the table of its latest write
    copies: dict[tuple[int, int, tuple[int, ...]], Copies] = attrs.Factory(dict)
    lock: threading.Lock = attrs.Factory(threading.Lock)

    def run(self) -> None:
        """Serve until the client goes away."""
        try:
            self.serve()
        except OSError:
            self.peer.close()

    def serve(self) -> None:
        buffer = bytearray(BUFFER_BYTES)
        view, have = memoryview(buffer), 0
        while count := self.peer.recv_into(view[have:]):
            have += count
            at, answers = 0, list[bytes]()
            while have - at >= REQUEST.size:
                length, key, _version, request_id = REQUEST.unpack_from(buffer, at)
                start, end = at + REQUEST.size, at + 4 + length
                if end > have:
                    break
                if key == PRODUCE_LOG:
                    answers.append(response_frame(request_id, self.produce(buffer, start, end)))
                elif key == FETCH_LOG:
                    self.fetch(request_id, view[start:end])
                else:
                    answers.append(self.answer(key, request_id, view[start:end]))
                at = end
            if answers:
                self.send(answers)
                if self.blackhole.parked and key == PRODUCE_LOG:
                    self.blackhole.wake(self.written_id)
            if at < have:
                view[: have - at] = view[at:have]
            have -= at
            if have == len(view):
                buffer = buffer + bytes(len(buffer))
                view = memoryview(buffer)

    def answer(self, key: int, request_id: int, body: memoryview) -> bytes:
        found = self.blackhole.answer(key, body)
        if found is None:
            return error_frame(request_id, ErrorCode.TABLE_NOT_EXIST, "no such table")
        return response_frame(request_id, found.SerializeToString())

    def produce(self, data: bytearray, at: int, end: int) -> bytes:
        """Acknowledge every bucket at offset 0: the client looks at errors only."""
        table, answers = None, b""
        while at < end:
            tag, (number, at) = data[at], varint(data, at + 1)
            if tag == 0x10:
                table, self.written_id = self.blackhole.by_id[number], number
            elif tag == 0x22 and table is not None:
                bucket, stop = 0, at + number
                while at < stop:
                    inner, (value, at) = data[at], varint(data, at + 1)
                    if inner == 0x10:
                        bucket = value
                    elif inner == 0x1A:
                        table.take(data, at, at + value, bucket)
                        at += value
                answers += bytes((0x0A, 4, 0x10, bucket, 0x28, 0))
        return answers

    def fetch(self, request_id: int, body: memoryview | bytes) -> None:
        """Send what there is; if that is nothing, wait for a write."""
        with self.blackhole.parking:
            asked = messages.FetchLogRequest.FromString(body)
            found, answer = self.look(request_id, asked)
            if not found:
                tables = frozenset(one.table_id for one in asked.tables_req)
                self.blackhole.park(ParkedRead(self, request_id, bytes(body), answer, tables))
        if found:
            self.send_later(answer)
        else:  # the client holds its next request back until this one is acknowledged
            quick_ack(self.peer)

    def look(
        self, request_id: int, request: messages.FetchLogRequest
    ) -> tuple[bool, list[bytes | memoryview]]:
        """Return whether there are records, and the answer with them."""
        found, tables = False, []
        for asked in request.tables_req:
            columns = tuple(asked.projected_fields) if asked.projection_pushdown_enabled else ()
            table = self.blackhole.by_id[asked.table_id]
            buckets = []
            for bucket in asked.buckets_req:
                end = table.ends.get(bucket.bucket_id, 0)
                copies = self.copies_of(table, bucket.bucket_id, columns)
                records = copies.records(max(0, bucket.fetch_offset), end, bucket.max_fetch_bytes)
                found = found or len(records) > 0
                buckets.append(
                    hot.FetchBucketResult(None, bucket.bucket_id, high_watermark=end, records=(records,))
                )
            tables.append(hot.FetchTableResult(asked.table_id, tuple(buckets)))
        parts = hot.fetch_response_parts(tables)
        return found, [response_head(request_id, sum(map(len, parts))), *parts]

    def copies_of(self, table: Table, bucket: int, columns: tuple[int, ...]) -> Copies:
        key = (table.table_id, bucket, columns)
        copies = self.copies.get(key)
        if copies is None or copies.source is not table.batch:
            copies = self.copies[key] = Copies.of(table, columns)
        return copies

    def send(self, parts: Sequence[bytes | memoryview]) -> None:
        with self.lock:
            if len(parts) == 1:
                self.peer.sendall(parts[0])
                return
            left = sum(map(len, parts)) - self.peer.sendmsg(parts)
            if left:  # a signal came in between
                self.peer.sendall(b"".join(parts)[-left:])

    def send_later(self, parts: Sequence[bytes | memoryview]) -> None:
        """Send on the thread of another connection, or of a timer."""
        try:
            self.send(parts)
        except OSError:
            self.peer.close()


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, default=0)
    options = parser.parse_args()
    listening = socket.create_server((HOST, options.port), backlog=64)
    blackhole = Blackhole(listening.getsockname()[1])
    print(f"blackhole ready bootstrap.servers={HOST}:{blackhole.port}", flush=True)
    while True:
        peer, _ = listening.accept()
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=Connection(blackhole, peer).run, daemon=True).start()


if __name__ == "__main__":
    main()
