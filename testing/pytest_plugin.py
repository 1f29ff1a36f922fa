"""Fixtures that pytest offers once flussd is installed: a cluster a session, a database a test.

Loaded by every run of pytest on the machine, so it must import nothing heavy before it is used.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from flussd.testing.running import RunningCluster

_ordinals: Final = itertools.count(1)


@pytest.fixture(scope="session")
def fluss_cluster() -> Iterator[RunningCluster]:
    """One cluster for the whole session; `fluss_cluster.bootstrap_servers` is its address."""
    import flussd.testing

    with flussd.testing.cluster() as cluster:
        yield cluster


@pytest.fixture
def fluss_database(fluss_cluster: RunningCluster) -> str:
    """Return the name of a fresh database, created through the official client."""
    from flussd.testing.databases import create_database

    name = f"test_{next(_ordinals)}"
    create_database(fluss_cluster.bootstrap_servers, name)
    return name
