"""Filter push-down: a batch that is dropped holds no matching row, whoever compares, whatever it is of."""

from __future__ import annotations

import math
from decimal import Decimal

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flussd.core.records.aligned import Kind, domain_of
from flussd.core.records.batch import build_batch
from flussd.core.records.predicate import DEPTH_MAX, LEAVES_MAX, Function, compile_filter, keep_matching
from flussd.core.records.statistics import Bounds, build_statistics
from flussd.core.wire import messages

TYPES = [
    ({"type": "BOOLEAN"}, pa.bool_()),
    ({"type": "TINYINT"}, pa.int8()),
    ({"type": "SMALLINT"}, pa.int16()),
    ({"type": "INTEGER"}, pa.int32()),
    ({"type": "BIGINT"}, pa.int64()),
    ({"type": "FLOAT"}, pa.float32()),
    ({"type": "DOUBLE"}, pa.float64()),
    ({"type": "STRING"}, pa.string()),
    ({"type": "CHAR", "length": 5}, pa.string()),
    ({"type": "DECIMAL", "precision": 10, "scale": 2}, pa.decimal128(10, 2)),
    ({"type": "DECIMAL", "precision": 30, "scale": 3}, pa.decimal128(30, 3)),
    ({"type": "DATE"}, pa.date32()),
    ({"type": "TIME_WITHOUT_TIME_ZONE", "precision": 0}, pa.time32("s")),
    ({"type": "TIME_WITHOUT_TIME_ZONE", "precision": 3}, pa.time32("ms")),
    ({"type": "TIMESTAMP_WITHOUT_TIME_ZONE", "precision": 0}, pa.timestamp("s")),
    ({"type": "TIMESTAMP_WITHOUT_TIME_ZONE", "precision": 3}, pa.timestamp("ms")),
    ({"type": "TIMESTAMP_WITH_LOCAL_TIME_ZONE", "precision": 6}, pa.timestamp("us")),
    ({"type": "TIMESTAMP_WITHOUT_TIME_ZONE", "precision": 9}, pa.timestamp("ns")),
]
INT = TYPES[3]
LITERAL_TYPES = {kind: number for number, kind in enumerate(Kind)}


# ---- a writer ------------------------------------------------------------------------------------
# Values are what writers hold: numbers, text, and times in nanoseconds.


def bounds_of(values):
    """The bounds of a writer that skips nulls and misses NaN."""
    present = [value for value in values if value is not None and value == value]
    ordered = sorted(value.encode() if isinstance(value, str) else value for value in present)
    least, most = (ordered[0], ordered[-1]) if ordered else (None, None)
    return Bounds(sum(value is None for value in values), least, most)


def section_of(columns, types):
    """Write the statistics of *columns*."""
    told = zip(columns, types, strict=True)
    return build_statistics([(n, domain_of(t), bounds_of(values)) for n, (values, t) in enumerate(told)])


def batch_of(columns, types, **more):
    """A batch with statistics; its records do not matter here."""
    section = section_of(columns, types)
    return build_batch(b"rows", record_count=len(columns[0]), magic=1, statistics=section, **more)


# ---- a reader ------------------------------------------------------------------------------------


def stored(value, data_type):
    """What readers get of a writer's value: times are cut to the unit of the column."""
    domain = domain_of(data_type)
    if value is None or not domain.is_time:
        return value
    unit = domain.unit_ns
    return abs(value) // unit * (1 if value >= 0 else -1)  # in units, cut toward zero


def arrow(values, data_type, arrow_type):
    """A column as pyarrow has it."""
    if pa.types.is_decimal(arrow_type):
        scale = -arrow_type.scale
        return pa.array([None if one is None else Decimal(one).scaleb(scale) for one in values], arrow_type)
    values = [stored(value, data_type) for value in values]
    if domain_of(data_type).is_time or pa.types.is_date(arrow_type):
        integer = pa.int32() if arrow_type.bit_width == 32 else pa.int64()
        return pa.array(values, integer).cast(arrow_type)
    return pa.array(values, arrow_type)


