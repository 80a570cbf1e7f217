"""A version in brief, for tables and for programs."""

from __future__ import annotations

from pydantic import AwareDatetime, BaseModel, ConfigDict

from pip_dagster.plural import plural
from pip_dagster.registry.held_out import HeldOut
from pip_dagster.registry.protocol import ModelRegistry
from pip_dagster.registry.version import ModelVersion


class VersionSummary(BaseModel):
    """One line of a list of versions; `features` is their number, `digest` the model's sha256."""

    model_config = ConfigDict(frozen=True, protected_namespaces=())

    model: str
    version: int
    aliases: tuple[str, ...]
    engine: str
    task: str
    objective: str
    features: int
    metrics: dict[str, float]
    registered_at: AwareDatetime
    registered_by: str
    description: str
    digest: str


def summarize(version: ModelVersion, aliases: tuple[str, ...]) -> VersionSummary:
    """A version and the aliases that point at it."""
    manifest = version.manifest
    return VersionSummary(
        model=version.name,
        version=version.version,
        aliases=aliases,
        engine=manifest.engine,
        task=manifest.task,
        objective=manifest.objective,
        features=len(manifest.features),
        metrics=manifest.metrics,
        registered_at=manifest.registered_at,
        registered_by=manifest.registered_by,
        description=manifest.description,
        digest=version.digest,
    )


def aliases_of(registry: ModelRegistry, version: ModelVersion) -> tuple[str, ...]:
    """The aliases that point at a version now."""
    return tuple(alias for alias, number in registry.aliases(version.name).items() if number == version.version)


def details(version: ModelVersion, aliases: tuple[str, ...]) -> dict[str, str]:
    """Everything about a version that fits a line, by label, in reading order."""
    manifest = version.manifest
    rounds = "" if manifest.composite else f", rounds {manifest.iteration_range}"
    return {
        "model": str(version),
        "aliases": ", ".join(aliases) or "none",
        "description": manifest.description,
        "task": manifest.task,
        "objective": f"{manifest.objective} ({manifest.booster}){rounds}",
        **{"scores by" if i == 0 else f"{'':{i}}": line for i, line in enumerate(composed(version))},
        "outputs": ", ".join(manifest.outputs),
        **({} if manifest.missing is None else {"missing value": f"{manifest.missing:g}"}),
        **({} if manifest.offset is None else {"offset": manifest.offset}),
        **({"training scores": manifest.verified} if manifest.verified else {}),
        "classes": ", ".join(manifest.classes or ()) or "none",
        "metrics": say_metrics(manifest.metrics) or "none",
        **({"held out": say_held_out(manifest.held_out)} if manifest.held_out else {}),
        "training window": " to ".join(manifest.training_window or ()) or "not given",
        "tags": ", ".join(f"{key}={value}" for key, value in manifest.tags.items()) or "none",
        "registered": f"{manifest.registered_at:%Y-%m-%d %H:%M:%S} UTC by {manifest.registered_by}",
        **({"origin": manifest.origin.uri} if manifest.origin else {}),
        manifest.engine: manifest.xgboost_version,
        "model sha256": version.digest,
        "manifest sha256": version.manifest_digest,
        "folder": str(version.path),
    }


def composed(version: ModelVersion) -> list[str]:
    """A composite in lines: how its members score together, then their origins; empty for a single model."""
    composite = version.manifest.composite
    if composite is None:
        return []
    lines = []
    for segment in composite.segments:
        members = [composite.members[term.member] for term in segment.terms]
        text = str(members[0])
        if len(members) > 1:
            total = sum(term.weight for term in segment.terms)
            shares = (
                f"{term.weight / total:.3g} {member}" for term, member in zip(segment.terms, members, strict=True)
            )
            text = f"mean of {composite.combine}s: {' + '.join(shares)}"
        if not composite.routes:
            lines.append(text)
            continue
        condition = "every other row" if segment.when is None else segment.when.strip()
        lines.append(f"{segment.name}: {text}" + ("" if segment.name == condition else f", where {condition}"))
    if composite.unmatched:
        lines.append(f"a row without a segment: {composite.unmatched}")
    files = version.manifest.files
    for member in composite.members:
        alias = f", {member.alias} at the time" if member.alias else ""
        lines.append(f"{member}{alias}: {member.file}, sha256 {files[member.file]}")
    return lines


def say_held_out(found: HeldOut) -> str:
    """What a version's held-out rows showed, on one line."""
    overall = {name: value for name, value in found.metrics.items() if "." not in name or len(found.metrics) < 5}
    return f"{plural(found.rows, 'row')}, outcome {found.outcome}: {say_metrics(overall)}"


def say_metrics(metrics: dict[str, float]) -> str:
    """Metrics on one line: auc 0.72, logloss 0.45."""
    return ", ".join(f"{name} {value:g}" for name, value in metrics.items())
