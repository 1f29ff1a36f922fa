"""Small files that are replaced as a whole: one line of JSON behind its own checksum.

A file that was damaged reads as None, never as something else: the caller rebuilds what it held.
"""

from __future__ import annotations

import json
from typing import Any

from crc32c import crc32c


def seal(value: dict[str, Any]) -> bytes:
    """Return the content of a file that holds *value*."""
    body = json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
    return b"%08x %s\n" % (crc32c(body), body)


def unseal(data: bytes) -> dict[str, Any] | None:
    """Return what `seal` was given, or None when *data* is not all of that."""
    checksum, space, rest = data.partition(b" ")
    body = rest[:-1]
    if not space or rest[-1:] != b"\n" or checksum != b"%08x" % crc32c(body):
        return None
    value = json.loads(body)
    return value if isinstance(value, dict) else None
