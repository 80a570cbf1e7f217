"""What `dg scaffold defs pip_dagster.components.InferencePipeline NAME` writes: a pipeline that loads."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import click
import dagster as dg
from pydantic import BaseModel, Field

from pip_dagster.errors import PipelineError


class ScaffoldParameters(BaseModel):
    """The options of `dg scaffold defs`; without a table it writes a sample one."""

    database: str | None = Field(None, description="A DuckDB file with the table, relative to the project.")
    parquet: str | None = Field(None, description="Parquet files instead, a glob.")
    table: str | None = Field(None, description="The table in it, SCHEMA.TABLE.")
    key: str | None = Field(None, description="Columns that name a row, with commas between them.")
    partition_column: str | None = Field(None, description="The DATE or TIMESTAMP column of the partitions.")
    time_zone: str = Field("UTC", description="Where a day begins, an IANA name.")
    outcome: str | None = Field(None, description="The column to predict.")


class PipelineScaffolder(dg.Scaffolder[ScaffoldParameters]):
    """Writes defs.yaml, the SQL, expectations and a training script, proposed from a table."""

    @classmethod
    def get_scaffold_params(cls) -> type[ScaffoldParameters]:
        """The options."""
        return ScaffoldParameters

    def scaffold(self, request: dg.ScaffoldRequest[ScaffoldParameters]) -> None:
        """Write the files; none over one that exists.

        Raises:
            ClickException: nothing can be proposed from the table, or a file exists.
        """
        try:
            self._scaffold(request)
        except PipelineError as error:
            folder = request.target_path
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()  # dg has created it, and Dagster would load it
            raise click.ClickException(str(error)) from error

    def _scaffold(self, request: dg.ScaffoldRequest[ScaffoldParameters]) -> None:
        from pip_dagster.scaffold import write
        from pip_dagster.scaffold.files import Scaffold, TableSource
        from pip_dagster.scaffold.proposal import Wishes

        given, folder, root = request.params, request.target_path, request.project_root
        name = folder.name
        write.check_pipeline_name(name)
        assert root is not None
        outcome = given.outcome
        if given.database or given.parquet:
            source = TableSource(given.database, given.parquet)
            table = given.table or ("raw.rows" if given.parquet else "")
        else:
            source, table, outcome = write.write_sample(root), write.SAMPLE_TABLE, outcome or "returned"
        key = tuple(part.strip() for part in given.key.split(",")) if given.key else ()
        proposal, words = write.proposal_of(source, root, table, Wishes(key, given.partition_column, outcome))
        package = folder.relative_to(root).parts[0]
        scaffold = Scaffold(name, package, proposal, source, given.time_zone, words)
        write.write(folder, scaffold.pipeline_files())
        if proposal.outcome:
            write.write(root, {PurePosixPath(_free(root, name)): scaffold.training()})


def _free(root: Path, name: str) -> str:
    return "train.py" if not (root / "train.py").exists() else f"train_{name}.py"
