"""Frames: splitting a byte stream into them, and the heads of requests and responses.

A frame is a big-endian i32 length and that many bytes (wire protocol, section 1.1). Bad lengths raise
FrameError, after which the connection can only be closed. Frames are views of the receive buffer: they
live until the next call of writable or feed.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

import attrs

from flussd.core.limits import FRAME_HEAD_REQUEST_BYTES, REQUEST_BYTES_MAX
from flussd.core.wire import messages

FIRST_BUFFER_BYTES: Final = 8 * 1024
"""What an idle connection costs; one read takes hundreds of small requests."""

READ_BYTES: Final = 64 * 1024
"""Room that a read is given once a connection has shown traffic."""

KEPT_BUFFER_BYTES: Final = 1024 * 1024
"""A buffer above this is given back when its frame is done."""

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

    The owner writes into `writable`, tells how much by `received`, and goes through `frames`.
    """

    max_bytes: int = REQUEST_BYTES_MAX
    min_bytes: int = FRAME_HEAD_REQUEST_BYTES
    _buffer: bytearray = attrs.Factory(lambda: bytearray(FIRST_BUFFER_BYTES))
    _start: int = 0  # of the first frame that was not handed out
    _end: int = 0  # of what was received

    def writable(self) -> memoryview:
        """Return room for the next read, at least for the rest of the frame that has begun."""
        missing = self._wanted_bytes()
        if self._start == self._end:
            self._start = self._end = 0
            if len(self._buffer) > KEPT_BUFFER_BYTES and missing < KEPT_BUFFER_BYTES:
                self._buffer = bytearray(READ_BYTES)
        if self._start + missing > len(self._buffer) or self._end == len(self._buffer):
            self._move(missing)
        return memoryview(self._buffer)[self._end :]

    def _wanted_bytes(self) -> int:
        """Return the whole size of the frame that has begun, or of its length."""
        if self._end - self._start < 4:
            return 4
        length: int = _LENGTH.unpack_from(self._buffer, self._start)[0]
        return 4 + max(0, min(length, self.max_bytes))

    def _move(self, wanted_bytes: int) -> None:
        """Put the begun frame at the start of a buffer that can hold it, and a little more."""
        begun = self._buffer[self._start : self._end]
        room = max(wanted_bytes, READ_BYTES)
        if room > len(self._buffer) or len(self._buffer) > max(KEPT_BUFFER_BYTES, 2 * room):
            self._buffer = bytearray(room)
        self._buffer[: len(begun)] = begun
        self._start, self._end = 0, len(begun)

    def received(self, count: int) -> None:
        """Count bytes that were written at the start of `writable`."""
        self._end += count

    def frames(self) -> Iterator[memoryview]:
        """Yield the whole frames, without their lengths; raise FrameError at a bad one."""
        view = memoryview(self._buffer)
        while self._end - self._start >= 4:
            (length,) = _LENGTH.unpack_from(view, self._start)
            if not self.min_bytes <= length <= self.max_bytes:
                raise FrameError(
                    f"frame length: expected {self.min_bytes} to {self.max_bytes}, got {length}"
                )
            if self._end - self._start < 4 + length:
                return
            begin = self._start + 4
            self._start = begin + length
            yield view[begin : begin + length]

    def feed(self, data: bytes | memoryview) -> Iterator[memoryview]:
        """Copy *data* in, and yield the frames as they become whole."""
        view = memoryview(data)
        while view:
            room = self.writable()
            count = min(len(room), len(view))
            room[:count] = view[:count]
            view = view[count:]
            self.received(count)
            yield from self.frames()


def request_head(frame: memoryview) -> tuple[int, int, int, memoryview]:
    """Return API key, version, request id and body of a request frame."""
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
    error = messages.ErrorResponse(error_code=int(code))
    if text:
        error.error_message = text
    body = error.SerializeToString()
    return _RESPONSE.pack(5 + len(body), ERROR, request_id) + body


def split_response(frame: memoryview) -> tuple[int, int, memoryview]:
    """Return kind (SUCCESS or ERROR), request id and body of a response frame."""
    kind, request_id = _RESPONSE_HEAD.unpack_from(frame)
    return kind, request_id, frame[FRAME_HEAD_RESPONSE_BYTES:]
