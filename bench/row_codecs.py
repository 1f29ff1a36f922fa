"""What one row costs to write and to read, in every format, without any batch around it.

    python bench/row_codecs.py

Rows of five columns: int, bigint, text, double, int. Prints microseconds of processor time, the best of many
runs: writing, reading, and reading the first column alone. The budget is 6 us for each of them.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

from flussd.core.records.rows.codec import RowFormat, row_codec
from flussd.core.records.types import DataType

TYPES = [DataType(name) for name in ("INTEGER", "BIGINT", "STRING", "DOUBLE", "INTEGER")]
ROWS = {
    "small": (7, 100, "hello world", 1.5, 42),
    "large": (123_456_789, 1_705_314_645_123, "hello world, a longer text of 40 letters", 3.14159, -1),
    "nulls": (1, None, "x", None, 3),
}
RUNS, CALLS = 80, 1000


def best_us(call, argument) -> float:
    """Return the shortest time of one call."""
    best_ns = 1 << 62
    for _ in range(RUNS):
        begun_ns = time.process_time_ns()
        for _ in range(CALLS):
            call(argument)
        best_ns = min(best_ns, time.process_time_ns() - begun_ns)
    return best_ns / CALLS / 1000


def main() -> None:
    """Print a line for each format and kind of row."""
    for row_format in RowFormat:
        codec, first = row_codec(row_format, TYPES), row_codec(row_format, TYPES, (0,))
        for name, row in ROWS.items():
            data = codec.encode(row)
            assert codec.decode(data) == row
            written, read, one = (
                best_us(codec.encode, row),
                best_us(codec.decode, data),
                best_us(first.decode, data),
            )
            print(
                f"{row_format.name:9} {name}: write {written:.1f}, read {read:.1f}, first column {one:.1f} us"
            )


if __name__ == "__main__":
    main()
