"""What the official client does to a server in a bench: one process of it, one JSON line a workload.

    python bench/workloads.py HOST:PORT [--only PREFIX] [--scale F] [--warm-gib F] [--server-pid PID]

Every table is new, and what was written is checked by its offsets, what was read by its count. Before a
rate is measured the same is done once unmeasured, so that a JVM has compiled its code, and then the page cache is
warmed: a hypervisor takes free memory back in seconds, and gives it slowly. Times are of one process's own clock; the server's CPU comes from /proc, by ticks of 10 ms. Prints nothing but results.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import secrets
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import attrs
import fluss
import numpy as np
import pyarrow as pa
from peers import tree_cpu_s, warm_page_cache

WIDE = pa.schema(
    [
        pa.field("a", pa.int32(), nullable=False),
        pa.field("b", pa.int64()),
        pa.field("c", pa.string()),
        pa.field("d", pa.float64()),
        pa.field("e", pa.int32()),
    ]
)
KIB = pa.schema([pa.field("a", pa.int32(), nullable=False), pa.field("c", pa.string())])
READY_SECONDS = 30
LEADER_SECONDS = 0.005
"""Pause between two looks for the leader of a new table: each costs the servers a request."""
SCAN_SECONDS = 60
POLL_MS = 1000
WARM_UP_SHARE = 3
"""The unmeasured first round is this part of a measured one."""


def letters(generator: np.random.Generator, count: int, length: int) -> pa.Array:
    """Return *count* random strings of *length* letters."""
    drawn = generator.integers(ord("a"), ord("z") + 1, count * length).astype(np.uint8).tobytes()
    return pa.array([drawn[at : at + length].decode() for at in range(0, count * length, length)])


def wide(count: int) -> pa.RecordBatch:
    """Rows of 48 bytes in five columns."""
    generator = np.random.default_rng(1)
    columns = [
        pa.array(generator.integers(0, 1 << 31, count).astype(np.int32)),
        pa.array(generator.integers(0, 1 << 41, count)),
        letters(generator, count, 20),
        pa.array(generator.random(count)),
        pa.array(
            generator.integers(0, 100_000, count).astype(np.int32), mask=generator.random(count) < 0.3
        ),
    ]
    return pa.record_batch(columns, schema=WIDE)


def kib(count: int) -> pa.RecordBatch:
    """Rows of 1 KiB: a number and a text."""
    generator = np.random.default_rng(1)
    return pa.record_batch(
        [pa.array(np.arange(count, dtype=np.int32)), letters(generator, count, 1020)], schema=KIB
    )


@attrs.frozen
class Log:
    """One way to fill a table: batches of *batch_rows* rows, *rows* of them in a round."""

    name: str
    make: Callable[[int], pa.RecordBatch]
    batch_rows: int
    rows: int
    compression: str = "NONE"
    buckets: int = 1
    scans: tuple[tuple[str, tuple[int, ...]], ...] = ()  # name, and the columns if not all


LOGS = (
    Log("wide", wide, 10_000, 5_000_000, scans=(("wide", ()), ("1 of 5 columns", (1,)))),
    Log("wide zstd", wide, 10_000, 2_500_000, "ZSTD", scans=(("wide zstd", ()),)),
    Log("wide 8 buckets", wide, 10_000, 5_000_000, buckets=8),
    Log("1 KiB rows", kib, 1_000, 300_000, scans=(("1 KiB rows", ()),)),
    Log("100-row batches", wide, 100, 400_000),
)
FLUSHES = 400
DELIVERIES = 60
CREATIONS = 8
REST_SECONDS = 0.02
"""So that the reader's fetch is parked when the row comes."""


