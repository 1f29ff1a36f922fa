"""Every recorded scenario of primary-key tables (kv-traces.json), without a server.

A harness stands where the tablet server and the coordinator will be: it makes tables, sends the batches of
a scenario to the bucket that it names, appends what comes of them to a list of batches, and knows the last
five sequences of a writer. What the servers answer before they ask a bucket is left out.
"""

import json
import math
import re
import struct
from decimal import Context, Decimal
from pathlib import Path

import attrs
import pytest

from flussd.core.kv.ids import Ids, IdsWanted
from flussd.core.kv.rules import LogFormat, TableRules
from flussd.core.kv.table import KvTable
from flussd.core.records.arrow.batches import read_arrow_rows
from flussd.core.records.batch import crc_is_right, read_head
from flussd.core.records.descriptor import (
    ClusterDefaults,
    parse_table_descriptor,
    validate,
    with_defaults,
)
from flussd.core.records.keys import primary_key_encoder
from flussd.core.records.kv_batch import build_kv_batch
from flussd.core.records.refusal import Refused
from flussd.core.records.row_batch import read_rows
from flussd.core.slices import finished
from flussd.core.wire.errors import ErrorCode

DATA = Path(__file__).resolve().parents[2] / "data/kv-traces.json"
SCENARIOS = json.loads(DATA.read_text())["scenarios"]

DIFFER = {
    "aggregation/rbm64-union": "bitmaps of 64 bits are in a library's own format, which is not known",
    "create/replication-too-high": "the coordinator's: it knows how many servers there are",
    "format/indexed-binary": "a quirk: a BINARY that ends in zeros is stored here",
    "format/indexed-char": "a quirk: the padding of a CHAR is no part of its value here",
    "format/kv-indexed-log-indexed": "a quirk: such tables can be written here",
}
"""Scenarios that differ, and why. One that does not differ any more fails."""

SERVERS = frozenset({18, 20, 21, 36, 42, 43})
"""Codes that a server answers before it asks the rows of a bucket: such steps are left out."""

ROOTS = {
    "INT": "INTEGER",
    "TIME": "TIME_WITHOUT_TIME_ZONE",
    "TIMESTAMP": "TIMESTAMP_WITHOUT_TIME_ZONE",
    "TIMESTAMP_LTZ": "TIMESTAMP_WITH_LOCAL_TIME_ZONE",
}


# ---- types and values ----------------------------------------------------------------------------


def type_of(text):
    """The JSON of a type in SQL."""
    tokens = re.findall(r"NOT NULL|\w+|[<>(),]", text)
    told, rest = read_type(tokens)

    assert not rest, text
    return told


def read_type(tokens):
    name, tokens = tokens[0], tokens[1:]
    told = {"type": ROOTS.get(name, name)}
    if tokens[:1] == ["("]:
        end = tokens.index(")")
        numbers = [int(token) for token in tokens[1:end] if token != ","]
        names = ("length",) if name in ("CHAR", "BINARY") else ("precision", "scale")
        told |= dict(zip(names, numbers, strict=False))
        tokens = tokens[end + 1 :]
    elif name == "DECIMAL":
        told |= {"precision": 10, "scale": 0}
    if tokens[:1] == ["<"]:
        kids = []
        while tokens[0] != ">":
            tokens = tokens[1:]
            field = None
            if name == "ROW":
                field, tokens = tokens[0], tokens[1:]
            kid, tokens = read_type(tokens)
            kids.append((field, kid))
        tokens = tokens[1:]
        if name == "ARRAY":
            told["element_type"] = kids[0][1]
        elif name == "MAP":
            told |= {"key_type": kids[0][1], "value_type": kids[1][1]}
        else:
            told["fields"] = [{"name": field, "field_type": kid} for field, kid in kids]
    if tokens[:1] == ["NOT NULL"]:
        told["nullable"] = False
        tokens = tokens[1:]
    return told, tokens


