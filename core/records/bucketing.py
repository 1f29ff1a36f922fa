"""Which bucket a key belongs to: one function for each lake, and Fluss's own (record formats, 5.2).

Clients choose buckets; servers take what is named and never choose again. Java and Rust clients differ in
the tail of Fluss's hash, bytes behind the last whole word: Java takes them as signed, Rust (pyfluss 1.0.0)
as unsigned, so keys with such a byte of 0x80 or more may be in another bucket there.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Callable
from typing import Final, TypeAlias

from flussd.core.records.keys import LakeFormat

Bucketing: TypeAlias = Callable[[bytes, int], int]
"""Takes a bucket key and the number of buckets, which is at least 1; returns the bucket."""

_SEED: Final = 42
_MASK: Final = 0xFFFFFFFF


class Tail(enum.Enum):
    """How the bytes behind the last whole word enter Fluss's hash."""

    SIGNED = "as Java clients have it"
    UNSIGNED = "as Rust clients have it"


def bucketing_of(lake: LakeFormat | None, tail: Tail = Tail.SIGNED) -> Bucketing:
    """Return the function of a table with this lake format; None is Fluss's own, which Lance has too."""
    match lake:
        case LakeFormat.PAIMON:
            return lambda key, bucket_count: abs(murmur(key, tail)) % bucket_count
        case LakeFormat.ICEBERG:
            return lambda key, bucket_count: (murmur_standard(key) & 0x7FFFFFFF) % bucket_count
        case LakeFormat.HUDI:
            return _hudi
        case _:
            return lambda key, bucket_count: _fluss(murmur(key, tail), bucket_count)


def _fluss(hashed: int, bucket_count: int) -> int:
    """Hash the hash once more, and take its magnitude."""
    mixed = _signed(_last(_mixed(0, hashed & _MASK) ^ 4))
    return (0 if mixed == -0x80000000 else abs(mixed)) % bucket_count


def _hudi(key: bytes, bucket_count: int) -> int:
    """Return the bucket of a key that is a hash already."""
    assert len(key) == 4, f"a key of Hudi: expected 4 bytes, got {len(key)}"
    return (int.from_bytes(key, "big") & 0x7FFFFFFF) % bucket_count


# ---- the hash ------------------------------------------------------------------------------------


def murmur(data: bytes, tail: Tail = Tail.SIGNED) -> int:
    """Return the signed 32-bit hash of Fluss and Paimon: each byte of the tail is mixed in as a word."""
    whole_bytes = len(data) & ~3
    hashed = _SEED
    for (word,) in struct.iter_unpack("<I", data[:whole_bytes]):
        hashed = _mixed(hashed, word)
    for byte in data[whole_bytes:]:
        hashed = _mixed(hashed, byte | 0xFFFFFF00 if byte > 0x7F and tail is Tail.SIGNED else byte)
    return _signed(_last(hashed ^ len(data)))


def murmur_standard(data: bytes) -> int:
    """Return the unsigned 32-bit hash murmur3_x86_32 with seed 0, which Iceberg has."""
    whole_bytes = len(data) & ~3
    hashed = 0
    for (word,) in struct.iter_unpack("<I", data[:whole_bytes]):
        hashed = _mixed(hashed, word)
    return _last(hashed ^ _scrambled(int.from_bytes(data[whole_bytes:], "little")) ^ len(data))


def _rotated(value: int, count: int) -> int:
    return (value << count | value >> 32 - count) & _MASK


def _scrambled(word: int) -> int:
    return _rotated(word * 0xCC9E2D51 & _MASK, 15) * 0x1B873593 & _MASK


def _mixed(hashed: int, word: int) -> int:
    return _rotated(hashed ^ _scrambled(word), 13) * 5 + 0xE6546B64 & _MASK


def _last(hashed: int) -> int:
    hashed = (hashed ^ hashed >> 16) * 0x85EBCA6B & _MASK
    hashed = (hashed ^ hashed >> 13) * 0xC2B2AE35 & _MASK
    return hashed ^ hashed >> 16


def _signed(value: int) -> int:
    return (value ^ 0x80000000) - 0x80000000
