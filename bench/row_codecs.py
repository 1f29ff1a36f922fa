"""What one row costs to write and to read, in every row format without any batch around it, and in ARROW.

    python bench/row_codecs.py

Rows of five columns: int, bigint, text, double, int. Prints microseconds of processor time, the best of many
runs: writing, reading, and reading the first column alone. The budget is 6 us for each of them. ARROW has
whole changelog batches, of 1,000 rows and of one, with every compression; its budget is 1 us a row of 1,000.
"""

from __future__ import annotations

import random
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

from flussd.core.records.arrow.batches import build_arrow_batch, read_arrow_rows
from flussd.core.records.arrow.compression import Compression
from flussd.core.records.batch import read_head
from flussd.core.records.row_batch import ChangeType
from flussd.core.records.rows.codec import RowFormat, row_codec
from flussd.core.records.types import DataType

TYPES = [DataType(name) for name in ("INTEGER", "BIGINT", "STRING", "DOUBLE", "INTEGER")]
ROWS = {
    "small": (7, 100, "hello world", 1.5, 42),
    "large": (123_456_789, 1_705_314_645_123, "hello world, a longer text of 40 letters", 3.14159, -1),
    "nulls": (1, None, "x", None, 3),
}
RUNS, CALLS = 80, 1000
BATCH_ROWS = 1000


def best_us(call, argument, calls=CALLS) -> float:
    """Return the shortest time of one call."""
    best_ns = 1 << 62
    for _ in range(RUNS):
        begun_ns = time.process_time_ns()
        for _ in range(calls):
            call(argument)
        best_ns = min(best_ns, time.process_time_ns() - begun_ns)
    return best_ns / calls / 1000


def arrow_rows(count) -> list:
    """Return rows with texts of 20 letters, doubles that do not compress, and a third of nulls."""
    draw = random.Random(1)
    return [
        (n, draw.getrandbits(40), f"{draw.getrandbits(60):020}", draw.random(), n if n % 3 else None)
        for n in range(count)
    ]


def main_of_arrow() -> None:
    """Print a line for each compression and size of batch."""
    for compression in Compression:
        for count in (BATCH_ROWS, 1):
            rows, changes = arrow_rows(count), [ChangeType.INSERT] * count

            def build(held, changes=changes, compression=compression):
                return build_arrow_batch(TYPES, held, changes, schema_id=1, compression=compression)

            view = memoryview(build(rows))
            head = read_head(view, 0)

            def read(held, head=head):
                return read_arrow_rows(TYPES, held, head)

            assert [row for _, row in read(view)] == rows
            calls = CALLS // 100 if count > 1 else CALLS
            written, took = (
                best_us(call, held, calls) / count for call, held in ((build, rows), (read, view))
            )
            print(
                f"ARROW {compression.name:9} {count:4} rows: write {written:.2f}, read {took:.2f} us a row, "
                f"{len(view) / count:.0f} bytes"
            )


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
    main_of_arrow()
