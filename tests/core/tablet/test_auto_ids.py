"""Ids of an auto-increment column: blocks from a counter in the registry, while puts wait for them."""

from __future__ import annotations

import pytest

from flussd.core import limits
from flussd.core.coordinator import layout
from flussd.core.records.rows.codec import RowFormat, row_codec
from flussd.core.records.types import DataType
from flussd.core.registry import messages as r
from flussd.core.tablet.auto_ids import blocks_of, counter_path
from flussd.core.wire.errors import ErrorCode

PATH = "/fluss/metadata/databases/d/tables/t/auto_inc/col_2"


class Counter:
    """The counter in the registry; *answers* are given first, in place of the true ones."""

    def __init__(self, registry):
        self.true, registry.answer = registry.answer, self.answer
        self.data, self.version, self.answers, self.asked = bytes(8), 0, [], []

    @property
    def value(self):
        return int.from_bytes(self.data, "big", signed=True)

    def answer(self, operation):
        if isinstance(operation, r.GetData) and operation.path == PATH:
            self.asked.append("read")
            if self.answers:
                return r.Answer(self.answers.pop(0))
            return r.Answer(r.Outcome.OK, data=self.data, stat=r.Stat(1, 1, self.version, 0, 0, 0))
        if isinstance(operation, r.Multi) and operation.writes[0].path == PATH:
            self.asked.append("write")
            if self.answers:
                return r.Answer(self.answers.pop(0))
            (write,) = operation.writes
            if write.version != self.version:
                return r.Answer(r.Outcome.BAD_VERSION)
            self.data, self.version = write.data, self.version + 1
            return r.Answer(r.Outcome.OK, created=(None,), stats=(None,))
        return self.true(operation)


@pytest.fixture
def ids(keyed):
    """A table with a column c of ids, in blocks of 10."""
    more = {"name": "c", "data_type": {"type": "BIGINT"}, "id": 2}
    columns = [*keyed.schemas[0]["columns"], more]
    keyed.schemas = (
        keyed.schemas[0] | {"columns": columns, "highest_field_id": 2, "auto_increment_column": ["c"]},
    )
    keyed.properties["table.auto-increment.cache-size"] = "10"
    keyed.codec = row_codec(RowFormat.COMPACTED, (*keyed.TYPES, DataType("BIGINT")))
    keyed.tell(buckets=(0, 1))
    keyed.counter = Counter(keyed.server.registry)
    return keyed


def put(ids, *keys, **more):
    return ids.put(*((key, "x", None) for key in keys), targets=(0, 1), **more)


def found(ids, *keys, **more):
    return [row and row[2] for row in ids.lookup(*keys, **more)]


def test_each_row_gets_an_id(ids):
    """From 1 on; updates keep it; the block is taken once."""
    assert 3 == put(ids, 5, 6, 7).log_end_offset
    assert 6 == put(ids, 6, 8).log_end_offset

    assert [1, 2, 3, 4] == found(ids, 5, 6, 7, 8)
    assert ["read", "write"] == ids.counter.asked
    assert 10 == ids.counter.value


def test_a_large_put_takes_many_blocks(ids):
    """At once."""
    put(ids, *range(25))

    assert list(range(1, 26)) == found(ids, *range(25))
    assert (30, ["read", "write"]) == (ids.counter.value, ids.counter.asked)


def test_each_bucket_has_its_own_block(ids):
    """And a new leader takes a new one."""
    put(ids, 1)
    put(ids, 1, bucket=1)
    put(ids, 2)
    ids.server.restart()
    ids.tell(epoch=2, buckets=(0, 1))
    ids.counter.true, ids.server.registry.answer = ids.server.registry.answer, ids.counter.answer
    put(ids, 3)

    assert [1, 2, 21] == found(ids, 1, 2, 3)
    assert [11] == found(ids, 1, bucket=1)


def test_puts_wait_in_their_order(ids):
    """1. The registry is silent: puts of the bucket wait, those of others do not have to.

    2. It answers: they are done in the order in which they came.
    """
    ids.server.registry.silent = True
    waiting = [ids.ask_put((1, str(n), None), targets=(0, 1), writer_id=4, sequence=n) for n in range(3)]
    assert [None] * 3 == [ids.put_answer(one) for one in waiting]
    ids.server.registry.silent = False
    for token in list(ids.server.machine.auto_ids.asked):
        ids.server.driver.post(r.RegistryAnswered(token, ids.counter.answer(r.GetData(PATH))))
    ids.server.driver.run()

    assert [1, 3, 5] == [ids.put_answer(one).log_end_offset for one in waiting]
    assert [(1, "2", 1)] == ids.lookup(1)


