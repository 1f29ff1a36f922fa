"""GET /metrics, /health/live and /health/ready over HTTP, on the thread of the hub.

An answer of /health/live is itself the proof: the hub's thread got to it. A request costs the hub the
time of a snapshot; the page is made in a thread. No peer can do more than lose its own connection, and
a few of them at a time are served.
"""

from __future__ import annotations

import socket
from typing import Final

import attrs
import trio

from flussd.runtime_real.cluster import LocalCluster
from flussd.runtime_real.meters import SlowWakeUps
from flussd.runtime_real.metrics import page
from flussd.runtime_real.metrics.rates import TICK_MS, Rates
from flussd.runtime_real.metrics.snapshot import Snapshot, sums, take, why_not_ready

HEAD_BYTES_MAX: Final = 8192
"""Longest head of a request; scrapers send a few hundred bytes."""

REQUEST_SECONDS_MAX: Final = 10
"""Time from a connection to the end of its answer."""

CONNECTIONS_MAX: Final = 16
"""Served at once; more wait."""

TEXT: Final = "text/plain; charset=utf-8"

REASONS: Final = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    503: "Service Unavailable",
}


@attrs.frozen
class Answer:
    """What a request gets."""

    status: int
    body: bytes
    content_type: str = TEXT

    def encode(self, *, with_body: bool) -> bytes:
        """Return it as bytes of HTTP/1.1."""
        head = (
            f"HTTP/1.1 {self.status} {REASONS[self.status]}\r\n"
            f"Content-Type: {self.content_type}\r\n"
            f"Content-Length: {len(self.body)}\r\n"
            "Cache-Control: no-store\r\n"
            "Connection: close\r\n\r\n"
        )
        return head.encode() + (self.body if with_body else b"")


@attrs.define(eq=False)
class Endpoint:
    """The endpoint of one cluster; *host* is what upstream's label of that name says."""

    cluster: LocalCluster
    slow: SlowWakeUps
    host: str
    rates: Rates = attrs.Factory(Rates)
    _limit: trio.CapacityLimiter = attrs.Factory(lambda: trio.CapacityLimiter(CONNECTIONS_MAX))
    _one_page: trio.Lock = attrs.Factory(trio.Lock)

    async def run(self, listening: socket.socket) -> None:
        """Serve until cancelled."""
        self._tick()
        listening.setblocking(False)  # noqa: FBT003 - its only signature
        listener = trio.SocketListener(trio.socket.from_stdlib_socket(listening))
        await trio.serve_listeners(self._serve, [listener])

    def _tick(self) -> None:
        snapshot = take(self.cluster, self.slow)
        self.rates.tick(snapshot.now_ms, sums(snapshot))
        self.cluster.hub.call_at(snapshot.now_ms + TICK_MS, self._tick)

    async def _serve(self, stream: trio.SocketStream) -> None:
        try:
            async with self._limit:
                with trio.move_on_after(REQUEST_SECONDS_MAX):
                    method, answer = await self._answer(await _head(stream))
                    await stream.send_all(answer.encode(with_body=method != "HEAD"))
                    await stream.send_eof()
        except (trio.BrokenResourceError, trio.ClosedResourceError, OSError):
            return  # the peer is gone
        finally:
            await trio.aclose_forcefully(stream)

    async def _answer(self, head: bytes) -> tuple[str, Answer]:
        words = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            return "", Answer(400, b"expected an HTTP/1.1 request\n")
        method, target, _ = words
        if method not in {"GET", "HEAD"}:
            return method, Answer(405, f"expected GET or HEAD, got {method}\n".encode())
        path = target.partition("?")[0]
        if path == "/metrics":
            return method, await self._metrics()
        if path == "/health/live":
            return method, Answer(200, b"alive\n")
        if path == "/health/ready":
            return method, self._ready()
        return method, Answer(404, b"there are /metrics, /health/live and /health/ready\n")

    def _ready(self) -> Answer:
        why_not = why_not_ready(self.cluster)
        if why_not:
            return Answer(503, ("not ready: " + ", ".join(why_not) + "\n").encode())
        return Answer(200, b"ready\n")

    async def _metrics(self) -> Answer:
        async with self._one_page:
            snapshot = take(self.cluster, self.slow)
            body = await trio.to_thread.run_sync(self._render, snapshot)
        return Answer(200, body, page.CONTENT_TYPE)

    def _render(self, snapshot: Snapshot) -> bytes:
        rates = self.rates.per_second(snapshot.now_ms, sums(snapshot))
        labels = {"cluster_id": self.cluster.data.directory_id, "host": self.host}
        return page.render(snapshot, rates, labels)


async def _head(stream: trio.SocketStream) -> bytes:
    """Read up to the blank line that ends a head; what is too long or cut is returned as it is."""
    head = b""
    while b"\r\n\r\n" not in head and len(head) <= HEAD_BYTES_MAX:
        more = await stream.receive_some(HEAD_BYTES_MAX)
        if not more:
            break
        head += more
    return head
