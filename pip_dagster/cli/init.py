"""`pip-dagster init`: a new project with one pipeline, from a table of the user's or a sample."""

from __future__ import annotations

import os
import re
import shlex
import sys
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import click

from pip_dagster.cli.options import json_option
from pip_dagster.cli.output import echo, show_json
from pip_dagster.plural import plural

if TYPE_CHECKING:
    from pip_dagster.scaffold.files import Scaffold
    from pip_dagster.scaffold.proposal import Proposal, Wishes

_SHOWN = 20  # the most features, and other columns, that are named


@click.command()
@click.argument("name")
@click.option("--from-table", nargs=2, metavar="DB TABLE", help="A DuckDB file and a table in it, as SCHEMA.TABLE.")
@click.option("--from-parquet", metavar="GLOB", help="Parquet files instead, such as 'orders/*.parquet'.")
@click.option("--key", multiple=True, help="A column that names a row, by itself or with others; repeatable.")
@click.option("--partition-column", help="The DATE or TIMESTAMP column that puts rows into partitions.")
@click.option("--time-zone", help="Where a day begins, such as Europe/Berlin; by default this machine's.")
@click.option("--outcome", help="The column to predict, a number or BOOLEAN.")
@click.option("--yes", is_flag=True, help="Ask nothing: take the options and what the data propose.")
@json_option
def init(
    name: str,
    from_table: tuple[str, str] | None,
    from_parquet: str | None,
    key: tuple[str, ...],
    partition_column: str | None,
    time_zone: str | None,
    outcome: str | None,
    yes: bool,
    as_json: bool,
) -> None:
    """Write a new project in the folder NAME, with a pipeline NAME that loads and runs.

    Key, partition column and features are proposed from the table's rows, and can be changed in the files. In a
    terminal it asks for what the options leave open. Without a table it writes a sample one. To add a pipeline to a
    project: `dg scaffold defs pip_dagster.components.InferencePipeline NAME`.
    """
    from pip_dagster.scaffold import write
    from pip_dagster.scaffold.files import Scaffold, TableSource
    from pip_dagster.scaffold.proposal import Wishes

    write.check_name(name)
    folder, asks = Path(name), sys.stdin.isatty() and not (yes or as_json)
    if from_table and from_parquet:
        raise click.UsageError("--from-table and --from-parquet exclude each other.")
    if asks and not (from_table or from_parquet):
        from_table = _asked_table()
    with write.new_project(folder) as draft:
        if from_table:
            source, table = TableSource(str(Path(from_table[0]).resolve())), from_table[1]
        elif from_parquet:
            source, table = TableSource(None, str(Path(from_parquet).absolute())), f"raw.{_stem(from_parquet)}"
        else:
            source, table, outcome = write.write_sample(draft), write.SAMPLE_TABLE, outcome or "returned"
        wishes = Wishes(key, partition_column, outcome)
        proposal, words = write.proposal_of(source, draft, table, wishes)
        if asks:
            wishes = _asked(proposal, wishes)
            proposal, words = write.proposal_of(source, draft, table, wishes)
            time_zone = time_zone or click.prompt("Time zone in which a day begins", default=local_time_zone())
        zone = _checked_zone(time_zone or local_time_zone())
        scaffold = Scaffold(name, name, proposal, source, zone, words)
        write.write(draft, scaffold.project_files())
        (draft / "data").mkdir(exist_ok=True)
        write.check_loads(draft, scaffold)
    if as_json:
        made = scaffold.proposal
        features = [each.name for each in made.features]
        found = {"folder": str(folder), "pipeline": scaffold.name, "table": made.table, "key": list(made.key)}
        show_json(found | {"features": features, "left_out": dict(made.left_out), "next": _next(folder, scaffold)})
    else:
        _report(folder, scaffold)


def _asked_table() -> tuple[str, str] | None:
    from pip_dagster.scaffold.write import tables_of

    file = click.prompt("DuckDB file with your table (empty: a sample)", default="", show_default=False)
    if not file:
        return None
    tables = tables_of(Path(file))
    if not tables:
        raise click.ClickException(f"{file} has no table.")
    return file, click.prompt("Table", type=click.Choice(tables), default=tables[0])


