"""What machines announce, as log lines and as counts.

The names are those of the Announce effects of the core; one that is not listed is a warning, so that
nothing new stays unseen.
"""

from __future__ import annotations

import logging
from collections import Counter
from typing import Any, Final

import attrs

from flussd.core.machine import Announce
from flussd.runtime_real.logs import tell

LEVELS: Final = {
    "recovered": logging.INFO,
    "active": logging.INFO,
    "standby": logging.INFO,
    "ready": logging.INFO,
    "registered": logging.INFO,
    "leading": logging.INFO,
    "leads no more": logging.INFO,
    "bucket erased": logging.INFO,
    "rows restored": logging.INFO,
    "bucket recovered": logging.DEBUG,
}
"""How loud each is; all others want somebody's attention."""


@attrs.define(eq=False)
class Announcements:
    """The announcements of one cluster, counted by (node, what)."""

    counts: Counter[tuple[str, str]] = attrs.Factory(Counter)
    cut_bytes: Counter[str] = attrs.Factory(Counter)  # node -> bytes that recoveries threw away

    def add(self, node: str, effect: Announce) -> None:
        """Log and count one."""
        self.counts[node, effect.what] += 1
        facts: dict[str, Any] = dict(effect.facts)
        self.cut_bytes[node] += facts.get("cut_bytes", 0)
        level = LEVELS.get(effect.what, logging.WARNING)
        if facts.get("cut_bytes"):
            level = logging.WARNING
        tell(level, effect.what, effect.text, node=node, **facts)
