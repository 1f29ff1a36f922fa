"""The servers of a bench: started as processes of their own, with one line that says where they listen.

Each prints a line with `bootstrap.servers=HOST:PORT` and ends on SIGTERM. Nothing of a server is imported
here. CPU is read from /proc for a process and all below it, so a peer may be several processes.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs

BENCH = Path(__file__).resolve().parent
SOURCE = BENCH.parent / "src"
STOP_SECONDS = 20
WARM_CHUNK = bytes(8 << 20)


@attrs.frozen
class Peer:
    """A running server."""

    name: str
    servers: str
    pid: int


def command(name: str, folder: Path) -> list[str]:
    """Return what starts the peer *name* with its data in *folder*."""
    commands = {
        "blackhole": [str(BENCH / "blackhole.py")],
        "flussd": ["-m", "flussd.cli.flussd", "local", "--port", "0", "--data-dir", str(folder)],
        "java": [str(BENCH / "java_peer.py"), "--dir", str(folder)],
    }
    return [sys.executable, *commands[name]]


@contextmanager
def started(name: str, folder: Path) -> Iterator[Peer]:
    """Start a peer; it is stopped at the end of the block."""
    process = subprocess.Popen(
        command(name, folder),
        env=os.environ | {"PYTHONPATH": str(SOURCE)},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"bootstrap\.servers=(\S+)", line)
        if found is None:
            raise SystemExit(f"{name} did not start: expected bootstrap.servers=HOST:PORT, got {line!r}")
        yield Peer(name, found[1], process.pid)
        if process.poll() is not None:
            raise SystemExit(f"{name} ended by itself, with status {process.returncode}")
    finally:
        stop(process)


def stop(process: subprocess.Popen[str]) -> None:
    """End it in order if it can, at once if not."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def tree(pid: int) -> list[int]:
    """Return *pid* and all processes below it."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal() and (fields := stat(int(folder.name))) is not None:
            children.setdefault(int(fields[1]), []).append(int(folder.name))
    found = [pid]
    for parent in found:
        found += children.get(parent, [])
    return found


def stat(pid: int) -> list[str] | None:
    """Return the fields of /proc/PID/stat behind the name, None if there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return None


def tree_cpu_s(pid: int) -> float:
    """Return the CPU seconds of *pid* and all below it."""
    ticks = 0
    for each in tree(pid):
        if (fields := stat(each)) is not None:
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def resident_mb(pid: int) -> int:
    """Return the resident memory of *pid* and all below it."""
    pages = sum(int(fields[21]) for each in tree(pid) if (fields := stat(each)) is not None)
    return pages * os.sysconf("SC_PAGE_SIZE") >> 20


def warm_page_cache(folder: Path, gib: float) -> None:
    """Write a file of *gib* GiB and remove it: memory that the machine had not just now is ten times slower."""
    file = folder / f"flussd-warm-{os.getpid()}"
    with file.open("wb", buffering=0) as out:
        for _ in range(int(gib * (1 << 30)) // len(WARM_CHUNK)):
            out.write(WARM_CHUNK)
    file.unlink()
