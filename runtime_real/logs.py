"""Logs of a process: one line an event, as text or JSON, written by a thread of their own.

The hub must never wait for whoever reads our standard error: lines go through a bounded queue, and what
does not fit is dropped and counted. `tell` is the only way in for events; it uses the standard logger
`flussd`, so that a program which embeds a cluster sees them as its own logging says.
"""

from __future__ import annotations

import json
import logging
import queue
import threading
import time
from typing import Any, Final, TextIO

import attrs

LEVELS: Final = ("debug", "info", "warning", "error")

LINES_MAX: Final = 10_000
"""Lines that wait for the writer: some 2 MB, and minutes of anything but a flood."""

END_SECONDS_MAX: Final = 2
"""How long the end of the process waits for lines on their way; a reader that hangs loses them."""

LOG: Final = logging.getLogger("flussd")


def tell(level: int, event: str, text: str = "", /, *, node: str = "", **facts: Any) -> None:
    """Log *event*, with a sentence for people and *facts* for machines."""
    if LOG.isEnabledFor(level):
        told = f"{node}: {event}" if node else event
        extra = {"event": event, "node": node, "text": text, "facts": facts}
        # %-signs in the text are the user's own, as in table names.
        LOG.log(level, "%s", " ".join([told, *([text] if text else []), *_pairs(facts)]), extra=extra)


def _pairs(facts: dict[str, Any]) -> list[str]:
    return [f"{name}={_one_word(value)}" for name, value in facts.items()]


def _one_word(value: Any) -> str:
    text = str(value)
    return text if text.isprintable() and text and " " not in text else json.dumps(text)


def _time(record: logging.LogRecord) -> str:
    seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    return f"{seconds}.{int(record.msecs):03d}Z"


class TextFormatter(logging.Formatter):
    """`flussd: TIME level node: event text name=value`; a line break in a text is a blank."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        return " ".join(f"flussd: {_time(record)} {record.levelname.lower()} {record.getMessage()}".split())


class JsonFormatter(logging.Formatter):
    """One object a line: time, level, event, node, text, and the facts by their names."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        fields: dict[str, Any] = {"time": _time(record), "level": record.levelname.lower()}
        event = getattr(record, "event", "")
        if not event:  # of a library, or of an older place of ours
            fields |= {"event": "message", "logger": record.name, "text": record.getMessage()}
        else:
            fields["event"] = event
            told = {"node": getattr(record, "node", ""), "text": getattr(record, "text", "")}
            fields |= {name: value for name, value in told.items() if value}
            fields |= {name: value for name, value in vars(record)["facts"].items() if name not in fields}
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps(fields, default=str)


@attrs.define(eq=False, init=False, slots=False)
class LineWriter(logging.Handler):
    """Hands lines to a thread, which begins with the first one; see the module's text."""

    stream: TextIO
    dropped_count: int

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self.stream = stream
        self.dropped_count = 0
        self._lines: queue.Queue[str | None] = queue.Queue(LINES_MAX)
        self._thread: threading.Thread | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Queue the line, or drop it."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._write, name="flussd-log", daemon=True)
            self._thread.start()
        try:
            self._lines.put_nowait(self.format(record))
        except queue.Full:
            self.dropped_count += 1

    def close(self) -> None:
        """Wait a little for the lines on their way."""
        thread, self._thread = self._thread, None
        if thread is not None:
            try:
                self._lines.put_nowait(None)
            except queue.Full:  # nobody reads; the thread ends with the process
                self.dropped_count += 1
            else:
                thread.join(END_SECONDS_MAX)
        super().close()

    def _write(self) -> None:
        while (line := self._lines.get()) is not None:
            dropped, self.dropped_count = self.dropped_count, 0
            lost = f"flussd: {dropped} log lines were dropped\n" if dropped else ""
            try:
                self.stream.write(f"{lost}{line}\n")
                self.stream.flush()
            except (OSError, ValueError):  # nobody reads it any more: no reason to end
                continue


def set_up(log_format: str, level: str, stream: TextIO) -> None:
    """Send what is logged from *level* on to *stream*; called once, before anything is logged."""
    writer = LineWriter(stream)
    writer.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [writer]
    root.setLevel(logging.WARNING)
    LOG.setLevel(level.upper())
