"""One-shot watches: which session wants to hear of which path.

In memory only, as in ZooKeeper, where they live in the connection: they go with the session's link, and
whoever sets them asks again after coming back. A watch must fire at most once, and never before its cause.
"""

from __future__ import annotations

from typing import TypeAlias

import attrs

from flussd.core.registry.changes import Change, DataSet, NodeCreated, NodeDeleted
from flussd.core.registry.messages import Changed
from flussd.core.registry.tree import parent_of

Watchers: TypeAlias = dict[str, dict[int, None]]  # path -> sessions, in the order they came
Fired: TypeAlias = tuple[int, str, Changed]  # session, path, what


@attrs.define(eq=False)
class Watches:
    """Watches on data (and existence), and on children."""

    data: Watchers = attrs.Factory(dict)
    children: Watchers = attrs.Factory(dict)
    held: dict[int, dict[tuple[str, bool], None]] = attrs.Factory(dict)  # session -> path, is for data

    def add_data(self, session_id: int, path: str) -> None:
        """Tell *session_id* once when *path* changes, appears or goes."""
        self.data.setdefault(path, {})[session_id] = None
        self.held.setdefault(session_id, {})[path, True] = None

    def add_children(self, session_id: int, path: str) -> None:
        """Tell *session_id* once when the list of children of *path* changes, or *path* goes."""
        self.children.setdefault(path, {})[session_id] = None
        self.held.setdefault(session_id, {})[path, False] = None

    def fire(self, change: Change) -> list[Fired]:
        """Return, and forget, the watches that *change* triggers, in ZooKeeper's order."""
        match change:
            case NodeCreated(path):
                fired = [(session, path, Changed.CREATED) for session in self._take_data(path)]
                return fired + self._fire_children(parent_of(path))
            case DataSet(path):
                return [(session, path, Changed.DATA) for session in self._take_data(path)]
            case NodeDeleted(path):
                # One who watched both data and children of the path hears of its end once.
                both = self._take_data(path) | self._take_children(path)
                fired = [(session, path, Changed.DELETED) for session in both]
                return fired + self._fire_children(parent_of(path))
            case _:
                return []

    def drop(self, session_id: int) -> None:
        """Forget all watches of *session_id*."""
        for path, is_data in self.held.pop(session_id, {}):
            watchers = self.data if is_data else self.children
            del watchers[path][session_id]
            if not watchers[path]:
                del watchers[path]

    def _fire_children(self, path: str) -> list[Fired]:
        return [(session, path, Changed.CHILDREN) for session in self._take_children(path)]

    def _take_data(self, path: str) -> dict[int, None]:
        sessions = self.data.pop(path, {})
        for session_id in sessions:
            self._release(session_id, path, is_data=True)
        return sessions

    def _take_children(self, path: str) -> dict[int, None]:
        sessions = self.children.pop(path, {})
        for session_id in sessions:
            self._release(session_id, path, is_data=False)
        return sessions

    def _release(self, session_id: int, path: str, *, is_data: bool) -> None:
        held = self.held[session_id]
        del held[path, is_data]
        if not held:
            del self.held[session_id]

    def clone(self) -> Watches:
        """Return a copy that shares nothing that changes."""
        copies = [{key: dict(value) for key, value in d.items()} for d in (self.data, self.children)]
        return Watches(copies[0], copies[1], {key: dict(value) for key, value in self.held.items()})

    def state(self) -> tuple[object, ...]:
        """Return what a digest must cover."""
        # The order of the watchers of a path is the order in which they will be told.
        return tuple(
            sorted((path, tuple(sessions)) for path, sessions in watchers.items())
            for watchers in (self.data, self.children)
        )

    def check_all(self) -> None:
        """Assert that both directions agree."""
        pairs = sum(map(len, self.data.values())) + sum(map(len, self.children.values()))
        assert pairs == sum(map(len, self.held.values()))
        for session_id, held in self.held.items():
            assert held
            for path, is_data in held:
                assert session_id in (self.data if is_data else self.children)[path]
