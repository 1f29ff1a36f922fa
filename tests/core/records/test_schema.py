"""Schemas: ids, keys and functions; and every table of the recorded key-value scenarios."""

from __future__ import annotations

import importlib.util
import json
import time
from pathlib import Path

import pytest

from flussd.core.records.descriptor import ClusterDefaults, parse_table_descriptor, validate, with_defaults
from flussd.core.records.refusal import Refused
from flussd.core.records.schema import parse_schema

SHARED = Path(__file__).parents[4] / "shared"
INT = {"type": "INTEGER"}
ROW = {"type": "ROW", "fields": [{"name": "x", "field_type": INT}, {"name": "y", "field_type": INT}]}


def schema_of(*columns, **more):
    """Return schema JSON with columns (name, type, members)."""
    told = [{"name": name, "data_type": kind, **members} for name, kind, members in columns]
    return {"version": 1, "columns": told, **more}


def code_of(told):
    """Return the code that refuses a schema, 0 if none does."""
    try:
        parse_schema(told)
    except Refused as refused:
        return int(refused.code)
    return 0


def created(function, kind="INTEGER", *, key=False, engine="aggregation", parameters=None):
    """Create a table with a function on a column; return the code, and the descriptor."""
    agg = {"type": function} | ({} if parameters is None else {"parameters": parameters})
    columns = [
        ("id", {"type": "INTEGER"}, {"agg_function": agg} if key else {}),
        (
            "v",
            {"type": kind, **({"length": 3} if kind in ("CHAR", "BINARY") else {})},
            {"agg_function": agg},
        ),
    ]
    told = {
        "version": 1,
        "schema": schema_of(*columns, primary_key=["id"]),
        "partition_key": [],
        "properties": {"table.merge-engine": engine} if engine else {},
        "custom_properties": {},
    }
    try:
        descriptor = with_defaults(parse_table_descriptor(json.dumps(told).encode()), ClusterDefaults())
        validate(descriptor, ClusterDefaults())
    except Refused as refused:
        return int(refused.code), None
    return 0, descriptor


@pytest.mark.parametrize(
    "columns",
    [
        [("a", INT, {"id": 0}), ("b", INT, {})],
        [("a", INT, {"id": 1}), ("b", INT, {"id": 1})],
        [("a", INT, {"id": 2**31})],
        [("a", INT, {"id": "0"})],
        [("a", INT, {}), ("a", INT, {})],
        [(" ", INT, {})],
        [],
        [("__offset", INT, {})],
        [("a", INT, {"comment": 3})],
        [("a", INT, {"agg_function": "sum"})],
        [("a", INT, {"agg_function": {"type": "sum", "parameters": {"x": 1}}})],
        [("a", {"type": "ROW", "fields": [{"name": "x", "field_type": INT, "field_id": 0}]}, {"id": 0})],
        [
            (
                "a",
                {
                    "type": "ROW",
                    "fields": [
                        {"name": "x", "field_type": INT, "field_id": 5},
                        {"name": "y", "field_type": INT},
                    ],
                },
                {"id": 0},
            )
        ],
    ],
)
def test_bad_columns(columns):
    """Refused as a bad table: 15."""
    assert code_of(schema_of(*columns)) == 15


@pytest.mark.parametrize(
    "more",
    [
        {"primary_key": []},
        {"primary_key": ["z"]},
        {"primary_key": ["a", "a"]},
        {"primary_key": "a"},
        {"primary_key": [1]},
        {"auto_increment_column": ["b"]},
        {"primary_key": ["a"], "auto_increment_column": ["a"]},
        {"primary_key": ["a"], "auto_increment_column": ["z"]},
        {"primary_key": ["a"], "auto_increment_column": ["b", "c"]},
        {"primary_key": ["a"], "auto_increment_column": ["s"]},
        {"highest_field_id": "3"},
    ],
)
def test_bad_keys(more):
    """Refused as a bad table: 15."""
    columns = [("a", INT, {}), ("b", INT, {}), ("c", INT, {}), ("s", {"type": "STRING"}, {})]

    assert code_of(schema_of(*columns, **more)) == 15


def test_ids_are_given_in_pre_order():
    """A column, then the fields within it; the highest is remembered."""
    schema = parse_schema(schema_of(("a", INT, {}), ("r", ROW, {}), ("z", INT, {})))

    assert [0, 1, 4] == [column.column_id for column in schema.columns]
    assert [2, 3] == [field.field_id for field in schema.columns[1].data_type.row_fields()]
    assert schema.highest_field_id == 4


