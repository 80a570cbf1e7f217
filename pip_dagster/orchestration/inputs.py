"""What a pipeline reads but does not build: its source tables and its model, as observable assets."""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from pip_dagster.declaration.durations import as_declared
from pip_dagster.declaration.pipeline import Pipeline
from pip_dagster.flow.engine import available_threads
from pip_dagster.flow.fingerprints import Fingerprints
from pip_dagster.flow.sources import columns_of, open_sources, rows_of, view_of
from pip_dagster.orchestration.failure import as_failure
from pip_dagster.orchestration.keys import model_key, source_key
from pip_dagster.orchestration.links import docs
from pip_dagster.orchestration.metadata import column_schema, digests, rounded
from pip_dagster.registry.choose import registry_of
from pip_dagster.registry.version import ModelVersion
from pip_dagster.warehouse.connect import workspace
from pip_dagster.warehouse.digest import RowSet, row_set_sql

DATA_VERSION_TAG = "dagster/data_version"


def source_assets(pipeline: Pipeline) -> list[dg.AssetsDefinition]:
    """An external asset for each source table that is not declared to be another asset's; observing it digests it."""
    spec = pipeline.spec
    specs = [
        dg.AssetSpec(
            source_key(spec, name),
            description=source.description or f"The source table {source.table}.",
            group_name=spec.name,
            owners=spec.owners,
            kinds={"duckdb" if source.origin in (None, "database") else source.origin, "table"},
            metadata={
                "dagster/table_name": source.table,
                "read from": source.place(spec.source_database),
                "partition column": source.partition_column or "none: the whole table is read",
                "lookback": as_declared(source.lookback) if source.lookback else "none",
                **docs(pipeline, "declaration"),
            },
        )
        for name, source in spec.sources.items()
        if source.asset_key is None
    ]
    if not specs:
        return []

    @dg.multi_observable_source_asset(
        specs=specs,
        name=f"{spec.name}_sources",
        can_subset=True,
        description=f"Count and digest the source tables of {spec.name}.",
    )
    def observe_sources(context: dg.AssetExecutionContext) -> Iterator[dg.ObserveResult]:
        wanted = context.selected_asset_keys
        with (
            as_failure(),
            workspace(threads=available_threads()) as con,
            open_sources(con, spec, pipeline.project.root),
        ):
            for name, source in spec.sources.items():
                if source_key(spec, name) not in wanted:
                    continue
                columns = columns_of(con, source)
                sql = f"SELECT {row_set_sql(columns)} FROM {view_of(source)}"
                with rows_of(spec, name, source):
                    row = con.execute(sql).fetchone()
                rows = RowSet(*(row or ()))
                yield dg.ObserveResult(
                    asset_key=source_key(spec, name),
                    data_version=dg.DataVersion(rows.digest(columns)),
                    metadata={
                        "dagster/row_count": rows.rows,
                        "dagster/column_schema": column_schema({c: (kind, "") for c, kind in columns.items()}),
                    },
                )

    return [observe_sources]


def model_asset(pipeline: Pipeline) -> dg.AssetsDefinition:
    """The model that the declared alias names: an external asset whose data version is its manifest's digest."""
    spec = pipeline.spec
    asset = dg.AssetSpec(
        model_key(spec),
        description=f"The version of `{spec.scoring.model_name}` that the alias `{spec.scoring.alias}` names in the "
        "registry. Add versions with `pip-dagster models register`, move the alias with `pip-dagster models promote`.",
        group_name=spec.name,
        owners=spec.owners,
        kinds={"xgboost", "model"},
        metadata={"model name": spec.scoring.model_name, "alias": spec.scoring.alias, **docs(pipeline, "promotion")},
    )

    @dg.multi_observable_source_asset(specs=[asset], name=f"{spec.name}_model", description="Look up the alias.")
    def observe_model() -> dg.ObserveResult:
        with as_failure():
            version = registry_of(pipeline.project, spec.scoring).get(spec.scoring.model_name, spec.scoring.alias)
        return dg.ObserveResult(
            asset_key=model_key(spec),
            data_version=dg.DataVersion(version.manifest_digest),
            metadata=model_metadata(version),
        )

    return observe_model


def model_metadata(version: ModelVersion) -> dict[str, Any]:
    """A model version for the UI."""
    manifest = version.manifest
    return {
        "model": str(version),
        "version": version.version,
        "description": manifest.description or "none",
        **{f"metric {name}": rounded(value) for name, value in manifest.metrics.items()},
        "objective": manifest.objective,
        "features": len(manifest.features),
        "signature": column_schema({f.name: (f.type, "") for f in manifest.features}),
        "registered by": manifest.registered_by,
        "registered at": dg.MetadataValue.timestamp(manifest.registered_at),
        "trained with": f"XGBoost {manifest.xgboost_version}",
        "digests": digests({"model": version.digest, "manifest": version.manifest_digest}),
    }


def source_observations(
    instance: dg.DagsterInstance, pipeline: Pipeline, read: Fingerprints
) -> Iterator[dg.AssetObservation]:
    """What a run read of each source, from what it computed in any case; not of those that are other assets.

    The newest data version is repeated, because what a run reads is a part of the source only.
    """
    spec, keys = pipeline.spec, [*read.of]
    for name, columns in read.columns.items():
        key, source = source_key(spec, name), spec.sources[name]
        if source.asset_key:
            continue
        rows, newest = read.rows(name), read.newest(name)
        metadata: dict[str, Any] = {"rows read" if source.partition_column else "dagster/row_count": rows}
        metadata["read for"] = keys[0] if len(keys) == 1 else f"{keys[0]}…{keys[-1]}"
        if newest:
            metadata["newest row"] = f"{newest:%Y-%m-%d %H:%M} or later".replace(" 00:00 or later", "")
        metadata["columns"] = column_schema({c: (kind, "") for c, kind in columns.items()})
        seen = instance.fetch_observations(key, limit=1).records
        before = seen[0].asset_observation if seen else None
        version = before.tags.get(DATA_VERSION_TAG) if before else None
        yield dg.AssetObservation(key, metadata=metadata, tags={DATA_VERSION_TAG: version} if version else None)
