"""Databases for tests, made through the official client.

Must not be imported where pyfluss is not installed.
"""

from __future__ import annotations

import asyncio

import fluss


def create_database(bootstrap_servers: str, name: str) -> None:
    """Create database *name* on the cluster at *bootstrap_servers*."""
    asyncio.run(_create(bootstrap_servers, name))


async def _create(bootstrap_servers: str, name: str) -> None:
    config = fluss.Config({"bootstrap.servers": bootstrap_servers})
    async with await fluss.FlussConnection.create(config) as connection:
        await connection.get_admin().create_database(name)
