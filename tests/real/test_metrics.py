"""Metrics and health over HTTP: right numbers while the official client works, and no way to hurt."""

import contextlib
import http.client
import re
import socket
import subprocess
import sys

import fluss
import pyarrow as pa
import pytest
from prometheus_client.parser import text_string_to_metric_families

from flussd.runtime_real.metrics.page import Page
from flussd.runtime_real.metrics.rates import Rates

SCHEMA = pa.schema([pa.field("id", pa.int64())])


class Scraped(dict):
    """Values by (name, labels); `of` finds one by some of its labels."""

    def of(self, name, **labels):
        wanted = labels.items()
        (value,) = [v for (n, ls), v in self.items() if n == name and wanted <= dict(ls).items()]
        return value


def get(port, path, method="GET"):
    """Status, content type and body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    with contextlib.closing(connection):
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.getheader("Content-Type"), response.read().decode()


def scrape(port):
    """All samples, read by prometheus_client's own parser."""
    status, kind, body = get(port, "/metrics")
    assert 200 == status
    assert kind.startswith("text/plain; version=")
    return Scraped(
        {
            (sample.name, tuple(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(body)
            for sample in family.samples
        }
    )


@pytest.fixture
def metered(start_flussd):
    """A cluster of two tablet servers with metrics, and their port."""
    server = start_flussd("--port", 0, "--tablets", 2, "--metrics-port", 0)
    while not (found := re.search(r"metrics at http://[^:]+:(\d+)/metrics", "".join(server.lines))):
        server.lines.append(server.process.stdout.readline())
    return server, int(found[1])


# ---- numbers -------------------------------------------------------------------------------------


async def test_numbers_are_right(metered, connect, append_rows):
    """Rows, offsets, bytes, requests and buckets are counted as they happened.

    1. A table with two buckets gets 30 rows, and they are read once from the start.
    2. Each sum is what was done, and the ends of the two buckets add up to it.
    """
    server, port = metered
    before = scrape(port)
    async with connect(server.bootstrap_servers, database="shop") as client:
        table = await client.create("orders", SCHEMA, buckets=2)
        await append_rows(table, [{"id": n} for n in range(30)])
        assert 30 == len(await client.arrow(table))
        during = scrape(port)
    of = {"database": "shop", "table": "orders"}

    def total(name, **labels):
        return sum(v for (n, ls), v in during.items() if n == name and labels.items() <= dict(ls).items())

    assert 30 == total("flussd_table_records_in_total", **of)
    assert 30 == total("fluss_tabletserver_table_bucket_log_endOffset", **of)
    assert 30 == total("flussd_bucket_high_watermark", **of)
    in_bytes = total("flussd_table_in_bytes_total", **of)
    assert in_bytes == total("fluss_tabletserver_table_bucket_logicalStorage_logSize", **of) > 30
    assert in_bytes == total("flussd_table_out_bytes_total", **of)
    assert (
        total("flussd_requests_total", api="PRODUCE_LOG") == total("flussd_table_appends_total", **of) >= 1
    )
    assert 1 == during.of("flussd_requests_total", api="CREATE_TABLE")
    assert total("flussd_request_bytes_total", api="PRODUCE_LOG") > in_bytes
    assert total("flussd_request_seconds", api="PRODUCE_LOG", quantile="0.5") > 0
    assert 2 == total("fluss_tabletserver_leaderCount") == total("fluss_tabletserver_replicaCount")
    assert (0, 1) == tuple(s.of("fluss_coordinator_tableCount") for s in (before, during))
    assert 2 == during.of("fluss_coordinator_table_bucketCount", **of)
    assert 2 == during.of("fluss_coordinator_activeTabletServerCount")
    assert 0 == before.of("flussd_connections", server="coordinator", kind="client")
    assert during.of("flussd_connections", server="coordinator", kind="client") >= 1
    assert during.of("flussd_registry_operations_total", server="coordinator", operation="Multi") >= 1
    assert during.of("flussd_sync_seconds_count", server="registry") >= 1
    assert 1 == during.of("flussd_ready")
    assert during.of("process_resident_memory_bytes") > 1e6


async def test_refusals_are_counted(metered, connect):
    """A fetch beyond the end counts as failed for its table, and an error answer by its code."""
    server, port = metered
    async with connect(server.bootstrap_servers, database="shop") as client:
        await client.create("orders", SCHEMA)
        with pytest.raises(fluss.FlussError):
            await client.admin.create_table(
                client.path("orders"), fluss.TableDescriptor(fluss.Schema(SCHEMA), bucket_count=1)
            )
        found = scrape(port)

    assert 1 == found.of("flussd_error_answers_total", server="coordinator", code="8")


async def test_a_dropped_table_leaves_the_page(metered, connect, append_rows):
    """Its series end, and the sums of the server keep what it did."""
    server, port = metered
    async with connect(server.bootstrap_servers, database="shop") as client:
        await append_rows(await client.create("orders", SCHEMA), [{"id": 1}])
        await client.admin.drop_table(client.path("orders"))
        found = scrape(port)

    assert [] == [key for key in found if ("table", "orders") in key[1]]
    assert 0 == found.of("fluss_coordinator_tableCount")
    rates = [v for (name, _), v in found.items() if name == "fluss_tabletserver_messagesInPerSecond"]
    assert sum(rates) > 0


async def test_partitions_have_their_names(metered, connect, append_rows):
    """The series of a bucket carry the partition's name, and the coordinator counts partitions."""
    server, port = metered
    schema = pa.schema([pa.field("id", pa.int32()), pa.field("day", pa.string())])
    async with connect(server.bootstrap_servers, database="shop") as client:
        table = await client.create("visits", schema, buckets=2, partition_keys=["day"])
        await client.admin.create_partition(client.path("visits"), {"day": "monday"})
        await append_rows(table, [{"id": 1, "day": "monday"}])
        found = scrape(port)

    name = "fluss_tabletserver_table_bucket_log_endOffset"
    ends = [v for (n, ls), v in found.items() if n == name and ("partition", "monday") in ls]
    assert [0, 1] == sorted(ends)
    assert 1 == found.of("fluss_coordinator_partitionCount")
    assert 2 == found.of("fluss_coordinator_table_bucketCount", database="shop", table="visits")
    assert 1 == found.of("fluss_coordinator_table_partitionCount", database="shop", table="visits")


def test_types_are_upstreams(metered):
    """What begins with fluss_ is a gauge, or a summary without a sum: dashboards rely on that."""
    _, port = metered
    families = list(text_string_to_metric_families(get(port, "/metrics")[2]))

    fluss_ones = [one for one in families if one.name.startswith("fluss_")]
    assert len(fluss_ones) > 20
    assert {"gauge", "summary"} == {one.type for one in fluss_ones}
    names = {sample.name for one in fluss_ones for sample in one.samples}
    assert "fluss_tabletserver_request_produceLog_totalTimeMs_count" in names
    assert [] == [name for name in names if name.endswith("_sum")]


def test_rates_look_back_a_minute():
    """A rate is growth over the window's age; older ticks are forgotten, new sums begin at nothing."""
    rates = Rates()
    for second in range(0, 130, 5):
        rates.tick(second * 1000, {"a": second * 10})

    assert {"a": 10.0, "b": 0.5} == rates.per_second(125_000, {"a": 1250, "b": 30})
    assert {"a": 0} == Rates().per_second(5, {"a": 7})


def test_quantiles_are_of_the_values():
    """Of 1..1000 the median is 501 and the 99.9th percentile 1000; of nothing there is none."""
    page = Page({}, {})
    page.summary("full", "", {}, range(1, 1001), 5000)
    page.summary("empty", "", {}, (), 0)

    values = {sample.labels.get("quantile"): sample.value for sample in page.metrics["full"].samples}
    assert (501, 1000, 5000) == (values["0.5"], values["0.999"], values[None])
    assert [("empty_count", 0)] == [(s.name, s.value) for s in page.metrics["empty"].samples]


# ---- health, and bad requests --------------------------------------------------------------------


def test_health(metered):
    """Both answer while it serves; HEAD has no body."""
    _, port = metered

    assert (200, "alive\n") == get(port, "/health/live")[::2]
    assert (200, "ready\n") == get(port, "/health/ready?verbose")[::2]
    assert (200, "") == get(port, "/health/ready", "HEAD")[::2]


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET /nothing HTTP/1.1\r\n\r\n", 404),
        (b"POST /metrics HTTP/1.1\r\n\r\n", 405),
        (b"hello\r\n\r\n", 400),
        (b"\r\n\r\n", 400),
        (b"\xff\xfe\x00" * 20_000, 400),
        (b"GET /metrics HTTP/1.1\r\nX: " + b"x" * 9000, 200),  # enough is known after the first line
    ],
)
def test_bad_requests_get_an_answer(metered, sent, status):
    """Whatever comes gets a status and a close, and the next request is served."""
    _, port = metered
    with socket.create_connection(("127.0.0.1", port), timeout=10) as peer:
        with contextlib.suppress(ConnectionError):
            peer.sendall(sent)
        with contextlib.suppress(ConnectionError):
            answer = peer.recv(100)
            assert answer.startswith(b"HTTP/1.1 %d " % status), answer

    assert 200 == get(port, "/health/live")[0]