@pytest.mark.parametrize("outcome", [r.Outcome.UNKNOWN, r.Outcome.NO_NODE, r.Outcome.SESSION_EXPIRED])
@pytest.mark.parametrize("behind", [0, 1])
def test_the_registry_is_asked_again(ids, outcome, behind):
    """After a pause, with a new block: the outcome of the last write is unknown."""
    ids.counter.answers = [outcome]
    if behind:  # the write fails, the read before it does not
        ids.counter.answers = []
        answer = ids.counter.answer

        def once(operation):
            if isinstance(operation, r.Multi) and not ids.counter.answers and once.armed:
                once.armed = False
                return r.Answer(outcome)
            return answer(operation)

        once.armed = True
        ids.server.registry.answer = once
    asked = ids.ask_put((1, "x", None), targets=(0, 1))
    assert ids.put_answer(asked) is None
    ids.server.pass_ms(1000)

    assert 1 == ids.put_answer(asked).log_end_offset
    assert [1] == found(ids, 1)


def test_another_took_the_block(ids):
    """The version is another one: read again, at once."""
    ids.counter.answers = []
    answer = ids.counter.answer

    def raced(operation):
        given = answer(operation)
        if isinstance(operation, r.GetData) and len(ids.counter.asked) == 1:
            ids.counter.data, ids.counter.version = (50).to_bytes(8, "big"), 7
        return given

    ids.server.registry.answer = raced
    put(ids, 1)

    assert [51] == found(ids, 1)


def test_a_full_disk_of_the_registry(ids):
    """The put is refused with 70; a later one works."""
    ids.counter.answers = [r.Outcome.NOT_STORED]

    assert ErrorCode.DISK_WRITE_LOCKED == put(ids, 1).error_code
    assert 1 == put(ids, 1).log_end_offset


def test_leadership_lost_meanwhile(ids):
    """Who waits for ids is told; what the registry answers later is for nobody."""
    ids.server.registry.silent = True
    waiting = ids.ask_put((1, "x", None), targets=(0, 1))
    ids.tell(leader=4, epoch=2, buckets=(0, 1))
    ids.server.pass_ms(limits.RETRY_HOLD_MS)
    assert ErrorCode.NOT_LEADER_OR_FOLLOWER == ids.put_answer(waiting).error_code
    ids.server.registry.silent = False
    for token in list(ids.server.machine.auto_ids.asked):
        ids.server.driver.post(r.RegistryAnswered(token, ids.counter.answer(r.GetData(PATH))))
    ids.server.driver.run()

    ids.tell(epoch=3, buckets=(0, 1))
    assert 1 == put(ids, 1).log_end_offset


def test_who_leads_again_asks_once(ids):
    """The answer to what was asked in an earlier term is for the puts of the next."""
    ids.server.registry.silent = True
    ids.ask_put((1, "x", None), targets=(0, 1))
    ids.tell(leader=4, epoch=2, buckets=(0, 1))
    ids.tell(epoch=3, buckets=(0, 1))
    ids.server.pass_ms(limits.RETRY_HOLD_MS)
    waiting = ids.ask_put((2, "x", None), targets=(0, 1))

    (token,) = ids.server.machine.auto_ids.asked
    ids.server.registry.silent = False
    ids.server.driver.post(r.RegistryAnswered(token, ids.counter.answer(r.GetData(PATH))))
    ids.server.driver.run()
    assert 1 == ids.put_answer(waiting).log_end_offset
    assert [None, 1] == found(ids, 1, 2)


def test_a_client_that_leaves_meanwhile(ids):
    """What waits for ids on its behalf is not put."""
    ids.server.registry.silent = True
    ids.ask_put((1, "x", None), targets=(0, 1))
    ids.server.driver.connection_closed(ids.server.CLIENT)
    ids.server.driver.connection_opened(ids.server.CLIENT, internal=False)
    ids.server.registry.silent = False
    for token in list(ids.server.machine.auto_ids.asked):
        ids.server.driver.post(r.RegistryAnswered(token, ids.counter.answer(r.GetData(PATH))))
    ids.server.driver.run()

    assert [None] == found(ids, 1)


def test_inserts_by_lookup_get_ids(ids):
    """As other inserts do."""
    assert [(7, None, 1)] == ids.lookup(7, insert_if_not_exists=True, acks=-1, timeout_ms=1000)


def test_blocks():
    """Sizes below 1 are as upstream takes them."""
    assert ((1, 10),) == blocks_of(0, 10, 1) == blocks_of(0, 10, 10)
    assert ((11, 40),) == blocks_of(10, 10, 21)
    assert ((1, 0), (1, 0)) == blocks_of(0, 0, 2)
    assert ((1, -5), (-4, -10)) == blocks_of(0, -5, 2)


def test_the_coordinator_makes_the_counter_there(ids):
    """Both rooms name the same place."""
    table = ids.server.machine.catalog.table_by_id(9)

    assert PATH == counter_path(table) == layout.counter_path(table.path, table.auto_increment_id)
