"""The recorded wire cases that need only a coordinator, played through the machine.

Cases come from the Java server. Here only what they say of catalog requests is played, to whomever they
address it: a tablet server answers from the same code. The rest of a case ends its play.
"""

import json
import re
from pathlib import Path

import pytest

from flussd.core.wire import messages
from flussd.core.wire.apis import ApiKey
from flussd.core.wire.served import READ_ONLY, SERVED_BY_COORDINATOR

DATA = json.loads((Path(__file__).resolve().parents[2] / "data" / "wire-cases.json").read_text())
PLAYED = SERVED_BY_COORDINATOR - {ApiKey.API_VERSIONS, ApiKey.AUTHENTICATE}


def is_played(step):
    if "api" not in step:
        return step.keys() <= {"table", "json", "database"}
    key = ApiKey.__members__.get(step["api"])
    return key in PLAYED and (step.get("to") != "tablet" or key in READ_ONLY)


CASES = [
    case
    for case in DATA["cases"]
    if all(map(is_played, case["steps"])) and any("api" in step for step in case["steps"])
]


class Scope(dict):
    """Names bound by earlier steps."""

    def text(self, text):
        if text.startswith("$bind:"):
            return text
        if text.startswith("$") and text[1:] in self:
            return self[text[1:]]
        return re.sub(r"\$\{(\w+)\}", lambda found: str(self[found[1]]), text)

    def fill(self, value):
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, list):
            return [self.fill(one) for one in value]
        if isinstance(value, dict):
            return {key: self.fill(one) for key, one in value.items()}
        return value


def build(message_class, value):
    """A message from the plain value of a case."""
    message = message_class()
    for field in message_class.DESCRIPTOR.fields:
        if field.name not in value:
            continue
        given = value[field.name]
        repeated = isinstance(given, list)
        for one in given if repeated else [given]:
            if field.message_type is not None:
                made = build(getattr(messages, field.message_type.name), one)
                at = getattr(message, field.name)
                at.append(made) if repeated else at.CopyFrom(made)
            elif repeated:
                getattr(message, field.name).append(one)
            else:
                setattr(message, field.name, payload(one) if field.type == field.TYPE_BYTES else one)
    return message


def payload(given):
    """Bytes, as a case writes them."""
    if isinstance(given, dict):
        return json.dumps(given["$json"]).encode() if "$json" in given else given["$text"].encode()
    return bytes.fromhex(given)


def plain(message):
    """A message as a value: present fields by name."""
    found = {}
    for field, value in message.ListFields():
        if field.message_type is None:
            repeated = not isinstance(value, str | bytes | bool | int | float)
            found[field.name] = list(value) if repeated else value
        elif isinstance(value, type(message)) or hasattr(value, "ListFields"):
            found[field.name] = plain(value)
        else:
            found[field.name] = [plain(one) for one in value]
    return found


def matches(pattern, value, scope):
    """Whether *value* fits the pattern of a case; see section 9 of the wire protocol."""
    pattern = scope.text(pattern) if isinstance(pattern, str) else pattern
    if pattern == "*":
        return True
    if isinstance(pattern, str) and pattern.startswith("$bind:"):
        scope[pattern[6:]] = value
        return True
    if isinstance(pattern, dict):
        for word, meant in SPECIAL.items():
            if word in pattern:
                return meant(pattern[word], value, scope)
        optional = {k for k, one in pattern.items() if isinstance(one, dict) and "$maybe" in one}
        named = pattern.keys() - optional <= value.keys() <= pattern.keys()
        return named and all(matches(pattern[key], value[key], scope) for key in value)
    if isinstance(pattern, list):
        pairs = zip(pattern, value, strict=False)
        return len(pattern) == len(value) and all(matches(one, got, scope) for one, got in pairs)
    return pattern == value


def _contains(wanted, value, scope):
    return all(any(matches(one, got, scope) for got in value) for one in wanted)


SPECIAL = {
    "$any": lambda *_: True,
    "$time": lambda *_: True,
    "$maybe": matches,
    "$contains": _contains,
    "$without": lambda unwanted, value, scope: (
        not any(matches(one, got, scope) for one in unwanted for got in value)
    ),
    "$range": lambda limits, value, _: limits[0] <= value <= limits[1],
    "$unordered": lambda wanted, value, scope: (
        len(wanted) == len(value) and _contains(wanted, value, scope)
    ),
    "$json": lambda wanted, value, scope: matches(wanted, json.loads(value), scope),
}


def create(world, scope, step):
    """A step that makes what a case needs, under a fresh name."""
    if "database" in step:
        scope[step["database"]] = name = f"made_{step['database']}"
        world.create_database(name)
        return
    if "db" not in world.machine.state.catalog.databases:
        world.create_database("db")
    name = scope[step["table"]] = f"made_{step['table']}"
    scope[f"{step['table']}_id"] = world.machine.state.next_table_id
    described = step["json"] if isinstance(step["json"], dict) else DATA["tables"][step["json"]]
    message = messages.CreateTableRequest(
        table_path=messages.PbTablePath(database_name=scope["db"], table_name=name),
        table_json=json.dumps(described).encode(),
        ignore_if_exists=False,
    )
    answer = world.answer(world.send(ApiKey.CREATE_TABLE, message))
    assert not isinstance(answer, int), f"{name}: {answer}"


def test_there_are_many():
    """The filter lets the bulk of the catalog cases through."""
    assert len(CASES) >= 90


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_case(world, case):
    """Each step gets the code or the answer that the case expects."""
    scope = Scope(db="db", x="x1", tablet=0, year="2023", next_year="2024")  # as the clock says
    for number, step in enumerate(case["steps"]):
        if "api" not in step:
            create(world, scope, step)
            continue
        key = ApiKey[step["api"]]
        request = build(messages.request_class(key), scope.fill(step["request"]))
        answer = world.answer(world.send(key, request))
        where = f"step {number} {step['api']}: {answer}"
        if "error" in step:
            codes = step["error"] if isinstance(step["error"], list) else [step["error"]]
            assert answer in codes, where
        else:
            assert not isinstance(answer, int), where
            assert matches(step["expect"], plain(answer), scope), where


def test_a_restart_keeps_every_kind_of_table(world):
    """1. A table of each kind that the cases use is made. 2. A new process knows each to the last byte."""
    scope = Scope(db="db")
    for name, described in DATA["tables"].items():
        create(world, scope, {"table": name, "json": described | {"comment": f"ü {name}"}})
    before = world.machine.state
    world.crash()
    world.start()
    world.run(500)

    assert len(DATA["tables"]) == len(before.catalog.tables)
    assert before.catalog.tables == world.machine.state.catalog.tables
    assert before.catalog.digest() == world.machine.state.catalog.digest()
    world.settled()
