"""Statistics of batches: what Java wrote is read, and nothing else ends in anything but BadStatistics."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flussd.core.records.aligned import Domain, Kind
from flussd.core.records.batch import build_batch, read_head
from flussd.core.records.statistics import (
    BadStatistics,
    Bounds,
    build_statistics,
    parse_statistics,
    statistics_of,
)

VECTORS = {
    vector["id"]: vector
    for vector in json.loads((Path(__file__).resolve().parents[2] / "data/vectors.json").read_text())[
        "vectors"
    ]
}
INT = Domain(Kind.INTEGER)
STRING = Domain(Kind.STRING)


def _batch(identifier):
    batch = memoryview(bytes.fromhex(VECTORS[identifier]["expected"]["batch_hex"]))
    return batch, read_head(batch, 0)


def test_statistics_of_java():
    """Vector V443: a column without nulls, and one with."""
    found = statistics_of(*_batch("V443"))

    assert Bounds(0, 1, 3) == found.bounds(0, INT)
    assert Bounds(1, b"a", b"longer value") == found.bounds(1, STRING)
    assert found.bounds(2, INT) is None


def test_statistics_of_chosen_columns():
    """Vectors V435 and V437: all columns that can have some, and only the second one."""
    whole, second = statistics_of(*_batch("V435")), statistics_of(*_batch("V437"))
    text = Bounds(0, b"apple", b"banana split")
    decimal = whole.bounds(2, Domain(Kind.DECIMAL, 20, 2))
    time = whole.bounds(3, Domain(Kind.TIMESTAMP, 6))

    assert text == whole.bounds(1, STRING) == second.bounds(1, STRING)
    assert Bounds(1, 5, 5) == whole.bounds(0, INT)
    assert Bounds(0, -100, 125) == decimal
    assert Bounds(1, 1705314645123456000, 1705314645123456000) == time
    assert whole.bounds(4, STRING) is None
    assert second.bounds(0, INT) is None


def test_batches_without_statistics():
    """Magic 0 has none, and a length of 0 is none."""
    for magic in (0, 1, 2):
        batch = memoryview(build_batch(b"x", record_count=1, magic=magic))
        assert statistics_of(batch, read_head(batch, 0)) is None


def test_other_versions_are_ignored():
    """A version that is not known, and a count of no columns, is no error."""
    section = bytes.fromhex("0102000000010000000000")
    assert parse_statistics(memoryview(b"\x02" + section[1:])) is None
    assert parse_statistics(memoryview(b"\x01\x00\x00" + section[3:])) is None


@pytest.mark.parametrize(("precision", "cut"), [(0, 10**9), (1, 10**6), (3, 10**6), (4, 10**3), (9, 1)])
def test_bounds_of_times_hold_what_readers_get(precision, cut):
    """A writer's least and greatest value may be finer than what is stored: bounds are as coarse."""
    domain = Domain(Kind.TIMESTAMP, precision)
    exact = 1_234_567 * 10**6 + (123 if precision > 3 else 0)

    section = build_statistics([(0, domain, Bounds(0, exact, exact))])

    expected = Bounds(0, exact // cut * cut, -(-exact // cut) * cut)
    assert expected == parse_statistics(memoryview(section)).bounds(0, domain)


def test_what_is_built_is_what_java_writes():
    """Vector V443, the other way."""
    bounds = [(0, INT, Bounds(0, 1, 3)), (1, STRING, Bounds(1, b"a", b"longer value"))]
    batch, _ = _batch("V443")

    assert bytes(batch[52 : 52 + 0x57]) == build_statistics(bounds)


DOMAINS = [Domain(kind, precision) for kind in Kind for precision in (3, 20)]


def _read_all(section):
    """Read all that can be read; nothing but BadStatistics may come of it."""
    try:
        found = parse_statistics(memoryview(section))
    except BadStatistics:
        return
    for column in found.places if found is not None else ():
        for domain in DOMAINS:
            try:
                found.bounds(column, domain)
            except BadStatistics:
                continue


@given(st.binary(max_size=120))
def test_arbitrary_bytes(tail):
    """Bytes behind the version: BadStatistics or statistics."""
    _read_all(b"\x01" + tail)
    _read_all(b"\x01\x02\x00\x00\x00\x01\x00" + tail)


@given(st.data())
def test_damaged_sections(data):
    """Flipped bytes and cuts of a real section: the same."""
    batch, _ = _batch("V435")
    section = bytearray(batch[52 : 52 + 0xB3])
    for _ in range(data.draw(st.integers(1, 4))):
        section[data.draw(st.integers(0, len(section) - 1))] = data.draw(st.integers(0, 255))

    _read_all(bytes(section[: data.draw(st.integers(0, len(section)))]))


@pytest.mark.parametrize("size_bytes", [-1, 2, 2**31 - 1])
def test_a_section_beyond_its_batch(size_bytes):
    """A length that the batch cannot have."""
    batch = bytearray(build_batch(b"x", record_count=1, magic=1))
    batch[48:52] = size_bytes.to_bytes(4, "little", signed=True)

    with pytest.raises(BadStatistics, match="bytes in a batch of"):
        statistics_of(memoryview(batch), read_head(memoryview(batch), 0))
