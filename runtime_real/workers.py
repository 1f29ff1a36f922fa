"""Threads for what blocks without the GIL: fsync, and the removal of large trees.

A job runs in the thread; its result comes back on the hub's own thread. Jobs of one worker run in the
order in which they were submitted. A job must touch nothing that the hub's thread changes, and must
return its failure as a value: an exception out of it is our bug and ends the process.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

import attrs

Job = Callable[[], Any]
Done = Callable[[Any], None]


@attrs.frozen
class _Finished:
    done: Done
    result: Any
    failure: BaseException | None


@attrs.define(eq=False)
class Workers:
    """One thread for each *name* that is used, and the way back to the hub.

    The hub waits on `wake_fd` and calls `ready` when it is readable.
    """

    wake_fd: int = attrs.Factory(lambda: os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC))
    outstanding_count: int = 0
    _queues: dict[str, SimpleQueue[tuple[Job, Done] | None]] = attrs.Factory(dict)
    _threads: list[threading.Thread] = attrs.Factory(list)
    _finished: deque[_Finished] = attrs.Factory(deque)

    def submit(self, name: str, job: Job, done: Done) -> None:
        """Run *job* in the thread *name*; *done* gets its result later, from `ready`."""
        queue = self._queues.get(name)
        if queue is None:
            queue = self._queues[name] = SimpleQueue()
            thread = threading.Thread(target=self._run, args=(queue,), name=f"flussd-{name}", daemon=True)
            self._threads.append(thread)
            thread.start()
        self.outstanding_count += 1
        queue.put((job, done))

    def wake(self) -> None:
        """End the hub's sleep, from any thread."""
        os.eventfd_write(self.wake_fd, 1)

    def ready(self, events: int) -> None:  # noqa: ARG002 - the hub's signature
        """Hand back what has finished; called on the hub's thread when `wake_fd` is readable."""
        os.eventfd_read(self.wake_fd)
        while self._finished:
            finished = self._finished.popleft()
            self.outstanding_count -= 1
            if finished.failure is not None:
                raise finished.failure
            finished.done(finished.result)

    def close(self) -> None:
        """Let all jobs end and join the threads; nothing is delivered any more."""
        for queue in self._queues.values():
            queue.put(None)
        for thread in self._threads:
            thread.join()
        os.close(self.wake_fd)

    def _run(self, queue: SimpleQueue[tuple[Job, Done] | None]) -> None:
        while (item := queue.get()) is not None:
            job, done = item
            try:
                finished = _Finished(done, job(), None)
            except BaseException as failure:  # noqa: BLE001 - raised again on the hub's thread
                finished = _Finished(done, None, failure)
            self._finished.append(finished)
            os.eventfd_write(self.wake_fd, 1)
