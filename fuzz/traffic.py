"""Real traffic: the requests of the recorded wire cases, and what is made of them.

No target itself. The names and numbers that a case learns from its server are filled in from the cluster
that is fuzzed: `Names` says what it has.
"""

from __future__ import annotations

import functools
import importlib.util
import itertools
import json
import random
import struct
from pathlib import Path
from typing import Any, Final

import attrs
import log_batches
import protobuf
import table_descriptor
from crc32c import crc32c
from simulated import descriptor

from flussd.core.records import kv_batch
from flussd.core.wire import apis
from flussd.core.wire.apis import ApiKey
from flussd.core.wire.served import SERVED_BY_COORDINATOR, SERVED_BY_TABLET

DATA: Final = Path(__file__).parents[1] / "tests" / "data"
COORDINATOR, TABLET = 0, 1
SERVED: Final = (SERVED_BY_COORDINATOR, SERVED_BY_TABLET)
HEAD: Final = struct.Struct(">hhi")  # of a frame: API key, version, request id
DATABASE: Final = "fuzz"
PARTITIONED: Final = "t2"
"""It has PARTITION."""

KEYED: Final = "t3"
"""It has a primary key."""

TABLES: Final = ("t0", "t1", PARTITIONED, KEYED)

PARTITION: Final = "2024"


@attrs.frozen
class Names:
    """The ids of the tables of a cluster, and of a partition."""

    table_ids: tuple[int, ...] = (1, 2, 3, 4)
    partition_id: int = 0


@attrs.frozen
class Request:
    """A recorded request."""

    server: int
    api_key: int
    version: int
    body: bytes


class Variables(dict[str, Any]):
    """Stands for all that a case binds on its way: of plain tables, or of *table*."""

    def __init__(self, names: Names, table: str | None) -> None:
        super().__init__()
        self.names, self.table = names, table

    def __contains__(self, _: object) -> bool:
        return True

    def __missing__(self, name: str) -> Any:
        n = sum(name.encode())
        if name == "db":
            return DATABASE
        if name == "x":
            return "x"
        if name.startswith("p"):
            return self.names.partition_id if name.endswith("_id") else PARTITION
        which = n % 2 if self.table is None else TABLES.index(self.table)
        if name.endswith("_id"):
            return self.names.table_ids[which]
        return TABLES[which] if name.startswith("t") else 1


def descriptor_of(table: str) -> bytes:
    """Return the descriptor of one of TABLES."""
    if table != KEYED:
        return descriptor(partitioned=table == PARTITIONED)
    cases = json.loads((DATA / "wire-cases.json").read_text())
    return json.dumps(cases["tables"]["kv1"]).encode()


@functools.lru_cache(1)
def _tool() -> Any:
    """Return the player of the cases, whose codec knows their notation."""
    place = importlib.util.spec_from_file_location("conformance", DATA / "tools" / "conformance.py")
    assert place is not None
    assert place.loader is not None
    tool = importlib.util.module_from_spec(place)
    place.loader.exec_module(tool)
    return tool


@functools.lru_cache(4)
def recorded(names: Names) -> dict[tuple[int, int], list[Request]]:
    """Return the recorded requests by (server, API key), for all that is served, without doubles."""
    tool = _tool()
    cases = json.loads((DATA / "wire-cases.json").read_text())
    protocol = tool.Protocol(json.loads((DATA / "messages.json").read_text()))
    scope = tool.Scope(cases["payloads"])
    found: dict[tuple[int, int], dict[Request, None]] = {
        (server, key): {} for server in (COORDINATOR, TABLET) for key in sorted(SERVED[server])
    }
    for step, table in itertools.product(_steps(cases["cases"]), (None, PARTITIONED, KEYED)):
        scope.vars = Variables(names, table)
        api = protocol.apis.get(step.get("api"))
        asked = step.get("request", step.get("body", {}))
        if api is None or isinstance(asked, str):
            continue
        try:
            body = protocol.encode(api["request"], asked, scope)
        except (tool.Fail, TypeError, ValueError, AttributeError, struct.error):
            continue  # a case whose variables are of another kind
        for server in (COORDINATOR, TABLET):
            if api["key"] in SERVED[server]:
                found[server, api["key"]][Request(server, api["key"], step.get("version", 0), body)] = None
    for (server, key), requests in found.items():
        requests[Request(server, key, apis.APIS[key].min_version, b"")] = None
    return {place: list(requests) for place, requests in found.items()}


