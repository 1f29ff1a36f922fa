"""Frames: splitting a byte stream into them, and the heads of requests and responses.

A frame is a big-endian i32 length and that many bytes (wire protocol, section 1.1). Bad lengths raise
FrameError, after which the connection can only be closed. Frames are views of the receive buffer: they
live until the next call of writable or feed, and no longer; what is kept is copied.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

import attrs

from flussd.core.limits import FRAME_HEAD_REQUEST_BYTES, REQUEST_BYTES_MAX
from flussd.core.wire import hot

FIRST_BUFFER_BYTES: Final = 8 * 1024
"""What an idle connection costs; one read takes hundreds of small requests."""

READ_BYTES: Final = 64 * 1024
"""Room that a read is given once a connection has shown traffic."""

KEPT_BUFFER_BYTES: Final = 1024 * 1024
"""A buffer above this is given back when its frame is done."""

BELIEVED_BYTES: Final = 4 * 1024 * 1024
"""A frame of up to this is given its whole room at once: it holds a batch of pyfluss, of 2 MiB."""

BELIEVED_TIMES: Final = 16
"""A longer one gets this many times what has come of it: four bytes from a stranger must not cost 100 MiB.

It costs an honest sender a copy of a sixteenth."""

LENGTH_BYTES: Final = 4
FRAME_HEAD_RESPONSE_BYTES: Final = 5

_LENGTH: Final = struct.Struct(">i")
_REQUEST: Final = struct.Struct(">ihhi")
_REQUEST_HEAD: Final = struct.Struct(">hhi")
_RESPONSE: Final = struct.Struct(">ibi")
_RESPONSE_HEAD: Final = struct.Struct(">bi")

SUCCESS: Final = 0
ERROR: Final = 1


class FrameError(Exception):
    """A length that no frame may have; the text says where, expected and got."""


@attrs.define(eq=False)
class FrameBuffer:
    """The receive side of one connection.

    The owner writes into `writable`, tells how much by `received`, and goes through `frames`. Requests
    have at least 8 bytes, responses FRAME_HEAD_RESPONSE_BYTES.
    """

    max_bytes: int = REQUEST_BYTES_MAX
    min_bytes: int = FRAME_HEAD_REQUEST_BYTES
    _buffer: bytearray = attrs.Factory(lambda: bytearray(FIRST_BUFFER_BYTES))
    _start: int = 0  # of the first frame that was not handed out
    _end: int = 0  # of what was received

    def writable(self, hint_bytes: int = 1) -> memoryview:
        """Return room for the next read: at least *hint_bytes*, and the rest of a frame that has begun.

        It is never empty. Of a frame above BELIEVED_BYTES it is only a part at first.
        """
        begun_bytes = self._end - self._start
        if not begun_bytes:
            self._start = self._end = 0
        free_bytes = len(self._buffer) - self._end
        needed_bytes = max(self._missing_bytes(begun_bytes, free_bytes), hint_bytes)
        if not begun_bytes and len(self._buffer) > KEPT_BUFFER_BYTES and needed_bytes < KEPT_BUFFER_BYTES:
            self._buffer = bytearray(READ_BYTES)
            free_bytes = READ_BYTES
        if needed_bytes > free_bytes:
            self._move(begun_bytes, begun_bytes + needed_bytes)
        return memoryview(self._buffer)[self._end :]

    def _missing_bytes(self, begun_bytes: int, free_bytes: int) -> int:
        """Return how much to make room for, for the frame that has begun, or for its length."""
        whole_bytes = self._whole_bytes()
        if whole_bytes > BELIEVED_BYTES:
            if free_bytes >= FIRST_BUFFER_BYTES:
                return 1  # It fills what it was given before it is given more: each growth is a copy.
            whole_bytes = min(whole_bytes, max(BELIEVED_BYTES, BELIEVED_TIMES * begun_bytes))
        return max(1, whole_bytes - begun_bytes)

    def _move(self, begun_bytes: int, wanted_bytes: int) -> None:
        """Put what has begun at the start of a buffer of at least *wanted_bytes*."""
        begun = memoryview(self._buffer)[self._start : self._end]
        size_bytes = max(wanted_bytes, READ_BYTES)
        if not size_bytes <= len(self._buffer) <= max(KEPT_BUFFER_BYTES, 2 * size_bytes):
            self._buffer = bytearray(size_bytes)
        memoryview(self._buffer)[:begun_bytes] = begun  # moves like memmove, if it is the same buffer
        self._start, self._end = 0, begun_bytes

    def _whole_bytes(self) -> int:
        """Return the bytes of the frame that has begun, its length among them; only that is known at first.

        A length that no frame may have is told by `frames`.
        """
        if self._end - self._start < LENGTH_BYTES:
            return LENGTH_BYTES
        length: int = _LENGTH.unpack_from(self._buffer, self._start)[0]
        return LENGTH_BYTES + max(0, min(length, self.max_bytes))

    @property
    def awaited_bytes(self) -> int:
        """How many bytes are still to come of the frame that has begun, as far as that is known."""
        return max(1, self._whole_bytes() - (self._end - self._start))

    def received(self, count: int) -> None:
        """Count bytes that were written at the start of `writable`."""
        self._end += count
        assert self._end <= len(self._buffer), (self._end, len(self._buffer))

    def frames(self) -> Iterator[memoryview]:
        """Yield the whole frames, without their lengths; raise FrameError at a bad one."""
        view = memoryview(self._buffer)
        while self._end - self._start >= LENGTH_BYTES:
            (length,) = _LENGTH.unpack_from(view, self._start)
            if not self.min_bytes <= length <= self.max_bytes:
                raise FrameError(
                    f"frame length: expected {self.min_bytes} to {self.max_bytes}, got {length}"
                )
            begin = self._start + LENGTH_BYTES
            if self._end - begin < length:
                return
            self._start = begin + length
            yield view[begin : begin + length]

    def feed(self, data: bytes | memoryview) -> Iterator[memoryview]:
        """Copy *data* in, at once, and return `frames`."""
        if len(data):
            self.writable(len(data))[: len(data)] = data
            self.received(len(data))
        return self.frames()

    def shrink(self) -> None:
        """Give back what traffic made the buffer grow to, if nothing has begun: for idle connections."""
        if self._start == self._end and len(self._buffer) > FIRST_BUFFER_BYTES:
            self._buffer = bytearray(FIRST_BUFFER_BYTES)
            self._start = self._end = 0


def request_head(frame: memoryview) -> tuple[int, int, int, memoryview]:
    """Return API key, version, request id and body of a request frame, of at least 8 bytes."""
    api_key, api_version, request_id = _REQUEST_HEAD.unpack_from(frame)
    return api_key, api_version, request_id, frame[FRAME_HEAD_REQUEST_BYTES:]


def request_frame(api_key: int, api_version: int, request_id: int, body: bytes) -> bytes:
    """Return a whole request frame."""
    return _REQUEST.pack(8 + len(body), api_key, api_version, request_id) + body


def response_head(request_id: int, body_bytes: int) -> bytes:
    """Return the head of a success, for a body that is sent behind it."""
    return _RESPONSE.pack(5 + body_bytes, SUCCESS, request_id)


def response_frame(request_id: int, body: bytes) -> bytes:
    """Return a whole success frame."""
    return _RESPONSE.pack(5 + len(body), SUCCESS, request_id) + body


def error_frame(request_id: int, code: int, text: str = "") -> bytes:
    """Return a whole error frame; an empty text is left out."""
    body = hot.error_response(code, text)
    return _RESPONSE.pack(5 + len(body), ERROR, request_id) + body


def split_response(frame: memoryview) -> tuple[int, int, memoryview]:
    """Return kind (SUCCESS or ERROR), request id and body of a response frame, of at least 5 bytes."""
    kind, request_id = _RESPONSE_HEAD.unpack_from(frame)
    return kind, request_id, frame[FRAME_HEAD_RESPONSE_BYTES:]
