"""What a target gets of a live partition: the declared columns and rows, as a Parquet file of this process."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pip_dagster.delivery.digest import digest_of
from pip_dagster.delivery.live_rows import UnreadableError, unreadable
from pip_dagster.delivery.target import ChangeRows, DeliveryChange, DeliveryError
from pip_dagster.errors import DeclarationError
from pip_dagster.flow.deliverable import condition, select_list
from pip_dagster.quoted import first
from pip_dagster.sql.names import literal
from pip_dagster.warehouse.connect import spill_folder
from pip_dagster.warehouse.faults import is_damage
from pip_dagster.warehouse.published_export import castable

if TYPE_CHECKING:
    from pathlib import Path

    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.deliver import DeclaredTarget
    from pip_dagster.delivery.live_rows import Live
    from pip_dagster.ledger.deliveries import Pending


@dataclass(frozen=True)
class Staged:
    """A change and its rows, ready to be delivered."""

    change: DeliveryChange
    rows: ChangeRows


@contextmanager
def staged(
    con: DuckDBPyConnection,
    pipeline: str,
    declared: DeclaredTarget,
    live: Live,
    pending: Pending,
    *,
    force: bool = False,
) -> Iterator[Staged]:
    """Write the rows that the target gets of a live partition; the file is removed afterwards.

    Raises:
        UnreadableError: the file of published rows is damaged.
        DeliveryError: a declared column is not among those of the predictions, or the filter does not fit them.
    """
    # Never a name twice: where the clock has not moved, DuckDB 1.5 reads what it keeps of the file before.
    file = spill_folder(con) / f"rows-{secrets.token_hex(4)}.parquet"
    select = selected(pipeline, pending.target, declared, live)
    try:
        where = f"Pipeline {pipeline}, partition {live.partition_key}: deliver.{pending.target}"
        _copy(con, castable(con, select), file, live, where)
        written = f"read_parquet({literal(str(file))}, hive_partitioning = false)"
        # The types that Parquet gives back are what every reader of the file sees.
        columns = {name: sql_type for name, sql_type, *_ in con.execute(f"DESCRIBE FROM {written}").fetchall()}
        rows, digest = digest_of(con, written, columns)
        change = DeliveryChange(
            pipeline=pipeline,
            target=pending.target,
            partition_key=live.partition_key,
            start=live.start,
            end=live.end,
            change_id=live.change_id,
            scoring_ids=live.scoring_ids,
            kind=pending.kind,
            made_at=pending.live_since,
            declaration=declared.digest,
            columns=columns,
            rows=rows,
            digest=digest,
            force=force,
            earlier=pending.earlier,
        )
        yield Staged(change, ChangeRows(file))
    finally:
        file.unlink(missing_ok=True)


def _copy(con: DuckDBPyConnection, select: str, file: Path, live: Live, where: str) -> None:
    """Write the rows to a file.

    Raises:
        UnreadableError: the file of published rows is damaged.
        DeliveryError: the filter fails on a row. What the row has is not in the text, which the ledger keeps.
    """
    import duckdb

    try:
        con.execute(f"COPY ({select}) TO {literal(str(file))} (FORMAT parquet)")
    except duckdb.IOException as error:
        if live.file is None or not is_damage(str(error), live.file):
            raise
        raise UnreadableError(unreadable(live.file, first(error))) from error
    except duckdb.DataError as error:
        raise DeliveryError(
            f"{where}: `where` cannot be computed for a row of the partition: {first(error)}. Let it be NULL there, by "
            "TRY_CAST or TRY(…), or exclude the row by CASE"
        ) from None


def selected(pipeline: str, target: str, declared: DeclaredTarget, live: Live) -> str:
    """SQL of what a target gets of a live partition.

    Raises:
        DeliveryError: as `staged`.
    """
    where = f"Pipeline {pipeline}, partition {live.partition_key}: deliver.{target}"
    try:
        listed, rows = select_list(declared, live.columns, where), condition(declared, live.columns, where)
    except DeclarationError as error:
        raise DeliveryError(str(error)) from error
    return f"SELECT {listed} FROM ({live.select}){rows}"