@attrs.define(eq=False)
class Meter:
    """Wall and CPU time of what runs inside of it."""

    server_pid: int | None
    seconds: float = 0.0
    client_cpu_s: float = 0.0
    server_cpu_s: float = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Measure the block."""
        server_s = tree_cpu_s(self.server_pid) if self.server_pid else 0.0
        client_s, began = time.process_time(), time.perf_counter()
        yield
        self.seconds = time.perf_counter() - began
        self.client_cpu_s = time.process_time() - client_s
        self.server_cpu_s = (tree_cpu_s(self.server_pid) if self.server_pid else 0.0) - server_s


@attrs.define(eq=False)
class Bench:
    """A connection, a database of its own, and where the results go."""

    connection: Any
    wanted: Callable[[str], bool]
    scale: float
    server_pid: int | None
    servers: str
    warm_gib: float
    database: str = attrs.Factory(lambda: "bench_" + secrets.token_hex(4))

    async def create(
        self, name: str, schema: pa.Schema, buckets: int = 1, compression: str = "NONE"
    ) -> Any:
        """Create a table; return its path once it can be used."""
        path = fluss.TablePath(self.database, name.replace(" ", "_").replace("-", "_"))
        properties = {"table.replication.factor": "1", "table.log.arrow.compression.type": compression}
        table = fluss.TableDescriptor(fluss.Schema(schema), bucket_count=buckets, properties=properties)
        await self.connection.get_admin().create_table(path, table, ignore_if_exists=False)
        end = time.monotonic() + READY_SECONDS
        while True:
            try:
                await self.end(path, buckets)
            except fluss.FlussError:  # no leader yet
                if time.monotonic() > end:
                    raise
                await asyncio.sleep(LEADER_SECONDS)
            else:
                return path

    async def end(self, path: Any, buckets: int) -> int:
        """Return how many rows the table was sent."""
        ends = await self.connection.get_admin().list_offsets(
            path, list(range(buckets)), fluss.OffsetSpec.latest()
        )
        return sum(ends.values())

    def report(
        self, name: str, meter: Meter, rows: int, payload_bytes: int = 0, ms: list[float] = ()
    ) -> None:
        """Print one result; *ms* are the latencies if they are what counts."""
        result: dict[str, Any] = {
            "workload": name,
            "rows": rows,
            "seconds": meter.seconds,
            "client_us": meter.client_cpu_s / rows * 1e6,
            "server_us": meter.server_cpu_s / rows * 1e6,
        }
        if ms:
            cuts = statistics.quantiles(ms, n=100)
            result |= {"p50_ms": cuts[49], "p99_ms": cuts[98]}
        else:
            result |= {"rows_s": rows / meter.seconds, "mb_s": payload_bytes / meter.seconds / 1e6}
        print(json.dumps(result), flush=True)


# ---- appends and scans ---------------------------------------------------------------------------


async def fill(bench: Bench, log: Log) -> None:
    """Append, and scan what was appended."""
    name = f"append {log.name}"
    scans = [(f"scan {scan}", columns) for scan, columns in log.scans if bench.wanted(f"scan {scan}")]
    if not bench.wanted(name) and not scans:
        return
    batch = log.make(log.batch_rows)
    path = await bench.create(name, batch.schema, log.buckets, log.compression)
    table = await bench.connection.get_table(path)
    count = max(1, int(log.rows * bench.scale) // log.batch_rows)
    await append(table, batch, max(1, count // WARM_UP_SHARE))
    warm_page_cache(Path(tempfile.gettempdir()), bench.warm_gib)
    meter = Meter(bench.server_pid)
    with meter.running():
        await append(table, batch, count)
    written = (count + max(1, count // WARM_UP_SHARE)) * log.batch_rows
    assert written == await bench.end(path, log.buckets), "offsets: expected all that was written"
    if bench.wanted(name):
        bench.report(name, meter, count * log.batch_rows, batch.nbytes * count)
    for scan, columns in scans:
        await read(table, columns, written, written // WARM_UP_SHARE)
        meter = Meter(bench.server_pid)
        with meter.running():
            rows, payload_bytes = await read(table, columns, written, written)
        assert written == rows, f"rows: expected {written}, got {rows}"
        bench.report(scan, meter, rows, payload_bytes)
    # Gone at once, so that the next table is written into pages that the machine has already.
    await bench.connection.get_admin().drop_table(path, ignore_if_not_exists=False)


async def append(table: Any, batch: pa.RecordBatch, count: int) -> None:
    """Write *batch* again and again, and wait until all is acknowledged."""
    writer = table.new_append().create_writer()
    for n in range(count):
        writer.write_arrow_batch(batch)
        if n % 64 == 63:
            await asyncio.sleep(0)
    await writer.flush()


async def read(table: Any, columns: tuple[int, ...], end: int, enough: int) -> tuple[int, int]:
    """Read from the start until *enough* rows came; return rows and bytes."""
    scan = table.new_scan()
    if columns:
        scan = scan.project(list(columns))
    scanner = await scan.create_record_batch_log_scanner()
    scanner.subscribe(bucket_id=0, start_offset=0)
    rows = payload_bytes = 0
    give_up = time.monotonic() + SCAN_SECONDS
    while rows < enough:
        found = await scanner.poll_arrow(POLL_MS)
        rows, payload_bytes = rows + found.num_rows, payload_bytes + found.nbytes
        assert rows <= end, f"rows: expected at most {end}, got {rows}"
        assert time.monotonic() < give_up, f"rows: expected {enough} in {SCAN_SECONDS} s, got {rows}"
    return rows, payload_bytes


# ---- latencies -----------------------------------------------------------------------------------


async def flush_one_row(bench: Bench) -> None:
    """How long one row takes from `write_arrow_batch` to the end of `flush`."""
    path = await bench.create("flush", WIDE)
    writer = (await bench.connection.get_table(path)).new_append().create_writer()
    row, count, samples = wide(1), max(20, int(FLUSHES * bench.scale)), []
    meter = Meter(bench.server_pid)
    for _ in range(count // WARM_UP_SHARE):
        writer.write_arrow_batch(row)
        await writer.flush()
    with meter.running():
        for _ in range(count):
            began = time.perf_counter()
            writer.write_arrow_batch(row)
            await writer.flush()
            samples.append((time.perf_counter() - began) * 1e3)
    assert count // WARM_UP_SHARE + count == await bench.end(path, 1)
    bench.report("one row flushed", meter, count, ms=samples)


async def deliver_from_here(bench: Bench) -> None:
    """Delivery where reader and writer share a connection."""
    await deliver(bench, "one row to a reader", bench.connection)


async def deliver_elsewhere(bench: Bench) -> None:
    """Delivery where the reader has a connection of its own."""
    async with connected(bench.servers) as other:
        await deliver(bench, "one row to a reader elsewhere", other)


async def deliver(bench: Bench, name: str, reading: Any) -> None:
    """How long one row takes to a reader that waits at the end: from `flush`, and with `write_arrow_batch`.

    The latter only hands the row to the client, which takes a cold one half of a millisecond and more.
    """
    path = await bench.create(name, WIDE)
    writer = (await bench.connection.get_table(path)).new_append().create_writer()
    scanner = await (await reading.get_table(path)).new_scan().create_record_batch_log_scanner()
    scanner.subscribe(bucket_id=0, start_offset=0)
    row, count = wide(1), max(20, int(DELIVERIES * bench.scale))
    samples, with_write = list[float](), list[float]()
    meter = Meter(bench.server_pid)
    with meter.running():
        for _ in range(count):
            waiting = asyncio.ensure_future(arrival(scanner))
            await asyncio.sleep(REST_SECONDS)
            began = time.perf_counter()
            writer.write_arrow_batch(row)
            written = time.perf_counter()
            flushing = asyncio.ensure_future(writer.flush())
            arrived = await waiting
            samples.append((arrived - written) * 1e3)
            with_write.append((arrived - began) * 1e3)
            await flushing
    assert count == await bench.end(path, 1)
    bench.report(name, meter, count, ms=samples)
    bench.report(f"{name}, with its write", meter, count, ms=with_write)


async def arrival(scanner: Any) -> float:
    """Return when the next row came."""
    while not (await scanner.poll_arrow(10 * POLL_MS)).num_rows:
        pass
    return time.perf_counter()


async def create_tables(bench: Bench) -> None:
    """How long a new table takes until its offsets can be asked for."""
    samples = []
    meter = Meter(bench.server_pid)
    with meter.running():
        for n in range(CREATIONS):
            began = time.perf_counter()
            await bench.create(f"new {n}", WIDE)
            samples.append((time.perf_counter() - began) * 1e3)
    bench.report("create a table", meter, CREATIONS, ms=samples)


LATENCIES: dict[str, Callable[[Bench], Awaitable[None]]] = {
    "one row flushed": flush_one_row,
    "one row to a reader": deliver_from_here,
    "one row to a reader elsewhere": deliver_elsewhere,
    "create a table": create_tables,
}


# ---- the process ---------------------------------------------------------------------------------


@asynccontextmanager
async def connected(servers: str) -> AsyncIterator[Any]:
    """A connection of its own."""
    async with await fluss.FlussConnection.create(fluss.Config({"bootstrap.servers": servers})) as made:
        yield made


async def run(options: argparse.Namespace) -> None:
    """Run what is wanted, and drop it."""

    def wanted(name: str) -> bool:
        return name.startswith(options.only)

    async with connected(options.servers) as connection:
        bench = Bench(
            connection, wanted, options.scale, options.server_pid, options.servers, options.warm_gib
        )
        admin = connection.get_admin()
        await admin.create_database(bench.database, ignore_if_exists=False)
        for log in LOGS:
            await fill(bench, log)
        for name, workload in LATENCIES.items():
            if wanted(name):
                await workload(bench)
        await admin.drop_database(bench.database, ignore_if_not_exists=True, cascade=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("servers")
    parser.add_argument("--only", default="", help="workloads whose names begin so")
    parser.add_argument("--scale", type=float, default=1.0, help="of the number of rows")
    parser.add_argument("--warm-gib", type=float, default=0.0, help="of page cache, before each append")
    parser.add_argument("--server-pid", type=int, help="whose CPU, with its children's, is the server's")
    asyncio.run(run(parser.parse_args()))
    sys.stdout.flush()
    os._exit(0)  # pyfluss 1.0.0 sometimes aborts while the interpreter ends


if __name__ == "__main__":
    main()
