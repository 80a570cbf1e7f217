"""Where declared files and tables may be: a path of this machine, or a URL that holds no secret."""

from __future__ import annotations

import re

# Scheme → whether one URL may name many files.
SCHEMES = {"s3": True, "gs": True, "az": True, "abfss": True, "https": False, "http": False}
_ENVIRONMENT = {
    "s3": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY instead",
    "gs": "set GCS_ACCESS_KEY_ID and GCS_SECRET_ACCESS_KEY instead",
    "az": "set AZURE_STORAGE_ACCOUNT or AZURE_STORAGE_CONNECTION_STRING instead",
}
_QUERY = re.compile(r"\?[^/]*=|#")
# A URL with a slash too few.
_ACCOUNT = re.compile(r"(\w+:)?/{1,2}[^/@]+:[^/@]*@")
_WILD = re.compile(r"[*?\[{]")


def check_place(value: str) -> str:
    """Return a declared path or URL unchanged; no message shows one that may hold a secret.

    Raises:
        ValueError: the scheme is unknown, or there is a query, a user or a password in the URL.
    """
    scheme, separator, rest = value.partition("://")
    if not separator:
        if _ACCOUNT.match(value):
            raise ValueError("must hold no credentials: it begins as a URL with a user does; expected a path")
        return value
    if scheme not in SCHEMES:
        if not re.fullmatch(r"[a-z][a-z0-9+.-]{0,9}", scheme):
            scheme = "another kind of URL, "
        raise ValueError(f"cannot be {scheme}://; expected a path or {', '.join(f'{each}://…' for each in SCHEMES)}")
    if "@" in rest.split("/")[0] or _QUERY.search(rest):
        remedy = _ENVIRONMENT.get("az" if scheme == "abfss" else scheme, "offer the file without credentials, or in S3")
        raise ValueError(
            f"must hold no credentials: a {scheme}:// URL with a user, a query or a signature cannot be declared; "
            f"{remedy}, and replace the key if this file was shared"
        )
    if not SCHEMES[scheme] and _WILD.search(rest):
        raise ValueError(f"names many files by {scheme}://, which a web server cannot list; name one file, or use S3")
    if not rest.split("/")[0]:
        raise ValueError(f"lacks a bucket or host after {scheme}://")
    return value


def check_table_place(value: str) -> str:
    """The same of the folder of one table.

    Raises:
        ValueError: as `check_place`; or it may name several tables, or a web server.
    """
    if value.startswith(("http://", "https://")):
        raise ValueError("cannot be a table on a web server, which lists no files; expected a path or s3://bucket/path")
    if _WILD.search(check_place(value)):
        raise ValueError("names one table, its folder; expected a path without * ? [ {")
    return value


def is_remote(place: str) -> bool:
    """Whether it is a URL."""
    return place.partition("://")[0] in SCHEMES and "://" in place


def root_of(place: str) -> str | None:
    """The bucket, container or host of a URL with its scheme, `s3://bucket/`; None of a path."""
    scheme, _, rest = place.partition("://")
    return f"{scheme}://{rest.split('/')[0]}/" if is_remote(place) else None