def ours(value, kind):
    """A value of a scenario as the codecs have it."""
    name = kind.name
    if value is None:
        return None
    if name in ("FLOAT", "DOUBLE"):
        return float(value)
    if name == "DECIMAL":
        return int(Decimal(value).scaleb(kind.scale or 0, Context(prec=60)))
    if name.startswith("TIMESTAMP"):
        return value[0] * 1_000_000 + value[1]
    if name in ("BINARY", "BYTES"):
        return bytes.fromhex(value)
    if name == "ARRAY":
        return [ours(one, kind.element) for one in value]
    if name == "MAP":
        return [(ours(key, kind.key), ours(held, kind.value)) for key, held in value]
    if name == "ROW":
        return tuple(ours(one, field.data_type) for one, field in zip(value, kind.fields, strict=True))
    return value


def compared(value, kind):
    """What is compared: bits of floats, any NaN equals any other."""
    if value is None:
        return None
    if kind.name in ("FLOAT", "DOUBLE"):
        return "nan" if math.isnan(value) else struct.pack("<f" if kind.name == "FLOAT" else "<d", value)
    if kind.name == "ARRAY":
        return [compared(one, kind.element) for one in value]
    if kind.name == "MAP":
        return [(compared(key, kind.key), compared(held, kind.value)) for key, held in value]
    if kind.name == "ROW":
        return tuple(compared(one, f.data_type) for one, f in zip(value, kind.fields, strict=True))
    return value


# ---- the harness ---------------------------------------------------------------------------------


def column_json(column):
    told = {"name": column[0], "data_type": type_of(column[1])}
    if len(column) > 2:
        parameters = {key: value for key, value in column[2].items() if key != "function"}
        told["agg_function"] = {"type": column[2]["function"], "parameters": parameters}
    return told


def descriptor_of(table):
    schema = {"version": 1, "columns": [column_json(column) for column in table["columns"]]}
    if table.get("primary_key"):
        schema["primary_key"] = table["primary_key"]
    if table.get("auto_increment"):
        schema["auto_increment_column"] = table["auto_increment"]
    told = {
        "version": 1,
        "schema": schema,
        "partition_key": table.get("partitioned_by", []),
        "bucket_key": table.get("bucket_keys", []),
        "properties": table.get("properties", {}),
        "custom_properties": {},
    }
    if table.get("buckets", 1) is not None:
        told["bucket_count"] = table.get("buckets", 1)
    defaults = ClusterDefaults()
    descriptor = with_defaults(parse_table_descriptor(json.dumps(told)), defaults)
    validate(descriptor, defaults)
    return descriptor


@attrs.define(eq=False)
class Bucket:
    """One bucket, and the log of its changes."""

    table: KvTable
    ids: Ids = attrs.Factory(Ids)
    end_offset: int = 0
    log: list = attrs.Factory(list)  # batches
    told: list = attrs.Factory(list)  # (base offset, batch) that no step has looked at
    written: dict = attrs.Factory(dict)  # writer -> [(sequence, end offset)]


