"""Storing a version, and the first move of its alias."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pip_dagster.declaration.model_names import check_model_name
from pip_dagster.errors import PipelineError
from pip_dagster.registry.errors import AliasConflict
from pip_dagster.registry.store import Registry, whoami
from pip_dagster.warehouse.access import check_may_write
from pip_dagster.warehouse.faults import check_writable

if TYPE_CHECKING:
    from pip_dagster.declaration.project import Project
    from pip_dagster.flow.training_manifest import TrainingManifest
    from pip_dagster.registry.aliases import AliasChange
    from pip_dagster.registry.version import ModelVersion


def check_may_store(project: Project, name: str, alias: str | None) -> None:
    """Check, before a model is examined, that this user may store it and record the move of its alias.

    Raises:
        StorageError: names what may not be written, and what to do.
    """
    check_writable(project.registry / check_model_name(name))
    if alias:
        check_may_write(project)


def stated(statements: dict[str, Any], of: TrainingManifest | None) -> dict[str, Any]:
    """The statements about a model with those that its training set makes; what is stated already stays."""
    if of is None:
        return statements
    tags = {"training_set": of.digest, "training_rows": str(of.rows), "point_in_time_proof": of.proof.verdict}
    window = statements.get("training_window") or (of.first, of.last)
    return statements | {"tags": tags | dict(statements.get("tags") or {}), "training_window": window}


def register_version(project: Project, name: str, *, model: Any, sample: Any, **statements: Any) -> ModelVersion:
    """Store a version of a model that is a file, or a Booster, which is saved as UBJ for it."""
    registry = Registry(project.registry)
    if isinstance(model, str | Path):
        return registry.register(name, model=Path(model), sample=sample, **statements)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.ubj"
        model.save_model(file)
        return registry.register(name, model=file, sample=sample, **statements)


def first_alias(registry: Registry, version: ModelVersion, alias: str) -> None:
    """Set an alias for the first time, which needs no gates: there is nothing to compare with.

    Raises:
        AliasConflict: it points at another version; says how to promote.
    """
    seen = registry.alias(version.name, alias)
    if seen is not None and seen != version.version:
        raise AliasConflict(
            f"{version} is registered, but alias {alias!r} stays v{seen}: registering only sets an alias that is not "
            f"set yet. Move it through the gates with "
            f"`pip-dagster models promote {version.name} v{version.version} --alias {alias}`."
        )
    if seen is None:
        why = f"registered with --alias {alias}"
        registry.set_alias(version.name, alias, version.version, by=whoami(), why=why, expect=None)


def record_in_audit(project: Project, model: str, move: AliasChange, progress: Callable[[str], None]) -> None:
    """Have the warehouse's audit record a move; a failure is reported and the move stands."""
    from pip_dagster.evidence.anchor import anchor_after
    from pip_dagster.ledger.promotions import record_promotions

    try:
        record_promotions(project, (model, move))
    except PipelineError as error:  # to report the move as failed would be wrong
        progress(f"The alias was moved, but is not in the audit yet; the same command again records it. {error}")
    else:
        anchor_after(project, progress)
