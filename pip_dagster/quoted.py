"""Errors in words that quote no row: the one way of a library's error into a text.

What is stored, chained, logged, sent or shown in Dagster must be readable without access to the rows. So a text names
the pipeline, the partition, the column, the line of the SQL and how many rows; the rows themselves are in the tables of
the warehouse, for those who may read them. DuckDB's and other libraries' errors quote values. Of a value only the place
stays, as `…`; of a text of unknown form nothing but its kind.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from pip_dagster.errors import PipelineError

_NOT_KEPT = "its text is not kept, since it may quote a row"

# DuckDB's errors about the SQL, files, servers and memory; they quote no row.
_OF_NO_ROW = (
    *("Binder", "Catalog", "Parser", "Syntax", "Permission", "Out of Memory", "Dependency", "TransactionContext"),
    *("Missing Extension", "Invalid Configuration", "Settings", "HTTP", "IO", "Connection", "Network", "INTERRUPT"),
)
_KIND = re.compile(r"([A-Za-z][A-Za-z ]{2,30}?) Error: ", re.DOTALL)
# What DuckDB adds of the SQL: the line, and where in it.
_LINE = re.compile(r"\n\n(LINE \d+: [^\n]*\n *\^)\s*\Z")
# Of a server that DuckDB reads from.
_OF_SERVER = re.compile(r"\bERROR: ")
_QUOTES = re.compile(r"(['\"]).*(['\"])", re.DOTALL)


# Values that tell nothing of anybody, and what is wrong.
_OF_NOBODY = {"nan", "inf", "-inf", "infinity", "-infinity"}


@dataclass(frozen=True)
class _Form:
    """A text of DuckDB's about a value: what it begins with, and the last occurrence of what follows the value.

    `after` None: nothing behind the beginning is kept. The value stands between both, whatever it holds.
    """

    head: str
    after: str | None = None


# A value in quotes ends at the text's last quote: what follows it is DuckDB's own.
_QUOTE = r"['\"]"
_FORMS = tuple(
    (re.compile(form.head), form.after and re.compile(rf".*(?:{form.after})(.*)\Z", re.DOTALL))
    for form in (
        _Form("Could not convert string (?=['\"])", _QUOTE),
        _Form('(?:invalid|Invalid) [a-z ]{1,40}?: (?=")', _QUOTE),
        _Form('[a-z ]{1,40}? out of range: (?=")', _QUOTE),
        _Form(r"Type \w+ with value ", "(?=can't be cast)"),
        _Form("Could not cast value ", "(?= to [A-Z])"),
        _Form(r"Malformed JSON(?: at byte \d+ of input: [a-z ]{1,60})?"),
        _Form("Could not parse string "),
        _Form("Could not decode string "),
        _Form("extract specifier (?=['\"])", _QUOTE),
        _Form("Unknown TimeZone "),
        _Form("Failed to parse format specifier "),
        _Form(r"Overflow in [a-z]+ of \w+ "),
        _Form("Date out of range: "),
        _Form("Invalid (?:character|byte) encountered in [A-Za-z >-]{1,60}?(?=[:'\"]| of string)"),
        _Form("Invalid input for hex digit: "),
        _Form("Invalid UTF8 [A-Za-z]+ "),
        # Of a column of SQLite, which holds values of other types.
        _Form(
            r"Invalid type in column \"[^\"\n]*\": column was declared as \w+, found ", '(?= of type "[a-z]+" instead)'
        ),
    )
)
# Texts that have no value in them; the first ones are of a kind that `error(…)` of a query has too.
_FIXED = re.compile(
    r"Map keys (?:must be unique|can not be NULL)\.?|More than one row returned by a subquery used as an expression"
    r"(?: - scalar subqueries can only return a single row\.\s+Use "
    r"\"SET scalar_subquery_error_on_multiple_rows=false\" to revert to previous behavior of returning a random row\.)?"
)
_WHOLE = re.compile(
    r"cannot take (?:logarithm|square root) of (?:zero|a negative number)|Cannot take logarithm of [a-z ]+"
    r"|(?:Value|Date and time not|Epoch [a-z]+|Timestamp [a-z ]*)[a-zA-Z ]*range(?: for [A-Z ]+)?"
    r"|Division by zero!?|Cannot cast array of size \d+ to array of size \d+"
    r"|'[<>=!+*/%-]{1,3}' not supported between instances of '\w+' and '\w+'"
    r"|(?:Error: )?The column \"[^\"\n]*\" in BatchData does not exist\.?"
    r"|Great Expectations [a-z ]+|MetricProvider [^\n'\"]*",
    re.DOTALL,
)


def said(error: BaseException) -> str:
    """What an error says, without what rows hold; of our own errors the whole text, since they quote none."""
    if isinstance(error, PipelineError):
        return str(error)
    name = type(error).__name__
    if type(error).__module__.partition(".")[0].lstrip("_") == "duckdb":
        text = str(error)
        # Some of its errors of files have no kind in front.
        return text if name == "IOException" and not _KIND.match(text) else of_duckdb(text)
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    if isinstance(error, (ImportError, NameError, AttributeError, MemoryError)):
        return f"{name}: {error}".splitlines()[0]
    return f"{name}: {message(str(error))}"


def first(error: BaseException) -> str:
    """The first line of it."""
    return (said(error).strip() or type(error).__name__).splitlines()[0]


def message(text: str) -> str:
    """The message of some library: as it is where its form is known to quote nothing, else that it is not kept."""
    text = text.strip()
    kind, _, rest = text.partition(": ")
    if kind.isidentifier() and rest:
        return f"{kind}: {message(rest)}"
    return text if _WHOLE.fullmatch(text) else _NOT_KEPT


def of_duckdb(text: str) -> str:
    """An error of DuckDB's with its kind, its column, and the line of the SQL, without the value that it is about."""
    kind = _KIND.match(text)
    if kind and kind[1] in _OF_NO_ROW:
        server = _OF_SERVER.search(text)
        return text if server is None else text[: server.end()] + of_server(text[server.end() :])
    line = _LINE.search(text)
    body = text[kind.end() if kind else 0 : line.start() if line else None].strip()
    prefix, of_sql = kind[0] if kind else "", f"\n\n{line[1]}" if line else ""
    is_own = kind is not None and kind[1] != "Invalid Input"  # which `error(…)` of a query raises too
    if _FIXED.fullmatch(body) or (is_own and _WHOLE.fullmatch(body)):
        return f"{prefix}{body}{of_sql}"
    for head, after in _FORMS:
        if (begins := head.match(body)) and (is_own or not after):
            ends = after.match(body, begins.end()) if after else None
            if ends and body[begins.end() : ends.start(1)].strip("'\" ").lower() in _OF_NOBODY:
                return f"{prefix}{body}{of_sql}"
            rest = ends[1] if ends else ""
            return f"{prefix}{begins[0].rstrip(': ')} …{'' if rest[:1] in (' ', ',', '') else ' '}{rest}{of_sql}"
    return f"{prefix}{_NOT_KEPT}" if prefix else f"DuckDB: {_NOT_KEPT}"


def of_server(text: str) -> str:
    """The first line of a server's error, without what it quotes: from its first quote to its last."""
    return _QUOTES.sub(r"\1…\2", text.strip().split("\n")[0])
