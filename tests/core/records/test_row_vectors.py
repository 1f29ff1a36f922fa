"""Rows, keys, buckets and batches of rows, byte for byte as Java and pyfluss made them (vectors.json)."""

import ast
import datetime as dt
import json
from decimal import Decimal
from pathlib import Path

import attrs
import pytest
from crc32c import crc32c

from flussd.core.records import batch as b
from flussd.core.records import kv_batch as kv
from flussd.core.records import row_batch as rb
from flussd.core.records import values as v
from flussd.core.records.arrow.batches import build_arrow_batch, read_arrow_rows
from flussd.core.records.arrow.compression import Compression
from flussd.core.records.arrow.message import read_message
from flussd.core.records.bucketing import Tail, bucketing_of, murmur
from flussd.core.records.keys import LakeFormat, key_encoder, primary_key_encoder
from flussd.core.records.rows import atoms
from flussd.core.records.rows.codec import RowFormat, decode_row, encode_row, row_codec
from flussd.core.records.types import parse_type

VECTORS = json.loads((Path(__file__).resolve().parents[2] / "data/vectors.json").read_text())["vectors"]
INT, STRING, DOUBLE, BOOLEAN = ({"type": name} for name in ("INTEGER", "STRING", "DOUBLE", "BOOLEAN"))
ROW_KINDS = {f"row_{row_format.name.lower()}": row_format for row_format in RowFormat}
WRITER = 1001  # of what pyfluss sent


def of_kind(*kinds):
    """Parametrize with all vectors of some kinds."""
    found = [vector for vector in VECTORS if vector["kind"] in kinds]
    return pytest.mark.parametrize("vector", found, ids=[vector["id"] for vector in found])


def ours(value, told):
    """A value of a vector as the codecs have it."""
    name = told["type"]
    if value is None:
        return None
    if name == "DECIMAL":
        return int(Decimal(value).scaleb(told["scale"]))
    if name.startswith("TIMESTAMP"):
        return value[0] * 1_000_000 + value[1]
    if name in ("BINARY", "BYTES"):
        return bytes.fromhex(value)
    if name == "ARRAY":
        return [ours(one, told["element_type"]) for one in value]
    if name == "MAP":
        return [(ours(key, told["key_type"]), ours(held, told["value_type"])) for key, held in value]
    if name == "ROW":
        fields = [field["field_type"] for field in told["fields"]]
        return tuple(ours(one, field) for one, field in zip(value, fields, strict=True))
    return value


def parsed(types):
    return [parse_type(told, "vector") for told in types]


@of_kind(*ROW_KINDS)
def test_rows(vector):
    """Each row is written as it was, and read; and so is each of its columns alone."""
    row_format, data = ROW_KINDS[vector["kind"]], bytes.fromhex(vector["expected"])
    told = vector["input"]["types"]
    types = parsed(told)
    values = tuple(ours(*pair) for pair in zip(vector["input"]["values"], told, strict=True))

    assert data.hex() == encode_row(row_format, types, values).hex()
    assert values == decode_row(row_format, types, data)
    for n, value in enumerate(values):
        assert (value, None) == row_codec(row_format, types, (n, len(types))).decode(memoryview(data))


@of_kind("uvarint32")
def test_variable_integers(vector):
    """Signed ones of 32 bits."""
    data = bytes.fromhex(vector["expected"])

    assert data == atoms.int_bytes(vector["input"])
    assert (vector["input"], len(data)) == atoms.read_int(data, 0)


@of_kind("crc32c")
def test_checksum(vector):
    """The library has the polynomial of Castagnoli."""
    assert int(vector["expected"], 16) == crc32c(bytes.fromhex(vector["input"]))


def lake_of(name):
    return LakeFormat(name) if name else None


@of_kind("primary_key_encoding")
def test_keys_of_one_column(vector):
    """Their bytes for every lake, and their bucket in Java and in pyfluss."""
    asked, expected = vector["input"], vector["expected"]
    if isinstance(asked, list):  # three columns and nothing else
        keys = key_encoder(None, parsed([INT] * 3))

        assert (expected, tuple(asked)) == (keys.encode(asked).hex(), keys.decode(bytes.fromhex(expected)))
        return
    lake, value = lake_of(asked["lake"]), ours(asked["value"], asked["type"])
    keys = key_encoder(lake, parsed([asked["type"]]))
    key, count = keys.encode([value]), asked["num_buckets"]

    assert expected["key_hex"] == key.hex()
    assert expected["bucket_java"] == bucketing_of(lake)(key, count)
    if "bucket_pyfluss" in expected:
        assert expected["bucket_pyfluss"] == bucketing_of(lake, Tail.UNSIGNED)(key, count)
    assert (keys.decode is None) == (lake is LakeFormat.HUDI)
    if keys.decode is not None:
        assert (value,) == keys.decode(key)


