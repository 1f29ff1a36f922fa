"""How every fuzz target runs: inputs drawn from a seed or kept in the corpus, each with a deadline.

No target itself. A target is bytes made from chance, and a check of bytes that returns how that ended, or
raises. What raises is a failure: its input is made smaller, kept in `corpus/`, and the one command that
repeats it is printed. A canary breaks the code under test, which the checks must notice.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import random
import signal
import struct
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import attrs

CORPUS: Final = Path(__file__).parent / "corpus"
"""Inputs that failed once, or are near to it: replayed first in every run, and by tests/fuzz."""

DEADLINE_S: Final = 10.0
"""Processor time of one input, after which it hangs; the longest takes a fiftieth of this."""

CANARY_INPUTS: Final = 3000
_NUMBER: Final = struct.Struct(">q")

Ended = str | Counter[str]


class WrongAnswer(AssertionError):  # noqa: N818 - it names what was found
    """The code under test answered, but with nothing that is documented for this input."""


class Hung(BaseException):
    """An input took longer than its deadline; no `except Exception` on the way may take it."""


@attrs.frozen
class Target:
    """One thing that is fuzzed.

    *check* returns how its input ended: in a word, or as counts where an input is many. *parts* cuts an
    input into what may be left out of it; *share* is how many inputs are made in a run of `make fuzz`.
    *finish* comes behind the last input, and returns what is wrong by then, or nothing.
    """

    name: str
    make: Callable[[random.Random], bytes]
    check: Callable[[bytes], Ended]
    break_it: Callable[[], None]
    share: int = 1000
    parts: Callable[[bytes], list[bytes]] | None = None
    tries_max: int = 200  # how often a failing input is tried without some of its parts
    finish: Callable[[], str] = lambda: ""

    @classmethod
    def of_trial(
        cls, name: str, trial: Callable[[int], str], break_it: Callable[[], None], share: int = 1000
    ) -> Target:
        """Return a target whose input is no more than the number of a trial."""
        return cls(
            name,
            lambda draw: _NUMBER.pack(draw.getrandbits(40)),
            lambda data: trial(_NUMBER.unpack(data)[0]),
            break_it,
            share,
        )

    def input(self, seed: int, n: int) -> bytes:
        """Return the input *n* of *seed*, which depends on no other."""
        return self.make(random.Random(f"{seed} {self.name} {n}"))


@attrs.frozen
class Failure:
    """What one input did; *place* is the line that raised, by which failures are told apart."""

    target: str
    kind: str  # "hang", "wrong answer" or "exception"
    data: bytes
    text: str
    place: str

    def __str__(self) -> str:
        command = f"python fuzz/{self.target}.py fuzz/corpus/{self.target}/{file_name(self.data)}"
        return f"{self.text}\n{self.target}: {self.kind} at {self.place}; again with:\n  {command}"


def file_name(data: bytes) -> str:
    """Return the name of an input in the corpus."""
    return f"{hashlib.blake2b(data, digest_size=6).hexdigest()}.bin"


def keep(target: str, data: bytes) -> Path:
    """Write an input to the corpus; return where it is."""
    path = CORPUS / target / file_name(data)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def kept(target: str) -> list[Path]:
    """Return the corpus of a target."""
    return sorted((CORPUS / target).glob("*.bin"))


@contextlib.contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Raise Hung in what takes *seconds* of processor time: other processes must not make it late."""

    def ring(_number: int, _frame: Any) -> None:
        raise Hung(f"no end after {seconds:g} s of processor time")

    before = signal.signal(signal.SIGPROF, ring)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def attempt(target: Target, data: bytes, deadline_s: float = DEADLINE_S) -> Counter[str] | Failure:
    """Check one input; return how it ended."""
    try:
        with deadline(deadline_s):
            ended = target.check(data)
    except Hung:
        return _failure(target, "hang", data)
    except WrongAnswer:
        return _failure(target, "wrong answer", data)
    except Exception:  # noqa: BLE001 - whatever the code under test raises is what is looked for
        return _failure(target, "exception", data)
    return Counter((ended,)) if isinstance(ended, str) else ended


