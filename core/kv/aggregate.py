"""Aggregation functions: the accumulated value of a column and the one that came give the next.

Record formats, 6.5. Values are those of rows.atoms and fit their type; so do results: integers wrap,
floats overflow to infinity, decimals beyond their precision become null. What a function does not take is
BadValue.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from typing import Any, Final

from flussd.core.records.aggregation import AggFunction
from flussd.core.records.rows.atoms import BadValue, is_compact, text_bytes
from flussd.core.records.types import DataType

Function = Callable[[Any, Any], Any]
"""Takes the accumulated value and the one that came; either may be None."""

DEFAULT: Final = AggFunction("last_value_ignore_nulls")
_DEFAULT_DELIMITER: Final = ","
_BITS: Final = {"TINYINT": 8, "SMALLINT": 16, "INTEGER": 32, "BIGINT": 64}
_FLOATS: Final = ("FLOAT", "DOUBLE")
_FLOAT: Final = struct.Struct("<f")
_EMPTY_BITMAP64: Final = b"\0"


def function_of(function: AggFunction, data_type: DataType, *, checks_sums: bool) -> Function:
    """Return what merges a column of *data_type*.

    Sums of decimals of up to 18 digits may grow beyond their precision, as upstream's do; with
    *checks_sums* such a sum is BadValue, because an ARROW changelog could not hold it.
    """
    match function.name:
        case "sum":
            return _either(_sum(data_type, checks=checks_sums))
        case "product":
            return _either(_product(data_type))
        case "max":
            order = _order(data_type)
            return _either(lambda acc, new: new if order(new) > order(acc) else acc)
        case "min":
            order = _order(data_type)
            return _either(lambda acc, new: new if order(new) < order(acc) else acc)
        case "last_value":
            return lambda _acc, new: new
        case "last_value_ignore_nulls":
            return lambda acc, new: acc if new is None else new
        case "first_value" | "first_value_ignore_nulls":
            return lambda acc, new: new if acc is None else acc
        case "listagg" | "string_agg":
            return _either(_joined(data_type, function))
        case "bool_and":
            return _either(lambda acc, new: acc and new)
        case "bool_or":
            return _either(lambda acc, new: acc or new)
        case "rbm32":
            return _either(_union32)
    assert function.name == "rbm64", function.name
    return _either(_union64)


def _either(function: Function) -> Function:
    """Return *function* with null giving way to the other operand."""

    def merged(acc: Any, new: Any) -> Any:
        if acc is None:
            return new
        return acc if new is None else function(acc, new)

    return merged


# ---- numbers -------------------------------------------------------------------------------------


def _sum(data_type: DataType, *, checks: bool) -> Function:
    if data_type.name == "DECIMAL":
        return _decimal_sum(data_type, checks=checks)
    fit = _fit(data_type)
    return lambda acc, new: fit(acc + new)


def _product(data_type: DataType) -> Function:
    if data_type.name == "DECIMAL":
        return _decimal_product(data_type)
    fit = _fit(data_type)
    return lambda acc, new: fit(acc * new)


def _fit(data_type: DataType) -> Callable[[Any], Any]:
    """Return what brings a result back into its type."""
    if data_type.name == "DOUBLE":
        return lambda value: value
    if data_type.name == "FLOAT":
        return _as_float
    half = 1 << _BITS[data_type.name] - 1
    return lambda value: (value + half & 2 * half - 1) - half


def _as_float(value: float) -> float:
    try:
        narrow: float = _FLOAT.unpack(_FLOAT.pack(value))[0]
    except OverflowError:
        return math.copysign(math.inf, value)
    return narrow


def _decimal_sum(data_type: DataType, *, checks: bool) -> Function:
    assert data_type.precision is not None
    end: int = 10**data_type.precision
    if not is_compact(data_type):
        return lambda acc, new: acc + new if abs(acc + new) < end else None

    def add(acc: int, new: int) -> int | None:
        total = acc + new
        if checks and abs(total) >= end:
            raise BadValue(f"a sum of decimals: expected {data_type.precision} digits, got {total}")
        return total if -(1 << 63) <= total < 1 << 63 else None

    return add


def _decimal_product(data_type: DataType) -> Function:
    assert data_type.precision is not None
    end: int = 10**data_type.precision
    scale: int = 10 ** (data_type.scale or 0)

    def multiply(acc: int, new: int) -> int | None:
        exact = acc * new
        # Half up: away from zero.
        rounded = (2 * abs(exact) + scale) // (2 * scale)
        if rounded >= end:
            return None
        return rounded if exact >= 0 else -rounded

    return multiply


# ---- orders, texts, bitmaps ----------------------------------------------------------------------


def _order(data_type: DataType) -> Callable[[Any], Any]:
    """Return the key by which values are compared as Java does."""
    if data_type.name in _FLOATS:
        return lambda value: (math.isnan(value), value, math.copysign(1, value))
    if data_type.name in ("CHAR", "STRING"):
        return text_bytes
    return lambda value: value


def _joined(data_type: DataType, function: AggFunction) -> Function:
    if data_type.name != "STRING":
        return _no_texts
    delimiter = dict(function.parameters).get("delimiter", _DEFAULT_DELIMITER)
    return lambda acc, new: f"{acc}{delimiter}{new}"


def _no_texts(_acc: Any, _new: Any) -> Any:
    raise BadValue("listagg: expected a column of type STRING")


def _union32(acc: bytes, new: bytes) -> bytes:
    """Return the union of two bitmaps in the standard format; pyroaring checks what it reads."""
    from pyroaring import BitMap  # 8 MB that most servers never need

    try:
        union = BitMap.deserialize(acc) | BitMap.deserialize(new)
    except ValueError as bad:
        raise BadValue(f"rbm32: {bad}") from None
    union.run_optimize()
    data: bytes = union.serialize()
    return data


def _union64(acc: bytes, new: bytes) -> bytes:
    """Return the union if one is empty: the format of the others is a library's own, and is not known."""
    if new in (acc, _EMPTY_BITMAP64):
        return acc
    if acc == _EMPTY_BITMAP64:
        return new
    raise BadValue("rbm64: this server does not merge 64-bit bitmaps")
