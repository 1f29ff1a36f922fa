"""A client that changes the tables of the run: makes and drops partitions, adds columns, alters options.

One request at a time. Every name is used once, so that what is found tells what was done; what ended
without an answer stays in doubt until it is seen.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

import attrs

from flussd.core.wire import messages
from flussd.core.wire.apis import ApiKey
from flussd.core.wire.errors import ErrorCode
from flussd.runtime_sim.cluster import COORDINATOR_ADDRESS
from flussd.runtime_sim.oracles.catalog import Presence
from flussd.runtime_sim.oracles.schemas import SchemaTruth
from flussd.runtime_sim.oracles.violation import Oracle, Violation
from flussd.runtime_sim.workload.admin import LATER
from flussd.runtime_sim.workload.client import Answer, Client
from flussd.runtime_sim.workload.places import TableInUse, list_partitions
from flussd.runtime_sim.workload.tables import (
    DATABASE,
    FIRST_PARTITION,
    PARTITION_COLUMN,
    Partitioning,
)

PARTITIONS_MAX: Final = 2
"""Of one table, beside the first: more cost time, and show nothing more."""

COLUMNS_ADDED_MAX: Final = 4
MISSING: Final = frozenset({ErrorCode.TABLE_NOT_EXIST, ErrorCode.PARTITION_NOT_EXISTS})
"""What a client is not told of what it made, and did not drop."""

TTLS: Final = ("2 s", "3 s", "8 s", "7 d")


@attrs.define(eq=False, repr=False)
class Alterer:
    """Changes *tables*; see the module's text."""

    client: Client
    tables: list[TableInUse]
    schemas: dict[str, SchemaTruth]  # by table
    pause_ms: tuple[int, int]
    is_calm: bool = False  # makes and drops no partitions any more
    is_busy: bool = False
    _count: int = 0

    # ---- what a run begins with ----------------------------------------------------------------

    def make_first(self, table: TableInUse, done: Callable[[], None]) -> None:
        """Make the partition that is never dropped, however often that takes."""

        def made(answer: Answer) -> None:
            if answer.message is None and answer.code != ErrorCode.PARTITION_ALREADY_EXISTS:
                self.client.later(50, 300, self.make_first, table, done)
                return
            table.truth.set(FIRST_PARTITION, Presence.PRESENT)
            done()

        table.truth.set(FIRST_PARTITION, Presence.MAYBE)
        self._ask_partition(ApiKey.CREATE_PARTITION, table, FIRST_PARTITION, made)

    def start(self) -> None:
        """Begin to change things."""
        self.client.later(100, 600, self._act)

    def _act(self) -> None:
        if self.client.is_stopping:
            return
        table = self.client.draws.choice(self.tables)
        by_client = table.spec.partitioning is Partitioning.BY_CLIENT and not self.is_calm
        actions = [self._add_column, self._set_ttl, self._read_schema, self._read_options]
        if by_client:
            actions += [self._make, self._make, self._drop, self._drop]
        if table.spec.is_partitioned:
            actions.append(self._list)
        self.is_busy = True
        self.client.draws.choice(actions)(table)

    def _next(self) -> None:
        self.is_busy = False
        self.client.later(*self.pause_ms, self._act)

    # ---- partitions ----------------------------------------------------------------------------

    def _ask_partition(
        self, api_key: ApiKey, table: TableInUse, name: str, done: Callable[[Answer], None]
    ) -> None:
        request: Any = messages.request_class(api_key)(ignore_if_not_exists=False)
        request.table_path.database_name, request.table_path.table_name = DATABASE, table.spec.name
        request.partition_spec.partition_key_values.add(key=PARTITION_COLUMN[0], value=name)
        what, ended = ("create", "created") if api_key == ApiKey.CREATE_PARTITION else ("drop", "dropped")
        self.client.note(what, f"partition {table.spec.name}/{name}")

        def answered(answer: Answer) -> None:
            self.client.note(ended, f"partition {table.spec.name}/{name}: {answer.code} {answer.text}")
            done(answer)

        self.client.ask(COORDINATOR_ADDRESS, api_key, request, answered)

    def _present(self, table: TableInUse) -> list[str]:
        present = (Presence.PRESENT, Presence.MAYBE)
        names = [name for name, known in table.truth.presence.items() if known in present]
        return [name for name in names if name != FIRST_PARTITION]

    def _make(self, table: TableInUse) -> None:
        known = list(table.truth.presence.values())
        if known.count(Presence.PRESENT) > PARTITIONS_MAX:
            self._drop(table)
            return
        self._count += 1
        name, truth = f"p{self._count}", table.truth
        truth.set(name, Presence.MAYBE)

        def made(answer: Answer) -> None:
            if answer.message is not None:
                truth.set(name, Presence.PRESENT)
                self.client.world.count("partitions created")
            elif answer.code in LATER:
                truth.set(name, Presence.ABSENT)
            elif not answer.is_lost:
                self._nonsense("create", f"{table.spec.name}/{name}", answer)
            self._next()

        self._ask_partition(ApiKey.CREATE_PARTITION, table, name, made)

    def _drop(self, table: TableInUse) -> None:
        names = self._present(table)
        if not names:
            self._next()
            return
        name, truth = self.client.draws.choice(names), table.truth
        before = truth.of(name)
        truth.set(name, Presence.MAYBE)

        def dropped(answer: Answer) -> None:
            if answer.message is not None:
                if before is Presence.PRESENT:  # else its creation may still come
                    truth.set(name, Presence.ABSENT)
                    self.client.world.count("partitions dropped")
            elif answer.code in LATER:
                truth.set(name, before)
            elif answer.code == ErrorCode.PARTITION_NOT_EXISTS:
                if before is Presence.PRESENT:
                    self._nonsense("drop", f"{table.spec.name}/{name}", answer)
            elif not answer.is_lost:
                self._nonsense("drop", f"{table.spec.name}/{name}", answer)
            self._next()

        self._ask_partition(ApiKey.DROP_PARTITION, table, name, dropped)

    def _list(self, table: TableInUse) -> None:
        list_partitions(self.client, table, lambda _: self._next())

    # ---- schemas and options -------------------------------------------------------------------

    def _alter(
        self, table: TableInUse, request: messages.AlterTableRequest, done: Callable[[Answer], None]
    ) -> None:
        request.table_path.database_name, request.table_path.table_name = DATABASE, table.spec.name
        request.ignore_if_not_exists = False
        self.client.note("alter", f"{table.spec.name}: {request}")

        def answered(answer: Answer) -> None:
            self.client.note("altered", f"{table.spec.name}: {answer.code} {answer.text}")
            if answer.message is None and not answer.is_lost and answer.code not in LATER:
                self._nonsense("alter", table.spec.name, answer)
            done(answer)

        self.client.ask(COORDINATOR_ADDRESS, ApiKey.ALTER_TABLE, request, answered)

    def _add_column(self, table: TableInUse) -> None:
        truth = self.schemas[table.spec.name]
        if truth.newest + len(truth.maybes) > COLUMNS_ADDED_MAX:
            self._read_schema(table)
            return
        self._count += 1
        column = f"c{self._count}"
        truth.maybes[column] = None
        request = messages.AlterTableRequest()
        request.add_columns.add(
            column_name=column, data_type_json=b'{"type":"INTEGER"}', column_position_type=0
        )

        def altered(answer: Answer) -> None:
            if answer.message is not None:
                truth.added(column)
                self.client.world.count("columns added")
                self._read_schema(table)
                return
            if not answer.is_lost:
                del truth.maybes[column]
            self._next()

        self._alter(table, request, altered)

    def _set_ttl(self, table: TableInUse) -> None:
        truth, ttl = self.schemas[table.spec.name], self.client.draws.choice(TTLS)
        truth.maybe_ttls.append(ttl)
        request = messages.AlterTableRequest()
        request.config_changes.add(config_key="table.log.ttl", config_value=ttl, op_type=0)

        def altered(answer: Answer) -> None:
            if answer.message is not None:
                truth.ttl = ttl
                self.client.world.count("options altered")
            if not answer.is_lost:
                truth.maybe_ttls.remove(ttl)
            self._next()

        self._alter(table, request, altered)

    def _read_schema(self, table: TableInUse) -> None:
        read_schema(self.client, COORDINATOR_ADDRESS, self.schemas[table.spec.name], -1, self._next)

    def _read_options(self, table: TableInUse) -> None:
        request = messages.GetTableInfoRequest()
        request.table_path.database_name, request.table_path.table_name = DATABASE, table.spec.name
        truth = self.schemas[table.spec.name]

        def answered(answer: Answer) -> None:
            if answer.message is not None:
                properties = json.loads(answer.message.table_json)["properties"]
                truth.ttl_is(properties.get("table.log.ttl", ""))
            self._next()

        self.client.ask(COORDINATOR_ADDRESS, ApiKey.GET_TABLE_INFO, request, answered)

    def _nonsense(self, what: str, name: str, answer: Answer) -> None:
        oracle = Oracle.CATALOG_IS_TRUE if answer.code in MISSING else Oracle.ANSWERS_MAKE_SENSE
        raise Violation(oracle, f"{what} of {name}: {answer.code}: {answer.text}")


def read_schema(
    client: Client, address: str, truth: SchemaTruth, schema_id: int, done: Callable[[], None]
) -> None:
    """Ask for a schema, the newest if *schema_id* is -1, and hold what is told against the truth."""
    request: Any = messages.GetTableSchemaRequest()
    request.table_path.database_name, request.table_path.table_name = DATABASE, truth.table
    if schema_id >= 0:
        request.schema_id = schema_id

    def answered(answer: Answer) -> None:
        if answer.message is not None:
            told = answer.message
            columns = tuple([column["name"] for column in json.loads(told.schema_json)["columns"]])
            if schema_id >= 0 and told.schema_id != schema_id:
                text = f"asked for schema {schema_id} of {truth.table}, got {told.schema_id}"
                raise Violation(Oracle.ANSWERS_MAKE_SENSE, text)
            if schema_id < 0 and address == COORDINATOR_ADDRESS:
                truth.newest_seen(told.schema_id, columns)
            else:
                truth.seen(told.schema_id, columns, address)
        done()

    client.ask(address, ApiKey.GET_TABLE_SCHEMA, request, answered)
