"""Ids of an auto-increment column: drawn by merging out of blocks that the tablet server asks for.

A cluster-wide counter gives blocks, gaps are normal, no id is given twice. Ids that a refused or repeated
batch drew are lost.
"""

from __future__ import annotations

from collections import deque

import attrs


class IdsWanted(Exception):  # noqa: N818 - it says what the merge waits for
    """A merge needs *count* more ids than there are; it changed nothing, and is to be asked for again."""

    def __init__(self, count: int) -> None:
        super().__init__(f"{count} ids are missing")
        self.count = count


@attrs.define(eq=False)
class Ids:
    """The blocks that a bucket has, in the order in which they came; each is [next id, end)."""

    short_count: int = 0
    """How many ids were drawn that are not there, since this was set to 0."""
    _blocks: deque[tuple[int, int]] = attrs.Factory(deque)

    def add(self, first: int, last: int) -> None:
        """Add the block of *first* to *last*; an empty one gives its first, as upstream's do."""
        self._blocks.append((first, max(first, last) + 1))

    @property
    def left_count(self) -> int:
        """How many ids there are."""
        return sum(end - first for first, end in self._blocks)

    def draw(self) -> int:
        """Return the next id; when there is none, 0, and that is counted: what was drawn is then void."""
        if not self._blocks:
            self.short_count += 1
            return 0
        first, end = self._blocks.popleft()
        if first + 1 < end:
            self._blocks.appendleft((first + 1, end))
        return first

    def mark(self) -> tuple[tuple[int, int], ...]:
        """Return what `check` goes back to; a merge begins."""
        self.short_count = 0  # of one that was dropped
        return tuple(self._blocks)

    def check(self, mark: tuple[tuple[int, int], ...]) -> None:
        """Go back to a mark if ids were drawn that are not there. Raises IdsWanted."""
        if self.short_count:
            self._blocks = deque(mark)
            count, self.short_count = self.short_count, 0
            raise IdsWanted(count)
