"""Who works in a run, drawn from the seed: tables, and how each client goes about it."""

from __future__ import annotations

from typing import Final

import attrs

from flussd.runtime_sim.draws import Stream
from flussd.runtime_sim.workload.keyed_tables import KeyedSpec
from flussd.runtime_sim.workload.looker import LookerConfig
from flussd.runtime_sim.workload.reader import ReaderConfig
from flussd.runtime_sim.workload.rows import Wanted
from flussd.runtime_sim.workload.tables import TableSpec
from flussd.runtime_sim.workload.writer import WriterConfig

KEYED_PPM: Final = 500_000
"""How many seeds have primary-key tables; the others are as they would be without."""


@attrs.frozen
class KeyedLoad:
    """The primary-key tables of a run, perhaps none, and the configurations of their clients."""

    tables: tuple[KeyedSpec, ...]
    upserters: tuple[WriterConfig, ...]
    followers: tuple[ReaderConfig, ...]
    lookers: tuple[LookerConfig, ...]

    @classmethod
    def drawn(cls, seed: int) -> KeyedLoad:
        """Draw the primary-key tables of *seed*, and who works with them."""
        draws = Stream.of(seed, "keyed")
        if not draws.chance(KEYED_PPM):
            return cls((), (), (), ())
        count = draws.choice((1, 1, 2))
        return cls(
            tuple(KeyedSpec.drawn_keyed(seed, n) for n in range(count)),
            tuple(
                _upserter(Stream.of(seed, "upserter", n), Stream.of(seed, "spread", n))
                for n in range(draws.between(count, count + 1))
            ),
            tuple(_follower(Stream.of(seed, "follower", n)) for n in range(count)),
            tuple(
                _looker(Stream.of(seed, "looker", n), draws.choice(((5, 60), (20, 300))))
                for n in range(draws.between(count, count + 1))
            ),
        )

    @property
    def clients(self) -> list[str]:
        """The names of its client nodes."""
        if not self.tables:
            return []
        upserters = [f"upserter-{n}" for n in range(len(self.upserters))]
        followers = [f"follower-{n}" for n in range(len(self.followers))]
        lookers = [f"looker-{n}" for n in range(len(self.lookers))]
        return [*upserters, *followers, *lookers, "keyed-alterer"]


@attrs.frozen
class Load:
    """The tables of a run, and the configurations of its clients."""

    tables: tuple[TableSpec, ...]
    writers: tuple[WriterConfig, ...]
    readers: tuple[ReaderConfig, ...]
    alterer_pause_ms: tuple[int, int]
    keyed: KeyedLoad

    @classmethod
    def drawn(cls, seed: int) -> Load:
        """Draw the load of *seed*."""
        draws = Stream.of(seed, "load")
        buckets = [draws.between(1, 3) for _ in range(draws.choice((1, 1, 2)))]
        tables = tuple([TableSpec.drawn(seed, n, count) for n, count in enumerate(buckets)])
        return cls(
            tables,
            tuple(_writer(Stream.of(seed, "writer", n)) for n in range(draws.between(1, 3))),
            tuple(
                _reader(Stream.of(seed, "reader", n), tables[n % len(tables)])
                for n in range(draws.between(1, 2))
            ),
            Stream.of(seed, "alterer").choice(((20, 1_500), (20, 1_500), (5, 300))),
            KeyedLoad.drawn(seed),
        )

    @property
    def clients(self) -> list[str]:
        """The names of the client nodes that faults may hit."""
        writers = [f"writer-{n}" for n in range(len(self.writers))]
        readers = [f"reader-{n}" for n in range(len(self.readers))]
        return [*writers, *readers, "admin", "sink", "alterer", "prober"]


def _writer(draws: Stream) -> WriterConfig:
    return WriterConfig(
        acks=draws.choice((-1, -1, -1, -1, 1, 0)),
        pause_ms=draws.choice((40, 120, 300)),
        payload_bytes_max=draws.choice((30, 600, 3_000)),
        records_max=draws.choice((1, 10)),
        timeout_ms=draws.choice((500, 3_000)),
        magic=draws.choice((0, 1, 2, 2)),
        batches_per_request=draws.choice((1, 1, 1, 2)),
        statistics_ppm=draws.choice((0, 500_000, 1_000_000)),
    )


def _upserter(draws: Stream, spread: Stream) -> WriterConfig:
    return WriterConfig(
        acks=draws.choice((-1, -1, -1, -1, 1, 0)),
        pause_ms=draws.choice((40, 120, 300)),
        payload_bytes_max=0,
        records_max=draws.choice((1, 6, 6, 20)),
        timeout_ms=draws.choice((500, 3_000)),
        magic=0,
        batches_per_request=1,
        statistics_ppm=0,
        spreads=spread.chance(400_000),
    )


def _follower(draws: Stream) -> ReaderConfig:
    max_bytes = draws.choice((2_000, 100_000))
    return ReaderConfig(
        pause_ms=draws.choice((2, 20, 60)),
        wait_ms=draws.choice((50, 500, 2_000)),
        min_bytes=1,
        max_bytes=max_bytes,
        bucket_bytes=draws.choice((1_000, 100_000)),
        restart_ppm=draws.choice((0, 20_000)),
    )


def _looker(draws: Stream, pause_ms: tuple[int, int]) -> LookerConfig:
    return LookerConfig(
        pause_ms,
        inserts_ppm=draws.choice((0, 300_000, 600_000)),
        acks=draws.choice((-1, -1, 1, 0)),
        timeout_ms=draws.choice((500, 3_000)),
    )


def _reader(draws: Stream, table: TableSpec) -> ReaderConfig:
    max_bytes = draws.choice((2_000, 100_000))
    config = ReaderConfig(
        pause_ms=draws.choice((2, 20, 60)),
        wait_ms=draws.choice((50, 500, 2_000)),
        min_bytes=draws.choice((1, 1, max_bytes // 20)),
        max_bytes=max_bytes,
        bucket_bytes=draws.choice((1_000, 100_000)),
        restart_ppm=draws.choice((0, 20_000)),
    )
    if draws.chance(400_000):
        config = attrs.evolve(config, wanted=Wanted.drawn(draws), pause_ms=max(20, config.pause_ms))
    if draws.chance(300_000):
        columns = tuple([n for n in range(len(table.columns)) if draws.chance(500_000)])
        config = attrs.evolve(config, columns=columns)
    return config
