#!/usr/bin/env python3
"""Play recorded wire cases against a Fluss-compatible server and report the first difference of each.

    conformance.py HOST:PORT [--cases FILE] [--only NAME] [--reference] [--release R] [-v] [--json]

HOST:PORT is any server of the cluster; the coordinator and the tablet servers are learned from GET_METADATA, as
real clients do. One line for each case (ok, skip or FAIL with the first difference: path, expected, got), then
`N passed, M failed`. Exit status 0 only if nothing failed. Standard library only. The formats of messages.json and
of the case file are described in wire-protocol.md, section 9.
"""

from __future__ import annotations

import argparse, json, pathlib, random, re, select, socket, struct, sys, time
from typing import Any

SPEC = pathlib.Path(__file__).resolve().parent.parent / "spec"
NOT_READY = {
    12,
    21,
    44,
}  # not leader, unknown table or bucket, no leader: normal for a moment after a creation
SILENCE_S = 15.0  # a server that has not answered after this time is taken as silent
MISSING = type("Missing", (), {"__repr__": lambda self: "(absent)"})()


class Fail(Exception):
    """A case failed; the text says where and why."""


# ---------------------------------------------------------------- proto2 codec


class Message(dict):
    """A decoded message; `later` names the fields it carries that only the 1.0.0 protocol file has."""

    later: frozenset[str] = frozenset()


def varint(n: int) -> bytes:
    n &= (1 << 64) - 1
    out = bytearray()
    while n > 127:
        out.append(n & 127 | 128)
        n >>= 7
    return bytes([*out, n])


def read_varint(b: bytes, i: int) -> tuple[int, int]:
    n = shift = 0
    while True:
        if i >= len(b) or shift > 63:
            raise Fail("response body: varint cut off or too long")
        n |= (b[i] & 127) << shift
        i, shift = i + 1, shift + 7
        if b[i - 1] < 128:
            return n, i


WIRE = {"int32": 0, "int64": 0, "bool": 0, "float": 5, "double": 1}


class Protocol:
    def __init__(self, table: dict) -> None:
        self.messages = {}
        for name, m in table["messages"].items():
            self.messages[name] = [
                (f[0], f[1], f[2], f[3], f[4] if len(f) > 4 else {}) for f in m["fields"]
            ]
        self.apis = {a["name"]: a for a in table["apis"]}
        self.errors = {int(k): v for k, v in table["errors"].items()}

    def error(self, code: Any) -> str:
        return (
            f"error {code} {self.errors.get(code, '(unknown code)')}"
            if isinstance(code, int)
            else f"error {code}"
        )

    def encode(self, name: str, value: dict, scope: Scope) -> bytes:
        """Encode without checking required fields, so that cases can leave them out."""
        unknown = set(value) - {f[1] for f in self.messages[name]}
        if unknown:
            raise Fail(f"case error: {name} has no field {sorted(unknown)}")
        out = b""
        for number, field, label, kind, extra in self.messages[name]:
            if field not in value:
                continue
            v = scope.fill(value[field])
            if label == "rep" and extra.get("packed"):
                body = b"".join(self._scalar(kind, scope.fill(x)) for x in v)
                out += varint(number << 3 | 2) + varint(len(body)) + body if v else b""
                continue
            for x in v if label == "rep" else [v]:
                x = scope.fill(x)
                if kind in WIRE:
                    out += varint(number << 3 | WIRE[kind]) + self._scalar(kind, x)
                else:
                    body = (
                        x.encode()
                        if kind == "string"
                        else scope.payload(x)
                        if kind == "bytes"
                        else self.encode(kind, x, scope)
                    )
                    out += varint(number << 3 | 2) + varint(len(body)) + body
        return out

    @staticmethod
    def _scalar(kind: str, x: Any) -> bytes:
        return (
            struct.pack("<f", x)
            if kind == "float"
            else struct.pack("<d", x)
            if kind == "double"
            else varint(int(x))
        )

    def decode(self, name: str, b: bytes) -> Message:
        fields = {f[0]: f for f in self.messages[name]}
        out, i, later = Message(), 0, set()
        while i < len(b):
            tag, i = read_varint(b, i)
            raw: Any
            if tag & 7 == 0:
                raw, i = read_varint(b, i)
            else:
                n = {1: 8, 5: 4}.get(tag & 7, -1)
                if tag & 7 == 2:
                    n, i = read_varint(b, i)
                if n < 0 or i + n > len(b):
                    raise Fail(f"response body: {name} field {tag >> 3}: bad wire type or length")
                raw, i = b[i : i + n], i + n
            if tag >> 3 not in fields:
                continue  # unknown fields are skipped, as clients do
            _, field, label, kind, extra = fields[tag >> 3]
            if "since" in extra:
                later.add(field)
            packed = label == "rep" and kind in WIRE and tag & 7 == 2
            if not packed and tag & 7 != WIRE.get(kind, 2):
                raise Fail(f"response body: {name}.{field} has wire type {tag & 7}")
            if packed:
                values, j = [], 0
                while j < len(raw):
                    n, j = read_varint(raw, j)
                    values.append(self._value(kind, n))
            else:
                values = [self._value(kind, raw)]
            if label == "rep":
                out.setdefault(field, []).extend(values)
            else:
                out[field] = values[0]
        for _, field, label, _, extra in self.messages[name]:
            if label == "req" and field not in out:
                raise Fail(f"response body: {name}.{field} is required and absent")
        out.later = frozenset(later)
        return out

    def _value(self, kind: str, raw: Any) -> Any:
        if kind in ("int32", "int64"):
            bits = 32 if kind == "int32" else 64
            raw &= (1 << bits) - 1
            return raw - (1 << bits) if raw >> (bits - 1) else raw
        if kind == "bool":
            return bool(raw)
        if kind in ("float", "double"):
            return struct.unpack("<f" if kind == "float" else "<d", raw)[0]
        return (
            raw.decode() if kind == "string" else raw.hex() if kind == "bytes" else self.decode(kind, raw)
        )


