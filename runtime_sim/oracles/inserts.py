"""What lookups that insert were told; judged at the end, when the whole changelog of their bucket is known.

They are answered out of rows that may not be committed yet, whatever acks they ask for: when all keys are
there, they wait for nothing. So an answer is true at one end of the log as its leader had it, and is worth
nothing once the log was cut below that. Its ledger leaves those out.
"""

from __future__ import annotations

import attrs

from flussd.runtime_sim.oracles.sightings import History, Values
from flussd.runtime_sim.oracles.violation import Oracle, Violation
from flussd.runtime_sim.workload.keyed_batches import Key, Row


@attrs.frozen
class Insertion:
    """*who* was told *rows* of *keys*, its log ended within [*least*, *most*]; None: it was refused."""

    who: str
    keys: tuple[Key, ...]
    rows: tuple[Row | None, ...] | None
    least_offset: int
    most_offset: int
    generation: int

    def judge(self, name: str, history: History) -> None:
        """Look for the moment at which it was true, when each key had got a row."""
        moments = history.between(self.least_offset, self.most_offset)
        if self.rows is None:
            if any(key not in rows for rows in moments for key in self.keys):
                return
            raise Violation(Oracle.INSERTS_ARE_TOLD, f"{self._told(name)}: refused, and no row was missing")
        values = Values(tuple(zip(self.keys, self.rows, strict=True)))
        missing = dict.fromkeys(self.keys)
        for rows in moments:
            missing = {key: None for key in missing if key not in rows}
            if not missing and values.agrees(rows, history):
                return
        text = f"it was told {self.rows}, rows were {[dict(rows) for rows in moments]}"
        raise Violation(Oracle.INSERTS_ARE_TOLD, f"{self._told(name)}: {text}")

    def _told(self, name: str) -> str:
        window = f"at [{self.least_offset}, {self.most_offset}]"
        return f"{name}: {self.who} looked {list(self.keys)} up, to insert them, {window}"
