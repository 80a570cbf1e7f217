"""The shared warehouse: a DuckLake with its catalog in Postgres and its rows in Parquet, on a shared disk or in S3.

The schema, the SQL and the code are the same as for a warehouse file. Only these differ: the location and which errors
are retried (here), the extensions and how it is attached (lake_connection.py), and who waits for whom (advisory.py).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from pip_dagster.errors import ProjectError
from pip_dagster.sql.names import bare_type

PREFIX = "ducklake:"
_POSTGRES = "ducklake:postgres:"
_EXPECTED = "expected ducklake:postgres:dbname=lake host=db.example user=pip, or ducklake:postgres:postgresql://…"
_SECRET = ("password", "sslpassword")
_PAIR = re.compile(r"\s*(\w+)\s*=\s*(?:'((?:[^'\\]|\\.)*)'|((?:[^\s'\\]|\\.)*))(?=\s|$)")

# Errors of a transaction that may succeed when it is retried.
_CONFLICT = ("Transaction conflict",)
# Errors of a Postgres that restarts, fails over, or has no free connection at the moment.
_UNREACHABLE = (
    *("Connection refused", "Connection timed out", "server closed the connection", "terminating connection"),
    "Is the server running locally",
    *("the database system is", "too many clients", "remaining connection slots", "no connection to the server"),
    *("could not receive data from server", "connection has been closed", 'execute query "ROLLBACK"'),
)
# DuckDB's errors of an S3 server that does not answer, or not now.
AWAY = (
    *("Could not connect to server", "Could not establish connection", "Timeout was reached"),
    *("(HTTP 500 ", "(HTTP 502 ", "(HTTP 503 ", "(HTTP 504 ", "(HTTP 429 "),
)
# Parquet cannot store HUGEINT (it would be read as the nearest DOUBLE), the microseconds of an INTERVAL or the zone of
# a time of day; DuckLake refuses the other types.
_UNKEPT = re.compile(
    r"\b(U?HUGEINT|INTERVAL|TIME WITH TIME ZONE|TIMETZ|TIME_NS|ENUM|BIT|BIGNUM|UNION|VARIANT|GEOMETRY)\b|\[\d+\]"
)


@dataclass(frozen=True)
class Lake:
    """Where a shared warehouse is: the catalog's Postgres and the folder or bucket of its Parquet files.

    Secrets of the connection string appear in no message, repr or metadata.
    """

    parameters: tuple[tuple[str, str], ...]
    data_path: str
    secrets: tuple[tuple[str, str], ...] = field(default=(), repr=False)

    @classmethod
    def parse(cls, setting: str, root: Path, data_path: str) -> Lake:
        """The lake that the settings `warehouse` and `data_path` of a project in `root` name.

        Raises:
            ProjectError: the setting is not a Postgres connection string. The message does not show it, since it may
                hold a password.
        """
        if not setting.startswith(_POSTGRES):
            raise ProjectError(
                f"The setting warehouse names a DuckLake without a Postgres catalog; {_EXPECTED}. "
                "Other catalogs do not support several writers."
            )
        text = setting.removeprefix(_POSTGRES).strip()
        found = connection_parameters(text)
        if not found:
            raise ProjectError(f"The setting warehouse is not a Postgres connection string; {_EXPECTED}.")
        if "://" not in data_path:
            data_path = str((root / data_path).resolve()) + "/"
        return cls(
            tuple((key, value) for key, value in found.items() if key not in _SECRET),
            data_path if data_path.endswith("/") else data_path + "/",
            tuple((key, value) for key, value in found.items() if key in _SECRET),
        )

    @property
    def is_on_s3(self) -> bool:
        """Whether the Parquet files are in S3."""
        return self.data_path.startswith("s3://")

    @property
    def setting(self) -> str:
        """The setting with which a child process finds the lake, secrets included."""
        return _POSTGRES + as_pairs((*self.parameters, *self.secrets))

    def connection(self, application: str) -> str:
        """The connection string without the password; `application` shows an administrator who is connected."""
        named = [(key, value) for key, value in self.parameters if key != "application_name"]
        hidden = [(key, value) for key, value in self.secrets if key != "password"]
        return as_pairs((*named, *hidden, ("application_name", application[:63])))

    def safe(self, error: object) -> str:
        """An error's text without secrets."""
        text = str(error).strip()
        for _, value in self.secrets:
            text = text.replace(value, "***") if value else text
        return text

    def __str__(self) -> str:
        """The lake for people to read, without secrets."""
        return _POSTGRES + as_pairs(self.parameters)


def connection_parameters(text: str) -> dict[str, str]:
    """The parameters of a connection string of Postgres, a URL or pairs; empty where it is neither."""
    return _of_url(text) if text.startswith(("postgres://", "postgresql://")) else _of_pairs(text)


def _of_pairs(text: str) -> dict[str, str]:
    found, at = {}, 0
    while at < len(text):
        match = _PAIR.match(text, at)
        if not match:
            return {}
        found[match[1]] = re.sub(r"\\(.)", r"\1", match[2] if match[2] is not None else match[3])
        at = match.end()
    return found


def _of_url(text: str) -> dict[str, str]:
    parts = urlsplit(text)
    account, _, hosts = parts.netloc.rpartition("@")
    user, _, password = account.partition(":")
    places = [re.fullmatch(r"(\[[^\]]*\]|[^:]*)(?::(\d+))?", place) for place in hosts.split(",")]
    if not all(places):
        return {}
    found = {
        "host": ",".join(unquote(place[1]).strip("[]") for place in places if place),
        "port": ",".join(place[2] or "5432" for place in places if place),
        "user": unquote(user),
        "password": unquote(password),
        "dbname": unquote(parts.path.removeprefix("/")),
    }
    return {key: value for key, value in found.items() if value} | dict(parse_qsl(parts.query))


def as_pairs(parameters: tuple[tuple[str, str], ...]) -> str:
    """A connection string of Postgres with these parameters."""
    plain = re.compile(r"[^\s'\\]+")
    return " ".join(
        f"{key}={value}"
        if plain.fullmatch(value)
        else "{}='{}'".format(key, value.replace("\\", "\\\\").replace("'", "\\'"))
        for key, value in parameters
    )


def unkept_type(sql_type: str) -> str | None:
    """The part of a SQL type that a lake cannot store exactly; None if it can."""
    found = _UNKEPT.search(bare_type(sql_type))
    return found[0] if found else None


def is_transient(error: BaseException) -> bool:
    """Whether the whole transaction may be retried: a conflict, or a Postgres or S3 that is briefly unreachable."""
    return any(text in str(error) for text in (*_CONFLICT, *_UNREACHABLE, *AWAY))
