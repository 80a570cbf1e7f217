"""The cost of the expectations: the demo's year of flights with and without them, in one run.

Run `python benchmarks/quality_cost.py` after `make demo`. It prints the seconds for extracting and scoring 365
partitions, the seconds with the declared expectations, and the ratio of the difference.
"""

import shutil
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from pip_dagster.declaration.find import find_pipeline
from pip_dagster.declaration.pipeline import Pipeline
from pip_dagster.declaration.project import Project
from pip_dagster.flow.materialize import materialize
from pip_dagster.ledger.record import RunInfo
from pip_dagster.orchestration.partitions import partitions_definition, partitions_of
from pip_dagster.quality.suite import Suites

BOUND = 1.0


def seconds(pipeline: Pipeline, folder: Path) -> float:
    """CPU seconds of the year, in a new warehouse."""
    project = replace(pipeline.project, warehouse=folder / "warehouse.duckdb", published=folder / "published")
    definition = partitions_definition(pipeline.spec.partitions)
    partitions = partitions_of(definition, definition.get_partition_keys())
    began = time.process_time()
    results = list(materialize(replace(pipeline, project=project), partitions, RunInfo("benchmark", "benchmark")))
    spent = time.process_time() - began
    assert len(results) == len(partitions)
    shutil.rmtree(folder)
    return spent


def main() -> None:
    """Measure both twice and print the better of each."""
    declared = find_pipeline(Project.find(), "flight_delay")
    suites = declared.suites
    count = sum(map(len, (*suites.sources.values(), suites.features, suites.predictions)))
    bare = replace(declared, suites=Suites())
    without, with_them = (
        min(seconds(pipeline, Path(tempfile.mkdtemp())) for _ in range(2)) for pipeline in (bare, declared)
    )
    ratio = (with_them - without) / without
    print(f"365 partitions without expectations: {without:.1f} s; with {count}: {with_them:.1f} s")
    print(f"quality costs {ratio:.2f} of extraction and scoring; bound {BOUND}; holds: {ratio <= BOUND}")


if __name__ == "__main__":
    main()
