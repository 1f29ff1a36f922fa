"""Many seeds on all cores: each run is a function of its seed, so the order in which they end is free.

Stops at the first failure. Workers are forked after everything is loaded and frozen, so that they share it.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
from collections.abc import Callable, Sequence
from functools import partial

import attrs

from flussd.runtime_sim.mutants.catalogue import applied
from flussd.runtime_sim.run import Result, Run

GC_THRESHOLD = 100_000
"""Allocations between two collections: runs make few cycles, and end soon."""


@attrs.define(eq=False, repr=False)
class Tally:
    """How a range went so far."""

    seed_count: int
    events: list[int] = attrs.Factory(list)
    effective: list[int] = attrs.Factory(list)
    failure: Result | None = None

    @property
    def done_count(self) -> int:
        """How many seeds were run."""
        return len(self.events)

    def add(self, result: Result) -> None:
        """Take a result in."""
        self.events.append(result.event_count)
        self.effective.append(len(result.effective))
        if not result.is_ok and self.failure is None:
            self.failure = result

    def medians(self) -> tuple[int, int]:
        """Return the medians of events and of faults that took effect."""
        return _median(self.events), _median(self.effective)


def _median(numbers: list[int]) -> int:
    return sorted(numbers)[len(numbers) // 2] if numbers else 0


def prepare() -> None:
    """Let the collector leave alone what is loaded by now."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD)


def run_one(seed: int, mutant: str | None = None) -> Result:
    """Run one seed with its own plan."""
    with applied(mutant):
        return Run(seed).go()


def run_range(seeds: Sequence[int], jobs: int, mutant: str | None, told: Callable[[Tally], None]) -> Tally:
    """Run *seeds* on *jobs* cores; call *told* after each; stop at the first failure."""
    tally = Tally(len(seeds))
    prepare()
    run = partial(run_one, mutant=mutant)
    if jobs == 1:
        for seed in seeds:
            tally.add(run(seed))
            told(tally)
            if tally.failure is not None:
                break
        return tally
    context = multiprocessing.get_context("fork")
    with context.Pool(jobs, initializer=_ignore_interrupts) as pool:
        for result in pool.imap_unordered(run, seeds):
            tally.add(result)
            told(tally)
            if tally.failure is not None:
                break
        pool.terminate()
    return tally


def _ignore_interrupts() -> None:
    """Ctrl-C is for the parent, which ends its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def cores() -> int:
    """Return how many cores there are for us."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
