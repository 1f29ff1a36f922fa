"""A world for the coordinator: the registry's real tree, model tablet servers, and one FIFO of events.

Every registry operation can be lost; servers can be killed, frozen and brought back.
"""

import heapq
import json

import attrs
import pytest

from flussd.core import connections as c
from flussd.core.catalog import entries
from flussd.core.catalog.catalog import Catalog
from flussd.core.coordinator import layout
from flussd.core.coordinator.coordinator import Coordinator, CoordinatorConfig, Role
from flussd.core.machine import Announce, Continue, ContinueLater, Fatal, Started, Stopped, WakeAt, Woken
from flussd.core.registry import messages as r
from flussd.core.registry.changes import NodeDeleted, SessionOpened
from flussd.core.registry.multi import execute, read
from flussd.core.registry.tree import Tree
from flussd.core.registry.watches import Watches
from flussd.core.wire import messages, private
from flussd.core.wire.apis import ApiKey

WALL_MS = 1_700_000_000_000
CLIENT = 1  # the connection of the tests' client

SCHEMA = {"version": 1, "columns": [{"name": "a", "data_type": {"type": "INTEGER"}, "id": 0}]}


def descriptor(*, buckets=1, **properties):
    """The JSON of a log table."""
    return json.dumps(
        {
            "version": 1,
            "schema": SCHEMA | {"highest_field_id": 0},
            "partition_key": [],
            "bucket_key": [],
            "bucket_count": buckets,
            "properties": {key.replace("_", "."): value for key, value in properties.items()},
            "custom_properties": {},
        }
    ).encode()


@attrs.define(eq=False)
class Registry:
    """The tree, its sessions and watches; answers at once, and may lose the k-th multi."""

    tree: Tree = attrs.Factory(Tree)
    watches: Watches = attrs.Factory(Watches)
    sessions: int = 0
    multis: int = 0
    lose_before: int = -1  # this multi is never applied, and its outcome unknown
    lose_after: int = -1  # this one is applied, and its outcome unknown
    full_from: int = 1 << 30  # the first multi for which its disk has no room
    lose_late: int = -1  # this one is applied after the outcome was told to be unknown
    late: tuple = None
    fired: list = attrs.Factory(list)  # (session, WatchFired)

    def open(self):
        self.sessions += 1
        self.tree.zxid += 1
        self.tree.apply(SessionOpened(self.sessions, 20_000), self.tree.zxid)
        return self.sessions

    def close(self, session):
        """The session is gone, with its nodes."""
        for gone in [NodeDeleted(path) for path in self.tree.owned.get(session, ())]:
            self.tree.zxid += 1
            self.tree.apply(gone, self.tree.zxid)
            self._fire(gone)
        self.watches.drop(session)

    def submit(self, session, operation):
        """The answer; what it fires is in `fired`."""
        if isinstance(operation, r.GetData | r.GetChildren):
            if operation.watch:
                is_data = isinstance(operation, r.GetData)
                add = self.watches.add_data if is_data else self.watches.add_children
                add(session, operation.path)
            return read(self.tree, operation)
        self.multis += 1
        number = self.multis
        if number == self.lose_before:
            return r.Answer(r.Outcome.UNKNOWN)
        if number == self.lose_late:
            self.late = (session, operation)
            return r.Answer(r.Outcome.UNKNOWN)
        is_full = self.full_from <= number
        answer = r.Answer(r.Outcome.NOT_STORED) if is_full else self._apply(session, operation)
        return r.Answer(r.Outcome.UNKNOWN) if number == self.lose_after else answer

    def apply_late(self):
        """Now the late multi arrives; its answer interests nobody."""
        if self.late is not None:
            self._apply(*self.late)
        self.late = None

    def _apply(self, session, operation):
        answer, changes = execute(self.tree, operation, session, self.tree.zxid + 1)
        for change in changes:
            self._fire(change)
        return answer

    def _fire(self, change):
        for session, path, changed in self.watches.fire(change):
            self.fired.append((session, r.WatchFired(path, changed)))

    def json(self, path):
        return json.loads(self.tree.nodes[path].data) if path in self.tree.nodes else None

    def children(self, path):
        return sorted(self.tree.nodes[path].children)


