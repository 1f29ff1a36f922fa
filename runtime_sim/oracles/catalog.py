"""What must be true of databases and tables, as one client saw its own requests end.

A request that ended without an answer may be done, now or later, or never; its table is then a maybe until
the end. The caller owes it one admin client at a time for each name.
"""

from __future__ import annotations

import enum

import attrs

from flussd.runtime_sim.oracles.violation import Oracle, Violation


class Presence(enum.Enum):
    """What is known of a name."""

    ABSENT = "it is not there"
    PRESENT = "it is there"
    MAYBE = "nobody knows"


@attrs.define(eq=False, repr=False)
class CatalogTruth:
    """Names of tables, and the ids that were seen."""

    presence: dict[str, Presence] = attrs.Factory(dict)
    ids: dict[int, str] = attrs.Factory(dict)

    def of(self, name: str) -> Presence:
        """Return what is known of a table."""
        return self.presence.get(name, Presence.ABSENT)

    def created(self, name: str) -> None:
        """A creation succeeded."""
        self.presence[name] = Presence.PRESENT

    def dropped(self, name: str) -> None:
        """A drop succeeded."""
        self.presence[name] = Presence.ABSENT

    def unknown(self, name: str) -> None:
        """A request about *name* ended without an answer."""
        self.presence[name] = Presence.MAYBE

    def expect(self, name: str, *, exists: bool, how: str) -> None:
        """A server said whether a table exists."""
        known = self.of(name)
        wrong = Presence.ABSENT if exists else Presence.PRESENT
        if known is wrong:
            text = (
                f"table {name}: {known.value}, but {how} says that it {'exists' if exists else 'does not'}"
            )
            raise Violation(Oracle.CATALOG_IS_TRUE, text)

    def has_id(self, name: str, table_id: int) -> None:
        """A table has this id; every creation has a name of its own here."""
        other = self.ids.setdefault(table_id, name)
        if other != name:
            text = f"table id {table_id} is that of {other}, and of {name}"
            raise Violation(Oracle.CATALOG_IS_TRUE, text)

    def listed(self, names: list[str]) -> None:
        """A server listed all tables."""
        for name in names:
            self.expect(name, exists=True, how="a list")
        for name, presence in self.presence.items():
            if presence is Presence.PRESENT and name not in names:
                self.expect(name, exists=False, how="a list")
