"""The replicas of a tablet server: found on its disk, told their roles, erased when they are dropped.

Directories are keyed by id and never found by name; a directory is erased only when the catalog says
in so many words that its bucket is dropped. Completions of disk effects come back to the replica that
asked, by token.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Final

import attrs

from flussd.core.files import FolderListed, FolderRemoved, ListFolder, RemoveFolder
from flussd.core.log.recovery import Cut
from flussd.core.machine import Announce, ContinueLater
from flussd.core.records.options import option_value
from flussd.core.replica import events as e
from flussd.core.replica.counts import BucketCounts
from flussd.core.replica.events import BucketKey
from flussd.core.replica.replica import Replica
from flussd.core.replica.stored import ReplicaConfig, Role
from flussd.core.tablet.parked import Waiter
from flussd.core.wire.errors import ErrorCode

if TYPE_CHECKING:
    from flussd.core.tablet.tablet import TabletServer

ROOT: Final = "buckets"

RECOVERIES_AT_ONCE: Final = 16
"""Buckets that are read at the same time: each may hold a read of 256 KiB, and the same to write anew.

All of 100 at once left the process with 159 MB after 1 GiB of unclean segments; this many leave the
disk's queue filled and 60 MB.
"""

LOG_TTL_MS: Final = 7 * 86_400_000
"""Upstream's default of `table.log.ttl`."""

RETRY_AFTER_MS: Final = 500
"""Pause before a replica in trouble reads its files again: disks fill and empty in seconds."""


def folder_of(key: BucketKey) -> str:
    """Return the folder of a bucket, relative to the server's."""
    table_id, partition_id, bucket = key
    partition = f"-p{partition_id}" if partition_id >= 0 else ""
    return f"{ROOT}/{table_id}{partition}/{bucket}"


def key_of(path: str) -> tuple[BucketKey, str] | None:
    """Return the bucket and the file name that *path* tells; None for other files."""
    parts = path.split("/")
    if len(parts) != 4 or parts[0] != ROOT:
        return None
    table, _, partition = parts[1].partition("-p")
    numbers = (table, partition or "0", parts[2])
    if not all(number.isascii() and number.isdigit() for number in numbers):
        return None
    key = (int(table), int(partition) if partition else -1, int(parts[2]))
    return (key, parts[3]) if folder_of(key) == "/".join(parts[:3]) else None


@attrs.define(eq=False)
class RetryWaiter(Waiter):
    """A bucket that begins again, or is erased again, when its pause is over."""

    key: BucketKey = (-1, -1, -1)
    erase: bool = False


@attrs.define(eq=False)
class CheckpointsWaiter(Waiter):
    """The next round of checkpoints."""


