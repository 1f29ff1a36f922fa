"""What one produce request costs between a whole frame and its reply, stage by stage, beside the budget.

    python bench/produce_path.py [SECONDS] [--write PAGE]

One request with one batch of 1 KiB (10 records) goes through frames, edge, tablet server, replica and log, and
its reply is encoded; writes end at once and keep nothing. Then the system calls of such a request, by
themselves: socket, file and epoll. Stages inside of the driver are timed where it calls them, in a round of
its own, and the time of taking the time is taken off. The budget is that of the architecture, section 3.
All that is in a loop, with warm caches. At last single requests, each after others have used the caches, as
between two requests of a quiet client.
"""

from __future__ import annotations

import argparse
import os
import select
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from report import markdown, write_block

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

from flussd.core.connections import ReplyProduce
from flussd.core.driver import PERFORM, Driver, Ports
from flussd.core.edge import frames
from flussd.core.edge.requests import Edge
from flussd.core.files import WriteFile
from flussd.core.machine import Started
from flussd.core.records.batch import build_batch, scan_produced
from flussd.core.registry import messages as r
from flussd.core.tablet.config import TabletConfig
from flussd.core.tablet.tablet import TabletServer
from flussd.core.wire import hot, messages, private
from flussd.core.wire.apis import ApiKey
from flussd.core.wire.served import SERVED_BY_TABLET

INCARNATION = 1
BUDGET_US = {
    "parse": "3",
    "heads and CRC-32C": "1.2",
    "objects of the edge": "2",
    "two steps of the machine": "5",
    "write": "2",
    "reply": "2",
    "driver": "-",
    "system calls": "5 to 8",
}
ROUND = 200
OTHERS_MIB = (1, 8, 64)
"""What others go through between two requests: more than a first cache, a second one and a third one hold."""
COLD_REQUESTS = 100
RECORDS_BYTES = 1_048
REPLY_BYTES = 15


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
    machine = TabletServer(TabletConfig(server_id=3, host="here", port=9124, internal_address="memory:3"))
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
    """Return the best of all rounds, in microseconds a call."""
    best = float("inf")
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or best == float("inf"):
        start = time.perf_counter()
        for _ in range(ROUND):
            call()
        best = min(best, (time.perf_counter() - start) / ROUND * 1e6)
    return best


