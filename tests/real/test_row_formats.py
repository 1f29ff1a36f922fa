"""INDEXED and COMPACTED log tables over raw connections: our rows go through a real server and come back.

The official Python client writes neither format, so its place is taken by the codecs of the core.
"""

import json
import socket
import struct
import time

import pytest

from flussd.core.edge import frames
from flussd.core.records import batch as b
from flussd.core.records import row_batch as rb
from flussd.core.records.bucketing import bucketing_of
from flussd.core.records.keys import key_encoder
from flussd.core.records.rows.atoms import BadRow
from flussd.core.records.rows.codec import RowFormat, row_codec
from flussd.core.records.schema import parse_schema
from flussd.core.wire import messages
from flussd.core.wire.apis import ApiKey
from flussd.core.wire.errors import ErrorCode

TYPES = [
    {"type": "INTEGER", "nullable": False},
    *({"type": name} for name in ("BOOLEAN", "TINYINT", "SMALLINT", "BIGINT", "FLOAT", "DOUBLE", "STRING")),
    {"type": "CHAR", "length": 6},
    {"type": "BYTES"},
    {"type": "BINARY", "length": 3},
    {"type": "DECIMAL", "precision": 9, "scale": 2},
    {"type": "DECIMAL", "precision": 38, "scale": 10},
    {"type": "DATE"},
    {"type": "TIME_WITHOUT_TIME_ZONE", "precision": 3},
    {"type": "TIMESTAMP_WITHOUT_TIME_ZONE", "precision": 3},
    {"type": "TIMESTAMP_WITH_LOCAL_TIME_ZONE", "precision": 9},
    {"type": "ARRAY", "element_type": {"type": "STRING"}},
    {"type": "MAP", "key_type": {"type": "STRING"}, "value_type": {"type": "BIGINT"}},
    {
        "type": "ROW",
        "fields": [
            {"name": "x", "field_type": {"type": "INTEGER"}},
            {"name": "y", "field_type": {"type": "ARRAY", "element_type": {"type": "DOUBLE"}}},
        ],
    },
]
BUCKETS = 3
FORMATS = pytest.mark.parametrize("row_format", [RowFormat.INDEXED, RowFormat.COMPACTED])


def row(n):
    """A row with every column set, or with every second one null."""
    integers = (-n % 100, n * 7, n << 40)
    texts = (f"text {n} é", f"c{n % 10}", b"\0\xff" * (n % 9), b"abc")
    times = (-n, n * 1000, -n * 10**6, -n * 12_345_678_901)
    nested = (["short", None, "x" * n], [(f"key {n}", n), ("null", None)], (n, [0.5 * n, None]))
    values = (n, n % 2 == 0, *integers, n / 4, n / 3, *texts, -n * 100, n * 10**30, *times, *nested)
    return values if n % 3 else tuple(None if k % 2 else value for k, value in enumerate(values))


class Peer:
    """A connection to one server of the cluster."""

    def __init__(self, address):
        host, port = address.split(":")
        self.socket = socket.create_connection((host, int(port)), timeout=30)
        self.file = self.socket.makefile("rb")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()
        self.socket.close()

    def ask(self, key, body, answer):
        self.socket.sendall(frames.request_frame(int(key), 0, 7, body.SerializeToString()))
        (length,) = struct.unpack(">i", self.file.read(4))
        kind, request_id, got = frames.split_response(memoryview(self.file.read(length)))
        assert (0, 7) == (kind, request_id), bytes(got)
        return answer.FromString(bytes(got))


