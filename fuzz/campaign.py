"""All targets in one run: the kept inputs first, then drawn ones, on all cores, with one line for each.

    python fuzz/campaign.py [--seed S] [--inputs N] [--jobs J] [--target NAME ...]

A target is a module here with a TARGET, or with a `trial` and a `break_it` (see trials.py). It runs in
processes of its own: an input that never comes back is ended from outside, one that leaves memory behind is
found by what the process has at the end. Failures are kept, and told with the command that repeats them;
the exit status is 1 then.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import multiprocessing
import os
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final

import attrs
from trials import Failure, Target, attempt, keep, kept, line, shrunk

HERE: Final = Path(__file__).parent
NO_TARGETS: Final = frozenset(
    {"trials", "campaign", "answers", "packed", "protobuf", "server", "simulated", "traffic"}
    | {"soak", "soak_clients"}  # by itself, for as long as it is told to
)
INPUTS: Final = 100_000
"""Of a run that is not told how many: `Target.share` counts by this."""

SLICES: Final = 2
"""Processes of one target: each core is to have something to do up to the end."""

WARM_UP: Final = 0.4
"""Part of a slice after which its memory must not grow."""

GROWTH_BYTES_MAX: Final = 24 << 20
"""What a process may grow by after its warm-up: three frames of 1 MiB leave 8 MiB with the allocator."""

GROWTH_OBJECTS_MAX: Final = 2_000
"""The same in objects that the collector knows: a record left behind by each input is more than this."""

STUCK_S: Final = 90.0
"""Wall time of one input, after which its process is ended: it does not even run Python code."""

FAILURES_MAX: Final = 5
"""Different failures of a slice that are made smaller and kept; later ones are counted."""


@attrs.frozen
class Slice:
    """The inputs [first, end) of a target; with *replays* the kept ones come before them."""

    name: str
    seed: int
    first: int
    end: int
    replays: bool


@attrs.define
class Report:
    """How a slice went."""

    name: str
    ended: Counter[str] = attrs.Factory(Counter)
    seconds: float = 0.0
    failures: list[Failure] = attrs.Factory(list)
    failure_count: int = 0
    replay_count: int = 0
    leak: str = ""


def target_of(name: str) -> Target:
    """Return the target of a module."""
    module = importlib.import_module(name)
    if hasattr(module, "TARGET"):
        found: Target = module.TARGET
        return found
    return Target.of_trial(name, module.trial, module.break_it)


def names() -> list[str]:
    """Return all targets; the one that needs sockets first, since it takes longest."""
    found = sorted({path.stem for path in HERE.glob("*.py")} - NO_TARGETS)
    return sorted(found, key=lambda name: name != "live")


def run_slice(asked: Slice, now_at: Any = None) -> Report:
    """Check the inputs of a slice; *now_at* is shared with whoever watches: the input, and since when."""
    target, report = target_of(asked.name), Report(asked.name)
    began = time.monotonic()
    if asked.replays:
        for path in kept(asked.name):
            report.replay_count += 1
            _one(target, path.read_bytes(), report)
    warm = asked.first + int((asked.end - asked.first) * WARM_UP)
    before = (0, 0)
    for n in range(asked.first, asked.end):
        if now_at is not None:
            now_at[0], now_at[1] = n, time.monotonic()
        if n == warm:
            before = size()
        _one(target, target.input(asked.seed, n), report)
    if asked.end > warm and not report.failure_count:
        report.leak = grown(before, size())
    report.leak = target.finish() or report.leak
    report.seconds = time.monotonic() - began
    return report


def _one(target: Target, data: bytes, report: Report) -> None:
    """Check one input, and note how it ended."""
    found = attempt(target, data)
    if isinstance(found, Counter):
        report.ended += found
        return
    report.failure_count += 1
    known = {(failure.kind, failure.place) for failure in report.failures}
    if (found.kind, found.place) not in known and len(known) < FAILURES_MAX:
        found = shrunk(target, found)
        keep(target.name, found.data)
        report.failures.append(found)


def size() -> tuple[int, int]:
    """Return bytes and objects of this process."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE"), len(gc.get_objects())


def grown(before: tuple[int, int], after: tuple[int, int]) -> str:
    """Return what grew too much between two sizes; empty when nothing did."""
    bytes_count, object_count = after[0] - before[0], after[1] - before[1]
    if bytes_count <= GROWTH_BYTES_MAX and object_count <= GROWTH_OBJECTS_MAX:
        return ""
    return f"after its warm-up it grew by {bytes_count >> 20} MiB and {object_count} objects"


