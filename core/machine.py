"""What a machine is: the outermost state machines that a driver steps.

A machine is pure. What happened arrives as one event with the time it was seen at; what it wants
done leaves as effects, started in order. It never reads a clock, file or socket, and never waits.
Its caller owes it: time that runs forward, one event at a time, and exactly one completion for every
effect that promises one, or the end of the process.
"""

from __future__ import annotations

from typing import Any, Protocol, TypeVar, dataclass_transform

import attrs

Message = TypeVar("Message", bound=type)


@dataclass_transform(frozen_default=True)
def hot_message(cls: Message) -> Message:
    """Make a frozen message of *cls*, by the word of the type checker alone.

    `attrs.frozen` guards its fields at run time as well, and is made in three times the time: 2.5 us
    of a produce request's 26, which needs nine of these. For messages of the hot path only.
    """
    return attrs.define(cls)


class Machine(Protocol):
    """Tablet server, coordinator and registry, as the driver and the simulator see them."""

    def step(self, event: Any, now_ms: int) -> list[Any]:
        """Take *event* in at *now_ms* (monotonic, integer); return the effects, in order.

        An exception is always our own bug; the machine must not be stepped again.
        """

    def check(self) -> None:
        """Assert what holds between any two steps, for what the last step touched (about 1 us)."""

    def check_all(self) -> None:
        """Assert all that holds between any two steps, however long that takes."""

    def digest(self) -> bytes:
        """Return a canonical digest of the state: equal states, equal digests, in any process."""


@attrs.frozen
class Started:
    """The process runs, and the machine may begin; always the first event.

    *boot_id* names the boot of the kernel: the page cache of an earlier process survived when it is
    the same. *directory_id* names the data directory. *chance* is 64 bits that no other start has.
    """

    wall_ms: int
    boot_id: str
    directory_id: str
    chance: int


@attrs.frozen
class StopRequested:
    """Somebody asked for an orderly stop: refuse new work, make all durable, then emit Stopped."""


@attrs.frozen
class Woken:
    """The alarm asked for by the last WakeAt has rung."""


@attrs.frozen
class Continue:
    """The machine asked itself, by ContinueLater, to go on with *token* after other events."""

    token: int


@attrs.frozen
class WakeAt:
    """Send Woken at *at_ms* or soon after; replaces any earlier alarm."""

    at_ms: int


@attrs.frozen
class ContinueLater:
    """Post Continue *token* once others had their turn: what waits, and what peers sent meanwhile."""

    token: int


@attrs.frozen
class Announce:
    """Tell whoever runs the process: *what* is one of the machine's published states, e.g. ready.

    *facts* are the numbers and names of the matter by their names, for those who search logs.
    """

    what: str
    text: str = ""
    facts: tuple[tuple[str, int | str], ...] = ()


@attrs.frozen
class Stopped:
    """The orderly stop is complete; nothing follows."""


@attrs.frozen
class Fatal:
    """The node cannot go on (its registry log is corrupt, say); the process ends with *text*."""

    text: str
