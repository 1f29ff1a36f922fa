"""From files to the tree: the newest whole snapshot, and the logs after it.

It says which file to read next, and takes the files in. Reading changes nothing on the disk: a torn tail
stays where it is, and the next log (see registry.py) says by its name that it was cut. The last group of
all may never have been synced, even if it reads well now: after a failed sync, or a process that died
before it. So it is handed back, to be written again before anything that depends on it is told.
"""

from __future__ import annotations

import re
from typing import Final

import attrs

from flussd.core.registry.changes import Corrupt
from flussd.core.registry.log import Group, read_log, require_torn
from flussd.core.registry.snapshot import decode_snapshot
from flussd.core.registry.tree import Tree

_NAME: Final = re.compile(r"(log|snapshot)-([0-9]{20})")


def log_name(first_zxid: int) -> str:
    """Return the name of the log that begins with *first_zxid*."""
    return f"log-{first_zxid:020d}"


def snapshot_name(zxid: int) -> str:
    """Return the name of the snapshot of the state after *zxid*."""
    return f"snapshot-{zxid:020d}"


@attrs.define(eq=False)
class Recovery:
    """Give it the listing, then each file that it asks for; when it asks for none, *tree* is whole."""

    tree: Tree = attrs.Factory(Tree)
    names: list[str] = attrs.Factory(list)  # of all our files, to be removed one day
    sizes: dict[str, int] = attrs.Factory(dict)
    snapshots: list[int] = attrs.Factory(list)  # zxids; the newest is last, and tried first
    logs: list[int] = attrs.Factory(list)  # first zxids, in order
    refused: list[str] = attrs.Factory(list)  # why snapshots were passed over
    log_bytes: int = 0  # of the logs that were replayed
    cut_bytes: int = 0  # of the torn tail
    last_group: Group | None = None  # of the last log: it may not be durable

    def listed(self, files: tuple[tuple[str, int], ...]) -> tuple[str, int] | None:
        """Take the listing in; return the first file to read, with its size."""
        for name, size_bytes in files:
            match = _NAME.fullmatch(name)
            if match is None:
                continue  # a temporary file, or somebody else's
            self.names.append(name)
            self.sizes[name] = size_bytes
            (self.logs if match[1] == "log" else self.snapshots).append(int(match[2]))
        self.logs.sort()
        self.snapshots.sort()
        return self._next_snapshot() if self.names else None

    def read(self, data: bytes) -> tuple[str, int] | None:
        """Take in the file that was asked for last; return the next one, or None at the end.

        Raises:
            Corrupt: the files do not hold what was made durable.
        """
        if not self.snapshots:
            self._replay(data)
            return self._next_log()
        name = snapshot_name(self.snapshots[-1])
        try:
            self.tree = decode_snapshot(name, data)
        except Corrupt as error:
            self.refused.append(str(error))
            self.snapshots.pop()
            return self._next_snapshot()
        if self.tree.zxid != self.snapshots[-1]:
            raise Corrupt(f"{name}: expected the state after its name's zxid, got {self.tree.zxid}")
        self.snapshots.clear()
        return self._first_log()

    def clone(self) -> Recovery:
        """Return a copy that shares nothing that changes."""
        copy = attrs.evolve(self, tree=self.tree.clone(), sizes=dict(self.sizes))
        copy.names, copy.refused = list(self.names), list(self.refused)
        copy.snapshots, copy.logs = list(self.snapshots), list(self.logs)
        return copy

    def state(self) -> tuple[object, ...]:
        """Return what a digest must cover."""
        return self.tree.digest(), self.names, self.snapshots, self.logs, self.refused, self.last_group

    def _next_snapshot(self) -> tuple[str, int] | None:
        if not self.snapshots:
            return self._first_log()
        name = snapshot_name(self.snapshots[-1])
        return name, self.sizes[name]

    def _first_log(self) -> tuple[str, int] | None:
        """Pass over the logs that the snapshot covers; one must begin right after it."""
        # A snapshot is only written when the log that follows it is there, and durable.
        next_zxid = self.tree.zxid + 1
        self.logs = [first_zxid for first_zxid in self.logs if first_zxid >= next_zxid]
        if not self.logs or self.logs[0] != next_zxid:
            found = log_name(self.logs[0]) if self.logs else "none"
            why = "; ".join(["", *self.refused])
            raise Corrupt(f"expected {log_name(next_zxid)}, got {found}{why}")
        return self._next_log()

    def _next_log(self) -> tuple[str, int] | None:
        if not self.logs:
            return None
        name = log_name(self.logs[0])
        return name, self.sizes[name]

    def _replay(self, data: bytes) -> None:
        first_zxid = self.logs.pop(0)
        name = log_name(first_zxid)
        log = read_log(name, data, first_zxid)
        self.log_bytes += log.end
        bound = self.logs[0] if self.logs else None  # the next log says where this one ends
        self.last_group = None
        for group in log.groups:
            if bound is not None and group.first_zxid >= bound:
                break  # a tail that an earlier recovery had cut
            self._apply(name, group)
            self.last_group = group
        if bound is None:
            require_torn(name, data, log)
            self.cut_bytes = max(0, len(data.rstrip(b"\0")) - log.end)
        elif self.tree.zxid != bound - 1:
            why = log.damage or "it ends"
            raise Corrupt(
                f"{name} at {log.end}: expected transactions up to {bound - 1}, got up to"
                f" {self.tree.zxid}: {why}"
            )

    def _apply(self, name: str, group: Group) -> None:
        if group.first_zxid != self.tree.zxid + 1:
            raise Corrupt(
                f"{name} at {group.position}: expected zxid {self.tree.zxid + 1}, got {group.first_zxid}"
            )
        try:
            for index, changes in enumerate(group.transactions):
                self.tree.replay(changes, group.first_zxid + index)
        except Corrupt as error:
            raise Corrupt(f"{name} at {group.position}: {error}") from None
