"""Invariant tested: whatever a request holds, it gets one answer of its documented class, and harms nobody.

    python fuzz/messages.py [--seed S] [--inputs N] [FILE ...]
    python fuzz/messages.py canary        (must fail: missing fields are not looked for)

Real requests of every API that is served, damaged field by field, go to a whole cluster in virtual time. An
input is one session: some thirty requests, one after the other, and then a good write and read.
"""

from __future__ import annotations

import random
from collections import Counter
from typing import Final

from answers import Asked, asked_by, judge
from packed import Piece, pack_pieces, parts, unpack_pieces
from simulated import Line, SimulatedCluster
from traffic import DATABASE, PARTITION, PARTITIONED, TABLES, Names, descriptor_of, frame
from trials import Target, WrongAnswer, run_target

from flussd.core.edge.frames import FRAME_HEAD_REQUEST_BYTES
from flussd.core.wire import messages
from flussd.core.wire.apis import ApiKey

REQUESTS: Final = 30


def make(draw: random.Random) -> bytes:
    """Return a session."""
    names = Names()
    pieces: list[Piece] = [frame(draw, names, request_id) for request_id in range(REQUESTS)]
    return pack_pieces(pieces)


def cluster() -> SimulatedCluster:
    """Return a cluster with the tables that `traffic` speaks of."""
    made = SimulatedCluster()
    made.lines[0].ask(
        ApiKey.CREATE_DATABASE,
        messages.CreateDatabaseRequest(database_name=DATABASE, ignore_if_exists=True),
    )
    ids = [made.create(DATABASE, name, descriptor_of(name)) for name in TABLES]
    names = Names(tuple(ids), made.create_partition(DATABASE, PARTITIONED, PARTITION))
    assert names == Names(), f"a fresh cluster: expected {Names()}, got {names}"
    for table_id in ids[:2]:
        made.write(table_id, b"a" * 100)
        made.write(table_id, b"b" * 100)
    made.write(ids[2], b"c" * 100, names.partition_id)
    return made


def check(packed: bytes) -> Counter[str]:
    """Play one session; return how its requests ended."""
    made = cluster()
    lines: list[Line | None] = [None, None]
    ended: Counter[str] = Counter()
    for server, piece in unpack_pieces(packed):
        server &= 1
        line = lines[server]
        if line is None or line.is_closed:
            line = lines[server] = made.line(server)
        ended[_ask(line, piece)] += 1
    for line in filter(None, lines):
        line.close()
    made.probe()
    made.close()
    return ended


def _ask(line: Line, piece: bytes) -> str:
    """Send one request; return how it ended."""
    line.answers.clear()
    line.send(len(piece).to_bytes(4) + piece)
    if len(piece) < FRAME_HEAD_REQUEST_BYTES:
        line.wait(1)
        if not line.is_closed or line.answers:
            raise WrongAnswer(f"a frame of {len(piece)} bytes: expected a close, got {line.answers}")
        return "closed"
    asked = asked_by(line.server, piece)
    came = line.wait(1)
    if not line.answers and not line.is_closed and asked.waits:
        line.close()  # its time may be weeks
        line.is_closed = True
        return "parked"
    return _judged(line, asked, came=came)


def _judged(line: Line, asked: Asked, *, came: bool) -> str:
    if not came or not line.answers:
        raise WrongAnswer(f"API key {asked.api_key}: no answer{' but a close' if line.is_closed else ''}")
    if len(line.answers) > 1:
        raise WrongAnswer(f"API key {asked.api_key}: expected one answer, got {len(line.answers)}")
    return judge(asked, line.answers[0])


def break_it() -> None:
    """Break the code under test, as the canary says."""
    for name in ("CreateTableRequest", "ListOffsetsRequest", "LimitScanRequest"):
        getattr(messages, name).IsInitialized = lambda _self: True


TARGET = Target("messages", make, check, break_it, 1_200, parts)

if __name__ == "__main__":
    run_target(TARGET)
