"""The code location: dbt's models and the pipeline that reads one of them."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import dagster as dg
from dagster_dbt import DbtCliResource, DbtProject, dbt_assets

transform = DbtProject(project_dir=Path(__file__).parents[1] / "transform")
transform.prepare_if_dev()  # `dagster dev` parses the project; elsewhere run `dbt parse` when you deploy


@dbt_assets(manifest=transform.manifest_path)
def models(context: dg.AssetExecutionContext, dbt: DbtCliResource) -> Iterator[Any]:
    """Run dbt: its models, and their tests as checks."""
    yield from dbt.cli(["build"], context=context).stream()


@dg.definitions
@cache  # one run calls it six times
def defs() -> dg.Definitions:
    """Load each pipeline under shop/defs, beside dbt's models."""
    pipelines = dg.load_from_defs_folder(path_within_project=Path(__file__).parent)
    upstream = dg.Definitions(
        assets=[models],
        resources={"dbt": DbtCliResource(project_dir=transform)},
        executor=dg.in_process_executor,
    )
    return dg.Definitions.merge(pipelines, upstream)
