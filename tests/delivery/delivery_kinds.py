"""The kinds of targets that the contract holds for. A new kind is added to `KINDS`, and fixtures of its server here."""

import json
from dataclasses import dataclass
from pathlib import Path

import duckdb

PIPELINE, TARGET = "orders", "lake"


@dataclass(frozen=True)
class ParquetKind:
    """A folder of Parquet files."""

    root: Path

    def open(self):
        """The target, as a process of its own opens it."""
        from pip_dagster.delivery.parquet import ParquetFolder

        return ParquetFolder(PIPELINE, TARGET, self.root)

    def read(self, key, columns):
        """What a consumer sees of a partition: the change's id and its rows; None if there is nothing."""
        latest = self.root / key / "latest.json"
        if not latest.exists():
            return None
        manifest = json.loads(latest.read_text())
        files = [str(latest.parent / each["path"]) for each in manifest["files"]]
        with duckdb.connect() as con:
            listed = ", ".join(f'"{name}"' for name in columns)
            rows = con.execute(f"SELECT {listed} FROM read_parquet($1, hive_partitioning = false)", [files]).fetchall()
        return manifest["change_id"], sorted(rows, key=repr)


def parquet(tmp_path, request):
    return ParquetKind(tmp_path / "target")


# Name → what makes one, from a folder of its own and pytest's request for fixtures such as a server.
KINDS = {"parquet": parquet}
