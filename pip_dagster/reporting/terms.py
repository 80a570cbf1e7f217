"""What an auditor looks up: thresholds in force, digests, how long what is kept, and what the report cannot tell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pip_dagster.declaration.monitoring import Monitoring
from pip_dagster.plural import plural
from pip_dagster.reporting.content import LEAST_ROWS, Day, Named
from pip_dagster.warehouse.kinds import KINDS

if TYPE_CHECKING:
    from pip_dagster.declaration.pipeline import Pipeline
    from pip_dagster.registry.version import ModelVersion
    from pip_dagster.reporting.facts import Facts


def thresholds_of(pipeline: Pipeline) -> tuple[Named, ...]:
    """What the declaration, or its defaults, set; under the names that defs.yaml has for it."""
    spec, gates = pipeline.spec, pipeline.gates
    rules = spec.monitoring or Monitoring()
    found: dict[str, object] = {f"monitoring.{name}": value for name, value in _flat(rules.model_dump(mode="json"))}
    found["min_row_share"] = spec.min_row_share
    if spec.quality:
        found["quality.max_quarantined"] = spec.quality.max_quarantined
    found |= {
        f"gates.{name}": value for name, value in _flat(gates.model_dump(mode="json", exclude={"labels", "unit"}))
    }
    return tuple(Named(name, str(value)) for name, value in found.items() if value not in (None, "", [], {}))


def _flat(values: dict[str, object], prefix: str = "") -> list[tuple[str, object]]:
    found: list[tuple[str, object]] = []
    for name, value in values.items():
        if isinstance(value, dict):
            found += _flat(value, f"{prefix}{name}.")
        else:
            listed = ", ".join(map(str, value)) if isinstance(value, list) else value
            found.append((f"{prefix}{name}", listed))
    return found


def digests_of(pipeline: Pipeline, version: ModelVersion | None, facts: Facts) -> tuple[Named, ...]:
    """By what the predictions can be proven: of model, declaration, features and scores of the newest partition."""
    live = [row for row in facts.scorings if row["is_live"]]
    found = {
        "declared features (sha256)": pipeline.sql_digest,
        "declared scoring (sha256)": pipeline.scoring_digest,
    }
    if version:
        found |= {"model (sha256)": version.digest, "manifest (sha256)": version.manifest_digest}
    if live:
        newest = live[-1]
        key = newest["partition_key"]
        found |= {
            f"scoring of {key}": newest["scoring_id"],
            f"features of {key}": newest["feature_digest"] or "",
            f"scores of {key}": newest["score_digest"] or "",
            f"engine of {key}": newest["engine"] or "",
        }
    if facts.chain:
        found[f"audit entry {facts.chain.entry}"] = facts.chain.head
    return tuple(Named(name, value) for name, value in found.items())


def retention_of() -> tuple[Named, ...]:
    """Which tables hold values of the sources, and which only evidence."""
    classes = {
        "content": "Values from the sources or computed from them; may be erased",
        "evidence": "Digests, counts, decisions and texts; kept as long as the warehouse",
    }
    return tuple(
        Named(name, f"{text}: {', '.join(kind.name for kind in KINDS if kind.retention == name)}.")
        for name, text in classes.items()
    )


def limits_of(pipeline: Pipeline, version: ModelVersion | None, facts: Facts, days: Sequence[Day]) -> tuple[str, ...]:
    """What a reader must not conclude from the report."""
    rules = pipeline.spec.monitoring or Monitoring()
    found = [f"The report covers {len(facts.keys):,} of {plural(facts.stored, 'partition')} that the ledger knows."]
    found += [f"{each.text}. Their figures that are left are evidence." for each in facts.purged]
    if facts.why_published:
        found.append(f"It was read from {facts.read_from}, without the audit: {facts.why_published}")
    if version:
        if version.manifest.verified and version.manifest.training_check is None:
            found.append("The model's scores were not verified against those of training when it was registered.")
        sample = next((sum(each.counts) for each in version.manifest.score_reference.values()), 0)
        if sample:
            found.append(
                f"Training is known by the bins of a reference sample of {sample:,} rows. Differences within a bin "
                "are not seen."
            )
        older = sum(day.is_live and day.version not in (None, version.version) for day in days)
        if older:
            found.append(
                f"{plural(older, 'partition')} of the period were scored by other versions than v{version.version}. "
                "Drift compares scores of one version only."
            )
    if pipeline.labels is None:
        found.append("No labels are declared. Whether the predictions were right is not known.")
    found.append(
        "A drift alarm means that values are unlike those before. It does not mean that predictions are wrong. A "
        f"partition without drift has one with a probability of about {rules.false_alarms:.1%}."
    )
    found.append("Drift rules take partitions as independent; longer stretches of unusual days raise more alarms.")
    found.append(f"Figures of fewer than {LEAST_ROWS} rows are left out.")
    return tuple(found)
