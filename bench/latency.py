"""Append to waiting reader: how long a row needs from `append` to a reader that waits at the tail.

    latency.py [--servers HOST:PORT] [--rounds N]     starts a cluster in a process unless given one

Also measured: the acknowledged one-row append, the time from the start of the process to `flussd
ready`, and resident memory when idle. Expected: p50 below 3 ms (the Java server: 481 ms). The clock is
one process's own, so nothing is compared across processes.
"""

import argparse
import asyncio
import os
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

import fluss
import pyarrow as pa

SCHEMA = pa.schema([pa.field("id", pa.int64()), pa.field("name", pa.string())])


def percentiles(samples_ms):
    cuts = statistics.quantiles(samples_ms, n=100)
    return f"p50 {cuts[49]:.2f} ms  p90 {cuts[89]:.2f} ms  p99 {cuts[98]:.2f} ms"


async def measure(servers, rounds):
    config = fluss.Config({"bootstrap.servers": servers})
    async with (
        await fluss.FlussConnection.create(config) as writing,
        await fluss.FlussConnection.create(config) as reading,
    ):
        admin = writing.get_admin()
        await admin.create_database("bench", ignore_if_exists=True)
        path = fluss.TablePath("bench", "latency")
        await admin.drop_table(path, ignore_if_not_exists=True)
        await admin.create_table(path, fluss.TableDescriptor(fluss.Schema(SCHEMA), bucket_count=1))
        for name, reader in (("two connections", reading), ("one connection", writing)):
            acks, deliveries = await deliver(writing, reader, path, rounds)
            print(f"append to waiting reader, {name}: {percentiles(deliveries)}")
            print(f"acknowledged append of one row:   {percentiles(acks)}")


async def deliver(writing, reading, path, rounds):
    writer = (await writing.get_table(path)).new_append().create_writer()
    await writer.append({"id": -1, "name": "first"}).wait()
    ends = await writing.get_admin().list_offsets(path, [0], fluss.OffsetSpec.latest())
    scanner = await (await reading.get_table(path)).new_scan().create_log_scanner()
    scanner.subscribe(bucket_id=0, start_offset=ends[0])
    acks, deliveries = [], []
    for n in range(rounds):
        waiting = asyncio.ensure_future(scanner.poll(10_000))
        await asyncio.sleep(0.02)  # so that its fetch is parked
        begun = time.perf_counter()
        handle = writer.append({"id": n, "name": "x"})
        flushing = asyncio.ensure_future(writer.flush())
        await waiting
        deliveries.append((time.perf_counter() - begun) * 1000)
        await flushing
        await handle.wait()
        begun = time.perf_counter()
        writer.append({"id": n, "name": "y"})
        await writer.flush()
        acks.append((time.perf_counter() - begun) * 1000)
        await scanner.poll(1000)
    return acks[5:], deliveries[5:]


def start():
    begun = time.monotonic()
    source = Path(__file__).resolve().parent.parent / "src"
    server = subprocess.Popen(
        [sys.executable, "-m", "flussd.cli.flussd", "local", "--port", "0"],
        env=os.environ | {"PYTHONPATH": str(source)},
        stdout=subprocess.PIPE,
        text=True,
    )
    line = server.stdout.readline()
    ready_ms = (time.monotonic() - begun) * 1000
    print(f"ready {ready_ms:.0f} ms after the start of the process; resident {resident_mb(server.pid)} MB")
    return server, re.search(r"bootstrap\.servers=(\S+)", line)[1]


def resident_mb(pid):
    return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1]) // 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--servers", help="of a cluster that runs already")
    parser.add_argument("--rounds", type=int, default=300)
    options = parser.parse_args()
    server, servers = (None, options.servers) if options.servers else start()
    try:
        asyncio.run(measure(servers, options.rounds))
    finally:
        if server is not None:
            print(f"resident after the run {resident_mb(server.pid)} MB")
            server.terminate()
            server.wait()


if __name__ == "__main__":
    main()
