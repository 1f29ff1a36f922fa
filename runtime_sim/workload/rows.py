"""Rows as simulated writers make them: ARROW bodies, statistics, and predicates that the model knows.

Bodies are built by hand, because a run must start without pyarrow. The first eight bytes of a body whose
first column is there tell who wrote it. Predicates are evaluated here on the values that were written,
without the code that they test.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, Final, TypeAlias

import attrs

from flussd.core.records.aligned import Domain, Kind
from flussd.core.records.arrow.message import record_batch_metadata
from flussd.core.records.predicate import Function
from flussd.core.records.statistics import Bounds, build_statistics
from flussd.core.wire import messages
from flussd.runtime_sim.draws import Stream
from flussd.runtime_sim.workload.tables import VALUE_COLUMN

Values: TypeAlias = tuple[int | None, ...]

VALUE_MAX: Final = 40
_INTEGER: Final = Domain(Kind.INTEGER)
_INTEGER_LITERAL: Final = 3


# ---- bodies --------------------------------------------------------------------------------------


@attrs.frozen
class Vector:
    """One column of a body: how many nulls, and its buffers."""

    null_count: int
    buffers: tuple[bytes, ...]


def longs(number: int, count: int) -> Vector:
    """Return *count* times the same BIGINT; nothing is null."""
    return Vector(0, (b"", struct.pack("<q", number) * count))


def integers(values: Values) -> Vector:
    """Return an INTEGER column."""
    validity = bytearray((len(values) + 7) // 8)
    for n, value in enumerate(values):
        if value is not None:
            validity[n // 8] |= 1 << n % 8
    data = struct.pack(f"<{len(values)}i", *[value or 0 for value in values])
    return Vector(values.count(None), (bytes(validity), data))


def texts(parts: Sequence[bytes]) -> Vector:
    """Return a STRING or BYTES column; nothing is null."""
    ends = [0]
    for part in parts:
        ends.append(ends[-1] + len(part))
    return Vector(0, (b"", struct.pack(f"<{len(ends)}i", *ends), b"".join(parts)))


def arrow_body(row_count: int, vectors: Sequence[Vector]) -> bytes:
    """Return an encapsulated Arrow record batch."""
    nodes = [(row_count, vector.null_count) for vector in vectors]
    buffers: list[tuple[int, int]] = []
    parts: list[bytes] = []
    at = 0
    for vector in vectors:
        for data in vector.buffers:
            buffers.append((at, len(data)))
            padding = -len(data) % 8
            parts += (data, bytes(padding))
            at += len(data) + padding
    return record_batch_metadata(row_count, nodes, buffers, at, None) + b"".join(parts)


def first_long(message: memoryview) -> int | None:
    """Return the first eight bytes of the body of an encapsulated message; None when it has none."""
    if len(message) < 8:
        return None
    at = 8 + int(struct.unpack_from("<i", message, 4)[0])
    return struct.unpack_from("<q", message, at)[0] if 8 <= at <= len(message) - 8 else None


# ---- values --------------------------------------------------------------------------------------


def drawn_values(draws: Stream, count: int) -> Values:
    """Draw the numbers of a batch: near to each other, so that statistics tell something."""
    nulls = draws.below(6)
    if nulls == 0:
        return (None,) * count
    least = draws.below(VALUE_MAX)
    return tuple(
        [None if nulls == 1 and draws.chance(400_000) else least + draws.below(4) for _ in range(count)]
    )


def statistics(values: Values) -> bytes:
    """Return the section of a batch that has these values."""
    known = [value for value in values if value is not None]
    bounds = Bounds(values.count(None), min(known, default=None), max(known, default=None))
    return build_statistics([(VALUE_COLUMN, _INTEGER, bounds)])


# ---- predicates ----------------------------------------------------------------------------------


@attrs.frozen
class Condition:
    """What a reader wants of a value."""

    function: Function
    literals: tuple[int, ...] = ()

    def matches(self, value: int | None) -> bool:
        """Whether a value is wanted: a null by IS_NULL alone."""
        if self.function is Function.IS_NULL:
            return value is None
        return value is not None and _TESTS[self.function](value, self.literals)

    def told(self) -> Any:
        """Return it as it travels."""
        leaf = messages.PbLeafPredicate(function=int(self.function), field_id=VALUE_COLUMN)
        for literal in self.literals:
            leaf.literals.add(literal_type=_INTEGER_LITERAL, is_null=False, int_value=literal)
        return messages.PbPredicate(type=0, leaf=leaf)


_TESTS: Final[dict[Function, Any]] = {
    Function.IS_NOT_NULL: lambda _, __: True,
    Function.EQUAL: lambda value, literals: value == literals[0],
    Function.NOT_EQUAL: lambda value, literals: value != literals[0],
    Function.LESS: lambda value, literals: value < literals[0],
    Function.LESS_OR_EQUAL: lambda value, literals: value <= literals[0],
    Function.GREATER: lambda value, literals: value > literals[0],
    Function.GREATER_OR_EQUAL: lambda value, literals: value >= literals[0],
    Function.IN: lambda value, literals: value in literals,
}

_FUNCTIONS: Final = (Function.IS_NULL, Function.IS_NULL, *_TESTS)


@attrs.frozen
class Wanted:
    """A reader's predicate: one condition, or several that all or any must hold."""

    conditions: tuple[Condition, ...]
    any_will_do: bool = False

    @classmethod
    def drawn(cls, draws: Stream) -> Wanted:
        """Draw a predicate."""
        conditions = []
        for _ in range(draws.choice((1, 1, 2))):
            function = draws.choice(_FUNCTIONS)
            count = 0 if function in (Function.IS_NULL, Function.IS_NOT_NULL) else 1
            literals = [draws.below(VALUE_MAX) for _ in range(3 if function is Function.IN else count)]
            conditions.append(Condition(function, tuple(literals)))
        return cls(tuple(conditions), draws.chance(500_000))

    def matches(self, values: Values) -> bool:
        """Whether any row of a batch is wanted."""
        test = any if self.any_will_do else all
        return any(test(condition.matches(value) for condition in self.conditions) for value in values)

    def told(self) -> Any:
        """Return it as it travels."""
        children = [condition.told() for condition in self.conditions]
        if len(children) == 1:
            return children[0]
        compound = messages.PbCompoundPredicate(function=int(self.any_will_do), children=children)
        return messages.PbPredicate(type=1, compound=compound)
