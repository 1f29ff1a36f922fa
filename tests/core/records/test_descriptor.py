"""Descriptors: every recorded creation gets the recorded code or the recorded descriptor."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flussd.core.records.descriptor import (
    ClusterDefaults,
    parse_database_descriptor,
    parse_table_descriptor,
    validate,
    with_defaults,
)
from flussd.core.records.refusal import Refused
from flussd.core.records.schema import parse_schema

CASES = json.loads((Path(__file__).resolve().parents[2] / "data/wire-cases.json").read_text())["cases"]
DEFAULTS = ClusterDefaults()
BY_OTHERS = {  # decided by the coordinator: names, existence, live servers
    4, 7, 8, 16, 17,
}  # fmt: skip


def _raw(value):
    if "$text" in value:
        return value["$text"].encode()
    return json.dumps(value["$json"]).encode()


def _creations():
    found = []
    for case in CASES:
        if "bad-name" in case["name"] or "database-name" in case["name"]:
            continue
        for n, step in enumerate(case["steps"]):
            codes = step.get("error", [])
            codes = codes if isinstance(codes, list) else [codes]
            if step.get("api") == "CREATE_TABLE" and not any(code in BY_OTHERS for code in codes):
                raw = _raw(step["request"]["table_json"])
                found.append(pytest.param(raw, codes, id=f"{case['name']}-{n}"))
    return found


def _create(raw):
    descriptor = with_defaults(parse_table_descriptor(raw), DEFAULTS)
    validate(descriptor, DEFAULTS)
    return descriptor


@pytest.mark.parametrize(("raw", "codes"), _creations())
def test_recorded_creations_get_their_code(raw, codes):
    """Accepted where the Java server accepted, else refused with its code."""
    if not codes:
        _create(raw)
        return
    with pytest.raises(Refused) as refused:
        _create(raw)

    assert refused.value.code in codes
    assert refused.value.text


def _stored():
    found = []
    for case in CASES:
        created = None
        for step in case["steps"]:
            if step.get("api") == "CREATE_TABLE" and "error" not in step:
                created = _raw(step["request"]["table_json"])
            expected = (
                step.get("expect", {}).get("table_json") if step.get("api") == "GET_TABLE_INFO" else None
            )
            if created and isinstance(expected, dict) and "$json" in expected:
                found.append(pytest.param(created, expected["$json"], id=case["name"]))
                created = None
    return found


@pytest.mark.parametrize(("raw", "expected"), _stored())
def test_recorded_descriptors_come_back(raw, expected):
    """With the defaults filled in, as the Java server returned them."""
    assert expected == json.loads(_create(raw).to_json())


def test_there_are_enough_recorded_creations():
    """The search finds what was recorded."""
    assert len(_creations()) >= 80
    assert len(_stored()) >= 8


def test_what_we_write_we_read():
    """A stored descriptor and schema read back the same."""
    for parameter in _stored():
        descriptor = _create(parameter.values[0])
        again = parse_table_descriptor(descriptor.to_json())
        assert descriptor == again
        assert descriptor.schema == parse_schema(json.loads(descriptor.schema.to_json()))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
GOOD = json.loads(_stored()[0].values[0])


def _paths(value, path=()):
    yield path
    if isinstance(value, dict):
        for key in value:
            yield from _paths(value[key], (*path, key))
    elif isinstance(value, list):
        for n, inner in enumerate(value):
            yield from _paths(inner, (*path, n))


@given(st.data())
def test_any_value_anywhere_is_accepted_or_refused(data):
    """A good descriptor with one part replaced by anything: never another exception."""
    path = data.draw(st.sampled_from(list(_paths(GOOD))))
    value = data.draw(VALUES)
    changed = json.loads(json.dumps(GOOD))
    if path:
        target = changed
        for key in path[:-1]:
            target = target[key]
        target[path[-1]] = value
    else:
        changed = value
    try:
        _create(json.dumps(changed).encode()).to_json()
    except Refused:
        return


@given(st.binary(max_size=100))
def test_arbitrary_bytes_are_refused(data):
    """For databases and tables."""
    with pytest.raises(Refused):
        _create(data)
    try:
        parse_database_descriptor(data)
    except Refused:
        return


def test_deep_nesting_is_refused():
    """Both in JSON itself and in types: no recursion without a bound."""
    with pytest.raises(Refused):
        parse_table_descriptor(b"[" * 100_000)
    with pytest.raises(Refused, match="nested brackets"):
        parse_table_descriptor(b'{"more":' * 500 + b"1" + b"}" * 500)
    deep = {"type": "INTEGER"}
    for _ in range(40):
        deep = {"type": "ARRAY", "element_type": deep}
    bad = dict(GOOD, schema={"version": 1, "columns": [{"name": "a", "data_type": deep}]})
    with pytest.raises(Refused, match="nested deeper"):
        parse_table_descriptor(json.dumps(bad).encode())
