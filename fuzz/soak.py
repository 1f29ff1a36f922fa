"""Invariant tested: whatever is done to a server's process, what it acknowledged is there, once, in order.

    python fuzz/soak.py [--seed S] [--minutes M] [--tablets N] [--folder DIR] [-D KEY=VALUE ...]
    python fuzz/soak.py --canary      (must fail: the logs of a dead server lose their last bytes)

A real server under the official client: writers, readers that stay, and somebody who creates and drops
tables and partitions. Meanwhile the process is killed, stopped in order or frozen, again and again, and
started on its data. No target of the campaign: the seed decides what is done and when, not what the
machine makes of it, so a failure cannot be repeated by its seed; its data and its log are kept instead.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

import attrs
import fluss
from soak_clients import Broken, Clients

SOURCE: Final = Path(__file__).parents[1] / "src"
START_S: Final = 30.0
STOP_S: Final = 20.0
"""Longest orderly stop: that of the machine and the runtime together, on a busy disk."""

STALLED_S: Final = 60.0
"""A client that gets nothing done for so long, with the longest freeze in it, hangs."""

REPORT_S: Final = 10.0
CUT_BYTES: Final = 40
"""What the canary takes from the end of each log: less than a batch."""


@attrs.define(eq=False)
class Process:
    """The server: always on the same port and folder; *counts* is what was done to it."""

    folder: Path
    port: int
    options: list[str]
    process: subprocess.Popen[bytes] | None = None
    counts: dict[str, int] = attrs.Factory(lambda: {"kills": 0, "stops": 0, "freezes": 0})
    slowest_start_s: float = 0.0

    @property
    def address(self) -> str:
        """What clients connect to."""
        return f"127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Start it, and wait until it says that it is ready."""
        command = [sys.executable, "-m", "flussd.cli.flussd", "local", "--port", str(self.port)]
        command += ["--data-dir", str(self.folder / "data"), *self.options]
        began = time.monotonic()
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                command,
                env=os.environ | {"PYTHONPATH": str(SOURCE)},
                stdout=subprocess.PIPE,
                stderr=log,
            )
        assert self.process.stdout is not None
        waiting = asyncio.to_thread(self.process.stdout.readline)
        ready = await asyncio.wait_for(waiting, START_S)
        if b"bootstrap.servers=" not in ready:
            raise Broken(f"the server does not start: {ready!r}, status {self.process.poll()}")
        self.slowest_start_s = max(self.slowest_start_s, time.monotonic() - began)

    async def kill(self) -> None:
        """End it at once."""
        assert self.process is not None
        self.counts["kills"] += 1
        self.process.kill()
        await asyncio.to_thread(self.process.wait)

    async def stop(self) -> None:
        """End it in order."""
        assert self.process is not None
        self.counts["stops"] += 1
        self.process.send_signal(signal.SIGTERM)
        try:
            status = await asyncio.to_thread(self.process.wait, STOP_S)
        except subprocess.TimeoutExpired:
            raise Broken(f"an orderly stop took more than {STOP_S:g} s") from None
        if status:
            raise Broken(f"an orderly stop: expected status 0, got {status}")

    async def freeze(self, seconds: float) -> None:
        """Let it stand still, as a machine does that swaps or moves."""
        assert self.process is not None
        self.counts["freezes"] += 1
        self.process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(seconds)
        self.process.send_signal(signal.SIGCONT)

    def check_alive(self) -> None:
        """It never ends by itself."""
        assert self.process is not None
        if (status := self.process.poll()) is not None:
            raise Broken(f"the server ended by itself, with status {status}")


async def disturb(process: Process, draw: random.Random, end: float, *, canary: bool) -> None:
    """Do something to the process again and again until *end*; it runs afterwards."""
    while time.monotonic() < end:
        await asyncio.sleep(draw.choice((0.2, 1.0, 3.0, 6.0)) * draw.uniform(0.5, 1.5))
        process.check_alive()
        chance = draw.random()
        if chance < 0.25 and not canary:
            await process.freeze(draw.choice((0.05, 0.5, 4.0)) * draw.uniform(0.5, 1.5))
            continue
        if chance < 0.5 and not canary:
            await process.stop()
        else:
            await process.kill()
            if canary:
                damage(process.folder / "data")
        await asyncio.sleep(draw.choice((0.0, 0.0, 0.5, 2.0)))
        await process.start()


