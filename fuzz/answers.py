"""Which answers a request may have, by the request's own bytes. No target itself.

Written from the protocol, not from the code under test: section 4 of the wire protocol says which code
means what, docs/compatibility.md what is served. An answer of another class is a failure, and so is none.
"""

from __future__ import annotations

import struct
from typing import Any, Final

import attrs
from google.protobuf.message import DecodeError, Message
from trials import WrongAnswer

from flussd.core.limits import REQUEST_ITEMS_MAX
from flussd.core.wire import apis, messages
from flussd.core.wire.apis import ApiKey
from flussd.core.wire.errors import ErrorCode as E
from flussd.core.wire.served import SERVED_BY_COORDINATOR, SERVED_BY_TABLET

SERVED: Final = (SERVED_BY_COORDINATOR, SERVED_BY_TABLET)
REQUEST: Final = struct.Struct(">hhi")
RESPONSE: Final = struct.Struct(">bi")
HELD_MS: Final = 500
"""A fetch that may wait longer than this is not waited for."""

DATABASE: Final = frozenset({E.DATABASE_NOT_EXIST, E.INVALID_DATABASE_EXCEPTION})
TABLE: Final = DATABASE | {E.TABLE_NOT_EXIST, E.INVALID_TABLE_EXCEPTION}
CHANGE: Final = frozenset({E.UNKNOWN_SERVER_ERROR})
"""Section 4: refusals of changes that have no code of their own are -1, with a text that says why."""

DESCRIPTOR: Final = CHANGE | {
    E.INVALID_TABLE_EXCEPTION,
    E.INVALID_CONFIG_EXCEPTION,
    E.INVALID_REPLICATION_FACTOR,
    E.BUCKET_MAX_NUM_EXCEPTION,
    E.UNSUPPORTED_VERSION,
}
BUCKET: Final = frozenset(
    {
        E.UNKNOWN_TABLE_OR_BUCKET_EXCEPTION,
        E.NOT_LEADER_OR_FOLLOWER,
        E.LEADER_NOT_AVAILABLE_EXCEPTION,
    }
)
ROWS: Final = BUCKET | {E.NON_PRIMARY_KEY_TABLE_EXCEPTION, E.RECORD_TOO_LARGE_EXCEPTION}
PUT: Final = CHANGE | {
    E.INVALID_REQUIRED_ACKS,
    E.CORRUPT_RECORD_EXCEPTION,
    E.OUT_OF_ORDER_SEQUENCE_EXCEPTION,
    E.REQUEST_TIME_OUT,
    E.SCHEMA_NOT_EXIST,
    E.INVALID_TARGET_COLUMN,
    E.DELETION_DISABLED_EXCEPTION,
}
PARTITION: Final = TABLE | {
    E.PARTITION_NOT_EXISTS,
    E.PARTITION_SPEC_INVALID_EXCEPTION,
    E.TABLE_NOT_PARTITIONED_EXCEPTION,
}
TAG: Final = CHANGE | {E.SERVER_NOT_EXIST_EXCEPTION}
REBALANCE: Final = frozenset({E.NO_REBALANCE_IN_PROGRESS_EXCEPTION})
BY_ID: Final = frozenset(
    {
        E.TABLE_NOT_EXIST,
        E.PARTITION_NOT_EXISTS,
        E.TABLE_NOT_PARTITIONED_EXCEPTION,
        E.NON_PRIMARY_KEY_TABLE_EXCEPTION,
    }
)
LEASE: Final = CHANGE | {E.UNKNOWN_TABLE_OR_BUCKET_EXCEPTION, E.NON_PRIMARY_KEY_TABLE_EXCEPTION}

