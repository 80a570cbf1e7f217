"""`make bench`: measure ratios, each within one run, and write benchmarks/results.json and docs/benchmarks.md."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from benchmarks import data, report
from benchmarks.measure import Measured, best, case
from benchmarks.report import Figure


def note(text: str) -> None:
    """Print progress; a run takes a quarter of an hour."""
    print(f"- {text}", flush=True)


def per_row(run: Measured) -> float:
    """Rows per second."""
    return run.reported["rows"] / run.seconds


def predict_floor(sizes: list[str]) -> list[Figure]:
    """From stored features to committed scores and ledger, against the bare predictor."""
    figures = []
    for size in sizes:
        note(f"predict floor, {size} rows")
        repeat = 3 if size == "1M" else 1
        floors, ours = [], []
        for _ in range(repeat):  # alternating, so that other load on the machine affects both
            floors.append(case("cases", "floor", size))
            ours.append(case("cases", "scale", size, "predictions"))
        floor = best(floors)
        run = min(ours, key=lambda each: each.seconds - each.reported["published"])
        committed = run.seconds - run.reported["published"]
        figures.append(
            Figure(
                f"predict floor, {size} rows",
                committed / floor.seconds,
                1.10,
                "×",
                f"{floor.seconds:.1f} s → {committed:.1f} s",
            )
        )
        cpu = run.cpu_seconds / floor.cpu_seconds
        figures.append(
            Figure(
                f"… in CPU seconds, publishing included, {size} rows",
                cpu,
                None,
                "×",
                f"{floor.cpu_seconds:.1f} s → {run.cpu_seconds:.1f} s",
            )
        )
    return figures


def memory(sizes: list[str]) -> list[Figure]:
    """Peak resident memory of a whole run, features and predictions, by the size of its one partition."""
    peaks = {}
    for size in sizes:
        note(f"memory, {size} rows")
        peaks[size] = case("cases", "scale", size, "whole").peak_mb
    listed = ", ".join(f"{size}: {peak:.0f} MB" for size, peak in peaks.items())
    return [
        Figure(
            f"peak memory, {sizes[-1]} rows against {sizes[0]}", peaks[sizes[-1]] / peaks[sizes[0]], 1.10, "×", listed
        ),
        Figure("peak memory, the highest", max(peaks.values()) / 1000, 1.5, "GB", listed),
    ]


def year() -> tuple[list[Figure], Measured, Measured]:
    """A year of flights in one Dagster run and without Dagster; bare scripts that query, predict and insert; a run per day."""
    note("a year of flights in one Dagster run")
    one_run = case("cases", "dagster", "2013-01-01", "2013-12-31")
    note("a year of flights without Dagster")
    alone = case("cases", "backfill")
    note("a year of flights by bare scripts")
    daily, whole = case("cases", "bare", "daily"), case("cases", "bare", "year")
    note("a year of assets without a body")
    nothing = case("cases", "empty", "2013-01-01", "2013-12-31")
    note("a run per day")
    a_day = best([case("cases", "dagster", day, day) for day in ("2013-06-01", "2013-06-02", "2013-06-03")])

    def against(name: str, other: float, ours: Measured, bound: float | None) -> Figure:
        return Figure(name, ours.seconds / other, bound, "×", f"{other:.0f} s → {ours.seconds:.0f} s")

    figures = [
        against("a year in one run, against a bare script, day by day", daily.seconds, one_run, 1.15),
        against("… a year of two assets without a body, against the same", daily.seconds, nothing, None),
        against("a year by `pip-dagster backfill`, against the same", daily.seconds, alone, 2.0),
        against("a year in one run, against a script that scores it as one table", whole.seconds, one_run, None),
        against("a year in one run, against a run a day (three measured)", 365 * a_day.seconds, one_run, 1.0),
    ]
    return figures, one_run, alone


def alternatives(one_run: Measured, alone: Measured, days: int) -> list[Figure]:
    """Rows per second and peak memory of the alternatives, against ours on the year, with and without Dagster."""
    rows = 336_776
    figures = []
    for name, title, count, with_dagster in (
        ("io_manager", "dagster-duckdb's pandas IO manager, scikit-learn interface", days, True),
        ("mlflow_pyfunc", "MLflow pyfunc on pandas", 365, False),
        ("ray_data", "Ray Data map_batches", days, False),
    ):
        note(title)
        run = case("alternatives", name, count, tree=True)
        ours = one_run if with_dagster else alone
        detail = (
            f"{per_row(run):,.0f} → {rows / ours.seconds:,.0f} rows/s; {run.peak_mb:.0f} → {ours.peak_mb:.0f} MB; "
            f"{count} days, {'both in' if with_dagster else 'neither in'} Dagster"
        )
        faster = rows / ours.seconds / per_row(run)
        figures.append(Figure(f"ahead of {title}", faster, 1.0, "× faster", detail, at_least=True))
    return figures


def daily() -> list[Figure]:
    """The whole process for one date, against that of an asset that does nothing."""
    note("a daily run")
    day = "2013-06-01"
    libraries = ("duckdb", "pandas", "pyarrow.dataset", "xgboost")
    runs = [
        (
            case("cases", "empty", day, day),
            case("cases", "empty", day, day, *libraries),
            case("cases", "dagster", day, day),
        )
        for _ in range(3)
    ]
    nothing, imports, ours = (best([each[i] for each in runs]) for i in range(3))

    def against(name: str, run: Measured, bound: float | None) -> Figure:
        detail = f"{nothing.cpu_seconds:.1f} s → {run.cpu_seconds:.1f} s"
        return Figure(name, run.cpu_seconds / nothing.cpu_seconds, bound, "×", detail)

    return [
        against("a daily run, against an empty asset, in CPU seconds", ours, 1.25),
        against("… an asset that only imports DuckDB, pandas, PyArrow and XGBoost, against the same", imports, None),
    ]


def growth() -> list[Figure]:
    """The cost of a partition with few and with many partitions in the ledger."""
    found = {}
    for count in (10, 365, 3650):
        note(f"growth, {count} partitions")
        found[count] = best([case("cases", "growth", count) for _ in range(2)]).seconds / 10
    listed = ", ".join(f"{count}: {seconds * 1000:.0f} ms" for count, seconds in found.items())
    return [Figure("a partition with 3,650 in the ledger, against 10", found[3650] / found[10], 1.10, "×", listed)]


def main() -> None:
    """Measure everything, or the named parts."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("only", nargs="*", help="predict_floor, memory, year, daily, growth; by default all of them")
    parser.add_argument(
        "--100M", dest="huge", action="store_true", help="measure memory with 100 million rows too: 15 minutes more"
    )
    parser.add_argument(
        "--days", type=int, default=30, help="number of days on which the slow alternatives are measured"
    )
    options = parser.parse_args()
    note("data and models")
    data.registry()
    for size in ("1M", "10M") + (("100M",) if options.huge else ()):
        data.scale(size)

    def years() -> list[Figure]:
        found, one_run, alone = year()
        return [*found, *alternatives(one_run, alone, options.days)]

    parts: dict[str, Callable[[], list[Figure]]] = {
        "predict_floor": lambda: predict_floor(["1M", "10M"]),
        "memory": lambda: memory(["1M", "10M"] + (["100M"] if options.huge else [])),
        "year": years,
        "daily": daily,
        "growth": growth,
    }
    for name in options.only or parts:
        report.save(name, parts[name]())
    report.write()


if __name__ == "__main__":
    main()
