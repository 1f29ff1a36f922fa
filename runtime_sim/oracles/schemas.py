"""What must be true of a table's schemas and options, as the one client saw it that alters them.

An alteration whose answer was lost may be done at any time later, so it is a maybe until it is seen; every
column is asked for once. A schema that was seen stays as it was for ever.
"""

from __future__ import annotations

import attrs

from flussd.runtime_sim.oracles.violation import Oracle, Violation
from flussd.runtime_sim.workload.tables import TableSpec


@attrs.define(eq=False, repr=False)
class SchemaTruth:
    """The schemas of one table, by id: the names of their columns."""

    table: str
    known: dict[int, tuple[str, ...]]
    maybes: dict[str, None] = attrs.Factory(dict)  # columns whose addition is in doubt
    ttl: str | None = None  # as it was confirmed last; None: not altered
    maybe_ttls: list[str] = attrs.Factory(list)
    must_have: str = ""  # a column that was confirmed, and is to be seen by the next look

    @classmethod
    def of(cls, spec: TableSpec) -> SchemaTruth:
        """Return what is true of a new table."""
        return cls(spec.name, {1: tuple([name for name, _ in spec.columns])})

    @property
    def newest(self) -> int:
        """The greatest id that was seen."""
        return max(self.known)

    def added(self, column: str) -> None:
        """An addition was confirmed; whoever reads the schema next must find it."""
        self.maybes[column] = None
        self.must_have = column

    def seen(self, schema_id: int, columns: tuple[str, ...], how: str) -> None:
        """A server told a schema by its id."""
        known = self.known.get(schema_id)
        if known is not None:
            if known != columns:
                self._broken(f"schema {schema_id} was {known}, and {how} has {columns}")
            return
        before = self.known[self.newest]
        added = columns[len(before) :]
        if columns[: len(before)] != before or not added or schema_id != self.newest + len(added):
            self._broken(f"schema {schema_id} is {columns} to {how}; number {self.newest} is {before}")
        for column in added:
            if column not in self.maybes:
                self._broken(f"schema {schema_id} has {column} to {how}, and nobody added it")
        for n, column in enumerate(added, 1):
            self.known[self.newest + 1] = (*before, *added[:n])
            del self.maybes[column]

    def newest_seen(self, schema_id: int, columns: tuple[str, ...]) -> None:
        """The coordinator told the newest schema."""
        if schema_id < self.newest:
            self._broken(f"the newest schema is {schema_id}, after {self.newest} was seen")
        self.seen(schema_id, columns, "the coordinator")
        if self.must_have and self.must_have not in columns:
            self._broken(f"column {self.must_have} was confirmed, and schema {schema_id} lacks it")
        self.must_have = ""

    def ttl_is(self, ttl: str) -> None:
        """The coordinator told how long the table keeps its log."""
        if self.ttl is not None and ttl != self.ttl and ttl not in self.maybe_ttls:
            self._broken(f"table.log.ttl was confirmed as {self.ttl}, and is {ttl}")

    def _broken(self, text: str) -> None:
        raise Violation(Oracle.SCHEMAS_LAST, f"table {self.table}: {text}")
