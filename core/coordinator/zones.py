"""Local time in the zones that tables name: by a function of the runtime, or by what needs no data.

Rules of named zones change and stand in files, which the core does not read; a fixed distance from UTC
needs none. The caller of a `Zones` owes it a wall time that came with an event.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable
from typing import Final, TypeAlias

Zones: TypeAlias = Callable[[str | None, int], dt.datetime | None]
"""(zone, or None for the server's; wall time in ms) -> local time without a zone; None: no such zone."""

_EPOCH: Final = dt.datetime(1970, 1, 1)  # noqa: DTZ001 - local times have no zone
_OFFSET: Final = re.compile(r"(?:UTC|GMT|UT)?([+-])([0-9]{1,2})(?::?([0-5][0-9]))?")
_UTC: Final = frozenset({"UTC", "GMT", "UT", "Z", "Etc/UTC", "Etc/GMT", "UCT", "Zulu"})
_HOURS_MAX: Final = 18


def moved(wall_ms: int, offset_s: int) -> dt.datetime | None:
    """Return the local time *offset_s* seconds east of UTC; None outside the years 1 to 9999."""
    try:
        return _EPOCH + dt.timedelta(milliseconds=wall_ms, seconds=offset_s)
    except OverflowError:
        return None


def fixed_zones(zone: str | None, wall_ms: int) -> dt.datetime | None:
    """Know UTC and fixed distances from it, like `+08:00`, `UTC-3`, `GMT+0530`; the server is in UTC."""
    offset_s = fixed_offset_s(zone or "UTC")
    return None if offset_s is None else moved(wall_ms, offset_s)


def fixed_offset_s(zone: str) -> int | None:
    """Return how many seconds east of UTC a fixed zone is; None when it is none."""
    if zone in _UTC:
        return 0
    match = _OFFSET.fullmatch(zone)
    if match is None or int(match[2]) > _HOURS_MAX:
        return None
    seconds = int(match[2]) * 3600 + int(match[3] or 0) * 60
    return -seconds if match[1] == "-" else seconds