class Table:
    """A log table of one row format."""

    def __init__(self, cluster, database, row_format):
        self.tablet = Peer(cluster.tablet_addresses[0])
        columns = [{"name": f"c{n}", "data_type": told} for n, told in enumerate(TYPES)]
        schema = {"version": 1, "columns": columns}
        path = messages.PbTablePath(database_name=database, table_name=row_format.name.lower())
        told = {
            "version": 1,
            "schema": schema,
            "partition_key": [],
            "bucket_key": ["c0"],
            "bucket_count": BUCKETS,
            "properties": {"table.log.format": row_format.name},
            "custom_properties": {},
        }
        asked = messages.CreateTableRequest(
            table_path=path, table_json=json.dumps(told).encode(), ignore_if_exists=False
        )
        with Peer(cluster.bootstrap_servers) as coordinator:
            coordinator.ask(ApiKey.CREATE_TABLE, asked, messages.CreateTableResponse)
            info = coordinator.ask(
                ApiKey.GET_TABLE_INFO,
                messages.GetTableInfoRequest(table_path=path),
                messages.GetTableInfoResponse,
            )
        self.table_id = info.table_id
        self.types = [column.data_type for column in parse_schema(schema).columns]
        self.codec = row_codec(row_format, self.types)
        self.keys = key_encoder(None, self.types[:1])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.tablet.__exit__()

    def bucket_of(self, values):
        return bucketing_of(None)(self.keys.encode(values[:1]), BUCKETS)

    def produce(self, bucket, records):
        """The answer for one bucket; asked again while the table has no leader yet."""
        request = messages.ProduceLogRequest(
            acks=-1,
            table_id=self.table_id,
            timeout_ms=10_000,
            buckets_req=[messages.PbProduceLogReqForBucket(bucket_id=bucket, records=records)],
        )
        not_yet = (ErrorCode.NOT_LEADER_OR_FOLLOWER, ErrorCode.UNKNOWN_TABLE_OR_BUCKET_EXCEPTION)
        for _ in range(100):
            answer = self.tablet.ask(ApiKey.PRODUCE_LOG, request, messages.ProduceLogResponse)
            (found,) = answer.buckets_resp
            if found.error_code not in not_yet:
                return found
            time.sleep(0.1)
        raise AssertionError(found)

    def fetch(self, bucket):
        """All batches of a bucket."""
        request = messages.FetchLogRequest(
            follower_server_id=-1,
            max_bytes=1 << 24,
            tables_req=[
                messages.PbFetchLogReqForTable(
                    table_id=self.table_id,
                    projection_pushdown_enabled=False,
                    buckets_req=[
                        messages.PbFetchLogReqForBucket(
                            bucket_id=bucket, fetch_offset=0, max_fetch_bytes=1 << 24
                        )
                    ],
                )
            ],
        )
        answer = self.tablet.ask(ApiKey.FETCH_LOG, request, messages.FetchLogResponse)
        (found,) = answer.tables_resp[0].buckets_resp
        assert 0 == found.error_code, found
        return found.records

    def rows(self, records):
        """The offset, change and values of each record of some batches."""
        view = memoryview(records)
        scanned = b.scan_produced(view)
        assert (None, len(view)) == (scanned.problem, scanned.kept_bytes)
        return [
            (head.base_offset + n, change, values)
            for head in scanned.heads
            for n, (change, values) in enumerate(rb.read_rows(view, head, self.codec))
        ]


@pytest.fixture
def table(fluss_cluster, fluss_database, request):
    """A fresh table of the format that the test is given."""
    with Table(fluss_cluster, fluss_database, request.getfixturevalue("row_format")) as made:
        yield made


@FORMATS
def test_rows_of_every_type_come_back(table, row_format):
    """In buckets of our choice, which are those of a Java client; in batches of every magic."""
    expected = {bucket: [] for bucket in range(BUCKETS)}
    for n in range(60):
        values = row(n)
        expected[table.bucket_of(values)].append(values)
    assert all(expected.values())
    for bucket, rows in expected.items():
        for n, part in enumerate((rows[:3], rows[3:4], rows[4:])):
            payload = rb.row_payload((rb.ChangeType.APPEND_ONLY, table.codec.encode(one)) for one in part)
            answer = table.produce(bucket, b.build_batch(payload, record_count=len(part), magic=n))

            assert (0, (0, 3, 4)[n]) == (answer.error_code, answer.base_offset)
    for bucket, rows in expected.items():
        found = table.rows(table.fetch(bucket))

        assert [(n, rb.ChangeType.APPEND_ONLY, values) for n, values in enumerate(rows)] == found


@FORMATS
def test_the_last_rows(table, row_format):
    """A limit scan gives the same batches as a fetch does."""
    for n in range(3):
        data = [(rb.ChangeType.APPEND_ONLY, table.codec.encode(row(n)))]
        table.produce(0, rb.build_row_batch(data, schema_id=1, append_only=True))
    answer = table.tablet.ask(
        ApiKey.LIMIT_SCAN,
        messages.LimitScanRequest(table_id=table.table_id, bucket_id=0, limit=2),
        messages.LimitScanResponse,
    )

    assert answer.is_log_table
    assert [row(1), row(2)] == [values for _, _, values in table.rows(answer.records)][-2:]


@FORMATS
def test_what_the_server_looks_at(table, row_format):
    """As upstream: heads and checksums, never rows; a batch that is no row of the table is its writer's."""
    good = rb.build_row_batch([(rb.ChangeType.APPEND_ONLY, table.codec.encode(row(1)))], schema_id=1)
    flipped = bytearray(good)
    flipped[-1] ^= 1

    assert ErrorCode.CORRUPT_RECORD_EXCEPTION == table.produce(0, bytes(flipped)).error_code
    nonsense = rb.build_row_batch([(rb.ChangeType.APPEND_ONLY, b"no row")], schema_id=1)
    assert (0, 0) == (table.produce(0, nonsense).error_code, table.produce(1, good).error_code)
    with pytest.raises(BadRow):
        table.rows(table.fetch(0))
    assert [row(1)] == [values for _, _, values in table.rows(table.fetch(1))]
