"""A bad version goes live in a copy of the demo; what monitoring knew of it, day by day.

`python examples/monitoring/planted.py [PROJECT] [--version 1] [--days 30]`, after `make demo`. It works in a temporary
folder with PROJECT's source tables and models; the project itself is only read.

v2 scores August. From 1 September another version is live: one trained as v2, but with each flight's outcome taken from
another flight, as a join on the wrong key would; or a registered one with `--version`. The script moves the alias past
the gates, which `pip-dagster models promote` does not. Labels arrive three days after their day. Every figure and alarm
is what the pipeline itself computed from what it had on that morning.
"""

import argparse
import logging
import shutil
import sys
import tempfile
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from statistics import median

import duckdb

import pip_dagster
from pip_dagster.declaration.find import find_pipeline
from pip_dagster.declaration.grid import partition_named
from pip_dagster.declaration.pipeline import Pipeline
from pip_dagster.declaration.project import Project
from pip_dagster.flow.materialize import materialize
from pip_dagster.flow.performance import evaluate
from pip_dagster.ledger.alarms import AlarmEntry, alarm_states
from pip_dagster.ledger.record import RunInfo
from pip_dagster.monitoring.estimates import ShownEstimate, read_estimates
from pip_dagster.monitoring.estimating import estimate_stored
from pip_dagster.monitoring.performance import performance_findings, read_performance
from pip_dagster.monitoring.watch import watch_findings, watch_scored
from pip_dagster.registry.store import Registry
from pip_dagster.warehouse.access import reading
from pip_dagster.warehouse.connect import workspace

ROOT = Path(__file__).parents[2]
NAME = "flight_delay"
FIRST, LIVE = date(2013, 8, 1), date(2013, 9, 1)  # v2's first day, and the bad version's
DELAY = timedelta(days=3)


