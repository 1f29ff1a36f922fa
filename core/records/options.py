"""The options of tables: what there is, what values they take, which may be altered.

Source: section 4.2 of storage-lake-ops and section 6.4 of the wire protocol. Values are texts; parsing
them is checking them. A bad value is Refused as a bad configuration.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final, TypeVar

import attrs

from flussd.core.records.refusal import Refused
from flussd.core.wire.errors import ErrorCode

INT_MAX: Final = 2**31 - 1
LONG_MAX: Final = 2**63 - 1
PREFIX: Final = "table."

T = TypeVar("T", bool, int, str)

_DURATION: Final = re.compile(r"\s*([0-9]{1,18})\s*([A-Za-zµ]*)\s*")
_UNITS_MS: Final = {
    "d": 86_400_000, "day": 86_400_000, "days": 86_400_000,
    "h": 3_600_000, "hour": 3_600_000, "hours": 3_600_000,
    "m": 60_000, "min": 60_000, "minute": 60_000, "minutes": 60_000,
    "s": 1000, "sec": 1000, "secs": 1000, "second": 1000, "seconds": 1000,
    "": 1, "ms": 1, "milli": 1, "millis": 1, "millisecond": 1, "milliseconds": 1,
}  # fmt: skip
_SMALLER_UNITS: Final = frozenset(
    {
        "µs",
        "micro",
        "micros",
        "microsecond",
        "microseconds",
        "ns",
        "nano",
        "nanos",
        "nanosecond",
        "nanoseconds",
    }
)


def bad_config(text: str) -> Refused:
    """Return the refusal of an option."""
    return Refused(ErrorCode.INVALID_CONFIG_EXCEPTION, text)


def parse_duration_ms(text: str) -> int:
    """Return milliseconds of a text like `7 d`, `30min` or `500`; ValueError when it is none."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError(text)
    unit = match[2].lower()
    if unit in _SMALLER_UNITS:
        return int(match[1]) // (1000 if unit[0] in "µm" else 1_000_000)
    if unit not in _UNITS_MS:
        raise ValueError(text)
    duration_ms = int(match[1]) * _UNITS_MS[unit]
    if duration_ms > LONG_MAX:
        raise ValueError(text)
    return duration_ms


def parse_int_to(most: int) -> Callable[[str], int]:
    """Return a reader of whole numbers up to *most*, and down to as many; ValueError for other texts."""

    def parse(text: str) -> int:
        if re.fullmatch(r"[+-]?\d{1,19}", text.strip(), re.ASCII) is None:
            raise ValueError(text)
        number = int(text)
        if not -most - 1 <= number <= most:
            raise ValueError(text)
        return number

    return parse


def parse_bool(text: str) -> bool:
    """Return the value of `true` or `false`; ValueError for other texts."""
    if text.strip().lower() not in ("true", "false"):
        raise ValueError(text)
    return text.strip().lower() == "true"


def parse_enum(*names: str) -> Callable[[str], str]:
    """Return a reader of one of *names*, in whatever case; ValueError for other texts."""

    def parse(text: str) -> str:
        found = text.strip().upper().replace("-", "_")
        if found not in names:
            raise ValueError(text)
        return found

    return parse


@attrs.frozen
class Option:
    """An option: how its text is read, what such a text is called, and whether it may be altered."""

    parse: Callable[[str], object]
    kind: str
    alterable: bool = False


_INT: Final = Option(parse_int_to(INT_MAX), "a number")
_INT_A: Final = Option(parse_int_to(INT_MAX), "a number", alterable=True)
_BOOL: Final = Option(parse_bool, "true or false")
_BOOL_A: Final = Option(parse_bool, "true or false", alterable=True)
_DURATION_OPTION: Final = Option(parse_duration_ms, "a duration like 7 d", alterable=True)
_TEXT: Final = Option(str, "a text")


def _enum(*names: str) -> Option:
    return Option(parse_enum(*names), f"one of {', '.join(names)}")


TABLE_OPTIONS: Final[dict[str, Option]] = {
    "table.replication.factor": _INT,
    "table.log.format": _enum("ARROW", "INDEXED", "COMPACTED"),
    "table.log.arrow.compression.type": _enum("NONE", "LZ4_FRAME", "ZSTD"),
    "table.log.arrow.compression.zstd.level": _INT,
    "table.log.ttl": _DURATION_OPTION,
    "table.log.local-ttl": _DURATION_OPTION,
    "table.log.tiered.local-segments": _INT_A,
    "table.kv.format": _enum("COMPACTED", "INDEXED"),
    "table.kv.format-version": _INT,
    "table.kv.standby-replica.enabled": _BOOL_A,
    "table.auto-partition.enabled": _BOOL_A,
    "table.auto-partition.key": _TEXT,
    "table.auto-partition.time-unit": _enum("HOUR", "DAY", "MONTH", "QUARTER", "YEAR"),
    "table.auto-partition.time-format": _TEXT,
    "table.auto-partition.time-zone": _TEXT,
    "table.auto-partition.num-precreate": _INT_A,
    "table.auto-partition.num-retention": _INT_A,
    "table.merge-engine": _enum("FIRST_ROW", "VERSIONED", "AGGREGATION"),
    "table.merge-engine.versioned.ver-column": _TEXT,
    "table.delete.behavior": _enum("ALLOW", "IGNORE", "DISABLE"),
    "table.changelog.image": _enum("FULL", "WAL"),
    "table.auto-increment.cache-size": Option(parse_int_to(LONG_MAX), "a number"),
    "table.statistics.columns": Option(str, "a text", alterable=True),
    "table.datalake.enabled": _BOOL_A,
    "table.datalake.format": _enum("PAIMON", "LANCE", "ICEBERG", "HUDI"),
    "table.datalake.freshness": _DURATION_OPTION,
    "table.datalake.auto-compaction": _BOOL_A,
    "table.datalake.auto-expire-snapshot": _BOOL,
    "table.datalake.historical-partition.enabled": _BOOL_A,
}

UNPARSEABLE_IS_UNKNOWN_ERROR: Final = frozenset({"table.merge-engine", "table.kv.format-version"})
"""Of these the Java server answers a bad value with -1."""


def parse_option(key: str, text: str) -> object:
    """Return the value of a table option.

    Raises:
        Refused: there is no such option, or *text* is no value of it.
    """
    option = TABLE_OPTIONS.get(key)
    if option is None:
        raise bad_config(f"unknown table option {key[:200]}: options of connectors are custom properties")
    try:
        return option.parse(text)
    except ValueError:
        message = f"table option {key}: expected {option.kind}, got {text[:100]!r}"
        if key in UNPARSEABLE_IS_UNKNOWN_ERROR:
            raise Refused(ErrorCode.UNKNOWN_SERVER_ERROR, message) from None
        raise bad_config(message) from None


def option_value(properties: Mapping[str, str], key: str, *, default: T) -> T:
    """Return an option's value in *properties*, or *default*; Refused as in `parse_option`."""
    if key not in properties:
        return default
    value = parse_option(key, properties[key])
    assert isinstance(value, type(default)), f"{key}: the default has another type"
    return value


def check_alterable(key: str) -> None:
    """Refuse to alter an option that is fixed or unknown; keys without the prefix are custom properties."""
    option = TABLE_OPTIONS.get(key)
    if key.startswith(PREFIX) and (option is None or not option.alterable):
        text = f"table option {key[:200]} cannot be altered"
        raise Refused(ErrorCode.INVALID_ALTER_TABLE_EXCEPTION, text)
