"""ARROW batches that are not what they should be: rows or BadRow, within bounds, and nothing else."""

import random
import struct
import tracemalloc

import lz4.frame
import pytest
import zstandard

from flussd.core.limits import ARROW_BODY_BYTES_MAX, ARROW_VALUES_MAX
from flussd.core.records import batch as b
from flussd.core.records.arrow import read, write
from flussd.core.records.arrow.batches import (
    arrow_message,
    build_arrow_batch,
    read_arrow_message,
    read_arrow_rows,
)
from flussd.core.records.arrow.compression import Compression, Expander, presser
from flussd.core.records.arrow.message import record_batch_metadata
from flussd.core.records.row_batch import ChangeType
from flussd.core.records.rows.atoms import BadRow, BadValue
from flussd.core.records.types import DataType, RowField

COMPRESSIONS = pytest.mark.parametrize("compression", Compression)
INT, STRING, BYTES, BIGINT = (DataType(name) for name in ("INTEGER", "STRING", "BYTES", "BIGINT"))
TYPES = [
    INT,
    DataType("BOOLEAN"),
    STRING,
    DataType("BINARY", length=3),
    DataType("DECIMAL", precision=20, scale=2),
    DataType("TIMESTAMP_WITHOUT_TIME_ZONE", precision=6),
    DataType("ARRAY", element=STRING),
    DataType("MAP", key=STRING, value=INT),
    DataType("ROW", fields=(RowField("x", INT, None, 1), RowField("y", BYTES, None, 2))),
]
NO_FIELDS = DataType("ROW")
ROWS = [
    (1, True, "text", b"abc", -5, 7000, ["a", None], [("k", 1), ("l", None)], (1, b"bytes")),
    (None,) * 9,
    (3, False, "é", b"\0\1\2", 10**19, -7000, [], [], None),
] * 3
LIMIT = 1 << 20


def message(nodes, buffers, rows=1, codec=None):
    """A message of such nodes and buffers, each of which lies behind the one before it."""
    places, at = [], 0
    for buffer in buffers:
        places.append((at, len(buffer)))
        at += len(buffer)
    return memoryview(record_batch_metadata(rows, nodes, places, at, codec) + b"".join(buffers))


def ints(*numbers):
    return struct.pack(f"<{len(numbers)}i", *numbers)


def damaged(data, draw):
    """A copy that is changed behind the head, in a few places."""
    bad = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 5))):
        at = draw.randrange(48, len(bad))
        match draw.randrange(4):
            case 0:
                bad[at] ^= 1 << draw.randrange(8)
            case 1:
                number = draw.choice((-1, 0, 7, 1000, 2**31 - 1, 2**40)).to_bytes(8, "little", signed=True)
                bad[at : at + 8] = number[: min(draw.choice((1, 4, 8)), len(bad) - at)]
            case 2:
                other = draw.randrange(48, len(bad))
                bad[at : at + 8] = bad[other : other + 8]
            case 3:
                del bad[max(at, 60) :]
    struct.pack_into("<i", bad, 8, len(bad) - 12)
    return bytes(bad)


@COMPRESSIONS
def test_damage_behind_the_checksum(compression):
    """Two thousand damaged batches from one seed: as many rows as the head tells of, or BadRow."""
    draw = random.Random(7)
    changes = [ChangeType.INSERT] * len(ROWS)
    data = build_arrow_batch(TYPES, ROWS, changes, schema_id=1, compression=compression)
    ended = {"read": 0, "refused": 0}
    for _ in range(2000):
        bad = memoryview(damaged(data, draw))
        try:
            rows = read_arrow_rows(TYPES, bad, b.read_head(bad, 0))
        except BadRow:
            ended["refused"] += 1
            continue
        ended["read"] += 1
        assert len(ROWS) == len(rows)

    assert min(ended.values()) > 50