def _failure(target: Target, kind: str, data: bytes) -> Failure:
    error = sys.exception()
    assert error is not None
    last = traceback.extract_tb(error.__traceback__)[-1]
    place = f"{Path(last.filename).name}:{last.name}"
    if isinstance(error, AssertionError) and Path(last.filename).parent == CORPUS.parent:
        kind = "wrong answer"  # it is the target that objects, not the code under test
    if kind == "hang":
        place = "anywhere"  # a deadline ends a loop at any of its lines
    return Failure(target.name, kind, data, "".join(traceback.format_exception(error, limit=-8)), place)


def shrunk(target: Target, failure: Failure, deadline_s: float = DEADLINE_S) -> Failure:
    """Return the same failure by as few parts of its input as are found to be enough."""
    if target.parts is None:
        return failure
    parts, tries = target.parts(failure.data), 0
    size = len(parts) // 2
    while size and tries < target.tries_max:
        at = 0
        while at < len(parts) and tries < target.tries_max:
            fewer = parts[:at] + parts[at + size :]
            tries += 1
            again = attempt(target, b"".join(fewer), deadline_s)
            if isinstance(again, Failure) and (again.kind, again.place) == (failure.kind, failure.place):
                parts, failure = fewer, again
            else:
                at += size
        size //= 2
    return failure


def run_target(target: Target, arguments: list[str] | None = None) -> None:
    """Run one target by itself: `FILE ...`, `canary`, or `--seed S --inputs N`."""
    parser = argparse.ArgumentParser(description=f"fuzz {target.name}")
    parser.add_argument("files", nargs="*", help="inputs to check, instead of drawn ones; or: canary")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--inputs", type=int, default=0, help="how many; default: as many as make fuzz has")
    asked = parser.parse_args(arguments)
    if asked.files == ["canary"]:
        target.break_it()
        asked.files, asked.inputs = [], CANARY_INPUTS
    inputs = [Path(file).read_bytes() for file in asked.files]
    began, ended = time.monotonic(), Counter[str]()
    for n in range(len(inputs) or asked.inputs or target.share):
        found = attempt(target, inputs[n] if inputs else target.input(asked.seed, n))
        if isinstance(found, Failure):
            found = shrunk(target, found)
            if "canary" not in sys.argv:
                keep(target.name, found.data)
            raise SystemExit(str(found))
        ended += found
    print(line(target.name, ended, time.monotonic() - began))
    if trouble := target.finish():
        raise SystemExit(f"{target.name}: {trouble}")


def line(name: str, ended: Counter[str], seconds: float) -> str:
    """Return a line on how the inputs of a target ended."""
    words = ", ".join(f"{what} {count}" for what, count in sorted(ended.items()))
    return f"{name}: {ended.total()} inputs, {ended.total() / max(seconds, 1e-6):.0f}/s: {words}"


def run_trials(trial: Callable[[int], str], break_it: Callable[[], None]) -> None:
    """Run a target whose inputs are numbered trials: `[SECONDS [SEED]]`, `canary`, or a kept FILE."""
    arguments = sys.argv[1:]
    if arguments and arguments[0].endswith(".bin"):
        arguments = ["1", str(_NUMBER.unpack(Path(arguments[0]).read_bytes())[0])]
    if arguments[:1] == ["canary"]:
        break_it()
        arguments = ["20"]
    seconds = float(arguments[0]) if arguments else 5
    seeds = [int(arguments[1])] if len(arguments) > 1 else range(1 << 30)
    end = time.monotonic() + seconds
    counts: Counter[str] = Counter()
    for seed in seeds:
        try:
            ended = trial(seed)
        except BaseException:
            target = Path(sys.argv[0]).name
            print(f"failed; again with: python fuzz/{target} {seconds:g} {seed}", file=sys.stderr)
            raise
        counts[ended] += 1
        if time.monotonic() > end:
            break
    print(", ".join(f"{ended} {count}" for ended, count in sorted(counts.items())))
