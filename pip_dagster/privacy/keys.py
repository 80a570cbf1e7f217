"""The secrets of a pipeline: the declared ones, or one beside the warehouse, by which suppressed subjects are known."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from pip_dagster.declaration.privacy import LOCAL
from pip_dagster.errors import DeclarationError
from pip_dagster.privacy.pseudonym import META, PseudonymKey

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.pipeline import Pipeline
    from pip_dagster.declaration.project import Project
    from pip_dagster.declaration.spec import PipelineSpec


def domain_of(spec: PipelineSpec) -> str:
    """Pipelines of one domain have the same pseudonym of a person."""
    assert spec.privacy
    return spec.privacy.domain or spec.name


def pseudonym_key(pipeline: Pipeline) -> PseudonymKey | None:
    """The secret of pseudonyms that are made now; None where subjects are stored as they are.

    Raises:
        DeclarationError: there is no secret, or it is too short.
    """
    spec = pipeline.spec
    if not (spec.privacy and spec.privacy.pseudonymize):
        return None
    declared, where = spec.privacy.pseudonymize, f"Pipeline {spec.name}: privacy.pseudonymize"
    return PseudonymKey(declared.version, declared.read(pipeline.project.root, where), domain_of(spec))


def keys_of(pipeline: Pipeline) -> list[PseudonymKey]:
    """The secrets of all pseudonyms that may be stored, the present one first; without pseudonyms, the local one.

    Raises:
        DeclarationError: a secret is missing or too short.
    """
    present, spec = pseudonym_key(pipeline), pipeline.spec
    if present is None:
        return [PseudonymKey(LOCAL, local_secret(pipeline.project), spec.name)]
    assert spec.privacy and spec.privacy.pseudonymize
    where = f"Pipeline {spec.name}: privacy.pseudonymize.former"
    former = spec.privacy.pseudonymize.former.items()
    return [present] + [
        PseudonymKey(
            version,
            each.read(pipeline.project.root, f"{where}.{version}"),
            spec.name if version == LOCAL else domain_of(spec),  # no pipeline shares what the local one made
        )
        for version, each in former
    ]


def stored_keys(pipeline: Pipeline) -> list[PseudonymKey]:
    """The secrets by which pseudonyms are stored, the present one first; none where subjects are stored as they are.

    Raises:
        DeclarationError: a secret is missing or too short.
    """
    if not (pipeline.spec.privacy and pipeline.spec.privacy.pseudonymize):
        return []
    return [key for key in keys_of(pipeline) if key.version != LOCAL]  # that one only suppresses


def local_path(project: Project) -> Path:
    """The file of the local secret: beside the warehouse; of a lake, beside the published rows."""
    if isinstance(project.warehouse, Path):
        return Path(f"{project.warehouse}.privacy-key")
    return project.root / "data" / "privacy-key"


def local_secret(project: Project) -> bytes:
    """The secret beside the warehouse, which is made at the first need, for its owner alone.

    Raises:
        DeclarationError: it cannot be read or written.
    """
    path = local_path(project)
    try:
        with suppress(FileExistsError):
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.exists():
                made = path.with_name(f"{path.name}.{secrets.token_hex(8)}.new")
                try:
                    with os.fdopen(os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                        file.write(secrets.token_hex(32).encode())
                        file.flush()
                        os.fsync(file.fileno())
                    os.link(made, path)  # fails where another process was faster
                finally:
                    made.unlink(missing_ok=True)
        found = path.read_bytes().strip()
    except OSError as error:
        raise DeclarationError(
            f"{path}, the secret of suppressed subjects, cannot be read or written: {error.strerror}."
            " Nothing was changed."
        ) from None
    if len(found) < 32:
        raise DeclarationError(f"{path} is no secret: restore it from a backup; suppressed subjects are known by it.")
    return found


def kept_checks(con: DuckDBPyConnection) -> dict[str, str]:
    """The check values of all secrets by which something is stored, for `PseudonymKey.is_other`."""
    return dict(con.execute(f"SELECT key, value FROM ledger.meta WHERE starts_with(key, '{META}:')").fetchall())


def keep_check(con: DuckDBPyConnection, key: PseudonymKey) -> None:
    """Refuse another secret under the same version: it would silently give everybody another pseudonym.

    The first time it is kept. Call it in a transaction; the warehouse is the current catalog.

    Raises:
        DeclarationError: the secret is another.
    """
    name = key.name
    row = con.execute("SELECT value FROM ledger.meta WHERE key = $name", {"name": name}).fetchone()
    if row is None:
        con.execute("INSERT INTO ledger.meta VALUES ($name, $value)", {"name": name, "value": key.check})
    elif row[0] != key.check:
        raise other_secret(key)


def other_secret(key: PseudonymKey) -> DeclarationError:
    """The error where a secret is not the one that its version's name stands for."""
    return DeclarationError(
        f"The secret {key.version!r} of the domain {key.domain!r} is another than the one by which stored pseudonyms "
        "were made: it would find nobody. Nothing was stored. Set the former secret, or rotate: give the new one "
        "another `version`, and declare the former one under `former`."
    )
