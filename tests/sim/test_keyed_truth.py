"""What a run holds the rows of primary-key tables against: the model of the engines, and sightings."""

from __future__ import annotations

from types import SimpleNamespace

import attrs
import pytest

from flussd.core.records.batch import build_batch, read_head
from flussd.core.records.row_batch import ChangeType, build_row_batch
from flussd.core.records.rows.codec import RowFormat, encode_row
from flussd.core.replica.stored import Durability
from flussd.runtime_sim.oracles.engines import Model
from flussd.runtime_sim.oracles.ids import TableIds
from flussd.runtime_sim.oracles.inserts import Insertion
from flussd.runtime_sim.oracles.keyed import KeyedLedger
from flussd.runtime_sim.oracles.sightings import Count, History, Run, Sighting, Values
from flussd.runtime_sim.oracles.violation import Violation
from flussd.runtime_sim.workload.batches import Identity
from flussd.runtime_sim.workload.keyed_batches import PutRecord, make_put
from flussd.runtime_sim.workload.keyed_tables import Engine, KeyedSpec

SPEC = KeyedSpec("t", 1, log_format="COMPACTED")
K = (1, 2)


def row(v=None, n=None, t=None, *added):
    """A row of the key that all records have here."""
    return (*K, v, n, t, *added)


def put(*rows, spec=SPEC, targets=(), overwrites=False, schema_id=1, sequence=0):
    """A put for that key; None deletes."""
    return make_put(
        spec,
        Identity(9, sequence),
        tuple([PutRecord(K, one) for one in rows]),
        targets=targets,
        overwrites=overwrites,
        writer_id=3,
        sequence=sequence,
        schema_id=schema_id,
        acks=-1,
        generation=0,
    )


def said(spec, *puts, latest_id=1, ids=()):
    """What the changelog says of all puts, in short, with what is behind the key."""
    model, ids = Model(spec), iter(ids)
    return [(change.short, one[2:]) for batch in puts for change, one in model.put(batch, latest_id, ids)]


def test_the_default_engine():
    """The last row counts, an equal one as well; what is not there is not deleted."""
    expected = [
        ("+I", (1, None, "a")),
        ("-U", (1, None, "a")),
        ("+U", (1, None, "a")),
        ("-D", (1, None, "a")),
    ]

    assert expected == said(SPEC, put(row(1, t="a"), row(1, t="a")), put(None, None))
    wal = attrs.evolve(SPEC, is_full=False)
    expected = [("+U", (1, None, None)), ("+U", (2, None, None)), ("-D", (2, None, None))]
    assert expected == said(wal, put(row(1), row(2), None))


def test_columns_that_a_put_is_about():
    """The others keep what they have; a delete takes the columns away, and then the row."""
    expected = [
        ("+I", (1, None, None)),
        ("-U", (1, None, None)),
        ("+U", (1, None, "b")),
        ("-U", (1, None, "b")),
        ("+U", (None, None, "b")),
        ("-D", (None, None, "b")),
    ]
    puts = [
        put(row(1, 7, "a"), targets=(0, 1, 2)),
        put(row(5, 7, "b"), targets=(1, 0, 4)),
        put(row(5, 7, "c"), targets=(0, 1)),
        put(None, targets=(0, 1, 2)),
        put(None, targets=(0, 1, 4)),
    ]

    assert expected == said(SPEC, *puts)


def test_first_rows_and_versions():
    """A row that is there stays; one of an equal or newer version does not; null is the oldest one."""
    first = KeyedSpec("t", 1, engine=Engine.FIRST_ROW, ignores_deletes=True)
    versioned = attrs.evolve(first, engine=Engine.VERSIONED, is_full=False)

    assert [("+I", (1, None, None))] == said(first, put(row(1), row(2), None))
    expected = [("+I", (1, None, None)), ("+U", (2, 5, None)), ("+U", (4, 5, None))]
    assert expected == said(versioned, put(row(1), row(2, 5), row(3, 4), row(4, 5), None))


def test_aggregation():
    """Sums, maxima, and the last value that is none; overwriting goes past all of it."""
    spec = KeyedSpec("t", 1, engine=Engine.AGGREGATION, ignores_deletes=True)
    expected = [
        ("+I", (1, 5, "a", None)),
        ("-U", (1, 5, "a", None)),
        ("+U", (3, 5, "a", 8)),
        ("-U", (3, 5, "a", 8)),
        ("+U", (9, None, None, None)),
        ("-D", (9, None, None, None)),
    ]
    puts = [
        put(row(1, 5, "a"), spec=spec),
        put(row(2, 4, None, 8), None, spec=spec, schema_id=2),
        put(row(9), None, spec=spec, overwrites=True),
    ]

    assert expected == said(spec, *puts, latest_id=2)


