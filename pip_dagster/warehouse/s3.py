"""Access to S3, for a lake's files and for sources, and DuckDB's extensions. `remote` has the other servers."""

from __future__ import annotations

import importlib.util
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from pip_dagster.errors import PipelineError
from pip_dagster.sql.names import literal, quote

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

PREFIX = "s3://"
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")


def load_extension(con: DuckDBPyConnection, name: str, needed_by: str, error: type[PipelineError]) -> None:
    """Load an extension of DuckDB: from its package, else as installed, else from DuckDB's own site.

    Raises:
        PipelineError: of the type `error`; it cannot be loaded.
    """
    import duckdb

    try:
        if file := packaged(name):
            con.execute(f"LOAD {literal(str(file))}")
            return
        with suppress(duckdb.Error):
            con.execute(f"LOAD {name}")
            return
        con.execute(f"INSTALL {name}; LOAD {name}")
    except duckdb.Error as failed:
        raise error(
            f"DuckDB {duckdb.__version__} cannot load its extension {name}, which {needed_by} needs: {failed}\n"
            "Install pip-dagster[lake] or pip-dagster[sources], whose packages are for DuckDB 1.5.5, or run INSTALL "
            "once on a machine that reaches extensions.duckdb.org."
        ) from failed


def packaged(name: str) -> Path | None:
    """The file of an extension in its package, where that is for the installed DuckDB."""
    import duckdb

    found = importlib.util.find_spec(f"duckdb_extension_{name}")
    folder = Path(found.origin).parent if found and found.origin else Path()
    file = folder / "extensions" / f"v{duckdb.__version__}" / f"{name}.duckdb_extension"
    return file if file.is_file() else None


def reach(con: DuckDBPyConnection, scope: str, needed_by: str, error: type[PipelineError]) -> None:
    """Give `con` access to what is under `scope`, with the credentials that every AWS client uses.

    They are those of the environment, else the machine's role.

    Raises:
        PipelineError: of the type `error`; an extension is missing, or there are no credentials.
    """
    import duckdb

    environment = os.environ
    load_extension(con, "httpfs", needed_by, error)
    options = {"TYPE": "s3", "SCOPE": literal(scope)}
    if environment.get("AWS_ACCESS_KEY_ID"):
        names = {"KEY_ID": "AWS_ACCESS_KEY_ID", "SECRET": "AWS_SECRET_ACCESS_KEY", "SESSION_TOKEN": "AWS_SESSION_TOKEN"}
        options |= {key: literal(environment[name]) for key, name in names.items() if environment.get(name)}
    else:
        load_extension(con, "aws", needed_by, error)
        options["PROVIDER"] = "credential_chain"
    if region := environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION"):
        options["REGION"] = literal(region)
    options |= address(endpoint_of_s3())
    listed = ", ".join(f"{key} {value}" for key, value in options.items())
    try:
        con.execute(f"CREATE OR REPLACE TEMPORARY SECRET {quote('s3 ' + scope)} ({listed})")
    except duckdb.Error:  # its text may hold what the secret consists of
        raise error(
            f"There are no credentials for {scope}, which {needed_by} needs. Set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or run where the machine has a role."
        ) from None


def address(endpoint: str | None) -> dict[str, str]:
    """Options of a secret for another server than the provider's; none where there is no endpoint."""
    if not endpoint:
        return {}
    scheme, _, place = endpoint.rpartition("://")
    return {"ENDPOINT": literal(place.rstrip("/")), "URL_STYLE": "'path'", "USE_SSL": str(scheme != "http")}


def endpoint_of_s3() -> str | None:
    """The declared server; None for Amazon's."""
    return next((os.environ[name] for name in _ENDPOINTS if os.environ.get(name)), None)
