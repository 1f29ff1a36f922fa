"""How buffers of an Arrow body are compressed, each alone (record formats, 2.2).

The libraries are loaded with the first buffer that needs them: a server without ARROW changelogs never pays
for them. Their contexts live as long as one batch, because they may not be shared by threads. What a
buffer claims to become is refused before it is allocated; bytes that are no such buffer are BadRow.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Callable
from typing import Final, TypeAlias

from flussd.core.records.rows.atoms import BadRow

Press: TypeAlias = Callable[[bytes], bytes]
Expand: TypeAlias = Callable[[memoryview, int], bytes]

ZSTD_LEVEL_DEFAULT: Final = 3
"""Upstream's `table.log.arrow.compression.zstd.level`."""

_LENGTH: Final = struct.Struct("<q")
_RAW: Final = -1
_RAW_LENGTH: Final = _LENGTH.pack(_RAW)

SHORT_BYTES: Final = 10
"""Buffers of up to this many bytes never shrink: the least frame of ZSTD has 10 bytes, of LZ4 more."""


class Compression(enum.Enum):
    """The compressions, by the names that table options have for them."""

    NONE = "NONE"
    LZ4_FRAME = "LZ4_FRAME"
    ZSTD = "ZSTD"

    @property
    def codec(self) -> int | None:
        """Return the number that a message has for it; None for raw buffers."""
        return _CODECS[self]


_CODECS: Final = {Compression.NONE: None, Compression.LZ4_FRAME: 0, Compression.ZSTD: 1}
_BY_CODEC: Final = {codec: one for one, codec in _CODECS.items()}


def presser(compression: Compression, zstd_level: int) -> Press:
    """Return what makes a buffer of a body of raw bytes; for one batch."""
    if compression is Compression.NONE:
        return lambda data: data
    press = _zstd_press(zstd_level) if compression is Compression.ZSTD else _lz4_press()

    def framed(data: bytes) -> bytes:
        if len(data) > SHORT_BYTES:
            pressed = press(data)
            if len(pressed) < len(data):
                return _LENGTH.pack(len(data)) + pressed
        return _RAW_LENGTH + data if data else b""  # As Rust writes empty ones; Java reads both.

    return framed


def _zstd_press(level: int) -> Press:
    import zstandard

    return zstandard.ZstdCompressor(level=level).compress


def _lz4_press() -> Press:
    from lz4 import frame

    def press(data: bytes) -> bytes:
        # Java's reader knows independent blocks alone, and the size stands before the frame already.
        pressed: bytes = frame.compress(data, block_linked=False, store_size=False)
        return pressed

    return press


class Expander:
    """Takes the buffers of one body apart, of up to *left_bytes* in all once they are expanded."""

    def __init__(self, codec: int | None, left_bytes: int) -> None:
        if codec not in _BY_CODEC:
            raise BadRow(f"compression: expected 0 or 1, got {codec}")
        self._compression = _BY_CODEC[codec]
        self._left_bytes = left_bytes
        self._expand: Expand | None = None  # made for the first buffer that is compressed

    def raw(self, data: memoryview) -> memoryview | bytes:
        """Return a buffer as it was before its compression. Raises BadRow."""
        if self._compression is Compression.NONE or not data:
            self._take(len(data), len(data))
            return data
        if len(data) < _LENGTH.size:
            raise BadRow(f"a compressed buffer: expected at least {_LENGTH.size} bytes, got {len(data)}")
        (size_bytes,) = _LENGTH.unpack_from(data, 0)
        held = data[_LENGTH.size :]
        self._take(len(held) if size_bytes == _RAW else size_bytes, len(held))
        if size_bytes == _RAW:
            return held
        if not size_bytes:
            return b""  # As Java writes empty ones.
        if self._expand is None:
            self._expand = _zstd_expand() if self._compression is Compression.ZSTD else _lz4_expand()
        return self._expand(held, size_bytes)

    def _take(self, size_bytes: int, held_bytes: int) -> None:
        """Count what is to be allocated, or read: buffers may name the same bytes of a body."""
        if not 0 <= size_bytes <= self._left_bytes:
            raise BadRow(f"a buffer of {held_bytes} bytes for {size_bytes}: {self._left_bytes} are allowed")
        self._left_bytes -= size_bytes


def _zstd_expand() -> Expand:
    import zstandard

    decompressor = zstandard.ZstdDecompressor()

    def expand(data: memoryview, size_bytes: int) -> bytes:
        held = bytes(data)
        try:
            told_bytes = zstandard.frame_content_size(held)
            # What a frame tells of its size is allocated whatever else is asked for; -1 is nothing told.
            if told_bytes not in (size_bytes, -1):
                raise BadRow(f"a buffer for {size_bytes} bytes: its frame tells of {told_bytes}")
            found = decompressor.decompress(held, max_output_size=size_bytes)
        except zstandard.ZstdError as error:
            raise BadRow(f"a buffer for {size_bytes} bytes: {error}") from None
        return _whole(found, size_bytes)

    return expand


def _lz4_expand() -> Expand:
    from lz4 import frame

    def expand(data: memoryview, size_bytes: int) -> bytes:
        decompressor = frame.LZ4FrameDecompressor()
        try:
            # One byte more than expected shows what is too long, and lets the frame come to its end.
            found: bytes = decompressor.decompress(bytes(data), max_length=size_bytes + 1)
        except RuntimeError as error:  # all that this library raises for a frame
            raise BadRow(f"a buffer for {size_bytes} bytes: {error}") from None
        if not decompressor.eof:
            raise BadRow(f"a buffer for {size_bytes} bytes: its frame does not end")
        return _whole(found, size_bytes)

    return expand


def _whole(found: bytes, size_bytes: int) -> bytes:
    if len(found) != size_bytes:
        raise BadRow(f"a buffer for {size_bytes} bytes: got {len(found)}")
    return found
