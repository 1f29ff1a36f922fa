"""Statistics of a batch: how many nulls each column has, its least and its greatest value.

A client writes them before the records of magic 1 and 2 (record formats, 1.5); the two rows of values
are aligned rows (4.3). The bytes may be anything: what is wrong with them is BadStatistics, and nothing
else. A reader must know what bounds do not say: the NaN of a batch may lie beyond them.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Final

import attrs

from flussd.core.records.aligned import AlignedRow, Domain, Value, build_row
from flussd.core.records.batch import HEAD_BYTES, BatchHead
from flussd.core.records.rows.atoms import BadRow

VERSION: Final = 1
"""Of the section; others are ignored, as upstream's readers do."""

_INT: Final = struct.Struct("<i")
_HEAD: Final = struct.Struct("<Bh")  # version, number of columns


class BadStatistics(ValueError):  # noqa: N818 - it names what the bytes are
    """Bytes that are not the statistics that they should be; the text says what is wrong."""


@attrs.frozen
class Bounds:
    """Of one column of a batch: no value that is not null, and not NaN, lies outside [least, most]."""

    null_count: int
    least: Value | None
    most: Value | None


@attrs.frozen
class Statistics:
    """The statistics of one batch; *places* has the place in the rows of each column that has some."""

    places: Mapping[int, int]
    null_counts: tuple[int, ...]
    least: AlignedRow
    most: AlignedRow

    def bounds(self, column: int, domain: Domain) -> Bounds | None:
        """Return what is known of a column of the batch's schema. Raises BadStatistics."""
        place = self.places.get(column)
        if place is None:
            return None
        try:
            least, most = self.least.value(place, domain), self.most.value(place, domain)
        except BadRow as bad:
            raise BadStatistics(f"the bounds of column {column}: {bad}") from None
        if domain.is_time:
            least, most = _widened(least, most, domain.unit_ns)
        return Bounds(self.null_counts[place], least, most)


def _widened(least: Value | None, most: Value | None, unit_ns: int) -> tuple[Value | None, Value | None]:
    """Return bounds that hold after readers' values were cut, in whichever direction."""
    if isinstance(least, int):
        least = least // unit_ns * unit_ns
    if isinstance(most, int):
        most = -(-most // unit_ns) * unit_ns
    return least, most


def statistics_of(batch: memoryview, head: BatchHead) -> Statistics | None:
    """Return the statistics of the whole *batch*, which has this *head*; None when it has none.

    Raises:
        BadStatistics: its section is broken.
    """
    if not head.magic:
        return None
    start = HEAD_BYTES[head.magic]
    (size_bytes,) = _INT.unpack_from(batch, start - 4)
    if not 0 <= size_bytes <= len(batch) - start:
        text = f"{size_bytes} bytes in a batch of {len(batch)}"
        raise BadStatistics(text)
    return parse_statistics(batch[start : start + size_bytes]) if size_bytes else None


def parse_statistics(section: memoryview) -> Statistics | None:
    """Read a section; None when it is of another version, or about no column.

    Raises:
        BadStatistics: it ends too early, or its counts cannot be.
    """
    try:
        version, count = _HEAD.unpack_from(section, 0)
        if version != VERSION or count <= 0:
            return None
        columns = struct.unpack_from(f"<{count}h", section, _HEAD.size)
        at = _HEAD.size + 2 * count
        null_counts = struct.unpack_from(f"<{count}i", section, at)
        least, at = _row(section, at + 4 * count, count)
        most, _ = _row(section, at, count)
    except struct.error as error:
        raise BadStatistics(f"a section of {len(section)} bytes: {error}") from None
    places = {column: place for place, column in enumerate(columns)}
    if len(places) != count:
        raise BadStatistics(f"columns {columns}: expected each once")
    return Statistics(places, null_counts, least, most)


def _row(section: memoryview, at: int, arity: int) -> tuple[AlignedRow, int]:
    (size_bytes,) = _INT.unpack_from(section, at)
    end = at + 4 + size_bytes
    if size_bytes <= 0 or end > len(section):
        raise BadStatistics(f"a row of {size_bytes} bytes at {at} of {len(section)}")
    return AlignedRow(section[at + 4 : end], arity), end


def build_statistics(columns: Sequence[tuple[int, Domain, Bounds]]) -> bytes:
    """Return a section about some columns, given by position, for tests and simulated clients."""
    domains = [domain for _, domain, _ in columns]
    count = len(columns)
    positions = [position for position, _, _ in columns]
    null_counts = [bounds.null_count for _, _, bounds in columns]
    section = _HEAD.pack(VERSION, count) + struct.pack(f"<{count}h{count}i", *positions, *null_counts)
    for values in ([b.least for _, _, b in columns], [b.most for _, _, b in columns]):
        row = build_row(values, domains)
        section += _INT.pack(len(row)) + row
    return section
