"""What was asked of one bucket since this process started, for those who watch the server.

Counts decide nothing and are in no digest. They outlive a recovery within the process.
"""

from __future__ import annotations

import attrs


@attrs.define(eq=False)
class BucketCounts:
    """Plain sums; a fetch that waits counts once, when it is answered."""

    append_count: int = 0  # that were written
    failed_append_count: int = 0
    record_count: int = 0  # in; duplicates are not counted
    in_bytes: int = 0
    fetch_count: int = 0
    failed_fetch_count: int = 0
    out_bytes: int = 0

    def add(self, other: BucketCounts) -> None:
        """Take the sums of *other* in: its bucket is gone."""
        self.append_count += other.append_count
        self.failed_append_count += other.failed_append_count
        self.record_count += other.record_count
        self.in_bytes += other.in_bytes
        self.fetch_count += other.fetch_count
        self.failed_fetch_count += other.failed_fetch_count
        self.out_bytes += other.out_bytes
