"""Aligned rows: what Java writes is read and written, and damage ends in BadRow alone."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flussd.core.records.aligned import AlignedRow, Domain, Kind, build_row, domain_of
from flussd.core.records.rows.atoms import BadRow

VECTORS = json.loads((Path(__file__).resolve().parents[2] / "data/vectors.json").read_text())["vectors"]
ROWS = [vector for vector in VECTORS if vector["kind"] == "row_aligned"]
DOMAINS = [Domain(kind, precision) for kind in Kind for precision in (3, 20)]


def _expected(value, domain):
    """A value of a vector as comparisons see it."""
    if value is None:
        return None
    if domain.kind in (Kind.STRING, Kind.CHAR):
        return value.encode()
    if domain.kind is Kind.DECIMAL:
        return int(Decimal(value).scaleb(domain.scale))
    if domain.kind is Kind.TIME:
        return value * 1_000_000
    if domain.is_time:
        return value[0] * 1_000_000 + value[1]
    if domain.kind in (Kind.FLOAT, Kind.DOUBLE):
        return pytest.approx(float(value), rel=1e-6, nan_ok=True)
    return value


@pytest.mark.parametrize("vector", ROWS, ids=[vector["id"] for vector in ROWS])
def test_aligned_rows_of_java(vector):
    """Every value of a type that has statistics is read from its row."""
    data = memoryview(bytes.fromhex(vector["expected"]))
    types, values = vector["input"]["types"], vector["input"]["values"]
    row = AlignedRow(data, len(types))
    domains = [(n, domain_of(data_type)) for n, data_type in enumerate(types)]
    known = [(n, domain) for n, domain in domains if domain is not None]

    assert known
    assert [_expected(values[n], domain) for n, domain in known] == [row.value(*one) for one in known]


@pytest.mark.parametrize("vector", ROWS, ids=[vector["id"] for vector in ROWS])
def test_rows_are_written_as_java_does(vector):
    """Rows of types that may have statistics, from what was read of them."""
    data = bytes.fromhex(vector["expected"])
    domains = [domain_of(data_type) for data_type in vector["input"]["types"]]
    if None in domains:
        return
    row = AlignedRow(memoryview(data), len(domains))

    assert data == build_row([row.value(n, domain) for n, domain in enumerate(domains)], domains)


@given(st.binary(max_size=60), st.integers(1, 80), st.integers(0, 80))
def test_arbitrary_bytes(data, arity, column):
    """Values or BadRow."""
    for domain in DOMAINS:
        try:
            AlignedRow(memoryview(data), arity).value(min(column, arity - 1), domain)
        except BadRow:
            continue


def test_what_a_row_may_not_hold():
    """Sizes and places that the row does not have, each told."""
    slot = {
        "too short": (Domain(Kind.BIGINT), b""),
        "bytes: the row has": (Domain(Kind.STRING), (100).to_bytes(4, "little") + bytes(4)),
        "up to 7 bytes": (Domain(Kind.STRING), bytes(7) + b"\x88"),
        "1 to 16 bytes": (Domain(Kind.DECIMAL, 20), bytes(8)),
        "nanoseconds below": (Domain(Kind.TIMESTAMP, 6), b"\xff\xff\xff\xff" + bytes(4)),
    }
    for text, (domain, content) in slot.items():
        with pytest.raises(BadRow, match=text):
            AlignedRow(memoryview(bytes(8) + content), 1).value(0, domain)