def _steps(cases: list[Any]) -> list[dict[str, Any]]:
    """Return whatever in *cases* names an API, however deep it lies."""
    steps, waiting = [], list(reversed(cases))
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if isinstance(value.get("api"), str):
                steps.append(value)
            waiting += reversed(list(value.values()))
        elif isinstance(value, list):
            waiting += reversed(value)
    return steps


def frame(draw: random.Random, names: Names, request_id: int, only: int = -1) -> tuple[int, bytes]:
    """Return a server and a request for it, without the length: mostly real traffic that was damaged.

    *only* is the server that it must be for; -1: any.
    """
    known = recorded(names)
    server, key = draw.choice([place for place in sorted(known) if only in (-1, place[0])])
    request = draw.choice(known[server, key])
    body, version = request.body, request.version
    chance = draw.random()
    if chance < 0.15:
        pass
    elif key in (ApiKey.CREATE_TABLE, ApiKey.CREATE_DATABASE) and chance < 0.5:
        body = _with_descriptor(draw, key, body)
    elif key == ApiKey.PRODUCE_LOG and chance < 0.5:
        body = _with_batches(draw, body)
    elif key == ApiKey.PUT_KV and chance < 0.7:
        body = _with_kv_batches(draw, body)
    else:
        for _ in range(draw.choice((1, 1, 1, 2, 4))):
            body = protobuf.mutated(draw, apis.APIS[key].request, body)
    if draw.random() < 0.03:
        body = draw.randbytes(draw.randrange(200))
    if draw.random() < 0.02:
        key = draw.choice((0, 999, -1, 1013, 1018, 30000, 30001, 32767, draw.choice(sorted(apis.APIS))))
    if draw.random() < 0.02:
        version = draw.choice((-1, 1, 2, 99, 32767))
    whole = HEAD.pack(key, version, request_id) + body
    if draw.random() < 0.01:
        whole = protobuf.raw(draw, whole)
    return server, whole


def _replaced(body: bytes, number: int, content: bytes) -> bytes:
    """Return *body* with other bytes in its field *number*."""
    fields = [field for field in protobuf.split(body) if field[0] != number]
    return protobuf.join([*fields, (number, protobuf.BYTES, content)])


def _with_descriptor(draw: random.Random, key: int, body: bytes) -> bytes:
    tables = table_descriptor.tables()
    descriptor = table_descriptor.damaged(draw, draw.choice(tables))
    return _replaced(body, 3 if key == ApiKey.CREATE_DATABASE else 2, descriptor[:100_000])


def _with_batches(draw: random.Random, body: bytes) -> bytes:
    """Put batches, some of them damaged, into all buckets of a produce request."""
    fields = []
    for number, kind, content in protobuf.split(body):
        if number == 4 and kind == protobuf.BYTES:
            batches = bytearray(b"".join(log_batches.built(draw) for _ in range(draw.randrange(1, 4))))
            if draw.random() < 0.5:
                log_batches.damage(batches, draw)
            content = _replaced(content, 3, bytes(batches))
        fields.append((number, kind, content))
    return protobuf.join(fields)


def _with_kv_batches(draw: random.Random, body: bytes) -> bytes:
    """Damage what all buckets of a put hold, and make length and checksum right again."""
    fields = []
    for number, kind, content in protobuf.split(body):
        if number == 5 and kind == protobuf.BYTES:
            records = [part for field, _, part in protobuf.split(content) if field == 3]
            content = _replaced(
                content, 3, _damaged_kv_batch(draw, bytearray(records[-1] if records else b""))
            )
        fields.append((number, kind, content))
    return protobuf.join(fields)


def _damaged_kv_batch(draw: random.Random, batch: bytearray) -> bytes:
    for _ in range(draw.choice((0, 1, 1, 2))):
        if len(batch) <= kv_batch.COVERED_FROM:
            return bytes(batch)
        at = draw.randrange(kv_batch.COVERED_FROM, len(batch))
        match draw.randrange(3):
            case 0:
                batch[at] = draw.randrange(256)
            case 1:
                del batch[at : at + draw.randrange(1, 5)]
            case 2:
                batch[at:at] = draw.randbytes(draw.randrange(1, 5))
    struct.pack_into("<i", batch, 0, len(batch) - 4)
    struct.pack_into("<I", batch, kv_batch.COVERED_FROM - 4, crc32c(batch[kv_batch.COVERED_FROM :]))
    return bytes(batch)
