"""What a run says when it is over: counts, faults by kind, and at a violation the state of the servers."""

from __future__ import annotations

from collections import Counter

from flussd.runtime_sim.plan import FaultKind
from flussd.runtime_sim.run import Result


def summary(result: Result) -> str:
    """Return the text before the last line of a run."""
    lines = ["faults        planned  took effect"]
    planned = Counter(fault.kind for fault in result.plan)
    effective = Counter(result.effective)
    lines += [
        f"  {kind.value:<12} {planned[kind]:>6} {effective[kind.value]:>12}"
        for kind in FaultKind
        if planned[kind]
    ]
    lines.append("counts")
    lines += [f"  {what:<30} {result.counts[what]:>8}" for what in sorted(result.counts)]
    if not result.is_ok:
        lines += ["", f"broken: {result.failed}", result.text.rstrip(), "", result.dump]
    return "\n".join(lines)


def command(result: Result, *, mutant: str | None = None, plan: str | None = None) -> str:
    """Return the one command that repeats a run."""
    options = f" --mutant {mutant}" if mutant else ""
    options += f" --plan {plan}" if plan else ""
    return f"fluss-sim --seed {result.seed}{options}"
