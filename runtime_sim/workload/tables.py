"""The tables of a run, drawn from the seed: what they are like, and how a client describes them.

Columns 0 to 2 are those of `rows`: who wrote a row, a number to filter by, and bytes that fill. A
partitioned table has its partition column behind them; what is added later comes last.
"""

from __future__ import annotations

import datetime as dt
import enum
import json
from typing import Any, Final

import attrs

from flussd.runtime_sim.draws import Stream

DATABASE: Final = "fluss"
FIRST_PARTITION: Final = "p0"
"""Of a table whose partitions a client makes; it is never dropped."""

COLUMNS: Final = (("who", "BIGINT"), ("v", "INTEGER"), ("fill", "BYTES"))
VALUE_COLUMN: Final = 1
PARTITION_COLUMN: Final = ("p", "STRING")

_EPOCH: Final = dt.datetime(1970, 1, 1)  # noqa: DTZ001 - local times have no zone


class Partitioning(enum.Enum):
    """How a table gets its partitions."""

    NONE = "it has none"
    BY_CLIENT = "a client makes and drops them"
    BY_TIME = "the coordinator makes and drops them as time goes on"


@attrs.frozen
class TimeRule:
    """How a table makes partitions by itself; in most zones a run passes midnight, or an hour's end."""

    unit: str  # HOUR or DAY
    zone: str
    zone_hours: int
    precreate_count: int
    retention_count: int

    def value(self, wall_ms: int, units: int = 0) -> str:
        """Return the name of the partition for *units* after *wall_ms*."""
        moment = _EPOCH + dt.timedelta(milliseconds=wall_ms, hours=self.zone_hours)
        if self.unit == "HOUR":
            moment += dt.timedelta(hours=units)
            return f"{moment.year:04}{moment.month:02}{moment.day:02}{moment.hour:02}"
        moment += dt.timedelta(days=units)
        return f"{moment.year:04}{moment.month:02}{moment.day:02}"

    def has_expired(self, name: str, wall_ms: int) -> bool:
        """Whether a partition may be dropped at *wall_ms*."""
        return name < self.value(wall_ms, -self.retention_count)


@attrs.frozen
class TableSpec:
    """One table: *ttl* is how long it keeps its log, empty as long as by default."""

    name: str
    buckets: int
    ttl: str = ""
    partitioning: Partitioning = Partitioning.NONE
    time_rule: TimeRule | None = None

    @classmethod
    def drawn(cls, seed: int, n: int, buckets: int) -> TableSpec:
        """Draw the *n*-th table of *seed*."""
        ttl = Stream.of(seed, "ttl", n).choice(("", "3 s", "8 s"))
        kind, rule = drawn_partitioning(Stream.of(seed, "partitioning", n))
        if kind is not Partitioning.NONE:
            buckets = min(buckets, 2)  # in each partition
        return cls(f"table_{n}", buckets, ttl, kind, rule)

    @property
    def is_partitioned(self) -> bool:
        """Whether rows belong to partitions."""
        return self.partitioning is not Partitioning.NONE

    @property
    def columns(self) -> tuple[tuple[str, str], ...]:
        """Name and type of the columns that it has at first."""
        return (*COLUMNS, PARTITION_COLUMN) if self.is_partitioned else COLUMNS

    def descriptor(self) -> bytes:
        """Return what a client sends to create it."""
        columns = self.columns
        value = {
            "version": 1,
            "schema": {
                "version": 1,
                "columns": [
                    {"name": name, "data_type": {"type": kind}, "id": n}
                    for n, (name, kind) in enumerate(columns)
                ],
                "highest_field_id": len(columns) - 1,
            },
            "partition_key": [PARTITION_COLUMN[0]] if self.is_partitioned else [],
            "bucket_key": [],
            "bucket_count": self.buckets,
            "properties": self._properties(),
            "custom_properties": {},
        }
        return json.dumps(value).encode()

    def _properties(self) -> dict[str, Any]:
        properties = {"table.log.ttl": self.ttl} if self.ttl else {}
        rule = self.time_rule
        if rule is not None:
            properties |= {
                "table.auto-partition.enabled": "true",
                "table.auto-partition.time-unit": rule.unit,
                "table.auto-partition.time-zone": rule.zone,
                "table.auto-partition.num-precreate": str(rule.precreate_count),
                "table.auto-partition.num-retention": str(rule.retention_count),
            }
        return properties


def drawn_partitioning(draws: Stream) -> tuple[Partitioning, TimeRule | None]:
    """Draw how a table gets its partitions, and by which rule."""
    kind = draws.choice(
        (Partitioning.NONE, Partitioning.NONE, Partitioning.BY_CLIENT, Partitioning.BY_TIME)
    )
    return kind, _drawn_rule(draws) if kind is Partitioning.BY_TIME else None


def _drawn_rule(draws: Stream) -> TimeRule:
    unit, zone, zone_hours = draws.choice((("HOUR", "UTC", 0), ("DAY", "+09:00", 9), ("DAY", "UTC", 0)))
    return TimeRule(unit, zone, zone_hours, draws.between(1, 2), draws.between(1, 2))
