"""Primary-key tables of a run, drawn from the seed: engine, image, formats, keys, and their descriptions.

Columns 0 and 1 are the key, beside the partition of a partitioned table; few values of both, so that
writers collide. The others hold what engines work on. An auto-increment column is behind them; only tables
whose engines take target columns have one. Columns that are added later are INTEGER, and last.
"""

from __future__ import annotations

import enum
import json
from typing import Any, Final

import attrs

from flussd.core.records.keys import KeyEncoder, primary_key_encoder
from flussd.core.records.rows.codec import RowCodec, RowFormat, row_codec
from flussd.core.records.types import DataType
from flussd.runtime_sim.draws import Stream
from flussd.runtime_sim.workload.tables import (
    PARTITION_COLUMN,
    Partitioning,
    TableSpec,
    drawn_partitioning,
)

KEY_COLUMNS: Final = (("k", "INTEGER"), ("b", "INTEGER"))
VALUE_COLUMNS: Final = (("v", "BIGINT"), ("n", "INTEGER"), ("t", "STRING"))
SUM_COLUMN, NUMBER_COLUMN, TEXT_COLUMN = 2, 3, 4
PARTITION_PLACE: Final = 5
ID_COLUMN: Final = "number"
IDS_PPM: Final = 450_000
"""Of the tables that may have an auto-increment column: three of ten of all."""

ADDED_TYPE: Final = DataType("INTEGER")
KEYS: Final = 4
"""Values of each of the two columns of a key: sixteen keys a bucket."""

NUMBERED_KEYS: Final = 16
"""The same where ids are given: their rows cannot be deleted, and there have to be new ones to the end."""


class Engine(enum.Enum):
    """Merge engines, by the values of the table option; the default one is not named in it."""

    DEFAULT = ""
    FIRST_ROW = "first_row"
    VERSIONED = "versioned"
    AGGREGATION = "aggregation"


