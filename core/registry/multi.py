"""ZooKeeper's rules: what an operation may do to the tree, and how it is refused.

Writes are resolved and applied one after the other, so that each sees those before it; when one is
refused, all are taken back. The order of the checks is that of PrepRequestProcessor. Nothing here may
touch what is not in the tree.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

from flussd.core.registry.changes import Change, Changes, DataSet, NodeCreated, NodeDeleted
from flussd.core.registry.messages import (
    Answer,
    Check,
    Create,
    Delete,
    GetChildren,
    GetData,
    Multi,
    Outcome,
    SetData,
    Stat,
    Write,
)
from flussd.core.registry.tree import Before, Tree, parent_of

TRANSACTION_BYTES_MAX: Final = 1024 * 1024 - 1
"""ZooKeeper's default `jute.maxbuffer`: a larger request closes the connection there."""

WRITE_OVERHEAD_BYTES: Final = 48
"""What ZooKeeper's encoding adds to path and data of a create with an open ACL; others need less."""

# As PathUtils.validatePath: control characters, surrogates and private use, and the specials.
_BAD_CHARACTERS: Final = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\uf8ff\ufff0-\uffff]")


def execute(tree: Tree, multi: Multi, session_id: int, zxid: int) -> tuple[Answer, Changes]:
    """Apply all writes of *multi* in the transaction *zxid*, or none; return what changed, in order.

    The tree's own zxid moves only when something changed.
    """
    if size_bytes_of(multi) > TRANSACTION_BYTES_MAX:
        return Answer(Outcome.TOO_LARGE), ()
    done: list[tuple[Change, Before]] = []
    created: list[str | None] = []
    stats: list[Stat | None] = []
    for index, write in enumerate(multi.writes):
        change = _RESOLVE[type(write)](tree, write, session_id)
        if isinstance(change, Outcome):
            for undone, before in reversed(done):
                tree.undo(undone, before)
            return Answer(change, failed_index=index), ()
        if change is not None:
            done.append((change, tree.apply(change, zxid)))
        created.append(change.path if isinstance(change, NodeCreated) else None)
        stats.append(_stat_after(tree, change))
    if done:
        tree.zxid = zxid
    answer = Answer(Outcome.OK, created=tuple(created), stats=tuple(stats))
    return answer, tuple([change for change, _ in done])


def read(tree: Tree, operation: GetData | GetChildren) -> Answer:
    """Answer a read."""
    node = tree.nodes.get(operation.path)
    if node is None:
        return Answer(Outcome.NO_NODE)
    if isinstance(operation, GetData):
        return Answer(Outcome.OK, data=node.data, stat=node.stat())
    return Answer(Outcome.OK, children=tuple(sorted(node.children)), stat=node.stat())


def size_bytes_of(multi: Multi) -> int:
    """Return the size of the request as ZooKeeper counts it; what it changes needs less in our log."""
    size_bytes = 0
    for write in multi.writes:
        path = write.path
        size_bytes += WRITE_OVERHEAD_BYTES + (len(path) if path.isascii() else 4 * len(path))
        if isinstance(write, Create | SetData):
            size_bytes += len(write.data)
    return size_bytes


def _stat_after(tree: Tree, change: Change | None) -> Stat | None:
    if isinstance(change, NodeCreated | DataSet):
        return tree.nodes[change.path].stat()
    return None  # a check or a delete: ZooKeeper tells none either


def _resolve_create(tree: Tree, write: Create, session_id: int) -> Change | Outcome:
    path = write.path
    if path[:1] != "/":
        return Outcome.BAD_PATH
    parent = tree.nodes.get(parent_of(path))
    if parent is None:
        return Outcome.NO_NODE
    if write.sequential:
        # The number is that of all children ever created here, sequential or not.
        path = f"{path}{parent.created_count:010d}"
    if path in tree.nodes:
        return Outcome.NODE_EXISTS
    name = path[path.rfind("/") + 1 :]
    if name in {"", ".", ".."} or _BAD_CHARACTERS.search(name):
        return Outcome.BAD_PATH
    if parent.owner:
        return Outcome.NO_CHILDREN_FOR_EPHEMERALS
    return NodeCreated(path, write.data, session_id if write.ephemeral else 0)


def _resolve_set(tree: Tree, write: SetData, _: int) -> Change | Outcome:
    node = tree.nodes.get(write.path)
    if node is None:
        return Outcome.NO_NODE
    if write.version not in {-1, node.version}:
        return Outcome.BAD_VERSION
    return DataSet(write.path, write.data)


def _resolve_delete(tree: Tree, write: Delete, _: int) -> Change | Outcome:
    node = tree.nodes.get(write.path)
    if node is None:
        return Outcome.NO_NODE
    if write.path == "/":
        return Outcome.BAD_PATH
    if write.version not in {-1, node.version}:
        return Outcome.BAD_VERSION
    if node.children:
        return Outcome.NOT_EMPTY
    return NodeDeleted(write.path)


def _resolve_check(tree: Tree, write: Check, _: int) -> Outcome | None:
    node = tree.nodes.get(write.path)
    if node is None:
        return Outcome.NO_NODE
    return None if write.version in {-1, node.version} else Outcome.BAD_VERSION


_RESOLVE: Final[dict[type[Write], Callable[[Tree, Any, int], Change | Outcome | None]]] = {
    Create: _resolve_create,
    SetData: _resolve_set,
    Delete: _resolve_delete,
    Check: _resolve_check,
}
