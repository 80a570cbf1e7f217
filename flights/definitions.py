"""The code location: every pipeline under flights/defs."""

from functools import cache
from pathlib import Path

import dagster as dg

from pip_dagster.components import load_project


@dg.definitions
@cache  # one run calls it several times
def defs() -> dg.Definitions:
    """Load each defs/<pipeline>/defs.yaml; steps run in the run's own process, which saves ten seconds each."""
    pipelines = load_project(Path(__file__).parent)
    return dg.Definitions.merge(pipelines, dg.Definitions(executor=dg.in_process_executor))
