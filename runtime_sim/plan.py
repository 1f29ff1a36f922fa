"""The faults of one run, as data: drawn from the seed, written to a file, edited, and read back.

Each fault is drawn from a stream of its own, so that one can be taken out, moved or added without changing
any other. A plan says what is tried; what took effect is counted by faults.py.
"""

from __future__ import annotations

import enum
import tomllib
from collections.abc import Callable, Sequence
from typing import Any, Final

import attrs

from flussd.runtime_sim.draws import Stream

SLOTS: Final = 14
"""Faults tried at most; each slot is used in three of four runs."""

CHAOS_MS: Final = (1_000, 16_000)
"""When faults begin, counted from the moment at which the cluster is ready."""

SPARED_PPM: Final = 300_000
"""How many seeds do without a kind of fault: rare kinds alone find what they hide together."""


AFTER: Final = "after"
"""How a power loss with a *count* may come: soon after that effect, and not right before it."""


class FaultKind(enum.Enum):
    """What can go wrong."""

    CRASH = "crash"
    POWER = "power"
    STOP = "stop"
    PAUSE = "pause"
    PARTITION = "partition"
    RESET = "reset"
    IO_ERROR = "io_error"
    DISK_FULL = "disk_full"
    READ_ONLY = "read_only"
    SLOW_DISK = "slow_disk"
    CLOCK_JUMP = "clock_jump"


class PlanError(Exception):
    """A plan's file says something that no plan can say; the text is for its author."""


@attrs.frozen
class Fault:
    """One fault: at *at_ms* on *nodes*; what the other fields mean depends on the kind.

    *for_ms* is how long it lasts, or how long a node stays down; *count*: effects until a death,
    operations that fail, times slower, or milliseconds of a jump; *how*: a kind of operation, cut or reset,
    "all" for a full disk that refuses to overwrite, too, AFTER for a power loss soon after its effect.
    """

    at_ms: int
    kind: FaultKind
    nodes: tuple[str, ...]
    for_ms: int = 0
    count: int = 0
    how: str = ""


def draw_plan(seed: int, servers: Sequence[str], clients: Sequence[str]) -> tuple[Fault, ...]:
    """Draw the plan of *seed* for a cluster of these nodes."""
    swarm = Stream.of(seed, "swarm")
    kinds = [kind for kind, weight in WEIGHTS for _ in range(0 if swarm.chance(SPARED_PPM) else weight)]
    faults = []
    for slot in range(SLOTS):
        draws = Stream.of(seed, "fault", slot)
        if not kinds or draws.chance(250_000):
            continue
        at_ms, kind = draws.between(*CHAOS_MS), draws.choice(kinds)
        faults.append(DRAW[kind](at_ms, draws, servers, clients))
    return tuple(sorted(faults, key=lambda fault: fault.at_ms))


KEYED_SLOTS: Final = 3
"""Faults more for a run with primary-key tables, behind those that it would have without."""

REGISTRY_PPM: Final = 300_000
REGISTRY_EFFECTS: Final = 40

AGAIN_MS: Final = 30
AGAIN_EFFECTS: Final = 400
"""Within so many effects a server that is back has heard of its buckets, and restored most of the rows."""


def draw_keyed_plan(
    seed: int, servers: Sequence[str], tablets: Sequence[str], clients: Sequence[str]
) -> tuple[Fault, ...]:
    """Draw what else goes wrong where there are rows to restore, and *clients* that look for them.

    A tablet server dies, and dies again, or cannot read its files, while it restores.
    """
    faults: list[Fault] = []
    for slot in range(KEYED_SLOTS):
        draws = Stream.of(seed, "keyed fault", slot)
        at_ms = draws.between(*CHAOS_MS)
        if draws.chance(500_000):
            kind = draws.choice((FaultKind.PARTITION, FaultKind.RESET))
            faults.append(DRAW[kind](at_ms, draws, servers, clients))
            continue
        nodes = (draws.choice(tablets),)
        kind = draws.choice((FaultKind.CRASH, FaultKind.CRASH, FaultKind.POWER))
        down_ms = draws.long_tail(20, 1_000)
        faults.append(Fault(at_ms, kind, nodes, down_ms))
        for _ in range(draws.between(1, 3)):
            at_ms += down_ms + draws.between(1, AGAIN_MS)
            if draws.chance(300_000):
                at_ms, down_ms = at_ms + draws.long_tail(0, 2_000), 0
                faults.append(Fault(at_ms, FaultKind.IO_ERROR, nodes, 1_000, draws.between(1, 3), "read"))
            else:
                down_ms = draws.long_tail(20, 500)
                faults.append(Fault(at_ms, kind, nodes, down_ms, draws.between(0, AGAIN_EFFECTS)))
    return tuple([fault for fault in faults if fault.at_ms < CHAOS_MS[1]])


