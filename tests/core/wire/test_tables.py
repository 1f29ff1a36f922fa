"""The generated tables, error codes and message classes are those of messages.json."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError, EncodeError

from flussd.core.wire import apis, messages
from flussd.core.wire.errors import ErrorCode

ROOT = Path(__file__).resolve().parents[3]
FACTS = json.loads((ROOT / "tests/data/messages.json").read_text())


def _maker():
    spec = importlib.util.spec_from_file_location(
        "make_wire_tables", ROOT / "tests/data/make_wire_tables.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_generated_files_are_current():
    """Nobody edited them by hand, and nobody forgot to run the maker."""
    maker = _maker()

    assert maker.table() == (ROOT / "core/wire/table.py").read_text()
    assert maker.messages_stub() == (ROOT / "core/wire/messages.pyi").read_text()
    assert maker.private_stub() == (ROOT / "core/wire/private.pyi").read_text()


def test_error_codes_are_all_there():
    """Numbers and names."""
    assert {int(code): name for code, name in FACTS["errors"].items()} == {
        int(code): code.name for code in ErrorCode
    }


def test_every_api_has_its_classes():
    """All 65, with their request and response."""
    assert len(apis.APIS) == 65
    for fact in FACTS["apis"]:
        api = apis.APIS[fact["key"]]
        assert apis.ApiKey(api.key).name == fact["name"] == api.name
        assert (fact["min"], fact["max"]) == (api.min_version, api.max_version)
        assert fact["private"] == api.private
        assert messages.request_class(api.key).DESCRIPTOR.name == fact["request"]
        assert messages.response_class(api.key).DESCRIPTOR.name == fact["response"]


def test_fields_are_as_the_facts_say():
    """Number, name, label, type and packing of every field of every message."""
    kinds = {1: "double", 2: "float", 3: "int64", 5: "int32", 8: "bool", 9: "string", 12: "bytes"}
    for name, fact in FACTS["messages"].items():
        fields = []
        for field in getattr(messages, name).DESCRIPTOR.fields:
            label = "rep" if field.is_repeated else "req" if field.is_required else "opt"
            kind = kinds.get(field.type) or field.message_type.name
            fields.append((field.number, field.name, label, kind, field.is_packed))

        expected = [(*row[:4], bool(row[4:] and row[4].get("packed"))) for row in fact["fields"]]
        assert expected == fields, name


def _proto2_classes():
    """The same messages, declared as upstream declares them."""
    file = descriptor_pb2.FileDescriptorProto(name="two.proto", package="two", syntax="proto2")
    labels = {"opt": 1, "req": 2, "rep": 3}
    for name, fact in FACTS["messages"].items():
        message = file.message_type.add(name=name)
        for number, field_name, label, kind, *more in fact["fields"]:
            field = message.field.add(name=field_name, number=number, label=labels[label])
            if kind in messages._TYPES:
                field.type = messages._TYPES[kind]
            else:
                field.type, field.type_name = 11, f".two.{kind}"
            if more and more[0].get("packed"):
                field.options.packed = True
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        n: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"two.{n}"))
        for n in FACTS["messages"]
    }


def _fill(message, depth):
    """Set every field of *message*, the repeated ones twice, *depth* levels of messages deep."""
    by_type = {1: -0.5, 2: 1.5, 3: -(2**40), 5: -7, 8: True, 9: "\u00fc\U0001f600", 12: b"\xff\x00"}
    for field in message.DESCRIPTOR.fields:
        if field.message_type is not None:
            repeated = getattr(message, field.name)
            for inner in (repeated.add(), repeated.add()) if field.is_repeated else (repeated,):
                inner.SetInParent()
                if depth:
                    _fill(inner, depth - 1)
        elif field.is_repeated:
            getattr(message, field.name).extend([by_type[field.type]] * 2)
        else:
            setattr(message, field.name, by_type[field.type])


def test_the_bytes_are_those_of_proto2():
    """Every message with every field set: the same bytes as from classes declared in proto2, and back."""
    two = _proto2_classes()
    assert len(two) == 214
    for name, theirs in two.items():
        ours, expected = getattr(messages, name)(), theirs()
        _fill(ours, 2)
        _fill(expected, 2)

        data = expected.SerializePartialToString(deterministic=True)
        assert data == ours.SerializePartialToString(deterministic=True), name
        assert ours == getattr(messages, name).FromString(data) if ours.IsInitialized() else True


def test_text_that_is_not_utf_8_is_refused():
    """As proto2 it would be bytes in a field that all code takes for str."""
    with pytest.raises(DecodeError):
        messages.DatabaseExistsRequest().ParseFromString(b"\x0a\x02\xff\xfe")


def test_required_fields_are_known():
    """Absence is found, at the top and below."""
    with pytest.raises(EncodeError):
        messages.DatabaseExistsRequest().SerializeToString()
    request = messages.ProduceLogRequest(acks=1, table_id=1, timeout_ms=1)
    request.buckets_req.add(bucket_id=1)

    assert not request.IsInitialized()


@pytest.mark.parametrize("key", [-1, 0, 999, 1065, 30001])
def test_unknown_keys_have_no_classes(key):
    """KeyError, for the edge to answer."""
    with pytest.raises(KeyError):
        messages.request_class(key)
    with pytest.raises(KeyError):
        messages.response_class(key)
