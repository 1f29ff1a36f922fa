"""Filter push-down: which stored batches surely hold no row that a reader's predicate matches.

Pure functions of a predicate and of the statistics that writers put into their batches. What is not
understood keeps the batch, for readers filter again: a predicate of another kind, statistics that are
broken or absent, a column that a batch's schema lacks. A null matches no comparison. Floats are compared
by readers in one of two orders, that of IEEE 754 and that of Java, where NaN is the greatest and -0.0 is
below 0.0: a batch is dropped only when neither finds a row in it.
"""

from __future__ import annotations

import enum
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import attrs

from flussd.core.records.aligned import Domain, Kind, Value, domain_of
from flussd.core.records.batch import BatchHead, heads_in
from flussd.core.records.rows.atoms import NS_PER_MS
from flussd.core.records.statistics import BadStatistics, Bounds, Statistics, statistics_of
from flussd.core.wire import messages

DEPTH_MAX: Final = 40
"""Nodes that are deeper tell nothing; protobuf takes no fetch request with 50."""

LEAVES_MAX: Final = 1000
"""Leaves beyond this number tell nothing: they would cost a millisecond a batch."""


class Function(enum.IntEnum):
    """What a leaf tells of its column; the number is what travels."""

    EQUAL = 0
    NOT_EQUAL = 1
    LESS = 2
    LESS_OR_EQUAL = 3
    GREATER = 4
    GREATER_OR_EQUAL = 5
    IS_NULL = 6
    IS_NOT_NULL = 7
    STARTS_WITH = 8
    CONTAINS = 9
    ENDS_WITH = 10
    IN = 11
    NOT_IN = 12


@attrs.frozen
class Leaf:
    """*function* of *column* (its position) and *literals*, which are sorted."""

    function: Function
    column: int
    domain: Domain
    literals: tuple[Value, ...]


@attrs.frozen
class Every:
    """Every child matches."""

    children: tuple[Node, ...]


@attrs.frozen
class Either:
    """Some child matches."""

    children: tuple[Node, ...]


Node: TypeAlias = Leaf | Every | Either


@attrs.frozen
class Filter:
    """A predicate, compiled for each schema that a batch may have and that it can be told of."""

    roots: Mapping[int, Node]


# ---- compiling -----------------------------------------------------------------------------------

_LITERALS: Final[dict[Kind, tuple[int, str]]] = {
    Kind.BOOLEAN: (0, "boolean_value"),
    Kind.TINYINT: (1, "int_value"),
    Kind.SMALLINT: (2, "int_value"),
    Kind.INTEGER: (3, "int_value"),
    Kind.BIGINT: (4, "bigint_value"),
    Kind.FLOAT: (5, "float_value"),
    Kind.DOUBLE: (6, "double_value"),
    Kind.CHAR: (7, "string_value"),
    Kind.STRING: (8, "string_value"),
    Kind.DECIMAL: (9, ""),
    Kind.DATE: (10, "bigint_value"),
    Kind.TIME: (11, "int_value"),
    Kind.TIMESTAMP: (12, "timestamp_millis_value"),
    Kind.TIMESTAMP_LTZ: (13, "timestamp_millis_value"),
}
"""The type of a literal, and the field that has its value."""


def compile_filter(
    predicate: messages.PbPredicate, schema_id: int, schemas: Mapping[int, Mapping[str, Any]]
) -> Filter | None:
    """Return the filter of a predicate that a client made with one of a table's *schemas*.

    None when it can drop nothing: then everything is returned.
    """
    made_with = schemas.get(schema_id)
    if made_with is None:
        return None
    known = {column["id"]: domain_of(column["data_type"]) for column in made_with["columns"]}
    roots = {}
    for batch_schema_id, schema in schemas.items():
        columns = {}
        for position, column in enumerate(schema["columns"]):
            domain = domain_of(column["data_type"])
            if domain is not None and known.get(column["id"]) == domain:
                columns[column["id"]] = (position, domain)
        root = _Compiler(columns).node(predicate, 0)
        if root is not None:
            roots[batch_schema_id] = root
    return Filter(roots) if roots else None


@attrs.define(eq=False)
class _Compiler:
    """Compiles for one schema; *columns* are its positions and domains by column id."""

    columns: Mapping[int, tuple[int, Domain]]
    leaf_count: int = 0

    def node(self, predicate: messages.PbPredicate, depth: int) -> Node | None:
        """Return what *predicate* says; None when nothing follows from it."""
        if depth > DEPTH_MAX or self.leaf_count > LEAVES_MAX:
            return None
        if predicate.type == 0 and predicate.HasField("leaf"):
            self.leaf_count += 1
            return self._leaf(predicate.leaf)
        if predicate.type != 1 or not predicate.HasField("compound"):
            return None
        nodes = [self.node(child, depth + 1) for child in predicate.compound.children]
        children = tuple([node for node in nodes if node is not None])
        if not children:
            return None
        if predicate.compound.function == 0:
            return Every(children)
        every_one = predicate.compound.function == 1 and len(children) == len(nodes)
        return Either(children) if every_one else None

    def _leaf(self, leaf: messages.PbLeafPredicate) -> Leaf | None:
        known = self.columns.get(leaf.field_id)
        if known is None or leaf.function not in _FUNCTIONS:
            return None
        function, (column, domain) = Function(leaf.function), known
        if function in (Function.IS_NULL, Function.IS_NOT_NULL):
            return Leaf(function, column, domain, ())
        literals = [_literal(literal, domain) for literal in leaf.literals]
        values = [value for value in literals if value is not None]
        many = function in (Function.IN, Function.NOT_IN)
        if len(values) != len(literals) or not (len(values) == 1 or (many and values)):
            return None
        return Leaf(function, column, domain, tuple(sorted(values)))


