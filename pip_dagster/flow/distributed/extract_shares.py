"""A partition's features extracted by the tasks of a cluster, as one machine would have extracted them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from operator import add
from typing import TYPE_CHECKING

from pip_dagster.declaration.partition import Partition
from pip_dagster.flow.cost import Cost
from pip_dagster.flow.distributed.cluster import Cluster, versions
from pip_dagster.flow.distributed.exchange import check_exchanged
from pip_dagster.flow.distributed.places import Places
from pip_dagster.flow.distributed.shared_stage import SharedStage
from pip_dagster.flow.distributed.tasks import ExtractedShare, TaskPlace, ToExtract, extract_share
from pip_dagster.flow.extract import Extract, Extraction, extract
from pip_dagster.plural import plural
from pip_dagster.quality.suite import Suites
from pip_dagster.sql.repeatable import depends_on_order
from pip_dagster.warehouse.digest import RowSet

if TYPE_CHECKING:
    from pathlib import Path

    from pip_dagster.declaration.pipeline import Pipeline
    from pip_dagster.privacy.suppressed import Incoming

_REASONS = 3  # of a partition that failed in several shares, in its error


def extract_shares(
    stage: SharedStage,
    cluster: Cluster,
    pipeline: Pipeline,
    partitions: Sequence[Partition],
    people: Incoming | None,
    *,
    as_known: bool = False,
) -> Extraction:
    """What `extract` does, with its rows extracted by tasks. The sources are hashed and judged here, once.

    If rows that are equal in its order let the SQL choose, each task would choose others: rows would be missing, or
    there twice. One task then extracts all of them.

    Raises:
        DeclarationError, SourceError: as `extract`.
        ClusterError: the cluster cannot do the work.
    """
    places = Places.of(pipeline)  # before the sources are hashed: a task that finds others refuses
    empty = extract(stage, pipeline, partitions, people=people, as_known=as_known, only="false")
    columns = stage.columns
    check_exchanged(pipeline.spec.name, columns)
    place = place_of(cluster, cluster.new_folder("features"))
    once = depends_on_order(pipeline.sql)
    to = ToExtract(place, for_tasks(pipeline), partitions, as_known, places, people, once)
    tasks = 1 if once else cluster.tasks
    by = plural(tasks, "task")
    cluster.progress(f"{pipeline.spec.name}: extracting {partitions[0].key} by {by} on the Ray cluster")
    shares: list[ExtractedShare] = cluster.map(extract_share, range(tasks), to)
    stage.show_features(columns, {share: files for each in shares for share, files in each.files.items()})
    failed = dict(empty.failed)
    for key in {key for each in shares for key in each.failed}:
        reasons = list(dict.fromkeys(each.failed[key] for each in shares if key in each.failed))
        failed[key] = "; ".join(reasons[:_REASONS])
    extracts = {
        key: _merged(of, [each.row_sets[key] for each in shares], columns, [each.cost for each in shares])
        for key, of in empty.extracts.items()
        if key not in failed
    }
    return Extraction(extracts, failed, empty.sources, empty.read_at)


def place_of(cluster: Cluster, folder: Path) -> TaskPlace:
    """Where tasks write, and what they must have."""
    return TaskPlace(str(cluster.folder), str(folder), versions(), cluster.cpus, cluster.tasks)


def for_tasks(pipeline: Pipeline) -> Pipeline:
    """A pipeline without what tasks do not need: the warehouse, with its password, alerts, MLflow and expectations."""
    root = pipeline.project.root
    project = replace(pipeline.project, warehouse=root, registry=root, published=root, mlflow=None)
    spec = pipeline.spec.model_copy(update={"alerts": None, "quality": None, "labels": None, "gates": None})
    return replace(pipeline, spec=spec, project=project, suites=Suites(), labels_sql=None)


def _merged(of: Extract, sets: Sequence[RowSet], columns: dict[str, str], costs: Sequence[Cost]) -> Extract:
    rows = reduce(add, sets, RowSet())
    return replace(of, rows=rows.rows, digest=rows.digest(columns), row_set=rows, cost=with_tasks(of.cost, costs, 1.0))


def with_tasks(own: Cost, tasks: Sequence[Cost], share: float) -> Cost:
    """What a partition cost the run and, for its share of their rows, the tasks."""
    cpu = sum(each.cpu_seconds for each in tasks) * share
    return Cost(own.seconds, own.cpu_seconds + cpu, max([own.peak_memory, *(each.peak_memory for each in tasks)]))
