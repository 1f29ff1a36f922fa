"""How every fuzz target with numbered trials runs: for some seconds, or one seed, or as a canary.

No target itself. A target calls `run_trials` with its own trial and with what breaks the code under
test, which a canary must notice.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path


def run_trials(trial: Callable[[int], str], break_it: Callable[[], None]) -> None:
    """Run trials for some seconds; the first failure ends the run, with its seed."""
    arguments = sys.argv[1:]
    if arguments[:1] == ["canary"]:
        break_it()
        arguments = ["20"]
    seconds = float(arguments[0]) if arguments else 5
    seeds = [int(arguments[1])] if len(arguments) > 1 else range(1 << 30)
    end = time.monotonic() + seconds
    counts: dict[str, int] = {}
    for seed in seeds:
        try:
            ended = trial(seed)
        except BaseException:
            target = Path(sys.argv[0]).name
            print(f"failed; again with: python fuzz/{target} {seconds:g} {seed}", file=sys.stderr)
            raise
        counts[ended] = counts.get(ended, 0) + 1
        if time.monotonic() > end:
            break
    print(", ".join(f"{ended} {count}" for ended, count in sorted(counts.items())))
