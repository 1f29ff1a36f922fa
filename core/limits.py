"""Constants of the core, each with its reason."""

from __future__ import annotations

from typing import Final

REQUEST_BYTES_MAX: Final = 100 * 1024 * 1024
"""Upstream's `netty.server.max-request-size`; pyfluss stays below 10 MiB."""

ACCEPTED_REQUESTS_PER_CONNECTION: Final = 512
"""Unanswered requests of one connection before it is read no more (upstream queues 500 a server)."""

ACCEPTED_BYTES_PER_CONNECTION: Final = 64 * 1024 * 1024
"""Unanswered request bytes of one connection; six of pyfluss's largest requests."""

RING_EVENTS: Final = 256
"""Recent events kept for a dump: the last seconds of a quiet server, the last burst of a busy one."""

FRAME_HEAD_REQUEST_BYTES: Final = 8
"""Key, version and request id: no request is shorter."""

DEDUP_WINDOW_BATCHES: Final = 5
"""Batches of one writer whose sequence is remembered: clients keep at most 5 in flight a bucket."""

WRITER_EXPIRY_MS: Final = 7 * 24 * 3600 * 1000
"""Upstream's `log.writer.expiration`... counted in log time, the same on every replica."""

INDEX_INTERVAL_BYTES: Final = 64 * 1024
"""Distance of entries in the sparse index: one read finds any batch between two of them."""

DENSE_BATCHES: Final = 65536
"""Newest batches whose (offset, position) stay in memory: 1 MiB a bucket at most."""

SEGMENT_BYTES: Final = 1024 * 1024 * 1024
"""Upstream's `log.segment.file-size`."""

CHECKPOINT_PAUSE_MS: Final = 5_000
"""Between two rounds of checkpoints: recovery looks at what five seconds brought, and at 16 MiB a bucket.

One every 16 MiB synced thirty times a second at 500 MB/s, and took a fifth of the rate."""

RECOVERY_READ_BYTES: Final = 256 * 1024
"""Read per recovery step: about 1 ms of checksums and heads, so that others get their turn."""

RETRY_HOLD_MS: Final = 25
"""How long answers 12, 21, 29 and 44 are held: official clients resend them at once."""

LEADERLESS_HOLD_MS: Final = 200
"""How long metadata without a leader is held, in the hope of one."""

FETCH_WAIT_DEFAULT_MS: Final = 100
"""Wait of a fetch with min_bytes and without max_wait_ms; upstream's constant."""

FETCH_BUCKET_BYTES_MAX: Final = 16 * 1024 * 1024
"""Bytes of one bucket in one fetch answer, whatever the client allows (its own default is 1 MiB)."""

PLAIN_REQUEST_BYTES_MAX: Final = 4 * 1024 * 1024
"""Request without log data. Parsed, 4 MiB may be 250 MiB; a fetch of 16,384 buckets has 400 KiB."""

INTRODUCTION_BYTES_MAX: Final = 256 * 1024
"""Tables that pyfluss is told of with the servers, some hundreds: it forgets all others."""

REQUEST_ITEMS_MAX: Final = 16_384
"""Buckets, tables, batches and all else that one request may list: each takes up to 25 us, and others wait.

Ten thousand buckets are more than one server leads."""

AHEAD_BYTES_MIN: Final = 64 * 1024
"""Answer of one bucket from which what follows it is read ahead: reading less than that costs nothing."""

AHEAD_BYTES_MAX: Final = 8 * 1024 * 1024
"""Read ahead of one reader: a projected answer comes from some MiB. About 1 ms from the page cache."""

AHEAD_HELD_BYTES: Final = 16 * 1024 * 1024
"""Held of all that was read ahead on one server: sixteen readers with the limit of official clients."""

FRESH_BYTES_MAX: Final = 64 * 1024
"""Write that is held for readers who wait for it: a larger one costs more to copy than to read again."""

FETCH_BYTES_MAX: Final = 64 * 1024 * 1024
"""Bytes of one fetch answer, whatever the client allows: a request of 1 KiB that names a bucket a hundred
times must not cost gigabytes. Official clients ask for 16 MiB."""

LIMIT_SCAN_BYTES_MAX: Final = 64 * 1024 * 1024
"""Bytes that one LIMIT_SCAN reads: it is for the last few rows, and is answered in one piece."""

TERM_COMMIT_HOLD_MS: Final = 1000
"""How long latest offsets and lookups wait for a new leader's first commit, before 44."""

ARROW_BODY_BYTES_MAX: Final = 256 * 1024 * 1024
"""Bytes of one ARROW batch before compression, written or read: a request has 100 MiB of rows, and their
changes have old and new ones. A few bytes may claim to become gigabytes, or update rows that large."""

ARROW_VALUES_MAX: Final = 32 * 1024 * 1024
"""Values of such a batch, nested ones and nulls included: each takes eight bytes and more once it is read,
also where a batch has not a bit for it. 32,768 rows of 1,000 columns."""

KV_BLOCK_KEYS: Final = 512
"""Keys of a block of sorted rows: a block is copied for each key that comes, 1 us for so many."""

PUT_REQUEST_BYTES_MAX: Final = 16 * 1024 * 1024
"""One PUT_KV request; official clients' have 10 MiB at most."""

PUT_SLICE_BYTES: Final = 8 * 1024
"""Of batches that are put before others get their turn: some 300 small rows, about 3 ms.

A larger one is merged in slices of MERGE_SLICE_RECORDS."""

MERGE_SLICE_RECORDS: Final = 2048
"""Records of a large batch that are merged, or folded again, before others get their turn: some 3 ms.

Columns of an ARROW changelog are made in one piece each, 0.1 us a value."""

LOOKUP_BYTES_MAX: Final = 64 * 1024 * 1024
"""Values of one lookup, prefix lookup or limit scan: a short request must not cost gigabytes."""

RESTORE_SLICE_RECORDS: Final = 256
"""Records that are folded back into rows before others get their turn: about 2 ms.

A batch of more is folded in slices of MERGE_SLICE_RECORDS."""

RESTORES_AT_ONCE: Final = 4
"""Buckets whose logs are folded at the same time: the work is the processor's, so more help nobody."""

SCANNERS_PER_BUCKET: Final = 8
"""Open scans of one primary-key bucket, as upstream."""

SCANNERS_PER_SERVER: Final = 200
"""Open scans of all buckets of a server, as upstream."""

SCANNER_TTL_MS: Final = 10 * 60_000
"""How long an open scan waits for its next call, as upstream."""

SCAN_KV_BYTES_MAX: Final = 1024 * 1024
"""Rows of one answer of a scan, whatever its call allows: 1 MiB is put together in some ms."""

EXPIRED_SCANNERS: Final = 1024
"""Ids of scans that ended by their time, so that a late call is told so: 16 KiB."""
