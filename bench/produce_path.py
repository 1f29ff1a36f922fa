"""What one produce request costs between a whole frame and its reply, without sockets and files.

    python bench/produce_path.py [SECONDS]

One request with one batch of 1 KiB (10 records) goes through frames, edge, tablet server, replica and log, and
its reply is encoded; writes end at once and keep nothing. Prints microseconds a request, and the share of
each stage that can be measured by itself. The budget is 20 to 23 us with system calls (architecture, section 3).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

from flussd.core.driver import Driver, Ports
from flussd.core.edge import frames
from flussd.core.edge.requests import Edge
from flussd.core.machine import Started
from flussd.core.records.batch import build_batch, scan_produced
from flussd.core.registry import messages as r
from flussd.core.tablet.config import TabletConfig
from flussd.core.tablet.tablet import TabletServer
from flussd.core.wire import hot, messages, private
from flussd.core.wire.apis import ApiKey
from flussd.core.wire.served import SERVED_BY_TABLET

INCARNATION = 1


class Nothing:
    """Clock, disk, network and registry that do nothing, at once."""

    def now_ms(self) -> int:
        return 1

    def wall_ms(self) -> int:
        return 1_700_000_000_000

    def wake_at(self, at_ms: int) -> None:
        pass

    def write(self, _file: str, _position: int, _views: Any, done: Callable[[None], None]) -> None:
        done(None)

    def list(self, _folder: str, done: Callable[[tuple[()], None], None]) -> None:
        done((), None)

    def sync(self, _file: str, done: Callable[[None], None]) -> None:
        done(None)

    sync_folder = remove = sync

    def rename(self, _old: str, _new: str, done: Callable[[None], None]) -> None:
        done(None)

    def send(self, connection: int, parts: Any) -> None:
        pass

    def pause(self, connection: int) -> None:
        pass

    resume = pause

    def submit(self, token: int, operation: r.Operation) -> None:
        stat = r.Stat(INCARNATION, INCARNATION, 0, 0, 1, 0)
        answer = r.Answer(r.Outcome.OK, stats=(stat,), stat=stat)
        self.driver.post(r.RegistryAnswered(token, answer))

    driver: Any = None


def server() -> Driver:
    """Return a tablet server that leads the one bucket of table 9, and has one client."""
    nothing = Nothing()
    edge = Edge(2, SERVED_BY_TABLET, frozenset({private.UPDATE_CATALOG}))
    machine = TabletServer(TabletConfig(3, "here", 9124, "memory:3"))
    driver = nothing.driver = Driver(machine, Ports(nothing, nothing, nothing, nothing), edge)
    driver.start(Started(1, "boot", "dir", 1))
    driver.post(r.RegistrySessionOpened(1))
    driver.run()
    driver.connection_opened(1, internal=False)
    driver.connection_opened(2, internal=True)
    update = private.UpdateCatalogRequest(
        coordinator_epoch=1,
        tablet_incarnation=INCARNATION,
        sequence=1,
        snapshot_begin=True,
        snapshot_end=True,
    )
    bucket = update.buckets.add(table_id=9, bucket=0, leader_id=3, leader_incarnation=INCARNATION)
    bucket.leader_epoch, bucket.min_isr = 1, 1
    body = update.SerializeToString()
    frame = frames.request_frame(private.UPDATE_CATALOG, 0, 1, body)[4:]
    driver.frame_received(2, memoryview(bytearray(frame)))
    return driver


def measured_us(call: Callable[[], object], seconds: float) -> float:
    """Return the best of five rounds, in microseconds a call."""
    count, best = 2_000, float("inf")
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or best == float("inf"):
        start = time.perf_counter()
        for _ in range(count):
            call()
        best = min(best, (time.perf_counter() - start) / count * 1e6)
    return best


def main() -> None:
    """Measure and print."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 2.0
    batch = build_batch(bytes(976), record_count=10)
    request = messages.ProduceLogRequest(acks=-1, table_id=9, timeout_ms=30_000)
    request.buckets_req.add(bucket_id=0, records=batch)
    body = request.SerializeToString()
    frame = memoryview(bytearray(frames.request_frame(ApiKey.PRODUCE_LOG, 0, 1, body)[4:]))
    driver = server()
    assert driver.machine.buckets.replicas[9, -1, 0].role.name == "LEADER"
    whole = measured_us(lambda: driver.frame_received(1, frame), seconds)
    assert driver.machine.buckets.replicas[9, -1, 0].high_watermark > 0
    stages = {
        "parse": measured_us(lambda: hot.parse_produce(frame[8:]), seconds / 4),
        "heads and CRC-32C": measured_us(lambda: scan_produced(memoryview(batch)), seconds / 4),
    }
    print(f"{'one request':20} {whole:6.1f} us   {1e6 / whole:8,.0f} a second on one core")
    for name, cost in stages.items():
        print(f"{name:20} {cost:6.1f} us   {cost / whole:8.0%}")
    rest = whole - sum(stages.values())
    print(f"{'machine and reply':20} {rest:6.1f} us   {rest / whole:8.0%}")


if __name__ == "__main__":
    main()
