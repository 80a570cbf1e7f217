"""A stage whose rows lie in files of the exchange: a run sees those of all shares, a task those of its own."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from pip_dagster.flow.distributed.cluster import Cluster
from pip_dagster.flow.distributed.exchange import check_exchanged, rows_of_files, share_of, write, write_shares
from pip_dagster.flow.stage import Stage, stored_columns
from pip_dagster.sql.names import among, but_for, quote, quote_all
from pip_dagster.warehouse.memory import with_more

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.pipeline import Pipeline


class SharedStage(Stage):
    """`features`, and in a run `scores`, are views of files, whose `rowid` is a column.

    `files`: share → the files of its features; shares without rows may be absent. `cluster` is None in a task.
    """

    def __init__(
        self,
        con: DuckDBPyConnection,
        cluster: Cluster | None = None,
        columns: Mapping[str, str] | None = None,
        table: str | None = None,
    ) -> None:
        super().__init__(con, columns, table)
        self.cluster = cluster
        self.files: dict[int, list[str]] = {}
        self._loaded: tuple[str, ...] = ()

    def create(self, relation: str, columns: Mapping[str, str]) -> None:
        """As of any stage, in place of a view too."""
        self._drop(relation)
        super().create(relation, columns)

    def show(
        self, relation: str, files: Sequence[str], columns: Mapping[str, str], without: Collection[str] = ()
    ) -> None:
        """Let `features` or `scores` be the rows of these files, `without` those of some partitions."""
        self._drop(relation)
        rows = f"FROM ({rows_of_files(files, columns)}) WHERE {but_for('partition_key', sorted(without))}"
        self.con.execute(f"CREATE VIEW {relation} AS {rows}")

    def _drop(self, relation: str) -> None:
        """Drop a table or a view, which an earlier stage of the same connection may have left."""
        catalog, schema, name = relation.split(".")
        row = self.con.execute(
            "SELECT table_type FROM information_schema.tables "
            "WHERE table_catalog = $catalog AND table_schema = $schema AND table_name = $name",
            {"catalog": catalog, "schema": schema, "name": name},
        ).fetchone()
        if row:
            self.con.execute(f"DROP {'VIEW' if row[0] == 'VIEW' else 'TABLE'} {relation}")

    def show_features(self, columns: Mapping[str, str], files: Mapping[int, list[str]]) -> None:
        """Let `features` be the rows of these files, by share."""
        self.columns, self.files = dict(columns), dict(files)
        every = [file for of in self.files.values() for file in of]
        self.show(self.features, every, {"partition_key": "VARCHAR"} | self.columns)

    def restage(self, pipeline: Pipeline, revisions: Sequence[str], *, late: bool = False) -> None:
        """Bring these revisions to `features`, never late, unless a run has extracted them, or they are there."""
        if tuple(revisions) != self._loaded:
            self._key = pipeline.spec.features.key
            super().restage(pipeline, revisions)
            self._loaded = tuple(revisions)

    def load(self, pipeline: str, table: str, revisions: Sequence[str]) -> None:
        """Copy stored revisions to the exchange, a folder a share. The warehouse is the current catalog."""
        assert self.cluster
        self.columns = stored_columns(self.con, pipeline, table)
        check_exchanged(pipeline, self.columns)
        folder = self.cluster.new_folder("features") / "stored"
        select = (
            f"SELECT row_number() OVER () AS rowid, partition_key, {quote_all(self.columns)} "
            f"FROM {quote(pipeline)}.{quote(table)} WHERE {among('revision', revisions)}"
        )
        share = share_of(self._key, self.cluster.tasks)
        files = with_more(self.con, lambda: write_shares(self.con, select, share, folder))
        self._late = None
        self.show_features(self.columns, files)

    def write_quarantine(self, file: str) -> None:
        """Write which rows are in quarantine, and why."""
        write(self.con, f"SELECT row_id AS rowid, reason FROM {self._quarantine}", file)

    def read_quarantine(self, files: Sequence[str]) -> None:
        """Let those rows of `features` be in quarantine that these files list, and no others."""
        self.admit_all()
        listed = rows_of_files(files, {"reason": "VARCHAR"})
        self.quarantine(f"SELECT rowid, reason FROM ({listed}) WHERE rowid IN (SELECT rowid FROM {self.features})")
