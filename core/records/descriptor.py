"""Descriptors of databases and tables: parse, complete with the cluster's defaults, validate, write.

The order of the checks is that of section 6.4 of the wire protocol, so that a request with two faults
gets the code that the Java server gives. Everything a client may send wrongly is Refused.
"""

from __future__ import annotations

from typing import Any, Final

import attrs

from flussd.core.records import aggregation
from flussd.core.records.json_text import dump, load_object
from flussd.core.records.options import bad_config, parse_option
from flussd.core.records.partitions import PRECREATE_DEFAULT, pattern_fault
from flussd.core.records.refusal import Refused
from flussd.core.records.schema import Schema, parse_schema
from flussd.core.records.types import NESTED, bad_table, is_int
from flussd.core.wire.errors import ErrorCode

INT_MAX: Final = 2**31 - 1


@attrs.frozen
class ClusterDefaults:
    """What a cluster fills in, and its limits; upstream's names of options."""

    default_bucket_number: int = 1  # default.bucket.number
    default_replication_factor: int = 1  # default.replication.factor
    max_bucket_count: int = 4096  # max.bucket.num
    max_partitions: int = 1000  # max.partition.num
    allow_log_tables: bool = True  # allow.create.log.tables
    allow_kv_tables: bool = True  # allow.create.kv.tables


@attrs.frozen
class DatabaseDescriptor:
    """What a client says of a database."""

    comment: str | None = None
    custom_properties: tuple[tuple[str, str], ...] = ()

    def to_json(self) -> bytes:
        """Return the descriptor as clients get it."""
        told: dict[str, Any] = {"version": 1}
        if self.comment:  # upstream writes no empty one
            told["comment"] = self.comment
        told["custom_properties"] = dict(self.custom_properties)
        return dump(told)


@attrs.frozen
class TableDescriptor:
    """What a client says of a table; *bucket_count* is None until the defaults are in."""

    schema: Schema
    comment: str | None
    partition_key: tuple[str, ...]
    bucket_key: tuple[str, ...]
    bucket_count: int | None
    properties: dict[str, str]
    custom_properties: dict[str, str]

    @property
    def has_primary_key(self) -> bool:
        """Whether it is a primary-key table."""
        return bool(self.schema.primary_key)

    @property
    def replication_factor(self) -> int:
        """The replicas of each bucket, once the defaults are in."""
        return int(self.properties["table.replication.factor"])

    def to_json(self) -> bytes:
        """Return the descriptor as clients get it, after the defaults were filled in."""
        assert self.bucket_count is not None
        told: dict[str, Any] = {"version": 1, "schema": self.schema.to_value()}
        if self.comment is not None:
            told["comment"] = self.comment
        told["partition_key"] = list(self.partition_key)
        told["bucket_key"] = list(self.bucket_key)
        told["bucket_count"] = self.bucket_count
        told["properties"] = self.properties
        told["custom_properties"] = self.custom_properties
        return dump(told)


# ---- databases ----------------------------------------------------------------------------------


def parse_database_descriptor(raw: bytes | str | None) -> DatabaseDescriptor:
    """Read a descriptor; None, as pyfluss sends, is the empty one.

    Raises:
        Refused: it is none, with -1 as upstream.
    """
    if raw is None:
        return DatabaseDescriptor()
    code = ErrorCode.UNKNOWN_SERVER_ERROR
    told = load_object(raw, "database descriptor", code)
    comment, properties = told.get("comment"), told.get("custom_properties")
    if comment is not None and not isinstance(comment, str):
        raise Refused(code, "database descriptor: comment: expected text")
    if properties is None or not _is_texts(properties):
        raise Refused(code, "database descriptor: custom_properties: expected an object of texts")
    return DatabaseDescriptor(comment, tuple(properties.items()))


def _is_texts(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(inner, str) for inner in value.values())


# ---- tables -------------------------------------------------------------------------------------