_FUNCTIONS: Final = frozenset(int(function) for function in Function)


def _literal(literal: messages.PbLiteralValue, domain: Domain) -> Value | None:
    """Return a literal in the form of a column's values; None for a null, and for what is none of them."""
    literal_type, field = _LITERALS[domain.kind]
    if literal.is_null or literal.literal_type != literal_type:
        return None
    if domain.kind is Kind.DECIMAL:
        return _decimal(literal)
    if not literal.HasField(field):
        return None
    value = getattr(literal, field)
    if domain.kind in (Kind.STRING, Kind.CHAR):
        return bytes(value.encode())
    if domain.kind in (Kind.FLOAT, Kind.DOUBLE):
        return float(value) if value == value else None  # NaN has no place in an order
    number = int(value)
    if not domain.is_time:
        return number
    rest_ns = 0 if domain.kind is Kind.TIME else literal.timestamp_nano_of_millis_value
    return number * NS_PER_MS + rest_ns


def _decimal(literal: messages.PbLiteralValue) -> int | None:
    """Return the unscaled value, of the column's scale: literals tell none of their own."""
    if literal.HasField("decimal_bytes"):
        return int.from_bytes(literal.decimal_bytes, "big", signed=True) if literal.decimal_bytes else None
    return literal.decimal_value if literal.HasField("decimal_value") else None


# ---- deciding ------------------------------------------------------------------------------------


def keep_matching(
    chunks: Iterable[memoryview | bytes], filter_: Filter
) -> tuple[list[memoryview | bytes], int]:
    """Return the batches of *chunks* that may hold a match, and where to go on when the last do not.

    The offset is that behind the last batch, and -1 when that one was kept. What is no whole batch is
    kept, with all that follows it in its chunk. Neighbours are kept in one piece.
    """
    kept: list[memoryview | bytes] = []
    end_offset = -1
    for chunk in chunks:
        view = memoryview(chunk)
        start = at = 0
        for head in heads_in(view):
            at = head.position + head.size_bytes
            if may_match(view[head.position : at], head, filter_):
                continue
            end_offset = head.base_offset + head.last_offset_delta + 1
            if start < head.position:
                kept.append(view[start : head.position])
            start = at
        if start < len(view):
            kept.append(view[start:])
            end_offset = -1
    return kept, end_offset


def may_match(batch: memoryview, head: BatchHead, filter_: Filter) -> bool:
    """Whether the whole *batch*, which has this *head*, may hold a row that *filter_* matches."""
    root = filter_.roots.get(head.schema_id)
    if root is None:
        return True
    try:
        statistics = statistics_of(batch, head)
        return statistics is None or _node_may_match(root, statistics, head.record_count)
    except BadStatistics:
        return True


def _node_may_match(node: Node, statistics: Statistics, row_count: int) -> bool:
    """Recurses to DEPTH_MAX, which the compiler keeps."""
    if isinstance(node, Leaf):
        bounds = statistics.bounds(node.column, node.domain)
        return bounds is None or _leaf_may_match(node, bounds, row_count)
    test = all if isinstance(node, Every) else any
    return test(_node_may_match(child, statistics, row_count) for child in node.children)


def _leaf_may_match(leaf: Leaf, bounds: Bounds, row_count: int) -> bool:
    if not 0 <= bounds.null_count <= row_count:
        return True
    if leaf.function is Function.IS_NULL:
        return bounds.null_count > 0
    if bounds.null_count == row_count:
        return False
    least, most = bounds.least, bounds.most
    kind = leaf.domain.kind
    # Java's writer has no bounds for CHAR, and no rule says whether its padding counts.
    if least is None or most is None or not least <= most or kind is Kind.CHAR:  # type: ignore[operator]
        return True
    tests = _FLOAT_TESTS if kind in (Kind.FLOAT, Kind.DOUBLE) else _TESTS
    test = tests.get(leaf.function)
    return test is None or test(least, most, leaf.literals)


_Test: TypeAlias = Callable[[Any, Any, Sequence[Any]], bool]


def _some_within(least: Any, most: Any, literals: Sequence[Any]) -> bool:
    first = bisect_left(literals, least)
    return first < len(literals) and literals[first] <= most


def _some_other(least: Any, most: Any, literals: Sequence[Any]) -> bool:
    """Whether there may be a value that is none of *literals*."""
    return least != most or not _some_within(least, most, literals)


def _prefix_within(least: bytes, most: bytes, literals: Sequence[bytes]) -> bool:
    prefix = literals[0]
    return least[: len(prefix)] <= prefix <= most


_TESTS: Final[dict[Function, _Test]] = {
    Function.EQUAL: _some_within,
    Function.IN: _some_within,
    Function.NOT_EQUAL: _some_other,
    Function.NOT_IN: _some_other,
    Function.LESS: lambda least, _, literals: least < literals[0],
    Function.LESS_OR_EQUAL: lambda least, _, literals: least <= literals[0],
    Function.GREATER: lambda _, most, literals: most > literals[0],
    Function.GREATER_OR_EQUAL: lambda _, most, literals: most >= literals[0],
    Function.STARTS_WITH: _prefix_within,
}
"""Whether a value within bounds may match; a function that is not here may match any value."""

_FLOAT_TESTS: Final[dict[Function, _Test]] = {
    Function.EQUAL: _some_within,
    Function.IN: _some_within,
    Function.LESS: lambda least, _, literals: least <= literals[0],
    Function.LESS_OR_EQUAL: lambda least, _, literals: least <= literals[0],
}
"""The same for floats: NaN, which bounds do not cover, may be greater than anything, or other than it."""
