"""What monitoring costs: profiles and drift in a year's run, drift and performance and report of a year, metrics."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import data
from benchmarks.groups.year import dagster
from benchmarks.measure import Measured, Timed, case, in_turns, least_cpu, pip_dagster
from benchmarks.suite import Figure, Options, benchmark, note

if TYPE_CHECKING:
    from pip_dagster.declaration.project import Project
    from pip_dagster.statistics.metrics.measure import Measured as MeasuredRows

SCORINGS = """
  INSERT INTO ledger.scorings BY NAME SELECT 's' || key AS scoring_id, 'bench' AS pipeline, key AS partition_key,
    start AS partition_start, "end" AS partition_end, 'scored' AS status, 'champion' AS role, 'm' AS model_name,
    1 AS model_version, md5('1') AS model_digest, md5('2') AS manifest_digest, md5(key) AS feature_digest,
    '{"o": "' || md5(key) || '"}' AS source_digests, '{"xgboost": "3.2"}' AS engine, 'cpu' AS device, 1 AS threads,
    100 AS rows_in, 98 AS rows_scored, 2 AS rows_quarantined, '{}' AS findings, 0.5 AS mean_score, 0.1 AS seconds,
    0.1 AS cpu_seconds, 300000000 AS peak_memory, now() AS made_at FROM of
"""
LIVE = """
  INSERT INTO ledger.live_changes BY NAME SELECT 'c' || key AS change_id, 'bench' AS pipeline, key AS partition_key,
    's' || key AS scoring_id, 'scored' AS why, 'scored' AS kind, now() AS made_at FROM of
"""
SEGMENTS = "monitoring: {performance: {segments: [carrier, origin]}}"  # 16 and 3 values


@benchmark("monitored_year")
def monitored_year(_: Options) -> list[Figure]:
    """A year of flights in one Dagster run with `monitoring: {}`, against the same without."""
    data.sources()
    data.registry()
    note("a year of flights, with monitoring and without")
    whole = ("2013-01-01", "2013-12-31")
    monitored, plain = map(least_cpu, in_turns(2, lambda: dagster(*whole), lambda: dagster(*whole, monitored=False)))
    detail = f"{plain:.1f} → {monitored:.1f} CPU s; profiles, drift, estimates and alarms"
    return [Figure("a year in one run with monitoring, against without", monitored / plain, 1.10, "×", detail)]


@benchmark("performance_year")
def performance_year(_: Options) -> list[Figure]:
    """The year's labels evaluated in 19 segments, and the report of the year: CPU seconds of the commands."""
    data.sources()
    data.registry()
    with data.scratch() as folder:
        root = data.year_project(folder)
        data.declare(root, "monitoring: {}", SEGMENTS)
        note("a year of flights to evaluate and report")
        pip_dagster(root, "backfill", "flight_delay", "--from", "2013-01-01", "--to", "2013-12-31", "--chunk", "365")
        evaluated = case("benchmarks.groups.monitoring:evaluate_year", root).cpu_seconds
        first, out = ["--from", "2013-01-01"], ["-o", str(root / "report.html")]
        report = least_cpu([pip_dagster(root, "report", "flight_delay", *first, *out) for _ in range(2)])
        size = (root / "report.html").stat().st_size
    return [
        Figure(
            "performance of a year in 19 segments, from labels", evaluated, 3.0, "CPU s", "figures stored and published"
        ),
        Figure("`report` of a year, 24 features", report, 3.0, "CPU s", f"imports included; {size / 1000:,.0f} kB"),
    ]


@benchmark("drift_year")
def drift_year(_: Options) -> list[Figure]:
    """Drift of 40 columns over 365 partitions, and a binary model's metrics by 20 segments: CPU seconds."""
    note("drift and metrics of a year from stored counts")
    drift = least_cpu([case("benchmarks.groups.monitoring:drift") for _ in range(2)])
    figures = case("benchmarks.groups.monitoring:figures").reported
    rows = "365 days of 1,000 rows, 20 segments"
    return [
        Figure("drift of 40 columns over 365 partitions", drift, 1.0, "CPU s", "20 bins, all windows and references"),
        Figure("metrics of a year, from rows", figures["segments"], 3.0, "CPU s", rows),
        Figure("metrics of its windows, from sums", figures["windows"], 3.0, "CPU s", f"seven days each, {rows}"),
    ]


@benchmark("metrics_command")
def metrics_command(_: Options) -> list[Figure]:
    """`pip-dagster metrics` with a year and with five years of hours, its start included."""
    figures = []
    for hours in (8_736, 43_800):
        note(f"metrics of {hours:,} partitions")
        with data.scratch() as folder:
            spent = least_cpu([metrics(project) for project in [build(folder, hours)] for _ in range(3)])
        figures.append(Figure(f"`metrics` of {hours:,} partitions", spent, 1.5, "CPU s", "the best of three"))
    return figures


def evaluate_year(root: str) -> None:
    """Evaluate all labels of the year."""
    # Both are imported once in a process: pandas by DuckDB when it binds a value, SciPy for the first interval.
    import pandas  # noqa: F401
    import scipy.special  # noqa: F401

    from pip_dagster.declaration.find import find_pipeline
    from pip_dagster.declaration.project import Project
    from pip_dagster.flow.performance import evaluate
    from pip_dagster.warehouse.connect import workspace

    pipeline = find_pipeline(Project.at(Path(root)), "flight_delay")
    with Timed() as timed, workspace(threads=1) as con:
        found = evaluate(con, pipeline)
    assert len(found.done) == 365 and not found.problems
    timed.report()


