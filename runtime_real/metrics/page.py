"""From a snapshot to the text that Prometheus reads: upstream's names, then ours.

Upstream exports every counter, gauge and meter as a gauge and every histogram as a summary of
quantiles without a sum; names and types are kept, so that its dashboards work. What begins with
`flussd_` is ours and follows Prometheus' conventions. Runs in a thread, on plain values alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Final

import attrs
from prometheus_client import ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import CollectorRegistry

from flussd import __version__
from flussd.core.edge.meter import ApiCounts
from flussd.core.wire.apis import ApiKey
from flussd.runtime_real.metrics.snapshot import (
    ROLES,
    BucketRow,
    CoordinatorRow,
    NodeRow,
    Place,
    Snapshot,
    TabletRow,
)

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST

QUANTILES: Final = (0.5, 0.75, 0.95, 0.98, 0.99, 0.999)

REQUEST_SCOPES: Final = {
    int(ApiKey.PRODUCE_LOG): "produceLog",
    int(ApiKey.FETCH_LOG): "fetchLogClient",
    int(ApiKey.GET_METADATA): "metadata",
}
"""The APIs that upstream has metrics of."""

SERVER_RATES: Final = {
    "messagesInPerSecond": "record_count",
    "bytesInPerSecond": "in_bytes",
    "bytesOutPerSecond": "out_bytes",
    "delayedWriteExpiresPerSecond": "expired_writes",
    "delayedFetchFromClientExpiresPerSecond": "expired_fetches",
    "logFlushPerSecond": "syncs",
}

TABLE_RATES: Final = {
    "messagesInPerSecond": "record_count",
    "bytesInPerSecond": "in_bytes",
    "bytesOutPerSecond": "out_bytes",
    "totalProduceLogRequestsPerSecond": "append_count",
    "failedProduceLogRequestsPerSecond": "failed_append_count",
    "totalFetchLogRequestsPerSecond": "fetch_count",
    "failedFetchLogRequestsPerSecond": "failed_fetch_count",
}

TABLE_SUMS: Final = {
    "flussd_table_records_in_total": ("record_count", "records appended, without duplicates"),
    "flussd_table_in_bytes_total": ("in_bytes", "bytes of batches appended"),
    "flussd_table_out_bytes_total": ("out_bytes", "bytes of batches read for fetches, before projection"),
    "flussd_table_appends_total": ("append_count", "appends asked for, one for each bucket of a request"),
    "flussd_table_failed_appends_total": ("failed_append_count", "appends answered with an error"),
    "flussd_table_fetches_total": ("fetch_count", "fetches answered, one for each bucket of a request"),
    "flussd_table_failed_fetches_total": ("failed_fetch_count", "fetches answered with an error"),
}

Labels = Mapping[str, str]


@attrs.define(eq=False)
class Page:
    """Collects samples by name, in the order in which names first come."""

    cluster: Labels  # upstream's labels of every server
    rates: Mapping[Hashable, float]
    metrics: dict[str, Metric] = attrs.Factory(dict)

    def collect(self) -> Iterator[Metric]:
        """Yield all, for prometheus_client."""
        yield from self.metrics.values()

    def gauge(self, name: str, text: str, labels: Labels, value: float) -> None:
        """Add a value."""
        self._metric(name, text, "gauge").add_sample(name, dict(labels), value)

    def total(self, name: str, text: str, labels: Labels, value: float) -> None:
        """Add a sum that only grows; *name* ends with _total."""
        self._metric(name.removesuffix("_total"), text, "counter").add_sample(name, dict(labels), value)

    def summary(self, name: str, text: str, labels: Labels, values: Sequence[float], count: int) -> None:
        """Add the quantiles of *values*, the latest of *count*."""
        metric = self._metric(name, text, "summary")
        ordered = sorted(values)
        for quantile in QUANTILES if ordered else ():
            value = ordered[min(int(quantile * len(ordered)), len(ordered) - 1)]
            metric.add_sample(name, {**labels, "quantile": str(quantile)}, value)
        metric.add_sample(f"{name}_count", dict(labels), count)

    def _metric(self, name: str, text: str, kind: str) -> Metric:
        metric = self.metrics.get(name)
        if metric is None:
            metric = self.metrics[name] = Metric(name, text, kind)
        return metric


def render(snapshot: Snapshot, rates: Mapping[Hashable, float], cluster: Labels) -> bytes:
    """Return the whole text."""
    page = Page(cluster, rates)
    _coordinator(page, snapshot.coordinator)
    for tablet in snapshot.tablets:
        _tablet(page, tablet)
    _ours(page, snapshot)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(page)
    ProcessCollector(registry=registry)
    return generate_latest(registry)


# ---- upstream's names ----------------------------------------------------------------------------


def _coordinator(page: Page, row: CoordinatorRow) -> None:
    labels = {**page.cluster, "server_id": str(row.node.server_id)}
    scope = "fluss_coordinator"
    values = {
        "activeCoordinatorCount": int(row.is_active),
        "aliveCoordinatorCount": 1,
        "activeTabletServerCount": row.live_server_count,
        "offlineBucketCount": row.offline_bucket_count,
        "tableCount": len(row.tables),
        "bucketCount": row.bucket_count,
        "partitionCount": row.partition_count,
        "replicasToDeleteCount": row.replicas_to_delete_count,
        "pendingLeaderActivationCount": row.awaited_leader_count,
    }
    for name, value in values.items():
        page.gauge(f"{scope}_{name}", f"{name} (scope: coordinator)", labels, value)
    for place, (buckets, partitions) in row.tables.items():
        of, said = labels | _of_table(place), "(scope: coordinator_table)"
        page.gauge(f"{scope}_table_bucketCount", f"bucketCount {said}", of, buckets)
        page.gauge(f"{scope}_table_partitionCount", f"partitionCount {said}", of, partitions)


def _tablet(page: Page, row: TabletRow) -> None:
    who = row.node.server_id
    labels = {**page.cluster, "rack": "", "server_id": str(who)}
    scope, said = "fluss_tabletserver", "(scope: tabletserver)"
    for name, key in SERVER_RATES.items():
        page.gauge(f"{scope}_{name}", f"{name} {said}", labels, page.rates.get((who, key), 0))
    size_bytes = sum(bucket.size_bytes for bucket in row.buckets)
    values = {
        "leaderCount": sum(bucket.role == "leader" for bucket in row.buckets),
        "replicaCount": len(row.buckets),
        "writerIdCount": sum(bucket.writer_count for bucket in row.buckets),
        "delayedWriteCount": row.parked["produce"],
        "delayedFetchCount": row.parked["fetch"],
        "logicalStorage_logSize": size_bytes,
        "physicalStorage_localSize": size_bytes,
    }
    for name, value in values.items():
        page.gauge(f"{scope}_{name}", f"{name} {said}", labels, value)
    syncs_ms = [took_ns / 1e6 for took_ns in row.node.sync_times_ns]
    page.summary(
        f"{scope}_logFlushLatencyMs", f"logFlushLatencyMs {said}", labels, syncs_ms, row.node.sync_count
    )
    _requests(page, row.node, labels)
    for place in row.tables:
        for name, key in TABLE_RATES.items():
            rate = page.rates.get((who, place, key), 0)
            said = "(scope: tabletserver_table)"
            page.gauge(f"{scope}_table_{name}", f"{name} {said}", labels | _of_table(place), rate)
    for bucket in row.buckets:
        _bucket(page, labels, bucket)


def _requests(page: Page, row: NodeRow, labels: Labels) -> None:
    for api in row.apis:
        scope = REQUEST_SCOPES.get(api.key)
        if scope is None:
            continue
        full = f"fluss_tabletserver_request_{scope}"
        said = f"(scope: tabletserver_request_{scope})"
        rate = page.rates.get((row.server_id, api.key), 0)
        page.gauge(f"{full}_requestsPerSecond", f"requestsPerSecond {said}", labels, rate)
        times_ms = [took_ns / 1e6 for took_ns in api.counts.times_ns]
        page.summary(
            f"{full}_totalTimeMs", f"totalTimeMs {said}", labels, times_ms, api.counts.request_count
        )


def _bucket(page: Page, labels: Labels, row: BucketRow) -> None:
    of = {**labels, **_of_table(row.place), "bucket": str(row.bucket), "partition": row.partition}
    values = {
        "log_numSegments": row.segment_count,
        "log_startOffset": row.start_offset,
        "log_endOffset": row.end_offset,
        "physicalStorage_localLogSize": row.size_bytes,
        "logicalStorage_logSize": row.size_bytes,
    }
    for name, value in values.items():
        said = f"{name.partition('_')[2]} (scope: tabletserver_table_bucket)"
        page.gauge(f"fluss_tabletserver_table_bucket_{name}", said, of, value)
    of = {"server": f"tablet-{labels['server_id']}", **_of_table(row.place)}
    of |= {"bucket": str(row.bucket), "partition": row.partition}
    text = "the offset up to which readers see"
    page.gauge("flussd_bucket_high_watermark", text, of, row.high_watermark)


def _of_table(place: Place) -> dict[str, str]:
    return {"database": place[0], "table": place[1]}


# ---- ours ----------------------------------------------------------------------------------------


def _ours(page: Page, snapshot: Snapshot) -> None:
    page.gauge("flussd_info", "the version that runs", {"version": __version__}, 1)
    page.gauge("flussd_ready", "1 while all nodes serve", {}, int(not snapshot.why_not_ready))
    tablets = [tablet.node for tablet in snapshot.tablets]
    for node in (snapshot.registry, snapshot.coordinator.node, *tablets):
        _node(page, node)
    for (server, what), count in snapshot.announcements.items():
        labels = {"server": server, "what": what}
        page.total("flussd_announcements_total", "changes of state, as in the log", labels, count)
    text = "wake-ups of more than 2 ms, in which all connections waited"
    page.total("flussd_slow_steps_total", text, {}, snapshot.slow_count)
    page.total("flussd_slow_steps_seconds_total", "time in them", {}, snapshot.slow_sum_ns / 1e9)
    for server, count in snapshot.cut_bytes.items():
        text = "bytes that recoveries cut off behind the last whole batch"
        page.total("flussd_recovery_cut_bytes_total", text, {"server": server}, count)
    for tablet in snapshot.tablets:
        _tablet_ours(page, tablet)


def _tablet_ours(page: Page, row: TabletRow) -> None:
    server = {"server": row.node.name}
    roles = Counter(bucket.role for bucket in row.buckets)
    for role in ROLES:
        page.gauge("flussd_buckets", "buckets by role", server | {"role": role}, roles[role])
    page.gauge("flussd_registered", "1 while the server is registered", server, int(row.is_registered))
    for kind, count in row.parked.items():
        page.gauge("flussd_parked_requests", "requests that wait", server | {"kind": kind}, count)
    for place, counts in row.tables.items():
        for name, (field, text) in TABLE_SUMS.items():
            page.total(name, text, server | _of_table(place), getattr(counts, field))


def _node(page: Page, row: NodeRow) -> None:
    server = {"server": row.name}
    for api in row.apis:
        _api_ours(page, {**server, "api": api.name}, api.counts)
    if row.apis:
        for kind, count in row.connections.items():
            page.gauge("flussd_connections", "open connections", server | {"kind": kind}, count)
        accepted = row.accepted_count
        page.total(
            "flussd_connections_accepted_total", "client connections since the start", server, accepted
        )
        unserved = row.unserved_count
        page.total("flussd_unserved_requests_total", "requests of APIs not served", server, unserved)
        page.total("flussd_answer_bytes_total", "bytes of answers", server, row.answer_bytes)
        for code, count in row.errors.items():
            labels = server | {"code": str(code)}
            page.total("flussd_error_answers_total", "requests refused as a whole", labels, count)
        waiting = row.waiting_operation_count
        page.gauge("flussd_registry_waiting", "registry operations not answered yet", server, waiting)
    for operation, count in row.operations.items():
        labels = {**server, "operation": operation}
        page.total("flussd_registry_operations_total", "operations asked of the registry", labels, count)
    times = [took_ns / 1e9 for took_ns in row.sync_times_ns]
    page.summary(
        "flussd_sync_seconds", "time of syncs, of files and folders", server, times, row.sync_count
    )
    page.metrics["flussd_sync_seconds"].add_sample("flussd_sync_seconds_sum", server, row.sync_sum_ns / 1e9)
    page.total("flussd_failed_syncs_total", "syncs that failed", server, row.failed_sync_count)


def _api_ours(page: Page, labels: Labels, counts: ApiCounts) -> None:
    values = {
        "flussd_requests_total": ("request_count", "requests that came in"),
        "flussd_request_bytes_total": ("request_bytes", "bytes of requests"),
    }
    for name, (field, text) in values.items():
        page.total(name, text, labels, getattr(counts, field))
    if counts.times_ns:
        times = [took_ns / 1e9 for took_ns in counts.times_ns]
        text = "time from a whole request to its answer, waiting included; a sample"
        page.summary("flussd_request_seconds", text, labels, times, counts.request_count)
