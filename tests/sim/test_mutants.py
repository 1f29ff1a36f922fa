"""Broken versions of the core: each is caught by an oracle that is meant to catch it, within 200 seeds."""

from __future__ import annotations

import pytest

from flussd.runtime_sim.mutants.catalogue import MUTANTS, applied
from flussd.runtime_sim.run import Run

SEEDS_MAX = 200
CAUGHT = [name for name, mutant in MUTANTS.items() if mutant.detected_by]


def first_failure(name):
    """Run seeds until one fails; None when none does."""
    with applied(name):
        likely = MUTANTS[name].likely
        for seed in (*likely, *range(1, SEEDS_MAX + 1 - len(likely))):
            result = Run(seed).go()
            if not result.is_ok:
                return result
    return None


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", CAUGHT)
def test_a_mutant_is_caught(name):
    """Not by an assertion of the core, and not by any oracle: by one that its breach concerns."""
    result = first_failure(name)

    assert result is not None, f"{name} survived {SEEDS_MAX} seeds"
    assert result.failed in [oracle.name for oracle in MUTANTS[name].detected_by], result.text


def test_a_mutant_is_put_back():
    """What one run was broken by does not stay for the next."""
    mutant = MUTANTS["no_crc_on_recovery"]
    original = getattr(mutant.owner, mutant.name)

    with applied("no_crc_on_recovery"):
        assert original is not getattr(mutant.owner, mutant.name)
    assert original is getattr(mutant.owner, mutant.name)


def test_there_are_the_three_that_must_be():
    """The broken versions that the project promised to catch."""
    assert {"no_crc_on_recovery", "ack_before_append", "reuse_writer_sequence"} <= set(CAUGHT)
