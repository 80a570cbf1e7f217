"""Access to files on servers: S3, Google Cloud Storage, Azure and the web; credentials come from the environment."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pip_dagster.declaration.lake import AWAY
from pip_dagster.errors import PipelineError
from pip_dagster.sql.names import literal, quote
from pip_dagster.warehouse import s3

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

# Seconds without an answer, and how often a request is repeated: a server that is away is reported within two minutes.
_TIMEOUT, _RETRIES = 30, 3

_HTTP = ("error for HTTP ", "HTTP Error", "in region '", "AzureStorageFileSystem", "get a new connection for: http")
_AWAY = (*AWAY, "Could not resolve hostname", "get a new connection for: http")


_EXTENSIONS = {"s3": "httpfs", "gs": "httpfs", "http": "httpfs", "https": "httpfs", "az": "azure", "abfss": "azure"}


def extensions(place: str) -> tuple[str, ...]:
    """The extensions of DuckDB that it needs for a place; none for a path."""
    scheme, separator, _ = place.partition("://")
    found = (_EXTENSIONS[scheme],) if separator and scheme in _EXTENSIONS else ()
    return (*found, "aws") if scheme == "s3" and not os.environ.get("AWS_ACCESS_KEY_ID") else found


def reach(con: DuckDBPyConnection, scope: str, needed_by: str, error: type[PipelineError]) -> None:
    """Give `con` access to what is under `scope`, a URL's bucket, container or host.

    Raises:
        PipelineError: of the type `error`; an extension is missing, or there are no credentials.
    """
    scheme = scope.partition("://")[0]
    if scheme == "s3":
        s3.reach(con, scope, needed_by, error)
    elif scheme == "gs":
        _reach_gcs(con, scope, needed_by, error)
    elif scheme in ("az", "abfss"):
        _reach_azure(con, scope, needed_by, error)
        return
    else:
        s3.load_extension(con, "httpfs", needed_by, error)
    con.execute(f"SET http_timeout = {_TIMEOUT}; SET http_retries = {_RETRIES}")


def _reach_gcs(con: DuckDBPyConnection, scope: str, needed_by: str, error: type[PipelineError]) -> None:
    s3.load_extension(con, "httpfs", needed_by, error)
    keys = {"KEY_ID": "GCS_ACCESS_KEY_ID", "SECRET": "GCS_SECRET_ACCESS_KEY"}
    if missing := [name for name in keys.values() if not os.environ.get(name)]:
        raise error(
            f"There are no credentials for {scope}, which {needed_by} needs. Create an HMAC key of a service account "
            f"in Google Cloud Storage, and set {' and '.join(missing)}."
        )
    options = {key: literal(os.environ[name]) for key, name in keys.items()}
    _create(con, "gcs", scope, options | s3.address(os.environ.get("GCS_ENDPOINT_URL")), needed_by, error)


def _reach_azure(con: DuckDBPyConnection, scope: str, needed_by: str, error: type[PipelineError]) -> None:
    s3.load_extension(con, "azure", needed_by, error)
    found = {name: value for name, value in os.environ.items() if name.startswith("AZURE_") and value}
    principal = {"TENANT_ID": "AZURE_TENANT_ID", "CLIENT_ID": "AZURE_CLIENT_ID", "CLIENT_SECRET": "AZURE_CLIENT_SECRET"}
    if connection := found.get("AZURE_STORAGE_CONNECTION_STRING"):
        options = {"CONNECTION_STRING": literal(connection)}
    elif not (account := found.get("AZURE_STORAGE_ACCOUNT")):
        raise error(
            f"There is no storage account for {scope}, which {needed_by} needs. Set AZURE_STORAGE_CONNECTION_STRING, "
            "or AZURE_STORAGE_ACCOUNT with AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET; the account alone "
            "is enough on a machine that has an identity."
        )
    elif all(name in found for name in principal.values()):
        options = {key: literal(found[name]) for key, name in principal.items()}
        options |= {"PROVIDER": "service_principal", "ACCOUNT_NAME": literal(account)}
    else:
        options = {"PROVIDER": "credential_chain", "ACCOUNT_NAME": literal(account)}
    _create(con, "azure", scope, options, needed_by, error)


def _create(
    con: DuckDBPyConnection, kind: str, scope: str, options: dict[str, str], needed_by: str, error: type[PipelineError]
) -> None:
    import duckdb

    listed = ", ".join(f"{key} {value}" for key, value in {"TYPE": kind, "SCOPE": literal(scope), **options}.items())
    try:
        con.execute(f"CREATE OR REPLACE TEMPORARY SECRET {quote(f'{kind} {scope}')} ({listed})")
    except duckdb.Error:  # its text may hold what the secret consists of
        raise error(
            f"The credentials for {scope}, which {needed_by} needs, cannot be used. Correct the environment variables "
            f"{'AZURE_…' if kind == 'azure' else 'GCS_…'} of this process."
        ) from None


@dataclass(frozen=True)
class _Service:
    """How messages name a server, its credentials and its address."""

    server: str
    credentials: str
    address: str

    @classmethod
    def of(cls, place: str) -> _Service:
        scheme, _, rest = place.partition("://")
        if scheme == "gs":
            server = os.environ.get("GCS_ENDPOINT_URL") or "Google Cloud Storage"
            return cls(server, "GCS_ACCESS_KEY_ID and GCS_SECRET_ACCESS_KEY", "GCS_ENDPOINT_URL")
        if scheme in ("az", "abfss"):
            return cls("Azure", "the variables AZURE_…", "AZURE_STORAGE_ACCOUNT")
        if scheme in ("http", "https"):
            return cls(f"{scheme}://{rest.split('/')[0]}", "the right of everybody to read it", "the URL")
        server = s3.endpoint_of_s3() or "Amazon's S3"
        return cls(server, "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL")


def is_of_server(error: BaseException) -> bool:
    """Whether an error of DuckDB's is one of a server that it reads files from."""
    return any(text in str(error) for text in _HTTP)


