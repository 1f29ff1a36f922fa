"""How a simulated writer sends again what was not acknowledged."""

from __future__ import annotations

from types import SimpleNamespace

from flussd.runtime_sim.workload.client import Place
from flussd.runtime_sim.workload.writer import Lane, Writer


class Spy(Writer):
    """Notes what it would send."""

    __slots__ = ("runs",)

    def _send(self, _lane, run, _address):
        self.runs.append([batch.n for batch in run])


def sent_runs(*are_sent):
    """Return the runs that a writer sends of batches of which some are on their way."""
    writer = Spy.__new__(Spy)
    world = SimpleNamespace(now_us=0)
    writer.client = SimpleNamespace(world=world, leader_of=lambda _place, _bucket: "server")
    writer.config, writer.runs = SimpleNamespace(batches_per_request=2), []
    lane = Lane(Place("db", "t"), (1, -1, 0), None)
    lane.open.extend(SimpleNamespace(n=n, is_sent=is_sent) for n, is_sent in enumerate(are_sent))
    writer.pump(lane)
    return writer.runs


def test_the_batches_of_a_request_follow_each_other():
    """One that is on its way between two others parts them: a request with a gap is out of order."""
    assert [[0, 1], [2]] == sent_runs(False, False, False)
    assert [[0], [2, 3]] == sent_runs(False, True, False, False)
    assert [[1]] == sent_runs(True, False)
