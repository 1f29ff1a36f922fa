"""One hash over everything that was delivered, the same in any process and on any Python.

Events are encoded canonically: type names and fields in their order, integers and bytes as such. It must
never look at repr of anything, at addresses, or go through what has no order. A set is refused, unless it
comes from a mutant that is there to show that its order would be seen.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from hashlib import blake2b
from typing import Any, Final

import attrs
from google.protobuf.message import Message

FLUSH_BYTES: Final = 1 << 16
"""Collected before the hash function is called: its start costs more than a small event."""


class NotCanonicalError(TypeError):
    """Something was delivered that has no canonical form."""


@attrs.define(eq=False, repr=False)
class Fingerprint:
    """The hash of a run, event by event."""

    count: int = 0
    _hash: Any = attrs.Factory(lambda: blake2b(digest_size=8))
    _pending: bytearray = attrs.Factory(bytearray)

    def add(self, at_us: int, node: int, event: Any) -> None:
        """Take *event*, delivered to *node* at *at_us*, into the hash; 3 to 10 us."""
        self.count += 1
        out = self._pending
        out += b"\n%d %d " % (at_us, node)
        encode(event, out)
        if len(out) >= FLUSH_BYTES:
            self._hash.update(out)
            out.clear()

    def hexdigest(self) -> str:
        """Return the hash so far, 16 hexadecimal digits."""
        self._hash.update(self._pending)
        self._pending.clear()
        return str(self._hash.hexdigest())


def encode(value: Any, out: bytearray) -> None:
    """Append the canonical form of *value* to *out*; nesting is bounded by the types of our events."""
    encoder = _ENCODERS.get(type(value))
    if encoder is None:
        encoder = _encoder_of(type(value))
        _ENCODERS[type(value)] = encoder
    encoder(value, out)


def _integer(value: int, out: bytearray) -> None:
    out += b"%d," % value


def _bytes(value: bytes | memoryview | bytearray, out: bytearray) -> None:
    out += b"%d:" % len(value)
    out += value


def _text(value: str, out: bytearray) -> None:
    _bytes(value.encode("utf-8", "surrogatepass"), out)


def _sequence(value: tuple[Any, ...] | list[Any], out: bytearray) -> None:
    out += b"("
    for item in value:
        encode(item, out)
    out += b")"


def _mapping(value: dict[Any, Any], out: bytearray) -> None:
    out += b"{"
    for key, item in value.items():
        encode(key, out)
        encode(item, out)
    out += b"}"


def _none(_: None, out: bytearray) -> None:
    out += b"-"


def _enum(value: enum.Enum, out: bytearray) -> None:
    out += value.name.encode()
    out += b","


def _message(value: Message, out: bytearray) -> None:
    out += type(value).__name__.encode()
    _bytes(value.SerializeToString(deterministic=True), out)


def _attrs_encoder(kind: type) -> Callable[[Any, bytearray], None]:
    name = kind.__name__.encode() + b"("
    fields = [field.name for field in attrs.fields(kind)]

    def encoder(value: Any, out: bytearray) -> None:
        out.extend(name)
        for field in fields:
            encode(getattr(value, field), out)
        out.extend(b")")

    return encoder


def _encoder_of(kind: type) -> Callable[[Any, bytearray], None]:
    """Choose how values of *kind* are encoded; done once for each type."""
    if attrs.has(kind):
        return _attrs_encoder(kind)
    if issubclass(kind, enum.Enum):
        return _enum
    if issubclass(kind, Message):
        return _message
    if issubclass(kind, tuple):
        return _sequence
    raise NotCanonicalError(f"no canonical form of {kind.__name__}")


_ENCODERS: dict[type, Callable[[Any, bytearray], None]] = {
    int: _integer,
    bool: _integer,
    bytes: _bytes,
    bytearray: _bytes,
    memoryview: _bytes,
    str: _text,
    tuple: _sequence,
    list: _sequence,
    dict: _mapping,
    type(None): _none,
}
