"""The durable state of the registry: a tree of nodes, and the sessions that own some of them.

It changes by `apply` alone, live and at replay, and `undo` takes the last change back. It must never
decide whether a change is allowed (see multi.py), and never forget or invent one. Its caller owes it
changes that fit.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b
from typing import Any, Final, TypeAlias

import attrs

from flussd.core.registry.changes import (
    Change,
    Corrupt,
    DataSet,
    NodeCreated,
    NodeDeleted,
    SessionClosed,
    SessionOpened,
)
from flussd.core.registry.messages import Stat

_HASH_MASK: Final = (1 << 128) - 1


@attrs.define(eq=False)
class Node:
    """One node. *created_count* counts the children ever created: the next sequential number."""

    data: bytes
    owner: int
    czxid: int
    mzxid: int
    version: int = 0
    created_count: int = 0
    children: dict[str, None] = attrs.Factory(dict)  # names, in no order that matters
    hash: int = 0  # of the node and its path; 0 when it must be computed

    def stat(self) -> Stat:
        """Return what the registry tells of the node."""
        # As DataNode.copyStat: the version of the children counts creations and deletions.
        count = len(self.children)
        cversion = 2 * self.created_count - count
        return Stat(self.czxid, self.mzxid, self.version, cversion, self.owner, count)


Before: TypeAlias = Node | tuple[bytes, int] | int | None  # what undo needs, by kind of change


def parent_of(path: str) -> str:
    """Return the path of the parent; the root has none."""
    return path[: path.rfind("/")] or "/"


def name_of(path: str) -> str:
    """Return the last part of *path*."""
    return path[path.rfind("/") + 1 :]


@attrs.define(eq=False)
class Tree:
    """Nodes by path, sessions with their timeouts, and the last transaction's *zxid*."""

    nodes: dict[str, Node] = attrs.Factory(lambda: {"/": Node(b"", 0, 0, 0)})
    sessions: dict[int, int] = attrs.Factory(dict)  # session -> timeout_ms
    owned: dict[int, dict[str, None]] = attrs.Factory(dict)  # session -> its ephemeral paths
    zxid: int = 0
    _hash: int = 0  # sum of the known hashes of all nodes
    _stale: dict[str, None] = attrs.Factory(lambda: {"/": None})  # paths whose hash is not known

    def apply(self, change: Change, zxid: int) -> Before:
        """Make *change* in the transaction *zxid*; return what undo would need."""
        return _APPLY[type(change)](self, change, zxid)

    def undo(self, change: Change, before: Before) -> None:
        """Take back *change*, which must be the last one."""
        _UNDO[type(change)](self, change, before)

    def fits(self, change: Change) -> bool:
        """Say whether *change* can be applied: replay asks, since it trusts no file."""
        match change:
            case NodeCreated(path, _, owner):
                parent = self.nodes.get(parent_of(path))
                free = path[:1] == "/" and path not in self.nodes
                owned = owner == 0 or owner in self.sessions
                return free and owned and parent is not None and parent.owner == 0
            case DataSet(path):
                return path in self.nodes
            case NodeDeleted(path):
                node = self.nodes.get(path)
                return node is not None and path != "/" and not node.children
            case SessionOpened(session_id):
                return session_id not in self.sessions and session_id > 0
            case SessionClosed(session_id):
                return session_id in self.sessions and not self.owned.get(session_id)

    def replay(self, changes: tuple[Change, ...], zxid: int) -> None:
        """Apply a whole transaction that was read from a file.

        Raises:
            Corrupt: it does not fit.
        """
        for change in changes:
            if not self.fits(change):
                raise Corrupt(f"expected a change that fits in transaction {zxid}, got {change}"[:500])
            self.apply(change, zxid)
        self.zxid = zxid

    def restore(self, path: str, node: Node) -> None:
        """Put *node*, from a snapshot, in its place; the root replaces ours."""
        self.nodes[path] = node
        self._stale[path] = None
        if path != "/":
            self.nodes[parent_of(path)].children[name_of(path)] = None
        if node.owner:
            self.owned.setdefault(node.owner, {})[path] = None

    # ---- changes ---------------------------------------------------------------------------------

    def _create(self, change: NodeCreated, zxid: int) -> Before:
        self._insert(change.path, Node(change.data, change.owner, zxid, zxid))
        self.nodes[parent_of(change.path)].created_count += 1
        return None

    def _uncreate(self, change: NodeCreated, _: Before) -> None:
        self._take(change.path)
        self.nodes[parent_of(change.path)].created_count -= 1

    def _set(self, change: DataSet, zxid: int) -> Before:
        node = self.nodes[change.path]
        before = (node.data, node.mzxid)
        node.data, node.mzxid, node.version = change.data, zxid, node.version + 1
        self._touch(change.path, node)
        return before

    def _unset(self, change: DataSet, before: tuple[bytes, int]) -> None:
        node = self.nodes[change.path]
        (node.data, node.mzxid), node.version = before, node.version - 1
        self._touch(change.path, node)

    def _delete(self, change: NodeDeleted, _: int) -> Before:
        return self._take(change.path)

    def _undelete(self, change: NodeDeleted, before: Node) -> None:
        self._insert(change.path, before)

    def _open(self, change: SessionOpened, _: int) -> Before:
        self.sessions[change.session_id] = change.timeout_ms
        return None

    def _unopen(self, change: SessionOpened, _: Before) -> None:
        del self.sessions[change.session_id]

    def _close(self, change: SessionClosed, _: int) -> Before:
        return self.sessions.pop(change.session_id)

    def _unclose(self, change: SessionClosed, before: int) -> None:
        self.sessions[change.session_id] = before

    def _insert(self, path: str, node: Node) -> None:
        parent_path = parent_of(path)
        parent = self.nodes[parent_path]
        assert path not in self.nodes
        self.nodes[path] = node
        parent.children[name_of(path)] = None
        self._touch(path, node)
        self._touch(parent_path, parent)
        if node.owner:
            self.owned.setdefault(node.owner, {})[path] = None

    def _take(self, path: str) -> Node:
        parent_path = parent_of(path)
        parent = self.nodes[parent_path]
        node = self.nodes.pop(path)
        assert not node.children
        del parent.children[name_of(path)]
        self._touch(path, node)
        del self._stale[path]
        self._touch(parent_path, parent)
        if node.owner:
            paths = self.owned[node.owner]
            del paths[path]
            if not paths:
                del self.owned[node.owner]
        return node

    # ---- digest, clone, check --------------------------------------------------------------------

    def _touch(self, path: str, node: Node) -> None:
        self._hash -= node.hash
        node.hash = 0
        self._stale[path] = None

    def digest(self) -> bytes:
        """Return a digest of the whole state; only what changed since the last one is hashed."""
        for path in self._stale:
            node = self.nodes[path]
            node.hash = _hash_of(path, node)
            self._hash += node.hash
        self._stale.clear()
        rest = repr((self.zxid, self._hash & _HASH_MASK, sorted(self.sessions.items())))
        return blake2b(rest.encode(), digest_size=16).digest()

    def clone(self) -> Tree:
        """Return a copy that shares nothing that changes."""
        nodes = {path: _copy_of(node) for path, node in self.nodes.items()}
        owned = {session: dict(paths) for session, paths in self.owned.items()}
        return Tree(nodes, dict(self.sessions), owned, self.zxid, self._hash, dict(self._stale))

    def check_all(self) -> None:
        """Assert that parents, children and owners agree."""
        children = sum(len(node.children) for node in self.nodes.values())
        assert children == len(self.nodes) - 1, "every node but the root is the child of one"
        for path, node in self.nodes.items():
            if path != "/":
                assert name_of(path) in self.nodes[parent_of(path)].children
            assert node.created_count >= len(node.children)
            assert not (node.owner and node.children), "ephemerals have no children"
            assert not node.owner or path in self.owned[node.owner]
            assert node.czxid <= node.mzxid <= self.zxid
        assert sum(map(len, self.owned.values())) == sum(bool(n.owner) for n in self.nodes.values())
        assert all(paths and session in self.sessions for session, paths in self.owned.items())


def _hash_of(path: str, node: Node) -> int:
    names = sorted(node.children)
    state = (path, node.data, node.owner, node.czxid, node.mzxid, node.version, node.created_count, names)
    return int.from_bytes(blake2b(repr(state).encode("utf-8", "surrogatepass"), digest_size=16).digest())


def _copy_of(node: Node) -> Node:
    copy = Node(node.data, node.owner, node.czxid, node.mzxid, node.version, node.created_count)
    copy.children, copy.hash = dict(node.children), node.hash
    return copy


_APPLY: Final[dict[type, Callable[[Tree, Any, int], Before]]] = {
    NodeCreated: Tree._create,
    DataSet: Tree._set,
    NodeDeleted: Tree._delete,
    SessionOpened: Tree._open,
    SessionClosed: Tree._close,
}
_UNDO: Final[dict[type, Callable[[Tree, Any, Any], None]]] = {
    NodeCreated: Tree._uncreate,
    DataSet: Tree._unset,
    NodeDeleted: Tree._undelete,
    SessionOpened: Tree._unopen,
    SessionClosed: Tree._unclose,
}