def drift() -> None:
    """Judge a year of 40 columns whose days differ."""
    import numpy as np

    from pip_dagster.declaration.monitoring import Monitoring
    from pip_dagster.monitoring.drift import judge_all
    from pip_dagster.monitoring.series import Column, Series

    rng, columns, days, bins = np.random.default_rng(11), 40, 365, 20
    shares = rng.dirichlet(np.full(bins, 50.0), (columns, days))
    counts = np.zeros((columns, days, bins + 2), np.int64)
    counts[..., :bins] = rng.multinomial(1_000, shares)
    names = (*map(str, range(bins)), "missing", "never seen")
    trained = (*[1_000] * bins, 0, 0)
    listed = tuple(Column("feature", f"f{i}", names, trained, None, 1 / columns) for i in range(columns))
    means = np.full((columns, days), np.nan)
    phases = np.arange(days) % 7
    series = Series(tuple(map(str, range(days))), listed, counts, np.array([trained] * columns), means, phases=phases)
    judge_all(series, range(40), Monitoring())
    with Timed() as timed:
        judged = judge_all(series, range(days), Monitoring())[0].judged
        assert judged.figures and judged.changes  # which are computed where they are shown or stored
    timed.report()


def figures() -> None:
    """Measure a binary model's rows by day and segment, and the windows of seven days from the sums."""
    import time

    import duckdb

    from pip_dagster.statistics.metrics.measure import measure
    from pip_dagster.statistics.metrics.spec import MetricSpec

    def spent(run: Callable[[], object]) -> float:
        run()
        began = time.process_time()
        run()
        return time.process_time() - began

    spec, by = MetricSpec("binary", decisions=("flag",)), ("day", "segment")
    with Timed() as timed, duckdb.connect(config={"threads": 1}) as con:
        con.execute(
            "CREATE TABLE scored AS SELECT *, (random() < score)::INTEGER AS pip_outcome, score > 0.3 AS flag FROM ("
            "SELECT i // 1000 AS day, (random() * 20)::INTEGER AS segment, 1 / (1 + exp(4 - random() * 6)) AS score "
            "FROM range(365000) r(i))"
        )
        measured = measure(con, "scored", spec, by, (("day",), by))
        segments = spent(lambda: measure(con, "scored", spec, by, (("day",), by)))
        of_windows = spent(lambda: _windows(measured))
    timed.report(segments=segments, windows=of_windows)


def _windows(measured: list[MeasuredRows]) -> None:
    """The seven days up to each day, for all rows and for each segment."""
    import numpy as np

    from pip_dagster.statistics.metrics.sums import Stack

    ordered = sorted(measured, key=lambda each: [str(value) for _, value in each.group[1:]])
    for _, group in groupby(ordered, key=lambda each: each.group[1:]):
        parts = [each.sums for each in group]
        ones = np.tril(np.ones((len(parts), len(parts))))
        Stack.of(parts).metrics(ones - np.tril(ones, -7))


def build(root: Path, hours: int) -> Project:
    """A project with so many hours live and published, up to now."""
    import yaml

    from pip_dagster.declaration.find import find_pipeline
    from pip_dagster.declaration.grid import closed_partitions
    from pip_dagster.declaration.project import Project
    from pip_dagster.warehouse.connect import open_warehouse, workspace
    from pip_dagster.warehouse.published import publish_pending
    from pip_dagster.warehouse.transaction import transaction

    folder = root / "defs" / "bench"
    folder.mkdir(parents=True)
    (root / "pyproject.toml").write_text("[tool.pip_dagster]\n")
    (folder / "features.sql").write_text("SELECT k, t, a FROM shop.orders")
    attributes = {
        "name": "bench",
        "partitions": {"every": "hour", "start": f"{datetime.now(UTC) - timedelta(hours=hours):%Y-%m-%dT%H:00:00}"},
        "sources": {"o": {"table": "shop.orders", "parquet": "o.parquet", "partition_column": "t"}},
        "features": {"sql": "features.sql", "key": ["k"], "partition_column": "t"},
        "scoring": {"model_name": "m"},
        "schedule": "5 * * * *",
        "monitoring": {},
    }
    document = {"type": "pip_dagster.components.InferencePipeline", "attributes": attributes}
    (folder / "defs.yaml").write_text(yaml.safe_dump(document))
    project = Project.at(root)
    partitions = closed_partitions(find_pipeline(project, "bench").spec.partitions, datetime.now(UTC))
    rows = ", ".join(f"('{p.key}', TIMESTAMPTZ '{p.start}', TIMESTAMPTZ '{p.end}')" for p in partitions)
    with workspace(threads=2) as con:
        con.execute(f'CREATE TEMP VIEW of AS FROM (VALUES {rows}) t(key, start, "end")')
        with open_warehouse(con, project.warehouse, purpose="benchmark"):
            with transaction(con):
                con.execute(SCORINGS)
                con.execute(LIVE)
            assert publish_pending(con, project) == len(partitions)
    return project


def metrics(project: Project) -> Measured:
    """The command in a process of its own."""
    return pip_dagster(project.root, "metrics")