@COMPRESSIONS
def test_every_cut_is_refused(compression):
    """Wherever a batch ends too early."""
    data = build_arrow_batch(TYPES, ROWS, [ChangeType.DELETE] * 9, schema_id=1, compression=compression)
    for end in range(48, len(data) - 8):  # the last buffer may have padding
        bad = bytearray(data[:end])
        struct.pack_into("<i", bad, 8, end - 12)
        with pytest.raises(BadRow):
            read_arrow_rows(TYPES, memoryview(bad), b.read_head(memoryview(bad), 0))


@pytest.mark.parametrize(
    ("payload", "count", "text"),
    [
        (b"\1\1", 3, "3 records: expected a change of each, got 2 bytes"),
        (b"\1\5\1", 3, "record 1: expected a change of 0 to 4, got 5"),
        (b"\1", 1, "expected an encapsulated Arrow message"),
        (b"\1\xff\xff\xff\xff\x09\0\0\0more", 1, "metadata of 9 bytes in 12"),
        (b"\1\1" + bytes(message([(1, 0)], [b"", ints(7)])), 2, "a message: expected 2 rows, got 1"),
        (b"\1" + bytes(message([], [])), 1, "a message of 1 rows without columns"),
    ],
)
def test_problems_of_batches_have_names(payload, count, text):
    """What, where, expected and got."""
    data = memoryview(b.build_batch(payload, record_count=count, append_only=False))
    with pytest.raises(BadRow, match=f"^{text}$"):
        read_arrow_rows([INT], data, b.read_head(data, 0))


TWO, LIST, MAP = (2, 0), [DataType("ARRAY", element=INT)], [DataType("MAP", key=INT, value=INT)]
SEVEN, ENDS = ints(7), ints(0, 1, 1)


@pytest.mark.parametrize(
    ("types", "nodes", "buffers", "text"),
    [
        ([INT], [(1, 0)], [b"", ints(7)], "expected 2 values, got 1"),
        ([INT], [(2, 3)], [b"", ints(7, 8)], "a node of 2 values: 3 of them are null"),
        ([INT], [(-1, 0)], [b"", ints(7)], "a node of -1 values"),
        ([INT], [(2**40, 0)], [b"", ints(7)], f"values: {ARROW_VALUES_MAX} are allowed"),
        ([INT], [(2, 1)], [b"", ints(7, 8)], "1 nulls of 2 values: expected their bits, got 0 bytes"),
        ([INT], [TWO], [b"", ints(7)], "buffer 1: expected 8 bytes, got 4"),
        ([INT], [TWO], [b""], "expected more buffers than 1"),
        ([INT, INT], [TWO], [b"", ints(7, 8), b""], "expected more nodes than 1"),
        ([INT], [TWO, TWO], [b"", ints(7, 8)] * 2, r"of 1 columns: expected \(1, 2\), got \(2, 4\)"),
        ([STRING], [TWO], [b"", ints(0, 2, 1), b"abc"], "offsets of 2 values: expected them in order"),
        ([STRING], [TWO], [b"", ints(-1, 0, 1), b"abc"], "offsets of 2 values: expected them in order"),
        ([STRING], [TWO], [b"", ints(0, 2, 4), b"abc"], "buffer 2: expected 4 bytes, got 3"),
        (LIST, [TWO, (1, 0)], [b"", ints(0, 1, 2), b"", ints(7)], "lists of 2 elements: got 1"),
        (MAP, [TWO, (1, 0), (1, 1), (1, 0)], [b"", ENDS, b"", b"\0", SEVEN, b"", SEVEN], "null key"),
        (MAP, [TWO, (1, 1), (1, 0), (1, 0)], [b"", ENDS, b"", b"", SEVEN, b"", SEVEN], "null key"),
        (
            MAP,
            [TWO, (1, 0), (1, 0), TWO],
            [b"", ENDS, b"", b"", SEVEN, b"", ints(7, 8)],
            "maps of 1 entries: got 1 keys and 2 values",
        ),
        (
            TYPES[8:],
            [TWO, TWO, (1, 0)],
            [b"", b"", ints(7, 8), b"", ints(0, 0), b""],
            r"in each field, got \[2, 1\]",
        ),
    ],
)
def test_problems_of_bodies_have_names(types, nodes, buffers, text):
    """Counts, offsets and buffers that do not fit together."""
    with pytest.raises(BadRow, match=text):
        read_arrow_message(types, message(nodes, buffers, rows=2), 2)


