"""Aggregation functions: their names, the types and parameters they take (record formats, 6.5)."""

from __future__ import annotations

from typing import Final

import attrs

from flussd.core.records.json_text import shown
from flussd.core.records.types import DataType

_NUMBERS: Final = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "FLOAT", "DOUBLE", "DECIMAL")
_ORDERED: Final = (
    *_NUMBERS,
    "CHAR",
    "STRING",
    "DATE",
    "TIME_WITHOUT_TIME_ZONE",
    "TIMESTAMP_WITHOUT_TIME_ZONE",
    "TIMESTAMP_WITH_LOCAL_TIME_ZONE",
)
_TEXTS: Final = ("STRING", "CHAR")
_DELIMITED: Final = ("listagg", "string_agg")
_DELIMITER: Final = "delimiter"

AGGREGATIONS: Final[dict[str, tuple[str, ...] | None]] = {
    "sum": _NUMBERS,
    "product": _NUMBERS,
    "max": _ORDERED,
    "min": _ORDERED,
    "last_value": None,
    "last_value_ignore_nulls": None,
    "first_value": None,
    "first_value_ignore_nulls": None,
    "listagg": _TEXTS,  # CHAR passes here, though upstream then fails to merge
    "string_agg": _TEXTS,
    "bool_and": ("BOOLEAN",),
    "bool_or": ("BOOLEAN",),
    "rbm32": ("BYTES",),
    "rbm64": ("BYTES",),
}
"""The types that each function takes; None: all."""


@attrs.frozen
class AggFunction:
    """How the aggregation engine merges a column."""

    name: str
    parameters: tuple[tuple[str, str], ...] = ()


def canonical_name(name: str) -> str | None:
    """Return the name as it is stored, for any case and with - for _; None if there is no such function."""
    canonical = name.lower().replace("-", "_")
    return canonical if canonical in AGGREGATIONS else None


def fault_of(function: AggFunction, data_type: DataType) -> str | None:
    """Say what is wrong with *function* on a column of *data_type*; None when nothing is."""
    types = AGGREGATIONS[function.name]
    if types is not None and data_type.name not in types:
        return f"{function.name} does not take {data_type.name}"
    for name, value in function.parameters:
        if function.name not in _DELIMITED or name != _DELIMITER:
            return f"{function.name} has no parameter {shown(name)}"
        if not value:
            return f"{function.name}: expected a {_DELIMITER} that is not empty"
    return None
