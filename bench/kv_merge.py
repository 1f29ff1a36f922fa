"""What a put costs for each row of it: merging, the changelog batch, and making the rows visible.

    python bench/kv_merge.py

Rows of five columns (int key, bigint, text, double, int) in batches of 1,000 into a bucket of 100,000 rows,
half of them new and half updates, unless a name says otherwise. Prints microseconds of processor time a row,
the best of many batches. The goal is 3 us for the default engine with an ARROW changelog.
"""

from __future__ import annotations

import json
import random
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

from flussd.core.kv.rules import TableRules
from flussd.core.kv.table import KvTable
from flussd.core.records.batch import read_head
from flussd.core.records.descriptor import ClusterDefaults, parse_table_descriptor, with_defaults
from flussd.core.records.kv_batch import build_kv_batch
from flussd.core.slices import finished

ROWS, BATCH_ROWS, BATCHES = 100_000, 1000, 40
COLUMNS = (("k", "INTEGER"), ("n", "BIGINT"), ("s", "STRING"), ("d", "DOUBLE"), ("v", "INTEGER"))
AGGREGATION = {"n": "sum", "s": "last_value", "d": "max", "v": "min"}
FIRST, VERSIONED = "first_row", "versioned"
CASES = {
    "default, ARROW": {},
    "default, ARROW, inserts": {},
    "default, ARROW, updates": {},
    "default, ARROW NONE": {"table.log.arrow.compression.type": "none"},
    "default, COMPACTED": {"table.log.format": "compacted"},
    "default, WAL, ARROW": {"table.changelog.image": "wal"},
    "partial, ARROW": {},
    "partial, COMPACTED": {"table.log.format": "compacted"},
    "first_row, ARROW": {"table.merge-engine": FIRST},
    "versioned, ARROW": {
        "table.merge-engine": VERSIONED,
        "table.merge-engine.versioned.ver-column": "n",
    },
    "aggregation, ARROW": {"table.merge-engine": "aggregation"},
    "aggregation, COMPACTED": {"table.merge-engine": "aggregation", "table.log.format": "compacted"},
}


def rules_of(properties: dict[str, str]) -> TableRules:
    """Return the rules of the table of the bench with *properties*."""
    columns = [{"name": name, "data_type": {"type": kind}} for name, kind in COLUMNS]
    if properties.get("table.merge-engine") == "aggregation":
        for column in columns[1:]:
            column["agg_function"] = {"type": AGGREGATION[column["name"]]}
    told = {
        "version": 1,
        "schema": {"version": 1, "columns": columns, "primary_key": ["k"]},
        "partition_key": [],
        "bucket_key": [],
        "bucket_count": 1,
        "properties": properties,
        "custom_properties": {},
    }
    descriptor = with_defaults(parse_table_descriptor(json.dumps(told)), ClusterDefaults())
    return TableRules.of(descriptor.to_json(), {1: descriptor.schema.to_value()})


def batch_of(rules: TableRules, keys: list[int], draw: random.Random) -> memoryview:
    """Return a put of these keys."""
    rows = [
        (key, draw.randrange(1 << 40), f"a text of {key} that is 30 letters", key * 1.5, draw.randrange(99))
        for key in keys
    ]
    encode = rules.latest.codec.encode
    records = [(rules.key_of(row), encode(row)) for row in rows]
    return memoryview(build_kv_batch(records, schema_id=1))


def measure(name: str, properties: dict[str, str]) -> tuple[float, float, float]:
    """Return what merging, committing and replaying cost for each row."""
    rules, table, draw = rules_of(properties), KvTable(), random.Random(7)
    end = 0

    def put(batch: memoryview) -> tuple[int, int, memoryview]:
        nonlocal end
        begun = time.process_time_ns()
        merged = finished(table.merging(rules, batch, (0, 1, 2) if name.startswith("partial") else ()))
        middle = time.process_time_ns()
        table.accept(merged, end)
        end += merged.offset_count
        table.commit(end)
        return middle - begun, time.process_time_ns() - middle, memoryview(merged.log_batch)

    for n in range(0, ROWS, BATCH_ROWS):
        put(batch_of(rules, list(range(n, n + BATCH_ROWS)), draw))
    news = 0 if name.endswith("updates") else BATCH_ROWS if name.endswith("inserts") else BATCH_ROWS // 2
    best = [1 << 62] * 3
    for n in range(BATCHES):
        keys = draw.sample(range(ROWS), BATCH_ROWS - news)
        keys += range(ROWS + n * BATCH_ROWS, ROWS + n * BATCH_ROWS + news)
        merging_ns, commit_ns, log = put(batch_of(rules, keys, draw))
        fresh = KvTable()
        begun = time.process_time_ns()
        fresh.replay(rules, log, read_head(log, 0))
        best = [
            min(*pair)
            for pair in zip(best, (merging_ns, commit_ns, time.process_time_ns() - begun), strict=True)
        ]
    return tuple(one / BATCH_ROWS / 1000 for one in best)


def main() -> None:
    """Print a line a case."""
    for name, properties in CASES.items():
        merge, commit, replay = measure(name, properties)
        print(f"{name:26} merge {merge:5.2f}, accept and commit {commit:5.2f}, replay {replay:5.2f} us/row")


if __name__ == "__main__":
    main()