@pytest.mark.parametrize("place", [(-8, 8), (0, -1), (8, 1), (2**62, 2**62)])
def test_buffers_beyond_the_body(place):
    """Before it, behind it, and of less than nothing."""
    bad = memoryview(record_batch_metadata(2, [TWO], [(0, 0), place], 8, None) + bytes(8))
    with pytest.raises(BadRow, match=rf"buffer 1 at {place[0]} of {place[1]} bytes: 8 are there"):
        read_arrow_message([INT], bad, 2)


# ---- what is hostile -----------------------------------------------------------------------------


def refused(limit_bytes, text, call):
    """Whether a call is refused with a text, without taking that many bytes."""
    tracemalloc.start()
    with pytest.raises((BadRow, BadValue), match=text):
        call()
    _, most_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert most_bytes < limit_bytes


def test_values_without_bytes(monkeypatch):
    """A list of as many rows without fields as an offset can tell of: no byte stands for any of them."""
    types = [DataType("ARRAY", element=NO_FIELDS)]
    bad = message([(1, 0), (2**31 - 1, 0)], [b"", ints(0, 2**31 - 1), b""])
    good = message([(1, 0), (3, 0)], [b"", ints(0, 3), b""])

    assert [([(), (), ()],)] == read_arrow_message(types, good, 1)
    refused(LIMIT, "a node of 2147483647 values", lambda: read_arrow_message(types, bad, 1))
    monkeypatch.setattr(read, "ARROW_VALUES_MAX", 6)
    twice = message([(1, 0), (3, 0)] * 2, [b"", ints(0, 3), b""] * 2)
    with pytest.raises(BadRow, match=r"column 1 .*: a node of 3 values: 1 are allowed"):
        read_arrow_message(types * 2, twice, 1)


def test_buffers_that_are_the_same_bytes(monkeypatch):
    """A hundred columns of one megabyte that is there once: counted for each of them."""
    monkeypatch.setattr(read, "ARROW_BODY_BYTES_MAX", 10 * LIMIT)
    places = [(0, 0), (0, 8), (8, LIMIT)] * 100
    metadata = record_batch_metadata(1, [(1, 0)] * 100, places, LIMIT + 8, None)
    bad = memoryview(metadata + ints(0, LIMIT) + bytes(LIMIT))
    refused(
        21 * LIMIT,
        "column 9 .*: a buffer of 1048576 bytes for 1048576",
        lambda: read_arrow_message([BYTES] * 100, bad, 1),
    )


@pytest.mark.parametrize("compression", [Compression.LZ4_FRAME, Compression.ZSTD])
def test_buffers_that_claim_too_much(compression):
    """Gigabytes, by their length or within their frame; more and less than there is."""
    press = {
        Compression.ZSTD: zstandard.ZstdCompressor().compress,
        Compression.LZ4_FRAME: lz4.frame.compress,
    }[compression]
    frame = press(bytes(8 * LIMIT))
    limited = f"{ARROW_BODY_BYTES_MAX} are allowed"
    for size, most_bytes, text in [
        (2**40, LIMIT, limited),
        (ARROW_BODY_BYTES_MAX + 1, LIMIT, limited),
        (-2, LIMIT, limited),
        (1000, LIMIT, "a buffer for 1000 bytes: "),
        (8 * LIMIT + 1, 20 * LIMIT, f"a buffer for {8 * LIMIT + 1} bytes: "),
    ]:
        buffer = memoryview(struct.pack("<q", size) + frame)
        expander = Expander(compression.codec, ARROW_BODY_BYTES_MAX)
        refused(most_bytes, text, lambda expander=expander, buffer=buffer: expander.raw(buffer))
    whole = memoryview(struct.pack("<q", 8 * LIMIT) + frame)
    expander = Expander(compression.codec, 12 * LIMIT)

    assert bytes(8 * LIMIT) == expander.raw(whole)
    refused(LIMIT, f"for {8 * LIMIT}: {4 * LIMIT} are allowed", lambda: expander.raw(whole))


