"""Who must not return: subjects that were erased or are held, by keyed hashes, kept out wherever rows come in."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pip_dagster.errors import DeclarationError, NoWarehouseError, OlderWarehouseError, PartitionError
from pip_dagster.privacy.keys import kept_checks, keys_of, other_secret, pseudonym_key, stored_keys
from pip_dagster.privacy.pseudonym import PseudonymKey
from pip_dagster.sql.names import column_named, literal, quote
from pip_dagster.warehouse import erased
from pip_dagster.warehouse.access import reading
from pip_dagster.warehouse.connect import workspace

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.pipeline import Pipeline

# The newest row of a request holds.
SUPPRESSED = """
  SELECT s.key_version, s.subject, s.subject_column FROM ledger.suppressions s
  JOIN (SELECT erasure_id, arg_max(state, made_at) AS state FROM ledger.erasures GROUP BY erasure_id) e
    ON e.erasure_id = s.erasure_id
  WHERE s.pipeline = {pipeline} AND e.state <> 'released'
"""


@dataclass(frozen=True)
class Incoming:
    """What happens to rows that come in: the subject becomes a pseudonym, and rows of suppressed subjects stay out.

    `key` is None where subjects are stored as they are; `suppressed`: the keyed hashes by the secret that made them;
    `named`: those whom an erasure knows itself, as text, whom to hash everybody for would be slow. `former`: rows come
    once more for each of these secrets, by which stored rows are found that are not rotated yet.
    """

    subject: str
    key: PseudonymKey | None
    suppressed: Mapping[PseudonymKey, frozenset[str]] = field(default_factory=dict)
    former: tuple[PseudonymKey, ...] = ()
    named: frozenset[str] = field(default=frozenset(), repr=False)

    @property
    def changes_rows(self) -> bool:
        """Whether anything is done to them."""
        return bool(self.key or self.suppressed)

    def select(self, sql: str, columns: Mapping[str, str]) -> str:
        """SQL of the rows of a SELECT as they may be stored, with the parameters of `values`.

        `columns` are those of the SELECT; without the subject's, its rows are of nobody, and stay as they are.
        """
        name = column_named(columns, self.subject)
        if name is None or not self.changes_rows:
            return sql
        column = quote(name)
        rows = f"SELECT * FROM (\n{sql}\n)"
        if self.suppressed:
            rows += f" WHERE ({self.is_suppressed(column)}) IS NOT TRUE"
        if self.key is None:
            return rows
        made = self.key.sql(column)
        if self.former:
            made = f"unnest([{', '.join([made, *(key.sql(column) for key in self.former)])}])"
        return f"SELECT * REPLACE ({made} AS {column}) FROM (\n{rows}\n)"

    def is_suppressed(self, column: str) -> str:
        """SQL of whether a subject is on the list, as it comes in; with the parameters of `suppressing`."""
        tests = [f"{key.suppressing.sql(column)} IN ({_listed(of)})" for key, of in self.suppressed.items()]
        tests += [f"{column}::VARCHAR IN ({_listed(self.named)})"] if self.named else []
        return " OR ".join(tests) or "false"

    @property
    def suppressing(self) -> dict[str, bytes]:
        """The parameters of `is_suppressed`, which must not be shown."""
        return {name: value for key in self.suppressed for name, value in key.values.items()}

    @property
    def values(self) -> dict[str, bytes]:
        """The parameters of `select`, which must not be shown."""
        made_by = (*([self.key] if self.key else ()), *self.former)
        return {name: value for key in made_by for name, value in key.values.items()} | self.suppressing


def incoming(pipeline: Pipeline, *, former: bool = False) -> Incoming | None:
    """What happens to rows of a pipeline that declares `privacy`; None for another, where nobody was erased.

    Args:
        pipeline: the declaration.
        former: rows are to meet stored ones, by all pseudonyms that these may have.

    Raises:
        DeclarationError: a secret is missing or another than that of stored rows, or a suppressed subject is known by
            a secret that is not declared; or people were erased, and `privacy` is not declared any more.
        RestoredWarehouseError: the warehouse is from a backup of before an erasure.
        WarehouseError: the warehouse cannot be read.
    """
    privacy = pipeline.spec.privacy
    if privacy is None and not erased.noted(pipeline.project):  # the warehouse is not opened for nothing
        return None
    made_by = stored_keys(pipeline) if former else [key] if (key := pseudonym_key(pipeline)) else []
    people: Incoming | None = None
    checks: Mapping[str, str] = {}
    try:
        with (
            workspace(threads=1) as con,
            reading(con, pipeline.project, purpose=f"{pipeline.spec.name}: who is erased"),
        ):
            erased.check(con, pipeline.project)  # before any row is read
            people = suppressed_in(con, pipeline)
            checks = kept_checks(con) if made_by else {}
    except (NoWarehouseError, OlderWarehouseError):
        pass
    _check_same(made_by, checks)
    if privacy is None:
        return None
    return Incoming(
        privacy.subject,
        made_by[0] if made_by else None,
        people.suppressed if people else {},
        tuple(made_by[1:]),
    )


def suppressed_in(con: DuckDBPyConnection, pipeline: Pipeline, but: str | None = None) -> Incoming | None:
    """Who is suppressed, without pseudonyms; None where nobody is. The warehouse is the current catalog.

    `but`: an erasure that does not count.

    Raises:
        DeclarationError: as `incoming`.
    """
    found: dict[str, set[str]] = {}
    listed = SUPPRESSED.format(pipeline=literal(pipeline.spec.name))
    listed += f" AND s.erasure_id <> {literal(but)}" if but else ""
    rows = con.execute(listed).fetchall()
    if pipeline.spec.privacy is None:
        if rows:
            raise _undeclared(pipeline.spec.name)
        return None
    present = pipeline.spec.privacy.subject
    for version, subject, column in rows:
        if column and column_named([column], present) is None:
            raise DeclarationError(
                f"Pipeline {pipeline.spec.name}: people were erased by the column {column!r}, and `privacy.subject` is "
                f"{present!r} now: they would return. Declare {column!r} again, or give the pipeline another name and "
                "erase them there too."
            )
        found.setdefault(version, set()).add(subject)
    if not found:
        return None
    checks = kept_checks(con)
    keys = {key.version: key for key in keys_of(pipeline)}
    if lacking := sorted(found.keys() - keys.keys()):
        raise DeclarationError(
            f"Pipeline {pipeline.spec.name}: subjects were erased that are known by the secret {lacking[0]!r}, which "
            "is not declared: without it they would return. Declare it under `privacy.pseudonymize.former`."
        )
    for version in found:
        if keys[version].is_other(checks):
            raise DeclarationError(
                f"Pipeline {pipeline.spec.name}: subjects were erased that are known by the secret {version!r} of "
                f"another domain or value than that of the domain {keys[version].domain!r}: they would return. Set the "
                "secret and `privacy.domain` of that time."
            )
    suppressed = {keys[version]: frozenset(subjects) for version, subjects in sorted(found.items())}
    return Incoming(pipeline.spec.privacy.subject, None, suppressed)


def check_suppressed(con: DuckDBPyConnection, pipeline: str, people: Incoming | None) -> None:
    """Refuse rows that were read before somebody was erased. Call it in the transaction that stores them.

    Raises:
        PartitionError: there are suppressed subjects that `people` has not.
        DeclarationError: there are some, and the pipeline does not declare who a row is about any more.
    """
    now = {row[:2] for row in con.execute(SUPPRESSED.format(pipeline=literal(pipeline))).fetchall()}
    if people is None:
        if now:
            raise _undeclared(pipeline)
        return
    if now - {(key.version, subject) for key, of in people.suppressed.items() for subject in of}:
        raise PartitionError(
            f"Pipeline {pipeline}: a person was erased since these rows were read. They were not stored; run it again."
        )


def _undeclared(pipeline: str) -> DeclarationError:
    return DeclarationError(
        f"Pipeline {pipeline}: people were erased, and `privacy.subject` is not declared any more: they would return. "
        "Nothing was read or stored. Declare `privacy` as it was."
    )


def check_person(pipeline: Pipeline, subject: str) -> None:
    """Refuse what cannot be a subject of the sources: the list of the suppressed would keep nobody out.

    Raises:
        DeclarationError: it is a pseudonym, or no text that a source has; a secret is missing; the pipeline declares
            no subject.
    """
    if pipeline.spec.privacy is None:
        raise DeclarationError(
            f"Pipeline {pipeline.spec.name} declares no `privacy.subject`: nothing says which rows are about whom."
        )
    where = f"Pipeline {pipeline.spec.name}: the subject"
    if "\0" in subject or _not_utf8(subject):
        raise DeclarationError(f"{where} is not text in UTF-8 without NUL, and no source has it. Check the identifier.")
    if is_pseudonym(pipeline, subject):
        raise DeclarationError(
            f"{where} is a pseudonym. Rows come in with the person's identifier, and would return; nobody can compute "
            "it from a pseudonym. Give the identifier as the source has it."
        )


def is_pseudonym(pipeline: Pipeline, subject: str) -> bool:
    """Whether a text has the form of a pseudonym by a secret that is declared.

    Raises:
        DeclarationError: a secret is missing.
    """
    return any(re.fullmatch(f"{re.escape(key.version)}_[0-9a-f]{{32}}", subject) for key in stored_keys(pipeline))


def _not_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def tokens(pipeline: Pipeline, subject: str) -> list[tuple[str, str]]:
    """A subject's keyed hashes for the list of the suppressed, with the secret's version, by every secret.

    Raises:
        DeclarationError: a secret is missing.
    """
    return [(key.suppressing.pseudonym(subject), key.version) for key in keys_of(pipeline)]


def stored_values(pipeline: Pipeline, subject: str) -> list[str]:
    """What may stand for a subject in stored rows, as text: its pseudonyms and, from before there were any, itself.

    Raises:
        DeclarationError: a secret is missing, or another than that of stored rows: it would find nobody.
    """
    return [*(key.pseudonym(subject) for key in checked_keys(pipeline)), subject]


def checked_keys(pipeline: Pipeline) -> list[PseudonymKey]:
    """The secrets by which pseudonyms are stored, the present one first, compared with the warehouse's check values.

    Raises:
        DeclarationError: a secret is missing, or another than that of stored rows: it would find nobody.
        WarehouseError: the warehouse cannot be read.
    """
    if keys := stored_keys(pipeline):
        with suppress(NoWarehouseError, OlderWarehouseError), workspace(threads=1) as con:
            with reading(con, pipeline.project, purpose=f"{pipeline.spec.name}: whose secrets these are"):
                checks = kept_checks(con)
            _check_same(keys, checks)
    return keys


def _check_same(keys: Sequence[PseudonymKey], checks: Mapping[str, str]) -> None:
    if other := next((key for key in keys if checks.get(key.name, key.check) != key.check), None):
        raise other_secret(other)


def _listed(subjects: frozenset[str]) -> str:
    return ", ".join(map(literal, sorted(subjects)))
