"""One declaration, one inference pipeline."""

from __future__ import annotations

from typing import TYPE_CHECKING

import dagster as dg

from pip_dagster.components.scaffolder import PipelineScaffolder
from pip_dagster.declaration.files import read_pipelines
from pip_dagster.declaration.pipeline import Pipeline
from pip_dagster.declaration.project import Project
from pip_dagster.declaration.spec import PipelineSpec
from pip_dagster.flow.label_metric import check_metric
from pip_dagster.orchestration.definitions import build_definitions

if TYPE_CHECKING:
    from pydantic import BaseModel


@dg.scaffold_with(PipelineScaffolder)
class InferencePipeline(dg.Component):
    """Score a table's new rows with a registered XGBoost model, partition by partition.

    Defines the assets `<name>/features` and `<name>/predictions`, an external asset for each source table and for the
    model, a job and a schedule. The attributes are those of `pip_dagster.declaration.spec.PipelineSpec`.
    """

    def __init__(self, spec: PipelineSpec) -> None:
        self.spec = spec

    @classmethod
    def get_model_cls(cls) -> type[BaseModel]:
        """The declaration's schema; Dagster reports file, line and key of an attribute that does not fit it."""
        return PipelineSpec

    @classmethod
    def load(cls, attributes: BaseModel | None, context: dg.ComponentLoadContext) -> InferencePipeline:
        """Take the attributes unchanged: no templates, since SQL and cron may contain braces."""
        if not isinstance(attributes, PipelineSpec):
            raise dg.DagsterInvalidDefinitionError(
                f"{context.path / 'defs.yaml'}: expected `attributes`, with at least name, partitions, sources, "
                "features and scoring."
            )
        for file in (context.path / name for name in ("defs.yaml", "defs.yml")):
            if file.is_file():  # Dagster takes the last of two equal keys silently
                read_pipelines(file)
        return cls(attributes)

    @classmethod
    def get_spec(cls) -> dg.ComponentTypeSpec:
        """How `dg list` shows the component."""
        return dg.ComponentTypeSpec(
            description="An XGBoost inference pipeline over DuckDB.", produces=["asset", "job", "schedule"]
        )

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """The pipeline's Dagster definitions."""
        pipeline = Pipeline.load(self.spec, context.path, Project.at(context.project_root))
        check_metric(pipeline)
        return build_definitions(pipeline)
