"""Invariant tested: frames come out as they went in, however they are cut, read late, hinted or shrunk.

    python fuzz/frames.py [SECONDS [SEED]]
    python fuzz/frames.py canary        (must fail: the buffer forgets where the first frame begins)

The buffer is used as the hub uses it: room is taken and filled in part, some frames are left for later.
There is always room, memory stays in proportion to what came, and a bad length ends the stream behind the
good ones.
"""

from __future__ import annotations

import random
import struct

from trials import run_trials

from flussd.core.edge import frames as f

LENGTHS = (8, 9, 100, 1000, 8185, 8200, 70_000, 1_100_000)


def stream(draw: random.Random) -> tuple[list[bytes], bytes, bool]:
    """Return some frames, the bytes that carry them, and whether a bad length follows."""
    bodies = [draw.randbytes(draw.choice(LENGTHS)) for _ in range(draw.randrange(1, 12))]
    data = b"".join(struct.pack(">i", len(body)) + body for body in bodies)
    is_bad = draw.random() < 0.2
    if is_bad:
        data += struct.pack(">i", draw.choice((-1, 0, 7, f.REQUEST_BYTES_MAX + 1))) + bytes(3)
    return bodies, data, is_bad


def trial(seed: int) -> str:
    """Pass one stream through a buffer; return how that ended."""
    draw = random.Random(seed)
    bodies, data, is_bad = stream(draw)
    buffer, got, at = f.FrameBuffer(), [], 0
    ended = "whole"
    while at < len(data) or len(got) < len(bodies):
        hint = draw.choice((1, 1, 1, 5000, 200_000))
        room = buffer.writable(hint)
        assert len(room) >= hint
        limit = max(f.KEPT_BUFFER_BYTES, f.BELIEVED_BYTES, 3 * len(data)) + 2 * hint
        assert len(buffer._buffer) <= limit, len(buffer._buffer)
        count = min(len(room), len(data) - at, draw.choice((1, 3, 4, 5000, 1 << 21)))
        room[:count] = data[at : at + count]
        at += count
        buffer.received(count)
        taken_max = draw.choice((0, 1, 2, 100)) if at < len(data) else 100
        try:
            for taken, frame in enumerate(buffer.frames(), 1):
                got.append(bytes(frame))
                if taken >= taken_max:
                    break
        except f.FrameError:
            assert is_bad
            ended = "bad behind good ones"
            break
        if draw.random() < 0.1:
            buffer.shrink()
    assert bodies == got, seed
    return ended


def break_it() -> None:
    """Break the code under test, as the canary says."""
    f.FrameBuffer._missing_bytes = lambda _self, _begun_bytes: 1
    moved = f.FrameBuffer._move

    def forgetful(self: f.FrameBuffer, begun_bytes: int, wanted_bytes: int) -> None:
        moved(self, begun_bytes, wanted_bytes)
        self._start = min(1, begun_bytes)

    f.FrameBuffer._move = forgetful


if __name__ == "__main__":
    run_trials(trial, break_it)
