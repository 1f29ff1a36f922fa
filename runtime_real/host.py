"""Runs the hub's loop on the calling thread, with trio as a guest beside it.

The hub sleeps in its own epoll set, so that a request reaches it without a turn of trio's loop: with a
reader that waits, an append is delivered some 0.2 ms earlier than from a trio task. What trio does is
rare (signals, metrics, the start and the end); while it waits, a thread of trio's waits for it. The
caller owes it a thread on which nothing else runs.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from queue import SimpleQueue
from typing import Any

import attrs
import trio
from outcome import Outcome

from flussd.runtime_real.hub import Hub


@attrs.define(eq=False)
class Host:
    """Turns *hub* while `Hub.run` is awaited, and gives trio its turns."""

    hub: Hub
    _turns: SimpleQueue[Callable[[], object]] = attrs.Factory(SimpleQueue)  # of trio
    _outcome: Outcome[Any] | None = None

    def run(self, main: Callable[..., Awaitable[Any]], *arguments: Any) -> Any:
        """Run *main* under trio until it ends; return what it returns, raise what it raises."""
        self.hub.hosted = True
        trio.lowlevel.start_guest_run(
            main, *arguments, run_sync_soon_threadsafe=self._turn_soon, done_callback=self._done
        )
        while self._outcome is None:
            if self.hub.serving:
                self.hub.turn()
                self._take_turns()
            else:
                self._turns.get()()
        return self._outcome.unwrap()

    def _turn_soon(self, turn: Callable[[], object]) -> None:
        """Trio wants its turn; called from any thread."""
        self._turns.put(turn)
        if self.hub.serving:
            self.hub.wake()

    def _take_turns(self) -> None:
        for _ in range(self._turns.qsize()):
            self._turns.get()()

    def _done(self, outcome: Outcome[Any]) -> None:
        self._outcome = outcome