@attrs.define(eq=False)
class Play:
    """One scenario in progress."""

    descriptor: object
    schemas: dict
    rules: TableRules = None
    buckets: dict = attrs.Factory(dict)
    counter: int = 0

    def __attrs_post_init__(self):
        self.rules = TableRules.of(self.descriptor.to_json(), self.schemas)

    @property
    def types(self):
        return self.rules.latest.codec.types

    @property
    def names(self):
        return [column.name for column in self.rules.latest.schema.columns]

    def bucket(self, step):
        where = (json.dumps(step.get("partition"), sort_keys=True), step.get("bucket", 0))
        if where not in self.buckets:
            self.buckets[where] = Bucket(KvTable(counts_rows=self.rules.counts_rows))
        return self.buckets[where]

    def key(self, row):
        """The key of the values of a primary key, in its declared order."""
        values = dict(zip(self.rules.key_columns, row, strict=True))
        return self.rules.key_encoder.encode(
            [ours(values[n], self.types[n]) for n in self.rules.stored_key]
        )

    def batch(self, step):
        schema_id = step.get("schema_id", self.rules.latest_id)
        codec = self.rules.schemas[max(1, min(schema_id, self.rules.latest_id))].codec
        records = []
        for what, row in step["put"]:
            key = self.key(row if what == "delete" else [row[n] for n in self.rules.key_columns])
            encoded = None
            if what == "upsert":
                values = [ours(value, kind) for value, kind in zip(row, codec.types, strict=True)]
                encoded = codec.encode(values)
            records.append((key, encoded))
        writer = step.get("writer")
        return build_kv_batch(
            records,
            schema_id=schema_id,
            writer_id=-1 if writer is None else sum(writer.encode()),
            batch_sequence=step.get("sequence", -1),
        )

    def put(self, step):
        targets = tuple(
            self.names.index(one) if isinstance(one, str) else one for one in step.get("target_columns", ())
        )
        overwrite = step.get("agg_mode") in ("overwrite", 1)
        return self.append(self.bucket(step), self.batch(step), targets, overwrite, step)

    def append(self, bucket, batch, targets, overwrite, step):
        """The end offset of the answer."""
        while True:
            try:
                merged = finished(
                    bucket.table.merging(
                        self.rules, memoryview(batch), targets, overwrite=overwrite, ids=bucket.ids
                    )
                )
                break
            except IdsWanted:
                size = self.rules.id_cache_size
                bucket.ids.add(self.counter + 1, self.counter + size)
                self.counter += size
        known = bucket.written.setdefault(step.get("writer"), [])
        if "writer" in step:
            again = [end for sequence, end in known if sequence == step["sequence"]]
            if again:
                return again[0]
            expected = known[-1][0] + 1 if known else 0
            if step["sequence"] != expected:
                raise Refused(ErrorCode.OUT_OF_ORDER_SEQUENCE_EXCEPTION, "the writer left one out")
        base = bucket.end_offset
        bucket.table.accept(merged, base)
        bucket.log.append(merged.log_batch)
        bucket.told.append((base, merged.log_batch))
        bucket.end_offset += merged.offset_count
        bucket.table.commit(bucket.end_offset)
        known.append((step.get("sequence"), bucket.end_offset))
        del known[:-5]
        return bucket.end_offset

    def changelog(self, bucket):
        """What was appended since the last look, as [offset, change, row], and the schema of the batch."""
        entries, schema_id = [], None
        for base, batch in bucket.told:
            view = memoryview(batch)
            head = read_head(view, 0)
            schema_id = head.schema_id

            assert crc_is_right(view, head)
            if self.rules.log_format is LogFormat.ARROW:
                rows = read_arrow_rows(self.types, view, head)
            else:
                rows = read_rows(view, head, self.rules.log_codec)
            entries += [[base + n, change.short, row] for n, (change, row) in enumerate(rows)]
        bucket.told.clear()
        return entries, schema_id

    # ---- comparison ----------------------------------------------------------------------------

    def row(self, row):
        if row is None:
            return None
        return [compared(value, kind) for value, kind in zip(row, self.types, strict=True)]

    def told_row(self, row):
        """A row of the file, comparable."""
        if row is None:
            return None
        return self.row([ours(value, kind) for value, kind in zip(row, self.types, strict=True)])

    def stored_rows(self, values):
        return [None if value is None else self.row(self.rules.values_of(value)) for value in values]

    def told_rows(self, rows):
        return [self.told_row(row) for row in rows]

    def check_changelog(self, bucket, expected):
        entries, schema_id = self.changelog(bucket)

        assert expected["changelog"] == [] or schema_id == expected["changelog_schema_id"]
        assert [entry[:2] for entry in expected["changelog"]] == [entry[:2] for entry in entries]
        assert [self.told_row(entry[2]) for entry in expected["changelog"]] == [
            self.row(entry[2]) for entry in entries
        ]
        assert expected["end_offset"] == bucket.end_offset

    def check_put(self, step, expected):
        bucket = self.bucket(step)
        if expected["error"]:
            with pytest.raises(Refused) as refused:
                self.put(step)
            assert expected["error"] in (-1, refused.value.code)
        else:
            assert expected.get("response_end_offset", expected["end_offset"]) == self.put(step)
        self.check_changelog(bucket, expected)

    def check_puts(self, step, expected):
        for one, told in zip(step["puts"], expected["buckets"], strict=True):
            self.check_put({**step, **one}, told)

    def insert_missing(self, step, keys):
        bucket = self.bucket(step)
        missing = bucket.table.missing_rows(self.rules, keys)
        if missing is not None:
            self.append(bucket, missing.batch, missing.targets, False, step)

    def check_lookup(self, step, expected):
        bucket = self.bucket(step)
        keys = [self.key(key) for key in step["lookup"]]
        inserts = step.get("insert_if_not_exists")
        if expected["error"]:
            with pytest.raises(Refused) as refused:
                self.insert_missing(step, keys)
            assert expected["error"] in (-1, refused.value.code)
        else:
            if inserts:
                self.insert_missing(step, keys)
            found = [bucket.table.get(key) for key in keys]
            ids = [None if value is None else struct.unpack_from("<h", value)[0] for value in found]
            assert self.told_rows(expected["rows"]) == self.stored_rows(found)
            assert expected["schema_ids"] == ids
        if inserts:
            self.check_changelog(bucket, expected)

    def check_prefix_lookup(self, step, expected):
        found = []
        for prefix in step["prefix_lookup"]:
            kinds = [self.types[n] for n in self.rules.stored_key[: len(prefix)]]
            encode = primary_key_encoder(None, kinds, format_version=2, is_bucket_key=False).encode
            key = encode([ours(value, kind) for value, kind in zip(prefix, kinds, strict=True)])
            found.append(self.stored_rows(self.bucket(step).table.with_prefix(key)))

        assert [self.told_rows(rows) for rows in expected["rows"]] == found

    def check_limit_scan(self, step, expected):
        found = self.bucket(step).table.first(step["limit_scan"])

        assert self.told_rows(expected["rows"]) == self.stored_rows(found)

    def check_scan_kv(self, step, expected):
        bucket = self.bucket(step)
        snapshot = bucket.table.rows()

        assert self.told_rows(expected["rows"]) == self.stored_rows(snapshot)
        assert expected["log_offset"] == bucket.end_offset

    def check_row_count(self, step, expected):
        assert expected.get("row_count") == self.bucket(step).table.row_count

    def check_add_column(self, step, expected):
        if expected["error"]:
            return
        latest = self.schemas[self.rules.latest_id]
        highest = latest["highest_field_id"] + 1
        column = {**column_json(step["add_column"]), "id": highest}
        added = {**latest, "columns": [*latest["columns"], column], "highest_field_id": highest}
        self.schemas = {**self.schemas, expected["schema_id"]: added}
        self.rules = TableRules.of(self.descriptor.to_json(), self.schemas)

    def check_table_info(self, step, expected):
        """The coordinator's."""

    def check_create_partition(self, step, expected):
        """The coordinator's."""

    def check(self, step):
        kind = next(name for name in step if hasattr(self, f"check_{name}"))
        if step["expect"].get("error") not in SERVERS:
            getattr(self, f"check_{kind}")(step, step["expect"])

    def check_replay(self):
        """A new leader makes the same rows of the changelog."""
        for bucket in self.buckets.values():
            replayed = KvTable()
            for batch in bucket.log:
                view = memoryview(batch)
                replayed.replay(self.rules, view, read_head(view, 0))

            assert self.stored_rows(bucket.table.rows()) == self.stored_rows(replayed.rows())


def play(scenario):
    if "create" in scenario:
        with pytest.raises(Refused) as refused:
            descriptor_of(scenario["table"])
        assert scenario["create"]["error"] in (-1, refused.value.code)
        return
    descriptor = descriptor_of(scenario["table"])
    if not descriptor.has_primary_key:
        return  # the server's: it has no rows to ask
    run = Play(descriptor, {1: descriptor.schema.to_value()})
    for step in scenario.get("steps", ()):
        run.check(step)
    for part in scenario["final_rows"]:
        assert run.told_rows(part["rows"]) == run.stored_rows(run.bucket(part).table.first(1_000_000))
    run.check_replay()


def test_the_file_is_the_whole_record():
    """Fewer scenarios would prove less."""
    assert 397 == len(SCENARIOS)
    assert set(DIFFER) <= {scenario["name"] for scenario in SCENARIOS}


@pytest.mark.parametrize("scenario", SCENARIOS, ids=[scenario["name"] for scenario in SCENARIOS])
def test_scenario(scenario):
    """Changelogs, offsets, rows and errors are those that the Java server gave."""
    if scenario["name"] not in DIFFER:
        play(scenario)
        return
    with pytest.raises((AssertionError, pytest.fail.Exception, Refused)):
        play(scenario)