def parse_table_descriptor(raw: bytes | str) -> TableDescriptor:
    """Read a descriptor and check that it does not contradict itself.

    Raises:
        Refused: with 15, or -1 for a bucket count below one.
    """
    told = load_object(raw, "table descriptor", ErrorCode.INVALID_TABLE_EXCEPTION)
    schema = parse_schema(told.get("schema"))
    comment = told.get("comment")
    if comment is not None and not isinstance(comment, str):
        raise bad_table("table descriptor: comment: expected text")
    partition_key = _names(told, "partition_key", required=True)
    bucket_key = _names(told, "bucket_key", required=False)
    for key in ("properties", "custom_properties"):
        if not _is_texts(told.get(key)):
            raise bad_table(f"table descriptor: {key}: expected an object of texts")
    bucket_count = told.get("bucket_count")
    if bucket_count is not None and not is_int(bucket_count, -INT_MAX, INT_MAX):
        raise bad_table("table descriptor: bucket_count: expected a number")
    if bucket_count is not None and bucket_count <= 0:
        text = f"table descriptor: bucket_count: expected at least 1, got {bucket_count}"
        raise Refused(ErrorCode.UNKNOWN_SERVER_ERROR, text)
    descriptor = TableDescriptor(
        schema,
        comment,
        partition_key,
        bucket_key,
        bucket_count,
        dict(told["properties"]),
        dict(told["custom_properties"]),
    )
    return _with_bucket_key(descriptor)


def _names(told: dict[str, Any], key: str, *, required: bool) -> tuple[str, ...]:
    names = told.get(key)
    if names is None and not required:
        return ()
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise bad_table(f"table descriptor: {key}: expected a list of column names")
    return tuple(names)


def _with_bucket_key(descriptor: TableDescriptor) -> TableDescriptor:
    """Check the keys against each other; derive the bucket key of a primary-key table."""
    schema, partition_key, bucket_key = descriptor.schema, descriptor.partition_key, descriptor.bucket_key
    columns, partitions, keys = schema.by_name(), frozenset(partition_key), frozenset(schema.primary_key)
    for kind, names in (("bucket", bucket_key), ("partition", partition_key)):
        for name in names:
            if name not in columns:
                raise bad_table(f"{kind} key column {name[:100]} is not in the schema")
        if len(dict.fromkeys(names)) != len(names):
            raise bad_table(f"the {kind} key has a column twice")
    if any(name in partitions for name in bucket_key):
        raise bad_table("the bucket key must not contain partition key columns")
    if not schema.primary_key:
        return descriptor
    for kind, names in (("bucket", bucket_key), ("partition", partition_key)):
        missing = [name for name in names if name not in keys]
        if missing:
            raise bad_table(f"{kind} key column {missing[0][:100]} is not part of the primary key")
    derived = tuple(name for name in schema.primary_key if name not in partitions)
    if not derived:
        raise bad_table("the primary key must have a column beside the partition key")
    return attrs.evolve(descriptor, bucket_key=bucket_key or derived)


# ---- defaults -----------------------------------------------------------------------------------


def with_defaults(descriptor: TableDescriptor, defaults: ClusterDefaults) -> TableDescriptor:
    """Return the descriptor with what the coordinator fills in at creation.

    Raises:
        Refused: this kind of table is not allowed, or an option that decides a default is bad.
    """
    allowed = defaults.allow_kv_tables if descriptor.has_primary_key else defaults.allow_log_tables
    if not allowed:
        kind = "primary-key" if descriptor.has_primary_key else "log"
        raise bad_table(f"this cluster does not allow to create {kind} tables")
    properties = dict(descriptor.properties)
    properties.setdefault("table.replication.factor", str(defaults.default_replication_factor))
    auto = properties.get("table.auto-partition.enabled", "false").strip().lower() == "true"
    if auto and len(descriptor.partition_key) > 1:
        properties.setdefault("table.auto-partition.num-precreate", "0")
    if properties.get("table.datalake.enabled", "false").strip().lower() == "true":
        raise bad_table("table.datalake.enabled: this cluster has no lake storage")
    if descriptor.has_primary_key:
        _primary_key_defaults(properties)
    count = defaults.default_bucket_number if descriptor.bucket_count is None else descriptor.bucket_count
    return attrs.evolve(descriptor, bucket_count=count, properties=properties)