def test_ids_are_given_once_a_row():
    """What a writer sends for one is not looked at; it stays, also when the rest of the row is deleted."""
    spec = attrs.evolve(SPEC, id_type="BIGINT")
    expected = [
        ("+I", (1, None, None, 7)),
        ("-U", (1, None, None, 7)),
        ("+U", (2, None, None, 7)),
        ("-U", (2, None, None, 7)),
        ("+U", (None, None, None, 7)),
    ]
    about = {"spec": spec, "targets": (2, 0, 1)}
    puts = put(row(1, 5, "a", -3), row(2, None, None, -4), **about), put(None, **about)

    assert expected == said(spec, *puts, ids=(7, 8))
    assert [("+I", (1, None, None, None))] == said(spec, put(row(1, None, None, -3), **about))


def test_aggregated_rows_have_ids():
    """The first row is stored as it came, but for its id."""
    spec = attrs.evolve(SPEC, id_type="INTEGER", engine=Engine.AGGREGATION, is_full=False)
    about = {"spec": spec, "targets": (2, 0, 1), "schema_id": 2}
    expected = [("+I", (1, 5, "a", 7, 8)), ("+U", (3, 5, "a", 7, 8))]

    assert expected == said(
        spec, put(row(1, 5, "a", -3, 8), row(2, 9, "b", -3, 1), **about), latest_id=2, ids=(7,)
    )


@pytest.mark.parametrize("ids", [(4, 4), (3,), (0,), (-1,), (None,), (5, 1)])
def test_an_id_is_new_and_positive(ids):
    """In all buckets of a table; what is read again is no news."""
    known, head = TableIds(), SimpleNamespace(base_offset=0, crc=5)
    for _ in range(2):
        known.logged((1, 7, 0), head, (1, 2, 3))

    with pytest.raises(Violation, match="IDS_ARE_NEW"):
        known.logged((1, 8, 0), head, ids)


HISTORY = History(
    (0, 1, 3), ({}, {(0, 1): (0, 1, "a")}, {(0, 1): (0, 1, "b"), (2, 0): (2, 0, "c")}), ((0, 1), (2, 0))
)


@pytest.mark.parametrize(
    ("seen", "least", "most", "oracle"),
    [
        (Values((((0, 1), (0, 1, "a")),)), 1, 1, None),
        (Values((((0, 1), (0, 1, "a", None)), ((2, 0), None))), 0, 3, None),
        (Values((((0, 1), (0, 1, "a")),)), 3, 3, "ROWS_ARE_FRESH"),
        (Values((((0, 1), (0, 1, "b")),)), 0, 2, "ROWS_ARE_COMMITTED"),
        (Values((((0, 1), (0, 1, "a")), ((2, 0), (2, 0, "c")))), 0, 3, "ROWS_ARE_THE_FOLD"),
        (Run(((0, 1, "b"),), limit=1), 3, 3, None),
        (Run(((0, 1, "b"),)), 3, 3, "ROWS_ARE_THE_FOLD"),
        (Run(((2, 0, "c"),), prefix=(2,)), 3, 3, None),
        (Run(((2, 0, "c"), (0, 1, "b"))), 3, 3, "ROWS_ARE_THE_FOLD"),
        (Count(1), 2, 2, None),
        (Count(1), 3, 3, "ROWS_ARE_FRESH"),
    ],
)
def test_sightings(seen, least, most, oracle):
    """Rows are those of one moment between what was known before and what was committed after."""
    sighting = Sighting("somebody", seen, least, most, 0)

    if oracle is None:
        sighting.judge("t", HISTORY)
        return
    with pytest.raises(Violation, match=oracle):
        sighting.judge("t", HISTORY)


@pytest.mark.parametrize("offset", [1, 2])
def test_snapshots_are_of_the_offset_that_they_name(offset):
    """Not of another one, and not of one within a batch."""
    sighting = Sighting("somebody", Run(((0, 1, "b"), (2, 0, "c"))), offset, offset, 0, is_snapshot=True)

    with pytest.raises(Violation, match="SCANS_ARE_SNAPSHOTS"):
        sighting.judge("t", HISTORY)
    attrs.evolve(sighting, least_offset=3, most_offset=3).judge("t", HISTORY)


