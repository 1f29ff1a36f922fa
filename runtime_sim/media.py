"""What a disk holds: bytes in the page cache, bytes on the platter, and what a power cut leaves of both.

Byte-level. Unsynced writes survive a power cut in pieces of 512 bytes, or not, torn and out of order; a
file may keep its new size without its data. Names survive only when their folder, and all folders above,
were synced. A failed sync drops its dirty pages: this boot still reads them, the next one does not.
"""

from __future__ import annotations

import enum
from typing import Final

import attrs

from flussd.runtime_sim.draws import Stream

PIECE_BYTES: Final = 512
"""What a disk writes in one step, whole or not at all."""


class Mood(enum.Enum):
    """How the power went, for one file."""

    NOTHING = "nothing that was not synced is left"
    ALL = "all of it is left"
    PREFIX = "the writes up to some piece are left"
    PIECES = "any pieces are left"


@attrs.define(eq=False, repr=False)
class Inode:
    """One file: *content* is what is read; *pending* was done since the last sync, in order."""

    content: bytearray = attrs.Factory(bytearray)
    platter: bytearray = attrs.Factory(bytearray)
    pending: list[tuple[int, bytes | None]] = attrs.Factory(list)  # (position, data); None: cut there

    def write(self, position: int, data: bytes) -> None:
        """Write into the page cache."""
        _put(self.content, position, data)
        self.pending.append((position, data))

    def truncate(self, size_bytes: int) -> None:
        """Cut in the page cache."""
        _cut(self.content, size_bytes)
        self.pending.append((size_bytes, None))

    def sync(self) -> None:
        """Make all that is pending durable."""
        for position, data in self.pending:
            _apply(self.platter, position, data)
        self.pending.clear()

    def fail_sync(self, draws: Stream) -> None:
        """Lose dirty pages: some reach the platter, none is dirty afterwards."""
        self._settle(draws, Mood.PIECES)

    def cut_power(self, draws: Stream) -> int:
        """Keep what the cut leaves; return how many pending operations it hit."""
        hit = len(self.pending)
        if hit:
            self._settle(draws, draws.choice(tuple(Mood)))
        self.content = bytearray(self.platter)
        return hit

    def _settle(self, draws: Stream, mood: Mood) -> None:
        pieces = list(self._pieces())
        kept = draws.below(len(pieces) + 1) if mood is Mood.PREFIX else len(pieces)
        for n, (position, data) in enumerate(pieces):
            survives = n < kept and mood is not Mood.NOTHING
            if mood is Mood.PIECES:
                survives = draws.chance(500_000)
            if survives:
                _apply(self.platter, position, data)
        if mood is not Mood.NOTHING and draws.chance(200_000) and len(self.content) > len(self.platter):
            self.platter.extend(bytes(len(self.content) - len(self.platter)))
        self.pending.clear()

    def _pieces(self) -> list[tuple[int, bytes | None]]:
        """Return what is pending, cut at the boundaries of pieces."""
        pieces: list[tuple[int, bytes | None]] = []
        for position, data in self.pending:
            if data is None:
                pieces.append((position, None))
                continue
            at = 0
            while at < len(data):
                end = min(len(data), at + PIECE_BYTES - (position + at) % PIECE_BYTES)
                pieces.append((position + at, data[at:end]))
                at = end
        return pieces


def _put(content: bytearray, position: int, data: bytes) -> None:
    if position > len(content):
        content.extend(bytes(position - len(content)))
    content[position : position + len(data)] = data


def _cut(content: bytearray, size_bytes: int) -> None:
    if size_bytes < len(content):
        del content[size_bytes:]
    else:
        content.extend(bytes(size_bytes - len(content)))


def _apply(content: bytearray, position: int, data: bytes | None) -> None:
    if data is None:
        _cut(content, position)
    else:
        _put(content, position, data)


@attrs.frozen
class NameChange:
    """Entries of one folder that change together: name -> file, None: gone, True: a folder."""

    entries: tuple[tuple[str, Inode | bool | None], ...]


