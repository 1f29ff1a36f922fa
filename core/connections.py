"""Requests, replies and connections, as machines see them.

A connection is an integer that is never used twice within one process. A request is named by
(connection, request_id); each gets exactly one of the reply effects, or its connection is closed.
Messages are protobuf objects, read-only for everyone but the one who built them.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import attrs

from flussd.core.machine import hot_message
from flussd.core.records.batch import BatchHead, BatchProblem
from flussd.core.records.predicate import Filter
from flussd.core.records.project import Projection

Span: TypeAlias = tuple[str, int, int]  # file, position, size in bytes


@attrs.frozen
class ConnectionOpened:
    """A peer connected; *internal*: on the listener that only servers of this cluster reach."""

    connection: int
    internal: bool


@attrs.frozen
class ConnectionClosed:
    """*connection* is gone, with all requests that were not answered."""

    connection: int


@attrs.frozen
class RequestReceived:
    """A request without payload came in whole; *message* is of the API's request class.

    *client* is what its client calls itself, if it said so in API_VERSIONS.
    """

    connection: int
    request_id: int
    api_key: int
    api_version: int
    message: Any
    wall_ms: int
    internal: bool = False
    client: str = ""


@hot_message
class ProducedBucket:
    """What one bucket of a produce request holds; *records* lives until the step's effects are done.

    *heads* are the whole batches in order; bytes of *records* beyond the last one are not to be
    stored. With a *problem* nothing may be stored.
    """

    partition_id: int | None
    bucket: int
    records: memoryview
    heads: tuple[BatchHead, ...]
    problem: BatchProblem | None = None
    problem_text: str = ""


@hot_message
class ProduceReceived:
    """PRODUCE_LOG, parsed by hand, its checksums checked at the edge."""

    connection: int
    request_id: int
    acks: int
    table_id: int
    timeout_ms: int
    wall_ms: int
    buckets: tuple[ProducedBucket, ...]


@attrs.frozen
class Reply:
    """Answer the request with *message*, of the API's response class."""

    connection: int
    request_id: int
    message: Any


@attrs.frozen
class Greeting(Reply):
    """Answer API_VERSIONS, and remember what the client calls itself."""

    client: str = ""


@attrs.frozen
class ReplyError:
    """Answer the request with an error of the whole request; *text* may be empty."""

    connection: int
    request_id: int
    code: int
    text: str = ""


@hot_message
class ProduceAnswer:
    """How one bucket of a produce request ended: *base_offset* counts only when *error_code* is 0."""

    partition_id: int | None
    bucket: int
    base_offset: int
    error_code: int = 0
    error_text: str = ""


@hot_message
class ReplyProduce:
    """Answer a PRODUCE_LOG request."""

    connection: int
    request_id: int
    answers: tuple[ProduceAnswer, ...]


@attrs.frozen
class FetchAnswer:
    """What one bucket of a fetch gets: an error, or its watermark and the bytes of *spans*.

    *verify*: the bytes were not checked since this process started; the driver checks each batch's
    CRC, sends what is good before the first bad one, and answers 3 (and tells the machine,
    SpansUnreadable) when there is none. It leaves out the batches that *filter* drops, and says up to
    which offset it did. With *limit_bytes*, of the batches that *projection* makes only as many as fit.
    """

    partition_id: int | None
    bucket: int
    high_watermark: int = -1
    spans: tuple[Span, ...] = ()
    error_code: int = 0
    error_text: str = ""
    verify: bool = False
    projection: Projection | None = None
    log_start_offset: int = 0
    filter: Filter | None = None
    limit_bytes: int = 0


@attrs.frozen
class FetchAnswerTable:
    """The buckets of one table in a fetch answer, in the order in which they were asked."""

    table_id: int
    buckets: tuple[FetchAnswer, ...]


@attrs.frozen
class ScanAnswer:
    """What a LIMIT_SCAN gets: an error, or the batches of *spans* that hold *from_offset* and later ones.

    *verify* is as in a FetchAnswer; here one bad batch makes an error of the whole answer.
    """

    from_offset: int = 0
    spans: tuple[Span, ...] = ()
    error_code: int = 0
    error_text: str = ""
    verify: bool = False


@attrs.frozen
class SendSpans:
    """Answer with records, the tables of a FETCH_LOG or a LIMIT_SCAN.

    The driver reads the spans and sends them; the machine sees no bytes.
    """

    connection: int
    request_id: int
    answer: tuple[FetchAnswerTable, ...] | ScanAnswer


@attrs.frozen
class SpansUnreadable:
    """Bytes of *file* that SendSpans named cannot be read or fail their checksum (*text*)."""

    file: str
    position: int
    text: str


@attrs.frozen
class CloseConnection:
    """Close *connection*; ConnectionClosed follows."""

    connection: int


@attrs.frozen
class Connect:
    """Open an internal connection to server *address* (host:port). Answer: Connected."""

    token: int
    address: str


@attrs.frozen
class Connected:
    """Connect *token* is done; *connection* is None when it was refused or took too long."""

    token: int
    connection: int | None


@attrs.frozen
class SendRequest:
    """Send a request on a connection that we opened. Answer: ResponseReceived or ConnectionClosed.

    *request_id* is chosen by the machine, and unique on the connection.
    """

    connection: int
    request_id: int
    api_key: int
    api_version: int
    message: Any


@attrs.frozen
class ResponseReceived:
    """The answer to SendRequest: *message* of the response class, or an error code and text."""

    connection: int
    request_id: int
    message: Any | None
    error_code: int = 0
    error_text: str = ""
