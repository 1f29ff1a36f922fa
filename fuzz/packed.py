"""Many things in one input: named files, or pieces for a number, back to back. No target itself."""

from __future__ import annotations

import struct
from typing import Final

Files = dict[str, bytes]
Piece = tuple[int, bytes]  # for whom, and what

_HEAD: Final = struct.Struct(">HI")


def pack_pieces(pieces: list[Piece]) -> bytes:
    """Return *pieces* as one input."""
    return b"".join(_HEAD.pack(number, len(data)) + data for number, data in pieces)


def unpack_pieces(packed: bytes) -> list[Piece]:
    """Return what `pack_pieces` was given."""
    pieces, at = [], 0
    while at < len(packed):
        number, size_bytes = _HEAD.unpack_from(packed, at)
        at += _HEAD.size
        pieces.append((number, packed[at : at + size_bytes]))
        at += size_bytes
    return pieces


def parts(packed: bytes) -> list[bytes]:
    """Return *packed* cut between its pieces."""
    return [pack_pieces([piece]) for piece in unpack_pieces(packed)]


def pack(files: Files) -> bytes:
    """Return *files* as one input."""
    return pack_pieces([(len(name.encode()), name.encode() + data) for name, data in sorted(files.items())])


def unpack(packed: bytes) -> Files:
    """Return what `pack` was given."""
    return {data[:size].decode(): data[size:] for size, data in unpack_pieces(packed)}