def copy_of(source: Path, target: Path) -> Project:
    """A project whose labels are in a table of their own, which is empty."""
    shutil.copytree(ROOT / "flights" / "defs" / NAME, target / "defs" / NAME)
    (target / "pyproject.toml").write_text("[tool.pip_dagster]\n", encoding="utf-8")
    original = Project.at(source)
    shutil.copytree(original.registry, target / "data" / "registry")
    shutil.copy(source / "data" / "sources.duckdb", target / "data")
    edited = {
        "labels.sql": ("raw.outcomes", "raw.labels"),
        "defs.yaml": ("  sources:\n", "  sources:\n    labels: {table: raw.labels, partition_column: flight_date}\n"),
    }
    for name, (old, new) in edited.items():
        file = target / "defs" / NAME / name
        file.write_text(file.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
    with duckdb.connect(str(target / "data" / "sources.duckdb")) as con:
        con.execute("CREATE TABLE raw.labels AS FROM raw.outcomes LIMIT 0")
    return Project.at(target)


def register_bad(project: Project, source: Path) -> int:
    """v2's recipe on outcomes of other flights; July is held out, with its own outcomes."""
    sys.path.insert(0, str(ROOT))
    from flights import train

    demo = pip_dagster.open(source)[NAME]  # the copy has no labels yet
    rows, july = (
        demo.training_set(*of, labelled_only=True, prove=0).df().sort_values("flight_key")
        for of in (train.TRAIN, train.VALIDATE)
    )
    rows["late15"] = rows["late15"].sample(frac=1, random_state=7).to_numpy()
    recipe = replace(train.RECIPES[1], early_stopping=None)
    categories = {name: sorted(rows[name].dropna().unique()) for name in ("carrier", "origin", "dest")}
    booster = train.xgb.train(
        train.COMMON | recipe.parameters, train.matrix(rows, recipe.features, categories), recipe.rounds
    )
    booster.save_model(file := project.root / "data" / "bad.ubj")
    return (
        Registry(project.registry)
        .register(
            NAME,
            model=file,
            sample=rows.iloc[:: len(rows) // 10_000],
            categories=categories,
            description="outcomes joined to the wrong flights",
            outcome="late15",
            held_out=july[july["dest"].isin(categories["dest"])],
        )
        .version
    )


def load_labels(project: Project, first: date, last: date) -> None:
    """The outcomes of some days arrive."""
    with duckdb.connect(str(project.root / "data" / "sources.duckdb")) as con:
        con.execute("INSERT INTO raw.labels FROM raw.outcomes WHERE flight_date BETWEEN ? AND ?", [first, last])


def read_labels(pipeline: Pipeline) -> None:
    """As `pip-dagster performance --evaluate`."""
    with workspace(threads=2) as con:
        evaluate(con, pipeline)
        watch_findings(pipeline, performance_findings(con, pipeline))


def score(pipeline: Pipeline, days: list[date]) -> None:
    """As a run of these days: with what labels show by now, they are scored, estimated and judged."""
    keys = [str(day) for day in days]
    partitions = [partition_named(pipeline.spec.partitions, key) for key in keys]
    for result in materialize(pipeline, partitions, RunInfo("planted", "examples/monitoring/planted.py")):
        if result.error:
            raise SystemExit(f"{result.partition.key}: {result.error}")
    champion = Registry(pipeline.project.registry).get(NAME, "champion")
    with workspace(threads=2) as con:
        estimate_stored(con, pipeline, champion, partitions=keys, past=True)
    watch_scored(pipeline, None, keys)


def measured(pipeline: Pipeline) -> dict[str, float]:
    """Day → AUC by the labels that are there."""
    with workspace(threads=1) as con:
        of = read_performance(con, pipeline)
    windows = [of.window([each]) for each in of.counting()]
    return {each.last: each.value for each in windows if each and each.value is not None}


def morning(pipeline: Pipeline, day: date) -> None:
    """Labels of three days before arrive, then the day is scored."""
    load_labels(pipeline.project, day - DELAY, day - DELAY)
    read_labels(pipeline)
    score(pipeline, [day])


def estimated(pipeline: Pipeline, version: int) -> ShownEstimate | None:
    """The AUC that is expected of the newest day; None if there is no estimate, or it is withdrawn."""
    of = Registry(pipeline.project.registry).get(NAME, version)
    with workspace(threads=1) as con:
        shown = read_estimates(con, pipeline, of, last=1)
    return next((each for each in shown if each.metric == "auc" and not each.withdrawn), None)


def in_alarm(pipeline: Pipeline) -> list[AlarmEntry]:
    """As `pip-dagster alarms`, without the warnings."""
    with workspace(threads=1) as con, reading(con, pipeline.project, purpose="reading alarms"):
        return [each for each in alarm_states(con, NAME) if each.state == "alarm"]


def simulate(project: Project, source: Path, version: int | None, days: int) -> None:
    """August with v2, then the bad version day by day, until an alarm is raised from labels."""
    pipeline, registry = find_pipeline(project, NAME), Registry(project.registry)
    bad = version or register_bad(project, source)
    registry.set_alias(NAME, "champion", 2, by="planted.py", why="the demo's champion")
    score(pipeline, [FIRST + timedelta(days=i) for i in range((LIVE - FIRST).days)])
    load_labels(project, FIRST, LIVE - DELAY - timedelta(days=1))
    read_labels(pipeline)
    usual = median(measured(pipeline).values())
    print(f"v2 in August: auc {usual:.3f} on its median day. From {LIVE}, v{bad} is live.")
    print("day         auc expected of it      measured, 3 days before  in alarm")
    registry.set_alias(NAME, "champion", bad, by="planted.py", why="the planted regression")
    found: dict[str, date] = {}
    for day in (LIVE + timedelta(days=i) for i in range(days)):
        morning(pipeline, day)
        expected, alarms = estimated(pipeline, bad), in_alarm(pipeline)
        band = "none"
        if expected and expected.high is not None:
            band = f"{expected.value:.3f} ({expected.low:.3f} to {expected.high:.3f})"
            if expected.high < usual:
                found.setdefault("estimate", day)
        figure = measured(pipeline).get(str(day - DELAY))
        truth = f"v{bad if day - DELAY >= LIVE else 2} {figure:.3f}" if figure is not None else "none"
        named = ", ".join(dict.fromkeys(f"{each.event} ({each.rule})" for each in alarms))
        print(f"{day}  {band:22}  {truth:23}  {named or '-'}", flush=True)
        if any(each.event == "performance" for each in alarms):
            found["labels"] = day
            break
    print(f"By the estimate, which is below v2's median day: {found.get('estimate', 'not found')}.")
    print(f"By labels, an alarm: {found.get('labels', 'not found')}.")


def main() -> None:
    """Run it in a temporary folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("project", nargs="?", type=Path, default=ROOT, help="where `make demo` ran")
    parser.add_argument("--version", type=int, help="this version goes live in place of a newly trained one")
    parser.add_argument("--days", type=int, default=30, help="at most so many days from 1 September on")
    given = parser.parse_args()
    logging.getLogger("pip_dagster").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        simulate(copy_of(given.project, Path(folder) / "project"), given.project, given.version, given.days)


if __name__ == "__main__":
    main()