class Timed:
    """Callables that note how long they took, in nanoseconds a request."""

    def __init__(self) -> None:
        self.ns: dict[str, int] = {}
        self.own_ns = 0
        self.own_ns = int(measured_us(self.around("nothing", lambda: None), 0.1) * 1000)

    def around(self, stage: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """Return *call*, timed as *stage*."""

        def timed(*arguments: Any, **named: Any) -> Any:
            began_ns = time.perf_counter_ns()
            answer = call(*arguments, **named)
            self.ns[stage] = self.ns.get(stage, 0) + time.perf_counter_ns() - began_ns
            return answer

        self.ns[stage] = 0
        return timed


def inside_us(frame: memoryview, seconds: float) -> dict[str, float]:
    """Return what the driver's calls take: its edge, its machine, its writes and replies."""
    timed, driver = Timed(), server()
    step, parse = TabletServer.step, Edge.parse
    plain = dict(PERFORM)
    try:
        PERFORM[WriteFile] = timed.around("write", plain[WriteFile])
        PERFORM[ReplyProduce] = timed.around("reply", plain[ReplyProduce])
        TabletServer.step = timed.around("two steps of the machine", step)
        Edge.parse = timed.around("edge", parse)
        best: dict[str, float] = {}
        end = time.perf_counter() + seconds
        while time.perf_counter() < end or not best:
            timed.ns = dict.fromkeys(timed.ns, 0)
            for _ in range(ROUND):
                driver.frame_received(1, frame)
            for stage, ns in timed.ns.items():
                calls = 2 if stage.startswith("two") else 1
                best[stage] = min(best.get(stage, 1e9), (ns / ROUND - calls * timed.own_ns / 2) / 1000)
    finally:
        PERFORM.update(plain)
        TabletServer.step, Edge.parse = step, parse
    return best


def cold_us(frame: memoryview) -> dict[str, float]:
    """Return the median of single requests after others went through so much memory."""
    driver, costs = server(), dict[str, float]()
    for _ in range(ROUND):
        driver.frame_received(1, frame)
    for mib in OTHERS_MIB:
        others, samples = bytearray(mib << 20), []
        for n in range(COLD_REQUESTS):
            others[:] = bytes([n]) * len(others)
            start = time.perf_counter()
            driver.frame_received(1, frame)
            samples.append((time.perf_counter() - start) * 1e6)
        costs[f"after {mib} MiB of others"] = statistics.median(samples)
    return costs


def system_calls_us(frame_bytes: int, seconds: float) -> dict[str, float]:
    """Return what the system calls of one request take: nobody sleeps, so no wake-up is in it."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        theirs = socket.create_connection(listening.getsockname())
        ours, _ = listening.accept()
    for end in (ours, theirs):
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    request, reply = bytes(frame_bytes), bytes(REPLY_BYTES)
    room, epoll = memoryview(bytearray(64 * 1024)), select.epoll()
    epoll.register(ours.fileno(), select.EPOLLIN)

    def there_and_back() -> None:
        theirs.send(request)
        ours.recv_into(room)
        ours.sendmsg([reply])
        theirs.recv_into(room)

    with tempfile.TemporaryFile() as file:
        records = bytes(RECORDS_BYTES)
        calls = {
            "recv and send": measured_us(there_and_back, seconds) / 2,
            "pwrite": measured_us(lambda: os.pwrite(file.fileno(), records, 0), seconds),
            "epoll_wait": measured_us(lambda: epoll.poll(0), seconds),
        }
    for end in (ours, theirs, epoll):
        end.close()
    return calls


def produce_frame(batch: bytes) -> memoryview:
    """Return a request to append *batch*."""
    request = messages.ProduceLogRequest(acks=-1, table_id=9, timeout_ms=30_000)
    request.buckets_req.add(bucket_id=0, records=batch)
    body = request.SerializeToString()
    return memoryview(bytearray(frames.request_frame(ApiKey.PRODUCE_LOG, 0, 1, body)[4:]))


def stages_us(batch: bytes, seconds: float) -> tuple[float, dict[str, float]]:
    """Return what a request costs, and what each of its stages does."""
    frame = produce_frame(batch)
    driver = server()
    assert driver.machine.buckets.replicas[9, -1, 0].role.name == "LEADER"
    whole = measured_us(lambda: driver.frame_received(1, frame), seconds)
    assert driver.machine.buckets.replicas[9, -1, 0].high_watermark > 0
    inside = inside_us(frame, seconds)
    stages = {
        "parse": measured_us(lambda: hot.parse_produce(frame[8:]), seconds / 4),
        "heads and CRC-32C": measured_us(lambda: scan_produced(memoryview(batch)), seconds / 4),
    }
    stages["objects of the edge"] = inside.pop("edge") - sum(stages.values())
    stages |= {stage: inside[stage] for stage in ("two steps of the machine", "write", "reply")}
    stages["driver"] = whole - sum(stages.values())
    stages["system calls"] = sum(system_calls_us(len(frame) + 4, seconds / 4).values())
    return whole, stages


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("seconds", type=float, nargs="?", default=2.0)
    parser.add_argument("--write", type=Path, help="page whose marked block is replaced")
    options = parser.parse_args()
    batch = build_batch(bytes(976), record_count=10)
    whole, stages = stages_us(batch, options.seconds)
    cold = cold_us(produce_frame(batch))
    print(f"{'one request':26} {whole:6.1f} us   {1e6 / whole:8,.0f} a second on one core")
    for name, cost in stages.items():
        print(f"{name:26} {cost:6.1f} us   budget {BUDGET_US[name]}")
    for name, cost in cold.items():
        print(f"{name:26} {cost:6.1f} us")
    if options.write:
        rows = [(name, f"{cost:.1f}", BUDGET_US[name]) for name, cost in stages.items()]
        rows.append(("all but system calls", f"{whole:.1f}", "15"))
        rows += [(f"the same {name}", f"{cost:.1f}", "-") for name, cost in cold.items()]
        write_block(options.write, "bench/produce_path.py", markdown(("stage", "us", "budget us"), rows))


if __name__ == "__main__":
    main()