def damage(data: Path) -> None:
    """Take something away that was acknowledged."""
    for folder in {path.parent for path in data.glob("tablet-*/**/*.log")}:
        path = max(folder.glob("*.log"))  # by their first offsets
        if path.stat().st_size > CUT_BYTES:
            os.truncate(path, path.stat().st_size - CUT_BYTES)


async def watch(process: Process, clients: Clients, began: float, minutes: float) -> None:
    """Tell how it goes, and notice who hangs."""
    told = began
    while True:
        await asyncio.sleep(1)
        if stalled := clients.stalled(STALLED_S):
            raise Broken(f"nothing for {STALLED_S:g} s from: {', '.join(stalled)}")
        if time.monotonic() - told >= REPORT_S:
            told = time.monotonic()
            print(f"{(told - began) / 60:5.1f} of {minutes:g} min: {summary(process, clients)}", flush=True)


def summary(process: Process, clients: Clients) -> str:
    """Return what was done so far, in a line."""
    done = ", ".join(f"{count} {kind}" for kind, count in process.counts.items())
    return f"{done}; {clients.summary()}; slowest start {process.slowest_start_s:.1f} s"


async def soak(process: Process, options: argparse.Namespace) -> str:
    """Run it all; return the last summary, or raise Broken."""
    draw = random.Random(options.seed)
    await process.start()
    began = time.monotonic()
    async with await fluss.FlussConnection.create(
        fluss.Config({"bootstrap.servers": process.address})
    ) as connection:
        clients = Clients(connection, draw.randrange(1 << 30))
        await clients.set_up()
        working = [asyncio.ensure_future(work) for work in clients.work()]
        working.append(asyncio.ensure_future(watch(process, clients, began, options.minutes)))
        end = began + options.minutes * 60
        disturbing = asyncio.ensure_future(disturb(process, draw, end, canary=options.canary))
        await asyncio.wait([disturbing, *working], return_when=asyncio.FIRST_COMPLETED)
        for task in working:
            if task.done():
                task.result()
        await disturbing
        clients.ending = True
        await asyncio.gather(*working[:-1])
        working[-1].cancel()
    async with await fluss.FlussConnection.create(
        fluss.Config({"bootstrap.servers": process.address})
    ) as connection:
        await clients.check_all(connection)
    await process.stop()
    return summary(process, clients)


def free_port(count: int) -> int:
    """Return the first of *count* free ports in a row, below those that the system hands out by itself."""
    while True:
        port = random.SystemRandom().randrange(15_000, 30_000)
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            for n in range(count):
                stack.enter_context(socket.create_server(("127.0.0.1", port + n)))
            return port


def parsed() -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 20))
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--tablets", type=int, default=3, help="tablet servers of the process")
    parser.add_argument(
        "--folder", type=Path, help="where data and log go; kept (default: a temporary one)"
    )
    parser.add_argument("-D", dest="config", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--canary", action="store_true", help="damage the data: this must fail")
    return parser.parse_args()


def main() -> int:
    """Return 0 when all held."""
    options = parsed()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="flussd-soak-"))
    folder.mkdir(parents=True, exist_ok=True)
    config = options.config or ["log.segment.file-size=256kb"]
    arguments = ["--tablets", str(options.tablets), *(word for one in config for word in ("-D", one))]
    process = Process(folder, free_port(1 + options.tablets), arguments)
    print(f"soak: seed {options.seed}, {options.minutes:g} minutes, data and log in {folder}", flush=True)
    try:
        text = asyncio.run(soak(process, options))
    except Broken as broken:
        print(f"soak: BROKEN: {broken}\n  kept: {folder}/data, {folder}/log", flush=True)
        return 1
    finally:
        if process.process is not None and process.process.poll() is None:
            process.process.kill()
            process.process.wait()
    print(f"soak: all held: {text}", flush=True)
    if options.folder is None:
        shutil.rmtree(folder)
    return 0


def leave(status: int) -> None:
    """End without the interpreter's own end: threads of pyfluss 1.0.0 sometimes do not survive it."""
    sys.stdout.flush()
    os._exit(status)


if __name__ == "__main__":
    leave(main())
