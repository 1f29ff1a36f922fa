"""The registry's log: groups of transactions in files, and the rule that tells a torn tail from damage.

A file is a head and then records; the head is made durable before the first record is written.

    head:   8s magic | u32 level | u64 salt | u64 first zxid | u32 crc32c
    record: u32 length of the rest | u32 crc32c | u64 salt | u64 position | u64 first zxid | u32 count | ...

A record is one *group*: all transactions that one sync makes durable. Integers are little-endian, and a
record's checksum covers its length and all that follows the checksum.

**The rule.** A group is written only when the one before it is known to be durable. So at most the last
record of a file was written and never synced, and of that one any 512-byte pieces may survive, among
zeros or garbage. Therefore: the first bad record is a torn tail, and is cut, unless a whole record follows
it anywhere in the file. If one does, the bad record had been synced, and the file is damaged. The salt
(new for each file, and unknown to clients) and the position make sure that neither data that a client
wrote, nor stale blocks of an older file, can pass for a record. What this cannot tell apart is a torn
last record and damage to the last record; registry.py keeps that window to one group.

In a file that has a successor nothing need be guessed: the successor was started when all before it was
durable, and its name says how far the file must reach. What lies beyond is a tail that was cut.

Behind the last record a file may have any number of zeros: room for more, see room.py.
"""

from __future__ import annotations

import struct
from hashlib import blake2b
from typing import Final

import attrs
from crc32c import crc32c

from flussd.core.registry.changes import Changes, Corrupt, decode_changes

FORMAT_LEVEL: Final = 1
"""The form of this file and of snapshot.py; a reader refuses what is newer."""

_MAGIC: Final = b"FLREGLOG"
_HEAD: Final = struct.Struct("<8sIQQI")
_RECORD: Final = struct.Struct("<IIQQQI")
_SALT_AT: Final = 8  # in a record
_UNSUMMED: Final = 8  # length and checksum, in a record

HEAD_BYTES: Final = _HEAD.size
RECORD_BYTES: Final = _RECORD.size
"""What a record has around its transactions."""


@attrs.frozen
class Group:
    """The transactions of one record, at [position, end) of its file; the first has *first_zxid*."""

    position: int
    end: int
    first_zxid: int
    transactions: tuple[Changes, ...]
    body: bytes  # the transactions as they were encoded

    @property
    def last_zxid(self) -> int:
        """The zxid of the last transaction."""
        return self.first_zxid + len(self.transactions) - 1


@attrs.frozen
class LogFile:
    """What a log file holds: whole groups up to *end*, and why there are no more (None: the end)."""

    salt: int
    groups: tuple[Group, ...]
    end: int
    damage: str | None


def salt_of(chance: int, first_zxid: int) -> int:
    """Return a salt that no other file has: *chance* is new at each start, *first_zxid* at each file."""
    seed = f"{chance} {first_zxid}".encode()
    return int.from_bytes(blake2b(seed, digest_size=8).digest(), "little")


def encode_head(salt: int, first_zxid: int) -> bytes:
    """Return the head of a new file."""
    head = _HEAD.pack(_MAGIC, FORMAT_LEVEL, salt, first_zxid, 0)[:-4]
    return head + crc32c(head).to_bytes(4, "little")


def encode_group(salt: int, position: int, first_zxid: int, transaction_count: int, body: bytes) -> bytes:
    """Return the record of one group, to be written at *position*."""
    length = _RECORD.size - 4 + len(body)
    head = _RECORD.pack(length, 0, salt, position, first_zxid, transaction_count)
    return b"".join((head[:4], _checksum(head, body).to_bytes(4, "little"), head[_UNSUMMED:], body))


def _checksum(head: bytes | memoryview, body: bytes | memoryview) -> int:
    return int(crc32c(body, crc32c(head[_UNSUMMED : _RECORD.size], crc32c(head[:4]))))


