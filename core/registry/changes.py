"""What a transaction did to the tree, resolved: the same values are applied live and at replay.

Here too is their binary form, which log records and nothing else use. Decoding must never raise anything
but Corrupt, whatever the bytes; the caller has checked a checksum before it asks.
"""

from __future__ import annotations

import struct
from typing import Final, TypeAlias

import attrs


class Corrupt(Exception):  # noqa: N818  (named after its reaction: the registry's files are not to be trusted)
    """A file of the registry does not hold what was made durable; the text is one line."""


@attrs.frozen
class NodeCreated:
    """A node appeared at *path*; *owner* is its session, 0 when it is persistent."""

    path: str
    data: bytes
    owner: int


@attrs.frozen
class DataSet:
    """The node at *path* got new *data*, and its version went up."""

    path: str
    data: bytes


@attrs.frozen
class NodeDeleted:
    """The node at *path*, which had no children, is gone."""

    path: str


@attrs.frozen
class SessionOpened:
    """A session began; it ends after *timeout_ms* of silence."""

    session_id: int
    timeout_ms: int


@attrs.frozen
class SessionClosed:
    """A session ended; its nodes were deleted by changes before this one."""

    session_id: int


Change: TypeAlias = NodeCreated | DataSet | NodeDeleted | SessionOpened | SessionClosed
Changes: TypeAlias = tuple[Change, ...]

# Kind, bytes of the path, bytes of the data, and a number: owner, or session.
_HEAD: Final = struct.Struct("<BIIQ")
_COUNT: Final = struct.Struct("<I")
_CREATED, _SET, _DELETED, _OPENED, _CLOSED = 1, 2, 3, 4, 5


def encode_changes(changes: Changes) -> bytes:
    """Return the binary form of one transaction."""
    parts = [_COUNT.pack(len(changes))]
    for change in changes:
        match change:
            case NodeCreated(path, data, owner):
                name = path.encode()
                parts += (_HEAD.pack(_CREATED, len(name), len(data), owner), name, data)
            case DataSet(path, data):
                name = path.encode()
                parts += (_HEAD.pack(_SET, len(name), len(data), 0), name, data)
            case NodeDeleted(path):
                name = path.encode()
                parts += (_HEAD.pack(_DELETED, len(name), 0, 0), name)
            case SessionOpened(session_id, timeout_ms):
                timeout = timeout_ms.to_bytes(8, "little")
                parts += (_HEAD.pack(_OPENED, 0, len(timeout), session_id), timeout)
            case SessionClosed(session_id):
                parts.append(_HEAD.pack(_CLOSED, 0, 0, session_id))
    return b"".join(parts)


def decode_changes(data: memoryview, position: int) -> tuple[Changes, int]:
    """Return the transaction at *position* of *data*, and where it ends.

    Raises:
        Corrupt: the bytes are no transaction.
    """
    try:
        (count,) = _COUNT.unpack_from(data, position)
        position += _COUNT.size
        changes = []
        for _ in range(count):  # each turn consumes a head, or raises: bounded by the data
            change, position = _decode_change(data, position)
            changes.append(change)
    except (struct.error, UnicodeDecodeError) as error:
        raise Corrupt(f"expected a transaction, got {error}") from None
    return tuple(changes), position


def _decode_change(data: memoryview, position: int) -> tuple[Change, int]:
    kind, path_bytes, data_bytes, number = _HEAD.unpack_from(data, position)
    start = position + _HEAD.size
    middle = start + path_bytes
    end = middle + data_bytes
    if end > len(data):
        raise Corrupt(f"expected a change of {end - position} bytes, got {len(data) - position}")
    path = str(data[start:middle], "utf-8")
    match kind:
        case 1:
            return NodeCreated(path, bytes(data[middle:end]), number), end
        case 2:
            return DataSet(path, bytes(data[middle:end])), end
        case 3:
            return NodeDeleted(path), end
        case 4 if data_bytes == 8:
            return SessionOpened(number, int.from_bytes(data[middle:end], "little")), end
        case 5:
            return SessionClosed(number), end
        case _:
            raise Corrupt(f"expected a change of kind 1 to 5, got {kind} with {data_bytes} bytes")
