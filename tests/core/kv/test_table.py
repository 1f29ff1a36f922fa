"""What a bucket refuses, ids of auto-increment columns, offsets within batches, and missing rows."""

import struct

import pytest
from crc32c import crc32c
from hypothesis import given, settings
from hypothesis import strategies as st

from flussd.core.kv.ids import Ids, IdsWanted
from flussd.core.kv.table import KvTable
from flussd.core.records.batch import HEAD_BYTES as LOG_HEAD_BYTES
from flussd.core.records.batch import read_head
from flussd.core.records.kv_batch import COVERED_FROM, HEAD_BYTES, build_kv_batch
from flussd.core.records.refusal import Refused
from flussd.core.records.rows.atoms import BadRow, BadValue
from flussd.core.slices import finished
from flussd.core.wire.errors import ErrorCode

TIMESTAMP = {"type": "TIMESTAMP_WITH_LOCAL_TIME_ZONE", "precision": 6}
COLUMNS = (("k", "STRING"), ("a", "BIGINT"), ("s", "STRING"), ("t", TIMESTAMP))
ROWS = [("one", 1, "text", 5), ("two", None, None, None), ("one", 1 << 50, "other", 10**15), ("two",)]
VERSIONED = {"table.merge-engine": "versioned", "table.merge-engine.versioned.ver-column": "a"}
ENGINES = {
    "default": {},
    "rows": {"table.log.format": "compacted"},
    "indexed": {"table.kv.format": "indexed", "table.log.format": "compacted"},
    "wal": {"table.changelog.image": "wal"},
    "first": {"table.merge-engine": "first_row"},
    "versioned": VERSIONED,
    "aggregation": {"table.merge-engine": "aggregation", "table.delete.behavior": "allow"},
}


@pytest.fixture(params=ENGINES)
def rules(request, rules_of):
    """Rules of one table of each kind."""
    functions = {"a": "sum", "s": "listagg"} if request.param == "aggregation" else {}
    return rules_of(COLUMNS, functions=functions, **ENGINES[request.param])


def resealed(batch):
    """The batch with the checksum that it should have."""
    return memoryview(
        batch[: COVERED_FROM - 4] + struct.pack("<I", crc32c(batch[COVERED_FROM:])) + batch[COVERED_FROM:]
    )


def accepted(table, merged, offset):
    table.accept(merged, offset)
    table.commit(offset + merged.offset_count)
    return offset + merged.offset_count


@settings(max_examples=200)
@given(data=st.data())
def test_damaged_batches_are_refused_and_change_nothing(rules_of, put_of, data):
    """Never another exception; what is taken in spite of it can be replayed by the next leader."""
    name = data.draw(st.sampled_from(sorted(ENGINES)))
    functions = {"a": "sum", "s": "listagg"} if name == "aggregation" else {}
    rules = rules_of(COLUMNS, functions=functions, **ENGINES[name])
    targets = data.draw(st.sampled_from([(), (0, 1), (0,)])) if name in ("default", "aggregation") else ()
    table = KvTable()
    end = accepted(table, finished(table.merging(rules, put_of(rules, ROWS[:2]))), 0)
    before = table.first(9)
    batch = bytearray(put_of(rules, ROWS))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(HEAD_BYTES, len(batch) - 1))
        batch[at] = data.draw(st.integers(0, 255))
    try:
        merged = finished(table.merging(rules, resealed(batch), targets))
    except Refused:
        merged = None

    assert (before, None) == (table.first(9), table.newest(b"\5other"))
    if merged is not None:
        accepted(table, merged, end)
        view = memoryview(merged.log_batch)
        KvTable().replay(rules, view, read_head(view, 0))
        assert all(len(rules.values_of(value)) == len(COLUMNS) for value in table.first(9))


@settings(max_examples=200)
@given(data=st.data())
def test_a_damaged_changelog_is_told_and_changes_nothing(rules_of, put_of, data):
    """A leader that folds its log learns that a batch is none of this table; it never falls over it."""
    rules = rules_of(COLUMNS, **ENGINES[data.draw(st.sampled_from(["default", "rows", "indexed"]))])
    table = KvTable()
    log = bytearray(finished(table.merging(rules, put_of(rules, ROWS))).log_batch)
    for _ in range(data.draw(st.integers(1, 3))):
        log[data.draw(st.integers(LOG_HEAD_BYTES[0], len(log) - 1))] = data.draw(st.integers(0, 255))
    view = memoryview(bytes(log))
    try:
        table.replay(rules, view, read_head(view, 0))
    except (BadRow, BadValue):
        assert 0 == table.row_count
    assert all(len(rules.values_of(value)) == len(COLUMNS) for value in table.first(9))


def refusal(table, rules, batch, targets=(), **kwargs):
    with pytest.raises(Refused) as refused:
        finished(table.merging(rules, memoryview(batch), targets, **kwargs))
    return refused.value.code


def test_what_is_no_batch_is_refused(rules, put_of):
    """A cut batch, one with a wrong checksum or magic, and one of a schema that is not there."""
    table, batch = KvTable(), bytes(put_of(rules, ROWS))
    wrong = batch[:-1] + bytes([batch[-1] ^ 1])

    assert ErrorCode.CORRUPT_RECORD_EXCEPTION == refusal(table, rules, batch[:-1])
    assert ErrorCode.CORRUPT_RECORD_EXCEPTION == refusal(table, rules, batch[:20])
    assert ErrorCode.CORRUPT_RECORD_EXCEPTION == refusal(table, rules, wrong)
    assert ErrorCode.CORRUPT_RECORD_EXCEPTION == refusal(table, rules, batch[:4] + b"\1" + batch[5:])
    for schema_id in (0, 2, -1):
        other = put_of(rules, [], schema_id)
        assert ErrorCode.SCHEMA_NOT_EXIST == refusal(table, rules, other)