def _primary_key_defaults(properties: dict[str, str]) -> None:
    if "table.merge-engine" in properties:
        parse_option("table.merge-engine", properties["table.merge-engine"])
        properties.setdefault("table.delete.behavior", "IGNORE")
    version = properties.setdefault("table.kv.format-version", "2")
    parsed = parse_option("table.kv.format-version", version)
    if not is_int(parsed, 1, 2):
        raise bad_config(f"table.kv.format-version: expected 1 or 2, got {version[:100]}")
    properties.setdefault("table.kv.standby-replica.enabled", "true")


# ---- validation ---------------------------------------------------------------------------------


def validate(descriptor: TableDescriptor, defaults: ClusterDefaults) -> None:
    """Check a completed descriptor.

    Raises:
        Refused: with the code of the first rule that it breaks.
    """
    options = {key: parse_option(key, text) for key, text in descriptor.properties.items()}
    assert descriptor.bucket_count is not None
    if descriptor.bucket_count > defaults.max_bucket_count:
        text = f"bucket count: expected at most {defaults.max_bucket_count}, got {descriptor.bucket_count}"
        raise Refused(ErrorCode.BUCKET_MAX_NUM_EXCEPTION, text)
    _validate_keys(descriptor)
    _validate_numbers(options)
    if descriptor.has_primary_key:
        _validate_primary_key_table(descriptor, options)
    else:
        _validate_log_table(descriptor, options)
    _validate_partitions(descriptor, options)
    _validate_statistics(descriptor, options)


def _validate_keys(descriptor: TableDescriptor) -> None:
    columns = descriptor.schema.by_name()
    for name in (*descriptor.bucket_key, *descriptor.schema.primary_key):
        column = columns[name]
        if column.data_type.name in NESTED:
            raise bad_table(f"column {name}: {column.data_type.name} cannot be part of a key")
    for name in descriptor.partition_key:
        column = columns[name]
        if column.data_type.name in (*sorted(NESTED), "DECIMAL"):
            raise bad_table(f"column {name}: {column.data_type.name} cannot be a partition key")


def _validate_numbers(options: dict[str, Any]) -> None:
    least = {"table.replication.factor": 1, "table.log.tiered.local-segments": 1}
    for key, number in least.items():
        if options.get(key, number) < number:
            raise bad_config(f"{key}: expected at least {number}, got {options[key]}")
    level = options.get("table.log.arrow.compression.zstd.level", 3)
    if not 1 <= level <= 22:
        raise bad_config(f"table.log.arrow.compression.zstd.level: expected 1 to 22, got {level}")
    local_ttl_ms, ttl_ms = options.get("table.log.local-ttl"), options.get("table.log.ttl", 7 * 86_400_000)
    if local_ttl_ms is not None and local_ttl_ms > ttl_ms:
        raise bad_config("table.log.local-ttl: expected at most table.log.ttl")


def _validate_log_table(descriptor: TableDescriptor, options: dict[str, Any]) -> None:
    for key in ("table.merge-engine", "table.delete.behavior"):
        if key in options:
            raise bad_config(f"{key}: the table has no primary key")
    _validate_functions(descriptor, aggregating=False)


