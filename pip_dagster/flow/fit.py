"""Whether features, a model and the declaration fit each other, by names and types alone: no row is read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from pip_dagster.declaration.lake import Lake
from pip_dagster.errors import DeclarationError
from pip_dagster.flow.decide import check_classes
from pip_dagster.flow.explain import check_explanations
from pip_dagster.flow.guard_composite import encode_model
from pip_dagster.flow.score_chunk import reference
from pip_dagster.flow.scored_row import scored_columns
from pip_dagster.quality.parameters import with_parameters
from pip_dagster.quality.suite import check_columns
from pip_dagster.sql.names import column_named
from pip_dagster.warehouse.tables import check_kept

if TYPE_CHECKING:
    from pip_dagster.declaration.pipeline import Pipeline
    from pip_dagster.registry.manifest import Manifest


def check_fit(pipeline: Pipeline, manifest: Manifest, columns: Mapping[str, str]) -> None:
    """Refuse features that the model or the expectations cannot be meant for, before any is stored.

    Args:
        pipeline: the declaration.
        manifest: the model's.
        columns: of the features, name → SQL type.

    Raises:
        DeclarationError: names the column, expectation or parameter.
    """
    for misfit in misfits(pipeline, manifest, columns):
        raise misfit


def misfits(pipeline: Pipeline, manifest: Manifest, columns: Mapping[str, str]) -> Iterator[DeclarationError]:
    """Everything for which `check_fit` would refuse these features."""
    spec, suites, lake = pipeline.spec, pipeline.suites, isinstance(pipeline.project.warehouse, Lake)
    where = f"Pipeline {spec.name}, {spec.features.sql} for model {manifest.model_name} v{manifest.version}"
    scored: dict[str, str] = {}
    for check in (
        lambda: _check_subject(pipeline, manifest),
        lambda: encode_model(manifest, columns, where=where),
        lambda: check_columns(suites.features, columns),
        lambda: scored.update(scored_columns(spec, manifest, columns)),
        lambda: check_kept(spec.name, "features", columns) if lake else None,
        lambda: check_kept(spec.name, "predictions", scored) if lake else None,
        lambda: check_columns(suites.predictions, scored) if scored else None,
        lambda: with_parameters(suites.predictions, reference(manifest)),
        lambda: check_explanations(spec, manifest, columns),
        lambda: _check_segments(pipeline, columns),
        lambda: check_classes(pipeline, manifest),
    ):
        try:
            check()
        except DeclarationError as error:
            yield error


def _check_subject(pipeline: Pipeline, manifest: Manifest) -> None:
    spec = pipeline.spec
    privacy, features = spec.privacy, [each.name for each in manifest.features]
    if privacy and privacy.pseudonymize and column_named(features, privacy.subject):
        raise DeclarationError(
            f"Pipeline {spec.name}: privacy.subject {privacy.subject!r} is a feature of model "
            f"{manifest.model_name} v{manifest.version}, which would get pseudonyms. Train it "
            "without, or declare no pseudonyms."
        )


def _check_segments(pipeline: Pipeline, columns: Mapping[str, str]) -> None:
    spec = pipeline.spec
    unknown = [name for name in (spec.monitoring.segments if spec.monitoring else ()) if name not in columns]
    if unknown:
        raise DeclarationError(
            f"Pipeline {spec.name}: monitoring.segments names {', '.join(unknown)}, and {spec.features.sql} selects no "
            f"such column. It selects {', '.join(columns)}."
        )
