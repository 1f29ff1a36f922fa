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
    body = bytes(frames.BELIEVED_BYTES - 4)
    head = struct.pack(">i", len(body))
    list(buffer.feed(head + body[:10]))

    assert len(buffer.writable()) >= len(body) - 10
    assert [len(body)] == [len(frame) for frame in buffer.feed(body[10:])]
    assert len(buffer.writable()) <= frames.READ_BYTES


@pytest.mark.parametrize("read_bytes", [100_000, 262_144, 2**30])
@pytest.mark.parametrize(("size_bytes", "growth_count"), [(10 * 2**20, 2), (frames.REQUEST_BYTES_MAX, 3)])
def test_a_length_alone_does_not_cost_its_memory(read_bytes, size_bytes, growth_count):
    """Four bytes of a stranger get 4 MiB at most; the room grows as the frame does come, and seldom.

    However little a read brings: growing at each of them once made 100 MiB take 0.8 s.
    """
    buffer, come, seen = FrameBuffer(), 0, []
    list(buffer.feed(struct.pack(">i", size_bytes)))
    while come < size_bytes:
        room = buffer.writable()
        if all(one is not buffer._buffer for one in seen):
            seen.append(buffer._buffer)
        assert len(room) + come <= max(frames.BELIEVED_BYTES, frames.BELIEVED_TIMES * (come + 4))
        count = min(len(room), size_bytes - come, read_bytes)
        buffer.received(count)
        come += count

    assert growth_count == len(seen)
    assert [size_bytes] == [len(frame) for frame in buffer.frames()]


@given(st.integers(0, 200_000), st.integers(1, 200_000))
def test_there_is_always_room(unread, hint):
    """Also while whole frames wait unread; an empty read would look like the end of the stream."""
    buffer = FrameBuffer()
    one = struct.pack(">i", 996) + bytes(996)
    buffer.feed((one * 201)[:unread])

    assert len(buffer.writable()) >= 1
    assert len(buffer.writable(hint)) >= hint
    assert unread // 1000 == len(list(buffer.frames()))


def test_frames_of_one_feed_live_together():
    """However many come at once, none overwrites another."""
    bodies = [bytes([n]) * 5000 for n in range(100)]
    stream = b"".join(struct.pack(">i", len(body)) + body for body in bodies)

    assert bodies == list(FrameBuffer().feed(stream))


def test_an_idle_connection_gives_its_memory_back():
    """Only when nothing has begun; and frames that were handed out stay whole."""
    buffer = FrameBuffer()
    (frame,) = buffer.feed(struct.pack(">i", 500_000) + b"x" * 500_000)
    buffer.shrink()
    assert len(buffer.writable()) == frames.FIRST_BUFFER_BYTES
    list(buffer.feed(b"\0"))
    room = len(buffer.writable())
    buffer.shrink()

    assert room == len(buffer.writable())
    assert b"x" * 500_000 == frame


def test_frames_before_a_bad_one_are_delivered():
    """Then it raises, each time."""
    buffer = FrameBuffer(min_bytes=frames.FRAME_HEAD_RESPONSE_BYTES)
    found = buffer.feed(struct.pack(">i", 5) + b"first" + struct.pack(">i", 4) + b"four")

    assert b"first" == next(found)
    for _ in range(2):
        with pytest.raises(FrameError, match=r"expected 5 to .*, got 4"):
            list(buffer.frames())


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


def test_an_error_without_text_has_no_text():
    """Clients put in their own; and text that no UTF-8 can hold ends no process."""
    assert bytes.fromhex("00000007 01 00000003 080c") == frames.error_frame(3, 12)
    assert frames.error_frame(3, 12, "a?b") == frames.error_frame(3, 12, "a\udfffb")
