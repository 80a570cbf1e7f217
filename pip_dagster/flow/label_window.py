"""The labels that scores are judged by: those of the newest partitions whose labels are there, and complete."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from statistics import median
from typing import TYPE_CHECKING

from pip_dagster.declaration.partition import Partition
from pip_dagster.errors import DeclarationError
from pip_dagster.flow.label_query import label_query
from pip_dagster.flow.query import sql_bounds
from pip_dagster.flow.reader import sources_alone
from pip_dagster.flow.stage import keep, move
from pip_dagster.ledger.live_partitions import LivePartition
from pip_dagster.plural import plural
from pip_dagster.quoted import said
from pip_dagster.sql.names import but_for, literal, quote, quote_all

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.pipeline import Pipeline
    from pip_dagster.registry.manifest import Manifest

# Partitions that one query asks for any label at all.
_BLOCK = 32
# Of the usual share of rows with a label; the newest partitions below it are still being labelled.
_MATURE = 0.8


@dataclass(frozen=True)
class LabelWindow:
    """The partitions to judge by, oldest first, and the relation of their labels: partition_key, key, `pip_outcome`.

    `newer`: live partitions after them that have no labels yet or too few; `rows`: how many labels there are.
    """

    partitions: tuple[LivePartition, ...] = ()
    relation: str = ""
    rows: int = 0
    newer: int = 0

    @property
    def text(self) -> str:
        """Where the labels are."""
        keys = [each.key for each in self.partitions]
        span = (
            f"labels of {len(keys):,} partitions, {keys[0]} to {keys[-1]}" if keys else "no live partition has labels"
        )
        return span + (f"; {self.newer:,} newer ones have none yet, or not all" if keys and self.newer else "")


def label_window(
    con: DuckDBPyConnection, pipeline: Pipeline, manifest: Manifest, live: Sequence[LivePartition]
) -> LabelWindow:
    """Stage the labels of the newest partitions that have them, until they are `labels.rows`.

    Partitions count once `complete_after` has passed. Where that is not declared, the newest are left out while the
    share of their rows with a label is clearly below the usual one: labels that arrive early can be of one kind.

    Args:
        con: a connection without other labels.
        pipeline: declares labels.
        manifest: of a version, for its classes.
        live: the live partitions, oldest first.

    Raises:
        DeclarationError: the labels' SQL cannot run, or a key has two labels.
        SourceError: a source cannot be read.
    """
    labels, least = pipeline.labels, pipeline.gates.partitions
    assert labels
    now = datetime.now(UTC)
    newest = [each for each in reversed(live) if not labels.complete_after or each.end + labels.complete_after <= now]
    found: list[tuple[LivePartition, int]] = []
    with _reading(con, pipeline, manifest) as reader:
        for partition in reader.labelled(newest):
            if rows := reader.stage(partition):
                found.append((partition, rows))
            if len(found) >= least and sum(each[1] for each in found) >= labels.rows:
                break
        if not found:
            return LabelWindow(newer=len(live))
        if labels.complete_after is None:
            usual = median(rows / partition.rows for partition, rows in found)
            while found[0][1] / found[0][0].rows < _MATURE * usual:
                del found[0]
        reader.check([partition.key for partition, _ in found])
    newer = sum(each.start > found[0][0].start for each in live)
    kept = tuple(partition for partition, _ in reversed(found))
    return LabelWindow(kept, reader.relation, sum(rows for _, rows in found), newer)


def stage_labels(
    con: DuckDBPyConnection, pipeline: Pipeline, manifest: Manifest, partitions: Sequence[LivePartition]
) -> str:
    """The relation of the labels of these partitions. Raises as `label_window`."""
    with _reading(con, pipeline, manifest) as reader:
        for live in partitions:
            reader.stage(live)
        reader.check([live.key for live in partitions])
    return reader.relation


def label_key_error(pipeline: Pipeline, error: Exception) -> DeclarationError:
    """The error where the key of labels cannot be compared with that of the features."""
    return DeclarationError(
        f"Pipeline {pipeline.spec.name}: the key of {pipeline.labels_name} ({', '.join(pipeline.label_key)}) cannot be "
        f"compared with the stored features: {said(error)} Cast it in {pipeline.labels_name}.sql to the type that the "
        "features have."
    )


@contextmanager
def _reading(con: DuckDBPyConnection, pipeline: Pipeline, manifest: Manifest) -> Iterator[_Reader]:
    import duckdb

    labels = pipeline.labels
    assert labels and pipeline.labels_sql is not None
    where = f"Pipeline {pipeline.spec.name}, {labels.sql}"
    with sources_alone(con, pipeline.spec, pipeline.project.root) as own:
        try:
            (statement,) = own.extract_statements(pipeline.labels_sql)
            reader = _Reader(own, pipeline, manifest, where, frozenset(statement.named_parameters))
            yield reader
            move(own, reader.relation, con)
        except duckdb.Error as error:
            raise DeclarationError(f"{where}: {said(error)}") from error


class _Reader:
    """Labels by the SQL for each partition: a key is unique within its partition only."""

    def __init__(
        self, con: DuckDBPyConnection, pipeline: Pipeline, manifest: Manifest, where: str, wanted: frozenset[str]
    ) -> None:
        assert pipeline.labels and pipeline.labels_sql is not None
        self._con, self._where, self._wanted = con, where, wanted
        self._zone = pipeline.spec.partitions.zone
        self._names = pipeline.label_key
        self._key = quote_all(self._names)
        self._outcome = quote(pipeline.labels.outcome)
        sql, self._of_people, self._copies = label_query(con, pipeline, stored=True)
        self._sql = f"(\n{sql}\n)"
        self._quotes = pipeline.may_quote([pipeline.labels.outcome])
        self._model = f"{manifest.model_name} v{manifest.version}"
        self._classes = manifest.classes if manifest.task in ("binary", "multiclass") else None
        self._several = len(manifest.outputs) > 1
        self.relation = keep(
            con,
            "labels",
            f"SELECT ''::VARCHAR AS partition_key, {self._key}, 0.0::DOUBLE AS pip_outcome, ''::VARCHAR AS pip_unknown "
            f"FROM {self._sql} LIMIT 0",
            self._values([Partition("", *[datetime(2000, 1, day, tzinfo=UTC) for day in (1, 2)])]),
        )

    def labelled(self, newest: Sequence[LivePartition]) -> Iterator[LivePartition]:
        """The partitions without those that adjoin others and, with them, have no label at all."""
        for block in _blocks(newest):
            ends = [self._partition(block[-1]), self._partition(block[0])]
            query = f"SELECT 1 FROM {self._sql} WHERE {self._outcome} IS NOT NULL LIMIT 1"
            if len(block) == 1 or self._con.execute(query, self._values(ends)).fetchone():
                yield from block

    def stage(self, live: LivePartition) -> int:
        """Add a partition's labels; how many there are."""
        number, unknown = self._numbers
        named = " AND ".join(f"{quote(name)} IS NOT NULL" for name in self._names)  # without a key, it is of no row
        select = (
            f"SELECT {literal(live.key)} AS partition_key, {self._key}, {number} AS pip_outcome, "
            f"{unknown} AS pip_unknown FROM {self._sql} WHERE {self._outcome} IS NOT NULL AND {named}"
        )
        row = self._con.execute(
            f"INSERT INTO {self.relation} {select}", self._values([self._partition(live)])
        ).fetchone()
        return int(row[0]) // self._copies if row else 0

    def check(self, keys: Sequence[str]) -> None:
        """Remove the labels of other partitions; refuse what cannot be a label."""
        con, key = self._con, self._key
        con.execute(f"DELETE FROM {self.relation} WHERE {but_for('partition_key', keys)}")
        twice = con.execute(
            f"SELECT min(partition_key), count(*) FROM (SELECT partition_key FROM {self.relation} "
            f"GROUP BY partition_key, {key} HAVING count(*) > 1)"
        ).fetchone()
        if twice and twice[1]:
            keys_twice = twice[1] // self._copies
            raise DeclarationError(
                f"{self._where}: {plural(keys_twice, 'key')} ({key}) {'has' if keys_twice == 1 else 'have'} more than "
                f"one label in a partition, such as {twice[0]}. Return one row a key, such as by `GROUP BY`."
            )
        unknown = con.execute(
            f"SELECT any_value(pip_unknown), count(pip_unknown) // {self._copies} FROM {self.relation}"
        ).fetchone()
        such = f", {unknown[0]!r} among them," if unknown and self._quotes else ""
        if unknown and unknown[1] and not self._classes:
            raise DeclarationError(
                f"{self._where}: {unknown[1]:,} outcomes{such} are not numbers. Map them in the "
                "SQL, to 0 and 1 for a binary model, or return NULL for them."
            )
        if unknown and unknown[1]:
            raise DeclarationError(
                f"{self._where}: {unknown[1]:,} outcomes{such} are not a class of {self._model}, "
                f"which has {', '.join(self._classes or ())}. Map them in the SQL, or return NULL for them."
            )

    @property
    def _numbers(self) -> tuple[str, str]:
        """SQL of an outcome as a number, or as the position of its class, and of one that is no class."""
        if not self._classes:
            number = f"TRY_CAST({self._outcome} AS DOUBLE)"
            return number, f"CASE WHEN {number} IS NULL THEN {self._outcome}::VARCHAR END"
        listed = ", ".join(literal(name) for name in self._classes)
        at = f"nullif(coalesce(list_position([{listed}], {self._outcome}::VARCHAR), 0), 0)"
        unknown = f"CASE WHEN {at} IS NULL THEN {self._outcome}::VARCHAR END"
        if self._several:
            return f"({at} - 1)::DOUBLE", unknown
        # A binary model's outcome may be 0 and 1 as well as its classes.
        number = f"coalesce(({at} - 1)::DOUBLE, TRY_CAST({self._outcome} AS DOUBLE))"
        return number, f"CASE WHEN {number} IS NULL THEN {self._outcome}::VARCHAR END"

    def _partition(self, live: LivePartition) -> Partition:
        return Partition(live.key, live.start.astimezone(self._zone), live.end.astimezone(self._zone))

    def _values(self, partitions: Sequence[Partition]) -> dict[str, object]:
        bounds = sql_bounds(partitions)
        if unknown := self._wanted - bounds.keys():
            raise DeclarationError(f"{self._where}: ${min(unknown)} is no parameter; expected ${', $'.join(bounds)}.")
        return {name: value for name, value in bounds.items() if name in self._wanted} | {**self._of_people}


def _blocks(newest: Iterable[LivePartition]) -> Iterator[list[LivePartition]]:
    """Runs of adjoining partitions, the newest first, each of at most `_BLOCK`."""
    block: list[LivePartition] = []
    for partition in newest:
        if block and (partition.end != block[-1].start or len(block) == _BLOCK):
            yield block
            block = []
        block.append(partition)
    if block:
        yield block