# ---------------------------------------------------------------- record batches

CHANGES = ["+A", "+I", "-U", "+U", "-D"]
_CRC = []
for _n in range(256):
    for _ in range(8):
        _n = _n >> 1 ^ (0x82F63B78 if _n & 1 else 0)
    _CRC.append(_n)


def crc32c(b: bytes) -> int:
    c = 0xFFFFFFFF
    for x in b:
        c = _CRC[(c ^ x) & 255] ^ c >> 8
    return c ^ 0xFFFFFFFF


def log_batch(
    scope: Scope,
    schema_id=1,
    writer=-1,
    seq=-1,
    payload="",
    count=None,
    append_only=True,
    magic=0,
    base=0,
    timestamp=0,
    delta=None,
    crc=None,
    length_add=0,
    cut=0,
    changes="",
) -> bytes:
    """One LogRecordBatch; `payload` is hex or the name of a payload of the case file (which then gives `count`)."""
    named = scope.payloads.get(payload)
    body = bytes.fromhex(changes) + bytes.fromhex(named["hex"] if named else payload)
    count = count if count is not None else named["count"] if named else 0
    delta = max(count - 1, 0) if delta is None else delta
    tail = struct.pack("<hBiqii", schema_id, 1 if append_only else 0, delta, scope.fill(writer), seq, count)
    tail += (b"\0\0\0\0" if magic else b"") + body
    head = struct.pack("<bq", magic, timestamp) + (struct.pack("<i", -1) if magic == 2 else b"")
    sum_ = crc32c(tail) ^ (0x5A5A if crc == "bad" else 0)
    out = (
        struct.pack("<qi", base, len(head) + 4 + len(tail) + length_add)
        + head
        + struct.pack("<I", sum_)
        + tail
    )
    return out[: len(out) - cut]


