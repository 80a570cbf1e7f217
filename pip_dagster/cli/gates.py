"""`pip-dagster models`: gate and promote versions, and sign them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from pip_dagster.api.gating import gate_version
from pip_dagster.api.registering import record_in_audit
from pip_dagster.cli.options import json_option
from pip_dagster.cli.output import echo, progress, show_json, show_table
from pip_dagster.cli.table import Heading
from pip_dagster.declaration.project import Project
from pip_dagster.errors import PipelineError
from pip_dagster.promotion.reports import to_json
from pip_dagster.registry.choose import registry_and_name
from pip_dagster.registry.store import Registry, whoami
from pip_dagster.statistics.gate_result import GateReport


@click.command()
@click.argument("pipeline")
@click.argument("ref")
@json_option
@click.pass_context
def gate(context: click.Context, pipeline: str, ref: str, as_json: bool) -> None:
    """Compare version REF of PIPELINE's model with the live version. Promotes nothing.

    Exit code 0: it passes every gate. 1: it does not. 2: no gate fails, but one could not judge.
    """
    from pip_dagster.declaration.find import find_pipeline

    report = gate_version(find_pipeline(context.obj, pipeline), ref, progress)
    if as_json:
        show_json(to_json(report))
    else:
        _show(report)
    context.exit(1 if report.failed else 2 if report.unjudged else 0)


@click.command()
@click.argument("name")
@click.argument("ref")
@click.option("--alias", default="champion", show_default=True, help="The alias to move.")
@click.option("--why", default="", help="The reason, for the alias's history.")
@click.option("--override", metavar="REASON", help="Promote despite failed gates; both are recorded.")
@click.option(
    "--accept-unjudged", metavar="REASON", help="Promote although gates had too few labels to judge; recorded."
)
@click.option("--approved-by", metavar="NAME", help="The second person, if a pipeline's gates require one.")
@json_option
@click.pass_obj
def promote(
    project: Project,
    name: str,
    ref: str,
    alias: str,
    why: str,
    override: str | None,
    accept_unjudged: str | None,
    approved_by: str | None,
    as_json: bool,
) -> None:
    """Point an alias of NAME at version REF, through the gates of the pipelines that score by it.

    Exit code 0: the alias names the version. 1: the promotion was refused.
    """
    from pip_dagster.promotion.promote import attempt
    from pip_dagster.warehouse.access import complete_publications

    registry, name = registry_and_name(project, name)
    version = registry.get(name, ref)
    for option, reason in (("--override", override), ("--accept-unjudged", accept_unjudged)):
        if reason is not None and not reason.strip():
            raise click.BadParameter("give the reason", param_hint=option)
    version.verify()
    if registry.alias(name, alias) == version.version:
        change, moved = registry.alias_history(name, alias)[-1], False
        if change.by == whoami():  # the process that moved it may have been killed before it could record it
            record_in_audit(project, name, change, progress)
        complete_publications(project)
    else:
        tried = attempt(project, version, alias, by=whoami(), progress=progress, registry=registry)
        try:
            change = tried.commit(why=why, override=override, accept_unjudged=accept_unjudged, approved_by=approved_by)
            moved = True
            record_in_audit(project, name, change, progress)
        except PipelineError as error:
            if as_json:
                refused = {"alias": alias, "version": version.version, "moved": False, "error": str(error)}
                show_json(refused | {"exit_code": 1, "gates": [to_json(report) for report in tried.reports]})
                error.answered = True
            raise
        finally:  # the reports after the decision: a reader who closes the pipe must not prevent it
            for report in tried.reports if not as_json else ():
                _show(report)
    if as_json:
        show_json(change.model_dump(mode="json") | {"moved": moved, "error": None})
    elif moved:
        before = f"v{change.previous}" if change.previous else "not set"
        echo(f"{name}: {alias} is now v{version.version}, was {before}")
    else:
        echo(f"{name}: {alias} is v{version.version} already")


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
@json_option
def keygen(path: Path, as_json: bool) -> None:
    """Create an Ed25519 key pair: PATH.pem, to be kept secret, and PATH.pub.pem, for scoring.required_signers."""
    from pip_dagster.registry.signing import keygen as create

    private, public = create(path)
    if as_json:
        show_json({"private_key": str(private), "public_key": str(public)})
        return
    echo(f"private key, for `models sign --key`: {private}\npublic key, for scoring.required_signers: {public}")


@click.command()
@click.argument("name")
@click.argument("ref")
@click.option("--key", required=True, type=click.Path(path_type=Path), help="The private key, in PEM.")
@json_option
@click.pass_context
def sign(context: click.Context, name: str, ref: str, key: Path, as_json: bool) -> None:
    """Sign version REF of NAME: its manifest, and through it every file."""
    from pip_dagster.registry.signing import sign as sign_version

    version = Registry(context.obj.registry).get(name, ref)
    signature = sign_version(version, key)
    if as_json:
        show_json({"model": version.name, "version": version.version, "signature": str(signature)})
    else:
        echo(f"{version} is signed: {signature}")


_STATES = {"passed": "passed", "failed": "FAILED", "unjudged": "UNJUDGED"}


GATE_COLUMNS = ("gate", "figure", "threshold", Heading("finding", below=True))


def gate_rows(report: GateReport) -> list[tuple[Any, ...]]:
    """Each gate with its verdict, figure, threshold and sentence."""
    return [
        (f"{_STATES[result.state]} {result.name}", result.figure, result.threshold, result.text)
        for result in report.results
    ]


def _show(report: GateReport) -> None:
    against = f"v{report.champion}" if report.champion else "nothing: the alias is not set"
    title = f"{report.pipeline}: {report.model_name} v{report.candidate} against {report.alias} ({against})"
    show_table(title, GATE_COLUMNS, gate_rows(report))
    if report.segments:
        show_table(
            "\nLargest differences by segment",
            ["segment", "value", "rows", "mean champion", "mean candidate", "difference", "flip rate"],
            (
                [each.segment, each.value, each.rows, each.champion, each.candidate, each.difference, each.flip_rate]
                for each in sorted(report.segments, key=lambda each: -abs(each.difference))[:10]
            ),
        )
    if report.movers:
        show_table(
            "\nThe rows that change most",
            ["partition", "key", "champion", "candidate"],
            ([each.partition_key, each.key, each.champion, each.candidate] for each in report.movers),
        )
