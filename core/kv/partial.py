"""Target columns: what they may be, and updates, deletes and aggregation of a part of the columns.

Record formats, 6.3 and 6.5. Positions are those of the latest schema. What is wrong with them is Refused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs

from flussd.core.kv.ids import Ids
from flussd.core.kv.merge import Changes, Merger
from flussd.core.kv.rules import Deletes, TableRules
from flussd.core.records.refusal import Refused
from flussd.core.records.rows.atoms import BadValue
from flussd.core.wire.errors import ErrorCode


@attrs.frozen(eq=False)
class Targets:
    """Which columns a put is about, a flag a column."""

    named: tuple[bool, ...]
    only_key: bool
    key: tuple[bool, ...]

    @property
    def covers_all(self) -> bool:
        """Whether all columns are named."""
        return all(self.named)


def read_targets(rules: TableRules, targets: tuple[int, ...], *, bounded: bool) -> Targets:
    """Return what *targets* name; with *bounded* none may lie behind the last column.

    Raises:
        Refused: they are negative, or lack a column of the key.
    """
    arity = len(rules.latest.codec.types)
    given = frozenset(targets)
    named = tuple(n in given for n in range(arity))
    key = tuple(n in rules.key_columns for n in range(arity))
    columns = rules.latest.schema.columns
    for n in targets:
        if n < 0 or (bounded and n >= arity):
            raise _bad_targets(f"expected positions of 0 to {arity - 1}, got {n}")
    for n in rules.key_columns:
        if not named[n]:
            raise _bad_targets(f"expected all columns of the primary key, {columns[n].name} is missing")
    return Targets(named, named == key, key)


def check_nullable(rules: TableRules) -> None:
    """Refuse partial updates of a table with columns beside its key that are never null."""
    for n, column in enumerate(rules.latest.schema.columns):
        if not column.data_type.nullable and n not in rules.key_columns:
            text = f"column {column.name} is NOT NULL: expected nullable columns beside the key"
            raise _bad_targets(text)


def check_ids_column(rules: TableRules, targets: tuple[int, ...]) -> None:
    """Refuse puts that could set the auto-increment column."""
    if rules.id_column is not None and (not targets or rules.id_column in targets):
        name = rules.latest.schema.columns[rules.id_column].name
        raise _bad_targets(f"expected some without the auto-increment column {name}, got {targets[:20]}")


def _bad_targets(text: str) -> Refused:
    return Refused(ErrorCode.INVALID_TARGET_COLUMN, f"target columns: {text}")


@attrs.frozen(eq=False)
class Rebuilt:
    """Rows of values: decoded once for merging and for the changelog, stored with the latest schema."""

    rules: TableRules
    made: Changes

    def values(self, stored: bytes) -> tuple[Any, ...]:
        """Return the values of a stored row. Raises BadRow."""
        known = self.made.values.get(stored)
        return self.rules.values_of(stored) if known is None else known

    def load(self, rows: list[bytes]) -> None:
        """Decode stored rows that will be asked for, at once: it takes half the time. Raises BadRow."""
        self.made.values.update(zip(rows, self.rules.all_values_of(rows), strict=True))

    def stored(self, values: tuple[Any, ...]) -> bytes:
        """Return what is stored for *values*. Raises BadValue."""
        stored = self.rules.stored_of(values)
        self.made.values[stored] = values
        return stored


def left_of(rows: Rebuilt, targets: Targets, old: bytes) -> bytes | None:
    """Return what a partial delete leaves of a row: nulls in the targets; None: nothing but the key was."""
    values = rows.values(old)
    kept = [
        value if key or not named else None
        for value, key, named in zip(values, targets.key, targets.named, strict=True)
    ]
    if all(
        value is None
        for value, key, named in zip(values, targets.key, targets.named, strict=True)
        if not named
    ):
        return None
    return rows.stored(tuple(kept))


@attrs.frozen(eq=False)
class PartialUpdate:
    """The default engine with target columns: the others keep what they have."""

    deletes: Deletes
    targets: Targets
    rows: Rebuilt
    is_plain: bool = False

    def insert(self, new: bytes) -> bytes:
        """Take the targets, and nulls."""
        values = zip(self.rows.values(new), self.targets.named, strict=True)
        return self.rows.stored(tuple([value if named else None for value, named in values]))

    def update(self, old: bytes, new: bytes) -> bytes:
        """Take the targets; nothing happens to a row that is there already when they are just its key."""
        if self.targets.only_key:
            return old
        both = zip(self.rows.values(old), self.rows.values(new), self.targets.named, strict=True)
        return self.rows.stored(tuple([after if named else before for before, after, named in both]))

    def delete(self, old: bytes) -> bytes | None:
        """Take the values of the targets away."""
        return left_of(self.rows, self.targets, old)


@attrs.frozen(eq=False)
class Aggregate:
    """The aggregation engine: a function a column; *targets* None: all columns."""

    deletes: Deletes
    functions: tuple[Callable[[Any, Any], Any], ...]
    targets: Targets | None
    rows: Rebuilt
    is_plain: bool = False

    def insert(self, new: bytes) -> bytes:
        """Take the row as it came, with what lies outside the targets, as upstream does."""
        return new

    def update(self, old: bytes, new: bytes) -> bytes:
        """Apply the functions."""
        before, after = self.rows.values(old), self.rows.values(new)
        return self.rows.stored(
            tuple([merge(a, b) for merge, a, b in zip(self.functions, before, after, strict=True)])
        )

    def delete(self, old: bytes) -> bytes | None:
        """Leave nothing, or what is outside the targets."""
        return None if self.targets is None else left_of(self.rows, self.targets, old)


@attrs.frozen(eq=False)
class Numbered:
    """Any engine of a table with an auto-increment column: rows that are inserted get the next id."""

    inner: Merger
    column: int
    ids: Ids
    rows: Rebuilt
    is_plain: bool = False

    @property
    def deletes(self) -> Deletes:
        """As without ids."""
        return self.inner.deletes

    def insert(self, new: bytes) -> bytes:
        """Put an id into the row that is inserted, whatever the client sent there."""
        values = list(self.rows.values(self.inner.insert(new)))
        values[self.column] = self._next_id()
        return self.rows.stored(tuple(values))

    def update(self, old: bytes, new: bytes) -> bytes:
        """As without ids."""
        return self.inner.update(old, new)

    def delete(self, old: bytes) -> bytes | None:
        """As without ids."""
        return self.inner.delete(old)

    def _next_id(self) -> int:
        next_id = self.ids.draw()
        bits = 31 if self.rows.rules.latest.codec.types[self.column].name == "INTEGER" else 63
        if not -(1 << bits) <= next_id < 1 << bits:
            raise BadValue(f"auto-increment column {self.column}: its ids are used up, got {next_id}")
        return next_id
