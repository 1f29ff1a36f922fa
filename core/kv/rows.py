"""The committed rows of a bucket: looked up by key, and read in the order of their keys.

Order costs nothing until somebody reads in order: only then keys are sorted into blocks, and from then on
those that came and went are worked in at the next such read. Blocks are never changed, they are replaced;
so a snapshot holds the blocks of its time, and beside them the values that were replaced since. Who makes a
snapshot owes it a `close`: until then each put keeps what it replaces.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from typing import Final

import attrs

from flussd.core.kv.buffer import Writes
from flussd.core.limits import KV_BLOCK_KEYS

SORT_ANEW_BELOW: Final = 8
"""With more than one change for so many keys, sorting all is cheaper than working them in."""


@attrs.define(eq=False)
class Snapshot:
    """The rows as they were; iterate over it for their stored values in key order."""

    row_count: int
    _rows: Rows
    _blocks: tuple[tuple[bytes, ...], ...]
    _replaced: dict[bytes, bytes] = attrs.Factory(dict)

    def __iter__(self) -> Iterator[bytes]:
        """Yield the stored values; may be left and taken up between puts."""
        values, replaced = self._rows.values, self._replaced
        for block in self._blocks:
            for key in block:
                kept = replaced.get(key)
                yield values[key] if kept is None else kept

    def close(self) -> None:
        """Let go: puts keep nothing for it any more, and it must not be read. May be called again."""
        self._rows.snapshots = [one for one in self._rows.snapshots if one is not self]
        self._blocks, self.row_count = (), 0
        self._replaced.clear()

    def keep(self, key: bytes, value: bytes) -> None:
        """Keep the value that *key* has until now; the first one counts, it is that of the snapshot."""
        self._replaced.setdefault(key, value)


@attrs.define(eq=False)
class Rows:
    """Stored values by key; change them with `put` and `remove` alone."""

    values: dict[bytes, bytes] = attrs.Factory(dict)
    snapshots: list[Snapshot] = attrs.Factory(list)
    _blocks: list[tuple[bytes, ...]] | None = None  # None: nobody reads in order
    _lasts: list[bytes] = attrs.Factory(list)  # the last key of each block
    _unsorted: dict[bytes, None] = attrs.Factory(dict)  # keys that came or went since

    def put(self, key: bytes, value: bytes) -> None:
        """Store a value."""
        if self.snapshots:
            self._keep(key)
        if self._blocks is not None and key not in self.values:
            self._moved(key)
        self.values[key] = value

    def remove(self, key: bytes) -> None:
        """Forget a key that may not be there."""
        if self.snapshots:
            self._keep(key)
        if self.values.pop(key, None) is not None and self._blocks is not None:
            self._moved(key)

    def apply(self, writes: Writes) -> None:
        """Store all of *writes*."""
        for key, value in writes.items():
            if value is None:
                self.remove(key)
            else:
                self.put(key, value)

    def first(self, limit: int) -> list[bytes]:
        """Return the stored values of up to *limit* rows, in key order."""
        found: list[bytes] = []
        if limit <= 0:
            return found
        for block in self._ordered():
            found += [self.values[key] for key in block[: limit - len(found)]]
            if len(found) >= limit:
                break
        return found

    def with_prefix(self, prefix: bytes) -> list[bytes]:
        """Return the stored values of the keys that start with *prefix*, in key order."""
        blocks, found = self._ordered(), list[bytes]()
        for n in range(bisect_left(self._lasts, prefix), len(blocks)):
            block = blocks[n]
            start = bisect_left(block, prefix)
            for key in block[start:]:
                if not key.startswith(prefix):
                    return found
                found.append(self.values[key])
        return found

    def snapshot(self) -> Snapshot:
        """Return the rows as they are now; they stay so until it is closed."""
        snapshot = Snapshot(len(self.values), self, tuple(self._ordered()))
        self.snapshots.append(snapshot)
        return snapshot

    def clear(self) -> None:
        """Forget all; snapshots are kept as they were."""
        for key in list(self.values):
            self.remove(key)
        self._blocks = None
        self._unsorted.clear()

    # ---- order ---------------------------------------------------------------------------------

    def _keep(self, key: bytes) -> None:
        value = self.values.get(key)
        if value is not None:
            for snapshot in self.snapshots:
                snapshot.keep(key, value)

    def _moved(self, key: bytes) -> None:
        self._unsorted[key] = None
        if len(self._unsorted) > len(self.values) + KV_BLOCK_KEYS:
            # Nobody has read in order for long: sorting anew costs less than what is kept for it.
            self._blocks = None
            self._unsorted.clear()

    def _ordered(self) -> list[tuple[bytes, ...]]:
        if self._blocks is None or len(self._unsorted) * SORT_ANEW_BELOW > len(self.values):
            keys = sorted(self.values)
            self._blocks = [tuple(keys[n : n + KV_BLOCK_KEYS]) for n in range(0, len(keys), KV_BLOCK_KEYS)]
            self._lasts = [block[-1] for block in self._blocks]
        else:
            for key in self._unsorted:
                self._work_in(self._blocks, key)
        self._unsorted.clear()
        return self._blocks

    def _work_in(self, blocks: list[tuple[bytes, ...]], key: bytes) -> None:
        """Bring one key's place up to date: it may have come, gone, or both."""
        n = min(bisect_left(self._lasts, key), len(blocks) - 1)
        assert n >= 0, "few keys moved, so some of the sorted ones are still there"
        block = blocks[n]
        place = bisect_left(block, key)
        is_there = place < len(block) and block[place] == key
        if key in self.values and not is_there:
            self._replace(blocks, n, (*block[:place], key, *block[place:]))
        elif key not in self.values and is_there:
            self._replace(blocks, n, block[:place] + block[place + 1 :])

    def _replace(self, blocks: list[tuple[bytes, ...]], n: int, block: tuple[bytes, ...]) -> None:
        """Put *block* in the place of block *n*, as none if it is empty, as two if it is long."""
        half = len(block) // 2 if len(block) > 2 * KV_BLOCK_KEYS else 0
        parts = [part for part in (block[:half], block[half:]) if part]
        blocks[n : n + 1] = parts
        self._lasts[n : n + 1] = [part[-1] for part in parts]
