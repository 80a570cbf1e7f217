"""Who must not return: subjects that were erased or are held, by keyed hashes, kept out wherever rows come in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pip_dagster.errors import DeclarationError, NoWarehouseError, OlderWarehouseError, PartitionError
from pip_dagster.privacy.keys import kept_checks, keys_of, pseudonym_key
from pip_dagster.privacy.pseudonym import PseudonymKey
from pip_dagster.sql.names import column_named, literal, quote
from pip_dagster.warehouse.access import reading
from pip_dagster.warehouse.connect import workspace

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.pipeline import Pipeline

# The newest row of a request holds.
SUPPRESSED = """
  SELECT s.key_version, s.subject FROM ledger.suppressions s
  JOIN (SELECT erasure_id, arg_max(state, made_at) AS state FROM ledger.erasures GROUP BY erasure_id) e
    ON e.erasure_id = s.erasure_id
  WHERE s.pipeline = {pipeline} AND e.state <> 'released'
"""


@dataclass(frozen=True)
class Incoming:
    """What happens to rows that come in: the subject becomes a pseudonym, and rows of suppressed subjects stay out.

    `key` is None where subjects are stored as they are; `suppressed`: the keyed hashes by the secret that made them;
    `named`: those whom an erasure knows itself, as text, whom to hash everybody for would be slow.
    """

    subject: str
    key: PseudonymKey | None
    suppressed: Mapping[PseudonymKey, frozenset[str]] = field(default_factory=dict)
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
        return f"SELECT * REPLACE ({self.key.sql(column)} AS {column}) FROM (\n{rows}\n)" if self.key else rows

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
        return {**(self.key.values if self.key else {}), **self.suppressing}


def incoming(pipeline: Pipeline) -> Incoming | None:
    """What happens to rows of a pipeline that declares `privacy`; None for another.

    Raises:
        DeclarationError: a secret is missing, or a suppressed subject is known by a secret that is not declared.
        WarehouseError: the warehouse cannot be read.
    """
    if pipeline.spec.privacy is None:
        return None
    try:
        with (
            workspace(threads=1) as con,
            reading(con, pipeline.project, purpose=f"{pipeline.spec.name}: who is erased"),
        ):
            people = suppressed_in(con, pipeline)
    except (NoWarehouseError, OlderWarehouseError):
        people = None
    return Incoming(pipeline.spec.privacy.subject, pseudonym_key(pipeline), people.suppressed if people else {})


def suppressed_in(con: DuckDBPyConnection, pipeline: Pipeline, but: str | None = None) -> Incoming | None:
    """Who is suppressed, without pseudonyms; None where nobody is. The warehouse is the current catalog.

    `but`: an erasure that does not count.

    Raises:
        DeclarationError: as `incoming`.
    """
    if pipeline.spec.privacy is None:
        return None
    found: dict[str, set[str]] = {}
    listed = SUPPRESSED.format(pipeline=literal(pipeline.spec.name))
    listed += f" AND s.erasure_id <> {literal(but)}" if but else ""
    for version, subject in con.execute(listed).fetchall():
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


def check_suppressed(con: DuckDBPyConnection, pipeline: str, people: Incoming) -> None:
    """Refuse rows that were read before somebody was erased. Call it in the transaction that stores them.

    Raises:
        PartitionError: there are suppressed subjects that `people` has not.
    """
    now = {*con.execute(SUPPRESSED.format(pipeline=literal(pipeline))).fetchall()}
    if now - {(key.version, subject) for key, of in people.suppressed.items() for subject in of}:
        raise PartitionError(
            f"Pipeline {pipeline}: a person was erased since these rows were read. They were not stored; run it again."
        )


def tokens(pipeline: Pipeline, subject: str) -> list[tuple[str, str]]:
    """A subject's keyed hashes for the list of the suppressed, with the secret's version, by every secret.

    Raises:
        DeclarationError: a secret is missing.
    """
    return [(key.suppressing.pseudonym(subject), key.version) for key in keys_of(pipeline)]


def stored_values(pipeline: Pipeline, subject: str) -> list[str]:
    """What may stand for a subject in stored rows, as text: its pseudonyms and, from before there were any, itself.

    Raises:
        DeclarationError: a secret is missing.
    """
    privacy = pipeline.spec.privacy
    made = [key.pseudonym(subject) for key in keys_of(pipeline)] if privacy and privacy.pseudonymize else []
    return [*made, subject]


def _listed(subjects: frozenset[str]) -> str:
    return ", ".join(map(literal, sorted(subjects)))