def matches(function, column, literals):
    """The truth by pyarrow: a mask of rows; null where it is unknown."""
    one = literals[0] if len(literals) else None
    simple = {
        Function.EQUAL: pc.equal,
        Function.NOT_EQUAL: pc.not_equal,
        Function.LESS: pc.less,
        Function.LESS_OR_EQUAL: pc.less_equal,
        Function.GREATER: pc.greater,
        Function.GREATER_OR_EQUAL: pc.greater_equal,
    }
    if function in simple:
        return simple[function](column, one)
    texts = {
        Function.STARTS_WITH: pc.starts_with,
        Function.CONTAINS: pc.match_substring,
        Function.ENDS_WITH: pc.ends_with,
    }
    if function in texts:
        return texts[function](column, one.as_py())
    if function is Function.IS_NULL:
        return pc.is_null(column)
    if function is Function.IS_NOT_NULL:
        return pc.is_valid(column)
    within = pc.is_in(column, value_set=literals)
    mask = within if function is Function.IN else pc.invert(within)
    return pc.and_(mask, pc.is_valid(column))


def java_key(value):
    """Java's order of floats: NaN is the greatest, -0.0 is below 0.0."""
    return (1, 0.0, 0.0) if math.isnan(value) else (0, value, math.copysign(1.0, value))


def matches_in_java(function, values, literals):
    """The truth for floats by Java's order."""
    keys = [java_key(value) for value in literals]
    tests = {
        Function.EQUAL: lambda key: key == keys[0],
        Function.NOT_EQUAL: lambda key: key != keys[0],
        Function.LESS: lambda key: key < keys[0],
        Function.LESS_OR_EQUAL: lambda key: key <= keys[0],
        Function.GREATER: lambda key: key > keys[0],
        Function.GREATER_OR_EQUAL: lambda key: key >= keys[0],
        Function.IN: lambda key: key in keys,
        Function.NOT_IN: lambda key: key not in keys,
    }
    test = tests[function]
    return pa.array([None if value is None else test(java_key(value)) for value in values], pa.bool_())


# ---- predicates ----------------------------------------------------------------------------------


def literal_of(value, data_type):
    """A literal as clients send it."""
    domain = domain_of(data_type)
    literal = messages.PbLiteralValue(literal_type=LITERAL_TYPES[domain.kind])
    literal.is_null = value is None
    if value is None:
        return literal
    kind = domain.kind
    if kind is Kind.DECIMAL and domain.precision > 18:
        literal.decimal_bytes = value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True)
    elif kind is Kind.DECIMAL:
        literal.decimal_value = value
    elif kind in (Kind.TIMESTAMP, Kind.TIMESTAMP_LTZ):
        literal.timestamp_millis_value = value // 10**6
        literal.timestamp_nano_of_millis_value = value % 10**6
    elif kind is Kind.TIME:
        literal.int_value = value // 10**6
    else:
        fields = {
            Kind.BOOLEAN: "boolean_value", Kind.BIGINT: "bigint_value", Kind.DATE: "bigint_value",
            Kind.FLOAT: "float_value", Kind.DOUBLE: "double_value",
            Kind.STRING: "string_value", Kind.CHAR: "string_value",
        }  # fmt: skip
        setattr(literal, fields.get(kind, "int_value"), value)
    return literal


def leaf_of(function, field_id, literals, data_type):
    """A leaf as clients send it."""
    predicate = messages.PbPredicate(type=0)
    predicate.leaf.function, predicate.leaf.field_id = int(function), field_id
    predicate.leaf.literals.extend(literal_of(value, data_type) for value in literals)
    return predicate


def compound_of(function, *children):
    """0 and, 1 or."""
    predicate = messages.PbPredicate(type=1)
    predicate.compound.function = function
    predicate.compound.children.extend(children)
    return predicate


def schema_of(types):
    """A schema whose columns have ids from 10 on."""
    return {"columns": [{"name": f"c{n}", "data_type": t, "id": 10 + n} for n, t in enumerate(types)]}


def keeps(predicate, batch, types):
    """Whether a batch is kept."""
    filter_ = compile_filter(predicate, 1, {1: schema_of(types)})
    return filter_ is None or bool(keep_matching([batch], filter_)[0])


# ---- the property --------------------------------------------------------------------------------


