"""Merging the records of a put with the rows that are there: the walk over a batch, and the simple engines.

Record formats, 6.1 to 6.4. A merger is made for one batch and knows no keys: it is given what is stored and
what came, and returns what is stored next; the very same object means that nothing happened. Nothing here
changes the table.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

import attrs

from flussd.core.kv.buffer import Writes
from flussd.core.kv.rules import Deletes, Image, TableRules
from flussd.core.records.kv_batch import KvRecord
from flussd.core.records.refusal import Refused
from flussd.core.records.row_batch import ChangeType
from flussd.core.records.values import stored_value
from flussd.core.wire.errors import ErrorCode

Newest = Callable[[bytes], bytes | None]
"""Returns what is stored under a key, as the next put sees it."""

_INSERT: Final = ChangeType.INSERT
_BEFORE: Final = ChangeType.UPDATE_BEFORE
_AFTER: Final = ChangeType.UPDATE_AFTER
_DELETE: Final = ChangeType.DELETE


class Merger(Protocol):
    """How one batch is merged; rows are as they are stored."""

    @property
    def deletes(self) -> Deletes:
        """What becomes of deletes."""

    @property
    def is_plain(self) -> bool:
        """Whether upserts replace whatever is there, so that a WAL image needs no look at it."""

    def insert(self, new: bytes) -> bytes:
        """Return what is stored for a row whose key is new."""

    def update(self, old: bytes, new: bytes) -> bytes:
        """Return what is stored instead of *old*."""

    def delete(self, old: bytes) -> bytes | None:
        """Return what is left of a row; None: nothing."""


@attrs.define(eq=False)
class Changes:
    """What a batch does: changes and stored rows for the changelog, and what is stored in the end.

    *values* has the decoded rows of some stored ones, so that the changelog need not decode them again.
    """

    changes: bytearray = attrs.Factory(bytearray)
    rows: list[bytes] = attrs.Factory(list)
    writes: Writes = attrs.Factory(dict)
    values: dict[bytes, tuple[Any, ...]] = attrs.Factory(dict)


def walk(
    rules: TableRules,
    merger: Merger,
    schema_id: int,
    records: Sequence[KvRecord],
    newest: Newest,
    made: Changes,
) -> None:
    """Go through the records in order. Raises Refused, BadRow and BadValue."""
    full = rules.image is Image.FULL
    blind = merger.is_plain and not full
    prefix = stored_value(schema_id, b"")
    writes, change, emit = made.writes, made.changes.append, made.rows.append
    for key, row in records:
        if row is None and merger.deletes is not Deletes.ALLOW:
            _check_delete(merger)
            continue
        old = None if blind and row is not None else writes[key] if key in writes else newest(key)
        value: bytes | None
        if old is None:
            if row is None:
                continue
            value = merger.insert(prefix + row)
            change(_AFTER if blind else _INSERT)
            emit(value)
        else:
            value = merger.delete(old) if row is None else merger.update(old, prefix + row)
            if value is None:
                change(_DELETE)
                emit(old)
            elif value is old:
                continue
            else:
                if full:
                    change(_BEFORE)
                    emit(old)
                change(_AFTER)
                emit(value)
        writes[key] = value


def _check_delete(merger: Merger) -> None:
    if merger.deletes is Deletes.DISABLE:
        raise Refused(ErrorCode.DELETION_DISABLED_EXCEPTION, "a delete: the table does not allow them")


# ---- engines -------------------------------------------------------------------------------------


@attrs.frozen(eq=False)
class LastRow:
    """The default engine: the last row counts."""

    deletes: Deletes
    is_plain: bool = True

    def insert(self, new: bytes) -> bytes:
        """Take the row as it came."""
        return new

    def update(self, _old: bytes, new: bytes) -> bytes:
        """Take the row as it came; one that equals the old one is an update all the same."""
        return new

    def delete(self, _old: bytes) -> bytes | None:
        """Leave nothing."""
        return None


@attrs.frozen(eq=False)
class FirstRow:
    """The first row counts."""

    deletes: Deletes
    is_plain: bool = False

    def insert(self, new: bytes) -> bytes:
        """Take the row as it came."""
        return new

    def update(self, old: bytes, _new: bytes) -> bytes:
        """Keep the old row."""
        return old

    def delete(self, _old: bytes) -> bytes | None:
        """Leave nothing."""
        return None


@attrs.frozen(eq=False)
class NewestVersion:
    """The row of the highest version counts, the last one of equals."""

    deletes: Deletes
    version_of: Callable[[bytes], int]
    is_plain: bool = False

    def insert(self, new: bytes) -> bytes:
        """Take the row as it came."""
        return new

    def update(self, old: bytes, new: bytes) -> bytes:
        """Keep the old row if its version is higher."""
        return new if self.version_of(new) >= self.version_of(old) else old

    def delete(self, _old: bytes) -> bytes | None:
        """Leave nothing."""
        return None
