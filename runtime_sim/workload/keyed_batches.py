"""Puts as simulated writers make them: what each record says, and the bytes of the whole batch.

A put is kept as it was meant, so that the model of the engines can judge what a server made of it. Every
text tells who wrote it, so that no two rows are the same by chance.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple, TypeAlias

import attrs

from flussd.core.records.kv_batch import build_kv_batch, read_kv_head
from flussd.runtime_sim.draws import Stream
from flussd.runtime_sim.workload.batches import Identity, SentBatch
from flussd.runtime_sim.workload.keyed_tables import KEYS, Engine, KeyedSpec

Key: TypeAlias = tuple[int, int]
Row: TypeAlias = tuple[Any, ...]

DELETE_PPM: Final = 250_000
TARGETS_PPM: Final = 250_000
OVERWRITE_PPM: Final = 60_000
NULL_PPM: Final = 200_000


class PutRecord(NamedTuple):
    """One record: a key, and the row that it gets; None deletes."""

    key: Key
    row: Row | None


@attrs.define(eq=False, repr=False)
class SentPut(SentBatch):
    """A batch of PUT_KV; *targets* are the columns that it is about, none: all."""

    records: tuple[PutRecord, ...] = ()
    targets: tuple[int, ...] = ()
    overwrites: bool = False  # goes past the merge engine

    @property
    def record_count(self) -> int:
        """How many records it has."""
        return len(self.records)

    def __repr__(self) -> str:
        return f"{self.identity} {list(self.records)} targets {self.targets} {self.overwrites}"


def drawn_key(draws: Stream, spec: KeyedSpec) -> Key:
    """Draw one of the keys of a bucket: of many, one of the first few half of the time."""
    count = KEYS if spec.key_values == KEYS or draws.chance(500_000) else spec.key_values
    return draws.below(count), draws.below(count)


def drawn_targets(draws: Stream, spec: KeyedSpec, arity: int) -> tuple[int, ...]:
    """Draw the columns that a put is about; none: it is about whole rows.

    Where ids are given, all puts have to say what they are about, and it must not be the ids.
    """
    if spec.engine not in (Engine.DEFAULT, Engine.AGGREGATION):
        return ()
    if not spec.id_type and not draws.chance(TARGETS_PPM):
        return ()
    fixed = (*spec.key_places, spec.id_place)
    others = [n for n in range(arity) if n not in fixed and draws.chance(500_000)]
    return (*others, *spec.key_places)


def drawn_record(draws: Stream, spec: KeyedSpec, schema_id: int, *, partition: str, who: str) -> PutRecord:
    """Draw one record of a put with rows of *schema_id*."""
    key = drawn_key(draws, spec)
    if draws.chance(DELETE_PPM):
        return PutRecord(key, None)

    def maybe(value: Any) -> Any:
        return None if draws.chance(NULL_PPM) else value

    row = [*key, maybe(draws.between(-1_000, 1_000)), maybe(draws.below(40)), who]
    if partition:
        row.append(partition)
    if spec.id_type:
        row.append(maybe(-draws.between(1, 1_000)))  # no id that a server gives: it is not looked at
    row += [maybe(draws.below(1_000)) for _ in range(schema_id - 1)]
    return PutRecord(key, tuple(row))


def make_put(
    spec: KeyedSpec,
    identity: Identity,
    records: tuple[PutRecord, ...],
    *,
    targets: tuple[int, ...],
    overwrites: bool,
    writer_id: int,
    sequence: int,
    schema_id: int,
    acks: int,
    generation: int,
) -> SentPut:
    """Build a put."""
    encode, key_of = spec.codec(schema_id).encode, spec.keys.encode
    data = build_kv_batch(
        [(key_of(key), None if row is None else encode(row)) for key, row in records],
        schema_id=schema_id,
        writer_id=writer_id,
        batch_sequence=sequence,
    )
    crc = read_kv_head(memoryview(data)).crc
    sent = (identity, writer_id, sequence, schema_id, (), (), acks, generation, data, crc)
    return SentPut(*sent, records=records, targets=targets, overwrites=overwrites)
