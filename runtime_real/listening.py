"""The listening sockets of a cluster on one host, all bound before anything else begins.

Must leave nothing bound when one of them fails.
"""

from __future__ import annotations

import errno
import re
import socket
from typing import Final

from flussd.runtime_real.config import ConfigError

BACKLOG: Final = 1024
"""Connections that wait for the hub: a burst of clients at the end of a long wake-up."""

PORT_MAX: Final = 65535

WILDCARDS: Final = frozenset({"0.0.0.0", "::", ""})  # noqa: S104 - names them, binds nothing

NAME: Final = re.compile(r"[\w.-]+|[\da-fA-F]*:[\da-fA-F]*:[\da-fA-F:.]*(%\w+)?")
"""A host's name or IPv4 address, or an IPv6 address; a port behind a name is neither."""


def bind_all(host: str, port: int, count: int) -> list[socket.socket]:
    """Bind *count* sockets from *port* on, or, when it is 0, to any free ports."""
    if port and port + count - 1 > PORT_MAX:
        raise ConfigError(f"--port {port}: {count} ports from there on go beyond {PORT_MAX}")
    bound: list[socket.socket] = []
    try:
        for n in range(count):
            bound.append(_bind(host, port + n if port else 0))  # noqa: PERF401 - closed on failure
    except OSError as error:
        for one in bound:
            one.close()
        raise _clear_error(host, port, len(bound), count, error) from None
    return bound


def bind_metrics(host: str, port: int) -> socket.socket:
    """Bind the socket of the metrics."""
    try:
        return _bind(host, port)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            text = f"port {port} of {host} is in use (--metrics-port 0 takes a free one)"
            raise ConfigError(f"--metrics-port: {text}") from None
        raise ConfigError(f"--metrics-port {port}: cannot listen on {host}: {error.strerror}") from None


def advertised(host: str, told: str | None) -> str:
    """Return the name that clients are told: *told*, or *host*; a wildcard is no address to connect to."""
    if told is None:
        return socket.gethostname() if host in WILDCARDS else host
    if told in WILDCARDS or not NAME.fullmatch(told):
        raise ConfigError(f"--advertised-host: expected a name or an address, without a port, got {told!r}")
    return told


def _bind(host: str, port: int) -> socket.socket:
    found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    # Official clients prefer IPv4 when a name has both.
    family, kind, proto, _, address = min(found, key=lambda one: one[0] != socket.AF_INET)
    bound = socket.socket(family, kind, proto)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen(BACKLOG)
    except OSError:
        bound.close()
        raise
    return bound


def _clear_error(host: str, port: int, n: int, count: int, error: OSError) -> ConfigError:
    if isinstance(error, socket.gaierror):
        return ConfigError(f"--host {host}: {error.strerror}")
    who = "the coordinator" if n == 0 else f"tablet server {n - 1}"
    last = f"ports {port} to {port + count - 1} are needed"
    if error.errno == errno.EADDRINUSE:
        return ConfigError(
            f"port {port + n} of {host}, for {who}, is in use ({last}; --port 0 takes free ones)"
        )
    return ConfigError(f"cannot listen on port {port + n} of {host}, for {who}: {error.strerror}")