def logged(ledger, base_offset, batch, *records):
    """Let a reader get what a server made of *batch*: *records* at *base_offset*."""
    types = ledger.spec.types(1)
    rows = [(change, encode_row(RowFormat.COMPACTED, types, values)) for change, values in records]
    data = bytearray(build_row_batch(rows, schema_id=1, writer_id=3, batch_sequence=batch.sequence))
    data[:8] = base_offset.to_bytes(8, "little")
    head = read_head(memoryview(data), 0)
    end_offset = base_offset + head.last_offset_delta + 1
    ledger.read(head, batch.identity, 0, end_offset)
    ledger.logged(head, batch.identity, bytes(data), 0)
    return {base_offset: head}


def test_a_changelog_is_judged_by_its_puts():
    """What was acknowledged by its end is there, and says what it has to say."""
    ledger, first, second = (
        KeyedLedger((1, -1, 0), Durability.GROUP_FSYNC, spec=SPEC),
        put(row(1)),
        put(row(2), sequence=1),
    )
    for batch in (first, second):
        ledger.will_send(batch)
    ledger.acked(second, 3, -1, 0)
    in_log = logged(ledger, 0, first, (ChangeType.INSERT, row(1)))

    with pytest.raises(Violation, match="ACKED_SURVIVES"):
        ledger.audited(1, in_log)
    before, after = (ChangeType.UPDATE_BEFORE, row(1)), (ChangeType.UPDATE_AFTER, row(2))
    good = in_log | logged(ledger, 1, second, before, after)
    ledger.audited(3, good)
    with pytest.raises(Violation, match="READS_ARE_STABLE"):
        logged(ledger, 1, second, after, before)
    with pytest.raises(Violation, match="CHANGELOG_IS_TRUE"):
        ledger.audited(3, in_log | logged_anew(ledger, second, after, before))


def test_ids_are_judged_as_they_are_read():
    """Whichever bucket of the table tells them."""
    ids, spec = TableIds(), attrs.evolve(SPEC, id_type="INTEGER")
    batch = put(row(1, None, None, None), spec=spec, targets=(0, 1))
    first, second = (KeyedLedger((1, -1, n), Durability.PAGE_CACHE, spec=spec, ids=ids) for n in range(2))
    for ledger in (first, second):
        ledger.will_send(batch)
    logged(first, 0, batch, (ChangeType.INSERT, row(None, None, None, 1)))

    with pytest.raises(Violation, match="IDS_ARE_NEW"):
        logged(second, 0, batch, (ChangeType.INSERT, row(None, None, None, 1)))


GAP, TOLD = (0, 1), (0, 1, None, None, None)


def inserted(ledger, base_offset, *records):
    """Let a reader get what a lookup inserted."""
    types = SPEC.types(1)
    rows = [(change, encode_row(RowFormat.COMPACTED, types, values)) for change, values in records]
    data = bytearray(build_row_batch(rows, schema_id=1))
    data[:8] = base_offset.to_bytes(8, "little")
    head = read_head(memoryview(data), 0)
    identity = ledger.identity_of(head)
    ledger.read(head, identity, 0, 9)
    ledger.logged(head, identity, bytes(data), 0)
    return {base_offset: head}


def inserting(*asked, spec=SPEC):
    """A bucket of which lookups asked for these keys; one row is there, at offset 0."""
    ledger, batch = KeyedLedger((1, -1, 0), Durability.GROUP_FSYNC, spec=spec), put(row(1))
    ledger.inserts |= dict.fromkeys(asked)
    ledger.will_send(batch)
    return ledger, logged(ledger, 0, batch, (ChangeType.INSERT, row(1)))


def test_lookups_insert_what_is_missing():
    """All that is missing of a lookup's keys, each once, in its order."""
    ledger, before = inserting((GAP,), (K, (3, 3), GAP, GAP))
    both = ((ChangeType.INSERT, (3, 3, None, None, None)), (ChangeType.INSERT, TOLD))

    ledger.audited(3, before | inserted(ledger, 1, *both))


