"""What users and our own tests start: an in-process cluster, and the pytest fixture over it.

Importing this loads nothing of the server; calling `cluster` does.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from os import PathLike
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flussd.testing.running import RunningCluster


@contextlib.contextmanager
def cluster(
    *,
    tablets: int = 1,
    data_dir: str | PathLike[str] | None = None,
    options: Mapping[str, str] | None = None,
) -> Iterator[RunningCluster]:
    """Run a cluster of *tablets* tablet servers in a thread of this process, on free ports.

    Without *data_dir* its data goes away at the end. *options* are the keys of `flussd local -D`.
    """
    from flussd.testing.running import running

    with running(tablets, data_dir, options or {}) as started:
        yield started
