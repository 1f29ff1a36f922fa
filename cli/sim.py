"""The command `fluss-sim`: run simulated clusters, one seed or many, and say how it went.

Ends with exactly one verdict line for a seed; exit status 0 for ok, 1 for a failure and for what the user
did wrong, which is one line on standard error.
"""

from __future__ import annotations

import contextlib
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from flussd import __version__

if TYPE_CHECKING:
    from flussd.runtime_sim.many import Tally
    from flussd.runtime_sim.plan import Fault
    from flussd.runtime_sim.run import Result

EXIT_FAILED: Final = 1
EXIT_INTERRUPTED: Final = 130

PLAIN_EVERY_S: Final = 5
"""Seconds between two lines of progress where there is no terminal."""

SEED_MAX: Final = 2**63 - 1


class UserError(Exception):
    """What the user did wrong, in one line."""


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--seed", type=click.IntRange(0, SEED_MAX), help="Run this seed.")
@click.option("--seeds", metavar="A..B", help="Run all seeds from A to B, on all cores; stop at a failure.")
@click.option("--plan", type=click.Path(path_type=Path), help="Take the faults from this file.")
@click.option(
    "--write-plan", type=click.Path(path_type=Path), help="Write the faults of --seed to this file."
)
@click.option("--trace", type=click.Path(path_type=Path), help="Write the story of --seed to this file.")
@click.option("--mutant", help="Break the core in this way first; --mutant list names them.")
@click.option(
    "--jobs", type=click.IntRange(1, 1024), help="Processes for --seeds. Default: one for each core."
)
@click.option("--twice", is_flag=True, help="Run --seed twice and compare the hashes.")
@click.version_option(__version__, prog_name="fluss-sim", message="%(prog)s %(version)s")
def cli(**options: Any) -> None:
    """Run whole clusters of flussd in virtual time, with faults, all decided by a seed."""
    if options["mutant"] == "list":
        raise SystemExit(_list_mutants())
    _check(options)
    if options["seeds"] is not None:
        raise SystemExit(_many(options))
    raise SystemExit(_one(options))


def _check(options: dict[str, Any]) -> None:
    from flussd.runtime_sim.mutants.catalogue import MUTANTS

    only_one = [name for name in ("plan", "write_plan", "trace", "twice") if options[name]]
    if options["seeds"] is not None and (options["seed"] is not None or only_one):
        names = ", ".join("--" + name.replace("_", "-") for name in only_one) or "--seed"
        raise UserError(f"--seeds runs a range; {names} is for one seed")
    if options["seeds"] is None and options["seed"] is None and options["plan"] is None:
        raise UserError("expected --seed N, --seeds A..B or --plan FILE; see fluss-sim --help")
    if options["mutant"] is not None and options["mutant"] not in MUTANTS:
        raise UserError(f"no such mutant: {options['mutant']}; there are {', '.join(MUTANTS)}")


def _list_mutants() -> int:
    from flussd.runtime_sim.mutants.catalogue import MUTANTS

    for name, mutant in MUTANTS.items():
        print(f"{name:<28} {mutant.text}")
    return 0


# ---- one seed ------------------------------------------------------------------------------------


def _one(options: dict[str, Any]) -> int:
    from flussd.runtime_sim.run import Run
    from flussd.runtime_sim.summary import command, summary

    seed, plan = _seed_and_plan(options)
    if options["write_plan"] is not None:
        _write_plan(options["write_plan"], seed, plan)
    result = _run(Run, seed, plan, options)
    print(summary(result))
    if options["twice"]:
        again = _run(Run, seed, plan, options | {"trace": None})
        if again.verdict() != result.verdict():
            print(f"twice: the second run differs: {again.verdict()}")
            print(result.verdict())
            return EXIT_FAILED
        print("twice: both runs are the same")
    if not result.is_ok:
        print(f"repeat: {command(result, mutant=options['mutant'], plan=options['plan'])}")
    print(result.verdict())
    return 0 if result.is_ok else EXIT_FAILED