def test_nulls_where_there_are_none_are_refused(rules):
    """The key column is NOT NULL; the row is told by its column."""
    row = rules.latest.codec.encode((None, 1, "x", 3))
    batch = build_kv_batch([(b"\1k", row)], schema_id=1)
    with pytest.raises(Refused, match="column k: expected a value") as refused:
        finished(KvTable().merging(rules, memoryview(batch)))

    assert ErrorCode.UNKNOWN_SERVER_ERROR == refused.value.code


def test_a_row_that_is_too_long_is_refused(rules):
    """Whatever the changelog is made of: the next leader could not read it."""
    row = rules.latest.codec.encode(("k", 1, "x", 3))
    batch = build_kv_batch([(b"\1k", row + b"\0")], schema_id=1)
    with pytest.raises(Refused, match=r"expected .* bytes, got") as refused:
        finished(KvTable().merging(rules, memoryview(batch)))

    assert ErrorCode.UNKNOWN_SERVER_ERROR == refused.value.code


def test_batches_are_committed_and_cut_as_a_whole(rules_of, put_of):
    """A watermark within a batch shows nothing of it; a cut within it takes all of it away."""
    rules, table = rules_of(), KvTable()
    first = finished(table.merging(rules, put_of(rules, [(1, "a", 1), (2, "b", 2)])))
    table.accept(first, 0)
    second = finished(table.merging(rules, put_of(rules, [(1, "c", 3), (3, "d", 4)])))
    table.accept(second, 2)

    assert (2, 3) == (first.record_count, second.record_count)
    table.commit(1)
    assert 0 == table.row_count
    table.commit(4)
    assert [(1, "a", 1), (2, "b", 2)] == [rules.values_of(value) for value in table.first(9)]
    table.cut(4)
    assert rules.stored_of((1, "a", 1)) == table.newest(rules.key_of((1,)))
    assert None is table.newest(rules.key_of((3,)))


def test_missing_rows_are_inserted_once(rules_of, put_of):
    """Keys that are there, or on their way, are not inserted again."""
    rules, table = rules_of(), KvTable()
    keys = [rules.key_of((n,)) for n in (1, 2, 2, 3)]
    table.accept(finished(table.merging(rules, put_of(rules, [(3, "x", 1)]))), 0)
    missing = table.missing_rows(rules, keys)
    merged = finished(table.merging(rules, memoryview(missing.batch), missing.targets))

    assert ((0,), 2) == (missing.targets, merged.record_count)
    accepted(table, merged, 1)
    assert [(1, None, None), (2, None, None), (3, "x", 1)] == [
        rules.values_of(value) for value in table.first(9)
    ]
    assert None is table.missing_rows(rules, keys)
    with pytest.raises(Refused, match="lookup with insert"):
        table.missing_rows(rules, [b"no key of an int"])


ID_COLUMNS = (("k", "STRING"), ("n", "INTEGER"), ("v", "STRING"))


def test_a_merge_waits_for_ids(rules_of, put_of):
    """It says how many it lacks and changes nothing; asked again, it goes through all blocks in order."""
    rules, table, ids = rules_of(ID_COLUMNS, auto_increment=["n"]), KvTable(), Ids()
    put = put_of(rules, [(key, None, "x") for key in "abcda"])
    ids.add(1, 2)
    with pytest.raises(IdsWanted) as wanted:
        finished(table.merging(rules, put, (0, 2), ids=ids))

    assert (2, 2) == (wanted.value.count, ids.left_count)
    ids.add(11, 13)
    merged = finished(table.merging(rules, put, (0, 2), ids=ids))
    accepted(table, merged, 0)
    assert [("a", 1), ("b", 2), ("c", 11), ("d", 12)] == [
        rules.values_of(value)[:2] for value in table.first(9)
    ]
    assert 1 == ids.left_count


def test_ids_beyond_the_type_are_refused(rules_of, put_of):
    """An INT column ends where INT does; the ids that were drawn are lost."""
    rules, ids = rules_of(ID_COLUMNS, auto_increment=["n"]), Ids()
    ids.add((1 << 31) - 1, 1 << 40)
    batch = put_of(rules, [("a", None, "x"), ("b", None, "x")])

    assert ErrorCode.UNKNOWN_SERVER_ERROR == refusal(KvTable(), rules, batch, (0, 2), ids=ids)
    assert (1 << 40) - (1 << 31) == ids.left_count


def test_target_columns_are_remembered_within_bounds(rules_of, put_of):
    """A writer that names other columns with each batch does not fill the memory."""
    rules, table = rules_of(), KvTable()
    for n in range(200):
        finished(table.merging(rules, put_of(rules, [(1, "a", 1)]), (0, 1, *[0] * n)))

    assert len(rules.plans) <= 64


def test_a_key_that_goes_comes_and_goes_again(rules_of, put_of):
    """Each of three batches is committed by itself; until the last one is, later puts see no row."""
    rules, table = rules_of(), KvTable()
    key, end = (
        rules.key_of((1,)),
        accepted(table, finished(table.merging(rules, put_of(rules, [(1, "a", 1)]))), 0),
    )
    ends = []
    for record in ((1,), (1, "b", 2), (1,)):
        merged = finished(table.merging(rules, put_of(rules, [record])))
        table.accept(merged, end)
        end += merged.offset_count
        ends.append(end)

    assert None is table.newest(key)
    table.commit(ends[0])
    assert (None, None) == (table.get(key), table.newest(key))
    table.commit(ends[1])
    assert (rules.stored_of((1, "b", 2)), None) == (table.get(key), table.newest(key))
    table.commit(ends[2])
    assert (None, None) == (table.get(key), table.newest(key))
