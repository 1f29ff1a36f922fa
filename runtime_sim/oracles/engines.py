"""What a put does to the rows of a bucket: a model of the merge engines, written by the facts alone.

Shares no code with the core's. Rows are tuples of values, keys their first two; a model's rows change with
each put that it is told of, in the order of the changelog. Ids of an auto-increment column are chance to
it: it takes them from the changelog, one for each row that is inserted, and keeps them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, TypeAlias

import attrs

from flussd.core.records.row_batch import ChangeType
from flussd.runtime_sim.workload.keyed_batches import Key, PutRecord, Row, SentPut
from flussd.runtime_sim.workload.keyed_tables import NUMBER_COLUMN, SUM_COLUMN, Engine, KeyedSpec

Record: TypeAlias = tuple[ChangeType, Row]

INSERT, BEFORE, AFTER, DELETE = (
    ChangeType.INSERT,
    ChangeType.UPDATE_BEFORE,
    ChangeType.UPDATE_AFTER,
    ChangeType.DELETE,
)
_LONG_BITS: Final = 64
_LEAST: Final = -(1 << 31)
"""A version that is null."""


def _either(function: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    return lambda old, new: new if old is None else old if new is None else function(old, new)


def _sum(old: int, new: int) -> int:
    total = (old + new) % (1 << _LONG_BITS)
    return total - (1 << _LONG_BITS) if total >> _LONG_BITS - 1 else total


_FUNCTIONS: Final = {SUM_COLUMN: _either(_sum), NUMBER_COLUMN: _either(max)}
_LAST: Final = _either(lambda _, new: new)


@attrs.define(eq=False, repr=False)
class Model:
    """The rows of one bucket by key, as the puts that it was told of leave them."""

    spec: KeyedSpec
    rows: dict[Key, Row] = attrs.Factory(dict)
    _ids: Iterator[Any] = attrs.field(factory=lambda: iter(()), init=False)

    def put(self, put: SentPut, latest_id: int, ids: Iterable[Any] = ()) -> list[Record]:
        """Apply a put when *latest_id* is the table's newest schema; return what its changelog says.

        Rows that it inserts get *ids*, in their order; when there are too few, none.
        """
        arity, said = self._begun(latest_id, ids), list[Record]()
        for record in put.records:
            self._record(put, record, arity, said)
        return said

    def insert(self, keys: Iterable[Key], latest_id: int, ids: Iterable[Any] = ()) -> list[Record]:
        """Insert rows of *keys*, none of which has one, as a lookup does; otherwise as `put`."""
        arity, said = self._begun(latest_id, ids), list[Record]()
        for key in keys:
            self._say(key, None, self._numbered((*key, *[None] * (arity - len(key)))), said)
        return said

    def _begun(self, latest_id: int, ids: Iterable[Any]) -> int:
        """Give all rows the columns of a schema, and return how many it has."""
        self._ids = iter(ids)
        arity = len(self.spec.types(latest_id))
        for key, row in self.rows.items():
            self.rows[key] = row + (None,) * (arity - len(row))
        return arity

    def _record(self, put: SentPut, record: PutRecord, arity: int, said: list[Record]) -> None:
        engine = Engine.DEFAULT if put.overwrites else self.spec.engine
        old = self.rows.get(record.key)
        # Of the default engine, all columns named is none named.
        is_whole = not put.targets or (engine is Engine.DEFAULT and len(set(put.targets)) == arity)
        targets = set(range(arity)) if is_whole else set(put.targets)
        new: Row | None
        if record.row is None:
            if old is None or (self.spec.ignores_deletes and not put.overwrites):
                return
            new = self._without(old, targets)
        else:
            row = record.row + (None,) * (arity - len(record.row))
            if engine is Engine.DEFAULT and is_whole and not self.spec.is_full:
                said.append((AFTER, row))
                self.rows[record.key] = row
                return
            new = self._merged(engine, old, row, targets)
            if new is None:
                return
            if old is None:
                new = self._numbered(new)
        self._say(record.key, old, new, said)

    def _numbered(self, row: Row) -> Row:
        place = self.spec.id_place
        return row if place is None else (*row[:place], next(self._ids, None), *row[place + 1 :])

    def _say(self, key: Key, old: Row | None, new: Row | None, said: list[Record]) -> None:
        if new is None:
            assert old is not None
            said.append((DELETE, old))
            del self.rows[key]
            return
        if old is None:
            said.append((INSERT, new))
        else:
            said += [(BEFORE, old), (AFTER, new)] if self.spec.is_full else [(AFTER, new)]
        self.rows[key] = new

    def _without(self, old: Row, targets: set[int]) -> Row | None:
        """Return what a delete leaves."""
        if all(value is None for n, value in enumerate(old) if n not in targets):
            return None
        key = self.spec.key_places
        return tuple([None if n in targets and n not in key else value for n, value in enumerate(old)])

    def _merged(self, engine: Engine, old: Row | None, row: Row, targets: set[int]) -> Row | None:
        """Return what an upsert leaves; None: it does nothing."""
        if old is None:
            is_partial = engine is Engine.DEFAULT
            return tuple([v if n in targets or not is_partial else None for n, v in enumerate(row)])
        if engine is Engine.FIRST_ROW:
            return None
        if engine is Engine.VERSIONED:
            before, after = old[NUMBER_COLUMN], row[NUMBER_COLUMN]
            return (
                row
                if (_LEAST if after is None else after) >= (_LEAST if before is None else before)
                else None
            )
        if engine is Engine.AGGREGATION:
            return tuple(
                [
                    _FUNCTIONS.get(n, _LAST)(a, b) if n in targets else a
                    for n, (a, b) in enumerate(zip(old, row, strict=True))
                ]
            )
        if targets == set(self.spec.key_places):
            return None
        return tuple([b if n in targets else a for n, (a, b) in enumerate(zip(old, row, strict=True))])