def _run(run: Any, seed: int, plan: Sequence[Fault] | None, options: dict[str, Any]) -> Result:
    from flussd.runtime_sim.mutants.catalogue import applied

    with contextlib.ExitStack() as stack:
        stack.enter_context(applied(options["mutant"]))
        out = None
        if options["trace"] is not None:
            out = stack.enter_context(_opened_to_write(options["trace"]))
        result: Result = run(seed, plan, out).go()
        return result


def _opened_to_write(path: Path) -> Any:
    try:
        return path.open("w", encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from None


def _seed_and_plan(options: dict[str, Any]) -> tuple[int, Sequence[Fault] | None]:
    from flussd.runtime_sim.plan import PlanError, from_toml, seed_of
    from flussd.runtime_sim.run import Run

    path = options["plan"]
    if path is None:
        return options["seed"], None
    try:
        text = path.read_text(encoding="utf-8")
        seed = options["seed"] if options["seed"] is not None else seed_of(text)
        return seed, from_toml(text, Run.node_names(seed))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except (PlanError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: {error}") from None


def _write_plan(path: Path, seed: int, plan: Sequence[Fault] | None) -> None:
    from flussd.runtime_sim.plan import to_toml
    from flussd.runtime_sim.run import Run

    with _opened_to_write(path) as out:
        out.write(to_toml(seed, Run(seed, plan).faults_planned))


# ---- many seeds ----------------------------------------------------------------------------------


def _many(options: dict[str, Any]) -> int:
    from flussd.runtime_sim import many
    from flussd.runtime_sim.summary import command, summary

    found = re.fullmatch(r"(\d{1,18})\.\.(\d{1,18})", options["seeds"])
    if found is None or int(found[1]) > int(found[2]):
        raise UserError(f"--seeds: expected A..B with A <= B, got {options['seeds']}")
    seeds = range(int(found[1]), int(found[2]) + 1)
    jobs = min(options["jobs"] or many.cores(), len(seeds))
    begin = time.monotonic()
    with contextlib.ExitStack() as stack:
        progress = _Bar(stack, len(seeds)) if sys.stderr.isatty() else _Lines(begin)
        tally = many.run_range(seeds, jobs, options["mutant"], progress.told)
    seconds = time.monotonic() - begin
    events, effective = tally.medians()
    if tally.failure is not None:
        print(summary(tally.failure))
    print(
        f"{tally.done_count} of {tally.seed_count} seeds in {seconds:.0f} s on {jobs} cores, "
        f"{tally.done_count * 60 / max(seconds, 0.001):.0f} a minute; "
        f"median: {events} events, {effective} faults that took effect"
    )
    if tally.failure is None:
        return 0
    print(f"repeat: {command(tally.failure, mutant=options['mutant'])}")
    print(tally.failure.verdict())
    return EXIT_FAILED


class _Bar:
    """A progress bar on a terminal."""

    def __init__(self, stack: contextlib.ExitStack, total: int) -> None:
        from rich.console import Console
        from rich.progress import Progress

        self.progress = stack.enter_context(Progress(console=Console(stderr=True)))
        self.task = self.progress.add_task("seeds", total=total)

    def told(self, tally: Tally) -> None:
        """Show how far it is."""
        self.progress.update(self.task, completed=tally.done_count)


class _Lines:
    """Plain lines, now and then."""

    def __init__(self, begin: float) -> None:
        self.next = begin + PLAIN_EVERY_S

    def told(self, tally: Tally) -> None:
        """Say how far it is, if it is time."""
        if time.monotonic() >= self.next:
            self.next = time.monotonic() + PLAIN_EVERY_S
            print(f"{tally.done_count} of {tally.seed_count} seeds", file=sys.stderr)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return or raise its exit status."""
    if not __debug__:
        return _fail("python -O takes out the assertions that are to be checked; start without it")
    try:
        cli.main(arguments, prog_name="fluss-sim", standalone_mode=False)
    except UserError as error:
        return _fail(str(error))
    except click.ClickException as error:
        return _fail(" ".join(error.format_message().split()))
    except (click.exceptions.Abort, KeyboardInterrupt):
        return EXIT_INTERRUPTED
    return 0


def _fail(text: str) -> int:
    print(f"fluss-sim: {text}", file=sys.stderr)
    return EXIT_FAILED


if __name__ == "__main__":
    raise SystemExit(main())
