"""`pip-dagster audit`: who changed the live scorings, and proof that the record was not changed."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from pip_dagster.cli.cells import moment
from pip_dagster.cli.group import Commands
from pip_dagster.cli.options import json_option, why_option
from pip_dagster.cli.output import echo, progress, show_json, show_table
from pip_dagster.cli.table import Heading
from pip_dagster.declaration.find import find_declarations
from pip_dagster.declaration.project import Project
from pip_dagster.errors import DeclarationError, ProjectError
from pip_dagster.plural import plural
from pip_dagster.registry.store import whoami
from pip_dagster.sql.names import literal

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.evidence.everything import Everything
    from pip_dagster.evidence.verify import Verified as Anchored
    from pip_dagster.ledger.fault import Fault

_LOG = """
  SELECT * FROM (
    SELECT * FROM ledger.audit a
    WHERE {pipeline}::VARCHAR IS NULL OR a.pipeline = {pipeline} OR (a.pipeline IS NULL AND (a.subject->>'model') IN
      (SELECT s.model_name FROM ledger.scorings s WHERE s.pipeline = {pipeline}))
    ORDER BY seq DESC LIMIT {last}
  ) ORDER BY seq
"""


BROKEN, UNRECORDED = 1, 4


@contextmanager
def open_ledger(project: Project, purpose: str) -> Iterator[DuckDBPyConnection]:
    """The warehouse itself under its lock, for tables that are not published.

    Raises:
        WarehouseError: there is no warehouse yet, or it stayed locked.
    """
    from pip_dagster.warehouse.access import reading
    from pip_dagster.warehouse.connect import workspace

    with workspace(threads=2) as con, reading(con, project, purpose=f"pip-dagster {purpose}", checked=False):
        yield con


@click.group(cls=Commands)
def audit() -> None:
    """Audit: live changes, promotions and rollbacks, as a chain of hashes."""


@audit.command()
@click.option(
    "--expect", metavar="HASH", help="The hash of an entry, stored elsewhere, that the chain must still have."
)
@click.option("--anchors", is_flag=True, help="Compare with the anchors in the declared places too.")
@json_option
@click.pass_obj
def verify(project: Project, expect: str | None, anchors: bool, as_json: bool) -> None:
    """Recompute the chain and compare it with the ledger, the stored rows, the registry and the published files.

    Exit code 0: the chain is intact, every version and alias move in the registry is as recorded, and the published
    files hold what was published. 1: one of them does not; the first fault is shown. 4: they do, but no command
    recorded some alias moves.

    Who can write to the warehouse can rewrite the whole chain, or cut off its end. --anchors finds that, and changed
    rows of any table of the ledger: declare [tool.pip_dagster.anchors]. Without, store the last hash that it prints
    where nobody who can write to the warehouse can change it: --expect proves later that no entry up to that one was
    replaced.
    """
    from pip_dagster.declaration.lake import Lake
    from pip_dagster.evidence.everything import verify_everything

    shown = progress if sys.stderr.isatty() else lambda text: None
    found = verify_everything(project, expect=expect, anchors=anchors, progress=shown)
    tries = 3 if isinstance(project.warehouse, Lake) else 1  # of a lake, partitions may be published meanwhile
    while (tries := tries - 1) and found.published:
        found = verify_everything(project, expect=expect, anchors=anchors)
    faults = found.faults
    if as_json:
        listed = [{"model": model} | move.model_dump(mode="json") for model, move in found.pending]
        answer = {
            "entries": found.entries,
            "head": found.head,
            "unrecorded_promotions": len(listed),
            "unrecorded": listed,
        }
        of_files = {"altered": len(found.published), "without_digest": found.without_digest}
        of_files["pending"] = found.unpublished
        of_anchors = {"anchors": asdict(found.anchored) if found.anchored else None}
        listed_faults = [asdict(each) for each in faults]
        show_json(answer | of_files | of_anchors | {"fault": next(iter(listed_faults), None), "faults": listed_faults})
    else:
        _show_verified(found)
    sys.exit(BROKEN if faults else UNRECORDED if found.pending else 0)


def _show_verified(found: Everything) -> None:
    if found.of_chain:
        echo(f"The audit chain is broken. The first fault: {found.of_chain}", err=True)
    elif found.head:
        number = f"{found.entries:,} entries" if found.entries != 1 else "1 entry"
        echo(f"{number}; the chain is intact and agrees with the ledger. The last hash is {found.head}")
    if found.anchored:
        _show_anchored(found.anchored)
    for what, faults in (("stored tables and rows", found.stored), ("published files", found.published)):
        _show_first(f"The {what} were altered.", faults)
    if found.without_digest:
        what = plural(found.without_digest, "published partition")
        echo(
            f"Not compared: {what} of an earlier version, without a digest. `pip-dagster publish` records them.",
            err=True,
        )
    if found.unpublished:
        verb = "is" if found.unpublished == 1 else "are"
        what = f"{plural(found.unpublished, 'partition')} that {verb} not published yet"
        echo(f"Not compared: {what}. `pip-dagster publish` writes what is left.", err=True)
    if not found.pending:
        return
    echo(f"No command recorded {plural(len(found.pending), 'alias move')}:", err=True)
    for model, move in found.pending:
        before = f"v{move.previous}" if move.previous else "not set"
        text = f"{model}: {move.alias} from {before} to v{move.version} by {move.by}, {moment(move.at)}"
        echo(f"- {text}: {move.why}", err=True)  # not indented: it may need several lines
    echo(
        "They were written into the file, or made from Python or in MLflow. Move the alias back with `pip-dagster "
        "models promote`, or accept them with `pip-dagster audit accept --moves --why TEXT`.",
        err=True,
    )


@audit.command()
@click.option("--moves", is_flag=True, help="Alias moves that no command recorded.")
@click.option("--versions", is_flag=True, help="Registered versions that were replaced, as they are now.")
@click.option("--warehouse", is_flag=True, help="The warehouse: a new one, or one from an older backup.")
@why_option
@json_option
@click.pass_obj
def accept(project: Project, moves: bool, versions: bool, warehouse: bool, why: str, as_json: bool) -> None:
    """Accept what `verify` reports or runs refuse; the audit records who accepted it and why.

    With --warehouse, the files that another ledger published are moved aside, and this one's are published.
    """
    from pip_dagster.evidence.anchor import anchor_after
    from pip_dagster.ledger.accept import accept as accept_findings

    if not (moves or versions or warehouse):
        raise click.UsageError("Choose what to accept: --moves, --versions or --warehouse.")
    if not why.strip():
        raise click.UsageError("Give the reason with --why; it is recorded in the audit.")
    done = accept_findings(project, by=whoami(), why=why, moves=moves, replaced=versions, warehouse=warehouse)
    anchor_after(project, progress, accepts=True)
    if as_json:
        show_json(asdict(done))
        return
    echo(
        f"Accepted: {plural(done.moves, 'alias move')}, {plural(done.versions, 'version')}, "
        f"{'the warehouse as it is' if done.warehouse else 'no other warehouse'}."
    )
    if done.aside:
        echo(f"The former files are in {done.aside}.")


def _show_first(what: str, faults: Sequence[Fault]) -> None:
    if faults:
        more = f" And {plural(len(faults) - 1, 'more fault')}; --json lists all." if len(faults) > 1 else ""
        echo(f"{what} The first fault: {faults[0]}{more}", err=True)


def _show_anchored(found: Anchored) -> None:
    _show_first("The audit is not as it was anchored.", found.faults)
    if not found.faults:
        echo(f"It agrees with {plural(found.anchors, 'anchor')}, the newest of entry {found.entry}.")
    if found.later:
        number = "1 entry" if found.later == 1 else f"{found.later:,} entries"
        echo(f"No anchor covers {number} behind that one: run `pip-dagster audit anchor`.")
    if found.later_rows:
        listed = ", ".join(f"{plural(count, 'row')} of {name}" for name, count in found.later_rows.items())
        echo(f"No anchor covers what came to the ledger's tables since: {listed}.")
    if found.earlier_ledgers:
        anchors = plural(found.earlier_ledgers, "anchor")
        echo(f"Not compared: {anchors} of a ledger that this one replaced, as it records.")


@audit.command()
@json_option
@click.pass_obj
def anchor(project: Project, as_json: bool) -> None:
    """Sign the newest entry and store it in the declared places, as each run does.

    [tool.pip_dagster.anchors] of pyproject.toml declares the key and the places: a file, a git repository, a command or
    a webhook. Exit code 1: a place did not take it.
    """
    from pip_dagster.evidence.anchor import anchor as anchor_audit

    done = anchor_audit(project)
    if done is None:
        raise ProjectError(
            f"{project.root / 'pyproject.toml'} declares no anchors: add a table [tool.pip_dagster.anchors] with key, "
            "signers and places."
        )
    if as_json:
        show_json(asdict(done))
    else:
        for name in done.places:
            echo(f"{name}: anchored entry {done.entry}, {done.hash}")
        for name, why in done.failed.items():
            echo(f"{name}: not anchored: {why}", err=True)
    sys.exit(1 if done.failed else 0)


@audit.command()
@click.argument("pipeline", required=False)
@click.option("--pipeline", "old_pipeline", hidden=True)
@click.option("--last", default=50, show_default=True, type=click.IntRange(min=1), help="How many to show.")
@json_option
@click.pass_obj
def log(project: Project, pipeline: str | None, old_pipeline: str | None, last: int, as_json: bool) -> None:
    """Show the newest entries, oldest first: all, or those of PIPELINE with the promotions of its models."""
    from pip_dagster.ledger.record import dicts

    pipeline = pipeline or old_pipeline
    with open_ledger(project, "audit log") as con:
        # A bound parameter would import pandas, which takes longer than all else.
        entries = dicts(con.execute(_LOG.format(pipeline=literal(pipeline) if pipeline else "NULL", last=last)))
        if pipeline and not entries:
            _check_known(con, project, pipeline)
    for entry in entries:
        entry["subject"], entry["details"] = json.loads(entry["subject"]), json.loads(entry["details"])
    if as_json:
        show_json(entries)
        return
    show_table(
        None,
        [
            *(
                "entry",
                Heading("at", optional=True),
                Heading("by", optional=True),
                "action",
                "pipeline or model",
                "subject",
                "change",
            ),
            Heading("why", below=True),
        ],
        (
            [
                entry["seq"],
                entry["made_at"],
                entry["actor"],
                entry["action"],
                entry["pipeline"] or entry["subject"].get("model"),
                *_change(entry["subject"], entry["details"]),
                entry["details"].get("why"),
            ]
            for entry in entries
        ),
    )


def _check_known(con: DuckDBPyConnection, project: Project, pipeline: str) -> None:
    """Refuse the name of a pipeline that is neither declared nor in the ledger."""
    rows = con.execute("SELECT DISTINCT pipeline FROM ledger.scorings").fetchall()
    known = {name for (name,) in rows} | {*find_declarations(project)}
    if pipeline not in known:
        raise DeclarationError(f"There is no pipeline {pipeline!r}; there is {', '.join(sorted(known)) or 'none'}.")


def _change(subject: dict[str, Any], details: dict[str, Any]) -> tuple[str, str]:
    """The subject of an entry, and its change."""
    if "silence_id" in subject:
        return details["alarm_id"] or details["subject"] or details["rule"] or details["event"] or "", details["action"]
    if "alarm_id" in subject:
        return subject["alarm_id"], details["action"]
    if "canary" in subject:
        return subject["canary"], f"v{details['model_version']} {details['action']}"
    if "partition_key" in subject:
        arms = {arm["arm"]: f"v{arm['model_version']}" for arm in details.get("arms", ()) if arm["arm"] != "champion"}
        if arms:
            shown = ", ".join(f"{version} for {arm}" for arm, version in arms.items())
            return subject["partition_key"], f"v{details['model_version']} live, {shown}"
        return subject["partition_key"], f"v{details['model_version']} live"
    if "alias" in subject:
        before = f"v{details['from']}" if details["from"] else "not set"
        return subject["alias"], f"{before} to v{details['to']}"
    if "report" in subject and "token" in details:
        return details["token"], f"subject report written, sha256 {subject['report']}"
    if "report" in subject:
        return f"{details['first']} to {details['last']}", f"report recorded, sha256 {subject['report']}"
    if "rewrite_id" in subject:
        return subject["rewrite_id"], f"{details['kind']}: {plural(details['scorings'], 'scoring')} rewritten"
    if "erasure_id" in subject:
        return subject["erasure_id"], f"certificate stored, sha256 {details['sha256'][:16]}"
    if "statement" in subject:
        return subject["statement"], f"stated until {str(details.get('until'))[:10]}"
    if "exercise" in subject:
        return details["partition"], f"{subject['exercise']} {'passed' if details['passed'] else 'failed'}"
    if "warehouse" in subject:
        return "warehouse", "accepted as it is"
    if "positions" in details:
        rows = plural(len(details["positions"]), "golden row")
        return f"v{subject['version']}", f"{rows} erased by {details['erasure_id']}"
    if "version" in subject:
        return f"v{subject['version']}", "accepted as it is"
    if "anchor" in subject:
        rows = sum(table["rows"] for table in details["tables"].values())
        return "ledger", f"{plural(rows, 'row')} of {plural(len(details['tables']), 'table')} covered"
    if "rollback_id" in subject:
        return subject["rollback_id"], f"{details['rolled_back']} rolled back, {len(details['missing'])} could not be"
    return "", f"{details['live_changes']} live changes before it"
