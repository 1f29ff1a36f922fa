"""Which merger a batch gets: by the table's engine, the target columns, and whether it overwrites.

What is asked wrongly is Refused before any record is looked at, so for a batch without records as well.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from flussd.core.kv.aggregate import DEFAULT, Function, function_of
from flussd.core.kv.ids import Ids
from flussd.core.kv.merge import Changes, FirstRow, LastRow, Merger, Newest, NewestVersion
from flussd.core.kv.partial import (
    Aggregate,
    Numbered,
    PartialUpdate,
    Rebuilt,
    Targets,
    check_ids_column,
    check_nullable,
    read_targets,
)
from flussd.core.kv.rules import Deletes, Engine, LogFormat, TableRules
from flussd.core.records.aggregation import AggFunction
from flussd.core.records.kv_batch import KvRecord
from flussd.core.records.refusal import Refused
from flussd.core.records.rows.codec import row_codec
from flussd.core.records.values import split_value, stored_value
from flussd.core.wire.errors import ErrorCode

_KEY: Final = AggFunction("last_value")
_VERSION_BITS: Final = {"INTEGER": 31, "BIGINT": 63}
"""A version that is null counts as the least of its type."""

PLANS_MAX: Final = 64
"""Target columns whose meaning a table keeps: writers have a few lists of them, and hostile ones many."""


def load(merger: Merger, schema_id: int, records: Sequence[KvRecord], newest: Newest) -> None:
    """Decode what the merger will ask for, if it is one that looks at values. Raises BadRow."""
    if isinstance(merger, PartialUpdate | Aggregate | Numbered):
        prefix = stored_value(schema_id, b"")
        rows = [prefix + row for _, row in records if row is not None]
        olds = [newest(key) for key, _ in records]
        merger.rows.load(rows + [old for old in olds if old is not None])


def merger_of(
    rules: TableRules, targets: tuple[int, ...], made: Changes, ids: Ids, *, overwrite: bool
) -> Merger:
    """Return the merger of one batch that is collected in *made*. Raises Refused."""
    check_ids_column(rules, targets)
    rows = Rebuilt(rules, made)
    if overwrite or rules.engine is Engine.DEFAULT:
        deletes = Deletes.ALLOW if overwrite else rules.deletes
        merger = _last_row(rules, deletes, targets, rows)
    elif rules.engine is Engine.AGGREGATION:
        merger = _aggregate(rules, targets, rows)
    else:
        merger = _simple(rules, targets)
    return merger if rules.id_column is None else Numbered(merger, rules.id_column, ids, rows)


def _planned(rules: TableRules, key: Any, make: Callable[[], Any]) -> Any:
    """Return what *make* makes, from the plans of the table if it is there."""
    if key not in rules.plans:
        if len(rules.plans) >= PLANS_MAX:
            rules.plans.clear()
        rules.plans[key] = make()
    return rules.plans[key]


def _last_row(rules: TableRules, deletes: Deletes, targets: tuple[int, ...], rows: Rebuilt) -> Merger:
    if not targets:
        return LastRow(deletes)
    plan: Targets = _planned(
        rules, ("update", targets), lambda: read_targets(rules, targets, bounded=False)
    )
    if plan.covers_all:
        return LastRow(deletes)
    _planned(rules, "nullable", lambda: check_nullable(rules))
    return PartialUpdate(deletes, plan, rows)


def _aggregate(rules: TableRules, targets: tuple[int, ...], rows: Rebuilt) -> Merger:
    plan: Targets | None = None
    if targets:
        plan = _planned(rules, ("aggregate", targets), lambda: read_targets(rules, targets, bounded=True))
        _planned(rules, "nullable", lambda: check_nullable(rules))
    functions = _planned(rules, ("functions", targets), lambda: _functions(rules, plan))
    return Aggregate(rules.deletes, functions, plan, rows)


def _functions(rules: TableRules, targets: Targets | None) -> tuple[Function, ...]:
    checks = rules.log_format is LogFormat.ARROW
    functions = []
    for n, column in enumerate(rules.latest.schema.columns):
        function = _KEY if n in rules.key_columns else column.aggregation or DEFAULT
        outside = targets is not None and not targets.named[n]
        merge = function_of(function, column.data_type, checks_sums=checks)
        functions.append(_kept if outside else merge)
    return tuple(functions)


def _kept(acc: Any, _new: Any) -> Any:
    return acc


def _simple(rules: TableRules, targets: tuple[int, ...]) -> Merger:
    if targets:
        text = f"target columns: the merge engine {rules.engine.value} takes whole rows alone"
        raise Refused(ErrorCode.UNKNOWN_SERVER_ERROR, text)
    if rules.engine is Engine.FIRST_ROW:
        return FirstRow(rules.deletes)
    return NewestVersion(rules.deletes, _planned(rules, "version", lambda: _version_reader(rules)))


def _version_reader(rules: TableRules) -> Callable[[bytes], int]:
    """Return what reads the version of a stored row, without most of its other columns."""
    column = rules.version_column
    assert column is not None
    bits = _VERSION_BITS.get(rules.latest.codec.types[column].name)
    # Timestamps are nanoseconds here: below any that a row can hold.
    least = -(1 << 127) if bits is None else -(1 << bits)
    readers = {
        schema_id: row_codec(rules.kv_format, schema.codec.types, (column,)).decode
        for schema_id, schema in rules.schemas.items()
    }

    def version_of(stored: bytes) -> int:
        schema_id, row = split_value(stored)
        version = readers[schema_id](row)[0]
        return least if version is None else int(version)

    return version_of
