"""Invariant tested: whatever strangers send to a real server, others are served, and nothing is left.

    python fuzz/live.py [--seed S] [--inputs N] [FILE ...]
    python fuzz/live.py canary        (must fail: a documented refusal is none any more)

An input is a round: connections that send damaged traffic and random bytes, in pieces, at once, half, with
bad lengths, and end in order, by a reset, or not at all. Among them good connections ask, write and read,
and each of their requests must be answered rightly within a second. At the end the server has not grown,
stops in order, and starts again with all that was written.
"""

from __future__ import annotations

import atexit
import contextlib
import random
import socket
import statistics
import struct
from collections import Counter
from typing import Final

import answers
import attrs
from answers import RESPONSE, Asked, asked_by, judge
from frames import frames_of
from packed import Piece, pack_pieces, parts, unpack_pieces
from server import Server, receive_frame
from traffic import DATABASE, Names, frame
from trials import Target, WrongAnswer, run_target

from flussd.core.wire.apis import ApiKey

CONNECTIONS: Final = 8
PIECES_MAX: Final = 10
ANSWER_S: Final = 5.0
GROWTH_BYTES_MAX: Final = 16 << 20
"""What the server may grow by after its warm-up; see `finish`."""

DESCRIPTORS_MAX: Final = 16
"""Files and sockets that may be open more than at the first look: segments that were rolled."""

TIDY_ROUNDS: Final = 10
"""Rounds between two looks for what strangers created."""

SEND, RESET, HALF_CLOSE, READ = range(4)
"""What is done with a connection: the upper bits of a piece's number."""


# ---- making --------------------------------------------------------------------------------------


def make(draw: random.Random) -> bytes:
    """Return a round: what each connection sends and does, in a drawn order."""
    scripts = [[(kind << 8 | n, data) for kind, data in _script(draw, n & 1)] for n in range(CONNECTIONS)]
    pieces: list[Piece] = []
    while any(scripts):
        pieces.append(draw.choice([script for script in scripts if script]).pop(0))
    return pack_pieces(pieces)


def _script(draw: random.Random, server: int) -> list[Piece]:
    """Return what one connection does."""
    stream = b"".join(_whole(draw, server, n) for n in range(draw.choice((1, 3, 8, 20))))
    chance = draw.random()
    if chance < 0.1:
        stream = draw.randbytes(draw.choice((1, 3, 5, 40, 3000)))
    elif chance < 0.2:
        stream += struct.pack(">i", draw.choice((-1, 0, 7, -(2**31), 2**31 - 1, 101 << 20))) + bytes(9)
    elif chance < 0.35:
        stream = stream[: draw.randrange(len(stream))]
    elif chance < 0.4:
        stream += struct.pack(">i", draw.choice((8 << 20, 100 << 20))) + draw.randbytes(50)
    script: list[Piece] = []
    while stream:
        size = draw.choice((1, 2, 5, 30, 1000, 1 << 20)) if len(script) < PIECES_MAX else len(stream)
        script.append((SEND, stream[:size]))
        stream = stream[size:]
    ending = draw.random()
    if ending < 0.6:
        script.append((READ, b""))
    elif ending < 0.75:
        script.append((RESET, b""))
    elif ending < 0.85:
        script.append((HALF_CLOSE, b""))
    return script


def _whole(draw: random.Random, server: int, request_id: int) -> bytes:
    """Return a frame that leaves the tables of `traffic` alone: their ids are in later rounds."""
    while True:
        _, data = frame(draw, Names(), request_id, server)
        if len(data) >= 8 and not _drops_ours(server, data):
            return struct.pack(">i", len(data)) + data


def _drops_ours(server: int, data: bytes) -> bool:
    asked = asked_by(server, data)
    if asked.message is None:
        return False
    if asked.api_key == ApiKey.DROP_DATABASE:
        return asked.message.database_name == DATABASE
    return asked.api_key in (ApiKey.DROP_TABLE, ApiKey.DROP_PARTITION, ApiKey.ALTER_CLUSTER_CONFIGS)


# ---- checking ------------------------------------------------------------------------------------


