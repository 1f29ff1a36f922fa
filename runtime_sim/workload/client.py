"""A client node: its connections, requests with a time limit, and what it knows of the cluster.

Speaks real frames. Every request ends exactly once: with a response, with an error, or LOST when nobody can
know. It must never look at a server but through its connections.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import attrs

from flussd.core.edge.frames import (
    FRAME_HEAD_RESPONSE_BYTES,
    SUCCESS,
    FrameBuffer,
    request_frame,
    split_response,
)
from flussd.core.wire import apis, messages
from flussd.core.wire.apis import ApiKey
from flussd.core.wire.errors import ErrorCode
from flussd.runtime_sim.cluster import COORDINATOR_ADDRESS
from flussd.runtime_sim.draws import Stream
from flussd.runtime_sim.network import End, Network
from flussd.runtime_sim.oracles.violation import Oracle, Violation
from flussd.runtime_sim.world import MS, SECOND, World

REQUEST_US: Final = 6 * SECOND
"""A request without an answer for this long ends with its connection."""

LOST: Final = -1000
"""The code of a request whose fate nobody knows."""


@attrs.frozen
class Answer:
    """How a request ended: *message* is None unless it succeeded."""

    message: Any
    code: int = 0
    text: str = ""

    @property
    def is_lost(self) -> bool:
        """Whether nobody knows what became of the request."""
        return self.code == LOST


Done = Callable[[Answer], None]


class Place(NamedTuple):
    """A table, or one of its partitions."""

    database: str
    table: str
    partition: str = ""


class Learned(enum.Enum):
    """How a question for a place ended."""

    FOUND = "it is known where it is"
    FAILED = "nothing is known; ask again"
    GONE = "the coordinator says that there is no such place"


@attrs.define(eq=False, repr=False)
class Peer:
    """One connection to a server, opened when needed."""

    client: Client
    address: str
    end: End | None = None
    is_connecting: bool = False
    waiting: list[tuple[int, bytes]] = attrs.Factory(list)  # request id, frame: not connected yet
    pending: dict[int, tuple[int, Done]] = attrs.Factory(dict)  # request id -> API key
    frames: FrameBuffer = attrs.Factory(lambda: FrameBuffer(min_bytes=FRAME_HEAD_RESPONSE_BYTES))

    def ask(self, api_key: int, body: bytes, done: Done) -> None:
        """Send a request."""
        client = self.client
        client.request_count += 1
        request_id = client.request_count
        self.pending[request_id] = (api_key, done)
        frame = request_frame(api_key, apis.APIS[api_key].max_version, request_id, body)
        client.world.after(REQUEST_US, self._expired, request_id)
        if self.end is not None:
            self.end.send(frame)
            return
        self.waiting.append((request_id, frame))
        if not self.is_connecting:
            self.is_connecting = True
            client.network.connect(client.node, self.address, self, self._connected)

    def _connected(self, end: End | None) -> None:
        self.is_connecting = False
        waiting, self.waiting = self.waiting, []
        if end is None:
            self.lost()
            return
        if not waiting:  # closed in the meantime: nobody wants it (seed 1243)
            end.close()
            return
        self.end = end
        for request_id, frame in waiting:
            if request_id in self.pending:
                end.send(frame)

    def _expired(self, request_id: int) -> None:
        if request_id in self.pending:
            self.close()

    def close(self) -> None:
        """Close; what is pending is lost."""
        if self.end is not None:
            self.end.close()
        self.lost()

    def received(self, payload: bytes) -> None:
        """Bytes of responses came in."""
        for frame in self.frames.feed(payload):
            kind, request_id, body = split_response(frame)
            known = self.pending.pop(request_id, None)
            if known is None:
                text = f"{self.client.name}: an answer to request {request_id}, which is not open"
                raise Violation(Oracle.ANSWERS_MAKE_SENSE, text)
            self.client.answered(known[0], kind == SUCCESS, bytes(body), known[1])

    def lost(self) -> None:
        """The connection is gone, or was never there."""
        self.end, self.waiting = None, []
        self.frames = FrameBuffer(min_bytes=FRAME_HEAD_RESPONSE_BYTES)
        pending, self.pending = self.pending, {}
        if pending:
            self.client.note("lost", f"{self.address}: {len(pending)} requests")
        for _, done in pending.values():
            done(Answer(None, LOST, "the connection broke"))


@attrs.define(eq=False, repr=False)
class Table:
    """What a client knows of a table, or of a partition."""

    table_id: int
    partition_id: int  # -1: it is a table
    leaders: dict[int, int]  # bucket -> server id


@attrs.define(eq=False, repr=False)
class Client:
    """One client node."""

    node: int
    name: str
    network: Network
    draws: Stream
    world: World = attrs.field(init=False)
    peers: dict[str, Peer] = attrs.Factory(dict)
    servers: dict[int, str] = attrs.Factory(dict)  # id -> address
    tables: dict[Place, Table] = attrs.Factory(dict)
    schema_ids: dict[str, int] = attrs.Factory(dict)  # of tables, by name: the newest that is known
    request_count: int = 0
    is_stopping: bool = False  # starts nothing new

    def __attrs_post_init__(self) -> None:
        self.world = self.network.world

    def note(self, kind: str, text: str) -> None:
        """Tell the story."""
        self.world.story.line(self.world.now_us, self.name, kind, text)

    def ask(self, address: str, api_key: int, message: Any, done: Done) -> None:
        """Send a request to the server at *address*."""
        self.ask_bytes(address, api_key, message.SerializeToString(deterministic=True), done)

    def ask_bytes(self, address: str, api_key: int, body: bytes, done: Done) -> None:
        """Send a request whose body is encoded already."""
        peer = self.peers.get(address)
        if peer is None:
            peer = self.peers[address] = Peer(self, address)
        peer.ask(api_key, body, done)

    def answered(self, api_key: int, succeeded: bool, body: bytes, done: Done) -> None:  # noqa: FBT001
        """Take a response in."""
        self.world.delivered(self.node, (api_key, succeeded, body))
        if succeeded:
            done(Answer(messages.response_class(api_key).FromString(body)))
        else:
            error = messages.ErrorResponse.FromString(body)
            done(Answer(None, error.error_code, error.error_message))

    def leave(self) -> None:
        """Close all connections."""
        self.is_stopping = True
        for peer in self.peers.values():
            peer.close()

    def later(self, least_ms: int, most_ms: int, call: Callable[..., None], *arguments: Any) -> None:
        """Call *call* in a drawn while."""
        self.world.after(self.draws.between(least_ms * MS, most_ms * MS), call, *arguments)

    # ---- metadata ------------------------------------------------------------------------------

    def any_server(self) -> str:
        """Return the address of some server that is known."""
        return self.draws.choice([COORDINATOR_ADDRESS, *self.servers.values()])

    def learn(self, place: Place, done: Callable[[Learned], None]) -> None:
        """Ask some server where a place is."""
        request = messages.MetadataRequest()
        request.table_path.add(database_name=place.database, table_name=place.table)
        if place.partition:
            request.partitions_path.add(
                database_name=place.database, table_name=place.table, partition_name=place.partition
            )
        address = self.any_server()

        def answered(answer: Answer) -> None:
            done(self._learned(place, address, answer))

        self.ask(address, ApiKey.GET_METADATA, request, answered)

    def _learned(self, place: Place, address: str, answer: Answer) -> Learned:
        if answer.message is None:
            # A tablet server may not have heard of it yet.
            is_gone = address == COORDINATOR_ADDRESS and answer.code == ErrorCode.PARTITION_NOT_EXISTS
            return Learned.GONE if is_gone else Learned.FAILED
        message = answer.message
        self.servers = {server.node_id: f"{server.host}:{server.port}" for server in message.tablet_servers}
        for table in message.table_metadata:
            known = self.schema_ids.get(place.table, 1)
            self.schema_ids[place.table] = max(known, table.schema_id)
            if not place.partition:
                self.tables[place] = Table(table.table_id, -1, _leaders(table))
        for partition in message.partition_metadata:
            self.tables[place] = Table(partition.table_id, partition.partition_id, _leaders(partition))
        return Learned.FOUND

    def leader_of(self, place: Place, bucket: int) -> str | None:
        """Return the address of a bucket's leader, as far as is known."""
        table = self.tables.get(place)
        return self.servers.get(table.leaders.get(bucket, -1)) if table is not None else None


def _leaders(metadata: Any) -> dict[int, int]:
    return {
        bucket.bucket_id: bucket.leader_id
        for bucket in metadata.bucket_metadata
        if bucket.HasField("leader_id")
    }