def is_away(error: BaseException) -> bool:
    """Whether such an error may be gone in a while."""
    return any(words in str(error) for words in _AWAY)


def trouble(error: BaseException, place: str) -> str:
    """What an error of a server means and what to do; a sentence or two that name the server and DuckDB's own words."""
    text, service = str(error).strip(), _Service.of(place)
    server = service.server
    said = f"DuckDB says: {text.splitlines()[0]}"
    if code := re.search(
        r"^(NoSuchBucket|SignatureDoesNotMatch|InvalidAccessKeyId|AccessDenied|\w+Expired\w*):", text, re.M
    ):
        said += f" ({code[1]})"
    if is_away(error):
        kind = "The S3 server " if place.startswith(s3.PREFIX) else ""
        what = f"{kind}{server} does not answer. Start it or wait for it, or correct {service.address}."
    elif "NoSuchBucket" in text:
        bucket = place.partition("://")[2].split("/")[0]
        what = f"There is no bucket {bucket} on {server}. Create it, or correct the name of the bucket."
    elif "RequestTimeTooSkewed" in text:
        what = f"The clock of this machine differs from that of {server} by more than S3 accepts. Set the clock."
    elif "HTTP 403" in text or "HTTP 401" in text:
        what = (
            f"{server} refuses the credentials, or they have no right to {place}. Correct {service.credentials} of "
            "this process, or extend their rights."
        )
    elif "HTTP 404" in text or "No files found" in text:
        what = f"There is no such object on {server}. Write it, or correct the path {place}."
    elif "HTTP 301" in text or "HTTP 400" in text:
        what = f"{server} expects another region or address. Correct AWS_REGION and {service.address}."
    elif "ETag" in text:
        what = "The object was replaced while it was read. Run again."
    else:
        what = f"{server} failed."
    return f"{what} {said}"
