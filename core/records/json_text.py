"""JSON text that a client sent, decoded with a bound on everything.

What JSON or upstream's reader has no use for is refused with the code that the caller names: half
characters, NaN, a key twice, brackets without end. The decoder recurses, so brackets are counted first.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final, NoReturn

from flussd.core.records.refusal import Refused
from flussd.core.wire.errors import ErrorCode

JSON_DEPTH_MAX: Final = 200
"""Brackets within brackets: the deepest type (32 rows in rows) needs 70."""

JSON_BYTES_MAX: Final = 1024 * 1024
"""What fits into one registry transaction; a descriptor with 10 000 columns is smaller."""

_SHOWN_CHARACTERS: Final = 60
_BRACKET: Final = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{}]', re.DOTALL)


def shown(text: str) -> str:
    """Return *text* for an error text: quoted, and cut short."""
    cut = text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "..."
    return repr(cut)


def dump(value: dict[str, Any]) -> bytes:
    """Return *value* as upstream writes it: no blanks, UTF-8."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def load_object(raw: bytes | str, where: str, code: ErrorCode) -> dict[str, Any]:
    """Return the object that *raw* holds.

    Raises:
        Refused: with *code*, if it is not one JSON object, or beyond the limits above.
    """
    try:
        data = raw.encode() if isinstance(raw, str) else raw
        if len(data) > JSON_BYTES_MAX:
            raise Refused(code, f"{where}: expected at most {JSON_BYTES_MAX} bytes, got {len(data)}")
        text = data.decode()
        if _depth(text) > JSON_DEPTH_MAX:
            raise Refused(code, f"{where}: expected at most {JSON_DEPTH_MAX} nested brackets")
        value = json.loads(text, object_pairs_hook=_object, parse_constant=_no_constant)
        if "\\u" in text:  # an escape may be half of a character, which nobody could write again
            json.dumps(value, ensure_ascii=False).encode()
    except ValueError as error:  # malformed, not UTF-8, a number of thousands of digits
        raise Refused(code, f"{where} is not JSON: {str(error)[:200]!a}") from None
    if not isinstance(value, dict):
        raise Refused(code, f"{where}: expected a JSON object")
    return value


def _depth(text: str) -> int:
    """Return how deep brackets nest; 0 if there are too few to matter."""
    if text.count("[") + text.count("{") <= JSON_DEPTH_MAX:
        return 0
    depth = deepest = 0
    for match in _BRACKET.finditer(text):
        if match[0] in ("[", "{"):
            depth += 1
            deepest = max(deepest, depth)
        elif match[0] in ("]", "}"):
            depth -= 1
    return deepest


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise ValueError("an object has a key twice")
    return value


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON number")
