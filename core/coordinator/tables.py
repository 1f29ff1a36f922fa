"""From a client's table descriptor to what is stored of it: parsed, with defaults, validated, canonical."""

from __future__ import annotations

import json

import attrs

from flussd.core.coordinator import layout
from flussd.core.records.descriptor import (
    ClusterDefaults,
    parse_table_descriptor,
    validate,
    with_defaults,
)


@attrs.frozen
class Described:
    """A table to be created: *json* and *schema_json* are canonical, and what clients get back."""

    json: bytes
    schema_json: bytes
    bucket_count: int
    replication_factor: int
    is_partitioned: bool


def describe(table_json: bytes, defaults: ClusterDefaults) -> Described:
    """Read a descriptor.

    Raises:
        Refused: it is not one, or not one of a table that can be.
    """
    descriptor = with_defaults(parse_table_descriptor(table_json), defaults)
    validate(descriptor, defaults)
    value = json.loads(descriptor.to_json())
    return Described(
        layout.encode(value),
        layout.encode(value["schema"]),
        value["bucket_count"],
        descriptor.replication_factor,
        bool(descriptor.partition_key),
    )
