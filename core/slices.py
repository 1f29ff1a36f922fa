"""Long work in slices: a generator that yields where others may have their turn, and returns what it made.

What it works on must stay as it is until it returns; whoever runs it sees to that, or drops it and begins
again. It changes nothing that others see before it returns. Work that fits into one slice never yields.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TypeAlias, TypeVar

Made = TypeVar("Made")

Slices: TypeAlias = Generator[None, None, Made]


def finished(slices: Slices[Made]) -> Made:
    """Do all of it at once."""
    while True:
        try:
            next(slices)
        except StopIteration as end:
            made: Made = end.value
            return made
