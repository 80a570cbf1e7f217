"""The components that a project may declare in a defs.yaml."""

from pip_dagster.loaded import loading

with loading("definitions"):  # in a Dagster process this is the first module of this package
    from pip_dagster.components.inference_pipeline import InferencePipeline

__all__ = ["InferencePipeline"]
