"""Clients of the soak, all pyfluss, and what each of them is owed. No target itself.

A write whose acknowledgement came must be there; one whose did not may be. Nothing may be there twice, be
out of its writer's order, or change after a reader has seen it.
"""

from __future__ import annotations

import asyncio
import random
import time
from array import array
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import Any, Final

import attrs
import fluss
import pyarrow as pa

DATABASE: Final = "soak"
LOG_SCHEMA: Final = pa.schema(
    [pa.field("writer", pa.int32()), pa.field("n", pa.int64()), pa.field("pad", pa.string())]
)
PARTS_SCHEMA: Final = LOG_SCHEMA.append(pa.field("part", pa.string()))
ROWS_SCHEMA: Final = pa.schema([pa.field("key", pa.int32()), pa.field("value", pa.int64())])
PARTS: Final = ("a", "b")
KEYS: Final = 200
IN_FLIGHT: Final = 4
PAUSE_S: Final = 0.02
"""Between two writes of one writer: the readers are Python, and shall keep up."""

RETRY_S: Final = 0.3
POLL_MS: Final = 500
CATCH_UP_S: Final = 60.0


class Broken(AssertionError):  # noqa: N818 - it names what was found
    """Something that was acknowledged is not so."""


def pad(n: int) -> str:
    """Return what belongs to the *n*th row of any writer."""
    return chr(97 + n % 26) * (n * 7 % 120)


@attrs.define(eq=False)
class Writer:
    """The rows of one writer: *acked* of them in runs of (first, count), *sent* in all."""

    number: int
    table: str
    acked: list[tuple[int, int]] = attrs.Factory(list)
    sent: int = 0

    @property
    def name(self) -> str:
        """What reports call it."""
        return f"writer {self.number} of {self.table}"

    @property
    def acked_count(self) -> int:
        """How many rows were acknowledged."""
        return sum(count for _, count in self.acked)


@attrs.define(eq=False)
class Bucket:
    """What the reader of a bucket has seen: (writer << 40 | n) by offset."""

    table: str
    partition: str
    number: int
    partition_id: int = -1
    seen: array[int] = attrs.Factory(lambda: array("q"))
    latest: dict[int, int] = attrs.Factory(dict)  # n by writer

    @property
    def name(self) -> str:
        """What reports call it."""
        return f"{self.table}{'/' + self.partition if self.partition else ''}/{self.number}"

    @property
    def reader(self) -> str:
        """What reports call its reader."""
        return f"reader of {self.name}"

    def take(self, offset: int, row: dict[str, Any]) -> None:
        """Look at the next record."""
        writer, n = row["writer"], row["n"]
        if offset != len(self.seen):
            raise Broken(f"{self.name}: expected offset {len(self.seen)}, got {offset}")
        if n <= self.latest.get(writer, -1):
            raise Broken(f"{self.name}@{offset}: row {n} of writer {writer} behind {self.latest[writer]}")
        if row["pad"] != pad(n):
            raise Broken(f"{self.name}@{offset}: row {n}: expected {pad(n)!r}, got {row['pad']!r}")
        self.latest[writer] = n
        self.seen.append(writer << 40 | n)

    async def scanner(self, connection: Any, offset: int) -> Any:
        """Return a scanner of this bucket alone, from *offset* on."""
        table = await connection.get_table(fluss.TablePath(DATABASE, self.table))
        scanner = await table.new_scan().create_log_scanner()
        if self.partition:
            scanner.subscribe_partition(self.partition_id, self.number, offset)
        else:
            scanner.subscribe(bucket_id=self.number, start_offset=offset)
        return scanner


