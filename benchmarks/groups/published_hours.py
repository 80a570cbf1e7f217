"""What readers and publications cost after five years of hourly partitions of 20 rows."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import data, hours
from benchmarks.measure import Timed, case
from benchmarks.suite import Figure, Options, benchmark, note

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

MANY, FEW = 43_800, 10
_SWAPS = 1_000
_QUERIES = ("count", "one partition", "one key", "last 30 partitions")


@benchmark("published_hours")
def published_hours(_: Options) -> list[Figure]:
    """Queries of what is published, against one Parquet file; and publishing a partition, with many and with few."""
    root = hours.kept(MANY)
    note(f"reading {MANY:,} published hours")
    figures = _against_parquet(root, f"{MANY:,} published hours")
    note("publishing one of them")
    found = {count: case("benchmarks.groups.published_hours:publish", hours.kept(count)) for count in (FEW, MANY)}
    few, many = (found[count].cpu_seconds / found[count].reported["partitions"] for count in (FEW, MANY))
    of = [found[count].reported["publishing"] for count in (FEW, MANY)]
    return [
        *figures,
        Figure(f"an hour with {MANY:,} published, against {FEW}", many / few, None, "×", _ms(few, many)),
        Figure("… of which publishing", of[1] / of[0], 1.10, "×", _ms(*of)),
    ]


def _ms(before: float, after: float) -> str:
    return f"{before * 1000:.1f} ms → {after * 1000:.1f} ms of CPU"


@benchmark("published_swaps", long=True)
def published_swaps(_: Options) -> list[Figure]:
    """The same queries after a thousand changes of published partitions."""
    root = hours.kept(MANY)
    note(f"publishing {_SWAPS:,} of {MANY:,} hours again, one by one")
    case("benchmarks.groups.published_hours:swaps", root)
    return _against_parquet(root, f"{MANY:,} published hours, {_SWAPS:,} of them published again")


def _against_parquet(root: Path, title: str) -> list[Figure]:
    run = case("benchmarks.groups.published_hours:reads", root)
    found = ((query, *run.reported[query]) for query in _QUERIES)
    return [Figure(f"{title}: {query}", ours / parquet, 2.0, "×", _ms(parquet, ours)) for query, ours, parquet in found]


def reads(folder: str) -> None:
    """CPU seconds of each query through `published.duckdb` and of one Parquet file, by turns; the least of each."""
    import duckdb

    with data.scratch() as place, Timed() as timed:
        database = Path(folder) / "data" / "published.duckdb"
        ours = duckdb.connect(str(database), read_only=True, config={"threads": 1})
        file = place / "one.parquet"
        ours.execute(f"COPY (FROM {hours.NAME}.predictions ORDER BY partition_key, order_no) TO '{file}'")
        parquet = duckdb.connect(config={"threads": 1})
        middle, first = hours.key_of(MANY // 2), hours.key_of(MANY - 30)
        figures = "SELECT count(*), avg(score) FROM {rows}"
        queries = {
            "count": figures,
            "one partition": f"{figures} WHERE partition_key = '{middle}'",
            "one key": f"SELECT * FROM {{rows}} WHERE order_no = {MANY * hours.ROWS // 2}",
            "last 30 partitions": f"{figures} WHERE partition_key >= '{first}'",
        }
        found = {}
        for query, sql in queries.items():
            sides = [(ours, sql.format(rows=f"{hours.NAME}.predictions")), (parquet, sql.format(rows=f"'{file}'"))]
            answers = [[str(value) for value in con.execute(text).fetchall()] for con, text in sides]
            assert len(answers[0]) == len(answers[1]) == 1, answers
            spent: list[list[float]] = [[], []]
            for _ in range(15):
                for side, (con, text) in enumerate(sides):
                    spent[side].append(_cpu(con, text))
            found[query] = [min(each) for each in spent]
    timed.report(**found)


def _cpu(con: DuckDBPyConnection, sql: str, times: int = 5) -> float:
    began = time.process_time()
    for _ in range(times):
        con.execute(sql).fetchall()
    return (time.process_time() - began) / times


def publish(folder: str) -> None:
    """The newest ten hours scored again, one by one, after their source changed."""
    import duckdb

    from benchmarks.cases import materialize
    from pip_dagster.warehouse import access

    root = Path(folder)
    pipeline = hours.pipeline_of(root)
    with duckdb.connect(str(root / "sources.duckdb")) as con:
        ((count,),) = con.execute(f"SELECT count(*) // {hours.ROWS} FROM raw.s0").fetchall()
        con.execute(f"UPDATE raw.s0 SET price = price + 0.01 WHERE order_no >= {(count - 10) * hours.ROWS}")
    materialize(pipeline, [hours.key_of(count - 1)])  # libraries are imported
    spent: list[float] = []
    original = access.publish_pending  # type: ignore[attr-defined]

    def timed_publish(*arguments: Any, **options: Any) -> int:
        began = time.process_time()
        written = original(*arguments, **options)
        if written:
            spent.append(time.process_time() - began)
        return written

    access.publish_pending = timed_publish  # type: ignore[attr-defined]
    with Timed() as timed:
        for hour in range(count - 10, count - 1):
            materialize(pipeline, [hours.key_of(hour)])
    timed.report(partitions=9, publishing=min(spent))


def swaps(folder: str) -> None:
    """Hours here and there published again, each by itself."""
    from pip_dagster.sql.names import among, literal
    from pip_dagster.warehouse.access import writing
    from pip_dagster.warehouse.connect import workspace
    from pip_dagster.warehouse.published import publish_pending

    pipeline, chosen = hours.pipeline_of(Path(folder)), random.Random(7)
    with Timed() as timed, workspace(threads=1) as con, writing(con, pipeline.project, purpose="benchmark"):
        for _ in range(_SWAPS):
            of = f"partition_key = {literal(hours.key_of(chosen.randrange(MANY)))}"
            ids = (
                f"SELECT change_id FROM ledger.live_changes WHERE {of} UNION ALL SELECT scoring_id FROM ledger.scorings"
            )
            rows = con.execute(f"{ids} WHERE {of}").fetchall()
            con.execute(f"DELETE FROM ledger.publications WHERE {among('change_id', [each for (each,) in rows])}")
            assert publish_pending(con, pipeline.project) == 1
    timed.report()