@attrs.define(eq=False)
class Tablet:
    """What a tablet server does about the two private APIs, and its registration."""

    world: object
    server_id: int
    session: int = 0
    incarnation: int = -1
    catalog: Catalog = attrs.Factory(Catalog)
    fresh: Catalog = None
    complete: bool = False
    epoch: int = -1
    sequence: int = 0
    leads: dict = attrs.Factory(dict)  # key -> epoch
    erased: list = attrs.Factory(list)
    reports: dict = attrs.Factory(dict)  # key -> report
    report_count: int = 0
    polls: list = attrs.Factory(list)  # (connection, request id, deadline)
    is_up: bool = True
    is_frozen: bool = False
    deletes: bool = True  # whether it erases what it is told to

    @property
    def address(self):
        return f"memory:{self.server_id}"

    def register(self):
        """Begin a new incarnation."""
        registry = self.world.registry
        self.session = registry.open()
        listeners = f"CLIENT://host{self.server_id}:{9124 + self.server_id}"
        value = {"version": 4, "listeners": listeners, "internal": self.address}
        path = layout.server_path(self.server_id)
        writes = [r.Create(path, json.dumps(value).encode(), ephemeral=True)]
        if path in registry.tree.nodes:
            writes.insert(0, r.Delete(path))
        answer = registry._apply(self.session, r.Multi(tuple(writes)))
        assert answer.outcome is r.Outcome.OK
        self.incarnation = answer.stats[-1].czxid
        self.is_up, self.is_frozen = True, False
        self.world.spread()

    def unregister(self):
        self.world.registry.close(self.session)
        self.incarnation = -1
        self.world.spread()

    def kill(self):
        """The process dies; its registration stays."""
        self.is_up, self.incarnation = False, -1
        self.leads, self.reports, self.polls = {}, {}, []
        self.catalog, self.fresh, self.complete, self.epoch, self.sequence = Catalog(), None, False, -1, 0
        self.world.break_links(self)

    def receive(self, connection, request_id, api_key, asked):
        if self.is_frozen:
            return
        if asked.coordinator_epoch < self.epoch or asked.tablet_incarnation != self.incarnation:
            code = 23 if asked.coordinator_epoch < self.epoch else 55
            self._answer(connection, request_id, None, code)
            return
        if asked.coordinator_epoch > self.epoch:
            self.epoch, self.sequence, self.fresh = asked.coordinator_epoch, 0, None
        if api_key == private.UPDATE_CATALOG:
            self._update(asked)
            self._answer(connection, request_id, private.UpdateCatalogResponse(sequence=asked.sequence))
        else:
            after = asked.after_sequence
            self.reports = {key: one for key, one in self.reports.items() if one.sequence > after}
            self.polls.append((connection, request_id, self.world.now_ms + asked.wait_ms))
            self.world.at(asked.wait_ms, self.answer_polls)
        self.answer_polls()

    def _update(self, update):
        if update.sequence <= self.sequence:
            return
        self.sequence = update.sequence
        if update.snapshot_begin:
            self.fresh = Catalog()
        into = self.fresh if self.fresh is not None else self.catalog
        into.apply(update)
        into.check_all()
        if self.fresh is not None and not update.snapshot_end:
            return
        if self.fresh is not None:
            self.catalog, self.fresh, self.complete = self.fresh, None, True
        for entry in update.buckets:
            if entry.dropped and self.deletes:
                self.erased.append(entries.key_of(entry))
                self._report(entries.key_of(entry), private.DELETED, entry.leader_epoch)
        mine = {
            key: record.leader_epoch
            for key, record in self.catalog.buckets.items()
            if (record.leader_id, record.leader_incarnation) == (self.server_id, self.incarnation)
        }
        for key, epoch in mine.items():
            if self.leads.get(key) != epoch or update.snapshot_end:
                self._report(key, private.LEADING, epoch)
        self.leads = mine

    def _report(self, key, kind, epoch):
        self.report_count += 1
        self.reports.pop(key, None)
        report = self.reports[key] = private.BucketReport(
            sequence=self.report_count, kind=kind, table_id=key[0], bucket=key[2], leader_epoch=epoch
        )
        if key[1] >= 0:
            report.partition_id = key[1]

    def answer_polls(self):
        if self.is_frozen:
            return
        for poll in list(self.polls):
            connection, request_id, deadline_ms = poll
            if self.reports or self.world.now_ms >= deadline_ms:
                self.polls.remove(poll)
                response = private.AwaitReportsResponse(wall_ms=WALL_MS)
                response.reports.extend(self.reports.values())
                self._answer(connection, request_id, response)

    def _answer(self, connection, request_id, message, code=0):
        self.world.deliver(connection, c.ResponseReceived(connection, request_id, message, code))


