"""From a frame to one typed event, or at once to the answer that bad bytes get.

Pure functions, called by the driver: what a client sends can never raise inside a machine. Sources:
section 1.4 of the wire protocol (never silence, never a hung client).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import attrs
from google.protobuf.message import DecodeError, Message

from flussd.core.connections import (
    Greeting,
    ProducedBucket,
    ProduceReceived,
    Reply,
    ReplyError,
    RequestReceived,
)
from flussd.core.edge.frames import request_head
from flussd.core.limits import PLAIN_REQUEST_BYTES_MAX, PUT_REQUEST_BYTES_MAX, REQUEST_ITEMS_MAX
from flussd.core.records.batch import HEAD_BYTES, count_batches, scan_produced
from flussd.core.wire import apis, hot, messages, private
from flussd.core.wire.apis import ApiKey
from flussd.core.wire.errors import ErrorCode

PRIVATE_KEYS_FROM: Final = 30000

CLIENT_NAME_MAX: Final = 64
"""Letters of a client's name that are kept."""

SCALARS: Final = (int, float, str, bytes)
"""Values of fields that are neither messages nor lists."""

Parsed = ProduceReceived | RequestReceived | Reply | ReplyError


@attrs.frozen
class Edge:
    """What one kind of server serves; *server_type* is 1 for a coordinator, 2 for a tablet server."""

    server_type: int
    served: frozenset[ApiKey]
    private_served: frozenset[int] = frozenset()

    def parse(
        self, connection: int, frame: memoryview, wall_ms: int, *, internal: bool, client: str = ""
    ) -> Parsed:
        """Turn a whole request frame into an event for the machine, or into its answer."""
        api_key, api_version, request_id, body = request_head(frame)
        if api_key >= PRIVATE_KEYS_FROM:
            known = internal and api_key in self.private_served
            version_is_right = api_version == 0
        else:
            known = api_key in self.served
            version_is_right = known and _version_is_served(api_key, api_version)
        if not known:
            return _unsupported(connection, request_id, f"API key {api_key} is not served here")
        if not version_is_right:
            return _unsupported(
                connection, request_id, f"API key {api_key} is not served in version {api_version}"
            )
        if api_key == ApiKey.PRODUCE_LOG:
            return _produce(connection, request_id, body, wall_ms)
        parsed = _plain(
            connection, request_id, api_key, api_version, body, wall_ms, internal=internal, client=client
        )
        if isinstance(parsed, RequestReceived):  # what needs no machine is answered here
            if api_key == ApiKey.API_VERSIONS:
                return self._api_versions(connection, request_id, parsed.message)
            if api_key == ApiKey.AUTHENTICATE:
                return _authenticate(connection, request_id, parsed.message.protocol)
        return parsed

    def _api_versions(
        self, connection: int, request_id: int, asked: messages.ApiVersionsRequest
    ) -> Greeting:
        answer = messages.ApiVersionsResponse(server_type=self.server_type)
        for key in sorted(self.served):
            api = apis.APIS[key]
            answer.api_versions.add(api_key=key, min_version=api.min_version, max_version=api.max_version)
        return Greeting(connection, request_id, answer, asked.client_software_name[:CLIENT_NAME_MAX])


def _authenticate(connection: int, request_id: int, protocol: str) -> Reply | ReplyError:
    """Answer a login on a listener without authentication; clients do not send one by themselves."""
    if protocol.upper() == "PLAINTEXT":
        return Reply(connection, request_id, messages.AuthenticateResponse())
    text = f"authentication protocol: expected PLAINTEXT, got {protocol}"
    return ReplyError(connection, request_id, ErrorCode.AUTHENTICATE_EXCEPTION, text)


def _version_is_served(api_key: int, api_version: int) -> bool:
    api = apis.APIS[api_key]
    return api.min_version <= api_version <= api.max_version


def _unsupported(connection: int, request_id: int, text: str) -> ReplyError:
    return ReplyError(connection, request_id, ErrorCode.UNSUPPORTED_VERSION, text)


