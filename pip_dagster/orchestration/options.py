"""What the tags of a run request: set by `pip-dagster backfill`, in the UI's launch dialogs, or by GraphQL."""

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg

from pip_dagster import clock
from pip_dagster.declaration.project import Project
from pip_dagster.errors import PipelineError
from pip_dagster.ledger.record import RunInfo
from pip_dagster.orchestration.runs import REASON
from pip_dagster.warehouse.access import reading
from pip_dagster.warehouse.connect import workspace

BACKFILL_TAG = "pip_dagster/backfill"
VERSION_TAG = "pip_dagster/model_version"
PINNED_TAG = "pip_dagster/pinned"  # of a backfill's run: whether a person requested its version
AS_KNOWN_TAG = "pip_dagster/as_known"
FEWER_ROWS_TAG = "pip_dagster/allow_fewer_rows"
WHY_TAG = "pip_dagster/why"

_SOON = timedelta(minutes=2)  # from a request to the beginning of its run, where nothing has to wait
_AHEAD = timedelta(seconds=5)


def run_options(run: dg.DagsterRun) -> dict[str, Any]:
    """`version`, `as_known` and `allow_fewer_rows` for `materialize`.

    Raises:
        Failure: a tag has a value that it cannot have.
    """
    version = run.tags.get(VERSION_TAG)
    if version is not None and not version.removeprefix("v").isdigit():
        raise dg.Failure(f"Tag {VERSION_TAG} is {version!r}; expected a version's number.", allow_retries=False)
    return {
        "version": int(version.removeprefix("v")) if version else None,
        "as_known": _is_set(run, AS_KNOWN_TAG),
        "allow_fewer_rows": _is_set(run, FEWER_ROWS_TAG),
    }


def _is_set(run: dg.DagsterRun, tag: str) -> bool:
    value = run.tags.get(tag, "false").lower()
    if value not in ("true", "false"):
        raise dg.Failure(f"Tag {tag} is {value!r}; expected true or false.", allow_retries=False)
    return value == "true"


def run_info(run: dg.DagsterRun, made_by: str, requested_at: datetime) -> RunInfo:
    """Who requested the run, why, and whether a person pinned the version that it scores with.

    A version in the tags of a run pins it. A backfill names its version in every run and pins it only if a person
    requested that version. Without a person's own text, `why` is the reason of the sensor or schedule.

    Raises:
        Failure: a tag has a value that `run_options` refuses.
    """
    options, of_backfill = run_options(run), BACKFILL_TAG in run.tags
    pinned = run.tags.get(PINNED_TAG) == "true" if of_backfill else True
    why = run.tags.get(WHY_TAG, "")
    return RunInfo(
        *(run.run_id, made_by, run.tags.get(BACKFILL_TAG), why or ("" if of_backfill else automation_reason(run))),
        requested_at=requested_at,
        pinned_version=options["version"] if pinned else None,
        as_known=options["as_known"],
    )


def automation_reason(run: dg.DagsterRun) -> str:
    """Why a sensor or schedule requested the run; empty where a person did."""
    is_automatic = "dagster/sensor_name" in run.tags or "dagster/schedule_name" in run.tags
    return run.tags.get(REASON, "") if is_automatic else ""


def requested_at(instance: dg.DagsterInstance, run: dg.DagsterRun, project: Project) -> datetime:
    """When the run was last requested: when its backfill, itself, or the run that it retries was created.

    A person who launches a run again requests it now; Dagster retrying a run does not. Where the ledger has records of
    the future, because some machine's clock was ahead, times cannot be compared: a run that begins soon after its
    request was then requested after all that the ledger holds. One that had waited is compared by the times, so that
    it never undoes a rollback.
    """
    created = _created_at(instance, run)
    began = clock.wall()
    if began - created > _SOON:
        return created
    with suppress(PipelineError), workspace(threads=1) as con, reading(con, project, purpose="starting a run"):
        pass  # the clock of records goes on behind what is there
    seen = clock.now()
    return seen if seen - clock.wall() > _AHEAD else created


def _created_at(instance: dg.DagsterInstance, run: dg.DagsterRun) -> datetime:
    backfill = instance.get_backfill(run.tags["dagster/backfill"]) if "dagster/backfill" in run.tags else None
    if backfill:
        return datetime.fromtimestamp(backfill.backfill_timestamp, UTC)
    first = run.root_run_id if "dagster/retry_number" in run.tags else run.run_id
    record = instance.get_run_record_by_id(first or run.run_id)
    # SQLite stores whole seconds: a rollback in the same second counts as before the request.
    return record.create_timestamp + timedelta(seconds=1) if record else datetime.now(UTC)
