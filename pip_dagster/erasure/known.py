"""Whether anything names a subject: a mistyped identifier must not end with a certificate, or with a hold on nobody."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from pip_dagster.erasure.golden import has_value
from pip_dagster.erasure.place import ErasureRequest
from pip_dagster.erasure.tables import tables_of
from pip_dagster.errors import ErasureError, NoWarehouseError, PipelineError
from pip_dagster.flow.sources import columns_of, open_sources, rows_of, view_of
from pip_dagster.privacy.suppressed import check_person, stored_values, tokens
from pip_dagster.sql.names import among, column_named, quote
from pip_dagster.warehouse import erased
from pip_dagster.warehouse.access import reading
from pip_dagster.warehouse.connect import workspace

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.pipeline import Pipeline
    from pip_dagster.declaration.project import Project


_NOTED = ("suppressions", "held_subjects")


def request_of(pipelines: Sequence[Pipeline], subject: str, erasure_id: str = "", why: str = "") -> ErasureRequest:
    """The request to erase a subject from these pipelines.

    Raises:
        DeclarationError: a pipeline declares no subject, or a secret is missing; or it is a pseudonym.
        WarehouseError: the warehouse cannot be read.
    """
    for pipeline in pipelines:
        check_person(pipeline, subject)
    columns = {each.spec.name: each.spec.privacy.subject for each in pipelines if each.spec.privacy}
    subjects = {each.spec.name: stored_values(each, subject) for each in pipelines}
    hashes = {each.spec.name: [token for token, _ in tokens(each, subject)] for each in pipelines}
    return ErasureRequest(erasure_id, "erase", why, columns, subjects, tokens=hashes)


def check_known(project: Project, pipelines: Sequence[Pipeline], subject: str, *, otherwise: str) -> None:
    """Refuse a subject that nothing names. `otherwise`: what `--absent` does all the same.

    Sources are read only where neither the ledger, stored rows nor golden rows name it.

    Raises:
        ErasureError: nothing does; says what was searched.
        RestoredWarehouseError: the warehouse is from a backup of before an erasure.
        PipelineError: as `request_of`.
    """
    request = request_of(pipelines, subject)
    if _stored(project, request) or has_value(project, request):
        return
    searched, lacking = list[str](), list[str]()
    for pipeline in pipelines:
        column, name = request.columns[pipeline.spec.name], pipeline.spec.name
        try:
            found = _in_sources(pipeline, column, subject)
        except PipelineError as error:
            lacking.append(f"the sources of {name} ({error})")
            continue
        if True in found.values():
            return
        searched += [f"{name}.{source}" for source, has in found.items() if has is not None]
        lacking += [f"{name}.{source}, without a column {column!r}" for source, has in found.items() if has is None]
    names = ", ".join(request.columns)
    of_sources = f"the source {', '.join(searched)}" if searched else "no source"
    raise ErasureError(
        f"Nothing names this subject. Searched: stored rows of {names}, golden rows, earlier erasures and holds, and "
        f"{of_sources}. "
        + (f"Not searched: {'; '.join(lacking)}. " if lacking else "")
        + "Nothing was changed. Give the identifier exactly as the source has it. If it is right, and nothing is "
        f"stored of it, repeat the command with --absent: {otherwise}."
    )


def _stored(project: Project, request: ErasureRequest) -> bool:
    """Whether the subject was erased or put on hold before, or a stored row is of it."""
    try:
        with workspace(threads=1) as con, reading(con, project, purpose="looking for a subject"):
            erased.check(con, project)
            return _noted(con, request) or any(_in_tables(con, request))
    except NoWarehouseError:
        return False


def _noted(con: DuckDBPyConnection, request: ErasureRequest) -> bool:
    hashes = among("subject", [token for of in request.tokens.values() for token in of])
    noted = " UNION ALL ".join(f"SELECT 1 FROM ledger.{name} WHERE {hashes}" for name in _NOTED)
    return con.execute(f"{noted} LIMIT 1").fetchone() is not None


def _in_tables(con: DuckDBPyConnection, request: ErasureRequest) -> Iterator[bool]:
    for table in tables_of(con, request):
        if column := column_named(table.columns, request.columns[table.pipeline]):
            of = among(f"{quote(column)}::VARCHAR", request.subjects[table.pipeline])
            yield con.execute(f"SELECT 1 FROM {table.sql} WHERE {of} LIMIT 1").fetchone() is not None


def _in_sources(pipeline: Pipeline, subject_column: str, subject: str) -> dict[str, bool | None]:
    """Whether each declared source has the subject; None without a column of that name."""
    spec, has = pipeline.spec, dict[str, bool | None]()
    with workspace(threads=2) as con, open_sources(con, spec, pipeline.project.root):
        for name, source in spec.sources.items():
            column = column_named(columns_of(con, source), subject_column)
            if column is None:
                has[name] = None
                continue
            select = f"SELECT 1 FROM {view_of(source)} WHERE {quote(column)}::VARCHAR = $subject LIMIT 1"
            with rows_of(spec, name, source):
                has[name] = con.execute(select, {"subject": subject}).fetchone() is not None
    return has