def test_peers_that_say_nothing_keep_no_one_out_of_the_cluster(metered):
    """A few silent connections do not stop a scrape."""
    server, port = metered
    with contextlib.ExitStack() as stack:
        for _ in range(8):
            stack.enter_context(socket.create_connection(("127.0.0.1", port)))

        assert 200 == get(port, "/health/live")[0]
    assert 0 == server.stop()[0]


# ---- the port ------------------------------------------------------------------------------------


@pytest.mark.parametrize("port", ["x", "-1", "65536"])
def test_a_wrong_port_is_one_line(run_flussd, tmp_path, port):
    """It is refused, and no data directory appears."""
    status, out, err = run_flussd("local", "--metrics-port", port, "--data-dir", tmp_path / "new")

    assert (1, "", 1) == (status, out, err.count("\n"))
    assert "--metrics-port" in err
    assert not (tmp_path / "new").exists()


def test_a_port_in_use_is_one_line(run_flussd, tmp_path):
    """It says which port, what to do, and leaves nothing behind."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        status, out, err = run_flussd("local", "--metrics-port", port, "--data-dir", tmp_path / "new")

    assert (1, "", 1) == (status, out, err.count("\n"))
    assert f"--metrics-port: port {port} of 127.0.0.1 is in use" in err
    assert not (tmp_path / "new").exists()


def test_without_the_option_nothing_is_loaded(child_env):
    """The server imports no prometheus_client unless it is asked for metrics."""
    code = "import flussd.cli.serve, sys; print('prometheus_client' in sys.modules)"
    ran = subprocess.run(
        [sys.executable, "-c", code], env=child_env, capture_output=True, text=True, check=True
    )

    assert "False" == ran.stdout.strip()
