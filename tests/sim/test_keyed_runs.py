"""Primary-key tables in a run: which seeds have them, and that their clients do all that they should."""

from __future__ import annotations

from collections import Counter

from flussd.core.records.descriptor import parse_table_descriptor
from flussd.runtime_sim.load import KeyedLoad, Load
from flussd.runtime_sim.oracles.keyed import NO_WRITER, KeyedLedger
from flussd.runtime_sim.plan import draw_plan
from flussd.runtime_sim.run import Run
from flussd.runtime_sim.workload.keyed_tables import Engine

KEYED_SEED, PLAIN_SEED, NUMBERED_SEED = 1, 2, 79


def test_half_of_the_seeds_have_them():
    """All engines, images and formats among them, and each table is one that a coordinator takes."""
    tables = [spec for seed in range(200) for spec in KeyedLoad.drawn(seed).tables]

    assert 70 < sum(bool(KeyedLoad.drawn(seed).tables) for seed in range(200)) < 130
    for spec in tables:
        parse_table_descriptor(spec.descriptor())
    drawn = Counter((spec.engine, spec.is_full) for spec in tables)
    assert {(engine, full) for engine in Engine for full in (True, False)} - drawn.keys() == {
        (Engine.AGGREGATION, False)
    }
    formats = {(spec.log_format, spec.kv_format) for spec in tables}
    assert 5 == len(formats)
    numbered = [spec for spec in tables if spec.id_type]
    assert len(tables) // 6 < len(numbered) < len(tables) // 2
    assert {1, 3, 100_000} <= {spec.id_cache_size for spec in numbered}
    assert not {spec.engine for spec in numbered} & {Engine.FIRST_ROW, Engine.VERSIONED}


def test_other_seeds_are_as_they_were():
    """A run without them draws nothing of theirs, and their faults come behind the others."""
    plain, keyed = Run(PLAIN_SEED), Run(KEYED_SEED)
    nodes = [node.name for node in keyed.cluster.nodes]

    assert not plain.load.keyed.clients
    assert Load.drawn(PLAIN_SEED).clients == list(plain.clients)
    old = draw_plan(KEYED_SEED, nodes, Load.drawn(KEYED_SEED).clients)
    assert old == keyed.faults_planned[: len(old)]
    assert len(old) < len(keyed.faults_planned)


def test_a_run_asks_all_kinds_of_questions():
    """A seed with a table of prefixes whose changelog has full images."""
    result = Run(KEYED_SEED).go()

    assert result.is_ok, result.text
    for what in ("lookup", "prefix lookup", "limit scan", "scan kv", "get table stats"):
        assert result.counts[f"{what} answers"] > 0
    assert result.counts["rows restored"] > 0


def test_a_run_inserts_by_lookups_and_puts_into_several_buckets():
    """A seed with ids, whose rows are inserted by both."""
    run = Run(NUMBERED_SEED)
    result = run.go()
    ledgers = [ledger for ledger in run.ledgers.by_key.values() if isinstance(ledger, KeyedLedger)]

    assert result.is_ok, result.text
    assert result.counts["inserting lookups"] > 10
    assert result.counts["puts of several buckets"] > 10
    numbered = [ledger for ledger in ledgers if ledger.spec.id_type]
    assert len(numbered[0].ids.homes) > 50
    assert any(identity.client == NO_WRITER for ledger in numbered for identity in ledger.sent)
    assert any(ledger.insertions for ledger in numbered)
