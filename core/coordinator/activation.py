"""Becoming the active coordinator: base nodes, the epoch, and all that the registry holds.

One attempt, from the first question to a complete state; whoever owns it throws it away whole when
anything is not as expected, and begins another. It must never serve, and never write but what makes us
active. All or nothing: a node that cannot be read ends the attempt (spec 8.3, rule 4).
"""

from __future__ import annotations

import enum
import json
from collections import deque
from collections.abc import Callable
from typing import Any, ClassVar, Final

import attrs

from flussd.core.catalog.records import NO_PARTITION, DatabaseRecord, GroupKey, TablePath
from flussd.core.coordinator import changes as ch
from flussd.core.coordinator import layout
from flussd.core.coordinator.admin_records import (
    PRODUCERS,
    REBALANCE,
    SERVER_TAGS,
    decode_producer,
    decode_rebalance,
    decode_tags,
    producer_path,
)
from flussd.core.coordinator.config import CoordinatorConfig
from flussd.core.coordinator.state import State
from flussd.core.registry.messages import (
    Answer,
    Create,
    Delete,
    GetChildren,
    GetData,
    Multi,
    Operation,
    Outcome,
    SetData,
    Write,
)

READS_MAX: Final = 100
"""Reads in flight, as upstream; a real ensemble answers about 10 000 a second."""


def _configs_set(data: bytes, version: int) -> ch.Change:
    configs, change_id = layout.decode_configs(data)
    return ch.ConfigsSet(tuple(sorted(configs.items())), version, change_id)


NODES: Final[dict[str, Callable[[bytes, int], ch.Change]]] = {
    layout.CONFIGS: _configs_set,
    SERVER_TAGS: lambda data, version: ch.TagsSet(decode_tags(data, version)),
    REBALANCE: lambda data, version: ch.RebalanceSet(decode_rebalance(data, version)),
}
"""What is one node, by its path: from its data and version to what is true."""


class Step(enum.Enum):
    """What a question is for."""

    FORMAT = "is this registry ours"
    BASE = "make the base nodes"
    ACTIVE = "is somebody active"
    EPOCH = "read the epoch"
    TAKE = "become active"
    TABLE_IDS = "read the counter of table ids"
    PARTITION_IDS = "read the counter of partition ids"
    NODE = "read what is one node, if it is there"
    PRODUCERS = "list producers"
    PRODUCER = "read the offsets of a producer"
    DATABASES = "list databases"
    DATABASE = "read a database"
    TABLES = "list the tables of a database"
    TABLE = "read a table"
    SCHEMAS = "list the schemas of a table"
    SCHEMA = "read a schema"
    PARTITIONS = "list the partitions of a table"
    PARTITION = "read a partition"
    TOMBSTONES = "list tombstones"
    TOMBSTONE = "read a tombstone"
    ASSIGNMENTS = "list assignments"
    ASSIGNMENT = "read an assignment"
    PARTITION_ASSIGNMENTS = "list assignments of partitions"
    PARTITION_ASSIGNMENT = "read the assignment of a partition"
    RECORD = "read a bucket record"
    SERVERS = "list tablet servers"
    SERVER = "read the registration of a tablet server"


class Verdict(enum.Enum):
    """How an attempt stands after an answer."""

    GOING_ON = "more questions are in flight"
    DONE = "we are active, and the state is complete"
    STANDBY = "somebody else is active; its node is watched"
    AGAIN = "begin another attempt"
    FOREIGN = "the registry is not one of ours"


@attrs.define(eq=False)
class PartialTable:
    """A table whose schemas are being read."""

    data: bytes
    version: int
    wanted: int = -1  # how many schemas there are; -1 while unknown
    schemas: dict[int, bytes] = attrs.Factory(dict)


