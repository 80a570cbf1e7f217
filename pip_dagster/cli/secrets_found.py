"""What `pip-dagster doctor` says of secrets and key files: whether they are the right ones. It shows none of them."""

from __future__ import annotations

import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pip_dagster.cli.diagnosis import Diagnosis
from pip_dagster.declaration.lake import Lake
from pip_dagster.errors import PipelineError

if TYPE_CHECKING:
    from pip_dagster.declaration.pipeline import Pipeline
    from pip_dagster.declaration.project import Project


def secrets_found(project: Project) -> Iterator[Diagnosis]:
    """A line for each secret of `privacy`, and for each key file that others may read; nothing is written."""
    from pip_dagster.declaration.find import find_declarations, find_pipeline
    from pip_dagster.declaration.privacy import LOCAL
    from pip_dagster.errors import DeclarationError
    from pip_dagster.privacy.keys import domain_of, local_path
    from pip_dagster.privacy.pseudonym import PseudonymKey

    kept = _kept(project)
    local = local_path(project)
    files = [local]
    if anchors := project.anchors:
        files.append(project.root / anchors.key)
    for name in find_declarations(project):
        try:
            pipeline = find_pipeline(project, name)
        except DeclarationError:  # which `check` reports
            continue
        if pipeline.spec.privacy is None:
            continue
        if declared := pipeline.spec.privacy.pseudonymize:
            files += [project.root / each.key_file for each in (declared, *declared.former.values()) if each.key_file]
            for version, secret in ((declared.version, declared), *declared.former.items()):
                where = f"{name}: secret {version} of the domain {domain_of(pipeline.spec)}"
                try:
                    value = secret.read(project.root, where)
                except PipelineError as error:
                    yield Diagnosis("problem", "secrets", str(error))
                else:
                    yield _compared(pipeline, version, value, kept)
        elif PseudonymKey(LOCAL, b"", name).name in kept and not local.is_file():
            yield Diagnosis(
                "problem",
                "secrets",
                f"{name}: {local} is gone, by which erased people are known",
                "Restore it from a backup",
            )
    for file in dict.fromkeys(files):
        if file.is_file() and (mode := stat.S_IMODE(file.stat().st_mode)) & 0o077:
            yield Diagnosis(
                "warning", "secrets", f"{file} has the mode {mode:04o}: others may read the secret", f"chmod 600 {file}"
            )


def _compared(pipeline: Pipeline, version: str, value: bytes, kept: Mapping[str, str]) -> Diagnosis:
    from pip_dagster.declaration.privacy import LOCAL
    from pip_dagster.privacy.keys import domain_of, other_secret
    from pip_dagster.privacy.pseudonym import PseudonymKey

    name = pipeline.spec.name
    key = PseudonymKey(version, value, name if version == LOCAL else domain_of(pipeline.spec))
    if key.name not in kept:
        return Diagnosis("ok", "secrets", f"{name}: secret {version} is there; nothing is stored by it yet")
    if kept[key.name] != key.check:
        return Diagnosis("problem", "secrets", f"{name}: {other_secret(key)}")
    return Diagnosis("ok", "secrets", f"{name}: secret {version} is that of stored rows")


def _kept(project: Project) -> Mapping[str, str]:
    """The warehouse's check values, opened as it is: the lock of writers would be a file of ours."""
    import duckdb

    from pip_dagster.privacy.keys import kept_checks
    from pip_dagster.sql.names import CATALOG
    from pip_dagster.warehouse.connect import attached, open_warehouse

    place = project.warehouse
    if isinstance(place, Path) and not place.exists():
        return {}
    with duckdb.connect(config={"allow_unsigned_extensions": "false"}) as con:
        con.execute("SET TimeZone = 'UTC'")
        try:
            if isinstance(place, Lake):
                with open_warehouse(con, place, purpose="doctor", read_only=True, deadline=1):
                    return kept_checks(con)
            with attached(con, place, CATALOG, read_only=True, deadline=1):
                con.execute(f"USE {CATALOG}")
                return kept_checks(con)
        except (PipelineError, duckdb.CatalogException):  # the line of the warehouse says why
            return {}
