"""`pip-dagster alarms`: what is in alarm, since when, and what to do; acknowledging, silencing and sending."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, time, timedelta
from typing import TYPE_CHECKING, get_args

import click

from pip_dagster import clock
from pip_dagster.cli.cells import moment
from pip_dagster.cli.group import Choice, Commands
from pip_dagster.cli.options import json_option
from pip_dagster.cli.output import echo, show_json
from pip_dagster.declaration.find import find_declarations, find_pipeline
from pip_dagster.declaration.project import Project
from pip_dagster.errors import DeclarationError, PipelineError
from pip_dagster.monitoring.finding import Event
from pip_dagster.registry.store import whoami

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.cli.alarms_show import Listed

IN_ALARM = 1

_why = click.option("--why", required=True, help="The reason, for the ledger and the audit.")


class _WithDefault(Commands):
    """`alarms PIPELINE` is `alarms show PIPELINE`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        help_wanted = args[:1] in ([name] for name in ctx.help_option_names)
        if not help_wanted and args[:1] not in ([name] for name in self.commands):
            args = ["show", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_WithDefault, context_settings={"help_option_names": ["-h", "--help"]})
def alarms() -> None:
    """Alarms of monitoring: `pip-dagster alarms [PIPELINE]` lists the open ones."""


@alarms.command()
@click.argument("pipeline", required=False)
@click.option("--all", "everything", is_flag=True, help="Also those that are resolved, and each one's history.")
@click.option("--check", is_flag=True, help="Exit with 1 while something is in alarm that nobody silenced.")
@click.option("--deliver", is_flag=True, help="For cron: first judge, send and retrain, as Dagster's daemon does.")
@json_option
@click.pass_obj
def show(project: Project, pipeline: str | None, everything: bool, check: bool, deliver: bool, as_json: bool) -> None:
    """List the alarms of PIPELINE, or of all pipelines, the most important first.

    A partition that is blocked or failed, with nothing live, is in alarm too.

    Exit code 0; with --check 1 while something is in alarm. With --deliver also 1 if something could not be sent.
    """
    from pip_dagster.cli.alarms_show import in_alarm, show_alarms, show_alarms_json

    if pipeline is not None:
        find_pipeline(project, pipeline)
    complete = _deliver(project, pipeline) if deliver else True
    listed = _listed(project, pipeline)
    (show_alarms_json if as_json else show_alarms)(listed, everything)
    sys.exit(IN_ALARM if not complete or (check and in_alarm(listed)) else 0)


@alarms.command()
@click.argument("alarm")
@_why
@json_option
@click.pass_obj
def ack(project: Project, alarm: str, why: str, as_json: bool) -> None:
    """Acknowledge ALARM: somebody deals with it, and nobody is notified of it again until it is resolved."""
    from pip_dagster.ledger.alarms import acknowledge, alarm_named, alarm_states

    with _changing(project, why) as con:
        found = acknowledge(con, alarm_named(alarm_states(con), alarm), by=whoami(), why=why)
    text = f"{found.pipeline}: alarm {found.alarm_id} of {found.subject} is acknowledged."
    _done(as_json, text, pipeline=found.pipeline, alarm_id=found.alarm_id, state="acknowledged")


@alarms.command()
@click.argument("alarm", required=False)
@click.option("--pipeline", help="With --event, --rule or --subject: the pipeline whose alarms are meant.")
@click.option("--event", type=Choice(get_args(Event)), help="Every alarm of this event.")
@click.option("--rule", help="Every alarm of this rule.")
@click.option("--subject", help="Every alarm of this column or metric.")
@click.option("--until", required=True, metavar="DATE", help="When it ends: 2024-03-15, or an instant in ISO 8601.")
@_why
@json_option
@click.pass_obj
def silence(
    project: Project,
    alarm: str | None,
    pipeline: str | None,
    event: str | None,
    rule: str | None,
    subject: str | None,
    until: str,
    why: str,
    as_json: bool,
) -> None:
    """Notify nobody of ALARM until a date, or of all alarms of a rule or subject.

    It ends by itself. Alarms that are still open then are sent again, with who silenced it.
    """
    from pip_dagster.ledger.alarms import alarm_named, alarm_states
    from pip_dagster.ledger.silences import Silence, record_silence

    described = [pipeline, event or rule or subject]
    if alarm and any(described):
        raise click.UsageError("Name an alarm, or describe several with --pipeline and --rule; not both.")
    if not alarm and not all(described):
        raise click.UsageError("Name an alarm, or give --pipeline with --event, --rule or --subject.")
    if pipeline:
        find_pipeline(project, pipeline)
    with _changing(project, why) as con:
        found = alarm_named(alarm_states(con), alarm) if alarm else None
        name = found.pipeline if found else pipeline or ""
        end = _until(until, project, name)
        this = Silence(
            pipeline=name,
            alarm_id=found.alarm_id if found else None,
            event=event,
            rule=rule,
            subject=subject,
            until=end,
            reason=why,
            made_by=whoami(),
        )
        record_silence(con, this)
    text = f"{name}: {this.about} is silent until {moment(end)}. To end it before:"
    text += f"\n  pip-dagster alarms unsilence {this.silence_id} --why TEXT"
    _done(as_json, text, pipeline=name, silence_id=this.silence_id, until=end)


