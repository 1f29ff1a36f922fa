"""What a tablet server knows of the cluster, and its answers to those who ask.

The coordinator pushes desired state: a snapshot when it connects, then changes, in sequence. From the
bucket records each server derives its own roles. Read-only requests are answered from the same catalog.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Final

import attrs

from flussd.core.catalog import answers
from flussd.core.catalog.catalog import Catalog
from flussd.core.catalog.records import TableRecord
from flussd.core.connections import Reply, ReplyError, RequestReceived
from flussd.core.limits import LEADERLESS_HOLD_MS
from flussd.core.records.predicate import Filter, compile_filter
from flussd.core.records.project import Layout, Projection, layout_of
from flussd.core.records.refusal import Refused
from flussd.core.replica.events import BucketKey
from flussd.core.tablet.parked import Waiter
from flussd.core.wire import messages, private
from flussd.core.wire.errors import ErrorCode

if TYPE_CHECKING:
    from flussd.core.tablet.tablet import TabletServer

FILTERS_MAX: Final = 64
"""Compiled filters that are kept: readers send the same with every poll, and compiling takes 0.1 ms."""


@attrs.define(eq=False)
class MetadataWaiter(Waiter):
    """A question whose answer lacks a leader, or the whole catalog: held in the hope of one."""

    event: RequestReceived | None = None


@attrs.define(eq=False)
class Metadata:
    """The catalog of a tablet server."""

    server: TabletServer
    catalog: Catalog = attrs.Factory(Catalog)
    fresh: Catalog | None = None  # a snapshot that is not complete yet
    complete: bool = False  # whether a coordinator has told us everything
    coordinator_epoch: int = -1
    sequence: int = 0
    layouts: dict[tuple[int, int], Layout] = attrs.Factory(dict)  # (table id, schema id)
    filters: dict[tuple[int, int, bytes], tuple[TableRecord, Filter | None]] = attrs.Factory(dict)
    waiting: dict[int, MetadataWaiter] = attrs.Factory(dict)  # serial ->

    # ---- from the coordinator ------------------------------------------------------------------

    def from_ours(self, event: RequestReceived) -> bool:
        """Refuse, unless this comes from the newest coordinator and is meant for our incarnation."""
        asked, ours = event.message, self.server.registration.incarnation
        if asked.coordinator_epoch < self.coordinator_epoch:
            text = f"coordinator epoch: expected {self.coordinator_epoch}, got {asked.coordinator_epoch}"
            self._refuse(event, ErrorCode.INVALID_COORDINATOR_EXCEPTION, text)
            return False
        if asked.tablet_incarnation != ours:
            text = f"incarnation: this server is {ours}, asked for {asked.tablet_incarnation}"
            self._refuse(event, ErrorCode.INELIGIBLE_REPLICA_EXCEPTION, text)
            return False
        if asked.coordinator_epoch > self.coordinator_epoch:
            self.coordinator_epoch, self.sequence, self.fresh = asked.coordinator_epoch, 0, None
        return True

    def updated(self, event: RequestReceived) -> None:
        """Take a part of the catalog in, once, and confirm it."""
        if not self.from_ours(event):
            return
        update = event.message
        if update.sequence > self.sequence:
            self.sequence = update.sequence
            self._apply(update)
        response = private.UpdateCatalogResponse(sequence=update.sequence)
        self.server.emit(Reply(event.connection, event.request_id, response))

    def _apply(self, update: private.UpdateCatalogRequest) -> None:
        if update.snapshot_begin:
            self.fresh = Catalog()
        into = self.fresh if self.fresh is not None else self.catalog
        into.apply(update)
        if self.fresh is None:
            changed = [answers.key_of(entry) for entry in update.buckets]
        elif update.snapshot_end:
            before, self.catalog, self.fresh, self.complete = self.catalog, self.fresh, None, True
            changed = sorted({*before.buckets, *self.catalog.buckets, *self.server.buckets.replicas})
        else:
            return
        for entry in update.buckets:
            if entry.dropped:
                self.server.buckets.drop(answers.key_of(entry), entry.leader_epoch)
        for key in changed:
            self._role(key)
        self.server.keyed.tables_told()
        self._look_again()

    def _role(self, key: BucketKey) -> None:
        """Derive our role from a bucket's record."""
        record = self.catalog.bucket(key)
        config, ours = self.server.config, self.server.registration.incarnation
        if (
            record is not None
            and record.leader_id == config.server_id
            and record.leader_incarnation == ours
        ):
            self.server.buckets.give(key, record.leader_epoch, ours)
        else:
            self.server.buckets.take(key)

    # ---- questions -----------------------------------------------------------------------------

    def asked(self, event: RequestReceived) -> None:
        """Answer a read-only request, or hold it while a leader is missing."""
        if not self._answer(event, final=False):
            waiter = MetadataWaiter(
                event.connection, event.request_id, self.server.now_ms + LEADERLESS_HOLD_MS, event=event
            )
            self.server.parked.add(waiter)
            self.waiting[waiter.serial] = waiter

    def timed_out(self, waiter: MetadataWaiter) -> None:
        """No leader in time: the answer says so."""
        self.waiting.pop(waiter.serial, None)
        assert waiter.event is not None
        self._answer(waiter.event, final=True)

    def _look_again(self) -> None:
        for serial, waiter in list(self.waiting.items()):
            if serial not in self.server.parked.waiters:
                del self.waiting[serial]  # its client left
                continue
            assert waiter.event is not None
            if self._answer(waiter.event, final=False):
                del self.waiting[serial]
                self.server.parked.remove(waiter)

    def _answer(self, event: RequestReceived, *, final: bool) -> bool:
        """Answer; return False when it is worth waiting, unless *final*."""
        if not self.complete:
            if final:
                text = "the server has not heard from the coordinator yet"
                self._refuse(event, ErrorCode.LEADER_NOT_AVAILABLE_EXCEPTION, text)
            return final
        try:
            answer = answers.answer(self.catalog, event.api_key, event.message, event.client)
        except Refused as refused:
            self._refuse(event, refused.code, refused.text)
            return True
        if answer.leaderless and not final:
            return False
        self.server.emit(Reply(event.connection, event.request_id, answer.message))
        return True

    def _refuse(self, event: RequestReceived, code: ErrorCode, text: str) -> None:
        self.server.emit(ReplyError(event.connection, event.request_id, int(code), text))

    # ---- projections and filters ---------------------------------------------------------------

    def projection_of(
        self, table_id: int, columns: tuple[int, ...]
    ) -> tuple[Projection | None, ErrorCode, str]:
        """Return how to project a table's batches, or why that is refused."""
        table = self.catalog.table_by_id(table_id)
        if table is None:
            return None, ErrorCode.NONE, ""  # its buckets are refused one by one
        refused = ErrorCode.INVALID_COLUMN_PROJECTION
        if table.log_format != "ARROW":
            return None, refused, f"projection needs log format ARROW, the table has {table.log_format}"
        column_count = len(table.schemas[table.schema_id]["columns"])
        ascending = all(a < b for a, b in itertools.pairwise(columns))
        if not columns or not ascending or columns[0] < 0 or columns[-1] >= column_count:
            text = f"projected fields: expected ascending positions below {column_count}, got {columns}"
            return None, refused, text
        return Projection(columns, self._layouts(table_id)), ErrorCode.NONE, ""

    def filter_of(self, table_id: int, schema_id: int, predicate: messages.PbPredicate) -> Filter | None:
        """Return which of a table's batches hold no match; None when that cannot be told."""
        table = self.catalog.table_by_id(table_id)
        if table is None:
            return None
        key = (table_id, schema_id, predicate.SerializeToString(deterministic=True))
        known = self.filters.get(key)
        if known is None or known[0] is not table:
            known = self.filters[key] = (table, compile_filter(predicate, schema_id, table.schemas))
            if len(self.filters) > FILTERS_MAX:
                del self.filters[next(iter(self.filters))]
        return known[1]

    def _layouts(self, table_id: int) -> dict[int, Layout]:
        table = self.catalog.table_by_id(table_id)
        assert table is not None
        found = {}
        for schema_id, schema in table.schemas.items():
            known = self.layouts.get((table_id, schema_id))
            if known is None:
                known = self.layouts[table_id, schema_id] = layout_of(schema["columns"])
            found[schema_id] = known
        return found
