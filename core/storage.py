"""File effects over the disk port: patches, syncs that cover names, replacement in one step.

Used by the driver alone. It remembers which names this process has made durable; everything that an
earlier process left counts as not yet durable, since that process may have died before its sync.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

import attrs

from flussd.core import files as f
from flussd.core.ahead import Place, ReadAhead
from flussd.core.files import DiskError
from flussd.core.ports import Buffers, Disk


@attrs.define(eq=False)
class Files:
    """Performs file effects; *post* queues their completions; *ahead* must hear of all that changes."""

    disk: Disk
    post: Callable[[Any], None]
    ahead: ReadAhead = attrs.Factory(lambda self: ReadAhead(self.disk), takes_self=True)
    _durable_names: set[str] = attrs.Factory(set)
    _replacing: dict[str, deque[f.ReplaceFile]] = attrs.Factory(dict)  # those that wait their turn

    def perform(self, effect: f.FileEffect) -> None:
        """Start *effect*."""
        PERFORM[type(effect)](self, effect)

    def _write(self, effect: f.WriteFile) -> None:
        place = file, position = effect.file, effect.position
        self.ahead.changed(file, position)
        views: Buffers = effect.views
        if effect.patches:
            views = _patched(effect.views, effect.patches)
        data = self.ahead.writes(place, views)
        self.disk.write(file, position, views, partial(self._written, effect.token, place, data))

    def _written(self, token: int, place: Place, data: bytes, error: DiskError | None) -> None:
        if data:
            self.ahead.wrote(place, data, error)
        self.post(f.FileWritten(token, error))

    def _read(self, effect: f.ReadFile) -> None:
        def done(data: bytes, error: DiskError | None) -> None:
            self.post(f.FileRead(effect.token, data, error))

        self.disk.read(effect.file, effect.position, effect.size_bytes, done)

    def _sync(self, effect: f.SyncFile) -> None:
        self._sync_all(effect.file, partial(self._synced, effect.token))

    def _synced(self, token: int, error: DiskError | None) -> None:
        self.post(f.FileSynced(token, error))

    def _sync_all(self, file: str, done: Callable[[DiskError | None], None]) -> None:
        """Sync the bytes of *file*, then each folder on the way up whose names may not be durable."""
        names = [] if file in self._durable_names else _parents(file)

        def next_one(error: DiskError | None) -> None:
            if error is not None or not names:
                if error is None:
                    self._durable_names.add(file)
                done(error)
                return
            self.disk.sync_folder(names.pop(), next_one)

        names.reverse()  # popped from the end: the file's own folder first
        self.disk.sync(file, next_one)

    def _truncate(self, effect: f.TruncateFile) -> None:
        def done(error: DiskError | None) -> None:
            self.post(f.FileTruncated(effect.token, error))

        self.ahead.changed(effect.file, effect.size_bytes)
        self.disk.truncate(effect.file, effect.size_bytes, done)

    def _replace(self, effect: f.ReplaceFile) -> None:
        """Replace a file, after an earlier replacement of it has ended: both would use one name."""
        waiting = self._replacing.get(effect.file)
        if waiting is not None:
            waiting.append(effect)
            return
        self._replacing[effect.file] = deque()
        self._replace_now(effect)

    def _replace_now(self, effect: f.ReplaceFile) -> None:
        temporary = effect.file + ".tmp"
        self._durable_names.discard(effect.file)
        self.ahead.changed(effect.file, 0)
        steps: list[Callable[[Callable[[DiskError | None], None]], None]] = [
            lambda done: self.disk.remove(temporary, done),
            lambda done: self.disk.write(temporary, 0, (effect.data,), done),
            lambda done: self.disk.sync(temporary, done),
            lambda done: self.disk.rename(temporary, effect.file, done),
            lambda done: self._sync_all(effect.file, done),
        ]
        steps.reverse()

        def next_one(error: DiskError | None) -> None:
            if error is not None or not steps:
                self._replaced(effect, error)
                return
            steps.pop()(next_one)

        next_one(None)

    def _replaced(self, effect: f.ReplaceFile, error: DiskError | None) -> None:
        self.post(f.FileReplaced(effect.token, error))
        waiting = self._replacing[effect.file]
        if waiting:
            self._replace_now(waiting.popleft())
        else:
            del self._replacing[effect.file]

    def _remove(self, effect: f.RemoveFile) -> None:
        def done(error: DiskError | None) -> None:
            self.post(f.FileRemoved(effect.token, error))

        # The removal is not durable either: the next sync of any file beside it sees to that.
        self._forget(effect.file.rpartition("/")[0])
        self.ahead.changed(effect.file, 0)
        self.disk.remove(effect.file, done)

    def _remove_folder(self, effect: f.RemoveFolder) -> None:
        """Remove a folder for good: what is told to be gone must not come back after a power loss."""

        def removed(error: DiskError | None) -> None:
            if error is None:
                self.disk.sync_folder(effect.folder.rpartition("/")[0], synced)
            else:
                synced(error)

        def synced(error: DiskError | None) -> None:
            error = None if error is DiskError.MISSING else error  # nor is there a folder above it
            self.post(f.FolderRemoved(effect.token, error))

        self._forget(effect.folder)
        self.ahead.changed_below(effect.folder)
        self.disk.remove(effect.folder, removed)

    def _forget(self, folder: str) -> None:
        prefix = folder + "/" if folder else ""
        gone = [name for name in sorted(self._durable_names) if name.startswith(prefix)]
        self._durable_names.difference_update(gone)

    def _list(self, effect: f.ListFolder) -> None:
        def done(files: tuple[tuple[str, int], ...], error: DiskError | None) -> None:
            self.post(f.FolderListed(effect.token, files, error))

        self.disk.list(effect.folder, done)


def _parents(file: str) -> list[str]:
    """Return the folders that hold *file*, innermost first; "" is the node's own."""
    parts = file.split("/")[:-1]
    return ["/".join(parts[:n]) for n in range(len(parts), -1, -1)]


def _patched(
    views: tuple[memoryview | bytes, ...], patches: tuple[tuple[int, bytes], ...]
) -> tuple[memoryview | bytes, ...]:
    """Overwrite fields of *views*, in place where the buffer may be written."""
    fresh = [
        view if isinstance(view, memoryview) and not view.readonly else memoryview(bytearray(view))
        for view in views
    ]
    for offset, data in patches:
        for view in fresh:
            if offset < len(view):
                view[offset : offset + len(data)] = data
                break
            offset -= len(view)
    return tuple(fresh)


PERFORM: dict[type, Callable[[Files, Any], None]] = {
    f.WriteFile: Files._write,
    f.ReadFile: Files._read,
    f.SyncFile: Files._sync,
    f.TruncateFile: Files._truncate,
    f.ReplaceFile: Files._replace,
    f.RemoveFile: Files._remove,
    f.RemoveFolder: Files._remove_folder,
    f.ListFolder: Files._list,
}
