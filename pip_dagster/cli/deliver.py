"""`pip-dagster deliver`: what is live goes to the declared targets; or whether they have it."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from pip_dagster.cli.options import json_option
from pip_dagster.cli.output import echo, progress, show_json, show_table
from pip_dagster.cli.selection import Selection, partition_selection
from pip_dagster.cli.table import Heading
from pip_dagster.declaration.find import find_pipeline
from pip_dagster.declaration.project import Project
from pip_dagster.errors import PipelineError
from pip_dagster.plural import plural
from pip_dagster.registry.store import whoami

if TYPE_CHECKING:
    from pip_dagster.declaration.pipeline import Pipeline
    from pip_dagster.delivery.outbox import Delivered
    from pip_dagster.delivery.verify import Compared

INCOMPLETE = 3
_SHOWN = 10  # partitions


@click.command()
@click.argument("pipeline")
@partition_selection("to deliver, whatever the targets have", several=True)
@click.option("--target", "targets", multiple=True, metavar="NAME", help="To this target only; may be repeated.")
@click.option("--verify", is_flag=True, help="Deliver nothing: compare what the targets have with what is live.")
@json_option
@click.pass_obj
def deliver(
    project: Project, pipeline: str, targets: tuple[str, ...], verify: bool, as_json: bool, selected: Selection
) -> None:
    """Deliver what is live in PIPELINE and not at its targets yet, or the partitions that are named, again.

    \b
    pip-dagster deliver orders                            what is pending
    pip-dagster deliver orders 2024-03-01 --target lake   again, to one target
    pip-dagster deliver orders --verify                   rows and digests, read back

    Exit code 0: the targets have everything. 1: refused. 3: something was not delivered, or differs; the rest is
    delivered.
    """
    declared = find_pipeline(project, pipeline)
    names = _targets(declared, targets)
    keys = _keys(declared, selected)
    if verify:
        _verify(declared, names, keys, as_json=as_json)
    else:
        _deliver(declared, names, keys, as_json=as_json)


def _targets(pipeline: Pipeline, targets: Sequence[str]) -> tuple[str, ...]:
    name, known = pipeline.spec.name, pipeline.spec.deliver
    if not known:
        raise click.ClickException(f"Pipeline {name} declares no target; declare `deliver` in its defs.yaml.")
    for each in targets:
        if each not in known:
            raise click.ClickException(f"Pipeline {name} has no target {each!r}; it has {', '.join(known)}.")
    return tuple(dict.fromkeys(targets)) or tuple(known)


def _keys(pipeline: Pipeline, selected: Selection) -> tuple[str, ...] | None:
    from pip_dagster.declaration.grid import closed_partitions

    if not selected:
        return None
    closed = closed_partitions(pipeline.spec.partitions, datetime.now(UTC))
    return tuple(each.key for each in selected.among(closed, pipeline.spec.name))


def deliver_at_once(pipeline: Pipeline) -> list[Delivered]:
    """Deliver what a command has made live, where targets are declared; what failed stays pending for the next run."""
    from pip_dagster.delivery.outbox import Delivered, DeliveryRequest, deliver
    from pip_dagster.ledger.record import RunInfo, new_id

    names = tuple(pipeline.spec.deliver)
    if not names:
        return []
    info = RunInfo(f"deliver-{new_id()}", whoami())
    try:
        return deliver(pipeline, DeliveryRequest(info, names), progress=progress)
    except PipelineError as error:  # the command itself is done, which must show
        return [Delivered(name, error=str(error)) for name in names]


def _deliver(pipeline: Pipeline, names: tuple[str, ...], keys: tuple[str, ...] | None, *, as_json: bool) -> None:
    from pip_dagster.delivery.outbox import DeliveryRequest, deliver
    from pip_dagster.ledger.record import RunInfo, new_id

    info = RunInfo(f"deliver-{new_id()}", whoami())
    done = deliver(pipeline, DeliveryRequest(info, names, keys), progress=progress)
    if as_json:
        show_json({"pipeline": pipeline.spec.name, "targets": [as_dict(each) for each in done]})
    else:
        show_deliveries(pipeline, done)
    sys.exit(0 if all(each.is_complete for each in done) else INCOMPLETE)


def as_dict(done: Delivered) -> dict[str, Any]:
    """What became of the deliveries to one target, for machines."""
    return {
        "target": done.target,
        "delivered": sorted(done.receipts),
        "failed": done.failed,
        "pending": done.left,
        "error": done.error,
    }


def show_deliveries(pipeline: Pipeline, done: Sequence[Delivered]) -> None:
    """What became of deliveries, target by target; nothing where there is no target."""
    if not done:
        return
    name = pipeline.spec.name
    rows = [
        [
            each.target,
            len(each.receipts),
            sum(receipt.rows for receipt in each.receipts.values()),
            len(each.failed),
            each.left,
            pipeline.spec.deliver[each.target].place,
        ]
        for each in done
    ]
    columns = ["target", "delivered", "rows", "failed", "pending", Heading("place", below=True)]
    show_table(f"{name}: deliveries", columns, rows)
    for each in done:
        if each.error:
            echo(f"{each.target}: {each.error}")
        for key, why in [*each.failed.items()][:_SHOWN]:
            echo(f"{each.target}, {key}: {why}")
        if len(each.failed) > _SHOWN:
            echo(f"{each.target}: and {plural(len(each.failed) - _SHOWN, 'partition')} more.")
    if not all(each.is_complete for each in done):
        echo(f"What is pending is delivered by the next run of {name}/delivered, or by:\n  pip-dagster deliver {name}")


def _verify(pipeline: Pipeline, names: tuple[str, ...], keys: tuple[str, ...] | None, *, as_json: bool) -> None:
    from pip_dagster.delivery.outbox import pending_now
    from pip_dagster.delivery.verify import verify

    found = [each for name in names for each in verify(pipeline, name, keys)]
    pending = {
        target: sum(keys is None or each.partition_key in keys for each in waiting)
        for target, waiting in pending_now(pipeline).items()
        if target in names
    }
    if as_json:
        compared = [_compared(each) for each in found]
        show_json({"pipeline": pipeline.spec.name, "partitions": compared, "pending": pending})
    else:
        show_compared(pipeline.spec.name, found)
        _show_not_compared(pipeline.spec.name, found, pending)
    sys.exit(0 if all(each.equal for each in found) and not any(pending.values()) else INCOMPLETE)


def _show_not_compared(pipeline: str, found: Sequence[Compared], pending: Mapping[str, int]) -> None:
    """What targets do not have yet, those of which nothing could be read, and what to do about differences."""
    for target, count in pending.items():
        if count:
            echo(f"{target}: {plural(count, 'partition')} pending. Run `pip-dagster deliver {pipeline}`.")
        elif not any(each.target == target for each in found):
            echo(f"{target}: nothing was read back.")
    if bad := next((each for each in found if not each.equal and not pending[each.target]), None):
        example = f"pip-dagster deliver {pipeline} {bad.partition_key} --target {bad.target}"
        echo(f"A partition that differs is delivered again by its name, such as:\n  {example}")


def show_compared(pipeline: str, found: Sequence[Compared]) -> None:
    """The partitions that differ, and how many do not."""
    bad = [each for each in found if not each.equal]
    if bad:
        columns = ["target", "partition", "live rows", "delivered rows", Heading("difference", below=True)]
        rows = [[each.target, each.partition_key, each.rows, each.rows_there, each.text] for each in bad]
        show_table(f"{pipeline}: differences", columns, rows)
    echo(f"{pipeline}: {plural(len(found) - len(bad), 'partition')} read back, as live; {len(bad):,} not.")


def _compared(each: Compared) -> dict[str, Any]:
    return {
        "target": each.target,
        "partition": each.partition_key,
        "equal": each.equal,
        "rows": each.rows,
        "delivered_rows": each.rows_there,
        "text": each.text,
    }
