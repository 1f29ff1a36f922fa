"""Partitions of tables: specs, names, and values made from the time (record formats, 5.3, 5.4).

A spec has a value for each partition column; its name is the values joined with $. Values of automatic
partitions are made from a calendar time that the caller brings, in the zone of the table.
"""

from __future__ import annotations

import calendar
import datetime as dt
import re
from collections.abc import Iterable, Mapping
from typing import Final

import attrs

from flussd.core.records.json_text import shown
from flussd.core.records.names import check_partition_value
from flussd.core.records.options import option_value
from flussd.core.records.refusal import Refused
from flussd.core.wire.errors import ErrorCode

PRECREATE_DEFAULT: Final = 2
RETENTION_DEFAULT: Final = 7
SEPARATOR: Final = "$"
HISTORICAL: Final = "__historical__"
"""The value of the partition that answers for expired ones; reserved by its prefix."""


def _invalid(text: str) -> Refused:
    return Refused(ErrorCode.PARTITION_SPEC_INVALID_EXCEPTION, text)


# ---- specs and names -----------------------------------------------------------------------------


@attrs.frozen
class PartitionSpec:
    """A value for each partition column, in the order of the table's partition key."""

    keys: tuple[str, ...]
    values: tuple[str, ...]

    @property
    def name(self) -> str:
        """Return the name of the partition, as in paths and requests."""
        return SEPARATOR.join(self.values)

    @property
    def is_historical(self) -> bool:
        """Return whether it is the partition for expired ones."""
        return HISTORICAL in self.values


def parse_spec(pairs: Iterable[tuple[str, str]], partition_key: tuple[str, ...]) -> PartitionSpec:
    """Return the spec that *pairs* name in any order; refuse any but one value for each column (43)."""
    values = list(pairs)
    given = dict(values)
    if len(values) != len(partition_key) or sorted(given) != sorted(partition_key):
        names = ", ".join(name for name, _ in values)
        raise _invalid(f"partition spec: expected exactly {', '.join(partition_key)}, got {shown(names)}")
    return PartitionSpec(partition_key, tuple([given[key] for key in partition_key]))


def parse_partial_spec(pairs: Iterable[tuple[str, str]], partition_key: tuple[str, ...]) -> dict[str, str]:
    """Return values to filter by; refuse columns that are not of the partition key (-1, as upstream)."""
    given = dict(pairs)
    for key in given:
        if key not in partition_key:
            text = f"partition spec: expected columns among {', '.join(partition_key)}, got {shown(key)}"
            raise Refused(ErrorCode.UNKNOWN_SERVER_ERROR, text)
    return given


def spec_named(name: str, partition_key: tuple[str, ...]) -> PartitionSpec:
    """Return the spec of a partition's name; refuse one with too many or too few values (43)."""
    values = tuple(name.split(SEPARATOR))
    if len(values) != len(partition_key):
        raise _invalid(
            f"partition name {shown(name)}: expected {len(partition_key)} values, got {len(values)}"
        )
    return PartitionSpec(partition_key, values)


def matches(spec: PartitionSpec, partial: Mapping[str, str]) -> bool:
    """Return whether *spec* has the values of *partial*."""
    values = dict(zip(spec.keys, spec.values, strict=True))
    return all(values.get(key) == value for key, value in partial.items())


def check_spec(spec: PartitionSpec, *, creating: bool) -> None:
    """Refuse values that no partition may have (43); reserved ones only when *creating*."""
    for value in spec.values:
        check_partition_value(value, creating=creating)


# ---- time patterns -------------------------------------------------------------------------------

_DEFAULT_PATTERNS: Final = {
    "HOUR": "yyyyMMddHH",
    "DAY": "yyyyMMdd",
    "MONTH": "yyyyMM",
    "QUARTER": "yyyyQ",
    "YEAR": "yyyy",
}
_DATE_PATTERN: Final = "yyyy-MM-dd"
_PATTERN: Final = re.compile(r"(?:yyyy|MM|dd|HH|Q|[-_])+")
_PART: Final = re.compile(r"yyyy|MM|dd|HH|Q|[-_]")
_DIGITS: Final = {
    "yyyy": "[0-9]{4}",
    "MM": "(?:0[1-9]|1[0-2])",
    "dd": "(?:0[1-9]|[12][0-9]|3[01])",
    "HH": "(?:[01][0-9]|2[0-3])",
    "Q": "[1-4]",
}
_MONTHS: Final = {"MONTH": 1, "QUARTER": 3, "YEAR": 12}