def _asked(proposal: Proposal, wishes: Wishes) -> Wishes:
    from pip_dagster.scaffold.proposal import Wishes

    key = click.prompt("Key, the columns that name a row", default=", ".join(proposal.key))
    column = click.prompt("Partition column", default=proposal.partition_column)
    outcome = wishes.outcome or click.prompt(
        "Outcome, the column to predict (empty: none)", default="", show_default=False
    )
    return Wishes(tuple(part.strip() for part in key.split(",")), column, outcome or None)


def _report(folder: Path, scaffold: Scaffold) -> None:
    made = scaffold.proposal
    echo(f"{folder}/ has the pipeline {scaffold.name}, over {made.table}:")
    echo(f"  key: {', '.join(made.key)}")
    echo(f"  partitions: by {made.partition_column}, each {made.every} from {made.start}, in {scaffold.time_zone}")
    names = [each.name for each in made.features]
    more = f", and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    echo(f"  {plural(len(names), 'feature')}: {', '.join(names[:_SHOWN])}{more}")
    for column, why in made.left_out[:_SHOWN]:
        echo(f"  not a feature: {column} ({why})")
    if len(made.left_out) > _SHOWN:
        echo(f"  not a feature: {len(made.left_out) - _SHOWN} more, each with its reason in features.sql")
    echo("\nNext:")
    if not made.outcome:
        echo("  Train with features.sql, and save data/model.ubj and data/sample.parquet.")
    for line in _next(folder, scaffold):
        echo(f"  {line}")


def _next(folder: Path, scaffold: Scaffold) -> list[str]:
    """The commands that follow, up to the first report."""
    made, name = scaffold.proposal, scaffold.name
    first, last = _first_keys(made, datetime.now(ZoneInfo(scaffold.time_zone)))
    return [
        f"cd {shlex.quote(str(folder))}",
        *(["python train.py"] if made.outcome else []),
        f"{scaffold.register_command} --alias champion",
        f"pip-dagster check {name}",
        f"pip-dagster run {name} --from {first} --to {last}",
        f"pip-dagster report {name}",
    ]


def _first_keys(made: Proposal, now: datetime) -> tuple[str, str]:
    """The keys of the first partition and of one after it: of a day of hours, a week, or half a year of months."""
    if made.every == "hour":
        first, open_hour = datetime.combine(made.start, time()), now.replace(minute=0, second=0, tzinfo=None)
        last = max(first, min(first + timedelta(hours=23), open_hour - timedelta(hours=1)))
        return f"{first:%Y-%m-%d-%H:%M}", f"{last:%Y-%m-%d-%H:%M}"
    if made.every == "month":
        month = made.start.replace(day=1)
        before = (now.date().replace(day=1) - timedelta(days=1)).replace(day=1)
        return str(month), str(max(month, min(_months_after(month, 5), before)))
    return str(made.start), str(max(made.start, min(made.start + timedelta(days=6), now.date() - timedelta(days=1))))


def _months_after(month: date, count: int) -> date:
    years, months = divmod(month.month - 1 + count, 12)
    return month.replace(year=month.year + years, month=months + 1)


def local_time_zone() -> str:
    """This machine's IANA time zone; UTC if it is not known."""
    from zoneinfo import available_timezones

    found = re.search(r"zoneinfo/(.+)$", str(Path("/etc/localtime").resolve()))
    named = (os.environ.get("TZ", ""), found[1] if found else "")
    zone = next((zone for zone in named if zone in available_timezones()), "UTC")
    return "UTC" if zone in ("Etc/UTC", "Etc/UCT", "Zulu", "Universal", "UCT") else zone


def _checked_zone(zone: str) -> str:
    from zoneinfo import available_timezones

    if zone not in available_timezones():
        raise click.ClickException(f"{zone!r} is not an IANA time zone; expected for example Europe/Berlin or UTC.")
    return zone


def _stem(glob: str) -> str:
    words = [re.sub(r"\W|^\d+", "", part.split(".")[0]).lower() for part in Path(glob).parts[::-1]]
    return next((word for word in words if word), "rows")
