"""The promises that are checked in every run, by name, and what is raised when one is broken."""

from __future__ import annotations

import enum


class Oracle(enum.Enum):
    """Each promise; its name is what a failing run prints."""

    ACKED_SURVIVES = "what was acknowledged survives, as far as the durability mode promises"
    EXACTLY_ONCE = "a batch is in the log at one place, however often it was sent"
    IN_ORDER = "the batches of a writer are in the log in the order of their sequence, without a gap"
    CONTIGUOUS = "offsets have no holes, and batches do not overlap"
    BELOW_WATERMARK = "readers get nothing above the high watermark"
    READS_ARE_STABLE = "what a reader saw at an offset stays there, and stays the same"
    BYTES_ARE_WHOLE = "what a reader gets has its checksum"
    NOTHING_INVENTED = "what a reader gets was sent by a writer"
    SYNCED_SURVIVES = "what a server believed to be durable is there after a power loss"
    WRITERS_REMEMBERED = "a server forgets the sequence of a writer only with the log behind it"
    ANSWERS_MAKE_SENSE = "errors are those that a client can expect at that point"
    CATALOG_IS_TRUE = "what was created is there, what was dropped is not, ids are never used twice"
    FIRST_REGISTRATION = (
        "the first offsets of a producer stay until they are deleted, or their time is over"
    )
    SCHEMAS_LAST = "schema ids grow by one for each column that was added, and a schema stays as it was"
    FILTERS_KEEP_MATCHES = "a filter leaves out no batch with a row that it wants"
    PROJECTIONS_KEEP_VALUES = "a projection gives the wanted columns, as they were written"
    SCANS_TELL_THE_END = "a limit scan gives the last rows that were committed by then"
    TIMES_ARE_ORDERED = "commit times never run backwards, and an offset by time is that of the first batch"
    COUNTS_ARE_PLAUSIBLE = "a row count lies between what is known to be there and what was ever sent"
    CHANGELOG_IS_TRUE = "a changelog tells of each put what its table's merge engine makes of it"
    ROWS_ARE_THE_FOLD = "the rows that reads give are those that the changelog folds to"
    ROWS_ARE_FRESH = "reads of rows know all that was committed before they began"
    ROWS_ARE_COMMITTED = "reads of rows know nothing that was not committed yet"
    SCANS_ARE_SNAPSHOTS = "a scan gives the rows as they were at the offset that it names"
    IDS_ARE_NEW = "a row that is inserted gets a positive id that no other row of its table ever had"
    INSERTS_FILL_GAPS = "a lookup that inserts adds rows of those of its keys that have none, and no more"
    INSERTS_ARE_TOLD = (
        "a lookup that inserts tells the rows that its keys had at one moment, when each had got one"
    )
    PARTITIONS_ARE_MADE = "once faults end, the partitions of the present time are made"
    WRITERS_PROGRESS = "once faults end, every writer gets its batches acknowledged"
    READERS_PROGRESS = "once faults end, every reader reaches the end of the log"
    CLUSTER_RECOVERS = "once faults end, every server serves again"
    KEPT_LONG_ENOUGH = "retention gives up only what is older than its table keeps"
    NOTHING_LEAKS = "once clients have left, nothing waits for them, and dropped tables leave no files"


class Violation(Exception):  # noqa: N818 - a finding, and no error of the simulator
    """A promise was broken: *oracle* says which, the text says where, expected, got."""

    def __init__(self, oracle: Oracle, text: str) -> None:
        super().__init__(f"{oracle.name}: {text}")
        self.oracle = oracle
