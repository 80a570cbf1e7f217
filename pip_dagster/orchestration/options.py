"""What a run may be told by its tags: by `pip-dagster backfill`, the UI's launch dialogs, or GraphQL."""

from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg

from pip_dagster.ledger.record import say_deliberate
from pip_dagster.orchestration.runs import REASON

BACKFILL_TAG = "pip_dagster/backfill"
VERSION_TAG = "pip_dagster/model_version"
AS_KNOWN_TAG = "pip_dagster/as_known"
WHY_TAG = "pip_dagster/why"


def run_options(run: dg.DagsterRun) -> dict[str, Any]:
    """`version` and `as_known` for `materialize`.

    Raises:
        Failure: a tag has a value that means nothing.

    """
    version, as_known = run.tags.get(VERSION_TAG), run.tags.get(AS_KNOWN_TAG, "false").lower()
    if version is not None and not version.removeprefix("v").isdigit():
        raise dg.Failure(f"Tag {VERSION_TAG} is {version!r}; expected a version's number.", allow_retries=False)
    if as_known not in ("true", "false"):
        raise dg.Failure(f"Tag {AS_KNOWN_TAG} is {as_known!r}; expected true or false.", allow_retries=False)
    return {"version": int(version.removeprefix("v")) if version else None, "as_known": as_known == "true"}


def live_why(run: dg.DagsterRun) -> str:
    """Why what the run makes is live.

    As `pip-dagster backfill` says; pinned, where a person's tag names a version; else why a sensor or schedule asked.
    """
    if BACKFILL_TAG in run.tags:
        return run.tags.get(WHY_TAG, "")
    version = run.tags.get(VERSION_TAG, "").removeprefix("v") or None
    as_known = run.tags.get(AS_KNOWN_TAG, "").lower() == "true"
    return say_deliberate(version, as_known, run.tags.get(WHY_TAG, "")) or asked_because(run)


def asked_because(run: dg.DagsterRun) -> str:
    """Why a sensor or schedule asked for the run; empty where a person did: their tag is no word on what is live."""
    asked = "dagster/sensor_name" in run.tags or "dagster/schedule_name" in run.tags
    return run.tags.get(REASON, "") if asked else ""


def asked_at(instance: dg.DagsterInstance, run: dg.DagsterRun) -> datetime:
    """When somebody last wanted this run: its backfill was asked for, it was created, or the run that it retries was.

    A run that a person launches again is wanted now; one that Dagster retries is not.
    """
    backfill = instance.get_backfill(run.tags["dagster/backfill"]) if "dagster/backfill" in run.tags else None
    if backfill:
        return datetime.fromtimestamp(backfill.backfill_timestamp, UTC)
    first = run.root_run_id if "dagster/retry_number" in run.tags else run.run_id
    record = instance.get_run_record_by_id(first or run.run_id)
    # SQLite keeps whole seconds: a rollback in the same one came before, as when a person does one after the other.
    return record.create_timestamp + timedelta(seconds=1) if record else datetime.now(UTC)
