"""What is wrong with a pipeline, found without scoring or storing anything.

It checks the declaration, sources, SQL, model, expectations and labels. Each step reports all that it finds; a step
that needs what an earlier one could not open is left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pip_dagster.declaration.files import line_of
from pip_dagster.declaration.find import find_declarations, load_declared
from pip_dagster.declaration.grid import closed_partitions
from pip_dagster.declaration.partition import Partition
from pip_dagster.errors import DeclarationError, InvalidDeclarationError, PipelineError, RegistryError, SourceError
from pip_dagster.flow.deliverable import undeliverable
from pip_dagster.flow.extract import extract
from pip_dagster.flow.findings import ScoringPolicy, count_findings, refusal
from pip_dagster.flow.fit import misfits
from pip_dagster.flow.guard_composite import encode_model
from pip_dagster.flow.label_query import label_query
from pip_dagster.flow.model import ScoringModel
from pip_dagster.flow.query import FeatureQuery, sql_bounds, without_end
from pip_dagster.flow.reader import sources_alone
from pip_dagster.flow.sources import columns_of, open_sources
from pip_dagster.flow.stage import Stage
from pip_dagster.flow.validate import validate_features
from pip_dagster.plural import plural
from pip_dagster.privacy.suppressed import incoming
from pip_dagster.quality.suite import SuiteError, check_columns
from pip_dagster.quoted import said
from pip_dagster.registry.choose import registry_of
from pip_dagster.registry.errors import ModelNotFound
from pip_dagster.sql.names import quote_all
from pip_dagster.warehouse.connect import workspace
from pip_dagster.warehouse.interrupts import raise_if_interrupted

if TYPE_CHECKING:
    from datetime import datetime

    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.pipeline import Pipeline
    from pip_dagster.declaration.project import Project
    from pip_dagster.registry.manifest import Manifest

_DUCKDB_LINE = re.compile(r"LINE \d+: (.*)")
# Dagster recommends no more for an asset; above, its UI loads slowly.
_MOST_PARTITIONS = 100_000
_ORIGIN = re.compile(r"^(?P<file>[^\n]*?\.(?:ya?ml|sql))(?::(?P<line>\d+))?:? ")


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: a sentence, with the file and line where they are known."""

    level: Literal["problem", "warning"]
    what: str  # declaration, source, features, model, deliver, expectations, labels or rows
    text: str
    file: str | None = None
    line: int | None = None


@dataclass
class Checked:
    """What was checked of one pipeline, and what is wrong with it."""

    pipeline: str
    problems: list[Problem] = field(default_factory=list)
    sources: int = 0
    features: int = 0
    model: str | None = None
    partition: str | None = None
    rows: int | None = None

    @property
    def ok(self) -> bool:
        """Whether nothing worse than a warning was found."""
        return not any(each.level == "problem" for each in self.problems)

    @contextmanager
    def noting(self, what: str, file: Path | None = None, sql: str | None = None) -> Iterator[None]:
        """Note an error, of the file and, where DuckDB names one, of the line of its `sql`."""
        try:
            yield
        except PipelineError as error:
            self.note(what, error, file, sql)

    def note(
        self, what: str, error: Exception, file: Path | None = None, sql: str | None = None, line: int | None = None
    ) -> None:
        """Add an error as a problem."""
        text, named = _sentence(str(error), self.pipeline), str(file) if file else None
        if found := _ORIGIN.match(text):
            named = str((file or Path()).parent / found["file"])
            line = int(found["line"]) if found["line"] else None
            text = text[found.end() :]
        sql = sql or (_read(named) if named and named.endswith(".sql") else None)
        if sql and (shown := _DUCKDB_LINE.search(f"{error}\n{error.__cause__}")):
            line = _line_with(sql, shown[1])
        self.problems.append(Problem("problem", what, text, named, line))


def check_project(project: Project, names: Sequence[str], partition: str | None, now: datetime) -> list[Checked]:
    """Check the pipelines of a project, or those that are named.

    Args:
        project: where they are declared.
        names: of pipelines; all where it is empty.
        partition: the partition whose rows are read; by default the newest that has closed.
        now: which partitions have closed.

    Raises:
        DeclarationError: a named pipeline is not declared, or no file can be read.
    """
    declared = find_declarations(project)
    for name in names:
        if name not in declared:
            known = ", ".join(sorted(declared)) or "none"
            raise DeclarationError(f"{project.root} declares no pipeline {name!r}; it declares {known}.")
    return [_check(project, name, *declared[name], partition, now) for name in declared if not names or name in names]