ALLOWED: Final[dict[int, frozenset[E]]] = {
    ApiKey.API_VERSIONS: frozenset(),
    ApiKey.AUTHENTICATE: frozenset({E.AUTHENTICATE_EXCEPTION}),
    ApiKey.LIST_DATABASES: frozenset(),
    ApiKey.DATABASE_EXISTS: frozenset(),
    ApiKey.GET_DATABASE_INFO: DATABASE,
    ApiKey.LIST_TABLES: DATABASE,
    ApiKey.TABLE_EXISTS: frozenset(),
    ApiKey.GET_TABLE_INFO: TABLE,
    ApiKey.GET_TABLE_SCHEMA: TABLE | {E.SCHEMA_NOT_EXIST},
    ApiKey.LIST_PARTITION_INFOS: PARTITION | {E.UNKNOWN_SERVER_ERROR},
    ApiKey.GET_METADATA: PARTITION | {E.LEADER_NOT_AVAILABLE_EXCEPTION},
    ApiKey.GET_FILESYSTEM_SECURITY_TOKEN: frozenset(),
    ApiKey.DESCRIBE_CLUSTER_CONFIGS: frozenset(),
    ApiKey.GET_CLUSTER_HEALTH: frozenset(),
    ApiKey.CREATE_DATABASE: CHANGE | {E.DATABASE_ALREADY_EXIST, E.INVALID_DATABASE_EXCEPTION},
    ApiKey.DROP_DATABASE: CHANGE | DATABASE | {E.DATABASE_NOT_EMPTY},
    ApiKey.ALTER_DATABASE: CHANGE | DATABASE | {E.INVALID_CONFIG_EXCEPTION},
    ApiKey.CREATE_TABLE: DESCRIPTOR | TABLE | {E.TABLE_ALREADY_EXIST, E.PARTITION_SPEC_INVALID_EXCEPTION},
    ApiKey.DROP_TABLE: TABLE,
    ApiKey.ALTER_TABLE: DESCRIPTOR | TABLE | {E.INVALID_ALTER_TABLE_EXCEPTION},
    ApiKey.CREATE_PARTITION: PARTITION
    | {
        E.PARTITION_ALREADY_EXISTS,
        E.PARTITION_MAX_NUM_EXCEPTION,
        E.BUCKET_MAX_NUM_EXCEPTION,
        E.INVALID_REPLICATION_FACTOR,
    },
    ApiKey.DROP_PARTITION: PARTITION,
    ApiKey.ALTER_CLUSTER_CONFIGS: CHANGE | {E.CONFIG_EXCEPTION},
    ApiKey.INIT_WRITER: TABLE,
    ApiKey.PRODUCE_LOG: BUCKET
    | {
        E.INVALID_REQUIRED_ACKS,
        E.CORRUPT_RECORD_EXCEPTION,
        E.OUT_OF_ORDER_SEQUENCE_EXCEPTION,
        E.REQUEST_TIME_OUT,
        E.NOT_ENOUGH_REPLICAS_EXCEPTION,
        E.INVALID_TABLE_EXCEPTION,  # it has a primary key
    },
    ApiKey.FETCH_LOG: BUCKET
    | {
        E.LOG_OFFSET_OUT_OF_RANGE_EXCEPTION,
        E.INVALID_COLUMN_PROJECTION,
        E.CORRUPT_MESSAGE,
        E.UNKNOWN_SERVER_ERROR,
    },
    ApiKey.LIST_OFFSETS: BUCKET | {E.INVALID_TIMESTAMP_EXCEPTION, E.UNKNOWN_SERVER_ERROR},
    ApiKey.LIMIT_SCAN: BUCKET | {E.LOG_OFFSET_OUT_OF_RANGE_EXCEPTION, E.RECORD_TOO_LARGE_EXCEPTION},
    ApiKey.REGISTER_PRODUCER_OFFSETS: CHANGE | {E.INVALID_PRODUCER_ID_EXCEPTION},
    ApiKey.GET_PRODUCER_OFFSETS: frozenset({E.INVALID_PRODUCER_ID_EXCEPTION}),
    ApiKey.DELETE_PRODUCER_OFFSETS: frozenset({E.INVALID_PRODUCER_ID_EXCEPTION}),
    ApiKey.ADD_SERVER_TAG: TAG | {E.SEVER_TAG_ALREADY_EXIST_EXCEPTION},
    ApiKey.REMOVE_SERVER_TAG: TAG | {E.SEVER_TAG_NOT_EXIST_EXCEPTION},
    ApiKey.REBALANCE: CHANGE | {E.REBALANCE_FAILURE_EXCEPTION},
    ApiKey.LIST_REBALANCE_PROGRESS: REBALANCE,
    ApiKey.CANCEL_REBALANCE: REBALANCE,
    ApiKey.LIST_ACLS: frozenset({E.SECURITY_DISABLED_EXCEPTION}),
    ApiKey.CREATE_ACLS: frozenset({E.SECURITY_DISABLED_EXCEPTION}),
    ApiKey.DROP_ACLS: frozenset({E.SECURITY_DISABLED_EXCEPTION}),
    ApiKey.GET_LATEST_KV_SNAPSHOTS: PARTITION | {E.NON_PRIMARY_KEY_TABLE_EXCEPTION},
    ApiKey.GET_KV_SNAPSHOT_METADATA: frozenset({E.KV_SNAPSHOT_NOT_EXIST}),
    ApiKey.LIST_KV_SNAPSHOTS: BY_ID,
    ApiKey.LIST_REMOTE_LOG_MANIFESTS: BY_ID,
    ApiKey.GET_LAKE_SNAPSHOT: TABLE | CHANGE | {E.LAKE_SNAPSHOT_NOT_EXIST},
    ApiKey.ACQUIRE_KV_SNAPSHOT_LEASE: LEASE,
    ApiKey.RELEASE_KV_SNAPSHOT_LEASE: LEASE,
    ApiKey.DROP_KV_SNAPSHOT_LEASE: LEASE,
    ApiKey.GET_TABLE_STATS: BUCKET | {E.INVALID_TABLE_EXCEPTION},
    ApiKey.PUT_KV: ROWS | PUT,
    ApiKey.LOOKUP: ROWS | PUT,
    ApiKey.PREFIX_LOOKUP: ROWS,
    ApiKey.SCAN_KV: ROWS
    | {
        E.SCANNER_EXPIRED,
        E.UNKNOWN_SCANNER_ID,
        E.INVALID_SCAN_REQUEST,
        E.TOO_MANY_SCANNERS,
    },
}
"""What each API may refuse with, as a whole or for a bucket."""


