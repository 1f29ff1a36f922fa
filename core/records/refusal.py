"""The one exception for what a client asked wrongly: the code and the text of its answer."""

from __future__ import annotations

from flussd.core.wire.errors import ErrorCode


class Refused(Exception):  # noqa: N818 - it says what became of the request
    """A request is refused, with *code* and *text* (what, where, expected, got)."""

    def __init__(self, code: ErrorCode, text: str) -> None:
        super().__init__(f"{code.name}: {text}")
        self.code = code
        self.text = text
