"""Batch heads: against the recorded vectors, and against anything that may come."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
from crc32c import crc32c
from hypothesis import given
from hypothesis import strategies as st

from flussd.core.records import batch as b

VECTORS = json.loads((Path(__file__).resolve().parents[2] / "data/vectors.json").read_text())


def _batches():
    found = []

    def look(value, path):
        if isinstance(value, dict):
            for key, inner in value.items():
                look(inner, f"{path}/{key}")
        elif isinstance(value, list):
            for n, inner in enumerate(value):
                look(inner, f"{path}/{n}")
        elif isinstance(value, str) and len(value) >= 96:
            try:
                data = bytes.fromhex(value)
            except ValueError:
                return
            head = b.read_head(memoryview(data), 0)
            if head is not None and head.size_bytes == len(data) and b.crc_is_right(memoryview(data), head):
                found.append((path, data))

    look(VECTORS, "")
    return found


def _vectors():
    """The vectors that hold log batches, by kind: what Java and pyfluss wrote."""
    kinds = {"log_batch", "arrow_log_batch", "arrow_log_batch_v1_stats"}
    return [vector for vector in VECTORS["vectors"] if vector["kind"] in kinds]


def test_every_batch_vector_is_found():
    """All 22 are batches of every magic, and the search finds no fewer."""
    assert 22 == len(_vectors())
    assert {0, 1, 2} == {data[b.MAGIC_AT] for _, data in _batches()}
    assert {bytes.fromhex(v["expected"]["batch_hex"]) for v in _vectors()} <= {d for _, d in _batches()}


@pytest.mark.parametrize("vector", _vectors(), ids=lambda vector: vector["id"])
def test_recorded_batches_are_scanned_and_built_again(vector):
    """1. Whole, with the fields that were asked for. 2. Built from these fields, byte for byte."""
    data = bytes.fromhex(vector["expected"]["batch_hex"])
    asked = vector["input"] or {}
    found = b.scan_produced(memoryview(data))

    assert (len(data), None, "") == (found.kept_bytes, found.problem, found.problem_text)
    (head,) = found.heads
    assert (0, len(data)) == (head.position, head.size_bytes)
    assert asked.get("magic", head.magic) == head.magic
    for name in ("schema_id", "writer_id", "batch_sequence"):
        assert asked.get(name, getattr(head, name)) == getattr(head, name)
    assert asked.get("appendOnly", head.attributes == 1) == bool(head.attributes & b.APPEND_ONLY)
    if "rows" in asked:
        assert len(asked["rows"]) == head.record_count
    assert max(0, head.record_count - 1) == head.last_offset_delta

    at = b.HEAD_BYTES[head.magic]
    statistics_bytes = struct.unpack_from("<i", data, at - 4)[0] if head.magic else 0
    again = b.build_batch(
        data[at + statistics_bytes :],
        record_count=head.record_count,
        schema_id=head.schema_id,
        writer_id=head.writer_id,
        batch_sequence=head.batch_sequence,
        base_offset=head.base_offset,
        commit_timestamp_ms=head.commit_timestamp_ms,
        leader_epoch=head.leader_epoch,
        magic=head.magic,
        append_only=bool(head.attributes & b.APPEND_ONLY),
        statistics=data[at : at + statistics_bytes],
    )
    assert data == again


@pytest.mark.parametrize("data", [data for _, data in _batches()], ids=[path for path, _ in _batches()])
def test_stamping_leaves_the_checksum_right(data):
    """What a leader writes lies outside of it, and reads back."""
    stamped = bytearray(data)
    head = b.read_head(memoryview(data), 0)
    for at, patch in b.patches(head, 1234567, 99, 5):
        stamped[at : at + len(patch)] = patch
    again = b.read_head(memoryview(stamped), 0)

    assert b.crc_is_right(memoryview(stamped), again)
    assert (1234567, 99) == (again.base_offset, again.commit_timestamp_ms)
    assert (5 if head.magic == 2 else -1) == again.leader_epoch
    assert head[7:] == again[7:]


@given(
    st.binary(max_size=200),
    st.integers(0, 1000),
    st.sampled_from([0, 1, 2]),
    st.booleans(),
    st.integers(-1, 2**40),
)
def test_what_is_built_is_read(payload, count, magic, append_only, writer_id):
    """Every field, for every magic."""
    data = b.build_batch(
        payload,
        record_count=count,
        schema_id=3,
        writer_id=writer_id,
        batch_sequence=8,
        base_offset=100,
        commit_timestamp_ms=55,
        magic=magic,
        append_only=append_only,
    )
    found = b.scan_produced(memoryview(data))

    assert (len(data), None) == (found.kept_bytes, found.problem)
    (head,) = found.heads
    assert (0, len(data), magic, 100, 55) == head[:5]
    assert (3, int(append_only), max(0, count - 1), writer_id, 8, count) == head[7:]


@pytest.mark.parametrize("magic", [0, 1, 2])
def test_a_cut_batch_is_trimmed_at_every_byte(magic):
    """Alone and behind a whole one; a head that is cut is no head, one that is whole is read."""
    good = b.build_batch(b"payload", record_count=3, writer_id=1, batch_sequence=0, magic=magic)
    for cut in range(len(good)):
        alone = b.scan_produced(memoryview(good)[:cut])
        behind = b.scan_produced(memoryview(good + good[:cut]))

        assert ((), 0, None, "") == alone
        assert (1, len(good), None) == (len(behind.heads), behind.kept_bytes, behind.problem)
        assert (cut >= b.HEAD_BYTES[magic]) == (b.read_head(memoryview(good)[:cut], 0) is not None)


@pytest.mark.parametrize("magic", [0, 1, 2])
def test_every_flipped_bit_under_the_checksum_is_found(magic):
    """And none outside it is an error of the checksum."""
    good = b.build_batch(b"payload", record_count=3, writer_id=1, batch_sequence=0, magic=magic)
    crc_at = (21, 21, 25)[magic]
    for bit in range(crc_at * 8, len(good) * 8):
        flipped = bytearray(good)
        flipped[bit // 8] ^= 1 << bit % 8
        found = b.scan_produced(memoryview(flipped))

        assert found.problem in (b.BatchProblem.CHECKSUM, b.BatchProblem.COUNT)
        assert ((), 0) == found[:2]


def test_one_bad_batch_refuses_all_that_came_with_it():
    """The position in the text is that of the bad one, and both checksums are told."""
    good = b.build_batch(b"payload", record_count=3)
    bad = bytearray(good)
    bad[-1] ^= 1
    found = b.scan_produced(memoryview(good + bad + good))

    assert ((), 0, b.BatchProblem.CHECKSUM) == found[:3]
    expected, got = crc32c(good[25:]), crc32c(bad[25:])
    text = f"batch at byte {len(good)}: checksum mismatch: expected {expected:#010x}, got {got:#010x}"
    assert text == found.problem_text


def test_many_batches_keep_their_places():
    """Positions are from the start of the view, whatever the magic."""
    batches = [b.build_batch(bytes(n * 7), record_count=n, magic=n % 3, base_offset=n) for n in range(9)]
    found = b.scan_produced(memoryview(b"".join(batches)))

    assert list(range(9)) == [head.base_offset for head in found.heads]
    assert [len(batch) for batch in batches] == [head.size_bytes for head in found.heads]
    assert [sum(map(len, batches[:n])) for n in range(9)] == [head.position for head in found.heads]


@given(st.binary(max_size=300), st.integers(0, 3), st.integers(-100, 400), st.integers(0, 250))
def test_arbitrary_bytes_never_raise(data, magic, length, position):
    """With and without a head that looks possible."""
    dressed = bytearray(data)
    if len(dressed) > b.MAGIC_AT:
        struct.pack_into("<ib", dressed, b.LENGTH_AT, length, magic)
    for view in (memoryview(data), memoryview(dressed)):
        found = b.scan_produced(view)
        assert found.kept_bytes <= len(view)
        assert (found.problem is None) == (found.problem_text == "")
        assert found.kept_bytes == sum(head.size_bytes for head in found.heads)
        head = b.read_head(view, position)
        assert head is None or head.size_bytes >= b.HEAD_BYTES[head.magic]


def _damaged(at, data, magic=0):
    """A batch with *data* written at *at*, and its checksum made right again."""
    bad = bytearray(b.build_batch(b"payload", record_count=3, magic=magic))
    bad[at : at + len(data)] = data
    crc_at = (21, 21, 25)[magic]
    struct.pack_into("<I", bad, crc_at, crc32c(bytes(bad[crc_at + 4 :])))
    return bad


@pytest.mark.parametrize(
    ("bad", "problem", "text"),
    [
        (_damaged(12, b"\x03"), "MAGIC", "expected 0 to 2, got 3"),
        (_damaged(12, b"\xff"), "MAGIC", "expected 0 to 2, got -1"),
        (_damaged(8, b"\x05\0\0\0"), "LENGTH", "expected at least 36, got 5"),
        (_damaged(8, b"\xff\xff\xff\xff", magic=2), "LENGTH", "expected at least 44, got -1"),
        (_damaged(28, b"\xff" * 4), "COUNT", "got offset delta -1 and record count 3"),
        (_damaged(44, b"\xfe" + b"\xff" * 3, magic=1), "COUNT", "got offset delta 2 and record count -2"),
        (_damaged(32, b"\xff" * 4, magic=2), "COUNT", "got offset delta -1 and record count 3"),
        (_damaged(48, b"\xff" * 4, magic=2), "COUNT", "got offset delta 2 and record count -1"),
    ],
)
def test_problems_have_names(bad, problem, text):
    """What, where, expected and got, for every magic."""
    found = b.scan_produced(memoryview(bad))

    assert (b.BatchProblem[problem], (), 0) == (found.problem, found.heads, found.kept_bytes)
    assert found.problem_text.startswith("batch at byte 0: ")
    assert found.problem_text.endswith(text)


def test_the_leader_stamps_what_the_java_leader_stamps():
    """Vector V452, which the Java classes read back: offset and time."""
    (vector,) = (v for v in VECTORS["vectors"] if v["kind"] == "leader_rewrite")
    stamped = bytearray.fromhex(vector["input"]["batch_hex"])
    head = b.read_head(memoryview(stamped), 0)
    for at, patch in b.patches(head, 100, 1700000000000, 7):
        stamped[at : at + len(patch)] = patch

    assert vector["expected"]["first_25_bytes_hex"] == stamped[:25].hex()
    assert b.scan_produced(memoryview(stamped)).problem is None


@given(st.lists(st.binary(max_size=40), max_size=6), st.binary(max_size=60), st.integers(0, 8))
def test_batches_are_counted_by_their_lengths(payloads, rest, most):
    """As many as the heads tell, and no more than is asked for; what is none ends the count some time."""
    good = b"".join(b.build_batch(payload, record_count=1) for payload in payloads)

    assert min(len(payloads), most + 1) == b.count_batches(memoryview(good), most)
    assert min(len(payloads), most + 1) <= b.count_batches(memoryview(good + rest), most) <= most + 1
    assert b.count_batches(memoryview(good + b"\xff" * 48), 100) == len(payloads)