@attrs.define(eq=False)
class Stranger:
    """One connection of a round."""

    server: int
    peer: socket.socket
    sent: bytearray = attrs.Factory(bytearray)
    is_over: bool = False
    is_half_closed: bool = False

    def do(self, kind: int, data: bytes, ended: Counter[str]) -> None:
        """Do one thing; what comes after the end does nothing."""
        if self.is_over:
            return
        if kind == SEND:
            self.send(data)
        elif kind == RESET:
            self.reset()
            ended["reset"] += len(frames_of(bytes(self.sent))[0])
        elif kind == HALF_CLOSE:
            self.is_half_closed = True
            with contextlib.suppress(OSError):  # the server may have closed
                self.peer.shutdown(socket.SHUT_WR)
        else:
            self.read(ended)

    def send(self, data: bytes) -> None:
        """Send; the server may have closed, which reading will tell."""
        self.sent += data
        self.peer.settimeout(ANSWER_S)
        try:
            with contextlib.suppress(ConnectionError):
                self.peer.sendall(data)
        except TimeoutError:
            raise WrongAnswer(f"the server takes nothing for {ANSWER_S:g} s") from None

    def reset(self) -> None:
        """Close without a word."""
        self.is_over = True
        self.peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.peer.close()

    def read(self, ended: Counter[str]) -> None:
        """Take all answers that are due; each frame has one, unless a bad length ended the stream."""
        bodies, is_bad = frames_of(bytes(self.sent))
        asked = [asked_by(self.server, body) for body in bodies]
        due = dict(enumerate(asked))
        self.is_over = True
        try:
            self._read(due, ended)
            if is_bad:
                self._expect_close(due, ended)
        except (EOFError, ConnectionError):
            if not is_bad and not self.is_half_closed:
                raise WrongAnswer(f"a close, with {len(due)} of {len(asked)} requests unanswered") from None
        except TimeoutError:
            raise WrongAnswer(f"no answer in {ANSWER_S:g} s to {list(due.values())[:3]}") from None
        finally:
            self.peer.close()
        ended["closed" if is_bad else "parked"] += len(due)
        if is_bad and not asked:
            ended["closed"] += 1

    def _read(self, due: dict[int, Asked], ended: Counter[str]) -> None:
        while any(not one.waits for one in due.values()):
            self._take(due, ended)

    def _take(self, due: dict[int, Asked], ended: Counter[str]) -> None:
        """Take one answer, which is for one of *due*."""
        self.peer.settimeout(ANSWER_S)
        answer = receive_frame(self.peer)
        _, request_id = RESPONSE.unpack_from(answer)
        mine = [n for n, one in due.items() if one.request_id == request_id]
        if not mine:
            raise WrongAnswer(f"an answer to request {request_id}, which is not open")
        for n in mine:
            try:
                ended[judge(due[n], answer)] += 1
            except WrongAnswer:
                if n == mine[-1]:
                    raise
            else:
                del due[n]
                return

    def _expect_close(self, due: dict[int, Asked], ended: Counter[str]) -> None:
        while True:
            self._take(due, ended)


@attrs.define(eq=False)
class Campaign:
    """The server of all rounds of this process, and its size after each."""

    server: Server | None = None
    sizes_bytes: list[int] = attrs.Factory(list)
    descriptors: int = 0

    def running(self) -> Server:
        """Return the server; a new one in place of one that ended."""
        if self.server is not None and not self.server.is_alive:
            self.server.remove()
            self.server, self.sizes_bytes = None, []
        if self.server is None:
            self.server = Server().start()
            self.server.probe()
            self.descriptors = self.server.descriptor_count()
        return self.server

    def growth(self) -> tuple[int, int]:
        """Return the middle sizes of the second and of the last third of the rounds, in bytes."""
        third = max(1, len(self.sizes_bytes) // 3)
        second = self.sizes_bytes[third : 2 * third] or self.sizes_bytes
        return int(statistics.median(second)), int(statistics.median(self.sizes_bytes[-third:]))

    def end(self) -> None:
        """Remove the server."""
        if self.server is not None:
            self.server.remove()
            self.server = None


CAMPAIGN: Final = Campaign()
atexit.register(CAMPAIGN.end)


def check(packed: bytes) -> Counter[str]:
    """Play one round; return how its requests ended."""
    server, ended = CAMPAIGN.running(), Counter[str]()
    strangers: dict[int, Stranger] = {}
    pieces = unpack_pieces(packed)
    try:
        for n, (number, data) in enumerate(pieces):
            kind, connection = number >> 8 & 3, number & 0xFF
            if connection not in strangers:
                strangers[connection] = Stranger(connection & 1, server.connect(connection & 1))
            if n == len(pieces) // 2:
                server.probe()  # while others are in the midst of their frames
            strangers[connection].do(kind, data, ended)
        server.probe()
        for stranger in strangers.values():
            if stranger.is_half_closed:
                stranger.read(ended)
    finally:
        for stranger in strangers.values():
            if not stranger.is_over:
                ended["left"] += len(frames_of(bytes(stranger.sent))[0])
            stranger.peer.close()
    server.probe()
    CAMPAIGN.sizes_bytes.append(server.rss_bytes())
    if len(CAMPAIGN.sizes_bytes) % TIDY_ROUNDS == 0:
        server.tidy()
    return ended


def finish() -> str:
    """Hold the server to its size, stop it, and start it again; return what is wrong."""
    server = CAMPAIGN.server
    if server is None:
        return ""
    warm_bytes, end_bytes = CAMPAIGN.growth()
    slowest_ms = max(good.slowest_s for good in server.good) * 1000
    print(
        f"live: {warm_bytes >> 20} MiB in the second third of {len(CAMPAIGN.sizes_bytes)} rounds, "
        f"{end_bytes >> 20} MiB in the last; {len(server.written)} good writes, "
        f"the slowest good answer took {slowest_ms:.0f} ms"
    )
    if end_bytes - warm_bytes > GROWTH_BYTES_MAX:
        return f"the server grew from {warm_bytes >> 20} to {end_bytes >> 20} MiB"
    server.tidy()
    server.probe()
    if (more := server.descriptor_count() - CAMPAIGN.descriptors) > DESCRIPTORS_MAX:
        return f"the server has {more} more files and sockets open than at the start"
    return _restarted(server)


def _restarted(server: Server) -> str:
    """Stop in order and start on the same folder: all good writes must be there."""
    if status := server.stop():
        return f"the server stopped with {status}: {server.errors()}"
    server.start()
    for n in range(0, len(server.written), max(1, len(server.written) // 50)):
        server.read(n)
    server.probe()
    status = server.stop()
    CAMPAIGN.end()
    return f"the server stopped with {status} the second time" if status else ""


def break_it() -> None:
    """Break what is under test, as the canary says: here, what reads it, for it is another process."""
    answers.ALLOWED[ApiKey.GET_TABLE_INFO] = frozenset()


TARGET = Target("live", make, check, break_it, 300, parts, tries_max=40, finish=finish)

if __name__ == "__main__":
    run_target(TARGET)