@of_kind("bucket")
def test_buckets(vector):
    """What the Java test of bucketing expects."""
    asked = vector["input"]
    bucket = bucketing_of(lake_of(asked["lake"]))(bytes.fromhex(asked["key_hex"]), asked["num_buckets"])

    assert vector["expected"] == bucket


@of_kind("murmur_seed42_signed_tail")
def test_hashes(vector):
    """With a signed and with an unsigned tail."""
    data = bytes.fromhex(vector["input"])

    assert (vector["expected"], vector["rust_pyfluss_value"]) == (murmur(data), murmur(data, Tail.UNSIGNED))


@of_kind("log_batch")
def test_log_batches_with_rows(vector):
    """INDEXED and COMPACTED ones are read and made again; ARROW ones have their own test."""
    asked, data = vector["input"], bytes.fromhex(vector["expected"]["batch_hex"])
    view = memoryview(data)
    (head,) = b.scan_produced(view).heads
    if "format" not in asked:  # a batch without records, of any format
        assert [] == list(rb.row_records(view, head))
        assert data == rb.build_row_batch([], schema_id=1, writer_id=7, batch_sequence=3)
        assert data == build_arrow_batch([], [], [], schema_id=1, writer_id=7, batch_sequence=3)
        return
    if asked["format"] == "ARROW":
        check_arrow_batch(asked, view, head)
        return
    codec = row_codec(RowFormat[asked["format"]], parsed(asked["types"]))
    changes = [rb.ChangeType(0 if asked["appendOnly"] else change) for change in asked["changes"]]
    expected = list(zip(changes, map(tuple, asked["rows"]), strict=True))
    built = rb.build_row_batch(
        [(change, codec.encode(row)) for change, row in expected],
        schema_id=asked["schema_id"],
        writer_id=asked["writer_id"],
        batch_sequence=asked["batch_sequence"],
        append_only=asked["appendOnly"],
    )

    assert asked["appendOnly"] == rb.is_append_only(head)
    assert expected == rb.read_rows(view, head, codec)
    assert vector["expected"]["java_decoded"].endswith(
        "".join(
            f"{n}{change.short}({row[0]},{'null' if row[1] is None else row[1]});"
            for n, (change, row) in enumerate(expected)
        )
    )
    assert data == built


def check_arrow_batch(asked, view, head):
    """It is read; a changelog of magic 0 is made again with the body of Java, and other metadata."""
    types, rows = parsed(asked["types"]), [tuple(row) for row in asked["rows"]]
    changes = [rb.ChangeType(change) for change in asked.get("changes", [0] * len(rows))]

    assert list(zip(changes, rows, strict=True)) == read_arrow_rows(types, view, head)
    if asked["appendOnly"] or asked["magic"]:
        return
    compression = Compression[asked["compression"]]
    told = {name: asked[name] for name in ("schema_id", "writer_id", "batch_sequence")}
    built = memoryview(build_arrow_batch(types, rows, changes, **told, compression=compression))
    ours, our_body = read_message(built[51:])
    java, java_body = read_message(view[51:])

    assert view[29:51] == built[29:51]  # from behind the attributes up to the message
    assert java == ours
    assert java_body == our_body


@of_kind("arrow_log_batch", "arrow_log_batch_v1_stats")
def test_arrow_batches_of_pyfluss(vector):
    """Of every type and compression, with and without statistics; made again, they are the same rows."""
    columns = vector["input"]["columns"]
    told, view = [one for _, one in columns], memoryview(bytes.fromhex(vector["expected"]["batch_hex"]))
    (head,) = b.scan_produced(view).heads
    types, java = parsed(told), vector["expected"]["java_decoded"]
    read = read_arrow_rows(types, view, head)
    again = memoryview(
        build_arrow_batch(types, [row for _, row in read], [change for change, _ in read], schema_id=1)
    )

    assert read == read_arrow_rows(types, again, b.read_head(again, 0))
    if "values" in vector["input"]:
        rows = [
            tuple(ours(*pair) for pair in zip(row, told, strict=True)) for row in vector["input"]["values"]
        ]
        assert [(rb.ChangeType.APPEND_ONLY, row) for row in rows] == read
        return
    texts = [
        f"{n}+A({row[0] if row[0] is not None else 'null'},{row[1]}," for n, (_, row) in enumerate(read)
    ]
    assert 2 == len(texts)
    assert [] == [text for text in texts if text not in java]


# ---- batches of PUT_KV ---------------------------------------------------------------------------


