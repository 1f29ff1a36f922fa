"""The oracle of producer offsets: what it lets pass, and what it does not."""

from __future__ import annotations

import attrs
import pytest

from flussd.runtime_sim.oracles.producer_offsets import DAY_MS, SLACK_MS, ProducerTruth
from flussd.runtime_sim.oracles.violation import Violation


@attrs.define
class Clock:
    """A world in which nothing but time passes."""

    now_us: int = 0


@pytest.fixture
def truth():
    """One in which the first registration of `p` was made with serial 1, for a day."""
    made = ProducerTruth(Clock(), jumps_ms=0)
    made.sent("p", 1, DAY_MS)
    made.created("p", 1)
    made.sent("p", 2, DAY_MS)
    return made


def test_the_first_stays(truth):
    """A second one is told so, and reads show the first."""
    truth.existed("p", 2)
    truth.read("p", 1, truth.world.now_us)
    with pytest.raises(Violation):
        truth.read("p", 2, truth.world.now_us)
    with pytest.raises(Violation):
        truth.read("p", None, truth.world.now_us)


def test_a_second_first_is_a_violation(truth):
    """But not after a deletion, nor when a deletion may have been done."""
    with pytest.raises(Violation):
        truth.created("p", 2)
    truth.deletion_lost("p")
    truth.created("p", 2)
    truth.read("p", 2, truth.world.now_us)


def test_what_is_deleted_stays_away(truth):
    """Unless an attempt is in doubt, which may win at any time, once."""
    truth.deleted("p")
    truth.read("p", None, truth.world.now_us)
    truth.read("p", 2, truth.world.now_us)  # nobody knows what became of it
    truth.deleted("p")
    with pytest.raises(Violation):
        truth.read("p", 1, truth.world.now_us)


def test_nobody_comes_too_late_where_nothing_is(truth):
    """With nothing registered and nothing in doubt, a registration is the first."""
    truth.not_sent("p", 2)
    truth.deleted("p")
    truth.sent("p", 3, DAY_MS)
    with pytest.raises(Violation):
        truth.existed("p", 3)


@pytest.mark.parametrize("jumps_ms", [0, 5_000])
def test_time_is_kept(jumps_ms):
    """Gone before its time is a violation, and so is there after it; as exact as the clocks are."""
    truth = ProducerTruth(Clock(), jumps_ms)
    truth.sent("p", 1, 10_000)
    truth.created("p", 1)
    truth.world.now_us = (10_000 - SLACK_MS - jumps_ms) * 1_000 - 1
    with pytest.raises(Violation):
        truth.read("p", None, truth.world.now_us)
    truth.world.now_us += 1
    truth.read("p", None, truth.world.now_us)
    truth.world.now_us = (10_000 + SLACK_MS + jumps_ms) * 1_000
    truth.read("p", 1, truth.world.now_us)
    truth.world.now_us += 1_000
    with pytest.raises(Violation):
        truth.read("p", 1, truth.world.now_us)


def test_late_answers_are_of_the_time_of_the_request():
    """An answer that was on its way when the time ran out is right, a later one is not (seed 15)."""
    truth = ProducerTruth(Clock(), jumps_ms=0)
    truth.sent("p", 1, 1_000)
    truth.created("p", 1)
    truth.world.now_us = 900_000
    truth.sent("p", 2, DAY_MS)
    truth.world.now_us = 3_000_000
    truth.existed("p", 2)
    truth.read("p", 1, 900_000)
    truth.sent("p", 3, DAY_MS)
    with pytest.raises(Violation):
        truth.existed("p", 3)
