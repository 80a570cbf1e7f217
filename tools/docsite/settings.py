"""The page of a project's settings and of the environment variables that are read."""

from __future__ import annotations

from tools.docsite.markdown import cell, table

HEAD = """# Settings and environment variables

For whoever installs a project on a machine: where things are kept, and which environment variables are read. Generated
from the code.

## Settings of the project

In `[tool.pip_dagster]` of the project's `pyproject.toml`. Paths are relative to that file. An environment
variable takes precedence over the file.

"""
ALERTS = """
The table `[tool.pip_dagster.alerts]` has the keys of [`alerts`](../declaration.md#schedule-sensors-and-alerts), for
pipelines that declare none. The table `[tool.pip_dagster.anchors]` declares where the audit is
[anchored](../rollback.md#anchors).

## Environment variables

"""
FURTHER = """
Dagster, DuckDB, XGBoost and OpenMP read variables of their own; libpq's `PG…` variables hold for a lake in Postgres.
Where the setting `openlineage` is `client`, openlineage-python reads its own, which begin with `OPENLINEAGE`.
The variables that `alerts.webhook` names are read when an alert is sent.
"""

# Each variable that the package reads, beside those of settings.
VARIABLES = {
    "PIP_DAGSTER_PROJECT": "The project's folder; by default the one that contains the working directory.",
    "PIP_DAGSTER_LOCK_DEADLINE": "Seconds to wait for the warehouse, 120 by default; then the run fails.",
    "PIP_DAGSTER_MEMORY_LIMIT": "The most memory that DuckDB may take, such as `8GB`; by default what the run needs.",
    "PIP_DAGSTER_DEBUG": "Any value: an error that no command foresaw is shown with its traceback.",
    "DAGSTER_HOME": "Dagster's folder. With it, `backfill` records runs that the UI shows. An absolute path.",
    "DAGSTER_BACKFILL_RETRY_DEFINITION_CHANGED_ERROR": "1: Dagster's backfills wait for a code server that is away.",
    "DAGSTER_EVENT_BATCH_SIZE": "Set to 1000 where absent, so that the events of many partitions are stored at once.",
    "OMP_WAIT_POLICY": "Set to PASSIVE where absent: otherwise scoring is several times slower beside a busy process.",
    "RAY_ADDRESS": "The Ray cluster, where `scoring.engine` is `ray` and has no `address`.",
    "AWS_ACCESS_KEY_ID": "A key for S3; without one, the machine's role.",
    "AWS_SECRET_ACCESS_KEY": "Its secret.",  # pragma: allowlist secret
    "AWS_SESSION_TOKEN": "Its session, for a key that expires.",
    "AWS_REGION": "The region of S3.",
    "AWS_DEFAULT_REGION": "The same, where AWS_REGION is absent.",
    "AWS_ENDPOINT_URL_S3": "Another S3 server than Amazon's; its buckets are addressed as paths.",
    "AWS_ENDPOINT_URL": "The same, where AWS_ENDPOINT_URL_S3 is absent.",
    "OPENLINEAGE_API_KEY": "The key of a receiver of lineage.",  # pragma: allowlist secret
    "OPENLINEAGE_ENDPOINT": "The path of a receiver of lineage, `api/v1/lineage` by default.",
    "MLFLOW_REGISTRY_URI": "The MLflow registry, where the setting `mlflow` is absent.",
    "MLFLOW_TRACKING_URI": "The same, where MLFLOW_REGISTRY_URI is absent.",
    "MLFLOW_DISABLE_TELEMETRY": "Set to true where absent.",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "Set to false where absent.",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "Set to 3 where absent: a registry that is down is reported within seconds.",
    "GX_ANALYTICS_ENABLED": "Set to false: Great Expectations sends nothing.",
    "TZ": "Where the machine names its time zone: what `init` proposes.",
}


def page() -> str:
    """The page."""
    from pip_dagster.declaration.project import OPTIONAL_SETTINGS, SETTINGS

    rows = [(key, f"`{default}`", about) for key, (default, about) in SETTINGS.items()]
    rows += [(key, "none", about) for key, about in OPTIONAL_SETTINGS.items()]
    listed = [(f"`{key}`", default, cell(about), f"`PIP_DAGSTER_{key.upper()}`") for key, default, about in rows]
    variables = [(f"`{name}`", cell(about)) for name, about in VARIABLES.items()]
    settings = table(("setting", "default", "meaning", "variable"), listed)
    return HEAD + settings + ALERTS + table(("variable", "meaning"), variables) + FURTHER
