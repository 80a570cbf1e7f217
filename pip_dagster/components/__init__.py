"""What a project may put into its defs.yaml."""

from pip_dagster.loaded import loading

with loading("definitions"):  # in a process of Dagster's this is the first module of ours
    from pip_dagster.components.inference_pipeline import InferencePipeline

__all__ = ["InferencePipeline"]
