"""`flussd local` from its options to its exit status.

Imports the server, and is imported only when one is to run.
"""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import logging
import os
import resource
import signal
import socket
import sys
from pathlib import Path
from typing import Final

import attrs
import trio

from flussd import __version__
from flussd.runtime_real import crash, datadir, logs, meters
from flussd.runtime_real.cluster import LocalCluster, NodeFailed
from flussd.runtime_real.config import ConfigError, parse_options
from flussd.runtime_real.host import Host
from flussd.runtime_real.listening import advertised, bind_all, bind_metrics
from flussd.runtime_real.malloc import keep_pages

EXIT_USER: Final = 1
EXIT_BUG: Final = 70

OPEN_FILES_WANTED: Final = 65536
"""Connections and segments; the usual soft limit of 1024 is for programs that use select()."""

SNIPPET: Final = """\
    config = fluss.Config({{"bootstrap.servers": "{servers}"}})
    connection = await fluss.FlussConnection.create(config)
    admin = connection.get_admin()
"""

SURVIVES: Final = {
    "page_cache": "a killed process loses nothing acknowledged; a power cut may take the last records",
    "group_fsync": "neither a killed process nor a power cut loses anything acknowledged",
}


@attrs.frozen
class Wanted:
    """What the command line asks for."""

    data_dir: Path | None
    port: int
    tablets: int | None
    host: str
    settings: tuple[str, ...]
    advertised_host: str | None = None
    metrics_port: int | None = None
    log_format: str = "text"
    log_level: str = "warning"


def local(wanted: Wanted) -> int:
    """Run a cluster until it is told to stop; return the exit status."""
    logs.set_up(wanted.log_format, wanted.log_level, sys.stderr)
    descriptor_count = _prepare_process()
    with contextlib.ExitStack() as stack:
        try:
            options = parse_options(wanted.settings)
            host = advertised(wanted.host, wanted.advertised_host)
            path = wanted.data_dir or stack.enter_context(datadir.temporary_data_directory())
            metrics = _bind_metrics(wanted, stack)
            data = datadir.open_data_directory(path, wanted.tablets)
            stack.callback(data.close)
            listening = bind_all(wanted.host, wanted.port, 1 + data.tablet_count)
        except ConfigError as error:
            return _fail(str(error))
        cluster = LocalCluster(data, host, listening, options)
        stack.callback(cluster.close)
        cluster.share_descriptors(descriptor_count)
        cluster.on_ready = lambda: _banner(cluster, wanted.data_dir, metrics)
        slow = meters.watch_wake_ups(cluster)
        if metrics is not None:
            meters.attach(cluster)
        logs.tell(logging.INFO, "starting", version=__version__, pid=os.getpid(), data_dir=str(path))
        status = _run(cluster, metrics, slow)
        logs.tell(logging.INFO, "ended", exit_status=status)
        return status


def _bind_metrics(wanted: Wanted, stack: contextlib.ExitStack) -> socket.socket | None:
    """Bind the port of the metrics, if one is wanted, and see that they can be made at all."""
    if wanted.metrics_port is None:
        return None
    if importlib.util.find_spec("prometheus_client") is None:
        raise ConfigError("--metrics-port: needs the package prometheus-client; pip install it")
    bound = bind_metrics(wanted.host, wanted.metrics_port)
    stack.callback(bound.close)
    return bound


def _prepare_process() -> int:
    """Make what the process was started with fit for a server; return how many descriptors it may have."""
    # Until the hub runs and stops in order, a signal unwinds: temporary data is removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = max(soft, min(hard, OPEN_FILES_WANTED))
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    keep_pages()
    return limit if limit > 0 else OPEN_FILES_WANTED  # no limit is -1


def _run(cluster: LocalCluster, metrics: socket.socket | None, slow: meters.SlowWakeUps) -> int:
    try:
        Host(cluster.hub).run(_until_signalled, cluster, metrics, slow)
    except BaseException as error:  # noqa: BLE001 - whatever it is, it ends the process
        cause = _unwrapped(error)
        if isinstance(cause, SystemExit | KeyboardInterrupt):
            return 0  # signalled before the hub could see to it
        if isinstance(cause, NodeFailed):
            return _fail(str(cause))
        sys.stderr.write(crash.report(cause, cluster.drivers(), cluster.data.path))
        return EXIT_BUG
    return 0


def _unwrapped(error: BaseException) -> BaseException:
    """Return what a nursery wrapped, where that is a single exception."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


async def _until_signalled(
    cluster: LocalCluster, metrics: socket.socket | None, slow: meters.SlowWakeUps
) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_stop_at_signal, cluster, signals)
            if metrics is not None:
                from flussd.runtime_real.metrics.endpoint import Endpoint  # brings prometheus_client

                endpoint = Endpoint(cluster, slow, cluster.host)
                nursery.start_soon(endpoint.run, metrics)
            await cluster.run()
            nursery.cancel_scope.cancel()


async def _stop_at_signal(cluster: LocalCluster, signals: object) -> None:
    async for _ in signals:  # type: ignore[attr-defined]
        cluster.stop()


def _banner(cluster: LocalCluster, data_dir: Path | None, metrics: socket.socket | None) -> None:
    gc.collect()
    gc.freeze()  # what start-up made stays for good; the collector need not look at it again
    servers = cluster.bootstrap_servers
    where = f"data in {data_dir}" if data_dir is not None else "data is temporary and goes away at the end"
    durability = cluster.options.durability
    lines = [
        f"flussd ready bootstrap.servers={servers} tablets={','.join(cluster.tablet_addresses)}",
        "connect with the official client (pip install pyfluss):",
        SNIPPET.format(servers=servers).rstrip(),
        f"{where}; log.durability={durability}: {SURVIVES[durability]}",
        "Ctrl-C stops it in order",
    ]
    if metrics is not None:
        where = f"{cluster.host}:{metrics.getsockname()[1]}"
        lines.insert(-1, f"metrics at http://{where}/metrics, health at /health/live and /health/ready")
    try:
        print("\n".join(lines), flush=True)
    except OSError:  # nobody reads it any more, as in `flussd local | head -1`: no reason to end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(text: str) -> int:
    print("flussd: " + " ".join(text.split()), file=sys.stderr)
    return EXIT_USER
