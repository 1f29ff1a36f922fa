"""Options as `-D key=value`: upstream's names from server.yaml where we honour them, and a few of ours.

A key that is not known is refused with the nearest one that is: an option that does nothing, silently,
costs its user an afternoon. Must stay cheap to import: `flussd local --help` prints the table.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable
from typing import Any, Final

import attrs

from flussd.core.limits import SEGMENT_BYTES


class ConfigError(Exception):
    """The user asked for what cannot be; the text is one line for him."""


UNITS: Final = {
    "": 1,
    "b": 1,
    "bytes": 1,
    "k": 1 << 10,
    "kb": 1 << 10,
    "m": 1 << 20,
    "mb": 1 << 20,
    "g": 1 << 30,
    "gb": 1 << 30,
    "t": 1 << 40,
    "tb": 1 << 40,
}
"""Upstream's words for memory sizes, in the short form that its documents use."""

SEGMENT_BYTES_MIN: Final = 1024
"""Small enough for tests of rolling; a segment below one batch's head would make no sense."""

SEGMENT_BYTES_MAX: Final = (1 << 31) - 1
"""Positions within a segment are 32 bits in the index, as upstream's are."""

DURABILITIES: Final = ("page_cache", "group_fsync")
"""The values of core's Durability, which is not imported here: it brings half of the server along."""

BUCKETS_MAX: Final = 128_000
"""Upstream's `max.bucket.num`."""


@attrs.frozen
class Options:
    """What `-D` can set, with defaults."""

    segment_bytes: int = SEGMENT_BYTES
    default_bucket_count: int = 1
    default_replication_factor: int = 1
    durability: str = DURABILITIES[0]  # the value of a Durability


@attrs.frozen
class Option:
    """One key: the field of Options that it sets, how its text is read, and what it is for."""

    field: str
    parse: Callable[[str], Any]
    help: str


def _size(text: str) -> int:
    match = re.fullmatch(r"(\d+)\s*([a-z]*)", text.strip().lower())
    if match is None or match[2] not in UNITS:
        raise ValueError("a size, such as 64mb or 1gb")
    size_bytes = int(match[1]) * UNITS[match[2]]
    if not SEGMENT_BYTES_MIN <= size_bytes <= SEGMENT_BYTES_MAX:
        raise ValueError(f"a size from {SEGMENT_BYTES_MIN}b to {SEGMENT_BYTES_MAX}b")
    return size_bytes


def _number_to(most: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not text.strip().isdecimal() or not 1 <= int(text) <= most:
            raise ValueError(f"a whole number from 1 to {most}")
        return int(text)

    return parse


def _durability(text: str) -> str:
    if text not in DURABILITIES:
        raise ValueError(" or ".join(DURABILITIES))
    return text


KEYS: Final = {
    "default.bucket.number": Option(
        "default_bucket_count", _number_to(BUCKETS_MAX), "buckets of a table that names no number (1)"
    ),
    "default.replication.factor": Option(
        "default_replication_factor", _number_to(1), "replicas of a table that names no number (1)"
    ),
    "log.durability": Option(
        "durability",
        _durability,
        "page_cache: an acknowledged record survives a killed process; group_fsync: a power cut too",
    ),
    "log.segment.file-size": Option("segment_bytes", _size, "size at which a segment is rolled (1gb)"),
}
"""Every key, sorted; the documents list the same."""


def parse_options(settings: Iterable[str]) -> Options:
    """Read `key=value` texts; a later one wins."""
    found = Options()
    for setting in settings:
        key, equals, value = setting.partition("=")
        key = key.strip()
        if not equals:
            raise ConfigError(f"-D {setting}: expected key=value")
        option = KEYS.get(key)
        if option is None:
            raise ConfigError(f"-D {key}: no such option{suggestion(key, KEYS)}")
        try:
            found = attrs.evolve(found, **{option.field: option.parse(value)})
        except ValueError as error:
            raise ConfigError(f"-D {key}: expected {error}, got {value!r}") from None
    return found


def suggestion(word: str, known: Iterable[str]) -> str:
    """Return `; did you mean X?` for the nearest of *known*, or where none is near, nothing."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {near[0]}?" if near else ""
