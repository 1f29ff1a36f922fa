"""Local time in the zones that the machine knows: the system's time zone data, or the package tzdata.

The core asks by a function, so that a simulation can do without. A zone's rules are read from a file the
first time; a zone that is in no file is refused by whoever asked, and never guessed.
"""

from __future__ import annotations

import datetime as dt
import time
import zoneinfo

from flussd.core.coordinator.zones import fixed_offset_s, moved


def system_zones(zone: str | None, wall_ms: int) -> dt.datetime | None:
    """Return the local time in *zone*, None is the machine's; None when there is no such zone."""
    try:
        if zone is None:
            return moved(wall_ms, time.localtime(wall_ms / 1000).tm_gmtoff)
        offset_s = fixed_offset_s(zone)
        if offset_s is not None:
            return moved(wall_ms, offset_s)
        known = zoneinfo.ZoneInfo(zone)
        return dt.datetime.fromtimestamp(wall_ms / 1000, known).replace(tzinfo=None)
    except (ValueError, OverflowError, OSError, zoneinfo.ZoneInfoNotFoundError):
        return None  # no name of a zone, a folder, or a time that no calendar has
