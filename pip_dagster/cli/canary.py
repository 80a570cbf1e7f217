"""`pip-dagster models canary`: the state of a canary, and stopping or resuming it by hand."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import click

from pip_dagster.cli.audit import open_ledger
from pip_dagster.cli.cells import moment
from pip_dagster.cli.options import json_option
from pip_dagster.cli.output import echo, show_json
from pip_dagster.declaration.find import find_pipeline
from pip_dagster.declaration.pipeline import Pipeline
from pip_dagster.declaration.project import Project
from pip_dagster.declaration.split import Canary, Split
from pip_dagster.errors import DeclarationError
from pip_dagster.registry.choose import registry_of
from pip_dagster.registry.errors import ModelNotFound
from pip_dagster.registry.store import whoami


@click.command()
@click.argument("pipeline")
@click.option("--stop", metavar="WHY", help="Score its rows with the champion from now on.")
@click.option("--resume", metavar="WHY", help="Make it live for its share again; its gate applies.")
@click.option("--arm", help="The alias of the arm; required if there are several.")
@json_option
@click.pass_obj
def canary(
    project: Project, pipeline: str, stop: str | None, resume: str | None, arm: str | None, as_json: bool
) -> None:
    """Show the state of PIPELINE's canary and what stopped it, or stop or resume it.

    Live scorings do not change: only partitions that are scored from now on are affected.
    """
    if stop is not None and resume is not None:
        raise click.UsageError("--stop and --resume contradict each other; use only one of them.")
    why = stop if stop is not None else resume
    if why is not None and not why.strip():
        raise click.UsageError("Give the reason; it is recorded in the ledger and the audit.")
    declared = find_pipeline(project, pipeline)
    experiment = declared.spec.scoring.canary
    if experiment is None:
        raise DeclarationError(
            f"Pipeline {pipeline} declares no canary. Declare `canary: {{arms: {{ALIAS: 5%}}, salt: NAME}}` in scoring."
        )
    if why is not None:
        _change(project, declared, experiment, arm, "stopped" if stop is not None else "resumed", why)
    found = states(project, declared, experiment)
    if as_json:
        show_json(found)
        return
    for state in found:
        echo(f"{pipeline}: {state['text']}")
        if state["labels"]:
            echo(f"{pipeline}: {state['arm']} by its labels: {state['labels']}")
    for event in (event for state in found for event in state["events"]):
        echo(f"{moment(event['made_at'])}  {event['text']}")


def states(project: Project, declared: Pipeline, experiment: Split) -> list[dict[str, Any]]:
    """Each arm of a canary: its version, whether it is stopped, what its labels show, every stop and resumption.

    The labels are as they were recorded with the newest partition.
    """
    from pip_dagster.ledger.canary import events, seen_by_labels

    name, model = declared.spec.name, declared.spec.scoring.model_name
    registry = registry_of(project, declared.spec.scoring)
    versions = {arm: registry.alias(model, arm) for arm in experiment.arms}
    with open_ledger(project, "models canary") as con:
        listed = events(con, name)
        labels = {arm: seen_by_labels(con, name, arm, (model, version or 0)) for arm, version in versions.items()}
    found = []
    for part in experiment.ranges:
        version = versions[part.arm]
        mine = [event for event in listed if event.alias == part.arm]
        last = [event for event in mine if event.model == (model, version)][-1:]
        stopped = bool(last) and last[0].action == "stopped"
        share = f"{(part.high - part.low) / 100:g}%"
        if version is None:
            text = f"{part.arm} names no version: the champion scores all rows"
        elif stopped:
            text = last[0].text
        else:
            text = f"{part.arm} (v{version}) scores {share} of the units while it passes its gate"
        state = {"arm": part.arm, "version": version, "share": share, "stopped": stopped, "text": text}
        state["labels"] = None if stopped else labels[part.arm]
        recorded = [asdict(event) | {"figures": json.loads(event.figures), "text": event.text} for event in mine]
        found.append(state | {"events": recorded})
    return found


def _change(project: Project, declared: Pipeline, experiment: Canary, arm: str | None, action: Any, why: str) -> None:
    from pip_dagster.ledger.canary import CanaryEvent, record_event, stopped
    from pip_dagster.warehouse.access import writing
    from pip_dagster.warehouse.connect import workspace
    from pip_dagster.warehouse.transaction import transaction

    name, model = declared.spec.name, declared.spec.scoring.model_name
    arms = list(experiment.arms)
    if arm is None and len(arms) > 1:
        raise click.UsageError(f"The canary has the arms {', '.join(arms)}; choose one with --arm.")
    chosen = arm or arms[0]
    if chosen not in arms:
        raise click.UsageError(f"The canary has no arm {chosen!r}; it has {', '.join(arms)}.")
    version = registry_of(project, declared.spec.scoring).alias(model, chosen)
    if version is None:
        raise ModelNotFound(f"{model}: alias {chosen!r} names no version, so there is nothing to stop or resume.")
    with (
        workspace(threads=1) as con,
        writing(con, project, purpose=f"{name}: canary {action}"),
        transaction(con),
    ):
        is_stopped = stopped(con, name, chosen, (model, version)) is not None
        if is_stopped == (action == "stopped"):
            raise DeclarationError(
                f"{name}: {chosen} (v{version}) is {'already stopped' if is_stopped else 'not stopped'}."
            )
        event = CanaryEvent(
            pipeline=name,
            alias=chosen,
            model_name=model,
            model_version=version,
            action=action,
            why=why,
            run_id="",
            made_by=whoami(),
        )
        record_event(con, event)
