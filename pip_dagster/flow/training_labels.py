"""The labels of training rows: as the declared SQL gives them, by partition and key."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pip_dagster.declaration.partition import Partition
from pip_dagster.errors import DeclarationError, TrainingSetError
from pip_dagster.flow.label_query import label_query
from pip_dagster.flow.query import sql_bounds
from pip_dagster.flow.reader import sources_alone
from pip_dagster.flow.stage import keep, move
from pip_dagster.plural import plural
from pip_dagster.quoted import said
from pip_dagster.sql.names import literal, quote, quote_all

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.pipeline import Pipeline

OUTCOME = "pip_outcome"


def stage_training_labels(con: DuckDBPyConnection, pipeline: Pipeline, partitions: Sequence[Partition]) -> str:
    """The relation of the labels of these partitions: partition_key, the label's key, `pip_outcome`.

    A label without a key or an outcome is left out. A key is unique within its partition, so the SQL runs for each.

    Raises:
        DeclarationError: the SQL cannot run.
        SourceError: a source cannot be read.
        TrainingSetError: a key has two labels, or an outcome is infinite or NaN.
    """
    import duckdb

    labels = pipeline.labels
    assert labels and pipeline.labels_sql is not None
    where, key, outcome = f"Pipeline {pipeline.spec.name}, {labels.sql}", pipeline.label_key, quote(labels.outcome)
    with sources_alone(con, pipeline.spec, pipeline.project.root) as own:
        try:
            sql, of_people, _ = label_query(own, pipeline)
            wanted = own.extract_statements(sql)[0].named_parameters
            if unknown := set(wanted) - sql_bounds(partitions[:1]).keys() - of_people.keys():
                expected = ", ".join(f"${name}" for name in sql_bounds(partitions[:1]))
                raise DeclarationError(f"{where}: ${min(unknown)} is no parameter; expected {expected}.")
            relation, named = "", " AND ".join(f"{quote(name)} IS NOT NULL" for name in key)
            for partition in partitions:
                select = (
                    f"SELECT {literal(partition.key)} AS partition_key, {quote_all(key)}, {outcome} AS {OUTCOME} "
                    f"FROM (\n{sql}\n) WHERE {outcome} IS NOT NULL AND {named}"
                )
                values = {name: value for name, value in sql_bounds([partition]).items() if name in wanted}
                values |= of_people
                relation = keep(own, "training_labels", select, values, more=bool(relation))
            _check(own, pipeline, relation, where)
            move(own, relation, con)
        except duckdb.Error as error:
            raise DeclarationError(f"{where}: {said(error)}") from error
    return relation


def _check(con: DuckDBPyConnection, pipeline: Pipeline, relation: str, where: str) -> None:
    key = quote_all(pipeline.label_key)
    twice = con.execute(
        f"SELECT partition_key, count(*) FROM (SELECT partition_key FROM {relation} GROUP BY partition_key, {key} "
        "HAVING count(*) > 1) GROUP BY ALL ORDER BY ALL LIMIT 1"
    ).fetchone()
    name = pipeline.spec.name
    if twice:
        have = "has" if twice[1] == 1 else "have"
        why = f"{plural(twice[1], 'key')} ({', '.join(pipeline.label_key)}) {have} more than one label"
        raise TrainingSetError(f"{where}: in partition {twice[0]}, {why}.", pipeline=name, excluded={twice[0]: why})
    types = {row[0]: row[1] for row in con.execute(f"DESCRIBE {relation}").fetchall()}
    if types[OUTCOME] not in ("FLOAT", "DOUBLE"):
        return
    wrong = con.execute(
        f"SELECT partition_key, count(*) FROM {relation} WHERE NOT isfinite({OUTCOME}) GROUP BY ALL "
        "ORDER BY ALL LIMIT 1"
    ).fetchone()
    if wrong:
        why = f"{plural(wrong[1], 'outcome')} infinite or NaN"
        remedy = "Return NULL for an outcome that is not known."
        raise TrainingSetError(
            f"{where}: in partition {wrong[0]}, {why}. {remedy}", pipeline=name, excluded={wrong[0]: why}
        )
