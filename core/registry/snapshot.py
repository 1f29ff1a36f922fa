"""The whole tree in one file, so that older logs may go.

    8s magic | u32 level | u32 crc32c of the rest | u64 zxid | u32 sessions | u32 nodes | ...

It is encoded in one step from one state (about 2 us a node); a registry of a million nodes would want
slices. Reading must never raise anything but Corrupt.
"""

from __future__ import annotations

import struct
from typing import Final

from crc32c import crc32c

from flussd.core.registry.changes import Corrupt
from flussd.core.registry.log import FORMAT_LEVEL
from flussd.core.registry.tree import Node, Tree, parent_of

_MAGIC: Final = b"FLREGSNP"
_HEAD: Final = struct.Struct("<8sII")
_BODY: Final = struct.Struct("<QII")
_SESSION: Final = struct.Struct("<QQ")
_NODE: Final = struct.Struct("<IIQQQQQ")  # bytes of path and data, owner, czxid, mzxid, version, created


def encode_snapshot(tree: Tree) -> bytes:
    """Return *tree* as the content of a file; equal trees give equal bytes."""
    parts = [_BODY.pack(tree.zxid, len(tree.sessions), len(tree.nodes))]
    parts += [_SESSION.pack(*session) for session in sorted(tree.sessions.items())]
    for path, node in sorted(tree.nodes.items(), key=lambda item: item[0]):  # parents come first
        name, data = path.encode(), node.data
        counts = (node.owner, node.czxid, node.mzxid, node.version, node.created_count)
        parts += (_NODE.pack(len(name), len(data), *counts), name, data)
    body = b"".join(parts)
    return _HEAD.pack(_MAGIC, FORMAT_LEVEL, crc32c(body)) + body


def decode_snapshot(file: str, data: bytes) -> Tree:
    """Return the tree that *data*, the content of *file*, holds.

    Raises:
        Corrupt: it holds none.
    """
    if len(data) < _HEAD.size + _BODY.size:
        raise Corrupt(f"{file}: expected a snapshot, got {len(data)} bytes")
    magic, level, checksum = _HEAD.unpack_from(data)
    if magic != _MAGIC:
        raise Corrupt(f"{file} at 0: expected {_MAGIC!r}, got {magic!r}")
    if level != FORMAT_LEVEL:
        raise Corrupt(f"{file} at 8: expected format level {FORMAT_LEVEL}, got {level}")
    view = memoryview(data)
    summed = crc32c(view[_HEAD.size :])
    if summed != checksum:
        raise Corrupt(f"{file} at 12: expected checksum {checksum:#010x}, got {summed:#010x}")
    try:
        return _decode_body(view)
    except (struct.error, UnicodeDecodeError) as error:
        raise Corrupt(f"{file}: expected a snapshot, got {error}") from None


def _decode_body(view: memoryview) -> Tree:
    zxid, session_count, node_count = _BODY.unpack_from(view, _HEAD.size)
    tree = Tree(zxid=zxid)
    position = _HEAD.size + _BODY.size
    for _ in range(session_count):  # each turn consumes bytes, or raises
        session_id, timeout_ms = _SESSION.unpack_from(view, position)
        if session_id == 0:
            raise Corrupt(f"snapshot at {position}: expected a session, got 0")
        tree.sessions[session_id] = timeout_ms
        position += _SESSION.size
    for index in range(node_count):
        position = _decode_node(tree, view, position, index)
    if position != len(view) or node_count == 0:
        raise Corrupt(f"snapshot: expected {node_count} nodes in {len(view)} bytes, got {position} bytes")
    if any(len(node.children) > node.created_count for node in tree.nodes.values()):
        raise Corrupt("snapshot: expected no more children than were ever created, got more")
    return tree


def _decode_node(tree: Tree, view: memoryview, position: int, index: int) -> int:
    path_bytes, data_bytes, owner, czxid, mzxid, version, created = _NODE.unpack_from(view, position)
    middle = position + _NODE.size + path_bytes
    end = middle + data_bytes
    path = str(view[middle - path_bytes : middle], "utf-8")
    node = Node(bytes(view[middle:end]), owner, czxid, mzxid, version, created)
    if index == 0:
        fits = path == "/" and owner == 0
    else:
        parent = tree.nodes.get(parent_of(path))
        fits = path[:1] == "/" and parent is not None and parent.owner == 0 and path not in tree.nodes
        fits = fits and (owner == 0 or owner in tree.sessions)
    fits = fits and czxid <= mzxid <= tree.zxid
    if not fits or end > len(view):
        raise Corrupt(f"snapshot at {position}: expected a node below one before it, got {path[:200]!r}")
    tree.restore(path, node)
    return int(end)
