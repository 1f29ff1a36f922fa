"""Tells the ledgers what happens to servers: recoveries, ends of processes, power cuts.

Looks into tablet servers from outside, after each delivery; changes nothing, and schedules nothing.
"""

from __future__ import annotations

from typing import Any

import attrs

from flussd.core.records.options import parse_duration_ms
from flussd.core.replica.events import BucketKey
from flussd.core.replica.stored import Role
from flussd.runtime_sim.nodes import Node
from flussd.runtime_sim.oracles.keyed import KeyedLedger
from flussd.runtime_sim.oracles.ledger import Ledgers
from flussd.runtime_sim.oracles.partitions import Clock
from flussd.runtime_sim.oracles.violation import Oracle, Violation
from flussd.runtime_sim.processes import Process
from flussd.runtime_sim.workload.places import TableInUse


@attrs.define(eq=False, repr=False)
class Watch:
    """What was seen of the replicas of all tablet servers."""

    ledgers: Ledgers
    logs: dict[tuple[int, BucketKey], Any] = attrs.Factory(dict)  # (node, bucket) -> its Log, once known
    homes: dict[BucketKey, int] = attrs.Factory(dict)  # bucket -> node
    tables: dict[int, TableInUse] = attrs.Factory(dict)  # those of the run, by id
    partitions: dict[int, str] = attrs.Factory(dict)  # id -> whose it is
    clock: Clock = attrs.Factory(Clock)  # of the coordinator
    restored: dict[BucketKey, Any] = attrs.Factory(dict)  # bucket -> its rows, once they are there

    def follow(self, node: Node) -> None:
        """Watch a tablet server from now on."""
        node.on_delivered = self._delivered
        node.on_ended = self._ended

    def follow_coordinator(self, node: Node) -> None:
        """Watch the coordinator's clock from now on."""
        node.on_delivered = lambda node: self.clock.seen(node.clock.wall_ms())

    def _delivered(self, node: Node) -> None:
        for key in node.machine.buckets.dropping:
            self._dropping(key)
        for key, replica in node.machine.buckets.replicas.items():
            if replica.role is Role.RECOVERING or replica.role is Role.TROUBLED:
                continue
            if self.logs.get((node.number, key)) is not replica.log:
                # Every recovery builds a log of its own.
                self.logs[node.number, key] = replica.log
                self.homes[key] = node.number
                self._recovered(node, key, replica)
            if replica.given_up:
                self._gave_up(node, key, replica)
        self._look_at_rows(node, node.machine)

    def _look_at_rows(self, node: Node, machine: Any) -> None:
        """See how far rows are logged and committed, and what is restored."""
        for key, bucket in machine.keyed.buckets.items():
            ledger = self.ledgers.by_key.get(key)
            if isinstance(ledger, KeyedLedger):
                replica = machine.buckets.replicas[key]
                ledger.watermark(replica.high_watermark)
                ledger.tail(replica.log.end_offset)
            if bucket.is_restored and self.restored.get(key) is not bucket:
                self.restored[key] = bucket
                node.world.count("rows restored")

    def _dropping(self, key: BucketKey) -> None:
        """A bucket will be erased: it has to be one of a partition that may go."""
        ledger, table = self.ledgers.by_key.get(key), self.tables.get(key[0])
        if ledger is None or ledger.is_dropped or table is None:
            return
        if key[1] < 0:
            raise Violation(Oracle.CATALOG_IS_TRUE, f"bucket {key} is erased, and nobody dropped its table")
        table.truth.erased(key[1])
        ledger.is_dropped = True

    def _recovered(self, node: Node, key: BucketKey, replica: Any) -> None:
        world = node.world
        world.count("recoveries")
        if replica.last_cut is not None:
            world.count("recovery cuts")
            text = f"bucket {key}: {replica.last_cut.why}, {replica.last_cut.bytes_count} bytes"
            world.story.line(world.now_us, node.name, "cut", text)
        ledger = self.ledgers.by_key.get(key)
        if ledger is not None:
            lost = ledger.end_offset - replica.log.end_offset
            if lost > 0:
                world.count("known records lost, as allowed", lost)
            ledger.recovered(replica.log.end_offset, replica.log.start_offset)

    def _gave_up(self, node: Node, key: BucketKey, replica: Any) -> None:
        """Judge what retention gives up, while its files are still there."""
        ledger = self.ledgers.by_key.get(key)
        table = node.machine.catalog.table_by_id(key[0])
        if ledger is None or table is None or ledger.start_offset >= replica.log.start_offset:
            return
        ttl_ms = parse_duration_ms(table.properties.get("table.log.ttl", "7 d"))
        newest_ms = max(segment.max_timestamp_ms for segment in replica.given_up)
        now_ms = min(node.machine.wall_ms, node.machine.reports.coordinator_wall_ms)
        if newest_ms + ttl_ms >= now_ms:
            text = f"table {key[0]} bucket {key[2]}: a batch of {newest_ms} is given up at {now_ms}"
            raise Violation(Oracle.KEPT_LONG_ENOUGH, f"{text}, the table keeps {ttl_ms} ms")
        ledger.gave_up(replica.log.start_offset)
        node.world.count("segments given up", len(replica.given_up))

    def _ended(self, node: Node, process: Process) -> None:
        machine: Any = process.driver.machine
        self._look_at_rows(node, machine)  # it may have ended in the middle of a step
        for key, replica in machine.buckets.replicas.items():
            ledger = self.ledgers.by_key.get(key)
            known = self.logs.pop((node.number, key), None)
            if ledger is not None and known is replica.log:
                ledger.ended(replica.durable.end[0])
        in_the_middle = sum([not bucket.is_restored for bucket in machine.keyed.buckets.values()])
        if in_the_middle:
            node.world.count("rows half restored at an end", in_the_middle)

    def power_cut(self, node: Node) -> None:
        """A host loses power now."""
        for key, ledger in self.ledgers.by_key.items():
            if self.homes.get(key) == node.number:
                ledger.power_lost = True
