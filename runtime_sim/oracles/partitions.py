"""What must be true of the partitions of one table, as clients saw it.

What a client asked for is a maybe from then on, until its answer; other clients look meanwhile. A look is
judged by what was certain from its beginning to its end: it gets a mark when it begins. Partitions that are
made by the time are never dropped while they are kept, by the latest clock that the coordinator ever had.
"""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from flussd.runtime_sim.oracles.catalog import Presence
from flussd.runtime_sim.oracles.violation import Oracle, Violation
from flussd.runtime_sim.workload.tables import TableSpec


@attrs.define(eq=False, repr=False)
class Clock:
    """The latest wall time that the coordinator ever had."""

    wall_ms: int = 0

    def seen(self, wall_ms: int) -> None:
        """Take a look at its clock in."""
        self.wall_ms = max(self.wall_ms, wall_ms)


@attrs.define(eq=False, repr=False)
class PartitionTruth:
    """The partitions of one table; names that clients make are made once each."""

    spec: TableSpec
    clock: Clock
    owners: dict[int, str]  # partition id -> table and name; of all tables
    presence: dict[str, Presence] = attrs.Factory(dict)
    changed: dict[str, int] = attrs.Factory(dict)  # name -> count when it changed
    ids: dict[str, int] = attrs.Factory(dict)
    _count: int = 0

    def mark(self) -> int:
        """Return what a look must bring that begins now."""
        return self._count

    def of(self, name: str) -> Presence:
        """Return what is known of a partition."""
        return self.presence.get(name, Presence.ABSENT)

    def set(self, name: str, presence: Presence) -> None:
        """A client asks for a change, or learned how that ended."""
        self._count += 1
        self.presence[name] = presence
        self.changed[name] = self._count

    def has_id(self, name: str, partition_id: int) -> None:
        """A partition has this id."""
        what = f"{self.spec.name}/{name}"
        other = self.owners.setdefault(partition_id, what)
        if other != what:
            self._broken(f"partition id {partition_id} is that of {other}, and of {what}")
        known = self.ids.setdefault(name, partition_id)
        if known != partition_id:
            if not self._may_have_expired(name):
                self._broken(f"{what} had id {known}, and has {partition_id}")
            self.ids[name] = partition_id

    def listed(self, entries: Iterable[tuple[int, str]], mark: int) -> None:
        """The coordinator listed all partitions."""
        names: dict[str, None] = {}
        for partition_id, name in entries:
            self.has_id(name, partition_id)
            names[name] = None
            self._saw(name, mark, exists=True)
        for name in list(self.presence):
            if name not in names:
                self._saw(name, mark, exists=False)

    def gone(self, name: str, mark: int) -> None:
        """The coordinator said that there is no such partition."""
        self._saw(name, mark, exists=False)

    def _saw(self, name: str, mark: int, *, exists: bool) -> None:
        if self.spec.time_rule is not None:
            self._saw_of_time(name, mark, exists=exists)
            return
        wrong = Presence.ABSENT if exists else Presence.PRESENT
        if self.of(name) is wrong and self.changed.get(name, 0) <= mark:
            told = "exists" if exists else "does not"
            self._broken(f"partition {name}: {wrong.value}, but the coordinator says that it {told}")

    def _saw_of_time(self, name: str, mark: int, *, exists: bool) -> None:
        if exists:
            if self.of(name) is not Presence.PRESENT:
                self.set(name, Presence.PRESENT)
        elif self.of(name) is Presence.PRESENT and self.changed[name] <= mark:
            # A look that began before somebody saw it may be from before it was made (seed 4200).
            if not self._may_have_expired(name):
                self._broken(f"partition {name} is not there, and it is kept")
            self.presence[name] = Presence.ABSENT

    def _may_have_expired(self, name: str) -> bool:
        rule = self.spec.time_rule
        return rule is not None and rule.has_expired(name, self.clock.wall_ms)

    def erased(self, partition_id: int) -> None:
        """A tablet server is about to erase a bucket of a partition."""
        name = next((name for name, known in self.ids.items() if known == partition_id), None)
        if name is None or self._may_have_expired(name):
            return
        if self.spec.time_rule is not None or self.of(name) is Presence.PRESENT:
            self._broken(f"partition {name} is erased, and nobody dropped it")

    def _broken(self, text: str) -> None:
        raise Violation(Oracle.CATALOG_IS_TRUE, f"table {self.spec.name}: {text}")