@attrs.frozen
class Asked:
    """What a frame asks: *message* is None where it is none, *refusal* what it must get then."""

    api_key: int
    request_id: int
    message: Any
    refusal: E
    is_large: bool = False  # enough for more items, or bytes, than a request may have

    @property
    def waits(self) -> bool:
        """Whether it asks the server to wait with its answer."""
        asked = self.message
        if self.api_key == ApiKey.PRODUCE_LOG and asked is not None:
            return False
        if self.api_key != ApiKey.FETCH_LOG or asked is None:
            return False
        return asked.min_bytes > 0 and asked.max_wait_ms > HELD_MS


def asked_by(server: int, frame: bytes) -> Asked:
    """Return what a whole frame of at least 8 bytes asks of a client's listener."""
    api_key, version, request_id = REQUEST.unpack_from(frame)
    if api_key not in SERVED[server]:
        return Asked(api_key, request_id, None, E.UNSUPPORTED_VERSION)
    api = apis.APIS[api_key]
    if not api.min_version <= version <= api.max_version:
        return Asked(api_key, request_id, None, E.UNSUPPORTED_VERSION)
    message = messages.request_class(api_key)()
    is_large = len(frame) > REQUEST_ITEMS_MAX
    try:
        message.ParseFromString(frame[REQUEST.size :])
    except DecodeError:
        return Asked(api_key, request_id, None, E.CORRUPT_MESSAGE, is_large)
    whole = message if message.IsInitialized() else None
    return Asked(api_key, request_id, whole, E.CORRUPT_MESSAGE, is_large)


