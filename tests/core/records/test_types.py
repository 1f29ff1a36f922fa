"""Data types: what JSON describes one, and what is written of it."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flussd.core.records.refusal import Refused
from flussd.core.records.types import NESTING_MAX, parse_type

PLAIN = [
    "BOOLEAN",
    "TINYINT",
    "SMALLINT",
    "INTEGER",
    "BIGINT",
    "FLOAT",
    "DOUBLE",
    "STRING",
    "DATE",
    "BYTES",
]
TIMES = ["TIME_WITHOUT_TIME_ZONE", "TIMESTAMP_WITHOUT_TIME_ZONE", "TIMESTAMP_WITH_LOCAL_TIME_ZONE"]
BOOLEANS = st.booleans()


@st.composite
def _decimals(draw):
    precision = draw(st.integers(1, 38))
    return {"type": "DECIMAL", "precision": precision, "scale": draw(st.integers(0, precision))}


SCALARS = (
    st.builds(lambda name: {"type": name}, st.sampled_from(PLAIN))
    | st.builds(
        lambda name, length: {"type": name, "length": length},
        st.sampled_from(["CHAR", "BINARY"]),
        st.integers(1, 2**31 - 1),
    )
    | st.builds(
        lambda name, precision: {"type": name, "precision": precision},
        st.sampled_from(TIMES),
        st.integers(0, 9),
    )
    | _decimals()
)


def _nullable(types):
    return st.builds(lambda told, null: told if null else told | {"nullable": False}, types, BOOLEANS)


def _nested(types):
    names = st.lists(st.text(min_size=1).filter(str.strip), max_size=3, unique=True)
    return (
        st.builds(lambda element: {"type": "ARRAY", "element_type": element}, types)
        | st.builds(
            lambda key, value: {
                "type": "MAP",
                "key_type": key | {"nullable": False},
                "value_type": value,
            },
            types,
            types,
        )
        | st.builds(
            lambda names, kinds: {
                "type": "ROW",
                "fields": [
                    {"name": name, "field_type": kind, "field_id": n}
                    for n, (name, kind) in enumerate(zip(names, itertools.cycle(kinds), strict=False))
                ],
            },
            names,
            st.lists(types, min_size=1, max_size=3),
        )
    )


TYPES = st.recursive(_nullable(SCALARS), lambda types: _nullable(_nested(types)), max_leaves=6)


@given(TYPES)
def test_what_is_read_is_written(told):
    """Each type comes back to the letter."""
    assert told == parse_type(told, "a").to_json()


@pytest.mark.parametrize(
    "told",
    [
        None,
        [],
        "INTEGER",
        {},
        {"type": None},
        {"type": "integer"},
        {"type": "INT"},
        {"type": "UUID"},
        {"type": "INTEGER", "nullable": "no"},
        {"type": "CHAR"},
        {"type": "CHAR", "length": 0},
        {"type": "CHAR", "length": 2**31},
        {"type": "CHAR", "length": True},
        {"type": "CHAR", "length": 1.0},
        {"type": "BINARY", "length": "3"},
        {"type": "DECIMAL", "precision": 39, "scale": 0},
        {"type": "DECIMAL", "precision": 0, "scale": 0},
        {"type": "DECIMAL", "precision": 5, "scale": 6},
        {"type": "DECIMAL", "precision": 5},
        {"type": "TIMESTAMP_WITHOUT_TIME_ZONE"},
        {"type": "TIMESTAMP_WITHOUT_TIME_ZONE", "precision": 10},
        {"type": "TIME_WITHOUT_TIME_ZONE", "precision": -1},
        {"type": "ARRAY"},
        {"type": "ARRAY", "element_type": {"type": "UUID"}},
        {"type": "MAP", "key_type": {"type": "STRING"}},
        {"type": "ROW"},
        {"type": "ROW", "fields": [{"name": "x"}]},
        {"type": "ROW", "fields": [{"name": " ", "field_type": {"type": "INTEGER"}}]},
        {"type": "ROW", "fields": [{"name": "x", "field_type": {"type": "INTEGER"}, "field_id": 2**31}]},
        {"type": "ROW", "fields": [{"name": "x", "field_type": {"type": "INTEGER"}}] * 2},
    ],
)
def test_no_types(told):
    """Refused as a bad table: 15."""
    with pytest.raises(Refused) as refused:
        parse_type(told, "a")

    assert refused.value.code == 15


def test_keys_of_maps_are_never_null():
    """Whatever the JSON says, as upstream's MapType."""
    told = {"type": "MAP", "key_type": {"type": "STRING"}, "value_type": {"type": "STRING"}}

    assert not parse_type(told, "a").key.nullable


@pytest.mark.parametrize(("depth", "fits"), [(NESTING_MAX, True), (NESTING_MAX + 1, False)])
def test_depth_has_a_bound(depth, fits):
    """NESTING_MAX arrays around a number are read, one more is refused."""
    told = {"type": "INTEGER"}
    for _ in range(depth):
        told = {"type": "ARRAY", "element_type": told}
    if fits:
        assert told == parse_type(told, "a").to_json()
    else:
        with pytest.raises(Refused, match="nested deeper"):
            parse_type(told, "a")


def test_fields_are_numbered_in_pre_order():
    """A field before those within it, and these before its neighbour."""
    inner = {"type": "ROW", "fields": [{"name": "y", "field_type": {"type": "INTEGER"}}]}
    told = {
        "type": "ROW",
        "fields": [{"name": "x", "field_type": inner}, {"name": "z", "field_type": {"type": "DATE"}}],
    }
    numbered = parse_type(told, "a").with_field_ids(itertools.count(5))

    assert [("x", 5), ("y", 6), ("z", 7)] == [(f.name, f.field_id) for f in numbered.row_fields()]
