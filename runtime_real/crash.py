"""What is kept when the process ends by our own bug: the traceback and the last events.

It must never fail itself, and never hide the exception that it reports.
"""

from __future__ import annotations

import contextlib
import time
import traceback
from collections.abc import Iterable
from pathlib import Path

from flussd.core.driver import Driver


def report(error: BaseException, drivers: Iterable[tuple[str, Driver]], folder: Path) -> str:
    """Return the report on *error*, also written to a file in *folder*."""
    guilty = _failing_driver(error)
    lines = ["flussd ends because of an error of its own. Please report it with this text.", ""]
    lines += "".join(traceback.format_exception(error)).splitlines()
    for name, driver in drivers:
        if guilty is None or driver is guilty:
            lines += ["", f"last events of {name}, oldest first (ms, event):", *driver.ring.lines()]
    text = "\n".join(lines) + "\n"
    path = folder / time.strftime("crash-%Y%m%d-%H%M%S.txt", time.gmtime())
    with contextlib.suppress(OSError):
        path.write_text(text)
        text += f"flussd: this report is in {path}\n"
    return text


def _failing_driver(error: BaseException) -> Driver | None:
    """Return the driver whose step raised *error*; None when it came from elsewhere."""
    found = None
    trace = error.__traceback__
    while trace is not None:
        owner = trace.tb_frame.f_locals.get("self")
        if isinstance(owner, Driver):
            found = owner
        trace = trace.tb_next
    return found
