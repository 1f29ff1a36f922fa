"""The data directory: whose it is, of which format, and that one process at a time uses it.

    flussd.json          format level, id of the directory, number of tablet servers
    flussd.lock          locked by the running process; holds its pid
    registry/ coordinator/ tablet-0/ ...     a folder for each node

Nothing is written before all checks have passed. A directory that is not ours, newer than we are or in
use is left as it was.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import attrs

from flussd.runtime_real.config import ConfigError

FORMAT_LEVEL: Final = 1
"""Raised by whatever an older flussd could not read; see docs/decisions."""

MARK: Final = "flussd.json"
LOCK: Final = "flussd.lock"
NODE_MARK: Final = ".node.json"
BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")

OURS_BEFORE_THE_MARK: Final = frozenset({LOCK, MARK + ".tmp", "lost+found"})
"""What may lie in a directory without a mark: a start that was killed, or a fresh file system."""


@attrs.frozen
class Mark:
    """What the directory says of itself."""

    format_level: int
    directory_id: str
    tablets: int


@attrs.define(eq=False)
class DataDirectory:
    """An open, locked data directory."""

    path: Path
    directory_id: str
    tablet_count: int
    _lock_fd: int

    def node_folder(self, name: str) -> Path:
        """Return the folder of node *name*, created if need be."""
        folder = self.path / name
        if not folder.is_dir():
            folder.mkdir()
            _sync_folder(self.path)  # a power cut must not take the name of what is synced below it
        return folder

    def node_directory_id(self, name: str) -> str:
        """Return the id of the node's folder: another one if the folder was lost since."""
        mark = self.node_folder(name) / NODE_MARK
        try:
            return str(json.loads(mark.read_text())["directory_id"])
        except FileNotFoundError:
            directory_id = secrets.token_hex(16)
            _replace(mark, {"directory_id": directory_id})
            return directory_id
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{mark} is damaged: {error!r}") from None

    def close(self) -> None:
        """Give the lock back; a second call does nothing."""
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1


def open_data_directory(path: Path, tablet_count: int | None) -> DataDirectory:
    """Open *path*, or create it; *tablet_count* None is as many as it has, or one."""
    with _clear_errors(path):
        _make(path)
        _check_mark(path)
        lock_fd = _lock(path)
    try:
        with _clear_errors(path):
            return _opened(path, tablet_count, lock_fd)
    except BaseException:
        os.close(lock_fd)
        raise


@contextlib.contextmanager
def temporary_data_directory() -> Iterator[Path]:
    """Make a directory that goes away with the process."""
    with tempfile.TemporaryDirectory(prefix="flussd-", ignore_cleanup_errors=True) as path:
        yield Path(path)


def boot_id() -> str:
    """Return what names this boot of the kernel."""
    return BOOT_ID.read_text().strip()


def _opened(path: Path, tablet_count: int | None, lock_fd: int) -> DataDirectory:
    mark = _check_mark(path) or Mark(FORMAT_LEVEL, secrets.token_hex(16), 0)
    count = tablet_count if tablet_count is not None else max(mark.tablets, 1)
    if count < mark.tablets:
        raise ConfigError(
            f"data directory {path} holds the buckets of {mark.tablets} tablet servers,"
            f" got --tablets {count}"
        )
    if count != mark.tablets:
        _replace(path / MARK, attrs.asdict(attrs.evolve(mark, tablets=count)))
    return DataDirectory(path, mark.directory_id, count, lock_fd)


def _check_mark(path: Path) -> Mark | None:
    """Return the mark, None for a fresh directory; refuse what is not ours to use."""
    mark = path / MARK
    if not mark.exists():
        strangers = sorted({entry.name for entry in path.iterdir()} - OURS_BEFORE_THE_MARK)
        if strangers:
            raise ConfigError(
                f"{path} is no data directory of flussd: it holds {strangers[0]} and no {MARK}"
            )
        return None
    try:
        found = json.loads(mark.read_text())
        level = int(found["format_level"])
        read = Mark(level, str(found["directory_id"]), int(found["tablets"]))
    except (ValueError, KeyError, TypeError):
        raise ConfigError(f"{mark} is damaged; expected the format level and the directory's id") from None
    if level > FORMAT_LEVEL:
        raise ConfigError(
            f"data directory {path} was written by a newer flussd: expected format level"
            f" {FORMAT_LEVEL} at most, got {level}"
        )
    return read


def _lock(path: Path) -> int:
    fd = os.open(path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(fd, 32, 0).decode("ascii", "replace").strip()
        os.close(fd)
        raise ConfigError(f"data directory {path} is in use by process {holder or 'unknown'}") from None
    os.ftruncate(fd, 0)
    os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    return fd


def _replace(path: Path, content: dict[str, Any]) -> None:
    """Write *content* so that a crash leaves the old file or the new one."""
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("w") as file:
        json.dump(content, file)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    _sync_folder(path.parent)


def _make(path: Path) -> None:
    """Make the directory and those above it, durably."""
    missing = [one for one in (path, *path.parents) if not one.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for one in missing:
        _sync_folder(one.parent)


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextlib.contextmanager
def _clear_errors(path: Path) -> Iterator[None]:
    """Turn what the file system says into one line."""
    try:
        yield
    except (FileExistsError, NotADirectoryError):
        raise ConfigError(f"data directory {path}: expected a directory, got a file") from None
    except OSError as error:
        doing = "use" if error.errno in {errno.EMFILE, errno.ENFILE} else "write to"
        raise ConfigError(f"cannot {doing} data directory {path}: {error.strerror}") from None