# ---- processes -----------------------------------------------------------------------------------


@attrs.define(eq=False)
class Worker:
    """A process that runs one slice."""

    asked: Slice
    stuck_s: float
    now_at: Any = attrs.field(init=False)
    ours: Any = attrs.field(init=False)
    process: Any = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.now_at = context.Array("d", [self.asked.first, time.monotonic()], lock=False)
        self.ours, theirs = context.Pipe(duplex=False)
        self.process = context.Process(target=_work, args=(self.asked, self.now_at, theirs), daemon=False)
        self.process.start()
        theirs.close()

    def report(self) -> Report | None:
        """Return the report if there is one by now, be it that the process hangs or is gone."""
        if self.ours.poll(0.05):
            try:
                report: Report = self.ours.recv()
            except EOFError:
                return self._lost("exception", f"the process ended with {self._exit_status()}")
            self.process.join()
            return report
        if time.monotonic() - self.now_at[1] > self.stuck_s:
            self.process.kill()
            return self._lost("hang", f"no end after {self.stuck_s:g} s")
        return None

    def _exit_status(self) -> Any:
        self.process.join()
        return self.process.exitcode

    def _lost(self, kind: str, text: str) -> Report:
        n = int(self.now_at[0])
        data = target_of(self.asked.name).input(self.asked.seed, n)
        keep(self.asked.name, data)
        failure = Failure(self.asked.name, kind, data, text, "the process")
        return Report(self.asked.name, failures=[failure], failure_count=1)


def _work(asked: Slice, now_at: Any, pipe: Any) -> None:
    pipe.send(run_slice(asked, now_at))


def run(slices: list[Slice], jobs: int, stuck_s: float = STUCK_S) -> list[Report]:
    """Run all slices, *jobs* at a time."""
    waiting, working, reports = list(slices), list[Worker](), list[Report]()
    while waiting or working:
        while waiting and len(working) < jobs:
            working.append(Worker(waiting.pop(0), stuck_s))
        for worker in list(working):
            report = worker.report()
            if report is not None:
                working.remove(worker)
                reports.append(report)
    return reports


def slices_of(wanted: list[str], seed: int, inputs: int) -> list[Slice]:
    """Return what is to be run."""
    slices = []
    for name in wanted:
        count = max(SLICES, target_of(name).share * inputs // INPUTS)
        pieces = 1 if name == "live" else SLICES
        edges = [count * n // pieces for n in range(pieces + 1)]
        slices += [Slice(name, seed, edges[n], edges[n + 1], n == 0) for n in range(pieces)]
    return sorted(slices, key=lambda one: one.name != "live")


def summary(reports: list[Report], seconds: float) -> tuple[str, bool]:
    """Return the text about a run, and whether it found nothing."""
    lines, total = [], Counter[str]()
    for name in sorted({report.name for report in reports}):
        mine = [report for report in reports if report.name == name]
        ended = sum((report.ended for report in mine), Counter[str]())
        lines.append(line(name, ended, sum(report.seconds for report in mine)))
        total["inputs"] += ended.total() + sum(report.failure_count for report in mine)
        total["kept ones"] += sum(report.replay_count for report in mine)
        for report in mine:
            total["failures"] += report.failure_count
            total["hangs"] += sum(failure.kind == "hang" for failure in report.failures)
            total["leaks"] += bool(report.leak)
            lines += [str(failure) for failure in report.failures]
            lines += [f"{name}: LEAK: {report.leak}"] if report.leak else []
    counts = ", ".join(f"{total[what]} {what}" for what in ("hangs", "leaks", "failures"))
    rate = total["inputs"] / max(seconds, 1e-6)
    lines.append(
        f"fuzz: {total['inputs']} inputs ({total['kept ones']} kept ones replayed first) "
        f"in {seconds:.0f} s, {rate:.0f}/s: {counts}"
    )
    return "\n".join(lines), not (total["failures"] or total["leaks"])


def main(arguments: list[str] | None = None) -> int:
    """Run the campaign; return its exit status."""
    parser = argparse.ArgumentParser(description="fuzz all targets")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--inputs", type=int, default=INPUTS, help=f"about how many; default: {INPUTS}")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--target", action="append", choices=names(), help="only this one; may be repeated")
    asked = parser.parse_args(arguments)
    began = time.monotonic()
    reports = run(slices_of(asked.target or names(), asked.seed, asked.inputs), asked.jobs)
    text, is_good = summary(reports, time.monotonic() - began)
    print(text)
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
