"""The components that a project may declare in a defs.yaml, and how several projects become one code location."""

from pip_dagster.loaded import loading

with loading("definitions"):  # in a Dagster process this is the first module of this package
    from pip_dagster.components.inference_pipeline import InferencePipeline
    from pip_dagster.orchestration.merge import merge_projects

__all__ = ["InferencePipeline", "merge_projects"]
