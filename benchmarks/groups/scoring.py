"""Scoring one partition, against the bare predictor on an array in memory."""

from __future__ import annotations

from benchmarks import data
from benchmarks.cases import time_floor
from benchmarks.measure import best, case, in_turns, least_cpu
from benchmarks.suite import Figure, Options, benchmark, note


@benchmark("predict_floor")
def predict_floor(_: Options) -> list[Figure]:
    """From stored features to committed scores and ledger, against the bare predictor."""
    data.registry()
    figures = []
    for size in ("1M", "10M"):
        note(f"predict floor, {size} rows")
        data.scale(size)
        floors, ours = in_turns(
            3 if size == "1M" else 1,
            lambda size=size: case("benchmarks.groups.scoring:floor", size),  # type: ignore[misc]
            lambda size=size: case("benchmarks.cases:scale", size, "predictions"),  # type: ignore[misc]
        )
        floor, committed = best(floors).seconds, min(each.seconds - each.reported["published"] for each in ours)
        cpu_floor, cpu = least_cpu(floors), least_cpu(ours)
        figures += [
            Figure(
                f"predict floor, {size} rows",
                committed / floor,
                1.10,
                "×",
                f"{floor:.1f} s → {committed:.1f} s",
            ),
            Figure(
                f"… in CPU seconds, publishing included, {size} rows",
                cpu / cpu_floor,
                None,
                "×",
                f"{cpu_floor:.1f} s → {cpu:.1f} s",
            ),
        ]
    return figures


def floor(size: str) -> None:
    """`Booster.inplace_predict` on a float32 array in memory."""
    import duckdb
    import numpy as np

    from pip_dagster.flow.guard_composite import encode_model
    from pip_dagster.registry.store import Registry

    version = Registry(data.registry()).get("scale", 1)
    con = duckdb.connect(str(data.scale(size)), read_only=True)
    columns = {row[0]: row[1] for row in con.execute("DESCRIBE raw.flights").fetchall()}
    encoded = encode_model(version.manifest, columns, where="benchmark")
    ((rows,),) = con.execute("SELECT count(*) FROM raw.flights").fetchall()
    X, at = np.empty((rows, len(encoded)), dtype=np.float32), 0
    for batch in con.sql(f"SELECT {', '.join(e.value for e in encoded)} FROM raw.flights").to_arrow_reader(100_000):
        for i in range(batch.num_columns):
            X[at : at + batch.num_rows, i] = batch.column(i).to_numpy(zero_copy_only=False)
        at += batch.num_rows
    con.close()
    time_floor(version, X)