def pattern_fault(pattern: str) -> str | None:
    """Return what is wrong with a time format, None if nothing is."""
    if _PATTERN.fullmatch(pattern) is None or "yyyy" not in pattern:
        return f"expected yyyy, with MM, dd, HH, Q, - and _ as needed, got {shown(pattern)}"
    return None


def _written(pattern: str, moment: dt.datetime) -> str:
    parts = {
        "yyyy": f"{moment.year:04}",
        "MM": f"{moment.month:02}",
        "dd": f"{moment.day:02}",
        "HH": f"{moment.hour:02}",
        "Q": str((moment.month + 2) // 3),
    }
    return _PART.sub(lambda part: parts.get(part[0], part[0]), pattern)


def _shifted(moment: dt.datetime, unit: str, count: int) -> dt.datetime | None:
    """Return *moment* some units later; None outside the years 1 to 9999."""
    months = _MONTHS.get(unit)
    try:
        if months is None:
            step = dt.timedelta(hours=1) if unit == "HOUR" else dt.timedelta(days=1)
            return moment + step * count
        year, month = divmod(moment.year * 12 + moment.month - 1 + months * count, 12)
        if not dt.MINYEAR <= year <= dt.MAXYEAR:
            return None
        day = min(moment.day, calendar.monthrange(year, month + 1)[1])
        return moment.replace(year=year, month=month + 1, day=day)
    except OverflowError:
        return None


@attrs.frozen
class AutoPartition:
    """How a table makes partitions by itself; *zone* None is the server's, and times are local to it."""

    column: str
    unit: str
    pattern: str
    zone: str | None
    precreate_count: int
    retention_count: int

    def value(self, now: dt.datetime, *, offset: int) -> str | None:
        """Return the value for *offset* units after *now*; None outside the years 1 to 9999."""
        moment = _shifted(now, self.unit, offset)
        return None if moment is None else _written(self.pattern, moment)

    def oldest(self, now: dt.datetime) -> str | None:
        """Return the oldest value that is kept: lesser ones have expired. None keeps all."""
        return None if self.retention_count < 1 else self.value(now, offset=-self.retention_count)

    def check(self, value: str, now: dt.datetime) -> None:
        """Refuse a value that has another form, or has expired (43)."""
        if not self._has_form(value):
            text = f"partition value {shown(value)}: expected the form {self.pattern}"
            raise _invalid(text)
        if self.has_expired(value, now):
            oldest = self.oldest(now)
            raise _invalid(f"partition value {shown(value)}: expected {oldest} or later, it has expired")

    def _has_form(self, value: str) -> bool:
        form = _PART.sub(lambda part: _DIGITS.get(part[0], part[0]), self.pattern)
        return re.fullmatch(form, value) is not None

    def has_expired(self, value: str, now: dt.datetime) -> bool:
        """Return whether a value is a time that is kept no more; what has another form is none."""
        oldest = self.oldest(now)
        return oldest is not None and value < oldest and self._has_form(value)


def auto_partition_of(
    partition_key: tuple[str, ...], properties: Mapping[str, str], *, of_dates: bool
) -> AutoPartition | None:
    """Return how a valid table makes partitions; None if it does not. *of_dates*: the column is a DATE."""
    if not partition_key or not option_value(properties, "table.auto-partition.enabled", default=False):
        return None
    unit = option_value(properties, "table.auto-partition.time-unit", default="DAY")
    pattern = _DATE_PATTERN if of_dates else _DEFAULT_PATTERNS[unit]
    return AutoPartition(
        properties.get("table.auto-partition.key", partition_key[0]),
        unit,
        properties.get("table.auto-partition.time-format", pattern),
        properties.get("table.auto-partition.time-zone"),
        option_value(properties, "table.auto-partition.num-precreate", default=PRECREATE_DEFAULT),
        option_value(properties, "table.auto-partition.num-retention", default=RETENTION_DEFAULT),
    )
