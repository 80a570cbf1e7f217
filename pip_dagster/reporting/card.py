"""The model behind the report: its card, its versions, who promoted them, and by which gates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pip_dagster.errors import RegistryError
from pip_dagster.plural import plural
from pip_dagster.promotion.reports import newest_report
from pip_dagster.registry.choose import registry_of
from pip_dagster.registry.errors import InvalidKey, SignatureMissing
from pip_dagster.registry.signing import key_id, public_key, verify_signers
from pip_dagster.reporting.content import Day, GateLine, MoveLine, Named, VersionLine
from pip_dagster.reporting.days import shortened

if TYPE_CHECKING:
    from pip_dagster.declaration.pipeline import Pipeline
    from pip_dagster.registry.aliases import AliasChange
    from pip_dagster.registry.version import ModelVersion
    from pip_dagster.statistics.gate_result import GateReport

_EXCEPTIONS = {"override: ": "override", "accepted unjudged: ": "accepted unjudged"}


def card_of(pipeline: Pipeline, version: ModelVersion) -> tuple[Named, ...]:
    """What the manifest and the declaration state of the model, in the order of a model card (Mitchell et al. 2019)."""
    manifest, spec = version.manifest, pipeline.spec
    window = manifest.training_window
    categories = sum(feature.categories is not None for feature in manifest.features)
    metrics = ", ".join(f"{name} {value:.4g}" for name, value in manifest.metrics.items())
    sample = next((sum(each.counts) + each.missing for each in manifest.score_reference.values()), 0)
    found = {
        "model": f"{version}, {manifest.task}, {manifest.objective}",
        "engine": f"{manifest.engine}; golden rows scored by {manifest.xgboost_version}",
        "intended use": spec.description or "",
        "owners": ", ".join(spec.owners),
        "registered": f"{manifest.registered_at:%Y-%m-%d %H:%M} UTC by {manifest.registered_by}",
        "description": manifest.description,
        "features": f"{len(manifest.features)}, of which {categories} are categories",
        "outputs": ", ".join(manifest.outputs),
        "training data": f"{window[0]} to {window[1]}" if window else "",
        "reference sample": plural(sample, "row") if sample else "",
        "metrics, as registered": metrics,
        "scores": manifest.verified or "",
        "calibration": f"{manifest.calibration.method}" if manifest.calibration else "none is declared",
        "decisions": "; ".join(f"{name}: {sql}" for name, sql in spec.decisions.items()) or "none is declared",
        "segments of the gates": ", ".join(pipeline.gates.segments),
        "gates judged": _judged(pipeline, version),
        "signatures": _signatures(pipeline, version),
        "tags": ", ".join(f"{name} {value}" for name, value in manifest.tags.items()),
        "origin": manifest.origin.uri if manifest.origin else "",
    }
    return tuple(Named(name, value or "not stated") for name, value in found.items())


def _judged(pipeline: Pipeline, version: ModelVersion) -> str:
    """When and by whom the newest gates were run, and over what."""
    report = newest_report(pipeline.project.registry, version.name, version.version)
    if report is None:
        return "no gate was run"
    against = f"against v{report.champion}" if report.champion else "without a former version"
    spans = f" over {plural(len(report.partitions), 'partition')}" if report.partitions else ""
    return f"{report.made_at:%Y-%m-%d %H:%M} UTC by {report.made_by}, for {report.pipeline}, {against}{spans}"


def _signatures(pipeline: Pipeline, version: ModelVersion) -> str:
    """Which of the required signers have signed the manifest; each signature is verified."""
    required, root = pipeline.spec.scoring.required_signers, pipeline.project.root
    found = []
    for signer in required:
        try:
            identity = key_id(public_key(signer, root))
            verify_signers(version, (signer,), root)
            found.append(f"signed by the key {identity}")
        except InvalidKey as error:
            found.append(str(error))
        except SignatureMissing:
            found.append(f"not signed by the key {identity}")
    return ", ".join(found) or "none is required"


def versions_of(pipeline: Pipeline, days: Sequence[Day]) -> tuple[VersionLine, ...]:
    """The registered versions that have partitions of the period live, and those that an alias names; newest first."""
    registry, name = registry_of(pipeline.project, pipeline.spec.scoring), pipeline.spec.scoring.model_name
    live = Counter(day.version for day in days if day.is_live and day.version is not None)
    aliases = registry.aliases(name)
    lines = []
    for number in sorted({*live, *aliases.values()}, reverse=True):
        try:
            version = registry.get(name, number)
        except RegistryError as error:
            lines.append(VersionLine(number, "", "", (), shortened(str(error)), (), None, live[number], ""))
            continue
        manifest = version.manifest
        lines.append(
            VersionLine(
                version=number,
                registered_at=f"{manifest.registered_at:%Y-%m-%d %H:%M}",
                registered_by=manifest.registered_by,
                aliases=tuple(sorted(alias for alias, of in aliases.items() if of == number)),
                description=manifest.description,
                metrics=tuple(Named(metric, f"{value:.4g}") for metric, value in manifest.metrics.items()),
                verified=manifest.verified,
                live_partitions=live[number],
                model_digest=version.digest,
            )
        )
    return tuple(lines)


def moves_of(pipeline: Pipeline) -> tuple[MoveLine, ...]:
    """Every move of the model's aliases, newest first."""
    registry, name = registry_of(pipeline.project, pipeline.spec.scoring), pipeline.spec.scoring.model_name
    return tuple(_move(each) for each in sorted(registry.alias_history(name), key=lambda each: each.at, reverse=True))


def _move(move: AliasChange) -> MoveLine:
    exception = "rollback" if move.rollback_id else next((of for at, of in _EXCEPTIONS.items() if at in move.why), "")
    return MoveLine(
        at=f"{move.at:%Y-%m-%d %H:%M}",
        alias=move.alias,
        before=move.previous,
        after=move.version,
        by=move.by,
        why=shortened(move.why),
        exception=exception,
    )


def gates_of(pipeline: Pipeline, version: ModelVersion) -> tuple[GateLine, ...]:
    """The gates of the newest report on a version; none where it was never judged."""
    report = newest_report(pipeline.project.registry, version.name, version.version)
    return gate_lines(report) if report else ()


def gate_lines(report: GateReport) -> tuple[GateLine, ...]:
    """The gates of a report."""
    return tuple(
        GateLine(result.name, result.state, result.figure, result.threshold, shortened(result.text))
        for result in report.results
    )
