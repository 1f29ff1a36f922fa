"""Invariant tested: whatever bytes the registry's files hold, it serves, or says one line and ends.

    python fuzz/registry_log.py [--seed S] [--inputs N] [FILE ...]
    python fuzz/registry_log.py canary        (must fail: it trusts every change on purpose)

Files of a real history are damaged: bits, pieces, ends, order; or groups of nonsense are sealed with right
checksums. A registry that serves must pass all its checks, take a write, and find the same tree again.
"""

from __future__ import annotations

import random
from typing import Any

from packed import Files, pack, unpack
from trials import Target, run_target

from flussd.core import files as f
from flussd.core.machine import Fatal, Started
from flussd.core.registry import messages as m
from flussd.core.registry.changes import Corrupt
from flussd.core.registry.log import HEAD_BYTES, encode_group, read_log
from flussd.core.registry.registry import Phase, RegistryMachine
from flussd.core.registry.tree import Tree

Said = list[Any]


def run(machine: RegistryMachine, event: Any, files: Files) -> Said:
    """Step *machine* with *event*, do all that it wants of *files*; return what else it emitted."""
    said: Said = []
    events = [event]
    while events:
        for effect in machine.step(events.pop(0), 0):
            match effect:
                case f.ListFolder(token):
                    events.append(
                        f.FolderListed(token, tuple((n, len(d)) for n, d in sorted(files.items())))
                    )
                case f.ReadFile(token, file):
                    events.append(f.FileRead(token, files[file]))
                case f.ReplaceFile(token, file, data):
                    files[file] = data
                    events.append(f.FileReplaced(token))
                case f.WriteFile(token, file, position, views):
                    files[file] = files[file][:position] + b"".join(views)
                    events.append(f.FileWritten(token))
                case f.SyncFile(token):
                    events.append(f.FileSynced(token))
                case f.RemoveFile(token, file):
                    files.pop(file, None)
                    events.append(f.FileRemoved(token))
                case _:
                    said.append(effect)
    return said


def history(draw: random.Random) -> Files:
    """Return the files that some work leaves behind."""
    files: Files = {}
    for _ in range(draw.randint(1, 3)):
        machine = RegistryMachine(log_bytes_max=draw.choice((400, 2000, 100_000)))
        run(machine, Started(0, "", "", draw.getrandbits(64)), files)
        run(machine, m.SessionRequested(1, 0, 1000), files)
        for _ in range(draw.randrange(12)):
            path = draw.choice(("/a", "/b", "/a/c"))
            data = draw.randbytes(draw.randrange(60))
            writes = (m.Create(path, data, draw.random() < 0.3), m.SetData(path, data), m.Delete(path))
            run(machine, m.OperationReceived(1, 0, m.Multi((draw.choice(writes),))), files)
    return files


def damage(files: Files, draw: random.Random) -> None:
    """Change one file in one way."""
    name = draw.choice(sorted(files))
    data = bytearray(files[name])
    at = draw.randrange(len(data) + 1)
    match draw.randrange(8):
        case 0:
            data[at:] = b""
        case 1:
            data[at : at + draw.randrange(600)] = draw.randbytes(draw.randrange(600))
        case 2:
            data[at : at + 512] = bytes(len(data[at : at + 512]))
        case 3 if at < len(data):
            data[at] ^= 1 << draw.randrange(8)
        case 4:
            data += draw.randbytes(draw.randrange(100))
        case 5:
            data += data[at : at + draw.randrange(300)]
        case 6:
            del files[name]
            name = draw.choice(("log-", "snapshot-", "junk-")) + f"{draw.randrange(30):020d}"
        case _ if name.startswith("log-"):
            data = sealed(name, bytes(data), draw)
    files[name] = bytes(data)


def sealed(name: str, data: bytes, draw: random.Random) -> bytearray:
    """Change the inside of one group, and give it a right checksum."""
    try:
        log = read_log(name, data, int(name[4:]))
    except Corrupt:
        return bytearray(data)  # damaged before
    result = bytearray(data[:HEAD_BYTES])
    for group in log.groups:
        body = bytearray(group.body)
        if draw.random() < 0.4:
            body[draw.randrange(len(body))] = draw.randrange(256)
        count = len(group.transactions) + draw.choice((0, 0, 0, 1, -1))
        zxid = group.first_zxid + draw.choice((0, 0, 0, 0, 1))
        result += encode_group(log.salt, len(result), zxid, max(0, count), bytes(body))
    return result


def make(draw: random.Random) -> bytes:
    """Return the files of a history, damaged or not."""
    files = history(draw)
    for _ in range(draw.choice((0, 1, 1, 2, 3))):
        damage(files, draw)
    return pack(files)


def check(packed: bytes) -> str:
    """Start on the files; return how that ended."""
    files = unpack(packed)
    machine = RegistryMachine()
    said = run(machine, Started(0, "", "", 1), files)
    fatal = [effect for effect in said if isinstance(effect, Fatal)]
    if fatal:
        assert machine.phase is Phase.OVER
        assert fatal[0].text.startswith("registry: "), fatal
        assert "\n" not in fatal[0].text, fatal
        return "refused"
    assert machine.phase is Phase.SERVING, machine.phase
    machine.check_all()
    run(machine, m.SessionRequested(1, 0, 1000), files)
    (answer,) = run(machine, m.OperationReceived(1, 0, m.Multi((m.Create("/fresh"),))), files)
    assert answer.answer.outcome is m.Outcome.OK
    again = RegistryMachine()
    run(again, Started(0, "", "", 2), files)
    assert again.phase is Phase.SERVING
    assert machine.tree.digest() == again.tree.digest()
    return "served"


def break_it() -> None:
    """Break the code under test, as the canary says."""
    Tree.fits = lambda _self, _change: True  # type: ignore[method-assign]


TARGET = Target("registry_log", make, check, break_it, 9_000)

if __name__ == "__main__":
    run_target(TARGET)