@attrs.define(eq=False)
class World:
    """The coordinator with all around it; `heap` holds what is under way."""

    registry: Registry = attrs.Factory(Registry)
    tablets: dict = attrs.Factory(dict)
    config: CoordinatorConfig = attrs.Factory(CoordinatorConfig)
    machine: Coordinator = None
    process: int = 0  # of the coordinator; events for an older one are lost
    session: int = 0
    directory_id: str = "dir"
    now_ms: int = 1000
    heap: list = attrs.Factory(list)
    count: int = 0
    links: dict = attrs.Factory(dict)  # connection -> tablet
    connection_count: int = 100
    request_count: int = 0
    replies: dict = attrs.Factory(dict)  # request id -> response, or (code, text), or None: closed
    announced: list = attrs.Factory(list)
    alarm: int = 0
    latency_ms: int = 1
    steps: int = 0
    is_cut_off: bool = False  # the registry hears nothing

    # ---- running -------------------------------------------------------------------------------

    def at(self, delay_ms, call, *arguments):
        self.count += 1
        heapq.heappush(self.heap, (self.now_ms + delay_ms, self.count, call, arguments))

    def run(self, ms):
        """Let *ms* milliseconds pass."""
        end_ms = self.now_ms + ms
        while self.heap and self.heap[0][0] <= end_ms:
            self.now_ms, _, call, arguments = heapq.heappop(self.heap)
            call(*arguments)
        self.now_ms = end_ms

    def until(self, condition, ms=20_000):
        """Run until *condition* holds."""
        end_ms = self.now_ms + ms
        while not condition():
            assert self.heap, "nothing is under way"
            assert self.now_ms < end_ms, "it never came true"
            self.run(1)

    def step(self, process, event):
        if process != self.process:
            return
        for effect in self.machine.step(event, self.now_ms):
            self.perform(effect)
        self.steps += 1
        catalog = self.machine.state.catalog
        if len(catalog.buckets) + len(catalog.databases) < 50 or self.steps % 50 == 0:
            self.machine.check_all()
        self.spread()

    def post(self, event, delay_ms=0):
        self.at(delay_ms, self.step, self.process, event)

    def spread(self):
        """Deliver the watches that fired."""
        fired, self.registry.fired = self.registry.fired, []
        for session, event in fired:
            if session == self.session:
                self.post(event, self.latency_ms)

    def perform(self, effect):
        if isinstance(effect, r.RegistrySubmit):
            self.at(self.latency_ms, self.ask_registry, self.process, self.session, effect)
        elif isinstance(effect, c.Connect):
            self.at(self.latency_ms, self.connect, self.process, effect)
        elif isinstance(effect, c.SendRequest):
            self.at(self.latency_ms, self.to_tablet, effect)
        elif isinstance(effect, c.CloseConnection):
            self.links.pop(effect.connection, None)
            if effect.connection == CLIENT:
                self.client_closed()
            else:
                self.post(c.ConnectionClosed(effect.connection))
        elif isinstance(effect, c.Reply | c.ReplyError):
            assert effect.request_id not in self.replies
            said = effect.message if isinstance(effect, c.Reply) else (effect.code, effect.text)
            self.replies[effect.request_id] = said
        elif isinstance(effect, ContinueLater):
            self.post(Continue(effect.token))
        elif isinstance(effect, WakeAt):
            self.alarm += 1
            self.at(max(0, effect.at_ms - self.now_ms), self.wake, self.process, self.alarm)
        else:
            assert isinstance(effect, Announce | Stopped | Fatal)
            self.announced.append(effect)

    def wake(self, process, alarm):
        if alarm == self.alarm:
            self.step(process, Woken())

    def ask_registry(self, process, session, effect):
        if self.is_cut_off:
            return
        answer = self.registry.submit(session, effect.operation)
        self.spread()
        self.at(self.latency_ms, self.step, process, r.RegistryAnswered(effect.token, answer))

    # ---- the network ---------------------------------------------------------------------------

    def connect(self, process, effect):
        tablet = next((one for one in self.tablets.values() if one.address == effect.address), None)
        connection = None
        if tablet is not None and tablet.is_up:
            self.connection_count += 1
            connection = self.connection_count
            self.links[connection] = tablet
        self.step(process, c.Connected(effect.token, connection))

    def to_tablet(self, effect):
        tablet = self.links.get(effect.connection)
        if tablet is not None:
            tablet.receive(effect.connection, effect.request_id, effect.api_key, effect.message)

    def deliver(self, connection, event):
        if connection in self.links:
            self.post(event, self.latency_ms)

    def break_links(self, tablet):
        for connection in [number for number, one in self.links.items() if one is tablet]:
            del self.links[connection]
            self.post(c.ConnectionClosed(connection), self.latency_ms)

    # ---- the coordinator -----------------------------------------------------------------------

    def start(self):
        """Begin a new process of the coordinator."""
        self.process += 1
        self.links.clear()
        self.machine = Coordinator(self.config)
        self.session = self.registry.open()
        self.post(Started(WALL_MS, "boot", self.directory_id, 7))
        self.post(r.RegistrySessionOpened(self.session))
        self.post(c.ConnectionOpened(CLIENT, internal=False))

    def crash(self):
        """Kill the coordinator's process; what it asked of the registry is still under way."""
        self.process += 1
        self.client_closed()

    def lose_session(self):
        """The registry declares the session dead; a new one follows."""
        self.registry.close(self.session)
        self.post(r.RegistrySessionLost())
        self.session = self.registry.open()
        self.post(r.RegistrySessionOpened(self.session), 5)

    def add_tablet(self, server_id):
        tablet = self.tablets[server_id] = Tablet(self, server_id)
        self.until(lambda: layout.FORMAT in self.registry.tree.nodes)
        tablet.register()
        return tablet

    @property
    def states(self):
        return [one.what for one in self.announced if isinstance(one, Announce)]

    # ---- the client ----------------------------------------------------------------------------

    def close_client(self):
        """The client leaves."""
        self.post(c.ConnectionClosed(CLIENT))

    def client_closed(self):
        for request_id in range(1, self.request_count + 1):
            self.replies.setdefault(request_id, None)

    def send(self, api_key, message):  # and return the request's id
        self.request_count += 1
        self.post(c.RequestReceived(CLIENT, self.request_count, api_key, 0, message, WALL_MS + self.now_ms))
        return self.request_count

    def ask(self, api_key, message=None, **fields):
        """Send a request and return its answer: the message, the error code, or None when closed."""
        return self.answer(self.send(api_key, message or messages.request_class(api_key)(**fields)))

    def answer(self, request_id):
        """Wait for the answer to a request."""
        self.until(lambda: request_id in self.replies)
        answer = self.replies[request_id]
        return answer[0] if isinstance(answer, tuple) else answer

    def create_table(self, *arguments, **options):
        request_id = self.send_create(*arguments, **options)
        return self.answer(request_id)

    def send_create(self, name="t", database="fluss", *, buckets=1, ignore=False, **properties):
        message = messages.CreateTableRequest(
            table_path=messages.PbTablePath(database_name=database, table_name=name),
            table_json=descriptor(buckets=buckets, **properties),
            ignore_if_exists=ignore,
        )
        return self.send(ApiKey.CREATE_TABLE, message)

    def drop_table(self, name="t", database="fluss", *, ignore=False):
        path = messages.PbTablePath(database_name=database, table_name=name)
        return self.ask(ApiKey.DROP_TABLE, table_path=path, ignore_if_not_exists=ignore)

    def create_database(self, name="db", *, ignore=False):
        return self.ask(ApiKey.CREATE_DATABASE, database_name=name, ignore_if_exists=ignore)

    def drop_database(self, name="db", *, ignore=False, cascade=False):
        options = {"ignore_if_not_exists": ignore, "cascade": cascade}
        return self.ask(ApiKey.DROP_DATABASE, database_name=name, **options)

    def tables(self, database="fluss"):
        return list(self.ask(ApiKey.LIST_TABLES, database_name=database).table_name)

    # ---- what must be true once all is quiet ---------------------------------------------------

    def settled(self):
        """All converged: registry, coordinator and tablet servers agree, and nothing is left over."""
        state = self.machine.state
        assert self.machine.role is Role.ACTIVE
        assert [{}] * 4 == [state.unmade, state.unelected, state.awaited, state.tombstones]
        assert not self.machine.pipeline.flight
        assert not self.machine.requests.current
        catalog = state.catalog
        for tablet in self.tablets.values():
            if tablet.is_up and tablet.incarnation >= 0:
                assert tablet.catalog.digest() == catalog.digest()
        ids = [str(table.table_id) for table in catalog.tables.values() if not table.is_partitioned]
        assert sorted(ids) == self.registry.children(layout.ASSIGNMENTS)
        assert self.registry.children(layout.DROPPED) == []
        names = self.registry.children(layout.DATABASES)
        assert names == sorted(catalog.databases)
        for name in names:
            assert self.registry.children(layout.tables_path(name)) == catalog.table_names(name)
        for key, record in catalog.buckets.items():
            data = self.registry.tree.nodes[layout.record_path(key)].data
            assert layout.decode_record(key, data) == record
        assert state.digest() == state.clone().digest()


@pytest.fixture
def make_world():
    """Make a world with a coordinator and tablet servers, up and ready."""

    def make(tablets=1, **config):
        world = World(config=CoordinatorConfig(tablets_expected=tablets, **config))
        world.start()
        for server_id in range(tablets):
            world.add_tablet(server_id)
        world.until(lambda: "ready" in world.states)
        return world

    return make


@pytest.fixture
def world(make_world):
    """A world with one tablet server."""
    return make_world()
