"""Access to S3, for a lake's files and for sources: DuckDB's extensions, credentials, and what their errors mean."""

from __future__ import annotations

import importlib.util
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from pip_dagster.declaration.lake import AWAY
from pip_dagster.errors import PipelineError
from pip_dagster.sql.names import literal, quote

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

PREFIX = "s3://"
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")

_HTTP = ("error for HTTP ", "HTTP Error", "in region '")


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
    if endpoint := _endpoint():
        scheme, _, place = endpoint.rpartition("://")
        options |= {"ENDPOINT": literal(place.rstrip("/")), "URL_STYLE": "'path'", "USE_SSL": str(scheme != "http")}
    listed = ", ".join(f"{key} {value}" for key, value in options.items())
    try:
        con.execute(f"CREATE OR REPLACE TEMPORARY SECRET {quote('s3 ' + scope)} ({listed})")
    except duckdb.Error:  # its text may hold what the secret consists of
        raise error(
            f"There are no credentials for {scope}, which {needed_by} needs. Set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or run where the machine has a role."
        ) from None


def _endpoint() -> str | None:
    return next((os.environ[name] for name in _ENDPOINTS if os.environ.get(name)), None)


def is_of_s3(error: BaseException) -> bool:
    """Whether an error of DuckDB's is one of a server that it asked by HTTP."""
    return any(text in str(error) for text in _HTTP)


def trouble(error: BaseException, place: str) -> str:
    """What an error of S3 means and what to do; a sentence or two that name the server and DuckDB's own words."""
    text = str(error).strip()
    server = _endpoint() or "Amazon's S3"
    said = f"DuckDB says: {text.splitlines()[0]}"
    if code := re.search(
        r"^(NoSuchBucket|SignatureDoesNotMatch|InvalidAccessKeyId|AccessDenied|\w+Expired\w*):", text, re.M
    ):
        said += f" ({code[1]})"
    if any(words in text for words in AWAY):
        what = f"The S3 server {server} does not answer. Start it or wait for it, or correct AWS_ENDPOINT_URL."
    elif "NoSuchBucket" in text:
        bucket = place.removeprefix(PREFIX).split("/")[0]
        what = f"There is no bucket {bucket} on {server}. Create it, or correct the name of the bucket."
    elif "RequestTimeTooSkewed" in text:
        what = f"The clock of this machine differs from that of {server} by more than S3 accepts. Set the clock."
    elif "HTTP 403" in text or "HTTP 401" in text:
        what = (
            f"{server} refuses the credentials, or they have no right to {place}. Correct AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY of this process, or extend their rights."
        )
    elif "HTTP 404" in text or "No files found" in text:
        what = f"There is no such object on {server}. Write it, or correct the path {place}."
    elif "HTTP 301" in text or "HTTP 400" in text:
        what = f"{server} expects another region or address. Correct AWS_REGION and AWS_ENDPOINT_URL."
    elif "ETag" in text:
        what = "The object was replaced while it was read. Run again."
    else:
        what = f"{server} failed."
    return f"{what} {said}"
