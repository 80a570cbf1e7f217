"""Golden rows of registered versions: those of the subject are removed before their stored rows are.

Golden rows have the columns that the model takes, and none that says whose they are, unless the subject is one of
these. So a row is the subject's that has their value, or that is, as the model sees it, one of their stored rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from pip_dagster import clock
from pip_dagster.erasure.golden_rows import HeldGolden, equal_rows, keep, people
from pip_dagster.erasure.held import held_requests
from pip_dagster.erasure.opened import opened
from pip_dagster.erasure.place import ErasureRequest, Removed
from pip_dagster.errors import ErasureError, RegistryError
from pip_dagster.ledger import audit, reissued
from pip_dagster.plural import plural
from pip_dagster.registry import golden
from pip_dagster.registry.publish import incoming, remove_abandoned
from pip_dagster.registry.store import Registry
from pip_dagster.sql.names import among
from pip_dagster.warehouse.transaction import transaction

if TYPE_CHECKING:
    import pyarrow as pa
    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.pipeline import Pipeline
    from pip_dagster.declaration.project import Project
    from pip_dagster.registry.version import ModelVersion

_METHOD = "rows removed; the versions' manifests and signatures stay, the audit has an entry for each version"
_REMAINS = (
    "in manifests, histograms of samples, measures of held-out rows by bins that may have one row, and the sha256 of "
    "former golden rows, by which a guess of a row can be confirmed if the version was mirrored from MLflow, or "
    "registered before such files had a nonce; rows of samples that equal no stored row; samples in MLflow"
)


class GoldenPlace:
    """All versions of all models in the project's registry, mirrors of MLflow's among them."""

    name = "golden rows"

    def __init__(self, project: Project, actor: str, pipelines: Sequence[Pipeline] = ()) -> None:
        """`pipelines`: who is on hold there keeps their golden rows aside, whoever is erased."""
        self._project, self._actor, self._pipelines = project, actor, pipelines
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
        before, removed, kept = 0, 0, 0
        with opened(self._project) as con:
            lacking = self._lacking(con, request)
            held = [*self._held(con, request)]
            for version, table, positions in self._found(con, request):
                before += table.num_rows
                removed += len(positions)
                if positions:
                    with transaction(con):
                        kept += sum(keep(con, each, version, table, positions) for each in held)
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
        where = "MLflow has them: the mirror" if self._project.mlflow else "a backup has them: the registry"
        remains = f"golden rows of {', '.join(lacking[:3])} if {where} lacks them; " if lacking else ""
        if kept:
            remains += f"{plural(kept, 'row')} of people on legal hold, in ledger.held_rows until it is released; "
        return Removed(before, removed, before - removed, _METHOD, remains=remains + _REMAINS)

    def _held(self, con: DuckDBPyConnection, request: ErasureRequest) -> Iterator[HeldGolden]:
        """Each hold with the rows of its subject that are stored."""
        for hold_id, of_hold in held_requests(con, self._pipelines, request):
            yield HeldGolden(hold_id, of_hold, [*people(con, of_hold)])

    def _lacking(self, con: DuckDBPyConnection, request: ErasureRequest) -> list[str]:
        """The versions that scored, and that the registry does not have."""
        select = (
            "SELECT DISTINCT model_name, model_version FROM ledger.scorings WHERE model_version IS NOT NULL AND "
            f"{among('pipeline', sorted(request.columns))} ORDER BY ALL"
        )
        scored = con.execute(select).fetchall()
        there = {(name, number) for name in self._registry.models() for number in self._registry.numbers(name)}
        lacking = [f"{name} v{number}" for name, number in scored if (name, number) not in there]
        if lacking and not there and not self._project.mlflow:  # whose mirror may be empty: it is filled as needed
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
    ) -> Iterator[tuple[ModelVersion, pa.Table, Sequence[int]]]:
        """Each version with its golden rows and the positions of those to remove."""
        of_subject, recorded = [*people(con, request)], reissued.recorded(con)
        for version in _versions(self._registry):
            table = _rows(version)
            _, digest = version.golden_files.current
            positions = {
                position
                for made in recorded.get((version.name, version.version), [])
                if made.before == digest  # from a backup of before that erasure
                for position in made.positions
            }
            positions |= equal_rows(table, version.manifest, request, of_subject)
            yield version, table, sorted(positions)


def has_value(project: Project, request: ErasureRequest) -> bool:
    """Whether a golden row has the subject's value, of a model that takes the subject's column.

    Raises:
        ErasureError: a version is damaged.
    """
    return any(equal_rows(_rows(each), each.manifest, request, ()) for each in _versions(Registry(project.registry)))


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