@attrs.define(eq=False, repr=False)
class Media:
    """Names and files; paths are relative, with `/`; folders come and go with what is in them."""

    draws: Stream
    files: dict[str, Inode] = attrs.Factory(dict)
    durable: dict[str, Inode | bool] = attrs.Factory(dict)  # path -> file, or True for a folder
    folders: dict[str, None] = attrs.Factory(dict)  # that exist, but for the top one
    unsynced: dict[str, list[NameChange]] = attrs.Factory(dict)  # folder -> changes, in order

    # ---- names ---------------------------------------------------------------------------------

    def open(self, path: str) -> Inode:
        """Return the file, made with its folders if it is missing."""
        inode = self.files.get(path)
        if inode is None:
            self._make_folders(folder_of(path))
            inode = self.files[path] = Inode()
            self._changed(folder_of(path), (path, inode))
        return inode

    def _make_folders(self, folder: str) -> None:
        parts = folder.split("/") if folder else []
        for n in range(1, len(parts) + 1):
            path = "/".join(parts[:n])
            if path not in self.folders:
                self.folders[path] = None
                self._changed(folder_of(path), (path, True))

    def _changed(self, folder: str, *entries: tuple[str, Inode | bool | None]) -> None:
        self.unsynced.setdefault(folder, []).append(NameChange(entries))

    def rename(self, old: str, new: str) -> None:
        """Give a file another name, in one step; both in one folder."""
        assert folder_of(old) == folder_of(new), "a rename between folders is not one step here"
        inode = self.files.pop(old)
        self.files[new] = inode
        self._changed(folder_of(old), (old, None), (new, inode))

    def remove(self, path: str) -> None:
        """Remove a file, or a folder with all in it, from the leaves up."""
        if path in self.files:
            del self.files[path]
            self._changed(folder_of(path), (path, None))
            return
        if path not in self.folders:
            return
        for file in self.below(path):
            del self.files[file]
            self._changed(folder_of(file), (file, None))
        for folder in sorted(
            (f for f in self.folders if f == path or f.startswith(path + "/")), reverse=True
        ):
            del self.folders[folder]
            self._changed(folder_of(folder), (folder, None))

    def below(self, path: str) -> list[str]:
        """Return the file at *path*, or those below it, sorted; "" is the top."""
        prefix = path + "/" if path else ""
        return sorted(f for f in self.files if f == path or f.startswith(prefix))

    def sync_folder(self, folder: str) -> None:
        """Make the names in *folder* durable."""
        for change in self.unsynced.pop(folder, ()):
            self._settle(change)

    def _settle(self, change: NameChange) -> None:
        for path, what in change.entries:
            if what is None:
                self.durable.pop(path, None)
            else:
                self.durable[path] = what

    # ---- power ---------------------------------------------------------------------------------

    def cut_power(self) -> int:
        """Keep what the cut leaves; return how much it hit."""
        hit = 0
        for folder in sorted(self.unsynced):
            hit += self._cut_names(self.unsynced[folder])
        self.unsynced.clear()
        gone = [path for path in self.durable if not self._is_reachable(path)]
        for path in gone:
            del self.durable[path]
        self.files = {path: what for path, what in self.durable.items() if isinstance(what, Inode)}
        self.folders = {path: None for path, what in self.durable.items() if what is True}
        for path in sorted(self.files):
            hit += self.files[path].cut_power(self.draws)
        return hit

    def _cut_names(self, changes: list[NameChange]) -> int:
        mood = self.draws.choice(tuple(Mood))
        kept = self.draws.below(len(changes) + 1) if mood is Mood.PREFIX else len(changes)
        for n, change in enumerate(changes):
            survives = n < kept and mood is not Mood.NOTHING
            if mood is Mood.PIECES:
                survives = self.draws.chance(500_000)
            if survives:
                self._settle(change)
        return len(changes)

    def _is_reachable(self, path: str) -> bool:
        folder = folder_of(path)
        while folder:
            if self.durable.get(folder) is not True:
                return False
            folder = folder_of(folder)
        return True


def folder_of(path: str) -> str:
    """Return the folder that holds *path*; "" is the top."""
    return path.rpartition("/")[0]
