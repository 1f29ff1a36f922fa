"""A cluster in a thread of the test's own process.

Only `bootstrap_servers`, `tablet_addresses`, `stop` and `restart` are for tests; all else of the
cluster belongs to its thread. An exception inside the cluster is raised at the next call from here.
"""

from __future__ import annotations

import contextlib
import tempfile
import threading
from collections.abc import Iterator, Mapping
from os import PathLike
from pathlib import Path
from typing import Final

import attrs
import trio

from flussd.runtime_real import crash, datadir
from flussd.runtime_real.cluster import LocalCluster
from flussd.runtime_real.config import Options, parse_options
from flussd.runtime_real.host import Host
from flussd.runtime_real.listening import bind_all

HOST: Final = "127.0.0.1"
START_SECONDS_MAX: Final = 30
STOP_SECONDS_MAX: Final = 30


class ClusterFailed(Exception):  # noqa: N818 - a fact, as events are
    """The cluster ended by itself, or did not start or stop in time; the text says why."""


@attrs.define(eq=False)
class RunningCluster:
    """A cluster that runs in a thread; see the module's text."""

    tablets: int
    data_dir: Path
    options: Options
    _cluster: LocalCluster | None = None
    _thread: threading.Thread | None = None
    _token: trio.lowlevel.TrioToken | None = None
    _ready: threading.Event = attrs.Factory(threading.Event)
    _failure: str | None = None
    _ports: tuple[int, ...] = ()

    @property
    def bootstrap_servers(self) -> str:
        """`host:port` to give to a client."""
        return self._running().bootstrap_servers

    @property
    def tablet_addresses(self) -> tuple[str, ...]:
        """`host:port` of each tablet server."""
        return self._running().tablet_addresses

    def start(self) -> None:
        """Start it; returns once an append would succeed."""
        data = datadir.open_data_directory(self.data_dir, self.tablets)
        try:
            port = self._ports[0] if self._ports else 0
            listening = bind_all(HOST, port, 1) + [
                one
                for n in range(data.tablet_count)
                for one in bind_all(HOST, self._ports[1 + n] if self._ports else 0, 1)
            ]
        except BaseException:
            data.close()
            raise
        self._ports = tuple(one.getsockname()[1] for one in listening)
        self._ready.clear()
        self._cluster = LocalCluster(data, HOST, listening, self.options)
        self._cluster.on_ready = self._ready.set
        self._thread = threading.Thread(target=self._serve, name="flussd", daemon=True)
        self._thread.start()
        if not self._ready.wait(START_SECONDS_MAX):
            self.stop()
            raise ClusterFailed(f"the cluster was not ready within {START_SECONDS_MAX} s")
        self._raise_failure()

    def stop(self) -> None:
        """Stop it in order and wait for that."""
        if self._thread is None or self._cluster is None:
            return
        if self._token is not None:
            with contextlib.suppress(trio.RunFinishedError):
                self._token.run_sync_soon(self._cluster.stop)
        self._thread.join(STOP_SECONDS_MAX)
        if self._thread.is_alive():
            raise ClusterFailed(f"the cluster did not stop within {STOP_SECONDS_MAX} s")
        self._thread = None
        self._raise_failure()

    def restart(self) -> None:
        """Stop it in order and start it again on the same data and ports."""
        self.stop()
        self.start()

    def _running(self) -> LocalCluster:
        self._raise_failure()
        assert self._cluster is not None, "the cluster was not started"
        return self._cluster

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise ClusterFailed(self._failure)

    def _serve(self) -> None:
        cluster = self._cluster
        assert cluster is not None
        try:
            Host(cluster.hub).run(self._until_stopped, cluster)
        except BaseException as error:  # noqa: BLE001 - raised again in the test's thread
            self._failure = crash.report(error, cluster.drivers(), cluster.data.path)
        finally:
            cluster.close()
            self._token = None
            self._ready.set()  # whoever waits for the start shall see the failure

    async def _until_stopped(self, cluster: LocalCluster) -> None:
        self._token = trio.lowlevel.current_trio_token()
        await cluster.run()


@contextlib.contextmanager
def running(
    tablets: int, data_dir: str | PathLike[str] | None, options: Mapping[str, str]
) -> Iterator[RunningCluster]:
    """Run a cluster; see `flussd.testing.cluster`."""
    settings = parse_options(f"{key}={value}" for key, value in options.items())
    with contextlib.ExitStack() as stack:
        if data_dir is None:
            data_dir = stack.enter_context(tempfile.TemporaryDirectory(prefix="flussd-"))
        started = RunningCluster(tablets, Path(data_dir), settings)
        stack.callback(started.stop)
        started.start()
        yield started