def draw_registry_plan(seed: int, registry: str) -> tuple[Fault, ...]:
    """Draw power losses of the registry right behind some effect of it, in three of ten runs.

    It confirms for all; what it told before it was durable is seen only within the milliseconds of a sync.
    """
    draws = Stream.of(seed, "registry faults")
    if not draws.chance(REGISTRY_PPM):
        return ()
    return tuple(
        [
            Fault(
                draws.between(*CHAOS_MS),
                FaultKind.POWER,
                (registry,),
                draws.long_tail(20, 1_000),
                draws.between(1, REGISTRY_EFFECTS),
                AFTER,
            )
            for _ in range(draws.between(2, 5))
        ]
    )


def _death(kind: FaultKind) -> Callable[..., Fault]:
    def draw(at_ms: int, draws: Stream, servers: Sequence[str], _: Sequence[str]) -> Fault:
        # The registry, which comes first, confirms for all: a power loss hits it twice as often.
        hit = [servers[0], *servers] if kind is FaultKind.POWER else servers
        nodes: tuple[str, ...] = (draws.choice(hit),)
        if kind is FaultKind.POWER and draws.chance(200_000):
            nodes = tuple(servers)
        down_ms = draws.long_tail(20, 4_000)
        count = draws.long_tail(0, 60)
        how = draws.choice(("", AFTER)) if kind is FaultKind.POWER and count else ""
        return Fault(at_ms, kind, nodes, down_ms, count, how)

    return draw


def _pause(at_ms: int, draws: Stream, servers: Sequence[str], _: Sequence[str]) -> Fault:
    return Fault(at_ms, FaultKind.PAUSE, (draws.choice(servers),), draws.long_tail(50, 6_000))


def _partition(at_ms: int, draws: Stream, servers: Sequence[str], clients: Sequence[str]) -> Fault:
    everybody = [*servers, *clients]
    if draws.chance(500_000):
        side: tuple[str, ...] = (draws.choice(everybody),)
    else:
        side = tuple(name for name in everybody if draws.chance(400_000)) or (servers[0],)
    how = draws.choice(("drop", "hold"))
    return Fault(at_ms, FaultKind.PARTITION, side, draws.long_tail(200, 8_000), 0, how)


def _reset(at_ms: int, draws: Stream, servers: Sequence[str], clients: Sequence[str]) -> Fault:
    how = draws.choice(("both", "half"))
    return Fault(at_ms, FaultKind.RESET, (draws.choice([*servers, *clients]),), 0, 0, how)


def _io_error(at_ms: int, draws: Stream, servers: Sequence[str], _: Sequence[str]) -> Fault:
    how = draws.choice(
        ("write", "write", "sync", "sync", "read", "rename", "truncate", "sync_folder", "list")
    )
    count = draws.long_tail(1, 8)
    return Fault(
        at_ms, FaultKind.IO_ERROR, (draws.choice(servers),), draws.long_tail(200, 4_000), count, how
    )


def _disk_full(at_ms: int, draws: Stream, servers: Sequence[str], _: Sequence[str]) -> Fault:
    nodes = (draws.choice(servers),)
    how = "all" if draws.chance(300_000) else ""
    return Fault(at_ms, FaultKind.DISK_FULL, nodes, draws.long_tail(100, 4_000), 0, how)


def _read_only(at_ms: int, draws: Stream, servers: Sequence[str], _: Sequence[str]) -> Fault:
    return Fault(at_ms, FaultKind.READ_ONLY, (draws.choice(servers),), draws.between(500, 6_000))


def _slow_disk(at_ms: int, draws: Stream, servers: Sequence[str], _: Sequence[str]) -> Fault:
    times = draws.choice((5, 20, 50))
    return Fault(at_ms, FaultKind.SLOW_DISK, (draws.choice(servers),), draws.long_tail(200, 5_000), times)


