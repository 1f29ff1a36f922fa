"""The rows of the primary-key buckets that a tablet server leads.

A bucket's rows are folded from its log when the bucket begins to be led, and kept up with it in the step
in which the log changes: what the log took in is in the pre-write buffer, what the watermark covers is
visible, what was cut is forgotten. They are dropped with the leadership. Nobody reads rows that are not
restored: all who ask are told that the bucket is not led yet.

What earlier terms left in the log is visible as a whole, and only when the watermark covers the term's
start (as LIST_OFFSETS): a row that was read must not disappear.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs

from flussd.core.catalog.records import TableRecord
from flussd.core.kv.ids import Ids
from flussd.core.kv.rules import TableRules
from flussd.core.kv.table import KvTable, Merged
from flussd.core.replica import events as e
from flussd.core.replica.events import BucketKey
from flussd.core.replica.replica import Replica
from flussd.core.replica.stored import Role
from flussd.core.tablet.restore import Restore, Restores, Stage
from flussd.core.wire.errors import ErrorCode

if TYPE_CHECKING:
    from flussd.core.tablet.tablet import TabletServer


RETRY_FACTOR_MAX: Final = 16
"""Of the pause before a damaged log is folded again: 8 s, in which a disk that came back is found."""


@attrs.define(eq=False)
class KeyedBucket:
    """The rows of one led bucket; *is_restored* tells whether all of them are there."""

    key: BucketKey
    epoch: int
    table: KvTable
    ids: Ids = attrs.Factory(Ids)  # of its auto-increment column
    is_restored: bool = False


@attrs.frozen
class NotServed:
    """Why a bucket's rows are not served; *may_pass* when it is worth waiting for."""

    code: ErrorCode
    text: str
    may_pass: bool = False


