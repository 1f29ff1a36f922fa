"""An admin: makes the tables of the run, creates and drops others, writes to them, asks about them.

Each name is created once at most, so that an id tells a creation. Ambiguous ends are kept as such.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import attrs

from flussd.core.catalog.answers import FORGETFUL_CLIENT
from flussd.core.records.batch import build_batch
from flussd.core.wire import messages
from flussd.core.wire.apis import ApiKey
from flussd.core.wire.errors import ErrorCode
from flussd.runtime_sim.cluster import COORDINATOR_ADDRESS
from flussd.runtime_sim.oracles.catalog import CatalogTruth, Presence
from flussd.runtime_sim.oracles.violation import Oracle, Violation
from flussd.runtime_sim.workload.client import Answer, Client, Learned, Place
from flussd.runtime_sim.workload.tables import DATABASE, TableSpec

LATER: Final = frozenset(
    {
        ErrorCode.NOT_COORDINATOR_LEADER_EXCEPTION,
        ErrorCode.INVALID_REPLICATION_FACTOR,  # no tablet server is registered at the moment
        ErrorCode.LEADER_NOT_AVAILABLE_EXCEPTION,
        ErrorCode.DISK_WRITE_LOCKED,  # the registry has no room for it
    }
)
"""Refusals that a client tries again: nothing was done."""


@attrs.define(eq=False, repr=False)
class Admin:
    """One admin client; one request at a time."""

    client: Client
    truth: CatalogTruth
    name_count: int = 0
    names: list[str] = attrs.Factory(list)  # created by it, in order
    is_busy: bool = False

    # ---- tables of the run ---------------------------------------------------------------------

    def make_table(self, spec: TableSpec, done: Callable[[int], None]) -> None:
        """Create a table for writers, however often that takes; *done* gets its id."""
        name = spec.name

        def created(answer: Answer) -> None:
            if answer.message is None and answer.code != ErrorCode.TABLE_ALREADY_EXIST:
                self.client.later(50, 300, self.make_table, spec, done)
                return
            self.truth.created(name)
            self._ask_id(name, done)

        self._create(spec, created)

    def _create(self, spec: TableSpec, done: Callable[[Answer], None]) -> None:
        request = messages.CreateTableRequest(table_json=spec.descriptor(), ignore_if_exists=False)
        request.table_path.database_name, request.table_path.table_name = DATABASE, spec.name
        self.client.note("create", spec.name)
        self.client.ask(COORDINATOR_ADDRESS, ApiKey.CREATE_TABLE, request, done)

    def _ask_id(self, name: str, done: Callable[[int], None]) -> None:
        def answered(answer: Answer) -> None:
            if answer.message is None:
                self.client.later(50, 300, self._ask_id, name, done)
                return
            self.truth.has_id(name, answer.message.table_id)
            done(answer.message.table_id)

        self._ask_about(ApiKey.GET_TABLE_INFO, messages.GetTableInfoRequest(), name, answered)

    def _ask_about(
        self, api_key: ApiKey, request: Any, name: str, answered: Callable[[Answer], None]
    ) -> None:
        request.table_path.database_name, request.table_path.table_name = DATABASE, name
        self.client.ask(COORDINATOR_ADDRESS, api_key, request, answered)

    # ---- the churn -----------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to create and drop."""
        self.client.later(100, 1_000, self._act)

    def _act(self) -> None:
        if self.client.is_stopping:
            return
        questions = (self._exists, self._list, self._info, self._nodes)
        action = self.client.draws.choice((self._create_one, self._create_one, self._drop_one, *questions))
        self.is_busy = True
        action()

    def _next(self) -> None:
        self.is_busy = False
        self.client.later(20, 1_500, self._act)

    def _create_one(self) -> None:
        self.name_count += 1
        name = f"churn_{self.name_count}"
        self.names.append(name)

        def created(answer: Answer) -> None:
            self.client.note("created", f"{name}: {answer.code} {answer.text}")
            if answer.message is not None:
                self.truth.created(name)
                self.client.world.count("tables created")
                self._write_to(name)
                return
            if answer.is_lost:
                self.truth.unknown(name)
            elif answer.code not in LATER:
                self._nonsense("create", name, answer)
            self._next()

        self._create(TableSpec(name, self.client.draws.between(1, 3)), created)

    def _write_to(self, name: str) -> None:
        """Let a new table have bytes to be erased; whether that works does not matter."""
        place = Place(DATABASE, name)

        def learned(_: Learned) -> None:
            address, table = self.client.leader_of(place, 0), self.client.tables.get(place)
            if table is not None:
                self.truth.has_id(name, table.table_id)
            if address is None or table is None:
                self._next()
                return
            request = messages.ProduceLogRequest(acks=-1, table_id=table.table_id, timeout_ms=1_000)
            request.buckets_req.add(bucket_id=0, records=build_batch(b"churn", record_count=1))
            self.client.ask(address, ApiKey.PRODUCE_LOG, request, lambda _: self._next())

        self.client.learn(place, learned)

    def _drop_one(self) -> None:
        if not self.names:
            self._next()
            return
        name = self.client.draws.choice(self.names)
        ignore = self.client.draws.chance(300_000)
        request = messages.DropTableRequest(ignore_if_not_exists=ignore)
        before = self.truth.of(name)

        def dropped(answer: Answer) -> None:
            self.client.note("dropped", f"{name}: {answer.code} {answer.text}")
            if answer.message is not None:
                if before is Presence.PRESENT:
                    self.client.world.count("tables dropped")
                if before is Presence.ABSENT and not ignore:
                    self.truth.expect(name, exists=True, how="a drop")
                if before is not Presence.MAYBE:  # a creation may still come
                    self.truth.dropped(name)
            elif answer.is_lost:
                if before is not Presence.ABSENT:
                    self.truth.unknown(name)
            elif answer.code == ErrorCode.TABLE_NOT_EXIST:
                self.truth.expect(name, exists=False, how="a drop")
            elif answer.code not in LATER:
                self._nonsense("drop", name, answer)
            self._next()

        self.client.note("drop", name)
        self._ask_about(ApiKey.DROP_TABLE, request, name, dropped)

    # ---- questions -----------------------------------------------------------------------------

    def _exists(self) -> None:
        if not self.names:
            self._next()
            return
        name = self.client.draws.choice(self.names)

        def answered(answer: Answer) -> None:
            if answer.message is not None:
                self.truth.expect(name, exists=answer.message.exists, how="the coordinator")
            self._next()

        self._ask_about(ApiKey.TABLE_EXISTS, messages.TableExistsRequest(), name, answered)

    def _info(self) -> None:
        if not self.names:
            self._next()
            return
        name = self.client.draws.choice(self.names)

        def answered(answer: Answer) -> None:
            if answer.message is not None:
                self.truth.expect(name, exists=True, how="the coordinator")
                self.truth.has_id(name, answer.message.table_id)
            elif answer.code == ErrorCode.TABLE_NOT_EXIST:
                self.truth.expect(name, exists=False, how="the coordinator")
            self._next()

        self._ask_about(ApiKey.GET_TABLE_INFO, messages.GetTableInfoRequest(), name, answered)

    def _list(self) -> None:
        self.list_tables(lambda _: self._next())

    def _nodes(self) -> None:
        """Ask for the servers as pyfluss does, which is told of the tables with them."""

        def named(answer: Answer) -> None:
            if answer.message is None:
                self._next()
            else:
                request = messages.MetadataRequest()
                self.client.ask(COORDINATOR_ADDRESS, ApiKey.GET_METADATA, request, told)

        def told(answer: Answer) -> None:
            found = [] if answer.message is None else answer.message.table_metadata
            ours = [table for table in found if table.table_path.database_name == DATABASE]
            for table in ours:
                self.truth.has_id(table.table_path.table_name, table.table_id)
            if ours:  # else the connection may have broken in between, and nobody knows who we are
                self.truth.listed([table.table_path.table_name for table in ours])
                self.client.world.count("tables introduced")
            self._next()

        hello = messages.ApiVersionsRequest(
            client_software_name=FORGETFUL_CLIENT, client_software_version="1.0.0"
        )
        self.client.ask(COORDINATOR_ADDRESS, ApiKey.API_VERSIONS, hello, named)

    def list_tables(self, done: Callable[[list[str] | None], None]) -> None:
        """Ask for all tables; *done* gets None when that did not work."""

        def answered(answer: Answer) -> None:
            names = None if answer.message is None else list(answer.message.table_name)
            if names is not None:
                self.truth.listed(names)
            done(names)

        request = messages.ListTablesRequest(database_name=DATABASE)
        self.client.ask(COORDINATOR_ADDRESS, ApiKey.LIST_TABLES, request, answered)

    def _nonsense(self, what: str, name: str, answer: Answer) -> None:
        text = f"{what} of {name}, which {self.truth.of(name).value}: {answer.code}: {answer.text}"
        raise Violation(Oracle.ANSWERS_MAKE_SENSE, text)
