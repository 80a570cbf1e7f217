"""DuckDB's own lockdown: the second line behind the parse tree, which judges what a query may read.

It is the whole database's, not a connection's, and cannot be undone. So a person's SQL runs in a database of its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from pip_dagster.sql.names import literal

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

# For `duckdb.connect`: names are no Python variables, and no extension is fetched or loaded on the way.
CONFINED: dict[str, str | bool | int | float | list[str]] = {
    "python_enable_replacements": False,
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
}


def confine(con: DuckDBPyConnection, *, files: Iterable[str] = (), folders: Iterable[str] = ()) -> None:
    """Allow no other files from now on than what is attached, `files`, and what is in `folders`.

    No setting can change but how much it may use: work that needs more memory gets it. To be called after everything is
    attached, every extension loaded and every setting made.
    """
    for setting, paths in (("allowed_paths", files), ("allowed_directories", folders)):
        con.execute(f"SET {setting} = [{', '.join(map(literal, sorted(paths)))}]")
    con.execute("SET allowed_configs = ['memory_limit', 'threads']")
    con.execute("SET enable_external_access = false")
    con.execute("SET lock_configuration = true")
