"""What a request names: the database, the table; or the refusal with the right code.

Pure functions of (catalog, path), for those who answer and for those who decide.
"""

from __future__ import annotations

from flussd.core.catalog.catalog import Catalog
from flussd.core.catalog.records import DatabaseRecord, TableRecord
from flussd.core.records.refusal import Refused
from flussd.core.wire import messages
from flussd.core.wire.errors import ErrorCode


def database_of(catalog: Catalog, name: str) -> DatabaseRecord:
    """Return a database, or refuse."""
    record = catalog.databases.get(name)
    if record is None:
        raise Refused(ErrorCode.DATABASE_NOT_EXIST, f"database {name} does not exist")
    return record


def table_of(catalog: Catalog, path: messages.PbTablePath | messages.PbPhysicalTablePath) -> TableRecord:
    """Return a table, or refuse."""
    record = catalog.tables.get((path.database_name, path.table_name))
    if record is None:
        text = f"table {path.database_name}.{path.table_name} does not exist"
        raise Refused(ErrorCode.TABLE_NOT_EXIST, text)
    return record


def partitioned_table_of(catalog: Catalog, path: messages.PbTablePath) -> TableRecord:
    """Return a table that has partitions, or refuse."""
    table = table_of(catalog, path)
    if not table.is_partitioned:
        text = f"table {table.database}.{table.name} is not partitioned"
        raise Refused(ErrorCode.TABLE_NOT_PARTITIONED_EXCEPTION, text)
    return table