@attrs.define(eq=False)
class Buckets:
    """All replicas of a server; see the module's text."""

    server: TabletServer
    config: ReplicaConfig
    replicas: dict[BucketKey, Replica] = attrs.Factory(dict)
    owners: dict[int, Replica] = attrs.Factory(dict)  # token -> who asked
    dropping: dict[BucketKey, int] = attrs.Factory(dict)  # -> leader epoch of the drop
    erasing: dict[int, BucketKey] = attrs.Factory(dict)  # token of a RemoveFolder
    listings: dict[int, BucketKey | None] = attrs.Factory(dict)  # token -> bucket; None: at the start
    found: list[tuple[BucketKey, dict[str, int]]] = attrs.Factory(list)  # to be recovered yet
    listed: bool = False
    continuing: bool = False  # whether we asked for a step in which more are begun
    recovering: dict[BucketKey, None] = attrs.Factory(dict)  # of those found at the start
    checkpoints_wanted: dict[BucketKey, None] = attrs.Factory(dict)  # in the next round
    checkpoints_due: dict[BucketKey, None] = attrs.Factory(dict)  # before an orderly stop ends
    cuts: dict[BucketKey, Cut] = attrs.Factory(dict)  # the last one that was announced
    gone: BucketCounts = attrs.Factory(BucketCounts)  # the sums of all that were erased

    # ---- the start -----------------------------------------------------------------------------

    def start(self) -> None:
        """Look for the buckets that the disk holds."""
        token = self.server.next_token()
        self.listings[token] = None
        self.server.emit(ListFolder(token, ROOT))

    def folder_listed(self, event: FolderListed) -> None:
        """A listing came: of everything, or of one bucket that begins again."""
        wanted = self.listings.pop(event.token)
        if event.error is not None:
            self._listing_failed(wanted)
            return
        sizes: dict[BucketKey, dict[str, int]] = {}
        for path, size_bytes in event.files:
            known = key_of(path)
            if known is not None:
                sizes.setdefault(known[0], {})[known[1]] = size_bytes
        if wanted is None:
            self.listed = True
            self.found = sorted(sizes.items(), reverse=True)
            self.recovering = dict.fromkeys(sizes)
            self.go_on()
        elif wanted in self.replicas:
            self.step(self.replicas[wanted], e.FilesListed(sizes.get(wanted, {})))

    def _listing_failed(self, wanted: BucketKey | None) -> None:
        if wanted is None:
            self.server.retry_later(RetryWaiter(-1, -1, self.server.now_ms + RETRY_AFTER_MS))
        elif wanted in self.replicas:
            token = self.server.next_token()
            self.listings[token] = wanted
            self.server.emit(ListFolder(token, folder_of(wanted)))

    def go_on(self) -> None:
        """Begin some recoveries; others when these end, in later steps, so that all get their turn."""
        self.continuing = False
        for _ in range(min(RECOVERIES_AT_ONCE, len(self.found))):
            if len(self.recovering) - len(self.found) >= RECOVERIES_AT_ONCE:
                return
            key, sizes = self.found.pop()
            self.step(self._add(key), e.FilesListed(sizes))
        if not self.found:
            self.server.registration.go_on()

    @property
    def recovered(self) -> bool:
        """Whether every bucket found at the start was read, or cannot be read now."""
        return self.listed and not self.recovering

    def _was_read(self, key: BucketKey) -> None:
        """A bucket was read, or cannot be now; after the last one the server registers."""
        if self.recovering.pop(key, 0) is not None:
            return
        if self.found and not self.continuing:
            self.continuing = True
            self.server.emit(ContinueLater(0))
        elif not self.recovering:
            self.server.registration.go_on()

    def _add(self, key: BucketKey) -> Replica:
        replica = Replica(key, folder_of(key), self.config, self.server.next_token)
        self.replicas[key] = replica
        return replica

    # ---- roles ---------------------------------------------------------------------------------

    def give(self, key: BucketKey, epoch: int, incarnation: int) -> None:
        """The catalog names us as leader."""
        if key in self.dropping:
            return
        replica = self.replicas.get(key)
        if replica is None:
            replica = self._add(key)
            self.step(replica, e.FilesListed({}))
        if replica.role is Role.LEADER and (replica.epoch, replica.incarnation) == (epoch, incarnation):
            if self.server.keyed.is_ready(key):
                self.server.reports.leading(key, epoch)  # the coordinator may be a new one
            return
        self.step(replica, e.LeadershipGiven(epoch, incarnation))

    def take(self, key: BucketKey) -> None:
        """The catalog names another, or nobody."""
        replica = self.replicas.get(key)
        if replica is not None:
            self.step(replica, e.LeadershipTaken())

    def take_all(self) -> None:
        """Our registration is gone: nothing is led until we are registered anew."""
        for key in list(self.replicas):
            self.take(key)

    def drop(self, key: BucketKey, epoch: int) -> None:
        """The catalog says that the bucket is dropped: erase it once nothing is in flight."""
        if key in self.dropping:
            return
        replica = self.replicas.get(key)
        self.dropping[key] = epoch
        if replica is not None:
            self.step(replica, e.LeadershipTaken())
        self._erase_if_idle(key)

    def _erase_if_idle(self, key: BucketKey) -> None:
        replica = self.replicas.get(key)
        erasing = key in self.erasing.values()
        if erasing or (replica is not None and (replica.busy or replica.role is Role.RECOVERING)):
            return
        if replica is not None:
            del self.replicas[key]
            self.gone.add(replica.counts)
            self.cuts.pop(key, None)
        folder = folder_of(key)
        others = (*self.replicas, *self.dropping)
        if all(other == key or other[:2] != key[:2] for other in others):
            folder = folder.rpartition("/")[0]  # the last bucket takes the table's folder along
        token = self.server.next_token()
        self.erasing[token] = key
        self.server.emit(RemoveFolder(token, folder))

    def folder_removed(self, event: FolderRemoved) -> None:
        """A dropped bucket's files are gone, or will be tried again."""
        key = self.erasing.pop(event.token)
        if event.error is not None:
            due_ms = self.server.now_ms + RETRY_AFTER_MS
            self.server.retry_later(RetryWaiter(-1, -1, due_ms, key=key, erase=True))
            return
        epoch = self.dropping.pop(key)
        self.announce("bucket erased", key)
        self.server.reports.deleted(key, epoch)

    def retain(self) -> None:
        """Let every bucket that we lead give up what is older than its table keeps.

        By the earlier of two clocks, ours and the coordinator's: one that jumps ahead erases nothing.
        """
        wall_ms = min(self.server.wall_ms, self.server.reports.coordinator_wall_ms)
        for key, replica in list(self.replicas.items()):
            table = self.server.catalog.table_by_id(key[0])
            if table is None or table.has_primary_key or replica.role is not Role.LEADER:
                continue  # the log of a primary-key table is the only copy of its rows
            ttl_ms = option_value(table.properties, "table.log.ttl", default=LOG_TTL_MS)
            if ttl_ms > 0:
                self.step(replica, e.RetentionDue(wall_ms - ttl_ms))

    # ---- requests and completions --------------------------------------------------------------

    def append(self, key: BucketKey, asked: e.AppendAsked) -> None:
        """Hand a batch to its replica, or refuse it."""
        replica = self.replicas.get(key)
        if replica is None or key in self.dropping:
            code, text = self.why_not(key)
            self.server.produces.answered(e.AppendAnswered(asked.ticket, -1, code, text))
            return
        self.step(replica, asked)

    def why_not(self, key: BucketKey) -> tuple[ErrorCode, str]:
        """Tell why a bucket is not served here."""
        if key in self.dropping or not self.server.knows_bucket(key):
            partition = f" in partition {key[1]}" if key[1] >= 0 else ""
            text = f"table {key[0]} has no such bucket{partition}: {key[2]}"
            return ErrorCode.UNKNOWN_TABLE_OR_BUCKET_EXCEPTION, text
        replica = self.replicas.get(key)
        if replica is not None and replica.role is Role.TROUBLED:
            return ErrorCode.LOG_STORAGE_EXCEPTION, replica.trouble
        return ErrorCode.NOT_LEADER_OR_FOLLOWER, "this server does not lead the bucket"

    def completed(self, event: Any) -> None:
        """A disk effect of a replica ended."""
        self.step(self.owners.pop(event.token), event)

    def retry(self, waiter: RetryWaiter) -> None:
        """A pause is over."""
        if waiter.key[0] < 0:
            self.start()
        elif waiter.erase:
            self._erase_if_idle(waiter.key)
        elif waiter.key in self.replicas:
            self.step(self.replicas[waiter.key], e.RetryDue())

    def step(self, replica: Replica, event: Any) -> None:
        """Step a replica; pass its effects on and see to its news."""
        mixed: list[Any] = []
        replica.step(event, mixed)
        for item in mixed:
            news = self.NEWS.get(type(item))
            if news is not None:
                news(self, item)
            else:
                self.owners[item.token] = replica
                self.server.emit(item)
        if replica.key in self.dropping and replica.key in self.replicas:
            self._erase_if_idle(replica.key)

    # ---- news ----------------------------------------------------------------------------------

    def announce(self, what: str, key: BucketKey, text: str = "", **facts: int | str) -> None:
        """Tell whoever runs the process what became of a bucket."""
        table = self.server.catalog.table_by_id(key[0])
        named = {} if table is None else {"database": table.database, "table": table.name}
        place: dict[str, int | str] = {"table_id": key[0], "bucket": key[2]}
        if key[1] >= 0:
            place["partition_id"] = key[1]
        self.server.emit(Announce(what, text, tuple((named | place | facts).items())))

    def _answered(self, news: e.AppendAnswered) -> None:
        self.server.produces.answered(news)

    def _moved(self, news: e.WatermarkMoved) -> None:
        self.server.keyed.moved(news)
        self.server.wake(news.key)

    def _appended(self, news: e.Appended) -> None:
        self.server.keyed.appended(news)

    def _log_cut(self, news: e.LogCut) -> None:
        self.server.keyed.cut(news)

    def _leading(self, news: e.Leading) -> None:
        log = self.replicas[news.key].log
        self.announce("leading", news.key, epoch=news.epoch, end_offset=log.end_offset)
        self.server.keyed.leading(news.key, news.epoch)
        self.server.wake(news.key)

    def _left(self, news: e.LeadershipLeft) -> None:
        self.announce("leads no more", news.key)
        self.server.fetches.forget_places(news.key)
        self.server.keyed.left(news.key)
        self.server.wake(news.key)

    def _troubled(self, news: e.Troubled) -> None:
        self.announce("bucket troubled", news.key, news.text)
        self.server.reports.failed(news.key, news.text)
        due_ms = self.server.now_ms + RETRY_AFTER_MS * self.server.keyed.retry_factor(news.key)
        self.server.retry_later(RetryWaiter(-1, -1, due_ms, key=news.key))
        self._checkpoint_done(e.CheckpointDone(news.key))
        self._was_read(news.key)

    def _recovered(self, news: e.Recovered) -> None:
        log, cut = self.replicas[news.key].log, news.cut
        if cut is not None and cut is not self.cuts.get(news.key):  # else it is of an earlier recovery
            self.cuts[news.key] = cut
            at, count = cut.end_offset, cut.bytes_count
            self.announce("bucket cut", news.key, cut.why, end_offset=at, cut_bytes=count)
        else:
            self.announce("bucket recovered", news.key, end_offset=log.end_offset)
        self._was_read(news.key)

    def _listing_wanted(self, news: e.ListingWanted) -> None:
        token = self.server.next_token()
        self.listings[token] = news.key
        self.server.emit(ListFolder(token, folder_of(news.key)))

    def _checkpoint_wanted(self, news: e.CheckpointWanted) -> None:
        if not self.checkpoints_wanted:
            due_ms = self.server.now_ms + self.server.config.checkpoint_pause_ms
            self.server.retry_later(CheckpointsWaiter(-1, -1, due_ms))
        self.checkpoints_wanted[news.key] = None

    def _checkpoint_failed(self, news: e.CheckpointFailed) -> None:
        self.announce("checkpoint failed", news.key, news.text)

    def checkpoints_are_due(self) -> None:
        """Ask for the checkpoints of this round."""
        wanted, self.checkpoints_wanted = self.checkpoints_wanted, {}
        for key in wanted:
            if key in self.replicas:
                self.step(self.replicas[key], e.CheckpointAsked())

    def ask_checkpoints(self) -> None:
        """Ask every replica for a checkpoint: the server stops."""
        for key, replica in list(self.replicas.items()):
            self.checkpoints_due[key] = None
            self.step(replica, e.CheckpointAsked())

    def _checkpoint_done(self, news: e.CheckpointDone) -> None:
        if self.checkpoints_due.pop(news.key, 0) is None:
            self.server.registration.go_on()

    NEWS: ClassVar[dict[type, Callable[[Buckets, Any], None]]] = {
        e.AppendAnswered: _answered,
        e.WatermarkMoved: _moved,
        e.Appended: _appended,
        e.LogCut: _log_cut,
        e.Leading: _leading,
        e.LeadershipLeft: _left,
        e.Troubled: _troubled,
        e.Recovered: _recovered,
        e.ListingWanted: _listing_wanted,
        e.CheckpointWanted: _checkpoint_wanted,
        e.CheckpointFailed: _checkpoint_failed,
        e.CheckpointDone: _checkpoint_done,
    }
