"""What a broken version of the core is: one function of it, and what takes its place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs

from flussd.runtime_sim.oracles.violation import Oracle


@attrs.frozen
class Mutant:
    """*make* gets the original of `owner.name`, and returns what takes its place.

    *likely* are seeds that caught it when it was written; a test tries them first.
    """

    text: str
    owner: Any
    name: str
    make: Callable[[Any], Any]
    detected_by: tuple[Oracle, ...]
    likely: tuple[int, ...] = ()
