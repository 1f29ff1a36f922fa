"""How long `flussd local` needs until every table can be read and written, after a clean and a hard stop.

    start_times.py [--tables N] [--gib N] [--folder DIR] [--unclean-gib N]

Fills N tables with rows of 1 KiB through the official client, stops the server with SIGTERM and starts it again
(clean); then appends more, kills it with SIGKILL, removes every checkpoint so that recovery must look at all
bytes of the segments it finds (unclean), and starts it again. Printed for each start: the time from the start of the process
to its "ready" line, to the moment when the last bucket of the last table answers, and resident memory ten seconds later.
Targets: 100 tables and 10 GiB clean in under 1 s, 1 GiB unclean in under 3 s, idle below 150 MB in both.
"""

import argparse
import asyncio
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import fluss
import pyarrow as pa

ROW_BYTES = 1024
ROWS = 1000  # about one MiB a call
SCHEMA = pa.schema([pa.field("id", pa.int64()), pa.field("payload", pa.string())])
DATABASE = "starts"
PLAIN = {"table.log.arrow.compression.type": "NONE"}  # so that the bytes of the rows are those of the files


class Server:
    """A `flussd local` in a process of its own."""

    def __init__(self, folder):
        source = Path(__file__).resolve().parent.parent / "src"
        command = [
            sys.executable,
            "-m",
            "flussd.cli.flussd",
            "local",
            "--port",
            "0",
            "--data-dir",
            str(folder),
        ]
        self.begun = time.monotonic()
        environment = os.environ | {"PYTHONPATH": str(source)}
        self.process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        self.ready_s = time.monotonic() - self.begun
        self.servers = re.search(r"bootstrap\.servers=(\S+)", line)[1]

    def age_s(self):
        return time.monotonic() - self.begun

    def resident_mb(self):
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) // 1024

    def stop(self, how):
        begun = time.monotonic()
        self.process.send_signal(how)
        self.process.wait()
        return time.monotonic() - begun


async def fill(servers, table_count, gib):
    """Append *gib* to *table_count* tables, in turns."""
    config = fluss.Config({"bootstrap.servers": servers})
    rows = pa.record_batch(
        [pa.array(range(ROWS), pa.int64()), pa.array(["x" * ROW_BYTES] * ROWS)], schema=SCHEMA
    )
    async with await fluss.FlussConnection.create(config) as connection:
        admin = connection.get_admin()
        await admin.create_database(DATABASE, ignore_if_exists=True)
        writers = []
        for number in range(table_count):
            path = fluss.TablePath(DATABASE, f"t{number:03}")
            descriptor = fluss.TableDescriptor(fluss.Schema(SCHEMA), bucket_count=1, properties=PLAIN)
            await admin.create_table(path, descriptor, ignore_if_exists=True)
            writers.append((await connection.get_table(path)).new_append().create_writer())
        rounds = max(1, round(gib * (1 << 30) / (table_count * ROWS * ROW_BYTES)))
        for number in range(rounds):
            for writer in writers:
                writer.write_arrow_batch(rows)
            if number % 4 == 3:
                await asyncio.gather(*(writer.flush() for writer in writers))
        await asyncio.gather(*(writer.flush() for writer in writers))
    return rounds * ROWS


async def all_answer(servers, table_count, at_least):
    """Wait until the last row of every table can be asked for; return nothing."""
    async with await fluss.FlussConnection.create(
        fluss.Config({"bootstrap.servers": servers})
    ) as connection:
        admin = connection.get_admin()
        for number in reversed(range(table_count)):
            path = fluss.TablePath(DATABASE, f"t{number:03}")
            ends = await admin.list_offsets(path, [0], fluss.OffsetSpec.latest())
            assert ends[0] >= at_least, (number, ends, at_least)


def measure(title, folder, table_count, at_least, limit_s):
    """Start, wait until all answer, rest, and print."""
    server = Server(folder)
    asyncio.run(all_answer(server.servers, table_count, at_least))
    answered_s = server.age_s()
    time.sleep(10)
    verdict = "ok" if server.ready_s < limit_s else f"above {limit_s} s"
    print(
        f"{title:28} ready {server.ready_s:6.2f} s ({verdict}), all tables answer {answered_s:6.2f} s, "
        f"idle {server.resident_mb()} MB"
    )
    return server


def stored(folder):
    """Tell how many bytes the segments below *folder* have."""
    size_bytes = sum(file.stat().st_size for file in Path(folder).rglob("*.log"))
    return f"{size_bytes / (1 << 30):.2f} GiB in segments"


def remove_checkpoints(folder):
    """Remove what recovery believes, so that it must look at everything."""
    count = 0
    for file in Path(folder).rglob("checkpoint"):
        file.unlink()
        count += 1
    assert count, f"no checkpoint below {folder}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tables", type=int, default=100)
    parser.add_argument("--gib", type=float, default=10.0, help="of clean data")
    parser.add_argument("--unclean-gib", type=float, default=1.0)
    parser.add_argument(
        "--folder", default=tempfile.gettempdir(), help="where to make the data directories"
    )
    options = parser.parse_args()
    for gib, limit_s, title in ((options.gib, 1.0, "clean"), (options.unclean_gib, 3.0, "unclean")):
        folder = tempfile.mkdtemp(prefix="flussd-start-", dir=options.folder)
        try:
            server = Server(folder)
            rows = asyncio.run(fill(server.servers, options.tables, gib))
            filled = f"filled in {server.age_s():.1f} s, {server.resident_mb()} MB resident"
            if title == "clean":
                print(f"{filled}; {stored(folder)}; stopped in {server.stop(signal.SIGTERM):.2f} s")
            else:
                server.stop(signal.SIGKILL)
                print(f"{filled}; {stored(folder)}; killed")
                remove_checkpoints(folder)
            label = f"{title}, {options.tables} tables, {gib:g} GiB"
            measure(label, folder, options.tables, rows, limit_s).stop(signal.SIGTERM)
        finally:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