@attrs.define(eq=False)
class Keyed:
    """All rows of a server; see the module's text."""

    server: TabletServer
    restores: Restores = attrs.field(init=False)
    buckets: dict[BucketKey, KeyedBucket] = attrs.Factory(dict)
    unknown: dict[BucketKey, int] = attrs.Factory(dict)  # led, of a table not heard of yet -> epoch
    rules: dict[int, tuple[TableRecord, TableRules]] = attrs.Factory(dict)
    failures: dict[BucketKey, int] = attrs.Factory(dict)  # folds of a bucket in a row that failed
    appending: Merged | None = None  # what a replica is just asked to append

    def __attrs_post_init__(self) -> None:
        self.restores = Restores(self.server)

    # ---- leadership ----------------------------------------------------------------------------

    def leading(self, key: BucketKey, epoch: int) -> None:
        """A bucket begins to be led: tell so at once, or when its rows are restored."""
        table = self.server.catalog.table_by_id(key[0])
        if table is None:
            self.unknown[key] = epoch
        elif not table.has_primary_key:
            self.server.reports.leading(key, epoch)
        else:
            rules = self._rules(table)
            bucket = self.buckets[key] = KeyedBucket(key, epoch, KvTable(rules.counts_rows))
            log = self.server.buckets.replicas[key].log
            self.restores.begin(Restore.of(key, log, bucket.table, rules, self.server.config.restore_pace))

    def tables_told(self) -> None:
        """The catalog changed: a table that was not known may be by now."""
        for key, epoch in list(self.unknown.items()):
            if self.server.catalog.table_by_id(key[0]) is not None:
                del self.unknown[key]
                self.leading(key, epoch)
        by_id = self.server.catalog.by_id
        self.rules = {table_id: known for table_id, known in self.rules.items() if table_id in by_id}
        self.failures = {key: count for key, count in self.failures.items() if key[0] in by_id}

    def retry_factor(self, key: BucketKey) -> int:
        """How many times the usual pause to wait before a bucket in trouble begins again.

        What is damaged stays so, and each fold of a large log takes a core for long.
        """
        return min(1 << max(0, self.failures.get(key, 0) - 1), RETRY_FACTOR_MAX)

    def restored(self, restore: Restore, stage: Stage) -> None:
        """A restore ended."""
        bucket = self.buckets[restore.key]
        if stage is Stage.FAILED:
            self.failures[restore.key] = self.failures.get(restore.key, 0) + 1
            replica = self.server.buckets.replicas[restore.key]
            self.server.buckets.step(replica, e.RowsUnreadable(restore.text))
            return
        bucket.is_restored = True
        self.failures.pop(restore.key, None)
        if restore.offset:
            row_count = bucket.table.row_count
            facts: dict[str, int | str] = {"end_offset": restore.offset}
            if row_count is not None:
                facts["row_count"] = row_count
            self.server.buckets.announce("rows restored", bucket.key, "", **facts)
        self.server.reports.leading(bucket.key, bucket.epoch)
        self.server.wake(bucket.key)

    def left(self, key: BucketKey) -> None:
        """A bucket is led no more: its rows are of no use."""
        self.unknown.pop(key, None)
        if self.buckets.pop(key, None) is not None:
            self.restores.drop(key)
            self.server.kv_scans.left(key)
            self.server.puts.got_ids(key)

    def is_ready(self, key: BucketKey) -> bool:
        """Whether a led bucket can be told to be led: it has no rows, or has them all."""
        bucket = self.buckets.get(key)
        return key not in self.unknown if bucket is None else bucket.is_restored

    # ---- the log moves -------------------------------------------------------------------------

    def append(self, key: BucketKey, merged: Merged, asked: e.AppendAsked) -> None:
        """Ask the replica of a bucket that takes puts to append *merged*."""
        self.appending = merged
        self.server.buckets.step(self.server.buckets.replicas[key], asked)
        self.appending = None

    def appended(self, news: e.Appended) -> None:
        """The log took in what was just asked to be appended."""
        assert self.appending is not None
        self.buckets[news.key].table.accept(self.appending, news.base_offset)

    def moved(self, news: e.WatermarkMoved) -> None:
        """More is committed."""
        bucket = self.buckets.get(news.key)
        if bucket is not None:
            bucket.table.commit(news.high_watermark)

    def check(self) -> None:
        """Assert what holds between any two steps."""
        assert self.appending is None
        for key in (*self.buckets, *self.unknown):
            assert self.server.buckets.replicas[key].role is Role.LEADER
        for key in (*self.restores.running, *self.restores.waiting):
            assert not self.buckets[key].is_restored

    def cut(self, news: e.LogCut) -> None:
        """The log was cut."""
        bucket = self.buckets.get(news.key)
        if bucket is not None:
            bucket.table.cut(news.end_offset)

    # ---- who may ask ---------------------------------------------------------------------------

    def has_primary_key(self, table_id: int) -> bool:
        """Whether this is a primary-key table, as far as we were told."""
        table = self.server.catalog.table_by_id(table_id)
        return table is not None and table.has_primary_key

    def rules_of(self, table_id: int) -> TableRules:
        """Return the rules of a known primary-key table, as it is now."""
        table = self.server.catalog.table_by_id(table_id)
        assert table is not None
        return self._rules(table)

    def _rules(self, table: TableRecord) -> TableRules:
        known = self.rules.get(table.table_id)
        if known is None or known[0] is not table:
            known = self.rules[table.table_id] = (table, TableRules.of(table.json, table.schemas))
        return known[1]

    def writable(self, key: BucketKey) -> KeyedBucket | NotServed:
        """Return a bucket that takes puts, or why it takes none."""
        replica: Replica | None = self.server.buckets.replicas.get(key)
        table = self.server.catalog.table_by_id(key[0])
        if replica is None or replica.role is not Role.LEADER or table is None:
            return NotServed(*self.server.buckets.why_not(key))
        if not table.has_primary_key:
            text = f"table {key[0]} has no primary key"
            return NotServed(ErrorCode.NON_PRIMARY_KEY_TABLE_EXCEPTION, text)
        bucket = self.buckets.get(key)
        if bucket is None or not bucket.is_restored:
            text = "the rows of the bucket are being restored"
            return NotServed(ErrorCode.NOT_LEADER_OR_FOLLOWER, text, may_pass=True)
        return bucket

    def readable(self, key: BucketKey) -> KvTable | NotServed:
        """Return the rows of a bucket for readers, or why there are none."""
        bucket = self.writable(key)
        if isinstance(bucket, NotServed):
            return bucket
        replica = self.server.buckets.replicas[key]
        if not replica.has_committed:
            text = "the leader has not committed in its term yet"
            return NotServed(ErrorCode.LEADER_NOT_AVAILABLE_EXCEPTION, text, may_pass=True)
        return bucket.table
