"""Rows of simulated writers: Arrow reads the bodies, and the model knows what a predicate wants."""

from __future__ import annotations

import pyarrow as pa

from flussd.core.records.batch import read_head
from flussd.core.records.predicate import Function, compile_filter, may_match
from flussd.runtime_sim.draws import Stream
from flussd.runtime_sim.workload.batches import Identity, identity_of, make_batch
from flussd.runtime_sim.workload.rows import (
    Condition,
    Wanted,
    arrow_body,
    drawn_values,
    integers,
    longs,
    texts,
)

SCHEMA = {
    "columns": [
        {"name": name, "data_type": {"type": kind}, "id": n}
        for n, (name, kind) in enumerate((("who", "BIGINT"), ("v", "INTEGER"), ("fill", "BYTES")))
    ]
}


def sent(values, **more):
    """A batch that a writer makes of these values."""
    told = {
        "writer_id": 7, "sequence": 0, "filler": b"xyz", "partition": "", "added_columns": 0,
        "schema_id": 1, "acks": -1, "generation": 0, "magic": 1, "with_statistics": True,
    }  # fmt: skip
    return make_batch(Identity(12, 345), values=values, **(told | more))


def test_arrow_reads_a_body():
    """The columns come back as they were written."""
    schema = pa.schema([("who", pa.int64()), ("v", pa.int32()), ("fill", pa.binary())])
    body = arrow_body(3, [longs(5, 3), integers((1, None, 3)), texts([b"ab", b"", b"c"])])
    batch = pa.ipc.read_record_batch(pa.py_buffer(body), schema)

    assert {"who": [5] * 3, "v": [1, None, 3], "fill": [b"ab", b"", b"c"]} == batch.to_pydict()


def test_a_batch_tells_who_wrote_it():
    """With statistics before its rows and without, projected to its first column or whole."""
    for more in ({}, {"magic": 0}, {"magic": 2}, {"with_statistics": False}, {"partition": "p"}):
        batch = sent((1, 2), **more)
        view = memoryview(batch.data)

        assert batch.identity == identity_of(view, read_head(view, 0))


def test_the_core_keeps_what_the_model_wants():
    """For many predicates: a batch with a wanted row is kept, and some of the others are not."""
    dropped = 0
    for seed in range(300):
        draws = Stream.of(seed, "test")
        wanted, values = Wanted.drawn(draws), drawn_values(draws, 1 + seed % 5)
        batch = sent(values)
        view = memoryview(batch.data)
        compiled = compile_filter(wanted.told(), 1, {1: SCHEMA})
        kept = compiled is None or may_match(view, read_head(view, 0), compiled)
        dropped += not kept

        assert kept or not wanted.matches(values), (wanted, values)
    assert dropped > 50


def test_a_null_is_wanted_by_one_condition_alone():
    """And matches no comparison, not even that with another value."""
    only_nulls = (None, None)

    assert Wanted((Condition(Function.IS_NULL),)).matches(only_nulls)
    assert not Wanted((Condition(Function.NOT_EQUAL, (1,)),)).matches(only_nulls)
    assert not Wanted((Condition(Function.IS_NOT_NULL),)).matches(only_nulls)