def _clock_jump(at_ms: int, draws: Stream, servers: Sequence[str], _: Sequence[str]) -> Fault:
    by_ms = draws.between(-600_000, 600_000)
    return Fault(at_ms, FaultKind.CLOCK_JUMP, (draws.choice(servers),), 0, by_ms)


WEIGHTS: Final = (
    (FaultKind.CRASH, 5),
    (FaultKind.POWER, 4),
    (FaultKind.STOP, 2),
    (FaultKind.PAUSE, 2),
    (FaultKind.PARTITION, 4),
    (FaultKind.RESET, 3),
    (FaultKind.IO_ERROR, 3),
    (FaultKind.DISK_FULL, 2),
    (FaultKind.READ_ONLY, 2),
    (FaultKind.SLOW_DISK, 1),
    (FaultKind.CLOCK_JUMP, 1),
)

DRAW: Final[dict[FaultKind, Callable[..., Fault]]] = {
    FaultKind.CRASH: _death(FaultKind.CRASH),
    FaultKind.POWER: _death(FaultKind.POWER),
    FaultKind.STOP: _death(FaultKind.STOP),
    FaultKind.PAUSE: _pause,
    FaultKind.PARTITION: _partition,
    FaultKind.RESET: _reset,
    FaultKind.IO_ERROR: _io_error,
    FaultKind.DISK_FULL: _disk_full,
    FaultKind.READ_ONLY: _read_only,
    FaultKind.SLOW_DISK: _slow_disk,
    FaultKind.CLOCK_JUMP: _clock_jump,
}


# ---- files ---------------------------------------------------------------------------------------


def to_toml(seed: int, plan: Sequence[Fault]) -> str:
    """Return the text of a plan's file."""
    lines = [
        f"# The faults of seed {seed}. Take out, move or change any of them: the others stay as they are."
    ]
    lines.append(f"seed = {seed}")
    for fault in plan:
        nodes = ", ".join(f'"{name}"' for name in fault.nodes)
        lines += [
            "",
            "[[fault]]",
            f"at_ms = {fault.at_ms}",
            f'kind = "{fault.kind.value}"',
            f"nodes = [{nodes}]",
        ]
        lines += [
            f"{name} = {getattr(fault, name)}" for name in ("for_ms", "count") if getattr(fault, name)
        ]
        if fault.how:
            lines.append(f'how = "{fault.how}"')
    return "\n".join(lines) + "\n"


def seed_of(text: str) -> int:
    """Return the seed that a plan's file tells.

    Raises:
        PlanError: it tells none.
    """
    seed = _parsed(text).get("seed")
    if not isinstance(seed, int) or seed < 0:
        raise PlanError(f"expected `seed = NUMBER`, got {seed!r}")
    return seed


def from_toml(text: str, names: Sequence[str]) -> tuple[Fault, ...]:
    """Read the faults of a plan's file.

    Raises:
        PlanError: the text is not a plan for nodes of these *names*.
    """
    told = _parsed(text)
    unknown = sorted(set(told) - {"seed", "fault"})
    entries = told.get("fault", [])
    if unknown or not isinstance(entries, list):
        raise PlanError(f"expected `seed = NUMBER` and [[fault]] tables, got {', '.join(sorted(told))}")
    return tuple(_fault(n, entry, names) for n, entry in enumerate(entries, 1))


def _parsed(text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise PlanError(f"not TOML: {error}") from None


def _fault(n: int, entry: Any, names: Sequence[str]) -> Fault:
    known = {field.name: field for field in attrs.fields(Fault)}
    if not isinstance(entry, dict) or not set(entry) <= set(known) or "at_ms" not in entry:
        raise PlanError(f"fault {n}: expected at_ms, kind, nodes and of {', '.join(known)}; got {entry}")
    for name in ("at_ms", "for_ms", "count"):
        if not isinstance(entry.get(name, 0), int):
            raise PlanError(f"fault {n}: {name}: expected an integer, got {entry[name]!r}")
    kinds = {kind.value: kind for kind in FaultKind}
    if entry.get("kind") not in kinds:
        raise PlanError(f"fault {n}: kind: expected one of {', '.join(kinds)}, got {entry.get('kind')!r}")
    nodes = entry.get("nodes")
    if not isinstance(nodes, list) or not nodes or not set(map(str, nodes)) <= set(names):
        raise PlanError(f"fault {n}: nodes: expected some of {', '.join(names)}, got {nodes!r}")
    return Fault(**{**entry, "kind": kinds[entry["kind"]], "nodes": tuple(nodes)})
