"""The message classes of the protocol, built from table.py at import (about 5 ms, protobuf's upb).

Each class is an attribute of this module by its name: `messages.CreateTableRequest`. Types are in
messages.pyi. Messages that come from outside are parsed at the edge; the core treats them as read-only.

On the wire this is proto2. The classes are declared in edition 2023, which writes the same bytes, because
proto2 lets text through that is not UTF-8: its field would be `bytes` where all code expects `str`, and
what a client sends could raise inside a machine. Parsing such text is a DecodeError now.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import Message

from flussd.core.wire.table import APIS, MESSAGES

_LABELS: Final = {"opt": 1, "req": 1, "rep": 3}
_TYPES: Final = {"double": 1, "float": 2, "int64": 3, "int32": 5, "bool": 8, "string": 9, "bytes": 12}
_MESSAGE: Final = 11
_EDITION: Final = descriptor_pb2.EDITION_2023
_FEATURES: Final = descriptor_pb2.FeatureSet

Table = Mapping[str, Sequence[tuple[int, str, str, str, bool]]]


def build(package: str, table: Table) -> dict[str, type[Message]]:
    """Return the classes of *table*'s messages, by name, in a protobuf pool of their own."""
    file = descriptor_pb2.FileDescriptorProto(name=f"{package}.proto", package=package)
    file.syntax, file.edition = "editions", _EDITION
    file.options.features.repeated_field_encoding = _FEATURES.EXPANDED
    for name, fields in table.items():
        message_type = file.message_type.add(name=name)
        for number, field_name, label, kind, packed in fields:
            field = message_type.field.add(name=field_name, number=number, label=_LABELS[label])
            if kind in _TYPES:
                field.type = _TYPES[kind]
            else:
                field.type, field.type_name = _MESSAGE, f".{package}.{kind}"
            if label == "req":
                field.options.features.field_presence = _FEATURES.LEGACY_REQUIRED
            if packed:
                field.options.features.repeated_field_encoding = _FEATURES.PACKED
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.{name}"))
        for name in table
    }


_CLASSES: Final = build("fluss", MESSAGES)
_REQUESTS: Final = {key: _CLASSES[request] for key, _, _, _, request, _, _ in APIS}
_RESPONSES: Final = {key: _CLASSES[response] for key, _, _, _, _, response, _ in APIS}


globals().update(_CLASSES)  # so that access costs what a plain name costs


def request_class(api_key: int) -> type[Message]:
    """Return the request class of a public or known API; KeyError for an unknown key."""
    return _REQUESTS[api_key]


def response_class(api_key: int) -> type[Message]:
    """Return the response class of an API; KeyError for an unknown key."""
    return _RESPONSES[api_key]
