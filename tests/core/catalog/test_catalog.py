"""The catalog: what goes in by messages comes out, and its digest depends on nothing else."""

import json
import random

import pytest

from flussd.core.catalog import entries
from flussd.core.catalog.catalog import Catalog
from flussd.core.catalog.records import (
    BucketRecord,
    DatabaseRecord,
    NodeRecord,
    SchemaRecord,
    TableRecord,
)
from flussd.core.wire import private


def table(name="t", table_id=7, *, database="db", buckets=2, **properties):
    """A table of one column."""
    schema = {"version": 1, "columns": [{"name": "a", "data_type": {"type": "INTEGER"}, "id": 0}]}
    value = {"schema": schema, "partition_key": [], "bucket_key": [], "bucket_count": buckets}
    value |= {"version": 1, "properties": properties, "custom_properties": {}}
    schemas = (SchemaRecord(1, json.dumps(schema).encode()),)
    data = json.dumps(value).encode()
    return TableRecord.of((database, name), table_id, data, schemas, created_ms=1, modified_ms=2)


def bucket(table_id, number, *, leader=0, epoch=3, partition=-1):
    """A bucket record that uses every field."""
    key = (table_id, partition, number)
    return BucketRecord(key, (0, 1), leader, 99, epoch, (0,), 5, 6, 2, (1,), (4,))


def update(*, databases=(), tables=(), buckets=(), **fields):
    """A message with these entries."""
    message = private.UpdateCatalogRequest(coordinator_epoch=1, tablet_incarnation=1, sequence=1, **fields)
    message.databases.extend(entries.database_entry(one) for one in databases)
    message.tables.extend(entries.table_entry(one) for one in tables)
    message.buckets.extend(entries.bucket_entry(one) for one in buckets)
    return private.UpdateCatalogRequest.FromString(message.SerializeToString())


DATABASE = DatabaseRecord("db", b'{"version":1,"custom_properties":{}}', 3, 4)


@pytest.fixture
def catalog():
    """A catalog with a database, a table, and its two buckets."""
    made = Catalog()
    made.apply(update(databases=[DATABASE], tables=[table()], buckets=[bucket(7, 0), bucket(7, 1)]))
    return made


def test_records_travel(catalog):
    """What was told is what is known, to the last field."""
    assert {"db": DATABASE} == catalog.databases
    assert {("db", "t"): table()} == catalog.tables
    assert {(7, -1, 0): bucket(7, 0), (7, -1, 1): bucket(7, 1)} == catalog.buckets
    assert table() is not catalog.table_by_id(7)
    assert table() == catalog.table_by_id(7)
    catalog.check_all()


def test_a_partition_is_kept_apart(catalog):
    """A bucket of partition 0 is not the table's own."""
    catalog.apply(update(buckets=[bucket(7, 0, partition=0)]))

    assert 3 == len(catalog.buckets)
    assert 0 == catalog.bucket((7, 0, 0)).key[1]


def test_nodes_are_a_full_list(catalog):
    """Who is not in the list is gone; a message that says nothing of nodes changes none."""
    one, two = NodeRecord(1, "h", 1, 10), NodeRecord(0, "h", 2, 11)
    catalog.apply(update(nodes_changed=True, nodes=[entries.node_entry(n) for n in (one, two)]))
    catalog.apply(update())
    assert [0, 1] == list(catalog.nodes)
    catalog.apply(update(nodes_changed=True, nodes=[entries.node_entry(one)]))
    assert {1: one} == catalog.nodes
    catalog.apply(update(nodes_changed=True))
    assert {} == catalog.nodes
    catalog.check_all()


def test_a_dropped_table_takes_its_buckets(catalog):
    """Its entry alone removes them, and says nothing of others."""
    catalog.apply(update(tables=[table("u", 8)], buckets=[bucket(8, 0)]))
    message = update()
    message.tables.add(database="db", name="t", table_id=7, dropped=True)
    catalog.apply(message)

    assert ["u"] == catalog.table_names("db")
    assert [(8, -1, 0)] == list(catalog.buckets)
    catalog.check_all()


def test_a_name_that_is_used_again(catalog):
    """1. Dropped and made again, told in one: the old one is gone. 2. Its late drop harms nobody."""
    catalog.apply(update(tables=[table("t", 9)], buckets=[bucket(9, 0)]))
    late = update()
    late.tables.add(database="db", name="t", table_id=7, dropped=True)
    catalog.apply(late)

    assert 9 == catalog.tables["db", "t"].table_id
    assert [(9, -1, 0)] == list(catalog.buckets)
    catalog.check_all()


def test_what_comes_twice_changes_nothing(catalog):
    """Desired state may be told again."""
    before = catalog.digest()
    catalog.apply(update(databases=[DATABASE], tables=[table()], buckets=[bucket(7, 1), bucket(7, 0)]))

    assert before == catalog.digest()
    catalog.check_all()


def test_the_log_format_of_a_table():
    """It is known by upstream's names, whatever the case; ARROW unless said."""
    assert "ARROW" == table().log_format
    assert "INDEXED" == table(**{"table.log.format": "indexed"}).log_format


@pytest.mark.parametrize("seed", range(20))
def test_the_digest_depends_on_the_content_alone(seed):
    """Two random walks to the same content have the same digest, a clone goes its own way."""
    draw = random.Random(seed)
    walked = Catalog()
    for _ in range(100):
        number = draw.randrange(6)
        if draw.random() < 0.3:
            walked.drop_table(number)
        elif draw.random() < 0.5:
            walked.put_table(table(f"t{number}", number, buckets=4))
        elif number in walked.by_id:
            walked.put_bucket(bucket(number, draw.randrange(4), epoch=draw.randrange(3)))
        walked.check_all()
    straight = Catalog()
    for one in sorted(walked.tables.values(), key=lambda one: -one.table_id):
        straight.put_table(one)
    for record in walked.buckets.values():
        straight.put_bucket(record)
    clone = walked.clone()
    clone.put_database(DATABASE)

    assert straight.digest() == walked.digest()
    assert clone.digest() != walked.digest()
    assert {} == walked.databases
    clone.check_all()
