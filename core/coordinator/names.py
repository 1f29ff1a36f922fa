"""Which names databases and tables may have (section 6.1 of the wire protocol)."""

from __future__ import annotations

import re
from typing import Final

from flussd.core.records.refusal import Refused
from flussd.core.wire.errors import ErrorCode

NAME_LENGTH_MAX: Final = 200

_ALLOWED: Final = re.compile(r"[A-Za-z0-9_-]+")


def check_database_name(name: str) -> None:
    """Refuse a name that no database may have."""
    problem = problem_of(name)
    if problem is not None:
        raise Refused(ErrorCode.INVALID_DATABASE_EXCEPTION, f"database name {name[:250]!r} {problem}")


def check_table_name(name: str) -> None:
    """Refuse a name that no table may have."""
    problem = problem_of(name)
    if problem is not None:
        raise Refused(ErrorCode.INVALID_TABLE_EXCEPTION, f"table name {name[:250]!r} {problem}")


def problem_of(name: str) -> str | None:
    """Say what is wrong with *name*; None when nothing is."""
    if not name:
        return "is empty"
    if name in {".", ".."}:
        return "must not be . or .."
    if len(name) > NAME_LENGTH_MAX:
        return f"is too long: expected at most {NAME_LENGTH_MAX} characters, got {len(name)}"
    if _ALLOWED.fullmatch(name) is None:
        return "may have only letters and digits of ASCII, _ and -"
    if name.startswith("__"):
        return "must not begin with __, which is reserved"
    return None