def test_fields_without_ids_are_numbered_after_the_columns():
    """Clients that number columns only."""
    schema = parse_schema(schema_of(("r", ROW, {"id": 7}), ("z", INT, {"id": 3})))

    assert [8, 9] == [field.field_id for field in schema.columns[0].data_type.row_fields()]
    assert schema.highest_field_id == 9


def test_a_key_of_thousands_takes_no_longer_than_its_columns():
    """No look through all columns for each of the key: that would be 200 million steps, not 30 000."""
    names = [f"c{n}" for n in range(14_000)]
    told = {
        "version": 1,
        "schema": schema_of(*[(name, INT, {}) for name in names], primary_key=names),
        "partition_key": [],
        "bucket_key": names[1:],
        "properties": {},
        "custom_properties": {},
    }
    began = time.process_time()
    descriptor = with_defaults(parse_table_descriptor(json.dumps(told).encode()), ClusterDefaults())
    validate(descriptor, ClusterDefaults())

    assert time.process_time() - began < 2


def test_the_highest_id_outlives_its_column():
    """What the client says is kept when it is greater."""
    assert parse_schema(schema_of(("a", INT, {"id": 1}), highest_field_id=9)).highest_field_id == 9


def test_key_columns_are_not_null():
    """Whatever the JSON says; other members that nobody knows are dropped, as upstream does."""
    schema = parse_schema(schema_of(("a", INT, {"more": 1}), primary_key=["a"], more=2))
    expected = {
        "version": 1,
        "columns": [{"name": "a", "data_type": {"type": "INTEGER", "nullable": False}, "id": 0}],
        "primary_key": ["a"],
        "highest_field_id": 0,
    }

    assert expected == json.loads(schema.to_json())


@pytest.mark.parametrize(
    ("function", "kind", "parameters", "code"),
    [
        ("sum", "INTEGER", None, 0),
        ("sum", "STRING", None, 39),
        ("max", "DATE", None, 0),
        ("max", "BOOLEAN", None, 39),
        ("min", "BINARY", None, 39),
        ("last_value", "BYTES", None, 0),
        ("listagg", "CHAR", None, 0),
        ("listagg", "STRING", {"delimiter": ";"}, 0),
        ("listagg", "STRING", {"delimiter": ""}, 39),
        ("string_agg", "STRING", {"separator": ";"}, 39),
        ("sum", "INTEGER", {"delimiter": ","}, 39),
        ("bool_or", "STRING", None, 39),
        ("rbm32", "BIGINT", None, 39),
    ],
)
def test_functions_take_their_types_and_parameters(function, kind, parameters, code):
    """Under the aggregation engine, as recorded."""
    assert code == created(function, kind, parameters=parameters)[0]


def test_functions_need_their_engine_and_no_key():
    """39 without the engine, 15 on a column of the key."""
    assert created("sum", engine=None)[0] == 39
    assert created("sum", engine="first_row")[0] == 39
    assert created("sum", key=True)[0] == 15


@pytest.mark.parametrize(("given", "stored"), [("SUM", "sum"), ("Bool-And", "bool_and"), ("median", None)])
def test_spellings_of_functions(given, stored):
    """Any case and - for _; a function that nobody knows is dropped."""
    code, descriptor = created(given, "BOOLEAN" if stored == "bool_and" else "INTEGER")
    function = descriptor.schema.columns[1].aggregation

    assert code == 0
    assert stored == (None if function is None else function.name)


@pytest.mark.skipif(not SHARED.exists(), reason="the specification is not at hand")
def test_every_table_of_the_recorded_scenarios():
    """397 creations of the Java server: refused with the recorded code, or not at all."""
    spec = importlib.util.spec_from_file_location("kvc", SHARED / "tools" / "kv_conformance.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    wrong = {}
    scenarios = json.loads((SHARED / "spec" / "kv-traces.json").read_text())["scenarios"]
    for scenario in scenarios:
        expected = (scenario.get("create") or {}).get("error", 0)
        got = 0
        try:
            raw = json.dumps(tool.table_json(scenario["table"])).encode()
            validate(with_defaults(parse_table_descriptor(raw), ClusterDefaults()), ClusterDefaults())
        except Refused as refused:
            got = int(refused.code)
        if got != expected:
            wrong[scenario["name"]] = (expected, got)

    assert len(scenarios) > 300
    assert wrong == {"create/replication-too-high": (17, 0)}  # the coordinator counts its servers
