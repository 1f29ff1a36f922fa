"""What of a fetch's bytes a filter keeps, and where it says to go on; broken statistics keep everything."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from flussd.core.records.aligned import Domain, Kind
from flussd.core.records.batch import build_batch
from flussd.core.records.predicate import Filter, Function, Leaf, keep_matching
from flussd.core.records.statistics import Bounds, build_statistics

INT = Domain(Kind.INTEGER)
NINE = Filter({1: Leaf(Function.EQUAL, 0, INT, (9,))})


def told(least, most, base_offset=0):
    """A batch of two rows whose column lies between these."""
    section = build_statistics([(0, INT, Bounds(0, least, most))])
    return build_batch(b"rows", record_count=2, magic=1, statistics=section, base_offset=base_offset)


def keep(*chunks):
    """What is kept of chunks, and the offset."""
    kept, end_offset = keep_matching(chunks, NINE)
    return [bytes(part) for part in kept], end_offset


def test_where_to_go_on():
    """The offset is behind the last batch, if that was dropped; neighbours that stay are one piece."""
    no = [told(1, 2, 2 * n) for n in range(6)]
    yes = [told(2, 9, 2 * n) for n in range(6)]
    cut = no[3][:-1]

    assert ([], -1) == keep()
    assert ([], 4) == keep(no[0] + no[1])
    assert ([yes[0] + yes[1]], 6) == keep(yes[0] + yes[1] + no[2])
    assert ([yes[1], yes[3]], -1) == keep(no[0] + yes[1] + no[2] + yes[3])
    assert ([cut], -1) == keep(no[0] + cut)


def test_chunks():
    """The same over chunks: it is the last batch of all that counts."""
    assert ([told(9, 9)], 4) == keep(told(9, 9), told(1, 2, 2))
    assert ([told(9, 9, 2)], -1) == keep(told(1, 2), told(9, 9, 2))


def test_broken_statistics_keep():
    """A section that ends too early, null counts that cannot be, bounds in the wrong order."""
    section = build_statistics([(0, INT, Bounds(0, 1, 2))])
    swapped = section[:9] + section[29:] + section[9:29]
    bad = [section[:-1], section[:5] + b"\x07" + section[6:], section[:8] + b"\xff" + section[9:], swapped]

    assert ([], 2) == keep(build_batch(b"", record_count=2, magic=1, statistics=section))
    for one in bad:
        batch = build_batch(b"", record_count=2, magic=1, statistics=one)
        assert ([batch], -1) == keep(batch)


@given(st.binary(max_size=200))
def test_arbitrary_statistics(section):
    """Whatever stands there, a batch is kept whole or dropped whole, and nothing is raised."""
    for statistics in (section, b"\x01\x01\x00\x00\x00" + section):
        batch = build_batch(b"", record_count=3, magic=1, statistics=statistics)
        assert keep(batch) in [([batch], -1), ([], 3)]
