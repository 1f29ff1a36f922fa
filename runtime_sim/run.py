"""One run: a cluster and clients from the seed, faults from a plan, oracles all the way, and an end.

First calm, then chaos, then calm again: the cluster must recover, writers and readers must get on, a fresh
reader audits every log, clients leave, and nothing may be left behind. The result is a function of the
seed, the plan and the code.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, TextIO

import attrs

from flussd.core.replica.events import BucketKey
from flussd.runtime_sim.cluster import FIRST_CLIENT, Cluster, Shape
from flussd.runtime_sim.draws import Stream
from flussd.runtime_sim.faults import Faults
from flussd.runtime_sim.load import Load
from flussd.runtime_sim.network import Network
from flussd.runtime_sim.oracles import ends
from flussd.runtime_sim.oracles.catalog import CatalogTruth
from flussd.runtime_sim.oracles.ids import TableIds
from flussd.runtime_sim.oracles.keyed import KeyedLedger
from flussd.runtime_sim.oracles.ledger import Ledgers
from flussd.runtime_sim.oracles.partitions import PartitionTruth
from flussd.runtime_sim.oracles.producer_offsets import ProducerTruth
from flussd.runtime_sim.oracles.schemas import SchemaTruth
from flussd.runtime_sim.oracles.violation import Oracle, Violation
from flussd.runtime_sim.plan import CHAOS_MS, Fault, draw_keyed_plan, draw_plan, draw_registry_plan
from flussd.runtime_sim.story import Story
from flussd.runtime_sim.watch import Watch
from flussd.runtime_sim.workload.admin import Admin
from flussd.runtime_sim.workload.alterer import Alterer
from flussd.runtime_sim.workload.client import Client
from flussd.runtime_sim.workload.keyed_tables import KeyedSpec
from flussd.runtime_sim.workload.looker import Looker, LookerConfig
from flussd.runtime_sim.workload.places import PartitionsOfNow, TableInUse
from flussd.runtime_sim.workload.prober import Prober
from flussd.runtime_sim.workload.producer_offsets import Sink, jumps_ms
from flussd.runtime_sim.workload.reader import Reader, ReaderConfig
from flussd.runtime_sim.workload.tables import Partitioning, TableSpec
from flussd.runtime_sim.workload.upserter import Follower, Upserter
from flussd.runtime_sim.workload.writer import Writer
from flussd.runtime_sim.world import MS, SECOND, World

READY_US: Final = 30 * SECOND
RECOVERY_US: Final = 40 * SECOND
"""From the last fault until every server serves again; sessions, sockets and pauses run out in 12 s."""

PROGRESS_US: Final = 40 * SECOND
PARTITIONS_US: Final = 20 * SECOND
"""From the last fault until the partitions of the present time are there."""

LEAVING_US: Final = 13 * SECOND
"""After this, the last half-open connection is noticed."""


@attrs.frozen
class Result:
    """How a run went."""

    seed: int
    plan: tuple[Fault, ...]
    effective: tuple[str, ...]  # kinds of the faults that took effect
    counts: dict[str, int]
    event_count: int
    sim_us: int
    fingerprint: str
    failed: str = ""  # the name of the oracle, or of what broke
    text: str = ""
    dump: str = ""

    @property
    def is_ok(self) -> bool:
        """Whether every promise was kept."""
        return not self.failed

    def verdict(self) -> str:
        """Return the last line of a run."""
        verdict = "ok" if self.is_ok else "FAILED"
        seconds = f"{self.sim_us // SECOND}.{self.sim_us % SECOND // (100 * MS)}"
        return (
            f"seed={self.seed} verdict={verdict} events={self.event_count} "
            f"sim_seconds={seconds} hash={self.fingerprint}"
        )


@attrs.define(eq=False, repr=False)
class Run:
    """One run, set up by its seed; `go` once."""

    seed: int
    plan: Sequence[Fault] | None = None
    story_out: TextIO | None = None
    world: World = attrs.field(init=False)
    cluster: Cluster = attrs.field(init=False)
    load: Load = attrs.field(init=False)
    ledgers: Ledgers = attrs.field(init=False)
    watch: Watch = attrs.field(init=False)
    faults: Faults = attrs.field(init=False)
    admin: Admin = attrs.field(init=False)
    sink: Sink = attrs.field(init=False)
    truth: CatalogTruth = attrs.Factory(CatalogTruth)
    clients: dict[str, Client] = attrs.Factory(dict)
    writers: list[Writer] = attrs.Factory(list)
    readers: list[Reader] = attrs.Factory(list)
    lookers: list[Looker] = attrs.Factory(list)
    tables: dict[str, TableInUse] = attrs.Factory(dict)  # by name
    schemas: dict[str, SchemaTruth] = attrs.Factory(dict)  # by name
    alterers: list[Alterer] = attrs.Factory(list)
    phase: str = "start"

    def __attrs_post_init__(self) -> None:
        seed = self.seed
        self.world = World(seed, Story(self.story_out))
        network = Network(self.world, seed)
        self.cluster = Cluster(self.world, network, Shape.drawn(seed))
        self.load = Load.drawn(seed)
        self.ledgers = Ledgers(self.cluster.shape.durability)
        self.watch = Watch(self.ledgers)
        for name in (*self.load.clients, *self.load.keyed.clients):
            self._add_client(name)
        self.admin = Admin(self.clients["admin"], self.truth)
        nodes = {node.name: node for node in self.cluster.nodes}
        names = {name: node.number for name, node in nodes.items()}
        names |= {name: client.node for name, client in self.clients.items()}
        self.faults = Faults(self.world, network, nodes, names, self.watch.power_cut)
        if self.plan is None:
            self.plan = self._drawn_plan(list(nodes))
        truth = ProducerTruth(self.world, jumps_ms(self.plan))
        self.sink = Sink(self.clients["sink"], truth)
        self.watch.follow_coordinator(self.cluster.coordinator)
        for node in self.cluster.tablets:
            self.watch.follow(node)

    def _drawn_plan(self, nodes: list[str]) -> tuple[Fault, ...]:
        load, tablets = self.load, [node.name for node in self.cluster.tablets]
        plan = draw_plan(self.seed, nodes, load.clients)
        if load.keyed.tables:
            plan += draw_keyed_plan(self.seed, nodes, tablets, load.keyed.clients)
        return plan + draw_registry_plan(self.seed, nodes[0])

    def _add_client(self, name: str) -> Client:
        number = FIRST_CLIENT + len(self.clients)
        draws = Stream.of(self.seed, "client", number)
        self.clients[name] = Client(number, name, self.cluster.network, draws)
        return self.clients[name]

    @property
    def faults_planned(self) -> tuple[Fault, ...]:
        """The plan, drawn or given."""
        assert self.plan is not None
        return tuple(self.plan)

    @classmethod
    def node_names(cls, seed: int) -> list[str]:
        """Return the names that a plan for *seed* may use."""
        shape, load = Shape.drawn(seed), Load.drawn(seed)
        tablets = [f"tablet-{n}" for n in range(shape.tablet_count)]
        return ["registry", "coordinator", *tablets, *load.clients, *load.keyed.clients]

    # ---- running -------------------------------------------------------------------------------

    def go(self) -> Result:
        """Run to the end; what was broken is in the result."""
        failed = text = dump = ""
        try:
            self._go()
        except Violation as violation:
            failed, text, dump = violation.oracle.name, str(violation), self._dump()
        except Exception as error:  # noqa: BLE001 - whatever breaks in the code under test fails the run
            failed, text = type(error).__name__, traceback.format_exc(limit=-8)
            dump = self._dump()
        effective = tuple(self.faults.effective[n].value for n in sorted(self.faults.effective))
        fingerprint = self.world.fingerprint
        assert self.plan is not None
        return Result(
            self.seed,
            tuple(self.plan),
            effective,
            dict(self.world.counts),
            fingerprint.count,
            self.world.now_us,
            fingerprint.hexdigest(),
            failed,
            text,
            dump,
        )

    def _go(self) -> None:
        self._begin_phase("calm")
        self.cluster.start()
        self._make_tables()
        self._start_clients()
        self._begin_phase("chaos")
        assert self.plan is not None
        self.faults.schedule(self.plan)
        self.world.run_until(self.world.now_us + (CHAOS_MS[1] + 1_000) * MS)
        self.faults.quiesce()
        self._begin_phase("recovery")
        self._await(Oracle.CLUSTER_RECOVERS, lambda: ends.sick(self.cluster), RECOVERY_US)
        for alterer in self.alterers:
            alterer.is_calm = True
        self._partitions_of_now()
        self._writers_finish()
        self._readers_finish()
        self._audit()
        self._await(Oracle.CLUSTER_RECOVERS, self.sink.unaudited, PROGRESS_US)
        self._leave()

    def _begin_phase(self, phase: str) -> None:
        self.phase = phase
        self.world.delivered(-1, phase)
        self.world.story.line(self.world.now_us, "-", "phase", phase)

    def _await(self, oracle: Oracle, why_not: Callable[[], str], limit_us: int) -> None:
        """Run until *why_not* has nothing to say."""
        if not self.world.run_while(lambda: bool(why_not()), self.world.now_us + limit_us):
            raise Violation(oracle, f"after {limit_us // SECOND} s of calm: {why_not()}")

    def _make_tables(self) -> None:
        specs = (*self.load.tables, *self.load.keyed.tables)
        for spec in specs:

            def made(table_id: int, spec: TableSpec = spec) -> None:
                truth = PartitionTruth(spec, self.watch.clock, self.watch.partitions)
                self.tables[spec.name] = self.watch.tables[table_id] = TableInUse(spec, table_id, truth)
                if isinstance(spec, KeyedSpec):
                    self.ledgers.kinds[table_id] = partial(KeyedLedger, spec=spec, ids=TableIds())

            self.admin.make_table(spec, made)

        def missing() -> str:
            waits = [spec.name for spec in specs if spec.name not in self.tables]
            return f"tables {', '.join(waits)} are not there" if waits else ""

        self._await(Oracle.CLUSTER_RECOVERS, missing, READY_US)
        self.schemas = {spec.name: SchemaTruth.of(spec) for spec in specs}
        self._add_alterer("alterer", self.load.tables)
        if self.load.keyed.tables:
            self._add_alterer("keyed-alterer", self.load.keyed.tables)
        self._make_first_partitions()

    def _add_alterer(self, name: str, specs: Sequence[TableSpec]) -> None:
        tables = [self.tables[spec.name] for spec in specs]
        pause_ms = self.load.alterer_pause_ms
        self.alterers.append(Alterer(self.clients[name], tables, self.schemas, pause_ms))

    def _make_first_partitions(self) -> None:
        wait = [t for t in self.tables.values() if t.spec.partitioning is Partitioning.BY_CLIENT]
        for table in list(wait):

            def made(table: TableInUse = table) -> None:
                wait.remove(table)

            self.alterers[0].make_first(table, made)
        self._await(Oracle.CLUSTER_RECOVERS, lambda: "no first partition" if wait else "", READY_US)

    def _table(self, n: int) -> TableInUse:
        """Return the table that the *n*-th client uses."""
        return self.tables[self.load.tables[n % len(self.load.tables)].name]

    def _start_clients(self) -> None:
        for n, config in enumerate(self.load.writers):
            client = self.clients[f"writer-{n}"]
            self.writers.append(Writer(client, self._table(n), config, self.ledgers))
        for n, reading in enumerate(self.load.readers):
            client = self.clients[f"reader-{n}"]
            self.readers.append(Reader(client, self._table(n), reading, self.ledgers))
        self._add_keyed_clients()
        for writer in self.writers:
            writer.start()
        for reader in self.readers:
            reader.start()
        table = self._table(self.seed)
        Prober(self.clients["prober"], table, self.ledgers, self.schemas[table.spec.name]).start()
        self.admin.start()
        self.sink.start()
        for alterer in self.alterers:
            alterer.start()
        for looker in self.lookers:
            looker.start()

    def _add_keyed_clients(self) -> None:
        """Make the clients of primary-key tables."""
        keyed = self.load.keyed
        tables = [self.tables[spec.name] for spec in keyed.tables]
        for n, config in enumerate(keyed.upserters):
            table = tables[n % len(tables)]
            self.writers.append(Upserter(self.clients[f"upserter-{n}"], table, config, self.ledgers))
        for n, reading in enumerate(keyed.followers):
            table = tables[n % len(tables)]
            self.readers.append(Follower(self.clients[f"follower-{n}"], table, reading, self.ledgers))
        for n, asking in enumerate(keyed.lookers):
            self.lookers.append(self._looker(self.clients[f"looker-{n}"], tables[n % len(tables)], asking))

    def _looker(self, client: Client, table: TableInUse, config: LookerConfig) -> Looker:
        return Looker(client, table, self.ledgers, config, Stream.of(self.seed, "inserts", client.node))

    # ---- the end -------------------------------------------------------------------------------

    def _writers_finish(self) -> None:
        before = [writer.acked_count for writer in self.writers]

        def stuck() -> str:
            still = [
                writer.client.name
                for writer, count in zip(self.writers, before, strict=True)
                if writer.acked_count == count
            ]
            return f"{', '.join(still)} got nothing acknowledged" if still else ""

        self._await(Oracle.WRITERS_PROGRESS, stuck, PROGRESS_US)
        for writer in self.writers:
            writer.client.is_stopping = True
        for looker in self.lookers:
            looker.config = attrs.evolve(looker.config, inserts_ppm=0)

        def unfinished() -> str:
            still = [f"{writer.client.name} {writer.facts()}" for writer in self.writers if writer.has_open]
            still += [looker.client.name for looker in self.lookers if looker.is_inserting]
            return f"not acknowledged: {', '.join(still)}" if still else ""

        self._await(Oracle.WRITERS_PROGRESS, unfinished, PROGRESS_US)

    def _partitions_of_now(self) -> None:
        """Wait until the coordinator has made the partitions of its present time."""
        for table in self.tables.values():
            if table.spec.time_rule is not None:
                look = PartitionsOfNow(
                    self.alterers[0].client, table, self.cluster.coordinator.clock.wall_ms
                )
                self._await(Oracle.PARTITIONS_ARE_MADE, look.missing, PARTITIONS_US)

    def _end_of(self, key: BucketKey) -> int:
        """Return the high watermark of a bucket, as its leader has it; 0 when it has no leader."""
        home = self.watch.homes.get(key)
        if home is None:
            return 0  # of a partition that was made just now
        replica = self.cluster.nodes[home].machine.buckets.replicas.get(key)
        return 0 if replica is None else int(replica.high_watermark)

    def _behind(self, readers: Sequence[Reader]) -> str:
        still = [
            f"{reader.client.name}: {cursor.key} at {cursor.offset} of {end}"
            for reader in readers
            for cursor in reader.cursors
            if cursor.offset < (end := self._end_of(cursor.key))
        ]
        unseen = [reader.client.name for reader in readers if not reader.places.looked_count]
        return ", ".join(still + unseen)

    def _readers_finish(self) -> None:
        for reader in self.readers:
            # One batch every 60 ms may take minutes, and is progress all the same (seed 292).
            reader.config = attrs.evolve(reader.config, restart_ppm=0, pause_ms=1)
        self._await(Oracle.READERS_PROGRESS, lambda: self._behind(self.readers), PROGRESS_US)

    def _audit(self) -> None:
        self._begin_phase("audit")
        config = ReaderConfig(1, 100, 1, 1 << 20, 1 << 20, 0)
        audits = []
        for n, table in enumerate(self.tables.values()):
            client = self._add_client(f"audit-{n}")
            kind = Follower if isinstance(table.spec, KeyedSpec) else Reader
            audits.append(kind(client, table, config, self.ledgers, audits=True))
            audits[-1].start()
        self._await(Oracle.READERS_PROGRESS, lambda: self._behind(audits), PROGRESS_US)
        self._audit_rows([reader for reader in audits if isinstance(reader, Follower)])
        for reader in audits:
            for cursor in reader.cursors:
                if not cursor.ledger.is_dropped:
                    cursor.ledger.audited(self._end_of(cursor.key), cursor.seen or {})

    def _audit_rows(self, audits: Sequence[Follower]) -> None:
        """Ask for all rows that the logs which were read to their ends fold to."""
        lookers: list[Looker] = []
        for n, reader in enumerate(audits):
            client = self._add_client(f"audit-rows-{n}")
            lookers.append(self._looker(client, reader.table, LookerConfig((1, 20))))
            lookers[-1].audit([c.key for c in reader.cursors if not c.ledger.is_dropped])
            lookers[-1].start()

        def waits() -> str:
            still = [f"{looker.client.name} {looker.to_audit}" for looker in lookers if looker.to_audit]
            return f"rows are not told: {', '.join(still)}" if still else ""

        self._await(Oracle.READERS_PROGRESS, waits, PROGRESS_US)

    def _leave(self) -> None:
        self._begin_phase("leaving")
        changers: list[Admin | Alterer] = [self.admin, *self.alterers]
        for changer in changers:
            changer.client.is_stopping = True

        def busy() -> str:
            return "an admin waits" if any(changer.is_busy for changer in changers) else ""

        self._await(Oracle.WRITERS_PROGRESS, busy, 60 * SECOND)
        listed: list[Any] = []
        self.admin.list_tables(listed.append)
        self._await(Oracle.CLUSTER_RECOVERS, lambda: "" if listed else "no list of tables", PROGRESS_US)
        for client in self.clients.values():
            client.leave()
        self.world.run_until(self.world.now_us + LEAVING_US)
        # Its own clockwork asks, too, and maybe just now (seed 1027).
        coordinator = self.cluster.coordinator

        def waits() -> str:
            return "the coordinator waits for the registry" if coordinator.machine.asked else ""

        self._await(Oracle.NOTHING_LEAKS, waits, SECOND)
        ends.leaks(self.cluster)
        for node in self.cluster.nodes:
            node.machine.check_all()
            self.world.delivered(node.number, node.machine.digest())

    def _dump(self) -> str:
        """Return what is known of the servers and of who worked with them."""
        lines = [f"phase {self.phase}, {self.world.now_us // MS} ms, {self.cluster.shape}"]
        for node in self.cluster.nodes:
            lines.append(
                f"---- {node.name}: {'up' if node.is_up else 'down'}, process {node.process_count}"
            )
            if node.process is None:
                continue
            if hasattr(node.machine, "buckets"):
                lines += [f"  {replica.facts()}" for replica in node.machine.buckets.replicas.values()]
            lines += [f"  {line[:300]}" for line in node.process.driver.ring.lines()[-25:]]
        lines += [f"---- {writer.client.name}: {writer.facts()}" for writer in self.writers]
        lines += [f"---- {reader.client.name}: {reader.facts()}" for reader in self.readers]
        return "\n".join(lines)