def judge(asked: Asked, frame: bytes) -> str:
    """Return the class of an answer, a whole frame without its length; raise for a wrong one."""
    kind, request_id = RESPONSE.unpack_from(frame)
    body = frame[RESPONSE.size :]
    if request_id != asked.request_id:
        raise WrongAnswer(f"expected an answer to request {asked.request_id}, got one to {request_id}")
    if kind == 1:
        error = messages.ErrorResponse.FromString(body)
        return _judge_error(asked, error.error_code, error.error_message)
    if kind != 0:
        raise WrongAnswer(f"expected a success or an error, got a frame of type {kind}")
    if asked.message is None and (asked.api_key, asked.refusal) != (ApiKey.PRODUCE_LOG, E.CORRUPT_MESSAGE):
        raise WrongAnswer(f"API key {asked.api_key}: expected {asked.refusal.name}, got a success")
    try:
        answer = messages.response_class(asked.api_key).FromString(body)
    except DecodeError as error:
        raise WrongAnswer(f"API key {asked.api_key}: cannot parse the answer: {error}") from None
    if not answer.IsInitialized():
        raise WrongAnswer(f"API key {asked.api_key}: the answer lacks required fields")
    if asked.message is not None:
        _judge_buckets(asked, answer)
    return _judge_codes(asked, answer)


def _judge_error(asked: Asked, code: int, text: str) -> str:
    name = _name(code)
    allowed = ALLOWED.get(asked.api_key, frozenset())
    if asked.message is None and asked.refusal is E.CORRUPT_MESSAGE and asked.api_key == ApiKey.PRODUCE_LOG:
        # It skips a later version's text without a look; produce_request.py knows exactly when.
        allowed |= {E.CORRUPT_MESSAGE}
    elif asked.message is None:
        allowed = frozenset({asked.refusal})
    elif asked.api_key == ApiKey.PRODUCE_LOG:
        allowed |= {E.CORRUPT_MESSAGE}  # it refuses a little more than protobuf does
    if asked.is_large:
        allowed |= {E.UNKNOWN_SERVER_ERROR}
    if code not in allowed:
        raise WrongAnswer(f"API key {asked.api_key}: expected one of {sorted(allowed)}, got {name}: {text}")
    if not text:
        raise WrongAnswer(f"API key {asked.api_key}: {name} without a text")
    return name


def _judge_codes(asked: Asked, answer: Message) -> str:
    """Look at every error code within a success."""
    worst = "success"
    waiting: list[Any] = [answer]
    while waiting:
        message = waiting.pop()
        for field, value in message.ListFields():
            if field.name == "error_code" and value:
                if value not in ALLOWED[asked.api_key]:
                    raise WrongAnswer(f"API key {asked.api_key}: a bucket got {_name(value)}: {message}")
                worst = _name(value)
            if field.message_type is not None:
                waiting += [value] if isinstance(value, Message) else value
    return worst


def _judge_buckets(asked: Asked, answer: Any) -> None:
    """Each bucket that was asked about has one answer."""
    wanted, got = 0, 0
    match asked.api_key:
        case ApiKey.PRODUCE_LOG:
            wanted, got = len(asked.message.buckets_req), len(answer.buckets_resp)
        case ApiKey.FETCH_LOG:
            wanted = sum(len(table.buckets_req) for table in asked.message.tables_req)
            got = sum(len(table.buckets_resp) for table in answer.tables_resp)
        case ApiKey.LIST_OFFSETS:
            wanted, got = len(asked.message.bucket_id), len(answer.buckets_resp)
        case ApiKey.GET_TABLE_STATS | ApiKey.PUT_KV | ApiKey.LOOKUP | ApiKey.PREFIX_LOOKUP:
            wanted, got = len(asked.message.buckets_req), len(answer.buckets_resp)
    if wanted != got:
        raise WrongAnswer(f"API key {asked.api_key}: expected answers for {wanted} buckets, got {got}")


def _name(code: int) -> str:
    try:
        return E(code).name
    except ValueError:
        raise WrongAnswer(f"error code {code} is none of the protocol's") from None
