"""Figures of several runs against several servers: medians, spread, ratios, and whether goals are met.

Results in, rows of text out, the same rows for the terminal and for docs/performance.md; `write_block` is
all that touches a file. A goal is met by the medians, or "within the spread": the median lies inside what
the other server itself varied by.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs

Result = dict[str, Any]  # one line of workloads.py, with "peer" and "run"
RATE, MB, P50, P99 = "rows_s", "mb_s", "p50_ms", "p99_ms"
COLUMNS = ("workload", "server", "rows/s", "MB/s", "p50 ms", "p99 ms", "client us", "server us")
RATIOS = ("workload", "of the blackhole", "of Java", "goal", "met")


@attrs.frozen
class Goal:
    """What flussd must reach: *least* of the rate of *peer*, or at most *most_ms* at the median.

    With no *peer*, *most_ms* is absolute; else the median latency may be that peer's.
    """

    workload: str
    peer: str
    least: float = 0.0
    most_ms: float = 0.0

    @property
    def text(self) -> str:
        if self.most_ms:
            return f"p50 < {self.most_ms:g} ms"
        return f"p50 <= {self.peer}" if self.is_latency else f"{self.least:g} of {self.peer}"

    @property
    def is_latency(self) -> bool:
        return not self.least


COLUMNAR = (
    "append wide",
    "append wide zstd",
    "scan wide",
    "scan wide zstd",
    "scan 1 KiB rows",
)
GOALS = (
    *(
        Goal(workload, peer, least)
        for workload in COLUMNAR
        for peer, least in (("blackhole", 0.9), ("java", 1))
    ),
    Goal("append wide 8 buckets", "java", 1),
    Goal("scan 1 of 5 columns", "java", 1),
    Goal("append 1 KiB rows", "blackhole", 0.9),
    Goal("append 1 KiB rows", "java", 2),
    Goal("append 100-row batches", "java", 1),
    Goal("one row flushed", "java"),
    Goal("one row to a reader", "", most_ms=1.5),
    Goal("one row to a reader elsewhere", "", most_ms=1.5),
)


@attrs.frozen
class Spread:
    """What several runs gave for one figure."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    def text(self) -> str:
        """Return the median, and the least and the most in brackets."""
        if not self.values:
            return "-"
        ends = f" ({short(min(self.values))} to {short(max(self.values))})" if len(self.values) > 1 else ""
        return short(self.median) + ends


@attrs.frozen
class Figures:
    """All results, looked up by workload, server and figure."""

    results: Sequence[Result]

    @property
    def workloads(self) -> list[str]:
        return list(dict.fromkeys(result["workload"] for result in self.results))

    @property
    def peers(self) -> list[str]:
        return list(dict.fromkeys(result["peer"] for result in self.results))

    def of(self, workload: str, peer: str, figure: str) -> Spread:
        found = (r for r in self.results if r["workload"] == workload and r["peer"] == peer)
        return Spread(tuple(result[figure] for result in found if figure in result))

    def ratio(self, workload: str, peer: str) -> float | None:
        """Return how much better flussd is: rates divided, latencies the other way round."""
        for figure in (RATE, P50):
            ours, theirs = self.of(workload, "flussd", figure), self.of(workload, peer, figure)
            if ours.values and theirs.values:
                return ours.median / theirs.median if figure == RATE else theirs.median / ours.median
        return None

    def met(self, goal: Goal) -> str:
        """Return "yes", "within the spread", "NO", or "-" if it was not measured."""
        figure = P50 if goal.is_latency else RATE
        ours, theirs = self.of(goal.workload, "flussd", figure), self.of(goal.workload, goal.peer, figure)
        if not ours.values or not (goal.most_ms or theirs.values):
            return "-"
        if goal.most_ms:
            return "yes" if ours.median < goal.most_ms else "NO"
        if goal.is_latency:
            reached, near = ours.median <= theirs.median, ours.median <= max(theirs.values)
        else:
            reached = ours.median >= goal.least * theirs.median
            near = goal.least <= 1 and ours.median >= min(theirs.values)
        return "yes" if reached else "within the spread" if near else "NO"


def short(value: float) -> str:
    """Return a number in three digits, or without its decimals."""
    for least, unit in ((1e6, " M"), (1e4, " k")):
        if value >= least:
            return f"{value / (1e6 if unit == ' M' else 1e3):.3g}{unit}"
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def table(figures: Figures) -> list[tuple[str, ...]]:
    """Return the figures, a row for each workload and server, as COLUMNS."""
    rows = []
    for workload in figures.workloads:
        for peer in figures.peers:
            cells = [
                figures.of(workload, peer, figure).text()
                for figure in (RATE, MB, P50, P99, "client_us", "server_us")
            ]
            if set(cells) != {"-"}:
                rows.append((workload, peer, *cells))
    return rows


def ratios(figures: Figures) -> list[tuple[str, ...]]:
    """Return the ratios, and each goal with whether it is met, as RATIOS."""
    rows = []
    for workload in figures.workloads:
        goals = [goal for goal in GOALS if goal.workload == workload]
        rows.append(
            (
                workload,
                *(_ratio_text(figures.ratio(workload, peer)) for peer in ("blackhole", "java")),
                "; ".join(goal.text for goal in goals) or "-",
                "; ".join(figures.met(goal) for goal in goals) or "-",
            )
        )
    return rows


def _ratio_text(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.2f}"


def markdown(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """Return a table of a page."""
    lines = [head, tuple("---" for _ in head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def write_block(page: Path, writer: str, text: str) -> None:
    """Replace what stands between the two lines that *page* has for *writer*."""
    begin, end = f"<!-- written by {writer} -->\n", f"<!-- end of {writer} -->\n"
    before, found_begin, rest = page.read_text(encoding="utf-8").partition(begin)
    _, found_end, after = rest.partition(end)
    if not found_begin or not found_end:
        raise SystemExit(f"{page}: expected the lines {begin.strip()} and {end.strip()}, in this order")
    page.write_text(f"{before}{begin}\n{text.strip()}\n\n{end}{after}", encoding="utf-8")
