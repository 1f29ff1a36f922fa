"""What happens to a replica, and the news it has for the tablet server that holds it.

Disk completions come as they are (core/files.py); everything else is here. A *ticket* names one
bucket's part of one waiting request; the tablet server may have given up on it when the news comes.
"""

from __future__ import annotations

from typing import TypeAlias

import attrs

from flussd.core.log.recovery import Cut
from flussd.core.machine import hot_message
from flussd.core.records.batch import BatchHead
from flussd.core.wire.errors import ErrorCode

BucketKey: TypeAlias = tuple[int, int, int]  # table id, partition id or -1, bucket


@attrs.frozen
class FilesListed:
    """The replica's folder holds files of these *sizes* (name -> bytes): recover from them."""

    sizes: dict[str, int]


@attrs.frozen
class LeadershipGiven:
    """The bucket record names this server, in its present incarnation, as leader of *epoch*."""

    epoch: int
    incarnation: int


@attrs.frozen
class LeadershipTaken:
    """The bucket record names nobody or another, or our registration is gone."""


@hot_message
class AppendAsked:
    """Append whole batches; *records* is free again once the effects of this step are started."""

    ticket: int
    acks: int
    records: memoryview
    heads: tuple[BatchHead, ...]
    wall_ms: int
    first_offset: int = -1  # of a batch before these that is in the log already; -1: there is none
    wants_place: bool = False  # whether to tell Appended in the step that takes them into the log


@attrs.frozen
class RetryDue:
    """The pause after a failure is over: begin again from the files."""


@attrs.frozen
class RetentionDue:
    """Give up whole segments with nothing committed at *before_ms* (wall clock) or later."""

    before_ms: int


@attrs.frozen
class RowsUnreadable:
    """What was folded from the log cannot be: a batch of it is damaged, or cannot be read (*text*)."""

    text: str


@attrs.frozen
class CheckpointAsked:
    """Write a checkpoint of all there is: a round of them is due, or the server is about to stop."""


# ---- news for the tablet server -----------------------------------------------------------------


@hot_message
class AppendAnswered:
    """The part *ticket* of a produce request is done: in [*base_offset*, *end_offset*), or refused."""

    ticket: int
    base_offset: int
    code: ErrorCode = ErrorCode.NONE
    text: str = ""
    end_offset: int = -1


@attrs.frozen
class Appended:
    """The batches of *ticket* are in the log of *key*, in [*base_offset*, *end_offset*).

    They are not written yet, and may be cut again. Told in the step of the AppendAsked that wants it,
    unless that is refused, or holds only what is in the log already.
    """

    key: BucketKey
    ticket: int
    base_offset: int
    end_offset: int


@attrs.frozen
class LogCut:
    """The log of *key* ends at *end_offset* again: what was behind could not be written."""

    key: BucketKey
    end_offset: int


@hot_message
class WatermarkMoved:
    """Readers may see more of *key*, up to *high_watermark*."""

    key: BucketKey
    high_watermark: int


@attrs.frozen
class Leading:
    """*key* is led in *epoch*: its history is durable, and it takes writes."""

    key: BucketKey
    epoch: int


@attrs.frozen
class LeadershipLeft:
    """*key* is led no more; whoever waits for it is to be told."""

    key: BucketKey


@attrs.frozen
class Troubled:
    """*key* cannot go on, because of *text*; it begins again when told RetryDue."""

    key: BucketKey
    text: str


@attrs.frozen
class Recovered:
    """*key* is whole again; *cut* tells what was thrown away at its end, if anything."""

    key: BucketKey
    cut: Cut | None


@attrs.frozen
class ListingWanted:
    """*key* begins again: tell it what files it has, by FilesListed."""

    key: BucketKey


@attrs.frozen
class CheckpointWanted:
    """*key* has appended so much since its checkpoint that it should be asked for another."""

    key: BucketKey


@attrs.frozen
class CheckpointFailed:
    """The disk does not take a checkpoint of *key*, because of *text*: the next start reads more.

    Told once, until one is written again.
    """

    key: BucketKey
    text: str


@attrs.frozen
class CheckpointDone:
    """The checkpoint asked for is written, or given up."""

    key: BucketKey
