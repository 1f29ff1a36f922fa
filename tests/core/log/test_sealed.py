"""Small files that are replaced as a whole: damage is noticed, never misread."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from flussd.core.log.sealed import seal, unseal

VALUE = {"version": 1, "end": [3, 0, 200, 5], "writers": [[1, 2, [[0, 0, 3]]]]}


def test_what_was_sealed_is_read():
    """Round trip."""
    assert unseal(seal(VALUE)) == VALUE


@given(st.data())
def test_any_cut_or_flipped_bit_is_noticed(data):
    """A damaged file reads as nothing."""
    good = seal(VALUE)
    cut = data.draw(st.integers(0, len(good) - 1))
    assert unseal(good[:cut]) is None

    bad = bytearray(good)
    bad[data.draw(st.integers(0, len(good) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    assert unseal(bytes(bad)) is None


@given(st.binary(max_size=200))
def test_arbitrary_bytes_never_raise(data):
    """Whatever stands in the file."""
    assert unseal(data) is None or isinstance(unseal(data), dict)
