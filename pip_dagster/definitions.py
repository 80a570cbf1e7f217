"""The code location that workspace.yaml names: every pipeline declared under defs/."""

from functools import cache
from pathlib import Path

import dagster as dg


@dg.definitions
@cache  # one run asks six times
def defs() -> dg.Definitions:
    """Load each defs/<pipeline>/defs.yaml; steps run in their run's own process, which spares ten seconds each."""
    pipelines = dg.load_from_defs_folder(path_within_project=Path(__file__).parent)
    return dg.Definitions.merge(pipelines, dg.Definitions(executor=dg.in_process_executor))