def _produce(connection: int, request_id: int, body: memoryview, wall_ms: int) -> Parsed:
    try:
        asked = hot.parse_produce(body)
    except hot.Malformed as malformed:
        return ReplyError(
            connection, request_id, ErrorCode.CORRUPT_MESSAGE, f"PRODUCE_LOG request: {malformed}"
        )
    if len(asked.buckets) > REQUEST_ITEMS_MAX:
        return _too_large(connection, request_id, f"expected at most {REQUEST_ITEMS_MAX} buckets")
    if len(body) > HEAD_BYTES[0] * REQUEST_ITEMS_MAX:
        left = REQUEST_ITEMS_MAX
        for bucket in asked.buckets:
            left -= count_batches(bucket.records, left)
        if left < 0:
            return _too_large(connection, request_id, f"expected at most {REQUEST_ITEMS_MAX} batches")
    buckets = []
    for bucket in asked.buckets:
        found = scan_produced(bucket.records)
        buckets.append(
            ProducedBucket(
                bucket.partition_id,
                bucket.bucket,
                bucket.records[: found.kept_bytes],
                found.heads,
                found.problem,
                found.problem_text,
            )
        )
    return ProduceReceived(
        connection, request_id, asked.acks, asked.table_id, asked.timeout_ms, wall_ms, tuple(buckets)
    )


def _too_large(connection: int, request_id: int, text: str) -> ReplyError:
    """Refuse what would keep all others waiting; not with a code that clients send again by."""
    return ReplyError(connection, request_id, ErrorCode.UNKNOWN_SERVER_ERROR, f"request: {text}, got more")


def _lists_too_much(message: Message) -> bool:
    """Whether the lists of *message*, and of those within it, are longer than anybody needs."""
    count, waiting = 0, [message]
    while waiting:
        for field, value in waiting.pop().ListFields():
            if isinstance(value, Message):
                waiting.append(value)
            elif not isinstance(value, SCALARS):
                count += len(value)
                if field.message_type is not None:
                    waiting.extend(value)
        if count > REQUEST_ITEMS_MAX:
            return True
    return False


def _plain(
    connection: int,
    request_id: int,
    api_key: int,
    api_version: int,
    body: memoryview,
    wall_ms: int,
    *,
    internal: bool,
    client: str,
) -> Parsed:
    make: Callable[[], Message]
    make = (
        private.request_class(api_key) if api_key >= PRIVATE_KEYS_FROM else messages.request_class(api_key)
    )
    if len(body) > PLAIN_REQUEST_BYTES_MAX and not internal:
        if api_key != ApiKey.PUT_KV or len(body) > PUT_REQUEST_BYTES_MAX:
            most_bytes = PUT_REQUEST_BYTES_MAX if api_key == ApiKey.PUT_KV else PLAIN_REQUEST_BYTES_MAX
            return _too_large(connection, request_id, f"expected at most {most_bytes} bytes")
        if not hot.has_at_most(body, REQUEST_ITEMS_MAX):  # parsed, they could be a gigabyte
            return _too_large(connection, request_id, f"expected at most {REQUEST_ITEMS_MAX} items")
    message: Any = make()
    try:
        message.ParseFromString(bytes(body))
    except DecodeError as error:
        return ReplyError(
            connection, request_id, ErrorCode.CORRUPT_MESSAGE, f"API key {api_key}: cannot parse: {error}"
        )
    if not message.IsInitialized():
        missing = ", ".join(message.FindInitializationErrors())
        return ReplyError(
            connection,
            request_id,
            ErrorCode.CORRUPT_MESSAGE,
            f"API key {api_key}: missing fields: {missing}",
        )
    # An item has at least one byte, so most requests need no look.
    if len(body) > REQUEST_ITEMS_MAX and not internal and _lists_too_much(message):
        return _too_large(connection, request_id, f"expected at most {REQUEST_ITEMS_MAX} items")
    return RequestReceived(connection, request_id, api_key, api_version, message, wall_ms, internal, client)
