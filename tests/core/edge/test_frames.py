"""Splitting byte streams into frames."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flussd.core.edge import frames
from flussd.core.edge.frames import FrameBuffer, FrameError
from flussd.core.wire import messages


@given(st.lists(st.binary(min_size=8, max_size=100_000), max_size=8), st.data())
def test_frames_are_the_same_however_they_come(bodies, data):
    """Cut at random places, read with room of any size: the frames are those that were sent."""
    stream = b"".join(struct.pack(">i", len(body)) + body for body in bodies)
    buffer, got, at = FrameBuffer(), [], 0
    while at < len(stream):
        room = buffer.writable()
        count = min(len(room), len(stream) - at, data.draw(st.integers(1, 70_000)))
        room[:count] = stream[at : at + count]
        at += count
        buffer.received(count)
        got += [bytes(frame) for frame in buffer.frames()]

    assert bodies == got


@pytest.mark.parametrize("length", [-1, 0, 7, 1001, 2**31 - 1])
def test_bad_lengths_are_refused(length):
    """Too short for a head, negative, or above the limit."""
    buffer = FrameBuffer(max_bytes=1000)

    with pytest.raises(FrameError, match=f"got {length}"):
        list(buffer.feed(struct.pack(">i", length) + bytes(10)))


def test_a_big_frame_needs_no_second_copy_and_its_buffer_is_given_back():
    """The room for the rest of a frame is all of it; the next small frame lives in a small buffer."""
    buffer = FrameBuffer()
    body = bytes(5_000_000)
    head = struct.pack(">i", len(body))
    list(buffer.feed(head + body[:10]))

    room = buffer.writable()
    assert len(room) >= len(body) - 10
    assert [len(body)] == [len(frame) for frame in buffer.feed(body[10:])]
    assert len(buffer.writable()) <= frames.READ_BYTES


def test_heads_round_trip():
    """Requests, successes and errors."""
    request = memoryview(frames.request_frame(1014, 1, 77, b"body"))[4:]
    success = memoryview(frames.response_frame(77, b"answer"))[4:]
    failure = memoryview(frames.error_frame(-3, 12, "no"))[4:]

    assert (1014, 1, 77, b"body") == frames.request_head(request)
    assert (frames.SUCCESS, 77, b"answer") == frames.split_response(success)
    kind, request_id, body = frames.split_response(failure)
    assert (frames.ERROR, -3) == (kind, request_id)
    assert messages.ErrorResponse(error_code=12, error_message="no") == messages.ErrorResponse.FromString(
        bytes(body)
    )
    assert frames.response_head(77, 6) + b"answer" == frames.response_frame(77, b"answer")