def read_log(file: str, data: bytes, first_zxid: int) -> LogFile:
    """Read all whole groups of *file*, which by its name begins with *first_zxid*.

    Raises:
        Corrupt: the head is not one of ours, or a group with a right checksum makes no sense.
    """
    salt = _read_head(file, data, first_zxid)
    view = memoryview(data)
    groups: list[Group] = []
    position = HEAD_BYTES
    zxid = first_zxid
    while position < len(data):  # each turn consumes a record
        damage = _damage(view, salt, position)
        if damage is not None and not any(view[position:]):
            break  # room that was never used
        if damage is not None:
            return LogFile(salt, tuple(groups), position, damage)
        group = _read_group(file, view, position)
        if group.first_zxid != zxid:
            raise Corrupt(f"{file} at {position}: expected zxid {zxid}, got {group.first_zxid}")
        groups.append(group)
        position, zxid = group.end, group.last_zxid + 1
    return LogFile(salt, tuple(groups), position, None)


def require_torn(file: str, data: bytes, log: LogFile) -> None:
    """Make sure that the damage at the end of *log*, the last of all files, is a torn tail.

    Raises:
        Corrupt: it is not; see the module's text.
    """
    if log.damage is None:
        return
    view = memoryview(data)
    mark = log.salt.to_bytes(8, "little")
    at = data.find(mark, log.end + 1 + _SALT_AT)
    while at >= 0:  # each turn moves on by a byte at least
        if _damage(view, log.salt, at - _SALT_AT) is None:
            raise Corrupt(
                f"{file} at {log.end}: {log.damage}; it had been synced, for a whole group follows at"
                f" {at - _SALT_AT}"
            )
        at = data.find(mark, at + 1)


def _read_head(file: str, data: bytes, first_zxid: int) -> int:
    if len(data) < HEAD_BYTES:
        raise Corrupt(f"{file}: expected a head of {HEAD_BYTES} bytes, got {len(data)} bytes")
    magic, level, salt, zxid, checksum = _HEAD.unpack_from(data)
    if magic != _MAGIC:
        raise Corrupt(f"{file} at 0: expected {_MAGIC!r}, got {magic!r}")
    if level != FORMAT_LEVEL:
        raise Corrupt(f"{file} at 8: expected format level {FORMAT_LEVEL}, got {level}")
    summed = crc32c(data[: HEAD_BYTES - 4])
    if checksum != summed:
        raise Corrupt(f"{file} at 0: expected checksum {summed:#010x} of the head, got {checksum:#010x}")
    if zxid != first_zxid:
        raise Corrupt(f"{file} at 20: expected first zxid {first_zxid}, as in its name, got {zxid}")
    return int(salt)


def _damage(view: memoryview, salt: int, position: int) -> str | None:
    """Say why there is no whole record at *position*; None when there is one."""
    left = len(view) - position
    if left < _RECORD.size:
        return f"expected the head of a group, got {left} bytes"
    length, checksum, found_salt, found_position, _, _ = _RECORD.unpack_from(view, position)
    if found_salt != salt or found_position != position:
        return f"expected a group of this file and place, got {found_salt:#x} and {found_position}"
    if not _RECORD.size - 4 <= length <= left - 4:
        return f"expected a group of {length} bytes, got {left - 4}"
    record = view[position : position + 4 + length]
    summed = _checksum(record, record[_RECORD.size :])
    if summed != checksum:
        return f"expected checksum {checksum:#010x}, got {summed:#010x}"
    return None


def _read_group(file: str, view: memoryview, position: int) -> Group:
    length, _, _, _, first_zxid, count = _RECORD.unpack_from(view, position)
    start, end = position + _RECORD.size, position + 4 + length
    transactions: list[Changes] = []
    record = view[:end]
    at = start
    try:
        for _ in range(count):  # each turn consumes bytes, or raises
            changes, at = decode_changes(record, at)
            transactions.append(changes)
    except Corrupt as error:
        raise Corrupt(f"{file} at {at}: {error}") from None
    if at != end or not transactions:
        raise Corrupt(f"{file} at {position}: expected {count} transactions up to {end}, got up to {at}")
    return Group(position, end, first_zxid, tuple(transactions), bytes(view[start:end]))