@attrs.frozen
class Told:
    """The table that a vector of pyfluss names by its description."""

    columns: tuple
    key: tuple[str, ...]
    bucket_key: tuple[str, ...]
    lake: LakeFormat | None = None
    version: int | None = 2


AVB = (("a", STRING), ("v", INT), ("b", INT))
UPDATED = Told((("id", INT), ("a", INT), ("b", STRING), ("c", DOUBLE)), ("id",), ("id",))
TABLES = {
    "composite_pk(b,a)": Told(AVB, ("b", "a"), ("b", "a")),
    "subset_bucket_key(a)_v2": Told(AVB, ("a", "b"), ("a",)),
    "paimon_default_v2": Told(AVB, ("a", "b"), ("a", "b"), LakeFormat.PAIMON),
    "paimon_subset_v2": Told(AVB, ("a", "b"), ("a",), LakeFormat.PAIMON),
    "paimon_subset_v1": Told(AVB, ("a", "b"), ("a",), LakeFormat.PAIMON, 1),
    "paimon_subset_noversion": Told(AVB, ("a", "b"), ("a",), LakeFormat.PAIMON, None),
    # The vector does not tell its bucket key; only b gives the recorded bucket.
    "iceberg_subset_v2": Told(AVB, ("a", "b"), ("b",), LakeFormat.ICEBERG),
    "lance_v2": Told(AVB, ("a", "b"), ("a", "b"), LakeFormat.LANCE),
    "paimon_long_string": Told((("a", STRING), ("v", INT)), ("a",), ("a",), LakeFormat.PAIMON),
    "partitioned_pk": Told((("id", INT), ("dt", STRING), ("v", STRING)), ("id",), ("id",)),
    "partial_update": UPDATED,
    "full_update": UPDATED,
    "nullbits9": Told((("id", INT), *((f"f{n}", BOOLEAN) for n in range(8))), ("id",), ("id",)),
}
TIMES = "TIMESTAMP_WITHOUT_TIME_ZONE", "TIMESTAMP_WITH_LOCAL_TIME_ZONE"
PARTITION_TYPES = {
    "bool": BOOLEAN,
    "tiny": {"type": "TINYINT"},
    "small": {"type": "SMALLINT"},
    "int": INT,
    "big": {"type": "BIGINT"},
    "float": {"type": "FLOAT"},
    "double": DOUBLE,
    "char": {"type": "CHAR", "length": 5},
    "str": STRING,
    "bin": {"type": "BINARY", "length": 4},
    "bytes": {"type": "BYTES"},
    "date": {"type": "DATE"},
    "time": {"type": "TIME_WITHOUT_TIME_ZONE", "precision": 3},
    **{f"ts{n}": {"type": TIMES[0], "precision": n} for n in (0, 3, 9)},
    **{f"ltz{n}": {"type": TIMES[1], "precision": n} for n in (3, 6)},
}


def table_of(description):
    if description.startswith("partname_c_"):
        kind = PARTITION_TYPES[description.removeprefix("partname_c_")]
        return Told((("id", INT), ("p", kind), ("v", STRING)), ("id",), ("id",))
    return TABLES[description]


def from_text(value, told):
    """A value that pyfluss was given, as the vectors print it."""
    name = told["type"]
    if value is None or not isinstance(value, str):
        return value
    if name in ("BINARY", "BYTES"):
        return ast.literal_eval(value)
    if name == "DATE":
        return (dt.date.fromisoformat(value) - dt.date(1970, 1, 1)).days
    if name == "TIME_WITHOUT_TIME_ZONE":
        time = dt.time.fromisoformat(value)
        return ((time.hour * 60 + time.minute) * 60 + time.second) * 1000 + time.microsecond // 1000
    if name.startswith("TIMESTAMP"):
        moment = dt.datetime.fromisoformat(value).replace(tzinfo=dt.UTC)
        return (moment - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)) // dt.timedelta(microseconds=1) * 1000
    return value


def recorded(vector):
    """The table, the key, the bucket key and the row of a vector of pyfluss."""
    table, row = table_of(vector["description"]), vector["input"]["row"]
    columns = dict(table.columns)
    values = tuple(from_text(row.get(name), told) for name, told in table.columns)
    by_name = dict(zip(columns, values, strict=True))

    def part(names):
        return parsed(columns[name] for name in names), [by_name[name] for name in names]

    key_types, key_values = part(table.key)
    is_bucket_key = table.key == table.bucket_key
    keys = primary_key_encoder(
        table.lake, key_types, format_version=table.version, is_bucket_key=is_bucket_key
    )
    bucket_types, bucket_values = part(table.bucket_key)
    bucket_key = key_encoder(table.lake, bucket_types).encode(bucket_values)
    data = encode_row(RowFormat.COMPACTED, parsed(columns.values()), values)
    is_upsert = vector["input"]["op"] == "upsert"
    return table, keys.encode(key_values), bucket_key, data if is_upsert else None