def kv_batch(
    scope: Scope,
    schema_id=1,
    writer=-1,
    seq=-1,
    records=(),
    count=None,
    magic=0,
    crc=None,
    length_add=0,
    cut=0,
) -> bytes:
    """One KvRecordBatch; `records` are pairs [key hex, row hex]; row null deletes."""
    body = b""
    for key, row in records:
        r = varint(len(key) // 2) + bytes.fromhex(key) + bytes.fromhex(row or "")
        body += struct.pack("<i", len(r)) + r
    tail = (
        struct.pack(
            "<hBqii", schema_id, 0, scope.fill(writer), seq, len(records) if count is None else count
        )
        + body
    )
    out = (
        struct.pack(
            "<ibI", len(tail) + 5 + length_add, magic, crc32c(tail) ^ (0x5A5A if crc == "bad" else 0)
        )
        + tail
    )
    return out[: len(out) - cut]


def read_log_batches(b: bytes, types: list[str] | None) -> list[dict]:
    """Complete batches as dicts; a cut-off last batch is left out, as clients do."""
    out, at = [], 0
    while at + 12 <= len(b):
        base, length = struct.unpack_from("<qi", b, at)
        if length < 36:
            raise Fail(f"records: batch at byte {at} has length {length}")
        if at + 12 + length > len(b):
            break
        x, at = b[at : at + 12 + length], at + 12 + length
        magic, timestamp = struct.unpack_from("<bq", x, 12)
        crc_at = 25 if magic == 2 else 21
        crc, schema_id, attributes, delta, writer, seq, count = struct.unpack_from("<IhBiqii", x, crc_at)
        body = x[crc_at + 27 :]
        stats = 0
        if magic:
            stats = struct.unpack_from("<i", body)[0]
            body = body[4 + stats :]
        d: dict[str, Any] = {
            "base_offset": base,
            "magic": magic,
            "timestamp": timestamp,
            "crc_ok": crc == crc32c(x[crc_at + 4 :]),
            "schema_id": schema_id,
            "append_only": attributes == 1,
            "attributes": attributes,
            "last_offset_delta": delta,
            "writer_id": writer,
            "batch_sequence": seq,
            "record_count": count,
            "statistics_length": stats,
            "payload": body.hex(),
            "size": len(x),
        }
        if types == ["rows"]:  # INDEXED or COMPACTED log: length, change type, row
            rows, i = [], 0
            while i < len(body):
                n, change = struct.unpack_from("<iB", body, i)
                rows.append([CHANGES[change], body[i + 5 : i + 4 + n].hex()])
                i += 4 + n
            d["rows"] = rows
        elif count:
            if attributes != 1:
                d["changes"] = [CHANGES[c] for c in body[:count]]
                body = body[count:]
            if types:
                d["rows"] = arrow_rows(body, types, count)
        out.append(d)
    return out


def arrow_rows(b: bytes, types: list[str], count: int) -> Any:
    """Rows of an uncompressed Arrow record batch message (a flatbuffer, then the buffers)."""

    def u(fmt: str, at: int) -> int:
        return struct.unpack_from("<" + fmt, b, at)[0]

    def slot(table: int, i: int) -> int:  # position of field i of a flatbuffer table, 0 if absent
        vt = table - u("i", table)
        return table + u("H", vt + 4 + 2 * i) if 4 + 2 * i < u("H", vt) and u("H", vt + 4 + 2 * i) else 0

    if u("I", 0) != 0xFFFFFFFF:
        raise Fail("records: no Arrow message at the start of the payload")
    msg = 8 + u("I", 8)
    rb = slot(msg, 2) + u("I", slot(msg, 2))
    nodes, buffers = (slot(rb, i) + u("I", slot(rb, i)) for i in (1, 2))
    n_nodes, n_buffers = u("I", nodes), u("I", buffers)
    body = 8 + u("i", 4)
    want = sum(3 if t in ("STRING", "BYTES") else 2 for t in types)
    if (n_nodes, n_buffers) != (len(types), want) or u("q", slot(rb, 0)) != count:
        return f"Arrow batch with {n_nodes} nodes, {n_buffers} buffers, {u('q', slot(rb, 0))} rows"
    if slot(rb, 3):
        return "compressed"
    k, columns = 0, []

    def buf() -> tuple[int, int]:
        nonlocal k
        at = buffers + 4 + 16 * k
        k += 1
        return body + u("q", at), u("q", at + 8)

    for t in types:
        at, n = buf()
        valid = [not n or bool(b[at + r // 8] >> r % 8 & 1) for r in range(count)]
        if t in ("STRING", "BYTES"):
            offs, _ = buf()
            data, _ = buf()
            cells = [b[data + u("i", offs + 4 * r) : data + u("i", offs + 4 * r + 4)] for r in range(count)]
            vals: list[Any] = [c.decode() if t == "STRING" else c.hex() for c in cells]
        else:
            data, _ = buf()
            if t == "BOOLEAN":
                vals = [bool(b[data + r // 8] >> r % 8 & 1) for r in range(count)]
            else:
                f, size = {
                    "TINYINT": ("b", 1),
                    "SMALLINT": ("h", 2),
                    "INTEGER": ("i", 4),
                    "DATE": ("i", 4),
                    "BIGINT": ("q", 8),
                    "FLOAT": ("f", 4),
                    "DOUBLE": ("d", 8),
                }[t]
                vals = [u(f, data + size * r) for r in range(count)]
        columns.append([v if ok else None for v, ok in zip(vals, valid)])
    return [list(r) for r in zip(*columns)]


def read_values(b: bytes) -> list:
    """A DefaultValueRecordBatch as [[schema id, row hex], ...]."""
    length, magic, count = struct.unpack_from("<ibi", b)
    if length != len(b) - 4 or magic:
        raise Fail(f"value batch: length {length} of {len(b) - 4}, magic {magic}")
    out, i = [], 9
    while i < len(b):
        n, schema_id = struct.unpack_from("<ih", b, i)
        out.append([schema_id, b[i + 6 : i + 4 + n].hex()])
        i += 4 + n
    if len(out) != count:
        raise Fail(f"value batch: says {count} records, holds {len(out)}")
    return out


# ---------------------------------------------------------------- variables and patterns


class Scope:
    """Variables of one running case, and the named payloads of the case file."""

    def __init__(self, payloads: dict) -> None:
        self.vars: dict[str, Any] = {}
        self.payloads = payloads

    def fill(self, v: Any) -> Any:
        """Put variables in: "$name" keeps the value's type, "${name}" inside text becomes text."""
        if isinstance(v, dict) and set(v) == {"$add"}:
            return sum(self.fill(x) for x in v["$add"])
        if isinstance(v, dict) and set(v) == {"$repeat"}:
            return self.fill(v["$repeat"][0]) * v["$repeat"][1]
        if not isinstance(v, str) or "$" not in v:
            return v
        if re.fullmatch(r"\$[a-z]\w*", v):
            if v[1:] not in self.vars:
                raise Fail(f"case error: variable {v} is not bound")
            return self.vars[v[1:]]
        return re.sub(r"\$\{(\w+)\}", lambda m: str(self.vars[m[1]]), v)

    def deep(self, v: Any) -> Any:
        """Put variables in everywhere, pattern keys like "$any" left alone."""
        if isinstance(v, dict):
            return {k if k.startswith("$") else self.fill(k): self.deep(x) for k, x in v.items()}
        if isinstance(v, list):
            return [self.deep(x) for x in v]
        return v if isinstance(v, str) and v.startswith("$bind:") else self.fill(v)

    def payload(self, v: Any) -> bytes:
        if isinstance(v, str):
            return bytes.fromhex(v)
        if set(v) == {"$json"}:
            return json.dumps(self.deep(v["$json"])).encode()
        if set(v) == {"$text"}:
            return self.fill(v["$text"]).encode()
        if set(v) == {"$log_batches"}:
            return b"".join(
                bytes.fromhex(x) if isinstance(x, str) else log_batch(self, **x) for x in v["$log_batches"]
            )
        if set(v) == {"$kv_batch"}:
            return kv_batch(self, **v["$kv_batch"])
        raise Fail(f"case error: bytes from {v!r}")


KINDS = {
    "int": lambda a: isinstance(a, int) and not isinstance(a, bool),
    "string": lambda a: isinstance(a, str),
    "hex": lambda a: isinstance(a, str) and re.fullmatch("([0-9a-f]{2})*", a) is not None,
    "bool": lambda a: isinstance(a, bool),
    "number": lambda a: isinstance(a, (int, float)) and not isinstance(a, bool),
    "list": lambda a: isinstance(a, list),
    "message": lambda a: isinstance(a, dict),
}


def differs(path: str, expected: Any, got: Any) -> str:
    def show(x: Any) -> str:
        text = repr(x) if x is MISSING else json.dumps(x, ensure_ascii=False)
        return text if len(text) < 300 else text[:300] + "…"

    return f"{path or 'response'}: expected {show(expected)}, got {show(got)}"


def match(p: Any, a: Any, path: str, s: Scope) -> str | None:
    """Compare a pattern with an answer; None if it fits, else the first difference. Binds variables on the way."""
    if isinstance(p, str):
        if p.startswith("$bind:") and a is not MISSING:
            s.vars[p[6:]] = a
            return None
        if p == "*":
            return differs(path, p, a) if a is MISSING else None
        p = s.fill(p)
    if isinstance(p, dict) and any(k.startswith("$") for k in p):
        return match_special(p, a, path, s)
    if isinstance(p, dict):
        if not isinstance(a, dict):
            return differs(path, p, a)
        p = {s.fill(k): x for k, x in p.items()}
        for k, x in p.items():
            if d := match(x, a.get(k, MISSING), f"{path}.{k}" if path else k, s):
                return d
        for k in a:
            if k not in p and k not in getattr(a, "later", ()):
                return differs(f"{path}.{k}" if path else k, MISSING, a[k])
        return None
    if isinstance(p, list):
        if not isinstance(a, list) or len(a) != len(p):
            return differs(path, s.deep(p), a)
        return next(
            (d for i, (x, y) in enumerate(zip(p, a)) if (d := match(x, y, f"{path}[{i}]", s))), None
        )
    same = p == a and isinstance(p, bool) == isinstance(a, bool)
    return None if same else differs(path, p, a)


def match_special(p: dict, a: Any, path: str, s: Scope) -> str | None:
    key = next(k for k in p if k.startswith("$"))
    x = p[key]
    if key == "$maybe":
        return None if a is MISSING else match(x, a, path, s)
    if a is MISSING:
        return differs(path, p, a)
    if key == "$any":
        return None if KINDS[x](a) else differs(path, p, a)
    if key == "$in":
        trial = [match(y, a, path, s) for y in x]
        return None if None in trial else differs(path, p, a)
    if key == "$range":
        lo, hi = (s.fill(y) for y in x)
        return None if KINDS["number"](a) and lo <= a <= hi else differs(path, p, a)
    if key == "$re":
        return None if isinstance(a, str) and re.fullmatch(x, a) else differs(path, p, a)
    if key == "$time":  # epoch milliseconds within so many seconds of now
        return None if KINDS["int"](a) and abs(a - time.time() * 1000) <= x * 1000 else differs(path, p, a)
    if key == "$add":
        return match(s.fill(p), a, path, s)
    if key in ("$unordered", "$contains"):
        if not isinstance(a, list) or (key == "$unordered" and len(a) != len(x)):
            return differs(path, s.deep(x), a)
        left = list(range(len(a)))
        for y in x:
            for i in left:
                saved = dict(s.vars)
                if match(y, a[i], path, s) is None:
                    left.remove(i)
                    break
                s.vars = saved
            else:
                return differs(path, {"an item": s.deep(y)}, a)
        return None
    if key == "$without":
        hit = next((y for y in a for z in x if match(z, y, path, s) is None), None)
        return None if hit is None else differs(path, p, hit)
    try:
        raw = bytes.fromhex(a)
        if key == "$json":
            return match(x, json.loads(raw), path, s)
        if key == "$values":
            return match(x, read_values(raw), path, s)
        if key == "$log_batches":
            got = read_log_batches(raw, p.get("types"))
    except (ValueError, struct.error, IndexError, KeyError, TypeError, UnicodeDecodeError) as e:
        return f"{path}: not decodable as {key[1:]}: {e!r}"
    if key == "$log_batches":
        low = p.get("at_least", len(x))
        if not low <= len(got) <= len(x):
            return differs(
                f"{path} (number of batches)",
                len(x) if low == len(x) else {"$range": [low, len(x)]},
                len(got),
            )
        for i, (want, have) in enumerate(zip(x, got)):
            for k, y in want.items():
                y = s.payloads[y]["hex"] if k == "payload" and y in s.payloads else y
                if d := match(y, have.get(k, MISSING), f"{path}[batch {i}].{k}", s):
                    return d
        return None
    raise Fail(f"case error: unknown pattern {key}")


# ---------------------------------------------------------------- connections


class Connection:
    def __init__(self, address: tuple[str, int], proto: Protocol) -> None:
        self.proto, self.next_id, self.buffer = proto, 0, b""
        self.sock = socket.create_connection(address, 10)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def frame(self, api: int, version: int, rid: int, body: bytes, length: int | None = None) -> bytes:
        return struct.pack(">ihhi", 8 + len(body) if length is None else length, api, version, rid) + body

    def receive(self, seconds: float) -> tuple[int, int, bytes] | None:
        """Next response frame (type, request id, body); None if the server closed. Fails on silence."""
        end = time.monotonic() + seconds
        while True:
            if len(self.buffer) >= 4:
                n = struct.unpack(">i", self.buffer[:4])[0]
                if n < 1 or n > 1 << 30:
                    raise Fail(f"response frame of length {n}")
                if len(self.buffer) >= 4 + n:
                    f, self.buffer = self.buffer[4 : 4 + n], self.buffer[4 + n :]
                    if f[0] == 2:
                        return 2, -1, f[1:]
                    return f[0], struct.unpack(">i", f[1:5])[0], f[5:]
            left = end - time.monotonic()
            if left <= 0 or not select.select([self.sock], [], [], left)[0]:
                raise Fail(f"silence: no answer within {seconds:g} s")
            try:
                more = self.sock.recv(1 << 16)
            except ConnectionError:
                more = b""
            if not more:
                return None
            self.buffer += more

    def call(
        self, api: str, version: int, body: bytes, seconds: float = SILENCE_S
    ) -> tuple[int | None, Message]:
        """Send a request and wait for its answer: (None, response) or (error code, ErrorResponse)."""
        rid, self.next_id = self.next_id, self.next_id + 1
        self.sock.sendall(self.frame(self.proto.apis[api]["key"], version, rid, body))
        while True:
            got = self.receive(seconds)
            if got is None:
                raise Fail(f"{api}: the server closed the connection")
            if got[0] == 2:
                raise Fail(
                    f"{api}: server failure frame (type 2): {self.proto.decode('ErrorResponse', got[2])}"
                )
            if got[1] == rid:
                return self.answer(api, got)

    def answer(self, api: str, got: tuple[int, int, bytes]) -> tuple[int | None, Message]:
        if got[0] == 1:
            e = self.proto.decode("ErrorResponse", got[2])
            return e["error_code"], e
        if got[0] != 0:
            raise Fail(f"response type {got[0]}")
        return None, self.proto.decode(self.proto.apis[api]["response"], got[2])


# ---------------------------------------------------------------- running cases


def error_codes(x: Any) -> set[int]:
    """All values of fields named error_code in an answer, or in the pattern of one."""
    if isinstance(x, list):
        return set().union(*map(error_codes, x))
    if isinstance(x, dict):
        code = x.get("error_code")
        own = code["$in"] if isinstance(code, dict) else [code]
        return {c for c in own if isinstance(c, int)} | error_codes(list(x.values()))
    return set()


class Case:
    """One run of one case: fresh names, own connections, variables."""

    on_answer = None  # a recorder may set a function (case, step, code, response)

    def __init__(self, suite: Suite, case: dict) -> None:
        self.suite, self.case, self.proto = suite, case, suite.proto
        self.scope = Scope(suite.payloads)
        tag = "".join(random.choices("abcdefghijklmnopqrstuvwxyz0123456789", k=8))
        day, now = 86400, time.time()
        dates = {
            "today": time.strftime("%Y%m%d", time.gmtime(now)),
            "tomorrow": time.strftime("%Y%m%d", time.gmtime(now + day)),
            "year": time.strftime("%Y", time.gmtime(now)),
        }
        dates["next_year"] = str(int(dates["year"]) + 1)  # auto partitions are named after dates in UTC
        self.scope.vars |= {
            "x": tag,
            "db": f"conf_{tag}",
            "tablet": min(suite.tablets),
            "now_ms": int(now * 1000),
            **dates,
        }
        self.connections: dict[Any, Connection] = {}
        self.leaders: dict[tuple[str, int], int] = {}
        self.default: tuple[str, int] | None = None
        self.made_db = False

    def address(self, to: str, bucket: list | None = None) -> tuple[str, int]:
        if to == "bootstrap":
            return self.suite.bootstrap
        if to == "coordinator":
            return self.suite.coordinator
        key = tuple(bucket) if bucket else self.default
        return self.suite.tablets[self.leaders.get(key, min(self.suite.tablets))]  # type: ignore[arg-type]

    def connection(self, to: str, bucket: list | None = None) -> Connection:
        address = self.address(to, bucket)
        key = (to == "coordinator", address)
        if key not in self.connections:
            c = self.connections[key] = Connection(address, self.proto)
            c.call(
                "API_VERSIONS",
                0,
                self.proto.encode(
                    "ApiVersionsRequest",
                    {"client_software_name": "conformance", "client_software_version": "1"},
                    self.scope,
                ),
            )
        return self.connections[key]

    def call(
        self, to: str, api: str, request: dict, version: int = 0, bucket: list | None = None
    ) -> tuple[int | None, Message]:
        return self.connection(to, bucket).call(
            api, version, self.proto.encode(self.proto.apis[api]["request"], request, self.scope)
        )

    def must(self, to: str, api: str, request: dict) -> Message:
        code, m = self.call(to, api, request)
        if code is not None:
            raise Fail(f"{api}: {self.proto.error(code)}: {m.get('error_message', '')[:200]}")
        return m

    def run(self) -> None:
        try:
            for i, step in enumerate(self.case["steps"]):
                try:
                    self.step(step)
                except Fail as e:
                    what = step.get("api") or next(
                        (
                            k
                            for k in ("raw", "table", "partition", "database", "writer", "sleep_ms")
                            if k in step
                        ),
                        "?",
                    )
                    raise Fail(f"step {i + 1} {what}: {e}") from None
                except OSError as e:
                    raise Fail(f"step {i + 1}: {e!r}") from None
        finally:
            if self.made_db:
                self.suite.garbage.append((time.monotonic(), self.scope.vars["db"]))
            for c in self.connections.values():
                c.sock.close()

    def step(self, step: dict) -> None:
        if "api" in step:
            self.rpc(step)
        elif "raw" in step:
            Raw(self, step).run()
        elif "database" in step:
            self.database()
        elif "table" in step:
            self.table(step)
        elif "partition" in step:
            self.partition(step)
        elif "writer" in step:
            m = self.must(
                "tablet",
                "INIT_WRITER",
                {"table_path": [{"database_name": "$db", "table_name": self.last_table}]},
            )
            self.scope.vars[step["writer"]] = m["writer_id"]
        elif "sleep_ms" in step:
            time.sleep(step["sleep_ms"] / 1000)
        else:
            raise Fail(f"case error: unknown step {step}")

    def rpc(self, step: dict) -> None:
        retry = step.get("retry", 0)
        end = time.monotonic() + (retry or 10)
        wanted = error_codes(step.get("expect", {}))
        while True:
            t0 = time.monotonic()
            code, response = self.call(
                step.get("to", "tablet"),
                step["api"],
                step.get("request", {}),
                step.get("version", 0),
                step.get("bucket"),
            )
            ms = (time.monotonic() - t0) * 1000
            diff = self.compare(step, code, response)
            if diff is None and not step.get("after_ms", 0) <= ms <= step.get("within_ms", 1e9):
                diff = f"answered after {ms:.0f} ms, expected {step.get('after_ms', 0)} to {step.get('within_ms', 'any')} ms"
            not_ready = ({code} if code is not None else error_codes(response)) & NOT_READY - wanted - set(
                self.codes(step)
            )
            if diff is None or time.monotonic() > end or not (retry or not_ready):
                break
            time.sleep(0.1)
        if self.suite.verbose > 1:
            print(f"    {step['api']} -> {code if code is not None else json.dumps(response)[:1000]}")
        if Case.on_answer:
            diff = Case.on_answer(self, step, code, response, diff)
        if diff:
            raise Fail(diff)

    @staticmethod
    def codes(step: dict) -> list[int]:
        e = step.get("error", [])
        return e if isinstance(e, list) else [e]

    def compare(self, step: dict, code: int | None, response: Message) -> str | None:
        if "error" in step:
            if code in self.codes(step):
                return None
            want = " or ".join(map(self.proto.error, self.codes(step)))
            return f"expected {want}, got " + (
                f"{self.proto.error(code)}: {response.get('error_message', '')[:300]}"
                if code is not None
                else f"success {json.dumps(response)[:300]}"
            )
        if code is not None:
            return (
                f"expected success, got {self.proto.error(code)}: {response.get('error_message', '')[:300]}"
            )
        return match(step.get("expect", {}), response, "", self.scope)

    # helper steps

    def database(self) -> None:
        if not self.made_db:
            self.must("coordinator", "CREATE_DATABASE", {"database_name": "$db", "ignore_if_exists": True})
            self.made_db = True

    def wait(self, what: str, ready: Any) -> Any:
        end = time.monotonic() + 20
        while (x := ready()) is None:
            if time.monotonic() > end:
                raise Fail(f"{what} not ready after 20 s")
            time.sleep(0.03)
        return x

    def table(self, step: dict) -> None:
        """Create a table and wait until every bucket has a leader that answers; binds NAME and NAME_id."""
        name, desc = step["table"], self.suite.table(step)
        self.database()
        self.last_table = self.scope.vars[name] = step.get("named", f"{name}_{self.scope.vars['x']}")
        path = {"database_name": "$db", "table_name": self.last_table}
        self.must(
            "coordinator",
            "CREATE_TABLE",
            {"table_path": path, "table_json": {"$json": desc}, "ignore_if_exists": False},
        )
        buckets = 0 if desc.get("partition_key") else desc.get("bucket_count", 1)

        def ready() -> dict | None:
            code, m = self.call("tablet", "GET_METADATA", {"table_path": [path]})
            t = m.get("table_metadata", []) if code is None else []
            return t[0] if t and self.led(name, t[0].get("bucket_metadata", []), buckets) else None

        t = self.wait(f"table {name}", ready)
        self.scope.vars[f"{name}_id"] = t["table_id"]
        self.default = (name, 0) if buckets else None
        self.serving(name, buckets, t["table_id"], {})

    def partition(self, step: dict) -> None:
        """Create a partition of the last table and wait for its leaders; binds NAME and NAME_id."""
        name, path = step["partition"], {"database_name": "$db", "table_name": self.last_table}
        self.must(
            "coordinator",
            "CREATE_PARTITION",
            {
                "table_path": path,
                "partition_spec": {
                    "partition_key_values": [{"key": k, "value": v} for k, v in step["spec"].items()]
                },
                "ignore_if_not_exists": False,
            },
        )
        self.scope.vars[name] = "$".join(self.scope.fill(v) for v in step["spec"].values())
        buckets = step.get("buckets", 1)

        def ready() -> dict | None:
            code, m = self.call(
                "tablet",
                "GET_METADATA",
                {
                    "table_path": [path],
                    "partitions_path": [path | {"partition_name": self.scope.vars[name]}],
                },
            )
            p = m.get("partition_metadata", []) if code is None else []
            return p[0] if p and self.led(name, p[0].get("bucket_metadata", []), buckets) else None

        p = self.wait(f"partition {name}", ready)
        self.scope.vars[f"{name}_id"] = p["partition_id"]
        self.default = (name, 0)
        self.serving(name, buckets, p["table_id"], {"partition_id": p["partition_id"]})

    def led(self, name: str, buckets: list, count: int) -> bool:
        for b in buckets:
            if b.get("leader_id") not in self.suite.tablets:
                return False
            self.leaders[name, b["bucket_id"]] = b["leader_id"]
        return len(buckets) == count

    def serving(self, name: str, buckets: int, table_id: int, partition: dict) -> None:
        """Wait until each bucket answers a fetch, which only a leader does."""

        def ready(b: int) -> bool | None:
            bucket = {**partition, "bucket_id": b, "fetch_offset": -2, "max_fetch_bytes": 1}
            table = {"table_id": table_id, "projection_pushdown_enabled": False, "buckets_req": [bucket]}
            code, m = self.call(
                "tablet",
                "FETCH_LOG",
                {"follower_server_id": -1, "max_bytes": 1, "tables_req": [table]},
                0,
                [name, b],
            )
            return True if code is None and not error_codes(m) else None

        for b in range(buckets):
            self.wait(f"bucket {b} of {name}", lambda: ready(b))


class Raw:
    """A step on a connection of its own, byte by byte: bad frames, pipelining, order and time of answers."""

    def __init__(self, case: Case, step: dict) -> None:
        self.case, self.step, self.proto = case, step, case.proto
        self.conn = Connection(case.address(step.get("to", "tablet"), step.get("bucket")), case.proto)

    def run(self) -> None:
        try:
            self.started = time.monotonic()
            for n, action in enumerate(self.step["raw"]):
                try:
                    self.action(action)
                except Fail as e:
                    raise Fail(f"action {n + 1}: {e}") from None
        finally:
            self.conn.sock.close()

    def bytes_of(self, s: Any) -> bytes:
        if isinstance(s, str):
            return bytes.fromhex(s)
        api = s["api"]
        known = self.proto.apis.get(api)
        body = s.get("body", {})
        raw = (
            bytes.fromhex(body)
            if isinstance(body, str)
            else self.proto.encode(s.get("message") or known["request"], body, self.case.scope)
        )  # type: ignore[index]
        raw = raw[: len(raw) - s.get("cut", 0)] + bytes.fromhex(s.get("append", ""))
        return self.conn.frame(
            known["key"] if known else api, s.get("version", 0), s.get("id", 0), raw, s.get("length")
        )

    def action(self, a: dict) -> None:
        if "send" in a:
            data = b"".join(
                self.bytes_of(s) for s in (a["send"] if isinstance(a["send"], list) else [a["send"]])
            )
            self.started = time.monotonic()
            try:
                for i in range(0, len(data), a.get("chunk", len(data) or 1)):
                    self.conn.sock.sendall(data[i : i + a.get("chunk", len(data) or 1)])
                    time.sleep(a.get("pause_ms", 0) / 1000)
            except ConnectionError:
                pass  # seen by the next action that reads
        elif "answer" in a:
            self.answers([a["answer"]], a)
        elif "answers" in a:
            self.answers(list(a["answers"]), a)
        elif "close_or_error" in a:
            self.close_or_error(a)
        elif "sleep_ms" in a:
            time.sleep(a["sleep_ms"] / 1000)
        elif "step" in a:
            self.case.step(a["step"])
        else:
            raise Fail(f"case error: unknown action {a}")

    def answers(self, wanted: list[dict], a: dict) -> None:
        """Every wanted answer arrives, in any order among themselves and before any other one."""
        while wanted:
            got = self.conn.receive(max(SILENCE_S, a.get("within_ms", 0) / 1000))
            ms = (time.monotonic() - self.started) * 1000
            if got is None:
                raise Fail("the server closed the connection")
            w = next((w for w in wanted if w["id"] == got[1]), None)
            if w is None:
                raise Fail(
                    f"expected the answer to request {[x['id'] for x in wanted]}, got one to {got[1]} (type {got[0]})"
                )
            wanted.remove(w)
            if not a.get("after_ms", 0) <= ms <= a.get("within_ms", 1e9):
                raise Fail(
                    f"request {w['id']} answered after {ms:.0f} ms, expected {a.get('after_ms', 0)} to {a.get('within_ms', 'any')} ms"
                )
            code, m = self.conn.answer(w["api"], got)
            diff = self.case.compare(w, code, m)
            if Case.on_answer:
                diff = Case.on_answer(self.case, w, code, m, diff)
            if diff:
                raise Fail(f"request {w['id']} {w['api']}: {diff}")

    def close_or_error(self, a: dict) -> None:
        """The server answers the request with one of these codes, or closes; it is not silent."""
        got = self.conn.receive(a.get("within_ms", 5000) / 1000)
        if got is None:
            return
        if got[0] == 2:
            if self.conn.receive(5) is not None:
                raise Fail("a failure frame (type 2) must be followed by a close")
            return
        if got[0] != 1 or got[1] != a["id"]:
            raise Fail(
                f"expected a close or an error answer to request {a['id']}, got type {got[0]} for request {got[1]}"
            )
        code = self.proto.decode("ErrorResponse", got[2])["error_code"]
        if code not in a["close_or_error"]:
            raise Fail(
                f"expected {self.proto.error(a['close_or_error'])} or a close, got {self.proto.error(code)}"
            )


class Suite:
    def __init__(
        self, bootstrap: str, data: dict, proto: Protocol, verbose: int = 0, keep: bool = False
    ) -> None:
        host, _, port = bootstrap.rpartition(":")
        self.bootstrap, self.proto, self.verbose, self.keep = (host, int(port)), proto, verbose, keep
        self.data, self.payloads = data, data.get("payloads", {})
        self.garbage: list[tuple[float, str]] = []  # databases to drop, with the time since when
        c = Connection(self.bootstrap, proto)
        scope = Scope({})
        c.call(
            "API_VERSIONS",
            0,
            proto.encode(
                "ApiVersionsRequest",
                {"client_software_name": "conformance", "client_software_version": "1"},
                scope,
            ),
        )
        end = time.monotonic() + 30
        while True:  # a starting cluster may have no tablet server yet
            code, m = c.call("GET_METADATA", 0, b"")
            if code is None and m.get("tablet_servers") and m.get("coordinator_server"):
                break
            if time.monotonic() > end:
                raise SystemExit(
                    f"no coordinator or tablet server in the metadata of {bootstrap}: {code} {m}"
                )
            time.sleep(0.2)
        c.sock.close()
        self.coordinator = (m["coordinator_server"]["host"], m["coordinator_server"]["port"])
        self.tablets = {t["node_id"]: (t["host"], t["port"]) for t in m["tablet_servers"]}

    def table(self, step: dict) -> dict:
        """A table descriptor: a named one of the case file or a literal, with the step's changes."""
        d = step["json"]
        d = json.loads(json.dumps(self.data["tables"][d] if isinstance(d, str) else d))
        for k, v in step.get("with", {}).items():
            d[k] = {**d.get(k, {}), **v} if isinstance(v, dict) else v
        return d

    def clean(self, age: float = 2) -> None:
        """Drop the databases of cases that ended some seconds ago: the Java server can lose a table that is dropped
        the moment it was created, and then deletes nothing any more."""
        while self.garbage and not self.keep and time.monotonic() - self.garbage[0][0] > age:
            request = {
                "database_name": self.garbage.pop(0)[1],
                "ignore_if_not_exists": True,
                "cascade": True,
            }
            try:
                c = Connection(self.coordinator, self.proto)
                c.call("DROP_DATABASE", 0, self.proto.encode("DropDatabaseRequest", request, Scope({})))
                c.sock.close()
            except (Fail, OSError):
                return

    def skip(self, case: dict, reference: bool, release: str | None) -> str | None:
        if reference and case.get("java") == "differs":
            return "the Java server differs here"
        if (
            release
            and "since" in case
            and [int(x) for x in case["since"].split(".")] > [int(x) for x in release.split(".")]
        ):
            return f"since {case['since']}"
        needs = case.get("needs", [])
        if "separate-ports" in needs and self.coordinator in self.tablets.values():
            return "needs a coordinator and tablet servers on separate ports"
        if "one-tablet" in needs and len(self.tablets) != 1:
            return "needs exactly one tablet server"
        return None


def main() -> None:
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("bootstrap", metavar="HOST:PORT")
    ap.add_argument("--cases", type=pathlib.Path, default=SPEC / "wire-cases.json")
    ap.add_argument("--messages", type=pathlib.Path, default=SPEC / "messages.json")
    ap.add_argument("--only", metavar="NAME", help="run the cases whose name is or starts with NAME")
    ap.add_argument(
        "--reference",
        action="store_true",
        help='the server is the Java one: skip cases marked "java": "differs"',
    )
    ap.add_argument(
        "--release", metavar="R", help='skip cases marked with a later "since", for example --release 0.9'
    )
    ap.add_argument("--keep", action="store_true", help="do not drop the databases of the cases")
    ap.add_argument(
        "-v",
        dest="verbose",
        action="count",
        default=0,
        help="-v: time and purpose of each case; -vv: every answer",
    )
    ap.add_argument("--json", action="store_true", help="print the results as one JSON list")
    args = ap.parse_args()
    proto = Protocol(json.loads(args.messages.read_text()))
    data = json.loads(args.cases.read_text())
    try:
        suite = Suite(args.bootstrap, data, proto, args.verbose, args.keep)
    except (OSError, Fail, ValueError) as e:
        raise SystemExit(f"{args.bootstrap}: {e}")
    results, failed, passed, skipped = [], 0, 0, 0
    for case in data["cases"]:
        if args.only and not case["name"].startswith(args.only):
            continue
        why, t0 = suite.skip(case, args.reference, args.release), time.monotonic()
        if why:
            status, skipped = "skip", skipped + 1
        else:
            try:
                Case(suite, case).run()
                status, why, passed = "ok", None, passed + 1
            except Fail as e:
                status, why, failed = "FAIL", str(e), failed + 1
            suite.clean()
        results.append(
            {"name": case["name"], "status": status, "why": why, "seconds": round(time.monotonic() - t0, 3)}
        )
        if not args.json:
            more = f"  [{results[-1]['seconds']:.2f} s] {case['shows']}" if args.verbose else ""
            print(f"{status:4} {case['name']}{': ' + why if why else ''}{more}", flush=True)
    if suite.garbage and not args.keep:
        time.sleep(2)
        suite.clean(0)
    if args.json:
        print(json.dumps(results, indent=1))
    print(
        f"{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else ""),
        file=sys.stderr if args.json else sys.stdout,
    )
    if not results:
        raise SystemExit(f"no case is named {args.only!r}")
    raise SystemExit(1 if failed else 0)


if __name__ == "__main__":
    main()
