"""Golden rows of registered versions: those of the subject are removed before their stored rows are.

Golden rows have the columns that the model takes, and none that says whose they are, unless the subject is one of
these. So a row is the subject's that has their value, or that is, as the model sees it, one of their stored rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from pip_dagster import clock
from pip_dagster.erasure.opened import opened
from pip_dagster.erasure.place import ErasureRequest, Removed
from pip_dagster.errors import ErasureError, RegistryError
from pip_dagster.evidence.contents import columns_of_tables
from pip_dagster.ledger import audit, reissued
from pip_dagster.plural import plural
from pip_dagster.registry import golden
from pip_dagster.registry.manifest import Manifest
from pip_dagster.registry.publish import incoming, remove_abandoned
from pip_dagster.registry.store import Registry
from pip_dagster.sql.names import among, column_named, literal, quote
from pip_dagster.warehouse.transaction import transaction

if TYPE_CHECKING:
    import pyarrow as pa
    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.project import Project
    from pip_dagster.registry.version import ModelVersion

# Kinds of tables that have the values that a model takes.
_KINDS = ("features", "quarantine")
_METHOD = "rows removed; the versions' manifests and signatures stay, the audit has an entry for each version"
_REMAINS = (
    "in manifests, histograms of samples, measures of held-out rows by bins that may have one row, and the sha256 of "
    "former golden rows, by which a guess of a row can be confirmed if the version was mirrored from MLflow, or "
    "registered before such files had a nonce; rows of samples that equal no stored row; samples in MLflow"
)
_GOLDEN, _PERSON = "pip_golden", "pip_person"


class GoldenPlace:
    """All versions of all models in the project's registry, mirrors of MLflow's among them."""

    name = "golden rows"

    def __init__(self, project: Project, actor: str) -> None:
        self._project, self._actor = project, actor
        self._registry = Registry(project.registry)

    def count(self, request: ErasureRequest) -> int:
        """Golden rows to remove, and files and folders that have such rows still."""
        with opened(self._project) as con:
            rows = sum(len(positions) for _, _, positions in self._found(con, request))
        former = sum(len(version.golden_files.former()) for version in _versions(self._registry))
        return rows + former + len(incoming(self._registry.root))

    def remove(self, request: ErasureRequest) -> Removed:
        """Replace the files, and record each in the audit.

        Raises:
            ErasureError: a version is damaged, one is being registered, or the registry is not there.
        """
        before, removed = 0, 0
        with opened(self._project) as con:
            lacking = self._lacking(con, request)
            for version, rows, positions in self._found(con, request):
                before += rows
                removed += len(positions)
                if positions:
                    by, at = self._actor, clock.now()
                    made = golden.without(version, positions, erasure_id=request.erasure_id, by=by, at=at)
                    version.golden_files.replace(*made)
            with transaction(con):
                missing = [
                    each
                    for each in reissued.unrecorded(con, self._registry)
                    if each.details["erasure_id"] == request.erasure_id
                ]
                audit.append(con, missing)
        for version in _versions(self._registry):
            version.golden_files.remove_former()
        if running := remove_abandoned(self._registry.root):
            raise ErasureError(
                f"{running[0]} holds the sample of a version that is being registered. Wait until it is and resume the "
                "erasure; if the sample has the person, register the version again without them."
            )
        kept = (
            f"golden rows of {', '.join(lacking[:3])} if a backup has them: the registry lacks them; "
            if lacking
            else ""
        )
        return Removed(before, removed, before - removed, _METHOD, remains=kept + _REMAINS)

    def _lacking(self, con: DuckDBPyConnection, request: ErasureRequest) -> list[str]:
        """The versions that scored, and that the registry does not have."""
        select = (
            "SELECT DISTINCT model_name, model_version FROM ledger.scorings WHERE model_version IS NOT NULL AND "
            f"{among('pipeline', sorted(request.columns))} ORDER BY ALL"
        )
        scored = con.execute(select).fetchall()
        there = {(name, number) for name in self._registry.models() for number in self._registry.numbers(name)}
        lacking = [f"{name} v{number}" for name, number in scored if (name, number) not in there]
        if lacking and not there:
            raise ErasureError(
                f"The registry {self._registry.root} has no version, and {lacking[-1]} scored: its golden rows may be "
                "of the person, and are found by rows that are still stored. Mount or restore the registry and resume "
                "the erasure; if it is gone for good, register a version first."
            )
        return lacking

    def verify(self, request: ErasureRequest) -> str:
        """Compare again.

        Raises:
            ErasureError: golden rows are the subject's.
        """
        if left := self.count(request):
            raise ErasureError(
                f"{plural(left, 'golden row')} of erasure {request.erasure_id}, or files of them, are in "
                f"{self._registry.root}: a version was registered meanwhile. Resume the erasure."
            )
        return "golden rows of all versions were compared with the subject's stored rows and value: none is equal"

    def _found(
        self, con: DuckDBPyConnection, request: ErasureRequest
    ) -> Iterator[tuple[ModelVersion, int, Sequence[int]]]:
        """Each version with its number of golden rows and the positions of those to remove."""
        people, recorded = [*_people(con, request)], reissued.recorded(con)
        for version in _versions(self._registry):
            table = _rows(version)
            _, digest = version.golden_files.current
            positions = {
                position
                for made in recorded.get((version.name, version.version), [])
                if made.before == digest  # from a backup of before that erasure
                for position in made.positions
            }
            positions |= _equal(table, version.manifest, request, people)
            yield version, table.num_rows, sorted(positions)


def has_value(project: Project, request: ErasureRequest) -> bool:
    """Whether a golden row has the subject's value, of a model that takes the subject's column.

    Raises:
        ErasureError: a version is damaged.
    """
    return any(_equal(_rows(each), each.manifest, request, ()) for each in _versions(Registry(project.registry)))


def _versions(registry: Registry) -> Iterator[ModelVersion]:
    for model in registry.models():
        for number in registry.numbers(model):
            try:
                yield registry.get(model, number)
            except RegistryError as error:
                raise ErasureError(
                    f"{error} Its golden rows may be of the person: correct that, or remove the version's folder, "
                    "and resume the erasure."
                ) from error


def _rows(version: ModelVersion) -> pa.Table:
    try:
        return golden.read_table(version)
    except RegistryError as error:
        raise ErasureError(
            f"{error} Its golden rows may be of the person: correct that and resume the erasure."
        ) from error


def _people(con: DuckDBPyConnection, request: ErasureRequest) -> Iterator[pa.Table]:
    """The subject's stored rows, of each table that says which they are."""
    for (pipeline, name), columns in columns_of_tables(con, {*request.columns}).items():
        column = column_named(columns, request.columns[pipeline])
        if column and name.partition("__")[0] in _KINDS:
            values = ", ".join(map(literal, request.subjects[pipeline])) or "NULL"
            select = f"SELECT * FROM {quote(pipeline)}.{quote(name)} WHERE {quote(column)}::VARCHAR IN ({values})"
            table = con.execute(select).to_arrow_table()
            if table.num_rows:
                yield table


