"""Rules of small tables, and puts to them."""

import json

import pytest

from flussd.core.kv.rules import TableRules
from flussd.core.records.descriptor import ClusterDefaults, parse_table_descriptor, validate, with_defaults
from flussd.core.records.kv_batch import build_kv_batch

COLUMNS = (("k", "INTEGER"), ("a", "STRING"), ("b", "BIGINT"))


def make_rules(columns=COLUMNS, key=("k",), functions=(), auto_increment=(), **properties):
    """The rules of a table; *columns* have names of types, or their JSON."""
    functions = dict(functions)
    told = {
        "version": 1,
        "schema": {
            "version": 1,
            "columns": [
                {"name": name, "data_type": kind if isinstance(kind, dict) else {"type": kind}}
                | ({"agg_function": {"type": functions[name]}} if name in functions else {})
                for name, kind in columns
            ],
            "primary_key": list(key),
            "auto_increment_column": list(auto_increment),
        },
        "partition_key": [],
        "bucket_key": [],
        "bucket_count": 1,
        "properties": properties,
        "custom_properties": {},
    }
    descriptor = with_defaults(parse_table_descriptor(json.dumps(told)), ClusterDefaults())
    validate(descriptor, ClusterDefaults())
    return TableRules.of(descriptor.to_json(), {1: descriptor.schema.to_value()})


def make_put(rules, records, schema_id=1):
    """A put of rows, and of deletes: these are (key,)."""
    encode, built = rules.latest.codec.encode, []
    for row in records:
        is_delete = len(row) == 1
        built.append((rules.key_of(row), None if is_delete else encode(row)))
    return memoryview(build_kv_batch(built, schema_id=schema_id))


@pytest.fixture(scope="session")
def rules_of():
    """Makes the rules of a table."""
    return make_rules


@pytest.fixture(scope="session")
def put_of():
    """Makes a put."""
    return make_put
