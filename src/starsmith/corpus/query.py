"""Relational work over Parquet parts, in DuckDB.

DuckDB spills to disk and takes a memory limit; so joins, groupings and orderings
inside a partition or over narrow columns are SQL. No Python functions are registered in it. Results that are
written are ordered by identifiers: DuckDB promises no order of its own.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import duckdb
import pyarrow as pa

from starsmith.corpus import schema

Tables = Mapping[str, Sequence[Path]]
"""Table name (a lower-case name of `schema`) to its Parquet parts; no parts is an empty table."""

SCHEMAS: dict[str, pa.Schema] = {
    name.lower(): value for name, value in vars(schema).items() if isinstance(value, pa.Schema)
}


def connect(
    tables: Tables, *, memory_limit: str = "800MB", threads: int = 1, spill: Path | None = None
) -> duckdb.DuckDBPyConnection:
    """An in-memory DuckDB with one view per table.

    Args:
        tables: the views; the names must be in `SCHEMAS` when a table has no parts.
        memory_limit: DuckDB's own limit; beyond it, it spills.
        threads: DuckDB's threads.
        spill: the folder for spilling; by default beside the process.
    """
    connection = duckdb.connect(":memory:")
    connection.execute(f"SET memory_limit = '{memory_limit}'")
    connection.execute(f"SET threads = {threads:d}")
    connection.execute("SET TimeZone = 'UTC'")
    if spill is not None:
        connection.execute(f"SET temp_directory = {literal(str(spill))}")
    for name, parts in tables.items():
        if parts:
            files = ", ".join(literal(str(part)) for part in parts)
            connection.execute(f'CREATE VIEW "{name}" AS SELECT * FROM read_parquet([{files}])')
        else:
            connection.register(name, SCHEMAS[name].empty_table())
    return connection


def literal(value: str) -> str:
    """A SQL string literal."""
    return "'" + value.replace("'", "''") + "'"


def fetch(connection: duckdb.DuckDBPyConnection, sql: str, schema_: pa.Schema | None = None) -> pa.Table:
    """Runs a query; with a schema, the result is cast to it (a column that does not fit is an error)."""
    table = connection.sql(sql).to_arrow_table()
    return table if schema_ is None else table.select(schema_.names).cast(schema_)
