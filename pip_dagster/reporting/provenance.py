"""From what a report was read: the ledger's state, the model, and the period."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from pip_dagster import __version__
from pip_dagster.errors import RegistryError
from pip_dagster.registry.store import Registry
from pip_dagster.reporting.content import Period, Provenance
from pip_dagster.sql.names import literal

if TYPE_CHECKING:
    from pip_dagster.declaration.pipeline import Pipeline
    from pip_dagster.registry.version import ModelVersion
    from pip_dagster.reporting.facts import Facts
    from pip_dagster.reporting.source import OpenLedger


def live_version(source: OpenLedger, pipeline: Pipeline) -> tuple[ModelVersion | None, str]:
    """The version whose scores are live in the newest partition; without one, that which the alias names.

    None, with the reason, where it cannot be read.
    """
    scoring = pipeline.spec.scoring
    found = source.con.execute(
        "SELECT arg_max(model_version, partition_start) FROM ledger.partitions "
        f"WHERE pipeline = {literal(pipeline.spec.name)} AND is_live AND role = 'champion'"
    ).fetchone()
    registry = Registry(pipeline.project.registry)
    try:
        return registry.get(scoring.model_name, (found and found[0]) or scoring.alias), ""
    except RegistryError as error:
        return None, str(error)


def provenance_of(pipeline: Pipeline, facts: Facts, version: ModelVersion | None) -> Provenance:
    """What a report says of its origin."""
    live = [row for row in facts.scorings if row["is_live"]]
    return Provenance(
        read_from=facts.read_from,
        as_of=_iso(facts.as_of),
        ledger_entry=facts.chain.entry if facts.chain else None,
        ledger_head=facts.chain.head if facts.chain else None,
        model=pipeline.spec.scoring.model_name,
        model_version=version.version if version else None,
        model_digest=version.digest if version else None,
        manifest_digest=version.manifest_digest if version else None,
        data_up_to=_iso(live[-1]["partition_end"]) if live else None,
        software=__version__,
    )


def period_of(facts: Facts) -> Period:
    """The partitions that were read."""
    first, last = (facts.keys[0], facts.keys[-1]) if facts.keys else (None, None)
    return Period(first, last, len(facts.keys), facts.stored)


def _iso(at: datetime | None) -> str | None:
    return f"{at:%Y-%m-%dT%H:%M:%SZ}" if at else None
