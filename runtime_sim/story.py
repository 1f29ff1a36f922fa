"""The story of a run: one line an event, in fixed columns, written only when somebody wants to read it.

Columns: time in ms, node, what kind of thing happened, and its details. docs/simulation.md explains them.
Nothing of the run may depend on whether it is written.
"""

from __future__ import annotations

from typing import Any, Final, TextIO

import attrs
from google.protobuf.message import Message

TEXT_MAX: Final = 300
"""Longer details are cut: a line is for reading."""

BYTES_SHOWN_MAX: Final = 24


@attrs.define(eq=False, repr=False)
class Story:
    """Where the lines go; *out* is None when nobody reads."""

    out: TextIO | None = None

    @property
    def is_told(self) -> bool:
        """Whether anybody reads it."""
        return self.out is not None

    def line(self, at_us: int, node: str, kind: str, text: str) -> None:
        """Write one line."""
        if self.out is not None:
            short = " ".join(text.split())[:TEXT_MAX]
            self.out.write(f"{at_us // 1000:>8}.{at_us % 1000:03} {node:<12} {kind:<9} {short}\n")

    def event(self, at_us: int, node: str, kind: str, event: Any) -> None:
        """Write the line of an event of a machine."""
        if self.out is not None:
            self.line(at_us, node, kind, told(event))


def told(value: Any, depth: int = 0) -> str:
    """Return *value* in a few words; payloads as sizes, three levels deep at most."""
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).hex() if len(value) <= BYTES_SHOWN_MAX else f"<{len(value)} bytes>"
    if isinstance(value, Message):
        return f"{type(value).__name__}({' '.join(str(value).split())[:TEXT_MAX]})"
    if depth > 3:
        return "..."
    if isinstance(value, tuple | list):
        return "[" + ", ".join([told(item, depth + 1) for item in value[:8]]) + "]"
    if attrs.has(type(value)):
        fields = [f"{f.name}={told(getattr(value, f.name), depth + 1)}" for f in attrs.fields(type(value))]
        return f"{type(value).__name__}({', '.join(fields)})"
    return str(value.name) if hasattr(value, "name") and not isinstance(value, str) else str(value)
