"""What is stored of a partition, judged by the expectations as they are declared now; nothing is built or recorded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pip_dagster.errors import NoWarehouseError
from pip_dagster.flow.engine import available_threads
from pip_dagster.flow.score_chunk import reference
from pip_dagster.flow.stage import Stage, keep, stored_columns
from pip_dagster.flow.validate import Validation, validate, validate_features
from pip_dagster.ledger.checks import SPLIT, CheckEntry, checks_of
from pip_dagster.ledger.record import ExtractionEntry, ScoringEntry, dicts
from pip_dagster.quality.parameters import with_parameters
from pip_dagster.registry.store import Registry
from pip_dagster.sql.names import literal, quote
from pip_dagster.warehouse.access import reading
from pip_dagster.warehouse.connect import workspace
from pip_dagster.warehouse.faults import in_pipeline

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.pipeline import Pipeline

_NEWEST = "($partition IS NULL OR partition_key = $partition) ORDER BY partition_start DESC"
# Of the newest partition with scores what is live, else what was stored and blocked.
_SCORING = (
    "SELECT s.* FROM ledger.scorings s WHERE s.pipeline = $pipeline AND s.role = 'champion' "
    "AND s.table_name IS NOT NULL AND s.rows_scored IS NOT NULL AND s.purged_at IS NULL "
    f"AND {_NEWEST}, "
    "EXISTS (FROM ledger.live l WHERE l.scoring_id = s.scoring_id) DESC, s.scoring_id DESC LIMIT 1"
)
_EXTRACTION = (
    "SELECT * FROM ledger.extractions WHERE pipeline = $pipeline AND purged_at IS NULL "
    f"AND {_NEWEST}, extraction_id DESC LIMIT 1"
)
_SPLIT = (
    f"SELECT entry_id, partition_key FROM ledger.checks WHERE pipeline = $pipeline AND section = '{SPLIT}' "
    "AND ($partition IS NULL OR partition_key = $partition) ORDER BY partition_key DESC, made_at DESC LIMIT 1"
)


@dataclass(frozen=True)
class Judged:
    """The verdicts on one partition."""

    partition: str
    checks: tuple[CheckEntry, ...]


Wanted = dict[str, str | None]
Judge = Callable[[], Judged]


def judge_stored(pipeline: Pipeline, section: str, partition: str | None = None) -> Judged | None:
    """The verdicts on `features`, on `predictions` or on the `split` of a partition, by default of the newest one.

    None where nothing of it is stored. How a partition is split was judged when it was decided: that is recalled.

    Raises:
        DeclarationError: an expectation is on a column that the stored rows do not have.
        RegistryError: the version that scored is gone.
        WarehouseError: the warehouse cannot be read, or another process holds it for too long.
    """
    name, load = pipeline.spec.name, {"features": _features, "predictions": _predictions, SPLIT: _split}[section]
    with in_pipeline(name, [partition or "the newest"]), workspace(threads=available_threads()) as con:
        try:
            with reading(con, pipeline.project, purpose=f"{name}: reading what is to be judged"):
                judge = load(con, pipeline, {"pipeline": name, "partition": partition})
        except NoWarehouseError:
            return None
        return judge() if judge else None  # with the warehouse free for others again


def _features(con: DuckDBPyConnection, pipeline: Pipeline, wanted: Wanted) -> Judge | None:
    rows = dicts(con.execute(_EXTRACTION, wanted))
    if not rows:
        return None
    entry, stage = ExtractionEntry(**rows[0]), Stage(con)
    stage.load(pipeline.spec.name, entry.table_name, [entry.revision])

    def judge() -> Judged:
        validation = validate_features(stage, pipeline, [entry.partition_key])
        return _judged(pipeline, entry.partition_key, validation)

    return judge


def _predictions(con: DuckDBPyConnection, pipeline: Pipeline, wanted: Wanted) -> Judge | None:
    rows = dicts(con.execute(_SCORING, wanted))
    if not rows:
        return None
    entry, name = ScoringEntry(**rows[0]), pipeline.spec.name
    assert entry.table_name and entry.model_version
    columns = {c: kind for c, kind in stored_columns(con, name, entry.table_name).items() if c != "scoring_id"}
    source = f"{quote(name)}.{quote(entry.table_name)} WHERE scoring_id = {literal(entry.scoring_id)}"
    relation = keep(con, "judged", f"SELECT * EXCLUDE (scoring_id) FROM {source}")
    manifest = Registry(pipeline.project.registry).get(entry.model_name, entry.model_version).manifest

    def judge() -> Judged:
        suite = with_parameters(pipeline.suites.predictions, reference(manifest))
        validation = validate(con, pipeline, suite, relation, columns, [entry.partition_key])
        return _judged(pipeline, entry.partition_key, validation)

    return judge


def _split(con: DuckDBPyConnection, pipeline: Pipeline, wanted: Wanted) -> Judge | None:
    row = con.execute(_SPLIT, wanted).fetchone()
    if row is None:
        return None
    found = Judged(row[1], checks_of(con, [row[0]])[row[0]])
    return lambda: found


def _judged(pipeline: Pipeline, partition: str, validation: Validation) -> Judged:
    verdicts = validation.verdicts.get(partition, ())
    return Judged(partition, tuple(CheckEntry.of(each, "", pipeline.spec.name, partition) for each in verdicts))