@alarms.command()
@click.argument("silence")
@_why
@json_option
@click.pass_obj
def unsilence(project: Project, silence: str, why: str, as_json: bool) -> None:
    """End SILENCE before its date; the id of its alarm names it too. Alarms that are still open are sent again."""
    from pip_dagster.ledger.silences import Silence, record_silence, silence_named, silences_of

    with _changing(project, why) as con:
        found = silence_named(silences_of(con), silence, datetime.now(UTC))
        record_silence(con, Silence(pipeline=found.pipeline, ends=found.silence_id, reason=why, made_by=whoami()))
    text = f"{found.pipeline}: the silence of {found.about} has ended."
    _done(as_json, text, pipeline=found.pipeline, silence_id=found.silence_id, state="ended")


def _done(as_json: bool, text: str, **fields: object) -> None:
    if as_json:
        show_json(fields)
    else:
        echo(text)


def _until(text: str, project: Project, pipeline: str) -> datetime:
    """The end of a silence: of a date alone, its end in the pipeline's zone.

    Raises:
        DeclarationError: it is no date, or has passed.
    """
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise DeclarationError(f"--until {text!r} is not a date; expected for example 2024-03-15.") from None
    try:
        if at.tzinfo is None:
            zone = find_pipeline(project, pipeline).spec.partitions.zone
            at = datetime.combine(at + timedelta(days=1), time(), zone) if len(text) <= 10 else at.replace(tzinfo=zone)
        if at <= clock.wall():
            raise DeclarationError(f"--until {text} has passed: a silence ends in the future.")
        return at.astimezone(UTC)
    except OverflowError:
        raise DeclarationError(f"--until {text} is too late; expected a date up to 9999-12-30.") from None


def _deliver(project: Project, pipeline: str | None) -> bool:
    from pip_dagster.alerts.notify import notify
    from pip_dagster.alerts.retrain import retrain
    from pip_dagster.monitoring.watch import watch_clock, watch_scored
    from pip_dagster.warehouse.access import check_may_write

    check_may_write(project)
    faults: list[str] = []
    for name in [pipeline] if pipeline else sorted(find_declarations(project)):
        with _reported(faults):
            declared = find_pipeline(project, name)
            watch_scored(declared, None)
            if declared.spec.monitoring:
                watch_clock(declared)
            with _reported(faults):
                for text in retrain(declared).said:
                    echo(text, err=True)
            done = notify(declared, log=lambda text: echo(str(text), err=True))
            for title in done.sent:
                echo(f"Sent: {title}", err=True)
            faults += done.failed + ["no time was left"] * done.left
    return not faults


@contextmanager
def _reported(faults: list[str]) -> Iterator[None]:
    """What fails of one pipeline keeps no other from being judged and sent, nor retraining from sending."""
    try:
        yield
    except PipelineError as error:
        echo(str(error), err=True)
        faults.append(str(error))


def _listed(project: Project, pipeline: str | None) -> Listed:
    """What the ledger holds; nothing before there is one."""
    from pip_dagster.cli.alarms_show import Listed
    from pip_dagster.errors import NoWarehouseError
    from pip_dagster.ledger.alarms import alarm_history, alarm_states, outlived
    from pip_dagster.ledger.not_live import not_live
    from pip_dagster.ledger.silences import silences_of
    from pip_dagster.warehouse.access import reading
    from pip_dagster.warehouse.connect import workspace

    try:
        with workspace(threads=1) as con, reading(con, project, purpose="pip-dagster alarms"):
            history = alarm_history(con, pipeline)
            former = outlived(con, alarm_states(con, pipeline))
            silences = silences_of(con, pipeline)
            lost = not_live(con, pipeline)
        declared = {*_declared(project, {*(each.pipeline for each in history), *(each.pipeline for each in lost)})}
        undeclared = {each.pipeline for each in history} - declared
        lost = [each for each in lost if each.pipeline in declared]
        return Listed(history, silences, datetime.now(UTC), former, undeclared, lost)
    except NoWarehouseError:
        return Listed([], [], datetime.now(UTC))


def _declared(project: Project, known: Iterable[str]) -> Iterable[str]:
    """The declared pipelines; where a declaration cannot be read, those that the ledger knows."""
    try:
        return find_declarations(project)
    except DeclarationError:
        return known


@contextmanager
def _changing(project: Project, why: str) -> Iterator[DuckDBPyConnection]:
    """A transaction on the warehouse that records what a person does, with the reason."""
    from pip_dagster.warehouse.access import check_may_write, writing
    from pip_dagster.warehouse.connect import workspace
    from pip_dagster.warehouse.transaction import transaction

    if not why.strip():
        raise click.UsageError("Give the reason; it is recorded in the ledger and the audit.")
    check_may_write(project)
    with workspace(threads=1) as con, writing(con, project, purpose="pip-dagster alarms"), transaction(con):
        yield con