def values_of(data_type, arrow_type):
    """Few values, so that bounds and literals often meet."""
    kind = domain_of(data_type).kind
    if kind is Kind.BOOLEAN:
        return st.booleans()
    if kind in (Kind.STRING, Kind.CHAR):
        return st.text("ab\U0001f600é\uffff", max_size=4) | st.sampled_from(["longer than 7", "longer"])
    if kind in (Kind.FLOAT, Kind.DOUBLE):
        return st.sampled_from([0.0, -0.0, 1.5, -1.5, math.inf, -math.inf, math.nan])
    if kind is Kind.DECIMAL:
        return st.integers(-3, 3) | st.sampled_from([10**9, -(10**9)])
    if kind is Kind.TIME:
        return st.integers(0, 4000).map(lambda ms: ms * 10**6)
    if kind in (Kind.TIMESTAMP, Kind.TIMESTAMP_LTZ):
        fine = st.integers(-3 * 10**9, 3 * 10**9)
        return fine if domain_of(data_type).precision > 3 else fine.map(lambda ns: ns // 10**6 * 10**6)
    bits = arrow_type.bit_width
    return st.integers(-3, 3) | st.sampled_from([-(2 ** (bits - 1)), 2 ** (bits - 1) - 1])


def usable(data_type):
    """The functions that a type has."""
    texts = (Function.STARTS_WITH, Function.CONTAINS, Function.ENDS_WITH)
    is_text = data_type["type"] in ("STRING", "CHAR")
    return [function for function in Function if is_text or function not in texts]


@st.composite
def leaves(draw, columns, kinds):
    """A leaf with its truths, one for each order in which readers compare."""
    n = draw(st.integers(0, len(kinds) - 1))
    data_type, arrow_type = kinds[n]
    function = draw(st.sampled_from(usable(data_type)))
    tests_null = function in (Function.IS_NULL, Function.IS_NOT_NULL)
    count = (
        0 if tests_null else draw(st.integers(1, 3)) if function in (Function.IN, Function.NOT_IN) else 1
    )
    values = draw(st.lists(values_of(data_type, arrow_type), min_size=count, max_size=count))
    if domain_of(data_type).is_time:  # what readers compare with has the column's unit, too
        unit = domain_of(data_type).unit_ns
        values = [value // unit * unit for value in values]
    column = arrow(columns[n], data_type, arrow_type)
    truths = [matches(function, column, arrow(values, data_type, arrow_type))]
    if pa.types.is_floating(arrow_type) and not tests_null:
        truths.append(matches_in_java(function, column.to_pylist(), values))
    return leaf_of(function, 10 + n, values, data_type), truths


@st.composite
def predicates(draw, columns, kinds, depth=2):
    """A tree with its truths."""
    if depth == 0 or draw(st.booleans()):
        return draw(leaves(columns, kinds))
    parts = [draw(predicates(columns, kinds, depth - 1)) for _ in range(draw(st.integers(1, 3)))]
    function = draw(st.integers(0, 1))
    truths = []
    for order in (0, -1):
        mask = parts[0][1][order]
        for _, more in parts[1:]:
            mask = (pc.and_kleene, pc.or_kleene)[function](mask, more[order])
        truths.append(mask)
    return compound_of(function, *[predicate for predicate, _ in parts]), truths


@settings(max_examples=400)
@given(st.data())
def test_a_dropped_batch_holds_no_match(data):
    """Two columns of any types, with nulls, against any tree of leaves; the truth is pyarrow's."""
    kinds = data.draw(st.lists(st.sampled_from(TYPES), min_size=1, max_size=2))
    count = data.draw(st.integers(1, 4))
    columns = [
        data.draw(st.lists(st.none() | values_of(*kind), min_size=count, max_size=count)) for kind in kinds
    ]
    types = [data_type for data_type, _ in kinds]
    predicate, truths = data.draw(predicates(columns, kinds))

    kept = keeps(predicate, batch_of(columns, types), types)

    assert kept or not any(pc.any(truth).as_py() for truth in truths)


# ---- what is dropped -----------------------------------------------------------------------------

DROPPED = [
    (Function.EQUAL, [5], [1, 2, None]),
    (Function.NOT_EQUAL, [1], [1, None, 1]),
    (Function.LESS, [1], [1, 2]),
    (Function.LESS_OR_EQUAL, [0], [1, 2]),
    (Function.GREATER, [2], [1, 2]),
    (Function.GREATER_OR_EQUAL, [3], [1, 2]),
    (Function.IS_NULL, [], [1, 2]),
    (Function.IS_NOT_NULL, [], [None, None]),
    (Function.IN, [0, 5], [1, 2]),
    (Function.NOT_IN, [1, 5], [1, None]),
    (Function.LESS, [5], [None, None]),
]


@pytest.mark.parametrize(("function", "literals", "values"), DROPPED)
def test_what_is_dropped(function, literals, values):
    """Each function drops what it can; a null is no value, and matches nothing but IS NULL."""
    types = [INT[0]]

    assert not keeps(leaf_of(function, 10, literals, INT[0]), batch_of([values], types), types)
    assert keeps(leaf_of(Function.GREATER, 10, [-9], INT[0]), batch_of([[1, None]], types), types)
    assert keeps(leaf_of(Function.IS_NULL, 10, [], INT[0]), batch_of([[1, None]], types), types)


@pytest.mark.parametrize("kind", TYPES, ids=lambda kind: f"{kind[0]['type']}-{kind[0].get('precision')}")
def test_every_type_drops(kind):
    """A value below all others is in no batch; of CHAR, nothing is told but nulls."""
    data_type, _ = kind
    domain = domain_of(data_type)
    texts = domain.kind in (Kind.STRING, Kind.CHAR)
    least, one, two = ("", "a", "longer than 7") if texts else (0, 1, 1)
    if domain.is_time:
        one = two = 10**9
    batch = batch_of([[two, one]], [data_type])
    nulls = batch_of([[None, None]], [data_type])
    predicate = leaf_of(Function.EQUAL, 10, [least], data_type)

    assert (domain.kind is Kind.CHAR) == keeps(predicate, batch, [data_type])
    assert keeps(leaf_of(Function.EQUAL, 10, [one], data_type), batch, [data_type])
    assert not keeps(predicate, nulls, [data_type])


FLOATS = [
    (Function.EQUAL, 5.0, [1.0, math.nan], False),
    (Function.EQUAL, 0.0, [-0.0], True),
    (Function.IN, 5.0, [1.0, math.inf], True),
    (Function.LESS_OR_EQUAL, 0.5, [1.0, 2.0], False),
    (Function.LESS, 0.5, [1.0, 2.0], False),
    (Function.LESS, 0.0, [-0.0], True),
    (Function.GREATER, 5.0, [1.0, math.nan], True),
    (Function.GREATER_OR_EQUAL, 5.0, [1.0, math.nan], True),
    (Function.NOT_EQUAL, 1.0, [1.0, math.nan], True),
    (Function.NOT_IN, 1.0, [1.0, math.nan], True),
    (Function.EQUAL, math.nan, [1.0, math.nan], True),
    (Function.GREATER, 5.0, [None, None], False),
]


@pytest.mark.parametrize("name", ["FLOAT", "DOUBLE"])
@pytest.mark.parametrize(("function", "literal", "values", "kept"), FLOATS)
def test_floats(name, function, literal, values, kept):
    """NaN, which no bounds tell of, is greater than all or equal to none; -0.0 may be below 0.0."""
    types = [{"type": name}]

    assert kept == keeps(leaf_of(function, 10, [literal], types[0]), batch_of([values], types), types)


def test_times_that_are_cut():
    """A writer told of -1.5 s and 1.5 s; in a column of whole seconds, readers get -1 s and 1 s."""
    types = [{"type": "TIMESTAMP_WITHOUT_TIME_ZONE", "precision": 0}]
    for written, read in ((-1_500_000_000, -(10**9)), (1_500_000_000, 10**9)):
        batch = batch_of([[written]], types)
        assert keeps(leaf_of(Function.EQUAL, 10, [read], types[0]), batch, types)
        assert not keeps(leaf_of(Function.EQUAL, 10, [9 * 10**9], types[0]), batch, types)


def test_prefixes():
    """A prefix is looked for between the bounds."""
    types = [{"type": "STRING"}]
    batch = batch_of([["apple", "banana split"]], types)

    kept = {
        prefix: keeps(leaf_of(Function.STARTS_WITH, 10, [prefix], types[0]), batch, types)
        for prefix in ("", "a", "aa", "ap", "apq", "b", "banana split", "banana splits", "c")
    }

    assert {"": True, "a": True, "aa": False, "ap": True, "apq": True, "b": True,
            "banana split": True, "banana splits": False, "c": False} == kept  # fmt: skip


def test_and_or():
    """AND drops when one child does, OR when all do."""
    types = [INT[0], INT[0]]
    batch = batch_of([[1, 2], [10, 20]], types)
    no, yes = leaf_of(Function.EQUAL, 10, [9], INT[0]), leaf_of(Function.EQUAL, 11, [10], INT[0])

    assert not keeps(compound_of(0, no, yes), batch, types)
    assert keeps(compound_of(1, no, yes), batch, types)
    assert not keeps(compound_of(1, no, no), batch, types)


# ---- what is not understood ----------------------------------------------------------------------


def _int(value, **fields):
    return messages.PbLiteralValue(**({"literal_type": 3, "is_null": False, "int_value": value} | fields))


def _strange():
    """Leaves that tell nothing, each in a way of its own."""
    plain = leaf_of(Function.EQUAL, 10, [9], INT[0])
    for change in (
        "function",
        "column",
        "type",
        "null",
        "no value",
        "no literal",
        "two",
        "no leaf",
        "kind",
    ):
        strange = messages.PbPredicate()
        strange.CopyFrom(plain)
        if change == "function":
            strange.leaf.function = 13
        elif change == "column":
            strange.leaf.field_id = 99
        elif change == "type":
            strange.leaf.literals[0].literal_type = 4
        elif change == "null":
            strange.leaf.literals[0].is_null = True
        elif change == "no value":
            strange.leaf.literals[0].ClearField("int_value")
        elif change == "no literal":
            del strange.leaf.literals[:]
        elif change == "two":
            strange.leaf.literals.append(_int(9))
        elif change == "no leaf":
            strange.ClearField("leaf")
        else:
            strange.type = 7
        yield change, strange


@pytest.mark.parametrize(
    ("change", "strange"), list(_strange()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_what_is_not_understood_keeps(change, strange):
    """Alone and in an OR it keeps everything; in an AND the others still drop."""
    types = [INT[0]]
    batch = batch_of([[1, 2]], types)
    no = leaf_of(Function.EQUAL, 10, [9], INT[0])

    assert keeps(strange, batch, types)
    assert keeps(compound_of(1, strange, no), batch, types)
    assert not keeps(compound_of(0, strange, no), batch, types)
    assert keeps(compound_of(5, no), batch, types)
    assert keeps(compound_of(0), batch, types)


def test_predicates_without_end():
    """Too deep or too wide: nothing is dropped, nothing is raised."""
    types = [INT[0]]
    batch = batch_of([[1, 2]], types)
    no = leaf_of(Function.EQUAL, 10, [9], INT[0])
    deep = no
    for _ in range(DEPTH_MAX):
        deep = compound_of(1, deep)
    wide = compound_of(1, *[no] * (LEAVES_MAX + 2))

    assert not keeps(deep, batch, types)
    assert keeps(compound_of(1, deep), batch, types)
    assert keeps(wide, batch, types)


def test_schemas():
    """Columns are found by id in each schema; what a schema lacks, or has in another type, keeps."""
    old, new = schema_of([INT[0]]), schema_of([{"type": "BIGINT"}, INT[0]])
    new["columns"][1]["id"], new["columns"][0]["id"] = 10, 12
    no = leaf_of(Function.EQUAL, 10, [9], INT[0])
    filter_ = compile_filter(no, 1, {1: old, 2: new, 3: schema_of([{"type": "BYTES"}])})
    batches = [
        batch_of([[1, 2]], [INT[0]]),
        batch_of([[9, 9], [1, 2]], [{"type": "BIGINT"}, INT[0]], schema_id=2),
        batch_of([[1, 2]], [INT[0]], schema_id=3),
        batch_of([[1, 2]], [INT[0]], schema_id=4),
    ]

    money = [{"type": "DECIMAL", "precision": 9, "scale": scale} for scale in (2, 3)]
    schemas = {n: schema_of([data_type]) for n, data_type in enumerate(money)}
    of_cents = compile_filter(leaf_of(Function.EQUAL, 10, [9], money[0]), 0, schemas)

    assert [0, 1] == list(
        map(
            len,
            [
                keep_matching([batch_of([[1, 2]], [one], schema_id=n)], of_cents)[0]
                for n, one in enumerate(money)
            ],
        )
    )
    assert [0, 0, 1, 1] == [len(keep_matching([batch], filter_)[0]) for batch in batches]
    assert compile_filter(no, 8, {1: old}) is None
    assert compile_filter(leaf_of(Function.EQUAL, 12, [9], INT[0]), 1, {1: old}) is None
