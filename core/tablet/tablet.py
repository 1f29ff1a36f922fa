"""The tablet server: one machine for the requests, the replicas and the registration of a server.

This module is the table of what may happen; each part of the work has a module of its own. Nothing
here waits: a request that cannot be answered yet is a record in `parked`, and every accepted request
is answered or its connection is closed. The driver owes it completions, and the alarm it asks for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, ClassVar

import attrs

from flussd.core import connections as c
from flussd.core import files as f
from flussd.core.catalog.catalog import Catalog
from flussd.core.limits import RETRY_HOLD_MS
from flussd.core.machine import Announce, Continue, Started, Stopped, StopRequested, WakeAt, Woken
from flussd.core.records.predicate import Filter
from flussd.core.records.project import Projection
from flussd.core.registry import messages as r
from flussd.core.replica.events import BucketKey
from flussd.core.tablet.auto_ids import AutoIds, IdsRetry
from flussd.core.tablet.buckets import Buckets, CheckpointsWaiter, RetryWaiter
from flussd.core.tablet.config import TabletConfig
from flussd.core.tablet.fetch import Fetches, FetchWaiter
from flussd.core.tablet.keyed import Keyed
from flussd.core.tablet.kv_scan import KvScans, ScannerWaiter
from flussd.core.tablet.metadata import Metadata, MetadataWaiter
from flussd.core.tablet.offsets import Offsets, OffsetsWaiter
from flussd.core.tablet.parked import Parked, Waiter
from flussd.core.tablet.produce import HeldReply, Produces, ProduceWaiter
from flussd.core.tablet.puts import Puts, PutWaiter
from flussd.core.tablet.reads import InsertWaiter, Reads, RowsWaiter
from flussd.core.tablet.registration import Registration, RegistryRetry
from flussd.core.tablet.reports import Reports, ReportsWaiter
from flussd.core.tablet.scan import Scans, ScanWaiter
from flussd.core.wire import messages, private
from flussd.core.wire.apis import ApiKey
from flussd.core.wire.errors import ErrorCode

TELL_AGAIN_MS = 60_000
"""Distance of two announcements of one unreadable place."""

STOP_MS = 8_000
"""How long an orderly stop waits for checkpoints; recovery does without them."""


@attrs.define(eq=False)
class StopWaiter(Waiter):
    """The end of the patience of an orderly stop."""


@attrs.define(eq=False)
class RetentionWaiter(Waiter):
    """The next look for segments that are older than their tables keep them."""


@attrs.define(eq=False)
class TabletServer:
    """Change it through step() alone; its fields are open to readers."""

    config: TabletConfig
    now_ms: int = 0
    wall_ms: int = 0
    directory_id: str = ""
    boot_id: str = ""
    chance: int = 0  # 64 bits that no other start has
    stopping: bool = False
    connections: dict[int, bool] = attrs.Factory(dict)  # -> internal
    parked: Parked = attrs.Factory(Parked)
    buckets: Buckets = attrs.field(init=False)
    produces: Produces = attrs.field(init=False)
    fetches: Fetches = attrs.field(init=False)
    offsets: Offsets = attrs.field(init=False)
    scans: Scans = attrs.field(init=False)
    keyed: Keyed = attrs.field(init=False)
    puts: Puts = attrs.field(init=False)
    reads: Reads = attrs.field(init=False)
    kv_scans: KvScans = attrs.field(init=False)
    auto_ids: AutoIds = attrs.field(init=False)
    metadata: Metadata = attrs.field(init=False)
    reports: Reports = attrs.field(init=False)
    registration: Registration = attrs.field(init=False)
    alarm_ms: int | None = None
    unreadable: dict[tuple[str, int], int] = attrs.Factory(dict)  # place -> when to tell of it again
    _token: int = 0
    _out: list[Any] = attrs.Factory(list)

    def __attrs_post_init__(self) -> None:
        self.buckets = Buckets(self, self.config)
        self.produces = Produces(self)
        self.fetches = Fetches(self)
        self.offsets = Offsets(self)
        self.scans = Scans(self)
        self.keyed = Keyed(self)
        self.puts = Puts(self)
        self.reads = Reads(self)
        self.kv_scans = KvScans(self)
        self.auto_ids = AutoIds(self)
        self.metadata = Metadata(self)
        self.reports = Reports(self)
        self.registration = Registration(self)

    def step(self, event: Any, now_ms: int) -> list[Any]:
        """Take *event* in, and return what to do about it, in order."""
        assert now_ms >= self.now_ms, "time runs forward"
        self.now_ms = now_ms
        self.TABLE[type(event)](self, event)
        self._set_alarm()
        effects, self._out = self._out, []
        return effects

    def check(self) -> None:
        """Replicas check themselves in each of their steps; nothing else is touched every time."""

    def check_all(self) -> None:
        """Assert what holds between any two steps, for everything."""
        for key, replica in self.buckets.replicas.items():
            assert key == replica.key
            replica.check()
        for waiter in self.parked.waiters.values():
            assert waiter.connection < 0 or waiter.connection in self.connections
        for ticket, produce in self.produces.by_ticket.items():
            assert ticket in produce.tickets
        self.keyed.check()

    def digest(self) -> bytes:
        """Return a digest of the state: equal states, equal digests, in any process."""
        state = hashlib.blake2b(digest_size=16)
        for key, replica in sorted(self.buckets.replicas.items()):
            state.update(repr(key).encode() + replica.digest())
        for key, bucket in sorted(self.keyed.buckets.items()):
            state.update(repr((key, bucket.is_restored, bucket.table.row_count)).encode())
        state.update(repr((len(self.parked.waiters), self.registration.incarnation)).encode())
        return state.digest()

    # ---- what its parts use --------------------------------------------------------------------

    @property
    def catalog(self) -> Catalog:
        """What the coordinator told us of the cluster."""
        return self.metadata.catalog

    def next_token(self) -> int:
        """Return a token that was never used."""
        self._token += 1
        return self._token

    def emit(self, effect: Any) -> None:
        """Ask for *effect*, after those of this step so far."""
        self._out.append(effect)

    def emit_or_hold(self, reply: Any, *, held: bool, refused: tuple[BucketKey, ...] = ()) -> None:
        """Send a reply, now or after the pause that keeps clients from asking in a hot loop."""
        if not held:
            self._out.append(reply)
        elif reply.connection in self.connections:
            due_ms = self.now_ms + RETRY_HOLD_MS
            waiter = HeldReply(reply.connection, reply.request_id, due_ms, effect=reply, refused=refused)
            self.parked.add(waiter)
            self.produces.held(waiter)

    def retry_later(self, waiter: Waiter) -> None:
        """Let something of our own wait for its time."""
        self.parked.add(waiter)

    def knows_bucket(self, key: BucketKey) -> bool:
        """Whether the cluster has such a bucket, as far as we were told."""
        return self.catalog.bucket(key) is not None

    def projection_of(
        self, table_id: int, columns: tuple[int, ...]
    ) -> tuple[Projection | None, ErrorCode, str]:
        """Return how to project a table's batches, or why that is refused."""
        return self.metadata.projection_of(table_id, columns)

    def filter_of(self, table_id: int, schema_id: int, predicate: messages.PbPredicate) -> Filter | None:
        """Return which of a table's batches hold no match; None when that cannot be told."""
        return self.metadata.filter_of(table_id, schema_id, predicate)

    def wake(self, key: BucketKey) -> None:
        """News of a bucket: look again at all who wait for it, in the step that brings it."""
        if key not in self.parked.by_bucket:
            return
        for waiter in self.parked.on(key):
            if waiter.serial not in self.parked.waiters:
                continue
            if isinstance(waiter, FetchWaiter):
                self.fetches.woken(waiter)
            elif isinstance(waiter, OffsetsWaiter):
                self.offsets.woken(waiter)
            elif isinstance(waiter, ScanWaiter):
                self.scans.woken(waiter)
            elif isinstance(waiter, RowsWaiter):
                self.reads.woken(waiter)

    def stopped(self) -> None:
        """All that an orderly stop owes is done."""
        self._out.append(Stopped())

    # ---- time ----------------------------------------------------------------------------------

    def _set_alarm(self) -> None:
        next_ms = self.parked.next_ms
        if next_ms is not None and (self.alarm_ms is None or next_ms < self.alarm_ms):
            self.alarm_ms = next_ms
            self._out.append(WakeAt(next_ms))

    def _woken(self, _: Woken) -> None:
        self.alarm_ms = None
        for waiter in self.parked.due(self.now_ms):
            self.DUE[type(waiter)](self, waiter)

    def _send_held(self, waiter: HeldReply) -> None:
        self.produces.let_go(waiter)
        self._out.append(waiter.effect)

    def _retry_bucket(self, waiter: RetryWaiter) -> None:
        self.buckets.retry(waiter)

    def _checkpoints_due(self, _: CheckpointsWaiter) -> None:
        self.buckets.checkpoints_are_due()

    def _retry_registry(self, waiter: RegistryRetry) -> None:
        self.registration.retry(waiter)

    def _retain(self, _: RetentionWaiter) -> None:
        self.buckets.retain()
        self._retain_later()

    def _retain_later(self) -> None:
        self.parked.add(RetentionWaiter(-1, -1, self.now_ms + self.config.retention_interval_ms))

    def _stop_anyway(self, _: StopWaiter) -> None:
        self.stopped()

    # ---- life ----------------------------------------------------------------------------------

    def _started(self, event: Started) -> None:
        self.wall_ms = event.wall_ms
        self.directory_id, self.boot_id, self.chance = event.directory_id, event.boot_id, event.chance
        self.buckets.start()
        self._retain_later()

    def _stop(self, _: StopRequested) -> None:
        if self.stopping:
            return
        self.stopping = True
        self.parked.add(StopWaiter(-1, -1, self.now_ms + STOP_MS))
        self.buckets.ask_checkpoints()
        self.registration.go_on()

    def _continue(self, event: Continue) -> None:
        if event.token in self.keyed.restores.by_token:
            self.keyed.restores.turn(event)
        elif event.token == self.puts.token:
            self.puts.go_on()
        elif event.token in self.buckets.owners:
            self.buckets.completed(event)
        else:
            self.buckets.go_on()

    def _opened(self, event: c.ConnectionOpened) -> None:
        self.connections[event.connection] = event.internal

    def _closed(self, event: c.ConnectionClosed) -> None:
        self.connections.pop(event.connection, None)
        for waiter in self.parked.of(event.connection):
            self.parked.remove(waiter)
            if isinstance(waiter, ProduceWaiter):
                self.produces.forget(waiter)
            elif isinstance(waiter, HeldReply):
                self.produces.let_go(waiter)

    # ---- requests ------------------------------------------------------------------------------

    def _produce(self, event: c.ProduceReceived) -> None:
        self.wall_ms = event.wall_ms
        self.produces.received(event)

    def _request(self, event: c.RequestReceived) -> None:
        self.wall_ms = event.wall_ms
        serve = self.SERVE.get(event.api_key)
        if serve is not None:
            serve(self, event)
        else:
            self.metadata.asked(event)

    def _fetch(self, event: c.RequestReceived) -> None:
        self.fetches.received(event)

    def _list_offsets(self, event: c.RequestReceived) -> None:
        self.offsets.received(event)

    def _limit_scan(self, event: c.RequestReceived) -> None:
        if self.keyed.has_primary_key(event.message.table_id):
            self.reads.received(event)
        else:
            self.scans.received(event)

    def _put_kv(self, event: c.RequestReceived) -> None:
        self.puts.received(event)

    def _lookup(self, event: c.RequestReceived) -> None:
        self.reads.received(event)

    def _scan_kv(self, event: c.RequestReceived) -> None:
        self.kv_scans.received(event)

    def _table_stats(self, event: c.RequestReceived) -> None:
        self.scans.stats_asked(event)

    def _init_writer(self, event: c.RequestReceived) -> None:
        self.registration.init_writer(event)

    def _update_catalog(self, event: c.RequestReceived) -> None:
        self.metadata.updated(event)

    def _await_reports(self, event: c.RequestReceived) -> None:
        if self.metadata.from_ours(event):
            self.reports.asked(event)

    # ---- completions ---------------------------------------------------------------------------

    def _file_read(self, event: f.FileRead) -> None:
        if event.token in self.fetches.walks.by_token:
            self.fetches.read(event)
        elif event.token in self.offsets.walks.by_token:
            self.offsets.read(event)
        elif event.token in self.keyed.restores.by_token:
            self.keyed.restores.read(event)
        else:
            self.buckets.completed(event)

    def _file_done(self, event: Any) -> None:
        self.buckets.completed(event)

    def _folder_listed(self, event: f.FolderListed) -> None:
        self.buckets.folder_listed(event)

    def _folder_removed(self, event: f.FolderRemoved) -> None:
        self.buckets.folder_removed(event)

    def _unreadable(self, event: c.SpansUnreadable) -> None:
        place = (event.file, event.position)
        if self.now_ms < self.unreadable.get(place, -1):
            return  # readers come back for it all the time
        self.unreadable = {known: at_ms for known, at_ms in self.unreadable.items() if at_ms > self.now_ms}
        self.unreadable[place] = self.now_ms + TELL_AGAIN_MS
        text = f"{event.file} at {event.position}: {event.text}"
        facts = (("file", event.file), ("position", event.position))
        self._out.append(Announce("unreadable", text, facts))

    def _registry_answered(self, event: r.RegistryAnswered) -> None:
        if event.token in self.auto_ids.asked:
            self.auto_ids.answered(event.token, event.answer)
        else:
            self.registration.answered(event.token, event.answer)

    def _session_opened(self, event: r.RegistrySessionOpened) -> None:
        self.registration.session_opened(event.session_id)

    def _session_lost(self, _: r.RegistrySessionLost) -> None:
        self.registration.session_lost()

    def _watch_fired(self, event: r.WatchFired) -> None:
        self.registration.watch_fired(event.path)

    TABLE: ClassVar[dict[type, Callable[[TabletServer, Any], None]]] = {
        Started: _started,
        StopRequested: _stop,
        Woken: _woken,
        Continue: _continue,
        c.ConnectionOpened: _opened,
        c.ConnectionClosed: _closed,
        c.ProduceReceived: _produce,
        c.RequestReceived: _request,
        c.SpansUnreadable: _unreadable,
        f.FileWritten: _file_done,
        f.FileRead: _file_read,
        f.FileSynced: _file_done,
        f.FileTruncated: _file_done,
        f.FileReplaced: _file_done,
        f.FileRemoved: _file_done,
        f.FolderListed: _folder_listed,
        f.FolderRemoved: _folder_removed,
        r.RegistryAnswered: _registry_answered,
        r.RegistrySessionOpened: _session_opened,
        r.RegistrySessionLost: _session_lost,
        r.WatchFired: _watch_fired,
    }
    SERVE: ClassVar[dict[int, Callable[[TabletServer, Any], None]]] = {
        ApiKey.FETCH_LOG: _fetch,
        ApiKey.LIST_OFFSETS: _list_offsets,
        ApiKey.LIMIT_SCAN: _limit_scan,
        ApiKey.PUT_KV: _put_kv,
        ApiKey.LOOKUP: _lookup,
        ApiKey.PREFIX_LOOKUP: _lookup,
        ApiKey.SCAN_KV: _scan_kv,
        ApiKey.GET_TABLE_STATS: _table_stats,
        ApiKey.INIT_WRITER: _init_writer,
        private.UPDATE_CATALOG: _update_catalog,
        private.AWAIT_REPORTS: _await_reports,
    }
    DUE: ClassVar[dict[type, Callable[[TabletServer, Any], None]]] = {
        HeldReply: _send_held,
        RetryWaiter: _retry_bucket,
        CheckpointsWaiter: _checkpoints_due,
        RegistryRetry: _retry_registry,
        StopWaiter: _stop_anyway,
        RetentionWaiter: _retain,
        ProduceWaiter: lambda self, waiter: self.produces.timed_out(waiter),
        PutWaiter: lambda self, waiter: self.produces.timed_out(waiter),
        InsertWaiter: lambda self, waiter: self.produces.timed_out(waiter),
        RowsWaiter: lambda self, waiter: self.reads.timed_out(waiter),
        ScannerWaiter: lambda self, waiter: self.kv_scans.timed_out(waiter),
        IdsRetry: lambda self, waiter: self.auto_ids.retry(waiter),
        FetchWaiter: lambda self, waiter: self.fetches.timed_out(waiter),
        OffsetsWaiter: lambda self, waiter: self.offsets.timed_out(waiter),
        ScanWaiter: lambda self, waiter: self.scans.timed_out(waiter),
        MetadataWaiter: lambda self, waiter: self.metadata.timed_out(waiter),
        ReportsWaiter: lambda self, waiter: self.reports.timed_out(waiter),
    }
