"""The generated tables, error codes and message classes are those of messages.json."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

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
        assert messages.request_class(api.key).DESCRIPTOR.name == fact["request"]
        assert messages.response_class(api.key).DESCRIPTOR.name == fact["response"]


def test_fields_are_as_the_facts_say():
    """Numbers and labels of every field of every message."""
    for name, fact in FACTS["messages"].items():
        descriptor = getattr(messages, name).DESCRIPTOR
        assert [field[1] for field in fact["fields"]] == [field.name for field in descriptor.fields]
        assert [field[0] for field in fact["fields"]] == [field.number for field in descriptor.fields]
