"""Options of tables: values as Java reads them, and what may be altered."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flussd.core.records import options
from flussd.core.records.refusal import Refused

ALTERABLE = [
    "table.datalake.enabled",
    "table.datalake.historical-partition.enabled",
    "table.datalake.freshness",
    "table.datalake.auto-compaction",
    "table.log.ttl",
    "table.log.tiered.local-segments",
    "table.log.local-ttl",
    "table.auto-partition.enabled",
    "table.auto-partition.num-retention",
    "table.auto-partition.num-precreate",
    "table.statistics.columns",
    "table.kv.standby-replica.enabled",
]


def test_alterable_is_what_the_protocol_lists():
    """Section 6.4 of the wire protocol; all other options are fixed."""
    assert sorted(ALTERABLE) == sorted(
        key for key, option in options.TABLE_OPTIONS.items() if option.alterable
    )


@pytest.mark.parametrize("key", ["table.log.format", "table.replication.factor", "table.nope", "table."])
def test_fixed_and_unknown_options_cannot_be_altered(key):
    """As recorded: 56."""
    with pytest.raises(Refused) as refused:
        options.check_alterable(key)

    assert refused.value.code == 56


@pytest.mark.parametrize("key", ["table.log.ttl", "owner", "x.y", ""])
def test_other_keys_can(key):
    """Options that are not fixed, and custom properties."""
    options.check_alterable(key)


@pytest.mark.parametrize(
    ("text", "duration_ms"),
    [
        ("3 d", 259_200_000),
        ("7 days", 604_800_000),
        ("12h", 43_200_000),
        ("30 min", 1_800_000),
        ("1 m", 60_000),
        ("5 S", 5000),
        ("250 ms", 250),
        ("250", 250),
        ("1500 micros", 1),
        ("999999 ns", 0),
        ("0", 0),
    ],
)
def test_durations(text, duration_ms):
    """A number with a unit, in milliseconds; without unit it is of milliseconds."""
    assert duration_ms == options.parse_option("table.log.ttl", text)


@pytest.mark.parametrize(
    "text", ["", "soon", "7 moons", "-1 d", "1.5 h", "d", "٣ d", "9" * 30, "9" * 18 + " d"]
)
def test_no_durations(text):
    """Refused as bad configuration."""
    with pytest.raises(Refused) as refused:
        options.parse_option("table.log.ttl", text)

    assert refused.value.code == 39


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("table.merge-engine", "FIRST_ROW", "FIRST_ROW"),
        ("table.merge-engine", "first_row", "FIRST_ROW"),
        ("table.changelog.image", "Wal", "WAL"),
        ("table.kv.format", "indexed", "INDEXED"),
        ("table.datalake.enabled", "TRUE", True),
        ("table.auto-increment.cache-size", "-3", -3),
        ("table.auto-increment.cache-size", "2147483648", 2147483648),
    ],
)
def test_values(key, text, value):
    """Choices and booleans in any case; numbers with a sign."""
    assert value == options.parse_option(key, text)


@pytest.mark.parametrize(
    ("key", "text", "code"),
    [
        ("table.merge-engine", "newest", -1),
        ("table.kv.format-version", "two", -1),
        ("table.delete.behavior", "maybe", 39),
        ("table.log.tiered.local-segments", "2147483648", 39),
        ("table.log.tiered.local-segments", "٣", 39),
        ("table.datalake.enabled", "yes", 39),
        ("table.nope", "1", 39),
        ("connector", "x", 39),
    ],
)
def test_bad_values(key, text, code):
    """39, but for two options that Java reads outside its own check."""
    with pytest.raises(Refused) as refused:
        options.parse_option(key, text)

    assert code == refused.value.code


def test_a_value_or_its_default():
    """`option_value` takes the default only when the option is not there."""
    properties = {"table.auto-partition.num-retention": "3"}

    assert options.option_value(properties, "table.auto-partition.num-retention", default=7) == 3
    assert options.option_value({}, "table.auto-partition.num-retention", default=7) == 7


@given(st.sampled_from(sorted(options.TABLE_OPTIONS)), st.text(max_size=30))
def test_any_text_is_a_value_or_refused(key, text):
    """Never another exception."""
    with contextlib.suppress(Refused):
        options.parse_option(key, text)
