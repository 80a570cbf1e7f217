"""`pip-dagster lineage`: what produced a partition, and the whole of it for other tools."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Any

import click

from pip_dagster.api.lineage import lineage_entries
from pip_dagster.cli.cells import Seconds
from pip_dagster.cli.group import WithDefault
from pip_dagster.cli.lineage_export import export
from pip_dagster.cli.lineage_history import show_as_of, show_key
from pip_dagster.cli.options import Instant, json_option
from pip_dagster.cli.output import show_json, show_pairs, show_table
from pip_dagster.cli.partition_status import SplitState, guard_findings, split_states
from pip_dagster.cli.published import check_pipeline, open_published
from pip_dagster.cli.selection import Selection, partition_selection
from pip_dagster.cli.table import Heading
from pip_dagster.declaration.project import Project
from pip_dagster.errors import RegistryError
from pip_dagster.plural import plural
from pip_dagster.registry.listing import composed
from pip_dagster.registry.store import Registry


@click.group(cls=WithDefault)
def lineage() -> None:
    """Lineage: what produced a partition, and events of OpenLineage.

    `pip-dagster lineage PIPELINE PARTITION` is short for `lineage show`. Only the long form shows a pipeline whose name
    is a command here.
    """


lineage.add_command(export)


@lineage.command()
@click.argument("pipeline")
@partition_selection("", bounds=False)
@click.option("--as-of", type=Instant(), help="What was live for PARTITION at this time; in UTC if without an offset.")
@click.option("--key", "key", multiple=True, help="Every score of this key; one --key for each key column.")
@json_option
@click.pass_obj
def show(
    project: Project,
    pipeline: str,
    as_of: datetime | None,
    key: tuple[str, ...],
    as_json: bool,
    selected: Selection,
) -> None:
    """Show what produced PARTITION of PIPELINE: sources, features, model, code, libraries, who and when.

    With --as-of: the scoring that was live at that time, who made it live and why. With --key: every score of a key,
    by any version, live or not; PARTITION is optional. Both read the warehouse instead of the published files.
    """
    partition = selected.one
    if key and as_of:
        raise click.UsageError("--key and --as-of answer different questions; use only one of them.")
    if key:
        show_key(project, pipeline, key, partition, as_json)
        return
    if partition is None:
        raise click.UsageError("Name a PARTITION or a --key.")
    if as_of:
        show_as_of(project, pipeline, partition, as_of, as_json)
        return
    with open_published(project) as con:
        check_pipeline(con, pipeline)
        entries = lineage_entries(con, pipeline, partition)
        split = split_states(con, pipeline).get(partition, SplitState({}, []))
    for entry in entries:
        entry["arms"] = asdict(split)["arms"] if entry["is_live"] else {}
    if as_json:
        show_json(entries)
        return
    shown = next((entry for entry in entries if entry["is_live"]), entries[-1])
    lines = _lines(shown, project)
    lines += [("arms", split.text)] if split.arms else []
    lines += [("split faults", "; ".join(split.faults))] if split.faults else []
    show_pairs(f"{pipeline}, partition {partition}: live scoring", lines)
    if len(entries) > 1:
        columns = [
            *("scoring", "status", "live", "model", "rows", Heading("scored at", optional=True)),
            *(Heading("by", optional=True), Heading("reason", below=True)),
        ]
        shares = {of.scoring_id: f"{of.share:.2%}" for of in split.arms.values()}
        show_table("\nEvery attempt", columns, (_attempt(entry, shares) for entry in entries))


def _members(project: Project, entry: dict[str, Any]) -> list[tuple[str, str]]:
    """The members of the composite that scored, if the registry still has it unchanged."""
    try:
        version = Registry(project.registry).get(entry["model_name"], entry["model_version"] or "")
    except RegistryError:
        return []
    same = version.manifest_digest == entry["manifest_digest"]
    return [("composed of", line) for line in composed(version)] if same else []


def _lines(entry: dict[str, Any], project: Project) -> list[tuple[str, Any]]:
    sources = entry["source_digests"]
    purge = f"{entry['purged_at']:%Y-%m-%d %H:%M:%S %Z}, by {entry['purged_by']}" if entry.get("purged_by") else None
    return [
        ("status", entry["status"] + ("" if entry["is_live"] else ", not live")),
        ("reason", entry["reason"]),
        ("contents purged", purge),
        ("model", entry["model_name"] + (f" v{entry['model_version']}" if entry["model_version"] else "")),
        *_members(project, entry),
        ("model digest", entry["model_digest"]),
        ("manifest digest", entry["manifest_digest"]),
        ("feature revision", entry["feature_revision"]),
        ("feature digest", entry["feature_digest"]),
        *(
            (f"source {name}", f"{plural(source['rows'], 'row')}, {source['digest']}")
            for name, source in sources.items()
        ),
        ("declaration digest", entry["code_digest"]),
        ("libraries", ", ".join(f"{name} {version}" for name, version in entry["engine"].items())),
        ("device", f"{entry['device']}: {entry['device_reason']}; {entry['threads']} threads"),
        ("rows in", entry["rows_in"]),
        ("rows scored", entry["rows_scored"]),
        ("rows quarantined", entry["rows_quarantined"]),
        ("findings", "; ".join(guard_findings(entry["findings"])) or "none"),
        ("mean score", entry["mean_score"]),
        ("score digest", entry["score_digest"]),
        ("scoring time", _seconds(entry["seconds"])),
        ("CPU time", _seconds(entry.get("cpu_seconds"))),
        ("peak memory", f"{peak / 1e6:,.0f} MB" if (peak := entry.get("peak_memory")) else None),
        ("lock wait", _seconds(entry.get("lock_seconds"))),
        ("scoring", entry["scoring_id"]),
        ("run", entry["run_id"]),
        ("scored by", entry["made_by"]),
        ("scored at", entry["made_at"]),
    ]


def _seconds(value: float | None) -> Seconds | None:
    return None if value is None else Seconds(value)


def _attempt(entry: dict[str, Any], shares: dict[str, str]) -> list[Any]:
    return [
        entry["scoring_id"],
        entry["status"],
        shares.get(entry["scoring_id"], entry["is_live"]),
        f"v{entry['model_version']}" if entry["model_version"] else "",
        entry["rows_scored"],
        entry["made_at"],
        entry["made_by"],
        entry["reason"],
    ]
