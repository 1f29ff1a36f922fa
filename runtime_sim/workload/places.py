"""The places that a client works with: its table, or those of its partitions that it knows of.

Partitions are found by listing them now and then. A place is given up when the coordinator says that it is
gone, whether asked for all or for this one; what is told is held against the truth.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import attrs

from flussd.core.replica.events import BucketKey
from flussd.core.wire import messages
from flussd.core.wire.apis import ApiKey
from flussd.runtime_sim.cluster import COORDINATOR_ADDRESS
from flussd.runtime_sim.oracles.partitions import PartitionTruth
from flussd.runtime_sim.workload.client import Answer, Client, Learned, Place
from flussd.runtime_sim.workload.tables import DATABASE, TableSpec

LOOK_MS: Final = (800, 4_000)
"""Pause between two lists of a table's partitions."""


@attrs.frozen
class TableInUse:
    """A table of the run, which is there."""

    spec: TableSpec
    table_id: int
    truth: PartitionTruth

    @property
    def place(self) -> Place:
        """The table as a whole."""
        return Place(DATABASE, self.spec.name)


@attrs.define(eq=False, repr=False)
class Places:
    """What one client knows of the places of *table*; both calls get a place and its partition's id."""

    client: Client
    table: TableInUse
    found: Callable[[Place, int], None]
    gone: Callable[[Place, int], None]
    known: dict[str, int] = attrs.Factory(dict)  # partition -> id, or "" -> -1
    learning: dict[Place, None] = attrs.Factory(dict)
    looked_count: int = 0

    def start(self) -> None:
        """Find the places, and go on looking where they change."""
        if self.table.spec.is_partitioned:
            self._look()
        else:
            self.known[""] = -1
            self.looked_count = 1
            self.found(self.table.place, -1)

    def _look(self) -> None:
        if not self.client.is_stopping:
            list_partitions(self.client, self.table, self._listed)

    def _listed(self, entries: list[tuple[int, str]] | None) -> None:
        if entries is not None:
            self.looked_count += 1
            names = {name: partition_id for partition_id, name in entries}
            for name, partition_id in list(self.known.items()):
                if names.get(name) != partition_id:
                    self._give_up(name)
            for name, partition_id in names.items():
                if name not in self.known:
                    self.known[name] = partition_id
                    self.found(self.table.place._replace(partition=name), partition_id)
        self.client.later(*LOOK_MS, self._look)

    def _give_up(self, name: str) -> None:
        partition_id = self.known.pop(name)
        self.client.world.count("partitions gone")
        self.gone(self.table.place._replace(partition=name), partition_id)

    def learn(self, place: Place, go_on: Callable[[], None]) -> None:
        """Find out where *place* is; *go_on* is called some while after, unless it is gone."""
        if place in self.learning or place.partition not in self.known:
            return
        self.learning[place] = None
        mark = self.table.truth.mark()

        def learned(how: Learned) -> None:
            if how is Learned.GONE:
                self.table.truth.gone(place.partition, mark)
                self.learning.pop(place, None)
                if place.partition in self.known:
                    self._give_up(place.partition)
                return
            delay = (5, 60) if how is Learned.FOUND else (50, 300)
            self.client.later(*delay, self._go_on, place, go_on)

        self.client.learn(place, learned)

    def _go_on(self, place: Place, go_on: Callable[[], None]) -> None:
        self.learning.pop(place, None)
        go_on()


@attrs.define(eq=False, repr=False)
class KnownBuckets:
    """The buckets of the places that one client knows of, for whoever asks about one of them at a time."""

    client: Client
    table: TableInUse
    all: list[tuple[Place, BucketKey]] = attrs.Factory(list)
    places: Places = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.places = Places(self.client, self.table, self._found, self._gone)

    def _found(self, place: Place, partition_id: int) -> None:
        keys = [(self.table.table_id, partition_id, n) for n in range(self.table.spec.buckets)]
        self.all += [(place, key) for key in keys]

    def _gone(self, _: Place, partition_id: int) -> None:
        self.all = [(place, key) for place, key in self.all if key[1] != partition_id]

    def learn(self, place: Place) -> None:
        """Find out where *place* is, for the next question."""
        if not self.client.is_stopping:  # else it would connect once more
            self.places.learn(place, lambda: None)


@attrs.define(eq=False, repr=False)
class PartitionsOfNow:
    """Looks for the partition of *table* for the present time, by the coordinator's clock *wall_ms*."""

    client: Client
    table: TableInUse
    wall_ms: Callable[[], int]
    names: dict[str, None] = attrs.Factory(dict)
    is_asking: bool = False

    def missing(self) -> str:
        """Return what is missing, and ask again; empty when it is there."""
        assert self.table.spec.time_rule is not None
        wanted = self.table.spec.time_rule.value(self.wall_ms())
        if wanted in self.names:
            return ""
        if not self.is_asking:
            self.is_asking = True
            list_partitions(self.client, self.table, self._listed)
        return f"table {self.table.spec.name} has no partition {wanted}"

    def _listed(self, entries: list[tuple[int, str]] | None) -> None:
        self.is_asking = False
        self.names = {name: None for _, name in entries or ()}


def list_partitions(
    client: Client, table: TableInUse, done: Callable[[list[tuple[int, str]] | None], None]
) -> None:
    """Ask the coordinator for all partitions; *done* gets (id, name) of each, None when that failed."""
    request = messages.ListPartitionInfosRequest()
    request.table_path.database_name, request.table_path.table_name = DATABASE, table.spec.name
    mark = table.truth.mark()

    def answered(answer: Answer) -> None:
        if answer.message is None:
            done(None)
            return
        entries = [(info.partition_id, _name(info)) for info in answer.message.partitions_info]
        table.truth.listed(entries, mark)
        done(entries)

    client.ask(COORDINATOR_ADDRESS, ApiKey.LIST_PARTITION_INFOS, request, answered)


def _name(info: Any) -> str:
    return "$".join(pair.value for pair in info.partition_spec.partition_key_values)
