"""Long work in slices: a generator that yields where others may have their turn, and returns what it made.

What it works on must stay as it is until it returns; whoever runs it sees to that, or drops it and begins
again. It changes nothing that others see before it returns. Work that fits into one slice never yields.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from typing import TypeAlias, TypeVar

Made = TypeVar("Made")
Item = TypeVar("Item")

Slices: TypeAlias = Generator[None, None, Made]


def finished(slices: Slices[Made]) -> Made:
    """Do all of it at once."""
    while True:
        try:
            next(slices)
        except StopIteration as end:
            made: Made = end.value
            return made


def in_pieces(
    items: Sequence[Item], size: int, make: Callable[[Sequence[Item]], Iterable[Made]]
) -> Slices[list[Made]]:
    """Return all that *make* makes of *items*, which it is given up to *size* at a time."""
    made: list[Made] = []
    for start in range(0, len(items), size):
        if start:
            yield
        made += make(items[start : start + size])
    return made


def whole_unless(is_large: bool, slices: Slices[Made]) -> Slices[Made]:  # noqa: FBT001 - it reads as a sentence
    """Do all of it at once, unless it is large: what has slices of its own need not know that."""
    return (yield from slices) if is_large else finished(slices)
