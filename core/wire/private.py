"""What our servers say to each other, under API keys from 30000 on; never on a client's listener.

UPDATE_CATALOG: the coordinator tells a tablet server the desired state, in sequence, until confirmed.
AWAIT_REPORTS: the coordinator asks what came of it, by a long poll that is its ping too. Types are in
private.pyi. All servers of a cluster are of one version; a change of a message needs a new key.
"""

from __future__ import annotations

from typing import Final

from google.protobuf.message import Message

from flussd.core.wire import messages
from flussd.core.wire.private_table import MESSAGES

UPDATE_CATALOG: Final = 30001
AWAIT_REPORTS: Final = 30002

LEADING: Final = 1
"""Report: the bucket is led in the epoch that is told, its history is durable."""
DELETED: Final = 2
"""Report: the files of a dropped bucket are gone."""
FAILED: Final = 3
"""Report: the bucket is in trouble; the tablet server goes on trying."""

_CLASSES: Final = messages.build("flussd", MESSAGES)
globals().update(_CLASSES)

_REQUESTS: Final = {
    UPDATE_CATALOG: _CLASSES["UpdateCatalogRequest"],
    AWAIT_REPORTS: _CLASSES["AwaitReportsRequest"],
}
_RESPONSES: Final = {
    UPDATE_CATALOG: _CLASSES["UpdateCatalogResponse"],
    AWAIT_REPORTS: _CLASSES["AwaitReportsResponse"],
}


def request_class(api_key: int) -> type[Message]:
    """Return the request class of a key, ours or public; KeyError for an unknown one."""
    return _REQUESTS.get(api_key) or messages.request_class(api_key)


def response_class(api_key: int) -> type[Message]:
    """Return the response class of a key, ours or public; KeyError for an unknown one."""
    return _RESPONSES.get(api_key) or messages.response_class(api_key)
