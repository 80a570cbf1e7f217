"""Connections to a lake: extensions, credentials, attaching."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from pip_dagster.declaration.lake import Lake, is_transient
from pip_dagster.errors import NoWarehouseError, StorageError, WarehouseError
from pip_dagster.sql.names import CATALOG, literal
from pip_dagster.warehouse import advisory, memory, remote, s3, schema

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

# A mistyped host must be reported sooner than a lock that is not free.
_REACHABLE_WITHIN = 15.0


@contextmanager
def opened(
    con: DuckDBPyConnection, lake: Lake, *, purpose: str, read_only: bool, deadline: float, new: Callable[[], None]
) -> Iterator[None]:
    """The lake as the default catalog; with `read_only`, as of one moment. `new` is called where it has no ledger yet.

    Opening waits for no other process: a writer waits for its turn in `transaction`.

    Raises:
        WarehouseError: an extension, Postgres or the catalog is missing; DuckDB's text, without secrets.
        StorageError: the S3 that its files are in is away, or refuses.
    """
    _load_extensions(con, lake)
    try:
        _attach(con, lake, purpose, read_only=read_only, deadline=deadline)
    except NoWarehouseError:
        new()
        raise
    try:
        with _of_data(lake):
            con.execute(f"USE {CATALOG}")
            con.execute(f"SET VARIABLE {advisory.LOCKS} = {not read_only}")
            schema.ensure(con, lake, read_only=read_only, new=new)
            if read_only:
                con.execute("BEGIN TRANSACTION")
            yield
            if read_only:
                con.execute("COMMIT")
    finally:
        import duckdb

        with suppress(duckdb.TransactionException):
            con.execute("ROLLBACK")
        _detach(con)


def _load_extensions(con: DuckDBPyConnection, lake: Lake) -> None:
    for name in ("postgres_scanner", "ducklake"):
        s3.load_extension(con, name, str(lake), WarehouseError)
    if lake.is_on_s3:
        s3.reach(con, lake.data_path, str(lake), WarehouseError)
    # A commit that another one preceded is only renumbered, so it need not wait for long.
    con.execute("SET ducklake_retry_wait_ms = 10; SET ducklake_retry_backoff = 1.2; SET ducklake_max_retry_count = 30")
    if password := dict(lake.secrets).get("password"):
        con.execute(f"CREATE OR REPLACE TEMPORARY SECRET {CATALOG} (TYPE postgres, PASSWORD {literal(password)})")


@contextmanager
def catalog(con: DuckDBPyConnection, lake: Lake, *, purpose: str) -> Iterator[None]:
    """Only the Postgres of the lake's catalog, attached as `advisory.LOCKS`; the lake itself is not open."""
    _load_extensions(con, lake)
    connection = lake.connection(f"{advisory.APPLICATION} {advisory.this_process()} {purpose}")
    secret = f", SECRET {CATALOG}" if "password" in dict(lake.secrets) else ""  # pragma: allowlist secret
    con.execute(f"ATTACH {literal(connection)} AS {advisory.LOCKS} (TYPE postgres{secret})")
    try:
        yield
    finally:
        con.execute(f"DETACH {advisory.LOCKS}")


@contextmanager
def _of_data(lake: Lake) -> Iterator[None]:
    """Report an error of the S3 that the lake's files are in.

    Raises:
        StorageError: the server is away, or refuses; nothing of the transaction was stored.
    """
    import duckdb

    try:
        yield
    except duckdb.Error as error:
        if not (lake.is_on_s3 and remote.is_of_server(error)):
            raise
        raise StorageError(
            f"The files of the warehouse {lake}, in {lake.data_path}, cannot be used. "
            f"{remote.trouble(error, lake.data_path)}\nNothing is lost: committed partitions are kept."
        ) from error


# A DuckLake keeps the rows of small commits in tables of its Postgres, which have 1,600 columns at most. A run of
# wider rows writes all of its rows to files.
_INLINED = 1_500


def _attach(con: DuckDBPyConnection, lake: Lake, purpose: str, *, read_only: bool, deadline: float) -> None:
    import duckdb

    until = time.monotonic() + min(deadline, _REACHABLE_WITHIN)
    while True:
        try:
            _attach_once(con, lake, purpose, read_only=read_only)
            return
        except duckdb.Error as error:
            _detach(con)
            if "DATA_PATH" in str(error):
                raise WarehouseError(
                    f"The warehouse {lake} was created with another data_path: {str(error).splitlines()[0]}\n"
                    "Set data_path to that value. If the Parquet files were moved, update the catalog instead: "
                    "UPDATE ducklake_metadata SET value = '<their folder>/' WHERE key = 'data_path'."
                ) from None
            if not is_transient(error):
                raise WarehouseError(f"The warehouse {lake} cannot be opened: {lake.safe(error)}") from None
            if time.monotonic() >= until:
                raise WarehouseError(f"The warehouse {lake} could not be reached: {lake.safe(error)}") from None
            time.sleep(random.uniform(0.1, 0.5))


def _attach_once(con: DuckDBPyConnection, lake: Lake, purpose: str, *, read_only: bool) -> None:
    who = f"{advisory.APPLICATION} {advisory.this_process()} {purpose}"
    has_password = "password" in dict(lake.secrets)  # pragma: allowlist secret
    connection = lake.connection(who)
    if "://" not in lake.data_path and not read_only:
        Path(lake.data_path).mkdir(parents=True, exist_ok=True)
    options = ["READ_ONLY"] if read_only else []
    con.execute(
        f"ATTACH {literal(connection)} AS {advisory.LOCKS} "
        f"({', '.join(['TYPE postgres', *([f'SECRET {CATALOG}'] if has_password else []), *options])})"
    )
    options += [f"DATA_PATH {literal(lake.data_path)}", *([f"META_SECRET {literal(CATALOG)}"] if has_password else [])]
    if not read_only and memory.noted_columns(con) > _INLINED:
        options.append("DATA_INLINING_ROW_LIMIT 0")
    attach = f"ATTACH {literal('ducklake:postgres:' + connection)} AS {CATALOG} ({', '.join(options)})"
    there = con.execute(
        f"SELECT present FROM postgres_query({literal(advisory.LOCKS)}, "
        "'SELECT to_regclass(''ducklake_metadata'') IS NOT NULL AS present')"
    ).fetchone()
    if there and there[0]:
        con.execute(attach)
        if read_only:
            con.execute(f"DETACH {advisory.LOCKS}")
    elif read_only:
        raise NoWarehouseError(f"There is no warehouse in {lake} yet: materialize a partition first.")
    else:  # two processes that create it at once would conflict
        with advisory.holding(con, [advisory.WAREHOUSE]):
            con.execute(attach)


def _detach(con: DuckDBPyConnection) -> None:
    con.execute("USE memory")
    con.execute(f"RESET VARIABLE {advisory.LOCKS}")
    con.execute(f"DETACH DATABASE IF EXISTS {CATALOG}")
    con.execute(f"DETACH DATABASE IF EXISTS {advisory.LOCKS}")
