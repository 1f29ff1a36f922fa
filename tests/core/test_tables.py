"""The transition tables in docs/ARCHITECTURE.md are those of the code.

    FLUSSD_REWRITE_DOCS=1 pytest tests/core/test_tables.py

rewrites the page.
"""

from __future__ import annotations

import os
from pathlib import Path

from flussd.core.coordinator.coordinator import Coordinator
from flussd.core.coordinator.coordinator import Role as Office
from flussd.core.registry.registry import Phase, RegistryMachine
from flussd.core.replica.replica import Replica
from flussd.core.replica.stored import Role

PAGE = Path(__file__).resolve().parents[2] / "docs/ARCHITECTURE.md"
BEGIN, END = "<!-- tables: begin -->\n", "<!-- tables: end -->"


def _print(title, table, columns):
    rows = [f"**{title}**", "", "| event | " + " | ".join(columns) + " |"]
    rows.append("|---" * (1 + len(columns)) + "|")
    for event, handlers in table.items():
        names = [f"`{handler.__name__.lstrip('_')}`" for handler in handlers]
        rows.append(f"| `{event.__name__}` | " + " | ".join(names) + " |")
    return "\n".join(rows) + "\n\n"


def _printed():
    printed = _print("Replica: event by role", Replica.TABLE, [role.name for role in Role])
    printed += _print("Coordinator: event by role", Coordinator.TABLE, [role.name for role in Office])
    printed += _print("Registry: event by phase", RegistryMachine.TABLE, [phase.name for phase in Phase])
    return printed


def test_the_page_shows_the_tables_of_the_code():
    """Between the two marks stands what the code prints."""
    page = PAGE.read_text()
    before, _, rest = page.partition(BEGIN)
    shown, _, after = rest.partition(END)
    if os.environ.get("FLUSSD_REWRITE_DOCS"):
        PAGE.write_text(before + BEGIN + _printed() + END + after)
        return

    assert _printed() == shown


def test_every_ignored_event_says_why():
    """Doing nothing is a named handler with a docstring."""
    ignored = {handler for row in Replica.TABLE.values() for handler in row if "ignore" in handler.__name__}

    assert ignored
    assert all(handler.__doc__ for handler in ignored)