@attrs.frozen
class KeyedSpec(TableSpec):
    """One primary-key table; *ignores_deletes* is what it does with deletes."""

    engine: Engine = Engine.DEFAULT
    is_full: bool = True  # its changelog has the rows before updates, too
    log_format: str = "ARROW"
    kv_format: str = "COMPACTED"
    compression: str = "NONE"
    ignores_deletes: bool = False
    has_prefixes: bool = False  # its bucket key is the first column of its key
    id_type: str = ""  # of its auto-increment column; empty: it has none
    id_cache_size: int = 0  # how many ids a bucket takes at once; 0: what a table takes by default

    @classmethod
    def drawn_keyed(cls, seed: int, n: int) -> KeyedSpec:
        """Draw the *n*-th primary-key table of *seed*."""
        draws = Stream.of(seed, "keyed table", n)
        engine = draws.choice((Engine.DEFAULT, Engine.DEFAULT, *Engine))
        kind, rule = drawn_partitioning(Stream.of(seed, "keyed partitioning", n))
        always = engine in (Engine.FIRST_ROW, Engine.VERSIONED)
        usual = engine is not Engine.DEFAULT
        log_format = draws.choice(("ARROW", "ARROW", "COMPACTED", "INDEXED"))
        kv_format = draws.choice(("COMPACTED", "COMPACTED", "INDEXED"))
        id_type, id_cache_size = _drawn_ids(Stream.of(seed, "keyed ids", n), engine)
        return cls(
            f"keyed_{n}",
            draws.between(1, 3) if kind is Partitioning.NONE else draws.between(1, 2),
            draws.choice(("", "3 s")),
            kind,
            rule,
            engine,
            is_full=engine is Engine.AGGREGATION or draws.chance(650_000),
            log_format=log_format,
            kv_format="INDEXED" if log_format == "INDEXED" else kv_format,  # others are refused
            compression=draws.choice(("NONE", "LZ4_FRAME", "ZSTD")),
            ignores_deletes=always or (draws.chance(300_000) != usual),
            has_prefixes=draws.chance(600_000),
            id_type=id_type,
            id_cache_size=id_cache_size,
        )

    @property
    def columns(self) -> tuple[tuple[str, str], ...]:
        """Name and type of the columns that it has at first."""
        partition = (PARTITION_COLUMN,) if self.is_partitioned else ()
        number = ((ID_COLUMN, self.id_type),) if self.id_type else ()
        return (*KEY_COLUMNS, *VALUE_COLUMNS, *partition, *number)

    @property
    def key_places(self) -> tuple[int, ...]:
        """Where the columns of its key are, the partition included."""
        return (0, 1, PARTITION_PLACE) if self.is_partitioned else (0, 1)

    @property
    def id_place(self) -> int | None:
        """Where its auto-increment column is; None when it has none."""
        return PARTITION_PLACE + self.is_partitioned if self.id_type else None

    @property
    def takes_inserts(self) -> bool:
        """Whether lookups can insert: they put parts of rows, and know no partitions."""
        return self.engine in (Engine.DEFAULT, Engine.AGGREGATION) and not self.is_partitioned

    @property
    def all_keys(self) -> list[tuple[int, int]]:
        """All keys that a bucket can have."""
        count = self.key_values
        return [(k, b) for k in range(count) for b in range(count)]

    @property
    def key_values(self) -> int:
        """How many values each of the two columns of a key can have."""
        return NUMBERED_KEYS if self.id_type else KEYS

    def types(self, schema_id: int) -> tuple[DataType, ...]:
        """Return the types of the columns of a schema."""
        first = tuple(
            [DataType(kind, n not in self.key_places) for n, (_, kind) in enumerate(self.columns)]
        )
        return (*first, *[ADDED_TYPE] * (schema_id - 1))

    def codec(self, schema_id: int) -> RowCodec:
        """Return what reads and writes its stored rows of a schema."""
        return row_codec(RowFormat(self.kv_format), self.types(schema_id))

    @property
    def keys(self) -> KeyEncoder:
        """What writes its keys, without partitions."""
        types = self.types(1)[:2]
        return primary_key_encoder(None, types, format_version=2, is_bucket_key=not self.has_prefixes)

    @property
    def prefixes(self) -> KeyEncoder:
        """What writes the beginnings of its keys."""
        return primary_key_encoder(None, self.types(1)[:1], format_version=2, is_bucket_key=True)

    def descriptor(self) -> bytes:
        """Return what a client sends to create it."""
        value = json.loads(super().descriptor())
        schema = value["schema"]
        schema["primary_key"] = [schema["columns"][place]["name"] for place in self.key_places]
        for place in self.key_places:
            schema["columns"][place]["data_type"]["nullable"] = False
        if self.id_type:
            schema["auto_increment_column"] = [ID_COLUMN]
        if self.engine is Engine.AGGREGATION:
            schema["columns"][SUM_COLUMN]["agg_function"] = {"type": "sum", "parameters": {}}
            schema["columns"][NUMBER_COLUMN]["agg_function"] = {"type": "max", "parameters": {}}
        value["bucket_key"] = ["k"] if self.has_prefixes else ["k", "b"]
        return json.dumps(value).encode()

    def _properties(self) -> dict[str, Any]:
        properties = super()._properties() | {
            "table.log.format": self.log_format,
            "table.kv.format": self.kv_format,
        }
        if self.log_format == "ARROW":
            properties["table.log.arrow.compression.type"] = self.compression
        if not self.is_full:
            properties["table.changelog.image"] = "WAL"
        if self.engine is not Engine.DEFAULT:
            properties["table.merge-engine"] = self.engine.value
        if self.engine is Engine.VERSIONED:
            properties["table.merge-engine.versioned.ver-column"] = "n"
        if self.engine in (Engine.DEFAULT, Engine.AGGREGATION):
            properties["table.delete.behavior"] = "IGNORE" if self.ignores_deletes else "ALLOW"
        if self.id_cache_size:
            properties["table.auto-increment.cache-size"] = str(self.id_cache_size)
        return properties


def _drawn_ids(draws: Stream, engine: Engine) -> tuple[str, int]:
    """Draw the type of an auto-increment column, and how many ids a bucket takes at once."""
    if engine not in (Engine.DEFAULT, Engine.AGGREGATION) or not draws.chance(IDS_PPM):
        return "", 0
    return draws.choice(("INTEGER", "BIGINT")), draws.choice((1, 1, 3, 3, 100_000, 0))
