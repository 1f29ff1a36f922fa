"""Write core/wire/table.py and core/wire/messages.pyi from messages.json.

    python tests/data/make_wire_tables.py

A test checks that both are what this writes. The table is Python and not JSON, so that the core reads
no file.
"""

from __future__ import annotations

import json
import keyword
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
TYPES = {
    "double": "float",
    "float": "float",
    "int64": "int",
    "int32": "int",
    "bool": "bool",
    "string": "str",
    "bytes": "bytes",
}


def table() -> str:
    """Return the source of core/wire/table.py."""
    facts = json.loads((HERE / "messages.json").read_text())
    lines = [
        '"""The messages and APIs of the protocol; written by tests/data/make_wire_tables.py, not by hand."""',
        "",
    ]
    lines += ["from __future__ import annotations", "", "from typing import Final", ""]
    lines += ["# fmt: off", "MESSAGES: Final[dict[str, tuple[tuple[int, str, str, str, bool], ...]]] = {"]
    for name, message in facts["messages"].items():
        fields = "".join(_field(*field) for field in message["fields"])
        lines.append(f'    "{name}": ({fields}),')
    lines += ["}", '"""By message name: (number, name, label, type, packed) of each field."""', ""]
    lines += ["APIS: Final[tuple[tuple[int, str, int, int, str, str, bool], ...]] = ("]
    for api in facts["apis"]:
        names = f'"{api["request"]}", "{api["response"]}"'
        lines.append(
            f'    ({api["key"]}, "{api["name"]}", {api["min"]}, {api["max"]}, {names}, {api["private"]}),'
        )
    lines += [
        ")",
        '"""(key, name, lowest and highest version, request, response, between servers only)."""',
        "# fmt: on",
        "",
    ]
    return "\n".join(lines)


def _field(number: int, name: str, label: str, kind: str, more: dict[str, object] | None = None) -> str:
    packed = bool((more or {}).get("packed"))
    return f'({number}, "{name}", "{label}", "{kind}", {packed}), '


def stub(messages: dict[str, list[list[object]]], head: str) -> str:
    """Return the source of a .pyi for *messages*."""
    lines = [head, "from collections.abc import Iterable, Mapping, Sequence"]
    lines += [
        "from typing import Any",
        "",
        "from google.protobuf.internal.containers import RepeatedCompositeFieldContainer, RepeatedScalarFieldContainer",
    ]
    lines += ["from google.protobuf.message import Message", ""]
    lines += [
        "def build(package: str, table: Mapping[str, Sequence[tuple[int, str, str, str, bool]]]) -> dict[str, type[Message]]: ..."
    ]
    lines += [
        "def request_class(api_key: int) -> type[Message]: ...",
        "def response_class(api_key: int) -> type[Message]: ...",
        "",
    ]
    for name, fields in messages.items():
        lines.append(f"class {name}(Message):")
        arguments = []
        for _, field_name, label, kind, *_ in fields:
            scalar = TYPES.get(str(kind))
            one = scalar or str(kind)
            if label != "rep":
                lines.append(
                    f"    {field_name}: {one}"
                    if scalar
                    else f"    @property\n    def {field_name}(self) -> {one}: ..."
                )
                argument = one
            else:
                container = "RepeatedScalarFieldContainer" if scalar else "RepeatedCompositeFieldContainer"
                lines.append(f"    @property\n    def {field_name}(self) -> {container}[{one}]: ...")
                argument = f"Iterable[{one}]"
            assert not keyword.iskeyword(str(field_name))
            arguments.append(f"{field_name}: {argument} | None = ...")
        star = "*, " if arguments else ""
        lines.append(f"    def __init__(self, {star}{', '.join(arguments)}) -> None: ...")
        lines.append("")
    return "\n".join(lines)


def messages_stub() -> str:
    """Return the source of core/wire/messages.pyi."""
    facts = json.loads((HERE / "messages.json").read_text())
    head = "# Written by tests/data/make_wire_tables.py, not by hand."
    return stub({name: message["fields"] for name, message in facts["messages"].items()}, head)


PRIVATE_HEAD = """# Written by tests/data/make_wire_tables.py from private.py, not by hand.
from typing import Final

UPDATE_CATALOG: Final = 30001
AWAIT_REPORTS: Final = 30002
LEADING: Final = 1
DELETED: Final = 2
FAILED: Final = 3
"""


def private_stub() -> str:
    """Return the source of core/wire/private.pyi."""
    from flussd.core.wire.private_table import MESSAGES

    source = stub({name: list(fields) for name, fields in MESSAGES.items()}, PRIVATE_HEAD)
    return "\n".join(line for line in source.splitlines() if not line.startswith("def build")) + "\n"


if __name__ == "__main__":
    (ROOT / "core/wire/table.py").write_text(table())
    (ROOT / "core/wire/messages.pyi").write_text(messages_stub())
    (ROOT / "core/wire/private.pyi").write_text(private_stub())
