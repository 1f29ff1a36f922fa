"""Plans: drawn, written, read back, edited; and what a reader of a bad one is told."""

from __future__ import annotations

import pytest

from flussd.runtime_sim.plan import (
    CHAOS_MS,
    FaultKind,
    PlanError,
    draw_keyed_plan,
    draw_plan,
    draw_registry_plan,
    from_toml,
    seed_of,
    to_toml,
)
from flussd.runtime_sim.run import Run

SERVERS, CLIENTS = ["registry", "coordinator", "tablet-0"], ["writer-0", "admin"]
NAMES = [*SERVERS, *CLIENTS]


def test_a_plan_survives_its_file():
    """What is written is what is read."""
    for seed in range(100):
        plan = draw_plan(seed, SERVERS, CLIENTS)
        text = to_toml(seed, plan)

        assert plan == from_toml(text, NAMES)
        assert seed == seed_of(text)


def test_every_kind_of_fault_is_drawn():
    """Over some seeds, nothing that can go wrong is left out."""
    kinds = {fault.kind for seed in range(100) for fault in draw_plan(seed, SERVERS, CLIENTS)}

    assert set(FaultKind) == kinds


def test_no_fault_comes_behind_the_end_of_chaos():
    """A server that is down in the audit has no machine to look into (seed 1767)."""
    for seed in range(200):
        plan = draw_plan(seed, SERVERS, CLIENTS) + draw_registry_plan(seed, SERVERS[0])
        plan += draw_keyed_plan(seed, SERVERS, SERVERS[2:], CLIENTS)

        assert max(fault.at_ms for fault in plan) <= CHAOS_MS[1]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("seed = ", "not TOML"),
        ("sede = 1", "sede"),
        ('[[fault]]\nat_ms = 1\nkind = "crush"\nnodes = ["registry"]', "crush"),
        ('[[fault]]\nat_ms = 1\nkind = "crash"\nnodes = ["tablet-7"]', "tablet-7"),
        ('[[fault]]\nat_ms = "soon"\nkind = "crash"\nnodes = ["registry"]', "soon"),
        ('[[fault]]\nkind = "crash"\nnodes = ["registry"]', "at_ms"),
    ],
)
def test_a_bad_plan_is_one_clear_line(text, told):
    """It says what was expected, and what there is."""
    with pytest.raises(PlanError, match=told) as raised:
        from_toml(text, NAMES)

    assert "\n" not in str(raised.value)


def test_taking_out_a_fault_leaves_the_past_alone():
    """Up to the last fault, a run without it is the same run, event by event."""
    full = Run(2)
    plan = full.faults_planned
    shorter = Run(2, plan[:-1])
    for run in (full, shorter):
        run.cluster.start()
        run._make_tables()
        run._start_clients()
        run.faults.schedule(run.plan)
        run.world.run_until(run.world.now_us + plan[-1].at_ms * 1000 - 1000)

    assert full.world.fingerprint.count > 100
    assert full.world.fingerprint.hexdigest() == shorter.world.fingerprint.hexdigest()
