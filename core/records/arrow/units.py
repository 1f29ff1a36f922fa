"""Units that Arrow has times and timestamps in, by their precision (record formats, 2.3).

Values are milliseconds of the day or nanoseconds since 1970 (`rows.atoms`); what a unit is too coarse for
is cut, downwards.
"""

from __future__ import annotations

from typing import Final

import attrs

from flussd.core.records.types import DataType


@attrs.frozen
class Unit:
    """What is stored is value * *multiplier* // *divisor*, one of which is 1; *code* is that of struct."""

    code: str
    multiplier: int
    divisor: int


_SECONDS, _MILLISECONDS, _MICROSECONDS, _NANOSECONDS = range(4)
_OF_PRECISION: Final = (_SECONDS, *[_MILLISECONDS] * 3, *[_MICROSECONDS] * 3, *[_NANOSECONDS] * 3)
_TIMES: Final = (Unit("i", 1, 1000), Unit("i", 1, 1), Unit("q", 1000, 1), Unit("q", 10**6, 1))
_TIMESTAMPS: Final = (Unit("q", 1, 10**9), Unit("q", 1, 10**6), Unit("q", 1, 1000), Unit("q", 1, 1))


def stored_unit(data_type: DataType) -> Unit:
    """Return the unit of a TIME or timestamp type."""
    assert data_type.precision is not None
    units = _TIMES if data_type.name == "TIME_WITHOUT_TIME_ZONE" else _TIMESTAMPS
    return units[_OF_PRECISION[data_type.precision]]
