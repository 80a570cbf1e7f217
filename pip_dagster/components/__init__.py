"""What a project may put into its defs.yaml."""

from pip_dagster.components.inference_pipeline import InferencePipeline

__all__ = ["InferencePipeline"]
