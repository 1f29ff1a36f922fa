"""The parts of requests and answers that are about one bucket each: which one, in all messages alike."""

from __future__ import annotations

from typing import Any

from flussd.core.replica.events import BucketKey


def key_of(table_id: int, part: Any) -> BucketKey:
    """Return the bucket that a part of a request is about."""
    return table_id, part.partition_id if part.HasField("partition_id") else -1, part.bucket_id


def answer_of(answer: Any, part: Any) -> Any:
    """Say in an answer which bucket it is about, as the *part* of its request does; return it."""
    answer.bucket_id = part.bucket_id
    if part.HasField("partition_id"):
        answer.partition_id = part.partition_id
    return answer
