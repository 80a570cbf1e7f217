"""How a declaration names a server: by where its connection string is, never by the string, which has a password."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, field_validator, model_validator

from pip_dagster.declaration.strict import StrictModel
from pip_dagster.errors import SourceError

_VARIABLE = re.compile(r"[A-Za-z_]\w*")


class Server(StrictModel):
    """Where the connection string of a server is; it never stands in the declaration."""

    url_env: str | None = Field(default=None, description="The environment variable that has the connection string.")
    url_file: str | None = Field(
        default=None,
        description="A file that has it, such as a mounted secret: a path, relative to the project.",
    )

    @field_validator("url_env")
    @classmethod
    def _variable(cls, value: str | None) -> str | None:
        if value is not None and not _VARIABLE.fullmatch(value):
            raise ValueError(
                "must be the name of an environment variable, such as CRM_URL. A connection string holds a password: "
                "put it into that variable, and change the password if this file was shared"
            )
        return value

    @field_validator("url_file")
    @classmethod
    def _file(cls, value: str | None) -> str | None:
        if value is not None and holds_connection(value):
            raise ValueError("must be the path of a file that has the connection string, not the string")
        return value

    @model_validator(mode="after")
    def _one(self) -> Server:
        if (self.url_env is None) == (self.url_file is None):
            raise ValueError("takes one of `url_env` and `url_file`")
        return self

    def url(self, root: Path, where: str) -> str:
        """The connection string, which must not be shown; `where` begins the error.

        Raises:
            SourceError: there is none, or it is not one line.
        """
        if self.url_env is not None:
            if found := os.environ.get(self.url_env, "").strip():
                return _checked(found, f"{where}: the environment variable {self.url_env}")
            raise SourceError(
                f"{where}: the environment variable {self.url_env} is not set. Set it to the connection string in the "
                "environment of every process of Dagster and of the command line."
            )
        file = root / (self.url_file or "")
        try:
            found = file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeError) as error:
            why = getattr(error, "strerror", None) or "it is not UTF-8"
            raise SourceError(f"{where}: the file {file} of its connection string cannot be read: {why}.") from None
        if not found:
            raise SourceError(f"{where}: the file {file} of its connection string is empty. Write the string into it.")
        return _checked(found, f"{where}: the file {file}")

    def now(self, root: Path) -> str | None:
        """What the variable or file holds now, which must not be shown; None where that is nothing."""
        if self.url_env is not None:
            return os.environ.get(self.url_env, "").strip() or None
        try:
            return (root / (self.url_file or "")).read_text(encoding="utf-8").strip() or None
        except (OSError, UnicodeError):
            return None

    @property
    def shown(self) -> str:
        """As in a shell: `$CRM_URL`, or the file's path."""
        return f"${self.url_env}" if self.url_env else str(self.url_file)

    def __str__(self) -> str:
        """For people: where the connection string is."""
        return self.url_env or self.url_file or ""


def _checked(url: str, what: str) -> str:
    """The connection string, unless DuckDB or the server would show a part of it in an error."""
    if "\0" in url or ("://" in url and len(url.splitlines()) > 1):
        raise SourceError(f"{what} holds more than a connection string: write one line of text.")
    return url


def holds_connection(text: str) -> bool:
    """Whether a text reads like a connection string instead of a name or a path."""
    return "://" in text or bool(re.search(r"\b(password|host|user|dbname)\s*=", text, re.IGNORECASE))


def _server(value: Any) -> Any:
    return {"url_env": value} if isinstance(value, str) else value


ServerKey = Annotated[Server, BeforeValidator(_server, json_schema_input_type=str | Server)]
