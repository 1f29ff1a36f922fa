"""Keyed chance: every draw is a function of the seed, what is drawn, for whom, and how often before.

Nothing here has a state that two parts of the world share, so taking a fault out of a plan does not
reshuffle what it did not touch. Integers only: no floats, no hash() of texts, the same on every Python.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeVar
from zlib import crc32

import attrs

T = TypeVar("T")

_MASK: Final = (1 << 64) - 1
_STEP: Final = 0x9E3779B97F4A7C15
_MIX_1: Final = 0xBF58476D1CE4E5B9
_MIX_2: Final = 0x94D049BB133111EB

PPM: Final = 1_000_000
"""Chances are given in parts per million."""


def mixed(state: int, number: int) -> int:
    """Return 64 well-stirred bits of both (the finalizer of splitmix64); about 0.3 us."""
    z = (state ^ number) * _STEP + _STEP & _MASK
    z = (z ^ z >> 30) * _MIX_1 & _MASK
    z = (z ^ z >> 27) * _MIX_2 & _MASK
    return z ^ z >> 31


def key_of(seed: int, name: str, *ids: int) -> int:
    """Return the key of the stream *name* of the entity *ids* under *seed*."""
    state = mixed(seed & _MASK, crc32(name.encode()))
    for number in ids:
        state = mixed(state, number & _MASK)
    return state


@attrs.define(eq=False, repr=False)
class Stream:
    """The draws of one kind for one entity, in the order in which it makes them."""

    key: int
    ordinal: int = 0

    @classmethod
    def of(cls, seed: int, name: str, *ids: int) -> Stream:
        """Return the stream *name* of the entity *ids*."""
        return cls(key_of(seed, name, *ids))

    def bits(self) -> int:
        """Return 64 bits."""
        self.ordinal += 1
        return mixed(self.key, self.ordinal)

    def below(self, count: int) -> int:
        """Return a number of [0, count); the bias of the remainder does not matter here."""
        self.ordinal += 1
        return mixed(self.key, self.ordinal) % count

    def between(self, least: int, most: int) -> int:
        """Return a number of [least, most]."""
        return least + self.below(most - least + 1)

    def chance(self, ppm: int) -> bool:
        """Return True in *ppm* of a million cases."""
        return self.below(PPM) < ppm

    def choice(self, options: Sequence[T]) -> T:
        """Return one of *options*."""
        return options[self.below(len(options))]

    def long_tail(self, least: int, most: int) -> int:
        """Return a number of [least, most], mostly a small one: each doubling is half as likely."""
        span = most - least
        return least + (self.below(span + 1) >> min(self.below(8), span.bit_length()))

    def filler(self, size: int) -> bytes:
        """Return *size* bytes of chance."""
        words = [self.bits().to_bytes(8, "little") for _ in range((min(size, 64) + 7) // 8)]
        return (b"".join(words) * (size // 64 + 1))[:size]
