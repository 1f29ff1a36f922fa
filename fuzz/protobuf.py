"""Structured damage to protobuf messages: fields dropped, doubled, overflown, retyped, nested, unknown.

No target itself. It works on the bytes of a message and on the table of its fields, so that what it writes
is mostly still a message, and now and then is none.
"""

from __future__ import annotations

import random
import struct
from typing import Final

from flussd.core.wire.table import MESSAGES

Field = tuple[int, int, bytes]  # number, wire type, what is behind the tag (without the size)

VARINT, FIXED64, BYTES, GROUP, FIXED32 = 0, 1, 2, 3, 5
DEPTH_MAX: Final = 4
"""Messages within messages that are gone into; the protocol has three."""

MANY: Final = 20_000
"""More than a request may list."""

DOUBLED_BYTES_MAX: Final = 300_000
"""What doubles may add to a message: it may be doubled again with all that is around it."""

NUMBERS: Final = (
    0, 1, 2, 3, -1, -2, 7, 127, 128, 255, 2**16, 2**31 - 1, 2**31, -(2**31), 2**32 - 1, 2**32, 2**53,
    2**63 - 1, -(2**63), 2**64 - 1,
)  # fmt: skip
TEXTS: Final = (
    b"", b"a", b"fuzz", b"probe", b"t0", b"t1", b"t2", b"x" * 300, b"\xff\xfe", b"\xed\xa0\x80", b"\x00",
    b"../..", b"__internal", b"a b", b"\xc3\xa9", b"%s%n", b"t0$p", b"2024", b"-1", b"true", b"{}", b"[]",
    b"null", b'{"a":1}',
)  # fmt: skip
KNOWN: Final = {
    name: {number: kind for number, _, _, kind, _ in fields} for name, fields in MESSAGES.items()
}


def varint(number: int) -> bytes:
    """Return *number*, of at most 64 bits, as protobuf writes it."""
    number &= (1 << 64) - 1
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes((*out, number))


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """Return the number at *at* and where the next byte is. Raises ValueError."""
    number = 0
    for n in range(10):
        if at + n >= len(data):
            break
        number |= (data[at + n] & 127) << 7 * n
        if data[at + n] < 128:
            return number, at + n + 1
    raise ValueError(f"no number at byte {at}")


def split(data: bytes) -> list[Field]:
    """Return the fields of a message. Raises ValueError for what is none."""
    fields, at = [], 0
    while at < len(data):
        tag, at = read_varint(data, at)
        kind, start = tag & 7, at
        if kind == VARINT:
            at = read_varint(data, at)[1]
        elif kind == BYTES:
            size_bytes, start = read_varint(data, at)
            at = start + size_bytes
        elif kind in (FIXED32, FIXED64):
            at += 4 if kind == FIXED32 else 8
        else:
            raise ValueError(f"wire type {kind}")
        if at > len(data):
            raise ValueError("cut")
        fields.append((tag >> 3, kind, data[start:at]))
    return fields


def join(fields: list[Field]) -> bytes:
    """Return the message that has *fields*."""
    out = bytearray()
    for number, kind, content in fields:
        out += varint(number << 3 | kind)
        if kind == BYTES:
            out += varint(len(content))
        out += content
    return bytes(out)


def mutated(draw: random.Random, name: str, data: bytes, depth: int = 0) -> bytes:
    """Return the message *name* of *data*, changed in one place; *depth* is how deep it lies in others."""
    try:
        fields = split(data)
    except ValueError:
        return raw(draw, data)
    inner = [n for n, (number, kind, _) in enumerate(fields) if kind == BYTES and _message(name, number)]
    plain = 0.6 if len(inner) < len(fields) else 0.9  # other content for a message is none, as a rule
    if inner and depth < DEPTH_MAX and draw.random() < plain:
        n = draw.choice(inner)
        number, kind, content = fields[n]
        fields[n] = (number, kind, mutated(draw, _message(name, number), content, depth + 1))
    else:
        _change(draw, name, fields)
    return join(fields)


def _message(name: str, number: int) -> str:
    """Return the name of the message that a field of the message *name* holds; empty for other fields."""
    kind = KNOWN.get(name, {}).get(number, "")
    return kind if kind in MESSAGES else ""


def _change(draw: random.Random, name: str, fields: list[Field]) -> None:
    """Change one of *fields*, or add one."""
    n = draw.randrange(len(fields)) if fields else 0
    match draw.randrange(24) if fields else 8:
        case 0:
            del fields[n]
        case 1:
            count = draw.choice((1, 2, 50, 1000)) if draw.random() < 0.95 else MANY
            fields += [fields[n]] * min(count, DOUBLED_BYTES_MAX // (len(fields[n][2]) + 1))
        case 2:
            draw.shuffle(fields)
        case 3:
            number, _, content = fields[n]
            kind = draw.choice((VARINT, FIXED64, BYTES, GROUP, 4, FIXED32))
            fields[n] = (number, kind, content)
        case 4:
            fields.insert(n, _foreign(draw))
        case 8:
            fields.append(_known(draw, name))
        case _:
            number, kind, content = fields[n]
            fields[n] = (number, kind, _value(draw, kind, content))


def _foreign(draw: random.Random) -> Field:
    """Return a field of any number, which nobody may know."""
    number = draw.choice((0, 9, 15, 16, 99, 2**28, 2**29 - 1))
    return draw.choice(((number, VARINT, b"\x01"), (number, BYTES, b"abc"), (number, FIXED64, bytes(8))))


def _known(draw: random.Random, name: str) -> Field:
    """Return a field that the message may have, or a foreign one."""
    known = KNOWN.get(name)
    if not known:
        return _foreign(draw)
    number = draw.choice(sorted(known))
    kind = VARINT if known[number] in ("int32", "int64", "bool") else BYTES
    kind = {"float": FIXED32, "double": FIXED64}.get(known[number], kind)
    return number, kind, _value(draw, kind, b"")


def _value(draw: random.Random, kind: int, content: bytes) -> bytes:
    """Return other content for a field of wire type *kind*."""
    if kind == VARINT:
        number = draw.choice((*NUMBERS, draw.getrandbits(draw.randrange(1, 65))))
        return draw.choice(
            (varint(number), varint(number), varint(number), b"\x80" * 9 + b"\x01", b"\xff" * 11)
        )
    if kind in (FIXED32, FIXED64):
        return draw.choice((content, struct.pack("<d", float("nan")), bytes(8), b"\xff" * 8))[
            : 4 if kind == 5 else 8
        ]
    if draw.random() < 0.5:
        return draw.choice(TEXTS)
    return raw(draw, content)


def raw(draw: random.Random, data: bytes) -> bytes:
    """Return *data* changed in its bytes, with no regard to what they mean."""
    out = bytearray(data)
    at = draw.randrange(len(out) + 1)
    match draw.randrange(5):
        case 0 if at < len(out):
            out[at] ^= 1 << draw.randrange(8)
        case 1:
            del out[at:]
        case 2:
            out[at:at] = draw.randbytes(draw.randrange(12))
        case 3:
            del out[at : at + draw.randrange(1, 12)]
        case _ if at < len(out):
            out[at] = draw.choice((0, 1, 0x7F, 0x80, 0xFF))
    return bytes(out)