@attrs.define(eq=False)
class Clients:
    """All of them, on one connection that lives through everything."""

    connection: Any
    seed: int
    ending: bool = False
    writers: list[Writer] = attrs.Factory(list)
    buckets: list[Bucket] = attrs.Factory(list)
    values: dict[int, tuple[int, int]] = attrs.Factory(dict)  # key -> acknowledged, sent
    value: int = 0
    changes: int = 0
    errors: dict[str, int] = attrs.Factory(dict)
    progress: dict[str, float] = attrs.Factory(dict)  # when somebody got something done

    async def set_up(self) -> None:
        """Create what all of them use."""
        admin = self.connection.get_admin()
        await admin.create_database(DATABASE, ignore_if_exists=False)
        for name, schema, count, more in (
            ("one", LOG_SCHEMA, 1, {}),
            ("many", LOG_SCHEMA, 3, {}),
            ("parts", PARTS_SCHEMA, 2, {"partition_keys": ["part"]}),
            ("rows", ROWS_SCHEMA, 2, {"primary_keys": ["key"]}),
        ):
            described = fluss.Schema(schema, primary_keys=more.pop("primary_keys", None))
            wanted = fluss.TableDescriptor(described, bucket_count=count, **more)
            await admin.create_table(fluss.TablePath(DATABASE, name), wanted)
            if name != "rows":
                partitions = PARTS if name == "parts" else ("",)
                self.buckets += [Bucket(name, part, n) for part in partitions for n in range(count)]
        path = fluss.TablePath(DATABASE, "parts")
        for part in PARTS:
            await admin.create_partition(path, {"part": part})
        ids = {info.partition_name: info.partition_id for info in await admin.list_partition_infos(path)}
        for bucket in self.buckets:
            bucket.partition_id = ids.get(bucket.partition, -1)
        self.writers = [Writer(n, name) for n, name in enumerate(("one", "one", "many", "many", "parts"))]

    def work(self) -> Iterator[Coroutine[Any, Any, None]]:
        """Return what runs until `ending`, each raising Broken."""
        for writer in self.writers:
            yield self._repeat(writer.name, self._writing(writer))
        for bucket in self.buckets:
            yield self._repeat(bucket.reader, self._reading(bucket))
        yield self._repeat("upserts", self._upserting)
        yield self._repeat("admin", self._administering)

    def stalled(self, after_s: float) -> list[str]:
        """Return who did nothing for so long."""
        now = time.monotonic()
        return [name for name, at in self.progress.items() if now - at > after_s]

    def summary(self) -> str:
        """Return what was done, in a line."""
        acked = sum(writer.acked_count for writer in self.writers)
        read = sum(len(bucket.seen) for bucket in self.buckets)
        errors = ", ".join(f"{kind} x{count}" for kind, count in sorted(self.errors.items())) or "none"
        return (
            f"{acked:,} rows acknowledged, {read:,} read, {self.value:,} upserted, "
            f"{self.changes} tables and partitions; errors of clients: {errors}"
        )

    async def _repeat(self, name: str, once: Callable[[], Awaitable[None]]) -> None:
        """Do *once* again and again; an error of the client is counted, and it begins anew."""
        self.progress[name] = time.monotonic()
        while not self.ending:
            try:
                await once()
            except fluss.FlussError as error:
                kind = f"{name.split(maxsplit=1)[0]} {error.error_code}"
                self.errors[kind] = self.errors.get(kind, 0) + 1
                await asyncio.sleep(RETRY_S)
        del self.progress[name]

    def _done(self, name: str) -> None:
        self.progress[name] = time.monotonic()

    # ---- writers and readers -------------------------------------------------------------------

    def _writing(self, writer: Writer) -> Callable[[], Awaitable[None]]:
        draw = random.Random(f"{self.seed} {writer.number}")

        async def once() -> None:
            table = await self.connection.get_table(fluss.TablePath(DATABASE, writer.table))
            appends = table.new_append().create_writer()
            pending = deque[tuple[int, int, Any]]()
            while not self.ending or pending:
                if not self.ending and len(pending) < IN_FLIGHT:
                    pending.append(self._write(appends, writer, draw))
                    await asyncio.sleep(PAUSE_S)
                    continue
                first, count, handle = pending.popleft()
                await handle.wait()
                writer.acked.append((first, count))
                self._done(writer.name)

        return once

    def _write(self, appends: Any, writer: Writer, draw: random.Random) -> tuple[int, int, Any]:
        first, count = writer.sent, draw.choice((1, 3, 20, 60))
        rows = [{"writer": writer.number, "n": n, "pad": pad(n)} for n in range(first, first + count)]
        schema = LOG_SCHEMA
        if writer.table == "parts":
            schema, part = PARTS_SCHEMA, draw.choice(PARTS)
            rows = [row | {"part": part} for row in rows]
        writer.sent += count
        return first, count, appends.write_arrow_batch(pa.RecordBatch.from_pylist(rows, schema=schema))

    def _reading(self, bucket: Bucket) -> Callable[[], Awaitable[None]]:
        async def once() -> None:
            scanner = await bucket.scanner(self.connection, len(bucket.seen))
            while not self.ending:
                for record in await scanner.poll(POLL_MS):
                    bucket.take(record.offset, record.row)
                    self._done(bucket.reader)

        return once

    # ---- the table with a primary key, and the tables that come and go ---------------------------

    async def _upserting(self) -> None:
        draw = random.Random(f"{self.seed} {self.value}")
        table = await self.connection.get_table(fluss.TablePath(DATABASE, "rows"))
        writer, lookuper = table.new_upsert().create_writer(), table.new_lookup().create_lookuper()
        while not self.ending:
            keys = draw.sample(range(KEYS), draw.choice((1, 5, 30)))
            for key in keys:
                self.value += 1
                self.values[key] = (self.values.get(key, (-1, -1))[0], self.value)
                writer.upsert({"key": key, "value": self.value})
            await writer.flush()
            for key in keys:
                self.values[key] = (self.values[key][1], self.values[key][1])
            self.check_row(keys[0], await lookuper.lookup({"key": keys[0]}))
            self._done("upserts")

    def check_row(self, key: int, row: dict[str, Any] | None) -> None:
        """A key has its latest acknowledged value, or one that was sent after it."""
        acked, sent = self.values.get(key, (-1, -1))
        got = row["value"] if row is not None else -1
        if not acked <= got <= sent:
            raise Broken(f"key {key}: expected {acked} to {sent}, got {got}")

    async def _administering(self) -> None:
        """Create a table and a partition, look, drop them, look; after an error, the same table again."""
        admin, name = self.connection.get_admin(), f"t{self.changes}"
        path = fluss.TablePath(DATABASE, name)
        wanted = fluss.TableDescriptor(fluss.Schema(PARTS_SCHEMA), bucket_count=2, partition_keys=["part"])
        await admin.create_table(path, wanted, ignore_if_exists=True)
        await admin.create_partition(path, {"part": "x"}, ignore_if_exists=True)
        names = await admin.list_tables(DATABASE)
        parts = [info.partition_name for info in await admin.list_partition_infos(path)]
        if name not in names or parts != ["x"]:
            raise Broken(f"{name} was created with partition x: listed are {names}, {parts}")
        await admin.drop_table(path, ignore_if_not_exists=True)
        if name in (names := await admin.list_tables(DATABASE)):
            raise Broken(f"{name} was dropped: listed are {names}")
        self.changes += 1
        self._done("admin")

    # ---- the end -------------------------------------------------------------------------------

    async def check_all(self, connection: Any) -> None:
        """Read all again on a new *connection*: what the readers saw, and all that was acknowledged."""
        found: dict[int, set[int]] = {writer.number: set() for writer in self.writers}
        for bucket in self.buckets:
            again = Bucket(bucket.table, bucket.partition, bucket.number, bucket.partition_id)
            end = await self._end_of(connection, bucket)
            scanner = await again.scanner(connection, 0)
            give_up = time.monotonic() + CATCH_UP_S
            while len(again.seen) < end:
                if time.monotonic() > give_up:
                    raise Broken(f"{bucket.name}: expected {end} records, got {len(again.seen)}")
                for record in await scanner.poll(POLL_MS):
                    again.take(record.offset, record.row)
            if again.seen[: len(bucket.seen)] != bucket.seen:
                raise Broken(f"{bucket.name}: is not what its reader saw before")
            for one in again.seen:
                found[one >> 40].add(one & (1 << 40) - 1)
        for writer in self.writers:
            rows = {n for first, count in writer.acked for n in range(first, first + count)}
            if missing := sorted(rows - found[writer.number]):
                raise Broken(
                    f"{writer.name}: {len(missing)} acknowledged rows are gone, the first is {missing[0]}"
                )
        table = await connection.get_table(fluss.TablePath(DATABASE, "rows"))
        keys = sorted(self.values)
        lookupers = [table.new_lookup().create_lookuper() for _ in keys]
        rows = await asyncio.gather(
            *(lookuper.lookup({"key": key}) for key, lookuper in zip(keys, lookupers, strict=True))
        )
        for key, row in zip(keys, rows, strict=True):
            self.check_row(key, row)

    async def _end_of(self, connection: Any, bucket: Bucket) -> int:
        admin, path = connection.get_admin(), fluss.TablePath(DATABASE, bucket.table)
        latest = fluss.OffsetSpec.latest()
        if bucket.partition:
            ends = await admin.list_partition_offsets(path, bucket.partition, [bucket.number], latest)
        else:
            ends = await admin.list_offsets(path, [bucket.number], latest)
        end: int = ends[bucket.number]
        return end
