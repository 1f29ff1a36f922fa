"""Keys: which encoder a table has, what keys refuse, and that prefixes of keys are keys."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flussd.core.records.bucketing import Tail, bucketing_of, murmur, murmur_standard
from flussd.core.records.keys import LakeFormat, key_encoder, lake_format_of, primary_key_encoder
from flussd.core.records.rows.atoms import BadRow, BadValue
from flussd.core.records.types import DataType

INT, STRING, BIGINT = (DataType(name) for name in ("INTEGER", "STRING", "BIGINT"))
TIMESTAMPS = ("TIMESTAMP_WITHOUT_TIME_ZONE", "TIMESTAMP_WITH_LOCAL_TIME_ZONE")
LAKES = [None, *LakeFormat]


def test_the_lake_of_a_table():
    """By its option, whatever its case; none without it."""
    assert LakeFormat.ICEBERG is lake_format_of({"table.datalake.format": "iceberg"})
    assert lake_format_of({"table.datalake.enabled": "false"}) is None


@pytest.mark.parametrize(
    ("lake", "version", "is_bucket_key", "expected"),
    [
        (None, None, False, None),
        (LakeFormat.PAIMON, None, False, LakeFormat.PAIMON),
        (LakeFormat.PAIMON, 1, False, LakeFormat.PAIMON),
        (LakeFormat.PAIMON, 2, True, LakeFormat.PAIMON),
        (LakeFormat.PAIMON, 2, False, None),
        (LakeFormat.ICEBERG, 1, False, LakeFormat.ICEBERG),
        (LakeFormat.ICEBERG, 2, False, None),
        (LakeFormat.HUDI, 1, True, None),
        (LakeFormat.LANCE, 1, True, None),  # its keys are Fluss's own
    ],
)
def test_which_encoder_primary_keys_have(lake, version, is_bucket_key, expected):
    """By the lake, the version of the key format and the bucket key; Hudi never has its own."""
    made = primary_key_encoder(lake, [INT], format_version=version, is_bucket_key=is_bucket_key)

    assert key_encoder(expected, [INT]).encode([300]) == made.encode([300])


@given(st.tuples(st.text(), st.integers(-(2**31), 2**31 - 1), st.text()), st.integers(0, 3))
def test_the_key_of_the_first_columns_begins_the_key(values, count):
    """What makes a prefix lookup one range of the store."""
    types = [STRING, INT, STRING]
    keys, prefixes = key_encoder(None, types), key_encoder(None, types[:count])

    assert keys.encode(values).startswith(prefixes.encode(values[:count]))
    assert values == keys.decode(keys.encode(values))


@pytest.mark.parametrize("lake", LAKES)
def test_what_no_key_holds(lake):
    """A null, another number of values, a value of another type: told as what it is."""
    keys = key_encoder(lake, [INT])
    if lake is not LakeFormat.HUDI:
        with pytest.raises(BadValue, match="expected no nulls, got one in column 0"):
            keys.encode([None])
        with pytest.raises(BadValue, match="a key of INTEGER: "):
            keys.encode(["text"])
    with pytest.raises(BadValue, match="a key: expected 1 values, got 2"):
        keys.encode([1, 2])


@pytest.mark.parametrize("lake", [None, LakeFormat.PAIMON])
@given(data=st.binary(max_size=40))
def test_bytes_that_are_no_key(lake, data):
    """Values or BadRow."""
    keys = key_encoder(lake, [INT, STRING])
    try:
        found = keys.decode(data)
    except BadRow:
        return

    assert 2 == len(found)


def test_a_key_with_bytes_behind_it():
    """Is another one."""
    with pytest.raises(BadRow, match="a key of 1 columns: expected 1 bytes, got 2"):
        key_encoder(None, [INT]).decode(b"\1\1")
    with pytest.raises(BadRow, match="column 0 of a key: it ends at byte 1"):
        key_encoder(None, [INT]).decode(b"\x80")


def test_iceberg_hashes_one_column_of_some_types():
    """No flags, no small integers, no local timestamps, nothing nested, and no two columns."""
    for data_type in (
        DataType("BOOLEAN"),
        DataType("SMALLINT"),
        DataType(TIMESTAMPS[1], precision=3),
        DataType("ARRAY", element=INT),
    ):
        with pytest.raises(BadValue, match=f"that it hashes, got {data_type.name}"):
            key_encoder(LakeFormat.ICEBERG, [data_type])
    with pytest.raises(BadValue, match="expected one column, got 2"):
        key_encoder(LakeFormat.ICEBERG, [INT, INT])


def test_iceberg_has_microseconds():
    """Of a time, and of a timestamp, which goes down to them before 1970 too."""
    for data_type, value, micros in (
        (DataType("TIME_WITHOUT_TIME_ZONE", precision=3), 7, 7000),
        (DataType(TIMESTAMPS[0], precision=9), -1, -1),
        (DataType(TIMESTAMPS[0], precision=3), -1, -1000),
    ):
        key = key_encoder(LakeFormat.ICEBERG, [data_type]).encode([value])

        assert micros == int.from_bytes(key, "little", signed=True)


def test_hudi_hashes_a_list_of_texts():
    """As Java does, by hand: 31 to the power of the rest, and text by its 16-bit units."""
    keys = key_encoder(LakeFormat.HUDI, [STRING, INT])
    (ab,) = (31 * ord("a") + ord("b"),)

    assert (31 * (31 + ab) + ord("7")).to_bytes(4, "big") == keys.encode(["ab", 7])
    assert (31 * 31 + ord("7")).to_bytes(4, "big") == keys.encode([None, 7])
    clef = (31 * 0xD834 + 0xDD1E) & 0xFFFFFFFF
    assert (31 + clef).to_bytes(4, "big") == key_encoder(LakeFormat.HUDI, [STRING]).encode(["\U0001d11e"])


def test_what_hudi_cannot_tell_apart():
    """Of several columns; a single one may be anything, and has a name when it is null."""
    keys = key_encoder(LakeFormat.HUDI, [STRING, STRING])
    for text in ("a,b", "__null__", "__empty__"):
        with pytest.raises(BadValue, match="a text that Hudi's lists may have"):
            keys.encode([text, "a"])
    alone = key_encoder(LakeFormat.HUDI, [STRING])

    assert alone.encode(["__null__"]) == alone.encode([None])
    assert alone.encode(["a,b"]) != alone.encode(["a"])
    with pytest.raises(BadValue, match="integers, booleans or texts, got DOUBLE"):
        key_encoder(LakeFormat.HUDI, [DataType("DOUBLE")])


# ---- buckets -------------------------------------------------------------------------------------


@given(st.binary(min_size=4, max_size=4) | st.binary(max_size=40), st.integers(1, 1000))
def test_every_key_has_a_bucket(key, count):
    """Of every lake, for every client."""
    for lake in LAKES:
        if lake is LakeFormat.HUDI and len(key) != 4:
            continue
        for tail in Tail:
            assert 0 <= bucketing_of(lake, tail)(key, count) < count


@given(st.binary(max_size=40))
def test_where_java_and_rust_agree(key):
    """For keys without a tail, and those whose tail is below 0x80."""
    tail = key[len(key) & ~3 :]
    if all(byte < 0x80 for byte in tail):
        assert murmur(key) == murmur(key, Tail.UNSIGNED)


@pytest.mark.parametrize(
    ("text", "expected"),
    [(b"", 0), (b"hello", 0x248BFA47), (b"hello, world", 0x149BBB7F), (b"a", 0x3C2569B2)],
)
def test_the_standard_hash(text, expected):
    """Values of murmur3_x86_32 with seed 0 that are published."""
    assert expected == murmur_standard(text)
