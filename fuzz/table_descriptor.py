"""Invariant tested: whatever a client says of a table or database, it is refused, or stored and read again.

    python fuzz/table_descriptor.py [--seed S] [--inputs N] [FILE ...]
    python fuzz/table_descriptor.py canary        (must fail: defaults are written over what was said)

Recorded descriptors are damaged: bytes, members, values, options, depth. What passes all checks must be
written as JSON that reads back as the same descriptor, and passes again.
"""

from __future__ import annotations

import copy
import functools
import json
import random
from pathlib import Path
from typing import Any

from trials import Target, run_target

from flussd.core.records.descriptor import (
    ClusterDefaults,
    TableDescriptor,
    parse_database_descriptor,
    parse_table_descriptor,
    validate,
    with_defaults,
)
from flussd.core.records.options import TABLE_OPTIONS
from flussd.core.records.refusal import Refused

CASES = Path(__file__).parents[1] / "tests" / "data" / "wire-cases.json"
DEFAULTS = ClusterDefaults()
VALUES: list[Any] = [
    None, True, False, 0, -1, 1, 3, 2**31, 10**400, 1.5, float("nan"), "", "a", "p", "\ud800", "x" * 300,
    [], {}, ["a"], ["a", "a"], {"a": "b"}, {"type": "STRING"}, {"type": "ROW", "fields": []},
    "1", "true", "DAY", "*", "7 d", "first_row", "versioned", "aggregation", "yyyy", "INDEXED", "٣",
]  # fmt: skip


def places(value: Any) -> list[tuple[Any, Any]]:
    """Return all (container, key) within *value*."""
    found, waiting = [], [value]
    while waiting:
        inner = waiting.pop()
        keys = (
            list(inner) if isinstance(inner, dict) else range(len(inner)) if isinstance(inner, list) else []
        )
        for key in keys:
            found.append((inner, key))
            waiting.append(inner[key])
    return found


@functools.lru_cache(1)
def tables() -> list[dict[str, Any]]:
    """Return the recorded descriptors."""
    return list(json.loads(CASES.read_text())["tables"].values())


def make(draw: random.Random) -> bytes:
    """Return JSON, or nearly, of a damaged descriptor."""
    return damaged(draw, draw.choice(tables()))


def damaged(draw: random.Random, good: dict[str, Any]) -> bytes:
    """Return JSON, or nearly, of a damaged descriptor."""
    value = copy.deepcopy(good)
    for _ in range(draw.randint(0, 4)):
        container, key = draw.choice(places(value))
        match draw.randrange(4):
            case 0 if isinstance(container, dict) and container is not value:
                del container[key]
            case 1 if isinstance(container, list):
                container.append(copy.deepcopy(container[key]))
            case 2 if isinstance(value.get("properties"), dict):
                value["properties"][draw.choice(sorted(TABLE_OPTIONS))] = draw.choice(VALUES)
            case _:
                container[key] = copy.deepcopy(draw.choice(VALUES))
    raw = bytearray(json.dumps(value).encode())
    if draw.random() < 0.1:
        raw[draw.randrange(len(raw))] = draw.randrange(256)
    if draw.random() < 0.02:
        raw[:0] = draw.choice([b"[", b'{"a":']) * draw.choice([50, 300, 50_000])
    return bytes(raw)


def check(raw: bytes) -> str:
    """Hold *raw* to the invariant; return how that ended."""
    try:
        parse_database_descriptor(raw)
    except Refused as refused:
        refused.text.encode()
    try:
        descriptor = with_defaults(parse_table_descriptor(raw), DEFAULTS)
        validate(descriptor, DEFAULTS)
    except Refused as refused:
        refused.text.encode()
        return "refused"
    written = descriptor.to_json()
    again = parse_table_descriptor(written)
    assert descriptor == again, f"read back as another: {written!r}"
    assert again == with_defaults(again, DEFAULTS), f"completed twice: {written!r}"
    validate(again, DEFAULTS)
    return "stored"


def break_it() -> None:
    """Break the code under test, as the canary says."""
    TableDescriptor.to_json = lambda self: json.dumps({"version": 1, "comment": self.comment}).encode()


TARGET = Target("table_descriptor", make, check, break_it, 12_000)

if __name__ == "__main__":
    run_target(TARGET)
