"""flussd, a blackhole and, if asked for, the Java server under the same client, one run after the other.

    python bench/side_by_side.py [--runs N] [--only PREFIX] [--quick] [--json FILE] [--write PAGE]
    PEER=java python bench/side_by_side.py      with the Java server; see java_peer.py for what that needs

All servers run for the whole time, and in each run each of them gets a client process of its own, in an
order that moves on with the run. Compare figures of one sitting only.
Exits with 1 if a goal that was measured is missed and --strict is given.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from peers import BENCH, Peer, resident_mb, started
from report import COLUMNS, RATIOS, Figures, Result, markdown, ratios, table, write_block
from rich.console import Console
from rich.table import Table

RUNS = 5
WARM_GIB = 1.0
"""Twice the largest table; more than that is not on disk at a time."""
QUICK_SCALE = 0.1
CLIENT_SECONDS_MAX = 300


def run_client(peer: Peer, options: argparse.Namespace) -> list[Result]:
    """Run the workloads once in a new process; return their results."""
    command = [sys.executable, str(BENCH / "workloads.py"), peer.servers]
    command += ["--server-pid", str(peer.pid), "--scale", str(options.scale), "--only", options.only]
    command += ["--warm-gib", str(options.warm_gib)]
    for attempt in range(1 if peer.name == "flussd" else 2):  # a peer may fail once, and loses the turn
        ran = subprocess.run(
            command, capture_output=True, text=True, timeout=CLIENT_SECONDS_MAX, check=False
        )
        if ran.returncode == 0:
            return [json.loads(line) for line in ran.stdout.splitlines()]
        print(f"attempt {attempt + 1}: the client of {peer.name} failed:\n{ran.stderr}", file=sys.stderr)
    raise SystemExit(f"the client of {peer.name} ended with {ran.returncode}:\n{ran.stdout}")


def measure(names: list[str], options: argparse.Namespace) -> tuple[list[Result], list[str]]:
    """Start all, run all; return the results, and what is known of each server's memory."""
    results: list[Result] = []
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="flussd-bench-")))
        peers = [stack.enter_context(started(name, folder / name)) for name in names]
        idle = {peer.name: resident_mb(peer.pid) for peer in peers}
        for run in range(options.runs):
            for n in range(len(peers)):
                peer = peers[(run + n) % len(peers)]
                print(f"run {run + 1} of {options.runs}: {peer.name}", file=sys.stderr)
                results += [
                    result | {"peer": peer.name, "run": run} for result in run_client(peer, options)
                ]
            if options.json:  # after each run: an interrupted sitting is not lost
                options.json.write_text(json.dumps({"results": results}, indent=1), encoding="utf-8")
        memory = [
            f"{peer.name}: {idle[peer.name]} MB resident when idle, {resident_mb(peer.pid)} MB after the runs"
            for peer in peers
        ]
    order = {name: n for n, name in enumerate(names)}
    return sorted(results, key=lambda result: order[result["peer"]]), memory


def in_order(results: list[Result]) -> list[Result]:
    """Put the workloads into the order in which the first run had them, whichever server that was."""
    seen = list(dict.fromkeys(result["workload"] for result in sorted(results, key=lambda r: r["run"])))
    return sorted(results, key=lambda result: seen.index(result["workload"]))


def show(figures: Figures, memory: list[str]) -> None:
    """Print both tables."""
    console = Console(width=None if sys.stdout.isatty() else 150)
    for head, rows in ((COLUMNS, table(figures)), (RATIOS, ratios(figures))):
        shown = Table(*head)
        for row in rows:
            shown.add_row(*row)
        console.print(shown)
    console.print("\n".join(memory))


def block(figures: Figures, memory: list[str], options: argparse.Namespace) -> str:
    """Return what stands between the marks of a page."""
    cores = len(os.sched_getaffinity(0))
    conditions = (
        f"Runs: {options.runs}, at {options.scale:g} of the usual rows; {cores} cores with a load of "
        f"{os.getloadavg()[1]:.1f} (much above 1: others disturbed it), Python "
        f"{platform.python_version()}, Linux {platform.release().split('-')[0]}. Medians, with the least and "
        "the most in brackets; CPU in microseconds a row.\n"
    )
    return "\n".join(
        [
            conditions,
            markdown(RATIOS, ratios(figures)),
            markdown(COLUMNS, table(figures)),
            "".join(f"* {line}\n" for line in memory),
        ]
    )


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--only", default="", help="workloads whose names begin so")
    parser.add_argument("--quick", action="store_true", help="one small run, to see that it works")
    parser.add_argument("--scale", type=float, default=1.0, help="of the number of rows")
    parser.add_argument(
        "--warm-gib", type=float, default=WARM_GIB, help="of page cache, before each append"
    )
    parser.add_argument("--json", type=Path, help="where to put the results of all runs")
    parser.add_argument("--write", type=Path, help="page whose marked block is replaced")
    parser.add_argument("--strict", action="store_true", help="exit with 1 if a goal is missed")
    options = parser.parse_args()
    if options.quick:
        options.runs, options.scale, options.warm_gib = 1, QUICK_SCALE, 0.0
    return options


def main() -> int:
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit("stopped"))  # so that the servers end
    options = parsed()
    names = ["blackhole", "flussd"] + ([peer] if (peer := os.environ.get("PEER")) else [])
    results, memory = measure(names, options)
    figures = Figures(in_order(results))
    show(figures, memory)
    if options.write:
        write_block(options.write, "bench/side_by_side.py", block(figures, memory, options))
    missed = any("NO" in row[-1] for row in ratios(figures))
    return 1 if missed and options.strict else 0


if __name__ == "__main__":
    sys.exit(main())
