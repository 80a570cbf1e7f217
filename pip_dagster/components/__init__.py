"""The components that a project may declare in a defs.yaml, and how projects become a code location."""

from pip_dagster.loaded import loading

with loading("definitions"):  # in a Dagster process this is the first module of this package
    from pip_dagster.components.inference_pipeline import InferencePipeline
    from pip_dagster.orchestration.merge import load_project, merge_projects

__all__ = ["InferencePipeline", "load_project", "merge_projects"]