def test_frames_of_zstd_that_do_not_tell_their_size():
    """As streams make them: read if they are as long as the buffer says."""
    frame = zstandard.ZstdCompressor(write_content_size=False).compress(b"text" * 1000)
    for size in (4000, 3999, 4001):
        buffer = memoryview(struct.pack("<q", size) + frame)
        if size == 4000:
            assert b"text" * 1000 == Expander(1, LIMIT).raw(buffer)
            continue
        with pytest.raises(BadRow, match=f"a buffer for {size} bytes"):
            Expander(1, LIMIT).raw(buffer)


def test_buffers_as_java_and_rust_have_them():
    """Empty ones with and without a length; raw ones behind -1; too short for a length; another codec."""
    for codec in (0, 1):
        assert (
            b"" == Expander(codec, 9).raw(memoryview(b"")) == Expander(codec, 9).raw(memoryview(bytes(8)))
        )
        assert b"raw" == Expander(codec, 9).raw(memoryview(b"\xff" * 8 + b"raw"))
        with pytest.raises(BadRow, match="expected at least 8 bytes, got 7"):
            Expander(codec, 9).raw(memoryview(bytes(7)))
    for codec in (-1, 2):
        with pytest.raises(BadRow, match=f"compression: expected 0 or 1, got {codec}"):
            Expander(codec, 9)


@pytest.mark.parametrize("compression", [Compression.LZ4_FRAME, Compression.ZSTD])
def test_what_does_not_shrink_is_raw(compression):
    """Behind -1; frames of LZ4 have independent blocks, as Java's reader wants them."""
    press, noise = presser(compression, 3), random.Random(1).randbytes(100_000)
    pressed = press(noise + bytes(100_000))

    assert (b"", b"\xff" * 8 + b"abc", b"\xff" * 8 + noise) == (press(b""), press(b"abc"), press(noise))
    assert struct.pack("<q", 200_000) == pressed[:8]
    assert len(pressed) < 110_000
    if compression is Compression.LZ4_FRAME:
        assert bytes.fromhex("04224d186040") == pressed[8:14]


def test_no_batch_is_written_that_would_not_be_read(monkeypatch):
    """Too many bytes and too many values, before they are put together."""
    monkeypatch.setattr(write, "ARROW_BODY_BYTES_MAX", LIMIT)
    monkeypatch.setattr(write, "ARROW_VALUES_MAX", 1000)
    text, octets = "x" * 100_000, b"x" * 100_000
    for types, row in [
        ([STRING], (text,)),
        ([BYTES], (octets,)),
        ([DataType("BINARY", length=2**31 - 1)], (None,)),
        ([DataType("ARRAY", element=BYTES)], ([octets] * 9,)),
        ([DataType("BINARY", length=4000)] * 3, (bytes(4000),) * 3),
    ]:
        refused(
            LIMIT,
            f"expected up to {LIMIT} bytes, got more",
            lambda types=types, row=row: arrow_message(types, [row] * 100),
        )
    for types, row in [([INT] * 11, (1,) * 11), ([DataType("ARRAY", element=NO_FIELDS)], ([()] * 10,))]:
        refused(
            LIMIT,
            "expected up to 1000 values, got",
            lambda types=types, row=row: arrow_message(types, [row] * 100),
        )