def _check(
    project: Project, name: str, file: Path, attributes: dict[str, Any], partition: str | None, now: datetime
) -> Checked:
    found = Checked(name)
    try:
        pipeline = load_declared(project, file, attributes)
    except InvalidDeclarationError as error:
        found.problems += [Problem("problem", "declaration", text, error.file, line) for line, text in error.problems]
        return found
    except PipelineError as error:
        found.note("declaration", error, file)
        return found
    closed = closed_partitions(pipeline.spec.partitions, now)
    _grid(found, pipeline, len(closed), file)
    chosen = [each for each in closed if each.key == partition] if partition else closed[-1:]
    if partition and not chosen:
        text = f"there is no partition {partition!r} that has closed"
        found.problems.append(Problem("problem", "rows", text, str(file)))
    manifest = _model(found, pipeline)
    _others(found, pipeline)
    if not _sources(found, pipeline) or not chosen:
        return found
    with workspace(threads=2) as con:
        query = _bind(found, pipeline, con, file.parent, chosen[0])
        if query is None:
            return found
        columns = query.columns
        for misfit in misfits(pipeline, manifest, columns) if manifest else ():
            what = "expectations" if isinstance(misfit, SuiteError) else "model"
            found.note(what, misfit, file.parent / pipeline.spec.features.sql)
        for place, lack in undeliverable(pipeline, manifest, columns) if manifest else ():
            found.note("deliver", lack, file, line=line_of(file, name, place))
        if manifest is None:
            with found.noting("expectations"):
                check_columns(pipeline.suites.features, columns)
        if found.ok:
            _rows(found, pipeline, con, manifest, chosen[0])
    return found


def _grid(found: Checked, pipeline: Pipeline, count: int, file: Path) -> None:
    """Warn of more partitions than Dagster is made for."""
    if count <= _MOST_PARTITIONS:
        return
    grid = pipeline.spec.partitions
    text = (
        f"partitions: every {grid.every} from {grid.start:%Y-%m-%d} are {plural(count, 'partition')} by now; Dagster "
        f"recommends at most {_MOST_PARTITIONS:,}, above which its UI loads slowly, and plans and first ticks judge "
        "them all. Declare a later `start` or longer partitions, or end this pipeline and go on in another "
        "(docs/partitions.md#how-long)"
    )
    line = line_of(file, found.pipeline, ("partitions", "every"))
    found.problems.append(Problem("warning", "declaration", text, str(file), line))


def _sources(found: Checked, pipeline: Pipeline) -> bool:
    """Whether every source can be opened, each by itself."""
    spec, sound = pipeline.spec, True
    for name, source in spec.sources.items():
        alone = spec.model_copy(update={"sources": {name: source}})
        try:
            with (
                workspace(threads=1) as con,
                open_sources(con, alone, pipeline.project.root),
                found.noting("expectations"),
            ):
                check_columns(pipeline.suites.sources.get(name, ()), columns_of(con, source))
        except (SourceError, DeclarationError) as error:
            raise_if_interrupted(error)  # the error of a query that Ctrl-C ended is no problem of the declaration
            found.note("source", error)
            sound = False
    found.sources = len(spec.sources)
    return sound


def _model(found: Checked, pipeline: Pipeline) -> Manifest | None:
    """The manifest of the version that the alias names, its files verified."""
    try:
        version = ScoringModel.resolve(pipeline, 1).version
        version.verify()
    except (DeclarationError, RegistryError) as error:
        raise_if_interrupted(error)
        found.note("model", error)
        return None
    found.model = f"{version.manifest.model_name} v{version.version}"
    return version.manifest


def _others(found: Checked, pipeline: Pipeline) -> None:
    """Whether the versions of challengers and arms are there; an alias that names none yet is a warning."""
    scoring = pipeline.spec.scoring
    for alias in scoring.compared:
        try:
            registry_of(pipeline.project, scoring).get(scoring.model_name, alias).verify()
        except ModelNotFound as error:
            text = _sentence(str(error), found.pipeline)
            found.problems.append(Problem("warning", "model", f"{alias} scores nothing: {text}"))
        except RegistryError as error:
            found.note("model", error)


def _bind(
    found: Checked, pipeline: Pipeline, con: DuckDBPyConnection, folder: Path, partition: Partition
) -> FeatureQuery | None:
    """The query of the features; the SQL of features and labels is bound to the sources."""
    spec, query = pipeline.spec, None
    with found.noting("source"), sources_alone(con, spec, pipeline.project.root) as own:
        with found.noting("features", folder / spec.features.sql, pipeline.sql):
            query = FeatureQuery.parse(own, spec, pipeline.sql, partition, incoming(pipeline))
            found.features = len(query.columns)
        if pipeline.labels:
            with found.noting("labels", folder / pipeline.labels.sql, pipeline.labels_sql):
                _bind_labels(own, pipeline, partition, query)
    return query


