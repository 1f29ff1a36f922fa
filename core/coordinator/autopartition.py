"""Tables that make and drop partitions by themselves: what is due, and the next write.

Every table is looked at when a coordinator becomes active, every ten minutes or as configured, and when it
is made or altered. A look compares the names there should be with those there are, so that a write whose
outcome was unknown needs no mark. The limits of partitions and buckets hold here, too.
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any, Final

import attrs

from flussd.core.catalog.records import TableRecord
from flussd.core.coordinator.partitions import (
    PARTITIONS_DROPPED_MAX,
    auto_of,
    check_room,
    drop_partitions,
    local_time,
    make_partitions,
)
from flussd.core.coordinator.proposals import Proposal, Why
from flussd.core.machine import Announce
from flussd.core.records.partitions import AutoPartition, spec_named
from flussd.core.records.refusal import Refused

if TYPE_CHECKING:
    from flussd.core.coordinator.coordinator import Coordinator

PARTITIONS_MADE_MAX: Final = 50
"""Partitions made by one multi: three writes each."""


@attrs.define(eq=False)
class AutoPartitions:
    """The tables that are to be looked at, of an active coordinator."""

    owner: Coordinator
    check_ms: int = -1  # when all of them are due again; -1: not active
    due: dict[int, None] = attrs.Factory(dict)

    def begin(self) -> None:
        """The coordinator becomes active."""
        self.due.clear()
        self.check_ms = self.owner.now_ms

    def end(self) -> None:
        """It is not active any more."""
        self.due.clear()
        self.check_ms = -1

    def look_at_time(self) -> None:
        """Look at all tables, if it is time to."""
        if 0 <= self.check_ms <= self.owner.now_ms:
            self.check_ms = self.owner.now_ms + self.owner.config.auto_partition_check_ms
            for table in self.owner.state.catalog.by_id.values():
                self.look_at(table)

    def look_at(self, table: TableRecord) -> None:
        """A table is made or altered."""
        if auto_of(table) is not None:
            self.due[table.table_id] = None

    def next_proposal(self) -> Proposal | None:
        """Return the next write; a table from which nothing more is wanted is not due any more."""
        state = self.owner.state
        if not state.assignable():
            return None  # new buckets would have nowhere to live; all stays due
        for table_id in list(self.due):
            table = state.catalog.by_id.get(table_id)
            auto = auto_of(table) if table is not None else None
            if table is not None and auto is not None:
                try:
                    proposal = self._wanted(table, auto)
                except Refused as refused:
                    where = f"table {table.database}.{table.name}"
                    self.owner.emit(Announce("auto partition", f"{where}: {refused.text}"))
                    proposal = None
                if proposal is not None:
                    return proposal
            del self.due[table_id]
        return None

    def _wanted(self, table: TableRecord, auto: AutoPartition) -> Proposal | None:
        owner = self.owner
        now = local_time(auto, owner.config, owner.wall_now_ms)
        names = expired(auto, now, table, list(owner.state.catalog.partition_names.get(table.table_id, ())))
        if names:
            names = names[:PARTITIONS_DROPPED_MAX]
            made = drop_partitions(owner.state, table, names, owner.next_change_id())
            return Proposal(Why.AUTO, *made, table.table_id)
        defaults = owner.config.defaults
        known = owner.state.catalog.partition_names.get(table.table_id, {})
        wanted = created_ahead(auto, now, table, defaults.max_partitions)
        names = [name for name in wanted if name not in known]
        if not names:
            return None
        room = min(defaults.max_partitions, defaults.max_bucket_count // table.bucket_count) - len(known)
        names = names[: max(1, min(room, PARTITIONS_MADE_MAX))]
        check_room(owner.state, table, len(names), owner.config.defaults)
        made = make_partitions(owner.state, table, names, owner.next_change_id())
        return Proposal(Why.AUTO, *made, table.table_id)

    def facts(self) -> tuple[Any, ...]:
        """Return what a digest must cover."""
        return (self.check_ms, list(self.due))

    def clone(self, owner: Coordinator) -> AutoPartitions:
        """Return a copy for *owner* that shares nothing that changes."""
        return attrs.evolve(self, owner=owner, due=dict(self.due))


def created_ahead(auto: AutoPartition, now: dt.datetime, table: TableRecord, most: int) -> list[str]:
    """Return the names that should exist by now, oldest first; at most *most*."""
    if len(table.partition_key) > 1:
        return []  # nobody knows the other values
    values = (auto.value(now, offset=offset) for offset in range(min(auto.precreate_count, most)))
    return [value for value in values if value is not None]


def expired(auto: AutoPartition, now: dt.datetime, table: TableRecord, names: list[str]) -> list[str]:
    """Return those of *names* that are older than the table keeps; never one that is no time."""
    index = table.partition_key.index(auto.column)
    return [
        name for name in names if auto.has_expired(spec_named(name, table.partition_key).values[index], now)
    ]
