"""Rules of names: databases, tables, partition values, producers (wire protocol, section 6.1).

Checked where something is created or altered. Calls that read or drop do not check: they find nothing.
"""

from __future__ import annotations

import re
from typing import Final

from flussd.core.records.json_text import shown
from flussd.core.records.refusal import Refused
from flussd.core.wire.errors import ErrorCode

NAME_CHARACTERS_MAX: Final = 200
RESERVED_PREFIX: Final = "__"
"""Names of the server itself, among them the partition __historical__."""

_ALLOWED: Final = re.compile(r"[A-Za-z0-9_-]*")


def check_database_name(name: str) -> None:
    """Refuse a name that no database may have (16)."""
    _check(name, "database name", ErrorCode.INVALID_DATABASE_EXCEPTION)


def check_table_name(name: str) -> None:
    """Refuse a name that no table may have (15)."""
    _check(name, "table name", ErrorCode.INVALID_TABLE_EXCEPTION)


def check_table_path(database: str, table: str) -> None:
    """Refuse a path that no table may have: 16 for its database, then 15."""
    check_database_name(database)
    check_table_name(table)


def check_partition_value(value: str, *, creating: bool) -> None:
    """Refuse a partition value (43); reserved ones only when *creating*, for they may be dropped."""
    fault = fault_of(value, reserved_too=creating)
    if fault is not None:
        text = f"partition value {shown(value)}: {fault}"
        raise Refused(ErrorCode.PARTITION_SPEC_INVALID_EXCEPTION, text)


def check_producer_id(name: str) -> None:
    """Refuse an id that no producer may have (63); reserved names are free here."""
    _check(name, "producer id", ErrorCode.INVALID_PRODUCER_ID_EXCEPTION, reserved_too=False)


def fault_of(name: str, *, reserved_too: bool = True) -> str | None:
    """Return what is wrong with *name*, None if nothing is."""
    if not name:
        return "expected at least one character"
    if name in (".", ".."):
        return "expected a name that is no path"
    if len(name) > NAME_CHARACTERS_MAX:
        return f"expected at most {NAME_CHARACTERS_MAX} characters, got {len(name)}"
    if _ALLOWED.fullmatch(name) is None:
        return "expected only letters of ASCII, digits, _ and -"
    if reserved_too and name.startswith(RESERVED_PREFIX):
        return f"expected no {RESERVED_PREFIX} at the start, it is reserved"
    return None


def _check(name: str, what: str, code: ErrorCode, *, reserved_too: bool = True) -> None:
    fault = fault_of(name, reserved_too=reserved_too)
    if fault is not None:
        raise Refused(code, f"{what} {shown(name)}: {fault}")