@of_kind("kv_batch")
def test_kv_batches(vector):
    """Head, keys and rows of what pyfluss sent, read and made again; and its bucket."""
    data, expected = bytes.fromhex(vector["expected"]["batch_hex"]), vector["expected"]
    head = kv.read_kv_head(memoryview(data))
    records = kv.kv_records(memoryview(data), head)
    again = kv.build_kv_batch(
        records, schema_id=1, writer_id=head.writer_id, batch_sequence=head.batch_sequence
    )

    assert kv.crc_is_right(memoryview(data), head)
    assert data.hex() == again.hex()
    if vector["input"] is None:
        assert OF_JAVA[vector["id"]] == (head.writer_id, head.batch_sequence, records)
        return
    assert WRITER == head.writer_id
    if "columns" in vector["input"]:
        told = [one for _, one in vector["input"]["columns"]]
        values = [ours(*pair) for pair in zip(vector["input"]["values"], told, strict=True)]
        row = encode_row(RowFormat.COMPACTED, parsed(told), values)

        assert [(key_encoder(None, parsed(told[:1])).encode(values[:1]), row)] == records
        assert tuple(values) == decode_row(RowFormat.COMPACTED, parsed(told), row)
        return
    table, key, bucket_key, row = recorded(vector)

    assert (expected["key_hex"], expected["value_row_hex"]) == (key.hex(), (row or b"").hex())
    assert [(key, row)] == records
    assert expected["bucket"] == bucketing_of(table.lake, Tail.UNSIGNED)(bucket_key, 16)


OF_JAVA = {
    "V425": (7, 0, [(b"\1", bytes.fromhex("00010568656c6c6f")), (b"\2", None)]),
    "V426": (-1, -1, [(b"\1", encode_row(RowFormat.INDEXED, parsed([INT, STRING]), (1, "hello")))]),
}


@of_kind("kv_store_value", "value_record_batch")
def test_stored_values(vector):
    """Alone, and in a batch."""
    data, types = bytes.fromhex(vector["expected"]), parsed([INT, STRING])
    rows = [(1, "hello"), (2, None)]
    stored = [v.stored_value(1, encode_row(RowFormat.COMPACTED, types, row)) for row in rows]
    if vector["kind"] == "kv_store_value":
        schema_id, row = v.split_value(data)

        assert data == stored[0]
        assert (1, rows[0]) == (schema_id, decode_row(RowFormat.COMPACTED, types, row))
        return

    assert data == v.build_value_batch(stored)
    assert stored == v.read_value_batch(data)


# ---- all of them ---------------------------------------------------------------------------------

HERE = {"crc32c", "uvarint32", "bucket", "murmur_seed42_signed_tail", "primary_key_encoding", *ROW_KINDS}
ELSEWHERE = {
    "test_batch.py": {"arrow_log_batch", "arrow_log_batch_v1_stats", "leader_rewrite", "log_batch"},
    "test_project.py": {"V451"},
    "test_partitions.py": {"auto_partition"},
}
NO_TEST = {
    "partition_value": "clients write values of partitions as texts, servers take the texts",
    "offset_index_entry": "the files of a bucket have a form of our own (decision 0001)",
    "time_index_entry": "as offset_index_entry",
    "writer_snapshot_json": "writers are part of our own checkpoint of a bucket",
    "remote_log_manifest_json": "there is no remote storage yet",
    "kv_snapshot_metadata_json": "there are no snapshots of stores yet",
    "lake_offsets_json": "there is no lake tiering yet",
    "merge_semantics": "there are no primary-key tables yet",
}


def test_every_vector_has_a_test_or_a_reason():
    """1. The tests named here are there. 2. No kind is left out, and none is in both lists."""
    here = HERE | {"kv_batch", "kv_store_value", "value_record_batch", "log_batch"}
    here |= {"arrow_log_batch", "arrow_log_batch_v1_stats"}
    kind_of = {vector["id"]: vector["kind"] for vector in VECTORS}
    covered = set(here)
    for name, marks in ELSEWHERE.items():
        text = Path(__file__).with_name(name).read_text()
        covered.update(kind_of.get(mark, mark) for mark in marks)

        assert [] == [mark for mark in marks if f'"{mark}"' not in text]
    assert set(kind_of.values()) == covered | set(NO_TEST)
    assert set() == covered & set(NO_TEST)