def _equal(table: pa.Table, manifest: Manifest, request: ErasureRequest, people: Sequence[pa.Table]) -> set[int]:
    """The positions of golden rows with the subject's value, or the values of one of their rows."""
    import duckdb
    import pyarrow as pa

    found: set[int] = set()
    names = {name: name for name in table.column_names}
    with duckdb.connect(config={"threads": 1}) as con:
        con.register(_GOLDEN, table.append_column("pip_at", pa.array(range(table.num_rows), pa.int64())))
        for pipeline, subject in request.columns.items():
            if column := column_named(names, subject):
                wanted = ", ".join(map(literal, request.subjects[pipeline])) or "NULL"
                found |= _positions(con, f"WHERE {quote(column)}::VARCHAR IN ({wanted})")
        for rows in people:
            if (same := _same(manifest, rows.column_names)) is not None:
                con.register(_PERSON, rows)
                found |= _positions(con, f"SEMI JOIN {_PERSON} p ON {same}")
    return found


def _positions(con: DuckDBPyConnection, condition: str) -> set[int]:
    return {at for (at,) in con.execute(f"SELECT pip_at FROM {_GOLDEN} g {condition}").fetchall()}


def _same(manifest: Manifest, columns: Sequence[str]) -> str | None:
    """The condition that rows are the same to the model; None where a column that it takes is not there."""
    named, missing, found = {name: name for name in columns}, manifest.missing, []
    numbers = [feature.name for feature in manifest.features if feature.categories is None]
    numbers += [manifest.offset] if manifest.offset else []
    for name in [feature.name for feature in manifest.features if feature.categories is not None] + numbers:
        other = column_named(named, name)
        if other is None:
            return None
        ours, theirs = f"g.{quote(name)}", f"p.{quote(other)}"
        of = _number if name in numbers else _text
        found.append(f"{of(ours, missing)} IS NOT DISTINCT FROM {of(theirs, missing)}")
    return " AND ".join(found)


def _text(column: str, missing: float | None) -> str:
    return f"{column}::VARCHAR"


def _number(column: str, missing: float | None) -> str:
    """As the matrix has it: float32, NULL for NaN and for the number that stands for a missing value."""
    number = f"nullif(TRY_CAST({column} AS FLOAT), 'NaN'::FLOAT)"
    return number if missing is None else f"nullif({number}, {missing!r}::FLOAT)"
