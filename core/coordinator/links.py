"""One link to each live tablet server: it is told the catalog, and asked for its news.

Desired state, not messages: a link knows what its server was not told yet, and looks the content up when
it sends (rule 10). A snapshot first, then what changed; at most one update and one poll are in flight.
The poll is the ping: three misses in a row, or a refused connection, and the server is `doomed`, which
the coordinator makes true by a decree. Addressing: all is meant for one incarnation.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final

import attrs

from flussd.core.catalog import entries
from flussd.core.catalog.records import NodeRecord
from flussd.core.connections import (
    CloseConnection,
    Connect,
    Connected,
    ResponseReceived,
    SendRequest,
)
from flussd.core.coordinator.layout import Registration
from flussd.core.coordinator.state import Item, Kind, State
from flussd.core.wire import private
from flussd.core.wire.errors import ErrorCode

ITEMS_MAX: Final = 128
"""Entries of one UPDATE_CATALOG: about 1 ms to build, 25 KiB for small tables."""

LONG_UPDATE: Final = 32
"""Buckets in an update that is work enough for one step."""

MISSES_MAX: Final = 3

PAUSE_MS: Final = 50
"""Before a server that does not know its registration yet is asked again."""


@attrs.define(eq=False)
class Link:
    """What one server, in one incarnation, was told and is asked."""

    registration: Registration
    connect_token: int = -1  # of a Connect in flight
    connection: int = -1
    request_count: int = 0
    update_request: int = -1
    poll_request: int = -1
    snapshot: deque[Item] = attrs.Factory(deque)
    snapshot_due: bool = True  # its first message is not sent yet
    is_told: bool = False  # a whole snapshot was confirmed, on this connection or an earlier one
    dirty: dict[Item, None] = attrs.Factory(dict)
    sent_number: int = -1  # change number that the update in flight, once confirmed, brings it to
    confirmed_number: int = -1
    after_sequence: int = 0
    misses: int = 0
    miss_ms: int = 0  # when the next miss counts
    pause_ms: int = -1  # ask nothing before
    is_doomed: bool = False

    @property
    def server_id(self) -> int:
        """Whom it leads to."""
        return self.registration.server_id


@attrs.define(eq=False)
class Links:
    """The links of the active coordinator; *out* takes the effects, and *news* who has reports."""

    coordinator: NodeRecord
    epoch: int
    patience_ms: int
    wait_ms: int
    links: dict[int, Link] = attrs.Factory(dict)  # by server id
    by_connection: dict[int, int] = attrs.Factory(dict)
    connecting: dict[int, int] = attrs.Factory(dict)  # token -> server id
    sequence: int = 0
    is_behind: bool = False  # a long update was sent, and others may be due
    deposed: bool = False  # a tablet server has heard of a newer coordinator
    failures: list[str] = attrs.Factory(list)  # what servers said of buckets in trouble
    out: list[Any] = attrs.Factory(list)

    # ---- which servers there are ---------------------------------------------------------------

    def follow(self, state: State, next_token: int, now_ms: int) -> int:
        """Open and close links as registrations say; return the next unused token."""
        for server_id, link in list(self.links.items()):
            if state.servers.get(server_id) != link.registration:
                self._end(link)
        for server_id, registration in sorted(state.servers.items()):
            if server_id not in self.links:
                self.links[server_id] = Link(registration, miss_ms=now_ms + self.patience_ms)
            link = self.links[server_id]
            if link.connection < 0 and link.connect_token < 0 and not link.is_doomed:
                link.connect_token = next_token
                self.connecting[next_token] = server_id
                self.out.append(Connect(next_token, registration.internal))
                next_token += 1
        return next_token

    def close(self) -> None:
        """End all links."""
        for link in list(self.links.values()):
            self._end(link)

    def _end(self, link: Link) -> None:
        del self.links[link.server_id]
        if link.connection >= 0:
            del self.by_connection[link.connection]
            self.out.append(CloseConnection(link.connection))
        self.connecting.pop(link.connect_token, None)

    def doomed(self) -> list[int]:
        """Return the servers that do not answer."""
        return [link.server_id for link in self.links.values() if link.is_doomed]

    # ---- connections ---------------------------------------------------------------------------

    def connected(self, event: Connected, state: State) -> None:
        """A connection is there, or was refused."""
        server_id = self.connecting.pop(event.token, None)
        if server_id is None:  # its link ended meanwhile
            if event.connection is not None:
                self.out.append(CloseConnection(event.connection))
            return
        link = self.links[server_id]
        link.connect_token = -1
        if event.connection is None:
            link.is_doomed = True
            return
        link.connection = event.connection
        self.by_connection[event.connection] = server_id
        link.request_count, link.update_request, link.poll_request = 0, -1, -1
        self._begin_snapshot(link, state)

    def _begin_snapshot(self, link: Link, state: State) -> None:
        catalog = state.catalog
        link.snapshot_due = True
        link.snapshot = deque(
            [
                (Kind.NODES, None),
                (Kind.CONFIGS, None),
                *((Kind.DATABASE, name) for name in catalog.databases),
                *((Kind.TABLE, (table.path, table.table_id)) for table in catalog.by_id.values()),
                *((Kind.PARTITION, partition.group) for partition in catalog.partitions.values()),
                *((Kind.BUCKET, key) for key in catalog.buckets),
            ]
        )
        # Drops come behind the snapshot: nothing is erased before the server knows all that lives.
        link.dirty = {(Kind.DROP, key): None for key in state.deletable.get(link.server_id, ())}

    def closed(self, connection: int) -> None:
        """A connection is gone; `follow` opens another."""
        server_id = self.by_connection.pop(connection, None)
        if server_id is not None:
            self.links[server_id].connection = -1

    def owns(self, connection: int) -> bool:
        """Whether it is one of ours."""
        return connection in self.by_connection

    # ---- telling -------------------------------------------------------------------------------

    def changed(self, items: list[Item], state: State) -> None:
        """Remember what has to be told."""
        for link in self.links.values():
            for item in items:
                kind, what = item
                if kind is not Kind.DROP or link.server_id in state.undeleted.get(what, ()):
                    link.dirty[item] = None

    def push(self, state: State, now_ms: int, wall_ms: int) -> None:
        """Send to each server what it was not told, and ask it for its news.

        A long update is the work of a step; whoever needs one too gets it in the next.
        """
        self.is_behind = False
        for link in self.links.values():
            if link.connection < 0 or link.is_doomed or now_ms < link.pause_ms:
                continue
            if link.update_request < 0 and not self.is_behind:
                self._update(link, state)
            if link.poll_request < 0:
                link.poll_request = self._send(link, private.AWAIT_REPORTS, self._poll(link, wall_ms))

    def _poll(self, link: Link, wall_ms: int) -> private.AwaitReportsRequest:
        return private.AwaitReportsRequest(
            coordinator_epoch=self.epoch,
            tablet_incarnation=link.registration.incarnation,
            after_sequence=link.after_sequence,
            wait_ms=self.wait_ms,
            wall_ms=wall_ms,
        )

    def _update(self, link: Link, state: State) -> None:
        in_snapshot = link.snapshot_due or bool(link.snapshot)
        if not in_snapshot and not link.dirty:
            link.confirmed_number = state.change_number
            return
        update = self._filled(link, state, in_snapshot=in_snapshot)
        self.is_behind = len(update.buckets) > LONG_UPDATE
        nothing_left = not link.snapshot and not link.dirty
        link.sent_number = state.change_number if nothing_left else -1
        link.update_request = self._send(link, private.UPDATE_CATALOG, update)

    def _filled(self, link: Link, state: State, *, in_snapshot: bool) -> private.UpdateCatalogRequest:
        assert not state.closing, "a bucket of a dropped table would be told to be there"
        self.sequence += 1
        update = private.UpdateCatalogRequest(
            coordinator_epoch=self.epoch,
            tablet_incarnation=link.registration.incarnation,
            sequence=self.sequence,
        )
        if link.snapshot_due:
            update.snapshot_begin, link.snapshot_due = True, False
            update.coordinator.CopyFrom(entries.node_entry(self.coordinator))
        for _ in range(min(ITEMS_MAX, len(link.snapshot if in_snapshot else link.dirty))):
            if in_snapshot:
                item = link.snapshot.popleft()
            else:
                item = next(iter(link.dirty))
                del link.dirty[item]
            _add(update, item, state, link.server_id)
        if in_snapshot and not link.snapshot:
            update.snapshot_end = True
        return update

    def _send(self, link: Link, api_key: int, message: Any) -> int:
        link.request_count += 1
        self.out.append(SendRequest(link.connection, link.request_count, api_key, 0, message))
        return link.request_count

    # ---- hearing -------------------------------------------------------------------------------

    def responded(self, event: ResponseReceived, state: State, now_ms: int) -> None:
        """A server answered an update or a poll."""
        link = self.links[self.by_connection[event.connection]]
        is_update = event.request_id == link.update_request
        if event.message is None:
            self._refused(link, event, state, now_ms)
            return
        link.misses, link.miss_ms = 0, now_ms + self.patience_ms
        if is_update:
            self._confirmed(link)
        else:
            link.poll_request = -1
            self._take_reports(link, event.message, state)

    def _confirmed(self, link: Link) -> None:
        link.update_request = -1
        if not link.snapshot:
            link.is_told = True
        link.confirmed_number = max(link.confirmed_number, link.sent_number)

    def _refused(self, link: Link, event: ResponseReceived, state: State, now_ms: int) -> None:
        """It is not, or not yet, who we mean; or we are not the coordinator any more."""
        if event.error_code == ErrorCode.INVALID_COORDINATOR_EXCEPTION:
            self.deposed = True
        if event.request_id == link.update_request:
            link.update_request = -1
            self._begin_snapshot(link, state)
        else:
            link.poll_request = -1
        link.pause_ms = now_ms + PAUSE_MS

    def _take_reports(self, link: Link, message: private.AwaitReportsResponse, state: State) -> None:
        for report in message.reports:
            key = entries.key_of(report)
            link.after_sequence = max(link.after_sequence, report.sequence)
            if report.kind == private.DELETED:
                state.deleted(key, link.server_id)
                continue
            record = state.catalog.bucket(key)
            if record is None or record.leader_id != link.server_id:
                continue  # overtaken by a drop, or by an election
            if report.kind == private.LEADING:
                state.leading(key, report.leader_epoch)
            elif report.kind == private.FAILED:
                state.forget_awaited(key)
                self.failures.append(f"bucket {key} on tablet server {link.server_id}: {report.text}")

    # ---- time ----------------------------------------------------------------------------------

    def count_misses(self, now_ms: int) -> None:
        """Count servers that are late; one that is too late too often is doomed."""
        for link in self.links.values():
            if now_ms >= link.miss_ms and not link.is_doomed:
                # One at a time: after a stall of our own, answers may wait behind this event.
                link.misses += 1
                link.miss_ms = now_ms + self.patience_ms
                link.is_doomed = link.misses >= MISSES_MAX

    def next_ms(self, now_ms: int) -> int | None:
        """Return when to look again; None when nobody is waited for."""
        times = [link.miss_ms for link in self.links.values() if not link.is_doomed]
        times += [link.pause_ms for link in self.links.values() if link.pause_ms > now_ms]
        return min(times, default=None)

    # ---- readers -------------------------------------------------------------------------------

    def have_confirmed(self, change_number: int) -> bool:
        """Whether every live server was told of all changes up to a number."""
        return all(link.confirmed_number >= change_number for link in self.links.values())

    def told_count(self) -> int:
        """How many servers have confirmed a whole snapshot."""
        return sum(link.is_told for link in self.links.values())

    def check_all(self) -> None:
        """Assert that the indexes agree."""
        for connection, server_id in self.by_connection.items():
            assert self.links[server_id].connection == connection
        for token, server_id in self.connecting.items():
            assert self.links[server_id].connect_token == token
        assert len(self.by_connection) == sum(link.connection >= 0 for link in self.links.values())

    def facts(self) -> tuple[Any, ...]:
        """Return what a digest must cover."""
        return tuple(
            (
                server_id,
                link.registration.incarnation,
                link.connection,
                link.update_request,
                link.poll_request,
                len(link.snapshot),
                sorted(repr(item) for item in link.dirty),
                link.confirmed_number,
                link.misses,
                link.is_doomed,
            )
            for server_id, link in sorted(self.links.items())
        )

    def clone(self) -> Links:
        """Return a copy that shares nothing that changes."""
        links = {
            server_id: attrs.evolve(link, snapshot=deque(link.snapshot), dirty=dict(link.dirty))
            for server_id, link in self.links.items()
        }
        return attrs.evolve(
            self,
            links=links,
            by_connection=dict(self.by_connection),
            connecting=dict(self.connecting),
            failures=list(self.failures),
            out=list(self.out),
        )


def _add(update: private.UpdateCatalogRequest, item: Item, state: State, server_id: int) -> None:
    """Add what is true now of *item*."""
    kind, what = item
    catalog = state.catalog
    if kind is Kind.NODES:
        update.nodes_changed = True
        update.nodes.extend(entries.node_entry(node) for node in catalog.nodes.values())
    elif kind is Kind.CONFIGS:
        update.configs_changed = True
        update.configs.extend(entries.configs_entries(catalog.configs))
    elif kind is Kind.DATABASE:
        database = catalog.databases.get(what)
        if database is not None:
            update.databases.append(entries.database_entry(database))
        else:
            update.databases.add(name=what, dropped=True)
    elif kind is Kind.TABLE:
        path, table_id = what
        table = catalog.by_id.get(table_id)
        if table is not None:
            update.tables.append(entries.table_entry(table))
        else:
            update.tables.add(database=path[0], name=path[1], table_id=table_id, dropped=True)
    elif kind is Kind.PARTITION:
        partition = catalog.partitions.get(what[1])
        if partition is not None:
            update.partitions.append(entries.partition_entry(partition))
        else:
            update.partitions.add(table_id=what[0], partition_id=what[1], dropped=True)
    elif kind is Kind.BUCKET:
        record = catalog.bucket(what)
        if record is not None:  # else its table is gone, and the table's entry says so
            update.buckets.append(entries.bucket_entry(record))
    elif server_id in state.undeleted.get(what, ()):
        update.buckets.append(entries.dropped_bucket(state.dropping[what]))
