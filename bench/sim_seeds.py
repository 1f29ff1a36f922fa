"""How fast the simulator is: seeds a minute on one core, events, and simulated seconds a CPU second.

Run: python bench/sim_seeds.py [FIRST..LAST]. The goal is 1000 seeds in 10 minutes on two cores, 1.2 s each.
"""

from __future__ import annotations

import sys
import time

from flussd.runtime_sim.many import prepare
from flussd.runtime_sim.run import Run


def main() -> None:
    first, last = map(int, (sys.argv[1] if len(sys.argv) > 1 else "1..40").split(".."))
    prepare()
    begin = time.process_time()
    results = [Run(seed).go() for seed in range(first, last + 1)]
    cpu_s = time.process_time() - begin
    events = sum(result.event_count for result in results)
    sim_s = sum(result.sim_us for result in results) / 1e6
    print(f"{len(results)} seeds, {sum(not result.is_ok for result in results)} failed")
    print(
        f"{cpu_s / len(results):.2f} s CPU a seed, {60 * len(results) / cpu_s:.0f} seeds a minute and core"
    )
    print(f"{events / cpu_s:.0f} events, {sim_s / cpu_s:.0f} simulated seconds a CPU second")


if __name__ == "__main__":
    main()
