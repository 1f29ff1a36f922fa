"""What a primary-key table says about its rows: formats, keys, merge engine, image of its changelog.

Made once for each version of a table, out of a descriptor and schemas that were validated when the table
was created. It must never be made of what no coordinator accepted: then it asserts, or worse. Rules never
change; the tablet server makes new ones when a schema is added.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import attrs

from flussd.core.records.arrow.compression import Compression
from flussd.core.records.keys import KeyEncoder, lake_format_of, primary_key_encoder
from flussd.core.records.options import parse_option
from flussd.core.records.rows.codec import RowCodec, RowFormat, row_codec
from flussd.core.records.rows.many import ManyRows, many_rows
from flussd.core.records.schema import Schema, parse_schema
from flussd.core.records.values import SCHEMA_ID_BYTES, split_value, stored_value


class Engine(enum.Enum):
    """How an upsert is merged with the row that is there."""

    DEFAULT = "DEFAULT"
    FIRST_ROW = "FIRST_ROW"
    VERSIONED = "VERSIONED"
    AGGREGATION = "AGGREGATION"


class Deletes(enum.Enum):
    """What becomes of deletes."""

    ALLOW = "ALLOW"
    IGNORE = "IGNORE"
    DISABLE = "DISABLE"


class Image(enum.Enum):
    """What a changelog tells of updates: the row before as well, or only the row after."""

    FULL = "FULL"
    WAL = "WAL"


class LogFormat(enum.Enum):
    """The formats of changelogs."""

    ARROW = "ARROW"
    COMPACTED = "COMPACTED"
    INDEXED = "INDEXED"


ID_CACHE_SIZE: Final = 100_000
"""How many ids of an auto-increment column a bucket draws at once, unless its table says otherwise."""


@attrs.frozen(eq=False)
class SchemaRules:
    """One version of the schema: how its rows are read, and which bits of theirs must not tell a null."""

    schema: Schema
    codec: RowCodec
    many: ManyRows  # of stored rows, without looking at their schema ids
    missing: tuple[None, ...]  # of columns that later versions added
    null_bytes: int
    required_bits: int


@attrs.frozen(eq=False)
class TableRules:
    """The rules of one table; build them with `of`. Positions of columns are those of the latest schema."""

    latest_id: int
    schemas: dict[int, SchemaRules]
    kv_format: RowFormat
    log_format: LogFormat
    engine: Engine
    deletes: Deletes
    image: Image
    key_columns: tuple[int, ...]  # the primary key, partition columns included
    stored_key: tuple[int, ...]  # the primary key as it is in keys: without partition columns
    key_encoder: KeyEncoder
    version_column: int | None
    id_column: int | None  # auto-increment
    id_cache_size: int
    compression: Compression  # of ARROW changelogs
    compression_level: int
    log_codec: RowCodec | None  # of row-wise changelogs
    plans: dict[Any, Any] = attrs.field(factory=dict, repr=False)
    """What merging made of target columns, kept for the next batch; see `mergers`."""

    @classmethod
    def of(cls, descriptor: bytes, schemas: Mapping[int, Any]) -> TableRules:
        """Return the rules of a table with a *descriptor* (JSON) and *schemas* (parsed JSON) by id."""
        told = json.loads(descriptor)
        options = {key: parse_option(key, text) for key, text in told["properties"].items()}
        parsed = {schema_id: parse_schema(value) for schema_id, value in schemas.items()}
        latest_id = max(parsed)
        latest = parsed[latest_id]
        kv_format = RowFormat(options.get("table.kv.format", "COMPACTED"))
        log_format = LogFormat(options.get("table.log.format", "ARROW"))
        engine = Engine(options.get("table.merge-engine", "DEFAULT"))
        kept = Deletes.ALLOW if engine is Engine.DEFAULT else Deletes.IGNORE
        places = {column.name: n for n, column in enumerate(latest.columns)}
        stored_names = tuple(name for name in latest.primary_key if name not in told["partition_key"])
        types = tuple(column.data_type for column in latest.columns)
        stored_key = tuple(places[name] for name in stored_names)
        version_name: Any = options.get("table.merge-engine.versioned.ver-column")
        size: Any = options.get("table.auto-increment.cache-size", ID_CACHE_SIZE)
        level: Any = options.get("table.log.arrow.compression.zstd.level", 3)
        return cls(
            latest_id,
            {one: _schema_rules(schema, kv_format, len(types)) for one, schema in parsed.items()},
            kv_format,
            log_format,
            engine,
            Deletes(options.get("table.delete.behavior", kept.value)),
            Image(options.get("table.changelog.image", "FULL")),
            tuple(places[name] for name in latest.primary_key),
            stored_key,
            _key_encoder(told, stored_names, tuple(types[n] for n in stored_key)),
            places[version_name] if engine is Engine.VERSIONED else None,
            places[latest.auto_increment[0]] if latest.auto_increment else None,
            size,
            Compression[str(options.get("table.log.arrow.compression.type", "ZSTD"))],
            level,
            None if log_format is LogFormat.ARROW else row_codec(RowFormat(log_format.value), types),
        )

    @property
    def latest(self) -> SchemaRules:
        """The newest schema."""
        return self.schemas[self.latest_id]

    @property
    def is_partitioned(self) -> bool:
        """Whether keys lack the columns that partitions have in common."""
        return self.key_columns != self.stored_key

    @property
    def counts_rows(self) -> bool:
        """Whether the table tells how many rows it has."""
        return self.image is Image.FULL

    @property
    def logs_stored_rows(self) -> bool:
        """Whether rows of the latest schema are in the changelog as they are stored."""
        return self.log_format.value == self.kv_format.value

    def values_of(self, stored: bytes) -> tuple[Any, ...]:
        """Return the values of a stored row, with nulls for later columns. Raises BadRow."""
        schema_id, row = split_value(stored)
        rules = self.schemas[schema_id]
        return rules.codec.decode(row) + rules.missing

    def all_values_of(self, rows: Sequence[bytes]) -> list[tuple[Any, ...]]:
        """Return the values of many stored rows, as `values_of` does. Raises BadRow."""
        latest = stored_value(self.latest_id, b"")
        if all(map(latest.__eq__, [row[:SCHEMA_ID_BYTES] for row in rows])):
            return self.latest.many(rows)
        found: dict[int, Iterator[tuple[Any, ...]]] = {}
        ids = [split_value(row)[0] for row in rows]
        for schema_id in dict.fromkeys(ids):
            rules = self.schemas[schema_id]
            mine = rules.many([row for row, one in zip(rows, ids, strict=True) if one == schema_id])
            found[schema_id] = iter([values + rules.missing for values in mine])
        return [next(found[schema_id]) for schema_id in ids]

    def stored_of(self, values: tuple[Any, ...]) -> bytes:
        """Return what is stored for the values of a row, with the latest schema. Raises BadValue."""
        return stored_value(self.latest_id, self.latest.codec.encode(values))

    def key_of(self, values: tuple[Any, ...]) -> bytes:
        """Return the key of a row. Raises BadValue."""
        return self.key_encoder.encode([values[n] for n in self.stored_key])


def _schema_rules(schema: Schema, kv_format: RowFormat, arity: int) -> SchemaRules:
    columns = schema.columns
    required_bits = sum(1 << n for n, column in enumerate(columns) if not column.data_type.nullable)
    codec = row_codec(kv_format, tuple(column.data_type for column in columns))
    many = many_rows(codec, skip_bytes=SCHEMA_ID_BYTES)
    return SchemaRules(
        schema, codec, many, (None,) * (arity - len(columns)), (len(columns) + 7) // 8, required_bits
    )


def _key_encoder(told: Any, names: tuple[str, ...], types: tuple[Any, ...]) -> KeyEncoder:
    version: Any = told["properties"].get("table.kv.format-version")
    return primary_key_encoder(
        lake_format_of(told["properties"]),
        types,
        format_version=None if version is None else int(version),
        is_bucket_key=tuple(told["bucket_key"]) == names,
    )
