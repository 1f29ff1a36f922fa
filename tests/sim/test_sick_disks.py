"""Disks that refuse for a while, under a whole cluster: it goes on, loses nothing, and heals."""

from __future__ import annotations

import io

import pytest

from flussd.runtime_sim.plan import Fault, FaultKind
from flussd.runtime_sim.run import Run

SEEDS = range(1, 7)


def run_with(seed, *faults):
    """Run *seed* under these faults alone; return how it went, and its story."""
    story = io.StringIO()
    result = Run(seed, faults, story).go()
    return result, story.getvalue()


def test_a_full_disk_of_the_registry_ends_nobody():
    """1. The registry's disk is full for ten seconds. 2. Changes are refused, no process gives up.

    The oracles see to the rest: what clients were told is true, all are served, and in the end all is well.
    """
    refused = 0
    for seed in SEEDS:
        result, story = run_with(seed, Fault(1_000, FaultKind.DISK_FULL, ("registry",), 10_000))

        assert result.is_ok, result.text
        assert "gave up" not in result.counts
        refused += "refuses changes" in story
        assert story.count("refuses changes") == story.count("takes changes again")
    assert refused > len(SEEDS) // 2


def test_a_full_disk_that_cannot_even_overwrite():
    """The registry waits with the change in hand; nobody gives up."""
    held = 0
    for seed in SEEDS:
        result, story = run_with(seed, Fault(1_000, FaultKind.DISK_FULL, ("registry",), 10_000, 0, "all"))

        assert result.is_ok, result.text
        assert "gave up" not in result.counts
        held += "refuses changes" in story
    assert held > len(SEEDS) // 2


@pytest.mark.parametrize("kind", [FaultKind.DISK_FULL, FaultKind.READ_ONLY])
def test_a_disk_of_a_tablet_server_that_refuses(kind):
    """1. It refuses to grow files, or to make new ones. 2. Nothing acknowledged is lost, and it heals."""
    effective = 0
    for seed in SEEDS:
        result, _ = run_with(seed, Fault(1_000, kind, ("tablet-0",), 10_000))

        assert result.is_ok, result.text
        assert "gave up" not in result.counts
        effective += kind.value in result.effective
    assert effective > len(SEEDS) // 2


def test_a_tablet_server_that_cannot_read():
    """1. Many reads fail, at run time and while it recovers. 2. Readers get on once reads work again."""
    effective = 0
    for seed in SEEDS:
        faults = (
            Fault(1_000, FaultKind.IO_ERROR, ("tablet-0",), 6_000, 200, "read"),
            Fault(3_000, FaultKind.CRASH, ("tablet-0",), 100),
        )
        result, _ = run_with(seed, *faults)

        assert result.is_ok, result.text
        effective += "io_error" in result.effective
    assert effective == len(SEEDS)
