"""Partitions: recorded specs get their code; values of automatic ones are Java's."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import zoneinfo
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flussd.core.records import partitions as p
from flussd.core.records.refusal import Refused

DATA = Path(__file__).parents[2] / "data"
RECORDED = json.loads((DATA / "wire-cases.json").read_text())
VECTORS = [
    vector
    for vector in json.loads((DATA / "vectors.json").read_text())["vectors"]
    if vector["kind"] == "auto_partition"
]
NOW = dt.datetime(2026, 11, 25, 13, 0)  # noqa: DTZ001 - a calendar time of the table's zone
OUTSIDE = (7, 37, 42)
"""Codes that the coordinator decides."""


def automatic(unit="YEAR", pattern=None, retention=7, of_dates=False):
    """Return how a table with these options makes partitions."""
    properties = {
        "table.auto-partition.enabled": "true",
        "table.auto-partition.time-unit": unit,
        "table.auto-partition.num-retention": str(retention),
    }
    if pattern is not None:
        properties["table.auto-partition.time-format"] = pattern
    return p.auto_partition_of(("d",), properties, of_dates=of_dates)


def specs(api):
    """Return the recorded partition requests: table, pairs, code."""
    found = []
    for case in RECORDED["cases"]:
        descriptor = None
        for number, step in enumerate(case["steps"]):
            if "table" in step:
                descriptor = RECORDED["tables"][step["json"]]
            code = step.get("error", 0)
            code = code[-1] if isinstance(code, list) else code
            if step.get("api") == api and descriptor and code not in OUTSIDE:
                pairs = [
                    (pair["key"], pair["value"])
                    for pair in step["request"]["partition_spec"]["partition_key_values"]
                ]
                found.append(pytest.param(descriptor, pairs, code, id=f"{case['name']}-{number}"))
    return found


def test_there_are_enough_recorded_specs():
    """The search finds what was recorded."""
    assert len(specs("CREATE_PARTITION")) >= 20


@pytest.mark.parametrize(("descriptor", "pairs", "code"), specs("CREATE_PARTITION"))
def test_recorded_creations(descriptor, pairs, code):
    """CREATE_PARTITION is refused with the recorded code, or not at all."""
    keys = tuple(descriptor["partition_key"])
    got = 0
    try:
        spec = p.parse_spec(pairs, keys)
        p.check_spec(spec, creating=True)
        rule = p.auto_partition_of(keys, descriptor["properties"], of_dates=False)
        if rule is not None:
            rule.check(spec.values[0], NOW)
    except Refused as refused:
        got = int(refused.code)

    assert code == got


def test_pairs_in_any_order_make_one_name():
    """The name joins the values in the order of the partition key, and gives the spec back."""
    spec = p.parse_spec([("q", "eu"), ("p", "2026")], ("p", "q"))

    assert spec.name == "2026$eu"
    assert spec == p.spec_named("2026$eu", ("p", "q"))
    assert p.matches(spec, {"q": "eu"})
    assert p.matches(spec, {})
    assert not p.matches(spec, {"q": "us"})


@pytest.mark.parametrize("pairs", [[("p", "a"), ("p", "b")], [("p", "a"), ("q", "b"), ("q", "b")], []])
def test_a_column_twice_is_no_spec(pairs):
    """Exactly one value for each partition column."""
    with pytest.raises(Refused) as refused:
        p.parse_spec(pairs, ("p", "q"))

    assert refused.value.code == 43


def test_a_name_with_another_number_of_values():
    """It names no partition of this table."""
    with pytest.raises(Refused):
        p.spec_named("a$b", ("p",))


def test_partial_specs():
    """They name some columns; others are refused as upstream does."""
    assert p.parse_partial_spec([("q", "eu")], ("p", "q")) == {"q": "eu"}
    with pytest.raises(Refused) as refused:
        p.parse_partial_spec([("z", "1")], ("p", "q"))

    assert refused.value.code == -1


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["id"])
def test_values_are_those_of_java(vector):
    """Each unit, at recorded times and zones."""
    asked = vector["input"]
    local = dt.datetime.fromtimestamp(asked["ts"] / 1000, zoneinfo.ZoneInfo(asked["zone"])).replace(
        tzinfo=None
    )

    assert vector["expected"] == automatic(asked["unit"]).value(local, offset=asked["offset"])


@pytest.mark.parametrize(
    ("rule", "value", "code"),
    [
        (automatic("YEAR"), "2019", 0),
        (automatic("YEAR"), "2018", 43),
        (automatic("YEAR", retention=0), "0001", 0),
        (automatic("YEAR", retention=2_000_000_000), "0001", 0),
        (automatic("MONTH"), "202613", 43),
        (automatic("QUARTER"), "20265", 43),
        (automatic("QUARTER"), "20264", 0),
        (automatic("HOUR"), "2026112524", 43),
        (automatic("DAY"), "20261118", 0),
        (automatic("DAY"), "20261117", 43),
        (automatic("DAY"), "2026-11-25", 43),
        (automatic("DAY", of_dates=True), "2026-11-25", 0),
        (automatic("DAY", "yyyy_MM_dd"), "2026_11_25", 0),
        (automatic("YEAR"), "٢٠٢٦", 43),
        (automatic("YEAR"), "2026\n", 43),
    ],
)
def test_values_by_hand(rule, value, code):
    """They must have the form of the unit, and not have expired."""
    got = 0
    try:
        rule.check(value, NOW)
    except Refused as refused:
        got = int(refused.code)

    assert code == got


def test_the_last_of_a_long_month():
    """A month later than the 31st is the last of the next one, not the month after."""
    assert automatic("MONTH").value(dt.datetime(2026, 1, 31), offset=1) == "202602"  # noqa: DTZ001


def test_tables_without_automatic_partitions():
    """There is no rule for them."""
    assert p.auto_partition_of(("p",), {}, of_dates=False) is None
    assert p.auto_partition_of((), {"table.auto-partition.enabled": "true"}, of_dates=False) is None


@pytest.mark.parametrize("pattern", ["", "MM", "yyyy/MM", "yyyyMMddHHmm", "yy", "yyyy'x'"])
def test_patterns_that_nobody_could_name(pattern):
    """A format must make names of partitions, with a year."""
    assert p.pattern_fault(pattern)


@given(
    st.sampled_from(["HOUR", "DAY", "MONTH", "QUARTER", "YEAR"]),
    st.datetimes(),
    st.integers(-(2**31), 2**31 - 1),
)
def test_whatever_is_made_passes(unit, now, offset):
    """A value made for a time has the form of the unit; later ones are greater; nothing overflows."""
    rule = automatic(unit, retention=0)
    value, later = rule.value(now, offset=offset), rule.value(now, offset=offset + 1)
    if value is not None:
        rule.check(value, now)
    if value is not None and later is not None:
        assert value < later


@given(st.lists(st.tuples(st.text(max_size=5), st.text(max_size=5)), max_size=3), st.text(max_size=20))
def test_anything_is_a_spec_or_refused(pairs, value):
    """Never another exception."""
    for attempt in (
        lambda: p.check_spec(p.parse_spec(pairs, ("p", "q")), creating=True),
        lambda: p.parse_partial_spec(pairs, ("p", "q")),
        lambda: p.spec_named(value, ("p", "q")),
        lambda: automatic().check(value, NOW),
    ):
        with contextlib.suppress(Refused):
            attempt()