def _validate_primary_key_table(descriptor: TableDescriptor, options: dict[str, Any]) -> None:
    kv_format, log_format = (
        options.get("table.kv.format", "COMPACTED"),
        options.get("table.log.format", "ARROW"),
    )
    if kv_format == "COMPACTED" and log_format == "INDEXED":
        raise bad_config("table.log.format: expected ARROW or COMPACTED with table.kv.format COMPACTED")
    engine = options.get("table.merge-engine")
    if engine == "VERSIONED":
        _validate_version_column(descriptor, options)
    if engine == "AGGREGATION" and options.get("table.changelog.image") == "WAL":
        raise bad_config("table.changelog.image WAL does not go with table.merge-engine aggregation")
    _validate_functions(descriptor, aggregating=engine == "AGGREGATION")
    if engine in ("FIRST_ROW", "VERSIONED") and options.get("table.delete.behavior") == "ALLOW":
        raise bad_config(f"table.delete.behavior ALLOW does not go with table.merge-engine {engine}")


def _validate_functions(descriptor: TableDescriptor, *, aggregating: bool) -> None:
    for column in descriptor.schema.columns:
        if column.aggregation is None:
            continue
        if not aggregating:
            raise bad_config("aggregation functions need table.merge-engine aggregation")
        fault = aggregation.fault_of(column.aggregation, column.data_type)
        if fault is not None:
            raise bad_config(f"column {column.name[:100]}: {fault}")


def _validate_version_column(descriptor: TableDescriptor, options: dict[str, Any]) -> None:
    key = "table.merge-engine.versioned.ver-column"
    name = options.get(key)
    column = descriptor.schema.column(name) if name else None
    if column is None:
        raise bad_config(f"{key}: expected a column of the table, got {name}")
    allowed = ("INTEGER", "BIGINT", "TIMESTAMP_WITHOUT_TIME_ZONE", "TIMESTAMP_WITH_LOCAL_TIME_ZONE")
    if column.data_type.name not in allowed:
        raise bad_config(
            f"{key}: column {name} has type {column.data_type.name}, expected one of {allowed}"
        )


def _validate_partitions(descriptor: TableDescriptor, options: dict[str, Any]) -> None:
    if not options.get("table.auto-partition.enabled"):
        return
    if not descriptor.partition_key:
        raise bad_config("table.auto-partition.enabled: the table is not partitioned")
    several = len(descriptor.partition_key) > 1
    name = options.get("table.auto-partition.key", None if several else descriptor.partition_key[0])
    if name not in descriptor.partition_key:
        raise bad_table(f"table.auto-partition.key: expected one of the partition keys, got {name}")
    if several and options.get("table.auto-partition.num-precreate", PRECREATE_DEFAULT) > 0:
        raise bad_config("table.auto-partition.num-precreate: expected 0 with several partition keys")
    _validate_time_column(descriptor, options, name)


def _validate_time_column(descriptor: TableDescriptor, options: dict[str, Any], name: str) -> None:
    column = descriptor.schema.column(name)
    assert column is not None
    pattern = options.get("table.auto-partition.time-format")
    if column.data_type.name not in ("STRING", "DATE"):
        raise bad_table(f"auto-partition column {name[:100]}: expected STRING or DATE")
    if column.data_type.name == "DATE":
        unit = options.get("table.auto-partition.time-unit", "DAY")
        if unit != "DAY" or pattern not in (None, "yyyy-MM-dd"):
            raise bad_table("auto partitioning by a DATE column needs time unit DAY and format yyyy-MM-dd")
    fault = None if pattern is None else pattern_fault(pattern)
    if fault is not None:
        raise bad_config(f"table.auto-partition.time-format: {fault}")


def _validate_statistics(descriptor: TableDescriptor, options: dict[str, Any]) -> None:
    key = "table.statistics.columns"
    if key not in options:
        return
    if descriptor.has_primary_key:
        raise bad_config(f"{key}: only log tables have statistics")
    columns = descriptor.schema.by_name()
    names = [name.strip() for name in str(options[key]).split(",")]
    if names != ["*"] and any(name not in columns for name in names):
        raise bad_config(f"{key}: expected * or columns of the table, got {str(options[key])[:100]}")