@pytest.mark.parametrize(
    ("asked", "spec", "oracle", "records"),
    [
        ((GAP, (3, 3)), SPEC, "INSERTS_FILL_GAPS", [(ChangeType.INSERT, TOLD)]),
        ((K,), SPEC, "INSERTS_FILL_GAPS", [(ChangeType.INSERT, row())]),
        ((K,), SPEC, "INSERTS_FILL_GAPS", []),
        ((GAP,), SPEC, "INSERTS_FILL_GAPS", [(ChangeType.INSERT, TOLD), (ChangeType.INSERT, TOLD)]),
        ((GAP,), SPEC, "CHANGELOG_IS_TRUE", [(ChangeType.UPDATE_AFTER, TOLD)]),
        ((GAP,), SPEC, "CHANGELOG_IS_TRUE", [(ChangeType.INSERT, (*GAP, 5, None, None))]),
        (
            (GAP,),
            attrs.evolve(SPEC, engine=Engine.FIRST_ROW),
            "INSERTS_FILL_GAPS",
            [(ChangeType.INSERT, TOLD)],
        ),
    ],
)
def test_what_lookups_must_not_insert(asked, spec, oracle, records):
    """A part of the gaps, what is there, nothing, a row twice, an update, a row that is not empty."""
    ledger, before = inserting(asked, spec=spec)
    after = inserted(ledger, 1, *records)

    with pytest.raises(Violation, match=oracle):
        ledger.audited(1 + max(1, len(records)), before | after)


def test_nobody_inserts_without_being_asked():
    """A batch without a writer is of no use where no lookup inserts."""
    head = read_head(memoryview(build_row_batch([], schema_id=1)), 0)

    assert inserting()[0].identity_of(head) is None
    assert inserting((GAP,))[0].identity_of(head) == (-1, 0)


A, B, C = (0, 1, "a"), (0, 1, "b"), (2, 0, "c")


@pytest.mark.parametrize(
    ("keys", "rows", "least", "most", "is_true"),
    [
        (((0, 1),), (A,), 0, 1, True),
        (((0, 1),), (A,), 3, 3, False),
        (((0, 1),), (B,), 0, 2, False),
        (((0, 1),), (None,), 0, 3, False),  # before it was inserted
        (((0, 1), (2, 0)), (B, C), 0, 3, True),
        (((0, 1), (2, 0)), (A, None), 0, 3, False),
        (((0, 1),), (None,), 0, 4, True),  # deleted since
        (((2, 0),), None, 0, 3, True),
        (((0, 1), (2, 0)), None, 3, 3, False),
    ],
)
def test_what_lookups_that_insert_are_told(keys, rows, least, most, is_true):
    """Rows of one moment when each key had got one; refused they are only where one is missing."""
    history = History((*HISTORY.ends, 4), (*HISTORY.rows, {}), HISTORY.in_order)
    insertion = Insertion("somebody", keys, rows, least, most, 0)

    if is_true:
        insertion.judge("t", history)
        return
    with pytest.raises(Violation, match="INSERTS_ARE_TOLD"):
        insertion.judge("t", history)


def test_what_was_told_of_a_lost_end_is_left_out():
    """What is not committed may go, and somebody may have been told of it."""
    ledger, before = inserting((GAP,))
    ledger.tail(5)
    for most_offset in (1, 5):
        ledger.insertions.append(Insertion("somebody", (GAP,), (TOLD,), 0, most_offset, 0))
    ledger.tail(3)

    assert (1, 3) == (ledger.cut_count, ledger.tail_offset)
    assert [1] == [one.most_offset for one in ledger.insertions]
    with pytest.raises(Violation, match="INSERTS_ARE_TOLD"):
        ledger.audited(1, before)


def logged_anew(ledger, batch, *records):
    """As `logged`, for a reader who knows nothing of what was read before."""
    ledger.checksums.clear()
    return logged(ledger, 1, batch, *records)


def test_the_log_of_rows_is_kept():
    """It is their only copy."""
    with pytest.raises(Violation, match="KEPT_LONG_ENOUGH"):
        KeyedLedger((1, -1, 0), Durability.GROUP_FSYNC, spec=SPEC).gave_up(5)


def test_what_nobody_sent_is_invented():
    """A changelog batch is known by its writer and sequence."""
    ledger, batch = KeyedLedger((1, -1, 0), Durability.GROUP_FSYNC, spec=SPEC), put(row(1))
    ledger.will_send(batch)
    head = read_head(memoryview(build_batch(b"", writer_id=3, batch_sequence=1, record_count=0)), 0)

    with pytest.raises(Violation, match="NOTHING_INVENTED"):
        ledger.read(head, batch.identity, 0, 9)