def _bind_labels(con: DuckDBPyConnection, pipeline: Pipeline, partition: Partition, query: FeatureQuery | None) -> None:
    import duckdb

    labels = pipeline.labels
    assert labels and pipeline.labels_sql is not None
    try:
        sql = without_end(con, pipeline.labels_sql)
        wanted = con.extract_statements(sql)[0].named_parameters
        bounds = sql_bounds([partition])
        values = {name: value for name, value in bounds.items() if name in wanted}
        if unknown := set(wanted) - set(bounds):
            raise DeclarationError(f"${', $'.join(sorted(unknown))} is no parameter; expected {', '.join(bounds)}.")
        there = {row[0].lower(): row[0] for row in con.execute(f"DESCRIBE {sql}", values).fetchall()}
        missing = [name for name in (*pipeline.label_key, labels.outcome) if name.lower() not in there]
        if missing:
            raise DeclarationError(
                f"no column {', '.join(missing)} in its result, which has {', '.join(there.values())}."
            )
        if query and {*pipeline.label_key} <= query.columns.keys():
            named = {*wanted, *query.parameters}
            both: dict[str, Any] = {name: at for name, at in bounds.items() if name in named} | {**query.values}
            key = quote_all(pipeline.label_key)
            sql, of_people, _ = label_query(con, pipeline)
            both |= of_people
            # With rows: text that is no number is found by comparing it.
            con.execute(f"SELECT count(*) FROM (\n{query.sql}\n) f JOIN (\n{sql}\n) l USING ({key})", both)
    except duckdb.Error as error:
        raise_if_interrupted(error)
        raise DeclarationError(said(error)) from error


def _rows(
    found: Checked, pipeline: Pipeline, con: DuckDBPyConnection, manifest: Manifest | None, partition: Partition
) -> None:
    """Read one partition's rows as a run would, and count what must not be scored."""
    stage = Stage(con)
    with found.noting("rows", None, pipeline.sql):
        extraction = extract(stage, pipeline, [partition], people=incoming(pipeline))
        if why := extraction.failed.get(partition.key):
            raise DeclarationError(f"partition {partition.key} cannot be built: {why}")
        extracted = extraction.extracts[partition.key]
        found.partition, found.rows = partition.key, extracted.rows
        judged = validate_features(stage, pipeline, [partition.key]).verdicts.get(partition.key, ())
        for verdict in (*extracted.verdicts, *judged):
            if verdict.status == "errored":
                named = f"{verdict.expectation.origin}: expectation {verdict.expectation.id!r}"
                found.note("expectations", SuiteError(f"{named} cannot be judged: {verdict.error}"))
        if manifest is None:
            return
        policy, where = ScoringPolicy.declared(pipeline.spec), f"Pipeline {pipeline.spec.name}"
        encoded = encode_model(manifest, stage.columns, where=where)
        counted = count_findings(con, encoded, [partition.key], stage.features)[partition.key]
        if why := refusal(counted, policy, encoded):
            raise DeclarationError(f"partition {partition.key} would not be scored: {why}")
        for name, count in counted.unseen.items():
            text = f"partition {partition.key}: {name} has a category that {found.model} has never seen"
            done = "are quarantined" if policy.on_unseen_category == "quarantine" else "count as missing"
            found.problems.append(Problem("warning", "rows", f"{text}, in {plural(count, 'row')}; they {done}"))
        if counted.all_missing:
            listed = ", ".join(counted.all_missing)
            found.problems.append(
                Problem("warning", "rows", f"partition {partition.key}: only missing values in {listed}")
            )


def _read(file: str) -> str | None:
    with suppress(OSError, UnicodeError):
        return Path(file).read_text(encoding="utf-8")
    return None


def _sentence(text: str, pipeline: str) -> str:
    """The error's first line without the pipeline's name, which the report has already."""
    first = text.strip().splitlines()[0]
    return re.sub(rf"^Pipeline {re.escape(pipeline)}[,:] ", "", first)


def _line_with(sql: str, shown: str) -> int | None:
    """The line of the SQL that DuckDB shows, perhaps without its beginning and end."""
    text = shown.strip().removeprefix("...").removesuffix("...").strip()
    return next((number for number, line in enumerate(sql.splitlines(), start=1) if text and text in line), None)
