"""How the descriptors of a process are shared out: files first, connections get the rest.

A server whose connections took every descriptor could not open the files that they ask for. So each
node's disk has a share that no connection can take, and who connects beyond the rest waits in the
backlog until somebody leaves. It never asks the system itself: the caller tells the limit.
"""

from __future__ import annotations

from typing import Final

import attrs

from flussd.runtime_real.disk import OPEN_FILES_MAX

OTHERS: Final = 32
"""Standard streams, epoll, pipes, the lock, folders that are synced, files that are out of the cache."""

FILES_MIN: Final = 4
"""Open files with which a node still gets on."""


@attrs.frozen
class Shares:
    """Open files of each node, and sockets of all: those that listen, and connections."""

    files: int
    sockets: int


def shares(limit: int, node_count: int) -> Shares:
    """Share *limit* descriptors out among the disks of *node_count* nodes and the sockets."""
    files = max(FILES_MIN, min(OPEN_FILES_MAX, (limit - OTHERS) // 2 // node_count))
    return Shares(files, max(2 * node_count, limit - OTHERS - files * node_count))
