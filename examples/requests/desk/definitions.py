"""The code location."""

from functools import cache
from pathlib import Path

import dagster as dg

from pip_dagster.components import load_project


@dg.definitions
@cache  # one run calls it six times
def defs() -> dg.Definitions:
    """Load each pipeline under desk/defs."""
    pipelines = load_project(Path(__file__).parent)
    return dg.Definitions.merge(pipelines, dg.Definitions(executor=dg.in_process_executor))