@attrs.define(eq=False)
class Activation:
    """Ask with `begin` and what `answered` adds to `wanted`; the owner sends at most READS_MAX."""

    config: CoordinatorConfig
    session_id: int
    directory_id: str
    wall_ms: int
    state: State = attrs.Factory(State)
    epoch: int = -1
    epoch_version: int = -1
    trouble: str = ""
    wanted: deque[tuple[Step, Any, Operation]] = attrs.Factory(deque)
    in_flight_count: int = 0
    stage: int = 0
    base_tried: bool = False
    tables: dict[TablePath, PartialTable] = attrs.Factory(dict)
    _replaced: tuple[bytes, Any] | None = None  # the active node that TAKE replaces, with its Stat

    def begin(self) -> None:
        """Ask the first question."""
        self._want(Step.FORMAT, None, GetData(layout.FORMAT))

    def next_question(self) -> tuple[Step, Any, Operation] | None:
        """Return a question to send now, if there is one and it may be sent."""
        if not self.wanted or self.in_flight_count >= READS_MAX:
            return None
        self.in_flight_count += 1
        return self.wanted.popleft()

    def answered(self, step: Step, argument: Any, answer: Answer) -> Verdict:
        """Take an answer in."""
        self.in_flight_count -= 1
        verdict = self.TABLE[step](self, argument, answer)
        if verdict is Verdict.GOING_ON and not self.wanted and not self.in_flight_count:
            return self._next_stage()
        return verdict

    def _want(self, step: Step, argument: Any, operation: Operation) -> Verdict:
        self.wanted.append((step, argument, operation))
        return Verdict.GOING_ON

    def _again(self, text: str) -> Verdict:
        self.trouble = text
        return Verdict.AGAIN

    # ---- whose registry is it ------------------------------------------------------------------

    def _format(self, _: None, answer: Answer) -> Verdict:
        if answer.outcome is Outcome.NO_NODE:
            return self._want(Step.BASE, None, Multi(self._base_writes()))
        if answer.outcome is not Outcome.OK:
            return self._again(f"cannot read {layout.FORMAT}: {answer.outcome.value}")
        level = json.loads(answer.data)["level"]
        if level != layout.FORMAT_LEVEL:
            expected = f"expected format level {layout.FORMAT_LEVEL}, got {level}"
            self.trouble = f"{layout.FORMAT}: {expected}"
            return Verdict.FOREIGN
        return self._look_for_active()

    def _base_writes(self) -> tuple[Write, ...]:
        first = {layout.TABLE_IDS: layout.encode_count(0), layout.EPOCH: b"-1"}
        writes = [Create(path, first.get(path, b"")) for path in layout.BASE_NODES]
        descriptor = layout.encode({"version": 1, "custom_properties": {}})
        default = DatabaseRecord(layout.DEFAULT_DATABASE, descriptor, self.wall_ms, self.wall_ms)
        writes += [
            Create(layout.database_path(default.name), layout.encode_database(default, "base")),
            Create(layout.tables_path(default.name)),
            Create(layout.FORMAT, layout.encode({"version": 1, "level": layout.FORMAT_LEVEL})),
        ]
        return tuple(writes)

    def _base(self, _: None, answer: Answer) -> Verdict:
        if answer.outcome is Outcome.NODE_EXISTS:
            # Another coordinator of ours was faster, and the format is there by now; or it is upstream's.
            if self.base_tried:
                return self._foreign()
            self.base_tried = True
            return self._want(Step.FORMAT, None, GetData(layout.FORMAT))
        if answer.outcome is not Outcome.OK:
            return self._again(f"cannot make the base nodes: {answer.outcome.value}")
        return self._look_for_active()

    def _foreign(self) -> Verdict:
        self.trouble = f"{layout.ROOT} exists in the registry, without {layout.FORMAT}: it is not flussd's"
        return Verdict.FOREIGN

    # ---- becoming active -----------------------------------------------------------------------

    def _look_for_active(self) -> Verdict:
        return self._want(Step.ACTIVE, None, GetData(layout.ACTIVE, watch=True))

    def _active(self, _: None, answer: Answer) -> Verdict:
        if answer.outcome is Outcome.OK:
            assert answer.stat is not None
            ours = answer.stat.ephemeral_owner == self.session_id
            # A former process of our data directory, which is locked, is dead for certain.
            if not ours and layout.directory_of_active(answer.data) != self.directory_id:
                return Verdict.STANDBY
            self._replaced = (answer.data, answer.stat)
        elif answer.outcome is not Outcome.NO_NODE:
            return self._again(f"cannot read {layout.ACTIVE}: {answer.outcome.value}")
        return self._want(Step.EPOCH, None, GetData(layout.EPOCH))

    def _epoch(self, _: None, answer: Answer) -> Verdict:
        if answer.outcome is not Outcome.OK:
            return self._again(f"cannot read {layout.EPOCH}: {answer.outcome.value}")
        assert answer.stat is not None
        self.epoch, self.epoch_version = int(answer.data) + 1, answer.stat.version + 1
        writes: list[Write] = [SetData(layout.EPOCH, str(self.epoch).encode(), answer.stat.version)]
        if self._replaced is not None:
            writes.append(Delete(layout.ACTIVE, self._replaced[1].version))
        data = layout.encode_active(self.config.server_id, self.directory_id, epoch=self.epoch)
        writes.append(Create(layout.ACTIVE, data, ephemeral=True))
        return self._want(Step.TAKE, None, Multi(tuple(writes)))

    def _take(self, _: None, answer: Answer) -> Verdict:
        if answer.outcome is not Outcome.OK:
            return self._again(f"cannot become active: {answer.outcome.value}")
        self._want(Step.TABLE_IDS, None, GetData(layout.TABLE_IDS))
        self._want(Step.PARTITION_IDS, None, GetData(layout.PARTITION_IDS))
        for path in NODES:
            self._want(Step.NODE, path, GetData(path))
        self._want(Step.PRODUCERS, None, GetChildren(PRODUCERS))
        self._want(Step.DATABASES, None, GetChildren(layout.DATABASES))
        return self._want(Step.TOMBSTONES, None, GetChildren(layout.DROPPED))

    # ---- reading everything, in stages ---------------------------------------------------------

    def _next_stage(self) -> Verdict:
        """What the next questions depend on is known."""
        self.stage += 1
        if self.stage == 1:
            assert not self.tables, "every table was read with its schemas"
            parent = layout.PARTITION_ASSIGNMENTS
            self._want(Step.PARTITION_ASSIGNMENTS, None, GetChildren(parent))
            return self._want(Step.ASSIGNMENTS, None, GetChildren(layout.ASSIGNMENTS))
        if self.stage == 2:
            return self._want(Step.SERVERS, None, GetChildren(layout.SERVERS, watch=True))
        return Verdict.DONE

    def _table_ids(self, _: None, answer: Answer) -> Verdict:
        if answer.outcome is not Outcome.OK or answer.stat is None:
            return self._unreadable(layout.TABLE_IDS, answer)
        self.state.apply(ch.TableIdsMoved(layout.decode_count(answer.data), answer.stat.version))
        return Verdict.GOING_ON

    def _partition_ids(self, _: None, answer: Answer) -> Verdict:
        if answer.outcome is not Outcome.OK or answer.stat is None:
            return self._unreadable(layout.PARTITION_IDS, answer)
        next_id = layout.decode_count(answer.data)
        self.state.apply(ch.PartitionIdsMoved(next_id, answer.stat.version))
        return Verdict.GOING_ON

    def _node(self, path: str, answer: Answer) -> Verdict:
        if answer.outcome is Outcome.NO_NODE:
            return Verdict.GOING_ON  # it comes with the first change
        if answer.outcome is not Outcome.OK or answer.stat is None:
            return self._unreadable(path, answer)
        self.state.apply(NODES[path](answer.data, answer.stat.version))
        return Verdict.GOING_ON

    def _producers(self, _: None, answer: Answer) -> Verdict:
        if answer.outcome is Outcome.NO_NODE:
            return Verdict.GOING_ON  # it comes with the first producer, and goes with the last
        if answer.outcome is not Outcome.OK:
            return self._unreadable(PRODUCERS, answer)
        for name in answer.children:
            self._want(Step.PRODUCER, name, GetData(producer_path(name)))
        return Verdict.GOING_ON

    def _producer(self, producer_id: str, answer: Answer) -> Verdict:
        if answer.outcome is not Outcome.OK:
            return self._unreadable(producer_path(producer_id), answer)
        self.state.apply(ch.ProducerRegistered(decode_producer(producer_id, answer.data)))
        return Verdict.GOING_ON

    def _unreadable(self, path: str, answer: Answer) -> Verdict:
        return self._again(f"cannot read {path}: {answer.outcome.value}")

    def _databases(self, _: None, answer: Answer) -> Verdict:
        if answer.outcome is not Outcome.OK:
            return self._unreadable(layout.DATABASES, answer)
        for name in answer.children:
            self._want(Step.DATABASE, name, GetData(layout.database_path(name)))
            self._want(Step.TABLES, name, GetChildren(layout.tables_path(name)))
        return Verdict.GOING_ON

    def _database(self, name: str, answer: Answer) -> Verdict:
        if answer.outcome is not Outcome.OK or answer.stat is None:
            return self._unreadable(layout.database_path(name), answer)
        record, marks = layout.decode_database(name, answer.data), layout.decode_marks(answer.data)
        self.state.apply(ch.DatabaseMade(record, answer.stat.version, *marks))
        return Verdict.GOING_ON

    def _tables(self, database: str, answer: Answer) -> Verdict:
        if answer.outcome is not Outcome.OK:
            return self._unreadable(layout.tables_path(database), answer)
        for name in answer.children:
            path = (database, name)
            self._want(Step.TABLE, path, GetData(layout.table_path(path)))
        return Verdict.GOING_ON

    def _table(self, path: TablePath, answer: Answer) -> Verdict:
        if answer.outcome is not Outcome.OK or answer.stat is None:
            return self._unreadable(layout.table_path(path), answer)
        self.tables[path] = PartialTable(answer.data, answer.stat.version)
        return self._want(Step.SCHEMAS, path, GetChildren(layout.schemas_path(path)))

    def _schemas(self, path: TablePath, answer: Answer) -> Verdict:
        if answer.outcome is not Outcome.OK or not answer.children:
            return self._unreadable(layout.schemas_path(path), answer)
        self.tables[path].wanted = len(answer.children)
        for name in answer.children:
            operation = GetData(f"{layout.schemas_path(path)}/{name}")
            self._want(Step.SCHEMA, (path, int(name)), operation)
        return Verdict.GOING_ON

    def _schema(self, which: tuple[TablePath, int], answer: Answer) -> Verdict:
        path, schema_id = which
        if answer.outcome is not Outcome.OK:
            return self._unreadable(f"{layout.schemas_path(path)}/{schema_id}", answer)
        table = self.tables[path]
        table.schemas[schema_id] = answer.data
        if len(table.schemas) == table.wanted:
            del self.tables[path]
            record = layout.decode_table(path, table.data, table.schemas)
            self.state.apply(ch.TableMade(record, table.version, *layout.decode_marks(table.data)))
            if record.is_partitioned:
                self._want(Step.PARTITIONS, path, GetChildren(layout.partitions_path(path)))
        return Verdict.GOING_ON

    def _partitions(self, path: TablePath, answer: Answer) -> Verdict:
        if answer.outcome is Outcome.NO_NODE:
            return Verdict.GOING_ON  # it comes with the first partition, and goes with the last
        if answer.outcome is not Outcome.OK:
            return self._unreadable(layout.partitions_path(path), answer)
        for name in answer.children:
            self._want(Step.PARTITION, (path, name), GetData(layout.partition_path(path, name)))
        return Verdict.GOING_ON

    def _partition(self, which: tuple[TablePath, str], answer: Answer) -> Verdict:
        if answer.outcome is not Outcome.OK:
            return self._unreadable(layout.partition_path(*which), answer)
        self.state.apply(ch.PartitionMade(*layout.decode_partition(which[1], answer.data)))
        return Verdict.GOING_ON

    def _tombstones(self, _: None, answer: Answer) -> Verdict:
        if answer.outcome is not Outcome.OK:
            return self._unreadable(layout.DROPPED, answer)
        for name in answer.children:
            self._want(Step.TOMBSTONE, name, GetData(f"{layout.DROPPED}/{name}"))
        return Verdict.GOING_ON

    def _tombstone(self, name: str, answer: Answer) -> Verdict:
        if answer.outcome is not Outcome.OK:
            return self._unreadable(f"{layout.DROPPED}/{name}", answer)
        self.state.apply(ch.GroupDropped(layout.decode_tombstone(answer.data)))
        return Verdict.GOING_ON

    def _assignments(self, _: None, answer: Answer) -> Verdict:
        if answer.outcome is not Outcome.OK:
            return self._unreadable(layout.ASSIGNMENTS, answer)
        for name in answer.children:
            group = (int(name), NO_PARTITION)
            self._want(Step.ASSIGNMENT, group, GetData(layout.assignment_path(group)))
        return Verdict.GOING_ON

    def _partition_assignments(self, _: None, answer: Answer) -> Verdict:
        if answer.outcome is not Outcome.OK:
            return self._unreadable(layout.PARTITION_ASSIGNMENTS, answer)
        for name in answer.children:
            path = f"{layout.PARTITION_ASSIGNMENTS}/{name}"
            self._want(Step.PARTITION_ASSIGNMENT, int(name), GetData(path))
        return Verdict.GOING_ON

    def _partition_assignment(self, partition_id: int, answer: Answer) -> Verdict:
        if answer.outcome is not Outcome.OK:
            return self._unreadable(f"{layout.PARTITION_ASSIGNMENTS}/{partition_id}", answer)
        return self._assignment((layout.table_of_assignment(answer.data), partition_id), answer)

    def _assignment(self, group: GroupKey, answer: Answer) -> Verdict:
        if answer.outcome is not Outcome.OK:
            return self._unreadable(layout.assignment_path(group), answer)
        replicas = layout.decode_assignment(answer.data)
        self.state.apply(ch.Assigned(group, replicas))
        for bucket in range(len(replicas)):
            key = (*group, bucket)
            self._want(Step.RECORD, key, GetData(layout.record_path(key)))
        return Verdict.GOING_ON

    def _record(self, key: tuple[int, int, int], answer: Answer) -> Verdict:
        if answer.outcome is Outcome.NO_NODE:
            return Verdict.GOING_ON  # not made yet, or erased
        if answer.outcome is not Outcome.OK or answer.stat is None:
            return self._unreadable(layout.record_path(key), answer)
        self.state.apply(ch.RecordSet(layout.decode_record(key, answer.data), answer.stat.version))
        return Verdict.GOING_ON

    def _servers(self, _: None, answer: Answer) -> Verdict:
        if answer.outcome is not Outcome.OK:
            return self._unreadable(layout.SERVERS, answer)
        for name in answer.children:
            self._want(Step.SERVER, int(name), GetData(layout.server_path(int(name))))
        return Verdict.GOING_ON

    def _server(self, server_id: int, answer: Answer) -> Verdict:
        if answer.outcome is Outcome.NO_NODE:
            return Verdict.GOING_ON  # gone since; the watch on the list tells of it
        if answer.outcome is not Outcome.OK or answer.stat is None:
            return self._unreadable(layout.server_path(server_id), answer)
        stat = answer.stat
        registration = layout.decode_registration(server_id, answer.data, stat.czxid, stat.version)
        self.state.apply(ch.ServerSeen(registration))
        return Verdict.GOING_ON

    def clone(self) -> Activation:
        """Return a copy that shares nothing that changes."""
        tables = {
            path: attrs.evolve(table, schemas=dict(table.schemas)) for path, table in self.tables.items()
        }
        return attrs.evolve(self, state=self.state.clone(), wanted=deque(self.wanted), tables=tables)

    TABLE: ClassVar[dict[Step, Callable[[Activation, Any, Answer], Verdict]]] = {
        Step.FORMAT: _format,
        Step.BASE: _base,
        Step.ACTIVE: _active,
        Step.EPOCH: _epoch,
        Step.TAKE: _take,
        Step.TABLE_IDS: _table_ids,
        Step.PARTITION_IDS: _partition_ids,
        Step.NODE: _node,
        Step.PRODUCERS: _producers,
        Step.PRODUCER: _producer,
        Step.DATABASES: _databases,
        Step.DATABASE: _database,
        Step.TABLES: _tables,
        Step.TABLE: _table,
        Step.SCHEMAS: _schemas,
        Step.SCHEMA: _schema,
        Step.PARTITIONS: _partitions,
        Step.PARTITION: _partition,
        Step.TOMBSTONES: _tombstones,
        Step.TOMBSTONE: _tombstone,
        Step.ASSIGNMENTS: _assignments,
        Step.ASSIGNMENT: _assignment,
        Step.PARTITION_ASSIGNMENTS: _partition_assignments,
        Step.PARTITION_ASSIGNMENT: _partition_assignment,
        Step.RECORD: _record,
        Step.SERVERS: _servers,
        Step.SERVER: _server,
    }
