"""Batch heads: against the recorded vectors, and against anything that may come."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
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


def test_there_are_recorded_batches_of_every_magic():
    """The search found what the Java server and the official client wrote."""
    magics = {data[b.MAGIC_AT] for _, data in _batches()}

    assert {0, 1, 2} == magics
    assert len(_batches()) >= 10


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


@given(st.data())
def test_cut_flipped_or_foreign(data):
    """A cut batch is trimmed, a flipped bit under the checksum is found, other bytes never raise."""
    good = b.build_batch(b"payload", record_count=3, writer_id=1, batch_sequence=0)
    cut = data.draw(st.integers(0, len(good) - 1))
    assert ((), 0, None) == b.scan_produced(memoryview(good)[:cut])[:3]
    trimmed = b.scan_produced(memoryview(good + good[:cut]))
    assert (1, len(good)) == (len(trimmed.heads), trimmed.kept_bytes)

    flipped = bytearray(good)
    flipped[data.draw(st.integers(25, len(good) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    assert b.scan_produced(memoryview(flipped)).problem is not None

    foreign = data.draw(st.binary(max_size=200))
    assert isinstance(b.scan_produced(memoryview(foreign)), b.Produced)


@pytest.mark.parametrize(
    ("change", "problem"),
    [((12, b"\x03"), b.BatchProblem.MAGIC), ((8, b"\x05\x00\x00\x00"), b.BatchProblem.LENGTH)],
)
def test_problems_have_names(change, problem):
    """Magic and length."""
    bad = bytearray(b.build_batch(b"payload", record_count=3))
    bad[change[0] : change[0] + len(change[1])] = change[1]
    found = b.scan_produced(memoryview(bad))

    assert (problem, ()) == (found.problem, found.heads)
    assert "expected" in found.problem_text
