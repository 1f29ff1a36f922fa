"""Effects on files, and the events that complete them.

Paths are relative to the node's folder, with `/`. Operations on one file take effect in the order in
which they were asked; between files nothing is promised until a sync is confirmed. Every effect here
gets exactly one answer with its token. What has been written but not synced survives the end of the
process, not that of the machine; so does a name whose folder was not synced (SyncFile sees to both).
"""

from __future__ import annotations

import enum
from typing import TypeAlias

import attrs

from flussd.core.machine import hot_message


class DiskError(enum.Enum):
    """Why the file system refused: one member for each way a caller reacts."""

    FULL = "no space left on the disk"
    IO = "input/output error"
    MISSING = "no such file"
    DENIED = "permission denied"
    TOO_MANY_FILES = "too many open files"


@hot_message
class WriteFile:
    """Write *views*, one after the other, at *position* of *file* (created with its folders).

    Before that, overwrite single fields of the first view's underlying bytes: *patches* are (offset
    within the concatenated views, bytes). The views are read before the effect returns: their buffer
    may be used again at once. Answer: FileWritten. After an error any part may have been written.
    """

    token: int
    file: str
    position: int
    views: tuple[memoryview | bytes, ...]
    patches: tuple[tuple[int, bytes], ...] = ()


@hot_message
class FileWritten:
    """WriteFile *token* is done: the bytes are in the page cache, unless *error*."""

    token: int
    error: DiskError | None = None


@attrs.frozen
class ReadFile:
    """Read at most *size_bytes* from *position* of *file*; fewer only at its end. Answer: FileRead."""

    token: int
    file: str
    position: int
    size_bytes: int


@attrs.frozen
class FileRead:
    """ReadFile *token* is done; *data* is empty at an error, and beyond the end."""

    token: int
    data: bytes
    error: DiskError | None = None


@attrs.frozen
class SyncFile:
    """Make the file's bytes, its name and the names of its folders durable. Answer: FileSynced.

    It covers what was written before it was asked. After an error nothing is known to be durable,
    and asking again proves nothing: the kernel reports a lost page once.
    """

    token: int
    file: str


@attrs.frozen
class FileSynced:
    """SyncFile *token* is done."""

    token: int
    error: DiskError | None = None


@attrs.frozen
class TruncateFile:
    """Cut *file* to *size_bytes*. Answer: FileTruncated."""

    token: int
    file: str
    size_bytes: int


@attrs.frozen
class FileTruncated:
    """TruncateFile *token* is done; durable only after a SyncFile."""

    token: int
    error: DiskError | None = None


@attrs.frozen
class ReplaceFile:
    """Make *data* the whole content of *file*, durably: after a crash it is the old or the new one.

    Answer: FileReplaced.
    """

    token: int
    file: str
    data: bytes


@attrs.frozen
class FileReplaced:
    """ReplaceFile *token* is done and durable, unless *error*."""

    token: int
    error: DiskError | None = None


@attrs.frozen
class RemoveFile:
    """Remove *file*; a missing one is no error. Answer: FileRemoved."""

    token: int
    file: str


@attrs.frozen
class FileRemoved:
    """RemoveFile *token* is done."""

    token: int
    error: DiskError | None = None


@attrs.frozen
class RemoveFolder:
    """Remove *folder* and all in it, durably; a missing one is no error. Answer: FolderRemoved."""

    token: int
    folder: str


@attrs.frozen
class FolderRemoved:
    """RemoveFolder *token* is done."""

    token: int
    error: DiskError | None = None


@attrs.frozen
class ListFolder:
    """List every file below *folder* ("" is the node's own). Answer: FolderListed."""

    token: int
    folder: str


@attrs.frozen
class FolderListed:
    """ListFolder *token* is done: (path relative to the node's folder, size in bytes), sorted.

    A missing folder is an empty one.
    """

    token: int
    files: tuple[tuple[str, int], ...]
    error: DiskError | None = None


FileEffect: TypeAlias = (
    WriteFile | ReadFile | SyncFile | TruncateFile | ReplaceFile | RemoveFile | RemoveFolder | ListFolder
)
