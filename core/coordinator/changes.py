"""What can change in a cluster: facts that the registry confirmed, as values.

Loading at start reads them from the registry; live operation decides them, writes, and applies them once
the write is confirmed. `State.apply` is the only thing that takes them in.
"""

from __future__ import annotations

from typing import TypeAlias

import attrs

from flussd.core.catalog.records import (
    BucketKey,
    BucketRecord,
    DatabaseRecord,
    GroupKey,
    PartitionRecord,
    TableRecord,
)
from flussd.core.coordinator.admin_records import ProducerRecord, RebalanceRecord, TagsRecord
from flussd.core.coordinator.layout import Registration, Tombstone


@attrs.frozen
class DatabaseMade:
    """There is a database, or it changed; *version* is its node's.

    *change_id* marks the change that made it, *altered_by* the newest that altered it.
    """

    record: DatabaseRecord
    version: int
    change_id: str
    altered_by: str = ""


@attrs.frozen
class DatabaseGone:
    """There is no such database any more; its tables went before it."""

    name: str


@attrs.frozen
class TableIdsMoved:
    """The next table gets *next_id*; *version* is the counter's."""

    next_id: int
    version: int


@attrs.frozen
class TableMade:
    """There is a table, or it changed; its assignment follows, its bucket records are made later."""

    record: TableRecord
    version: int
    change_id: str
    altered_by: str = ""


@attrs.frozen
class PartitionIdsMoved:
    """The next partition gets *next_id*; *version* is the counter's."""

    next_id: int
    version: int


@attrs.frozen
class PartitionMade:
    """There is a partition; its assignment follows, its bucket records are made later."""

    record: PartitionRecord
    change_id: str


@attrs.frozen
class GroupDropped:
    """A table or a partition is gone; its tombstone stands until its buckets are erased."""

    tombstone: Tombstone


@attrs.frozen
class Assigned:
    """The buckets of a table or a partition live on these servers, bucket by bucket."""

    group: GroupKey
    replicas: tuple[tuple[int, ...], ...]


@attrs.frozen
class RecordSet:
    """The record of a bucket is made or replaced; *version* is its node's."""

    record: BucketRecord
    version: int


@attrs.frozen
class RecordErased:
    """A dropped bucket has no record any more: no server has a replica of it."""

    key: BucketKey


@attrs.frozen
class GroupErased:
    """Nothing is left of a dropped table or partition."""

    group: GroupKey


@attrs.frozen
class ConfigsSet:
    """These cluster configs are set, and no others; *version* is their node's, -1 when there is none."""

    configs: tuple[tuple[str, str], ...]
    version: int
    change_id: str


@attrs.frozen
class ServerSeen:
    """A tablet server is registered."""

    registration: Registration


@attrs.frozen
class ServerGone:
    """A tablet server is not registered any more in *incarnation*; it may be in a later one."""

    server_id: int
    incarnation: int


@attrs.frozen
class ProducerRegistered:
    """A producer's offsets are registered; its id was free."""

    record: ProducerRecord


@attrs.frozen
class ProducerGone:
    """The offsets of a producer are deleted."""

    producer_id: str


@attrs.frozen
class TagsSet:
    """These servers have tags, and no others."""

    record: TagsRecord


@attrs.frozen
class RebalanceSet:
    """This is the current or last rebalance."""

    record: RebalanceRecord


Change: TypeAlias = (
    DatabaseMade
    | DatabaseGone
    | TableIdsMoved
    | TableMade
    | PartitionIdsMoved
    | PartitionMade
    | GroupDropped
    | Assigned
    | RecordSet
    | RecordErased
    | GroupErased
    | ConfigsSet
    | ProducerRegistered
    | ProducerGone
    | TagsSet
    | RebalanceSet
    | ServerSeen
    | ServerGone
)
