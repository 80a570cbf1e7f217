"""The kinds of targets that the contract holds for. A new kind is added to `KINDS`, and fixtures of its server here."""

import json
import os
import secrets
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import duckdb
import pytest

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
            # A kill may have left the change before, which has other columns.
            listed = ", ".join(f'"{name}"' if name in manifest["columns"] else "NULL" for name in columns)
            rows = con.execute(f"SELECT {listed} FROM read_parquet($1, hive_partitioning = false)", [files]).fetchall()
        return manifest["change_id"], sorted(rows, key=repr)


def parquet(tmp_path, request):
    return ParquetKind(tmp_path / "target")


@dataclass(frozen=True)
class PostgresKind:
    """A table of a real server."""

    url: str
    schema: str

    def open(self):
        """The target, as a process of its own opens it."""
        from pip_dagster.delivery.postgres import PostgresTarget
        from pip_dagster.delivery.postgres_connection import PostgresSession

        where = f"Pipeline {PIPELINE}: target {TARGET}"
        return PostgresTarget(PIPELINE, f"{self.schema}.orders", PostgresSession(where, "$URL", self.url, 10.0))

    def read(self, key, columns):
        """What a consumer sees of a partition, in one statement."""
        import psycopg2

        con = psycopg2.connect(self.url)
        try:
            with con, con.cursor() as cursor:
                cursor.execute(
                    "SELECT attname FROM pg_attribute WHERE attrelid = to_regclass(%s)", [f"{self.schema}.orders"]
                )
                known = {name for (name,) in cursor.fetchall()}
                if not known:
                    return None
                con.commit()
                # As exact as DuckDB's: psycopg would read the text of a short float.
                values = {"score": "o.score::float8"}
                listed = ", ".join(values.get(name, f'o."{name}"') if name in known else "NULL" for name in columns)
                cursor.execute(
                    f"SELECT d.change_id, o.pip_pipeline, {listed} FROM {self.schema}.pip_deliveries d "
                    f"LEFT JOIN {self.schema}.orders o ON o.pip_pipeline = d.pipeline "
                    "AND o.partition_key = d.partition_key WHERE d.partition_key = %s",
                    (key,),
                )
                found = cursor.fetchall()
        finally:
            con.close()
        if not found:
            return None
        return found[0][0], sorted((row[2:] for row in found if row[1]), key=repr)


@dataclass(frozen=True)
class DeltaKind:
    """A Delta table on a disk."""

    root: Path

    def open(self):
        """The target, as a process of its own opens it."""
        from pip_dagster.delivery.delta import DeltaTarget

        return DeltaTarget(PIPELINE, TARGET, str(self.root), {})

    def read(self, key, columns):
        """What a consumer sees of a partition in one version of the table."""
        from deltalake import DeltaTable
        from deltalake.exceptions import TableNotFoundError

        from pip_dagster.delivery.delta import _shown

        try:
            table = DeltaTable(str(self.root))
        except TableNotFoundError:
            return None
        shown = _shown(table, PIPELINE, key)
        if shown is None:
            return None
        known = {field.name for field in table.schema().fields}
        listed = ", ".join(f'"{name}"' if name in known else "NULL" for name in columns)
        with duckdb.connect() as con:
            con.register("delivered", table.scan(None, f"partition_key = '{key}'"))
            return shown.change_id, sorted(con.execute(f"SELECT {listed} FROM delivered").fetchall(), key=repr)


@dataclass(frozen=True)
class S3Kind:
    """Parquet objects in S3."""

    place: str
    environment: tuple[tuple[str, str], ...]

    def open(self):
        """The target, as a process of its own opens it."""
        from pip_dagster.delivery.s3 import S3Folder
        from pip_dagster.delivery.s3_client import S3Objects

        os.environ.update(self.environment)
        return S3Folder(PIPELINE, TARGET, S3Objects(self.place, f"Pipeline {PIPELINE}: target {TARGET}", 10.0))

    def read(self, key, columns):
        """What a consumer sees of a partition: the manifest, then the object that it names."""
        client = _client(dict(self.environment)["AWS_ENDPOINT_URL"])
        bucket, _, path = self.place.removeprefix("s3://").partition("/")
        try:
            manifest = json.load(client.get_object(Bucket=bucket, Key=f"{path}/{key}/latest.json")["Body"])
        except client.exceptions.NoSuchKey:
            return None
        with tempfile.TemporaryDirectory() as folder, duckdb.connect() as con:
            for i, each in enumerate(manifest["files"]):
                client.download_file(bucket, f"{path}/{key}/{each['path']}", f"{folder}/{i}.parquet")
            known = manifest["columns"]
            listed = ", ".join(f'"{name}"' if name in known else "NULL" for name in columns)
            rows = con.execute(f"SELECT {listed} FROM read_parquet('{folder}/*.parquet')").fetchall()
        return manifest["change_id"], sorted(rows, key=repr)


@cache
def _client(url):
    import boto3

    return boto3.client("s3", endpoint_url=url, region_name="us-east-1")


def postgres(tmp_path, request):
    return PostgresKind(request.getfixturevalue("postgres").owner_url, f"scores_{secrets.token_hex(4)}")


def delta(tmp_path, request):
    pytest.importorskip("deltalake", reason="needs the package deltalake, of the extra `delta`")
    return DeltaKind(tmp_path / "table")


def s3(tmp_path, request):
    request.getfixturevalue("s3")
    environment = tuple((name, value) for name, value in os.environ.items() if name.startswith("AWS_"))
    return S3Kind(f"s3://data/{secrets.token_hex(4)}", environment)


# Name → what makes one, from a folder of its own and pytest's request for fixtures such as a server.
KINDS = {"parquet": parquet, "delta": delta, "postgres": postgres, "s3": s3}
# Those with servers are in the slice, and of the long tests the kinds that take long.
PARAMETERS = [pytest.param(name, marks=pytest.mark.slice if name in {"postgres", "s3"} else ()) for name in KINDS]
LONG = {"delta": pytest.mark.slice, "postgres": pytest.mark.slice, "s3": pytest.mark.soak}
LONG_PARAMETERS = [pytest.param(name, marks=LONG.get(name, ())) for name in KINDS]
