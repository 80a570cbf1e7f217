"""What a partition costs by the number of partitions in the ledger."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import date, timedelta

from benchmarks import data
from benchmarks.cases import materialize
from benchmarks.measure import Timed, best, case
from benchmarks.suite import Figure, Options, benchmark, note


@benchmark("growth")
def growth(_: Options) -> list[Figure]:
    """The cost of a partition with few and with many partitions in the ledger."""
    data.registry()
    data.features()
    data.scale("1M")  # its declaration is used
    found = {}
    for count in (10, 365, 3650):
        note(f"growth, {count} partitions")
        found[count] = best([case("benchmarks.groups.growth:partitions", count) for _ in range(2)]).seconds / 10
    listed = ", ".join(f"{count}: {seconds * 1000:.0f} ms" for count, seconds in found.items())
    return [Figure("a partition with 3,650 in the ledger, against 10", found[3650] / found[10], 1.10, "×", listed)]


def partitions(known: str) -> None:
    """Ten more small partitions when `known` are in the ledger already."""
    import duckdb

    count = int(known)
    with data.scratch() as folder:
        con = duckdb.connect(str(folder / "sources.duckdb"))
        con.execute("CREATE SCHEMA raw")
        con.execute(f"ATTACH '{data.features()}' AS year (READ_ONLY)")
        con.execute(
            f"CREATE TABLE raw.flights AS SELECT row_number() OVER () AS flight_id, DATE '2000-01-01' + d::INT AS day, "
            f"{', '.join(data.FEATURES)} FROM (SELECT * FROM year.feat.flights LIMIT 10), range({count + 10}) t(d)"
        )
        con.close()
        pipeline = data.scale_pipeline("1M", folder)
        spec = pipeline.spec.model_copy(
            update={
                "source_database": str(folder / "sources.duckdb"),
                "partitions": pipeline.spec.partitions.model_copy(update={"start": date(2000, 1, 1)}),
            }
        )
        pipeline = replace(pipeline, spec=type(spec).model_validate(spec.model_dump()))
        days = [str(date(2000, 1, 1) + timedelta(days=i)) for i in range(count + 10)]
        materialize(pipeline, days[:count])
        os.sync()  # so that pending writes of the first partitions are not measured
        with Timed() as timed:
            for day in days[count:]:
                materialize(pipeline, [day])
    timed.report(rows=100, partitions=10)
