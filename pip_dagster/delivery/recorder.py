"""What was delivered, written to the ledger some at a time: each opening of the warehouse costs."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

from pip_dagster import clock
from pip_dagster.ledger.deliveries import DeliveryEntry, Pending, insert_deliveries
from pip_dagster.ledger.record import RunInfo, new_id
from pip_dagster.warehouse.access import writing
from pip_dagster.warehouse.connect import workspace
from pip_dagster.warehouse.transaction import transaction

if TYPE_CHECKING:
    from pip_dagster.declaration.pipeline import Pipeline
    from pip_dagster.delivery.target import Receipt

# How many deliveries, or seconds of them, a kill leaves unrecorded; they are then delivered again, and skipped.
_UNRECORDED, _UNRECORDED_SECONDS = 200, 2.0


class Recorder:
    """The entries of one target that are not written yet."""

    def __init__(self, pipeline: Pipeline, target: str, info: RunInfo) -> None:
        self._pipeline, self._target, self._info = pipeline, target, info
        self._entries: list[DeliveryEntry] = []
        self._written_at = time.monotonic()

    def note(
        self, pending: Pending, receipt: Receipt | None, error: str | None, *, attempts: int, seconds: float
    ) -> None:
        """A change that was delivered, or was not in so many attempts."""
        declared = self._pipeline.spec.deliver[self._target]
        entry = DeliveryEntry(
            delivery_id=new_id(),
            pipeline=self._pipeline.spec.name,
            target=self._target,
            kind=declared.kind,
            partition_key=pending.partition_key,
            change_id=pending.change_id,
            declaration=declared.digest,
            state="delivered" if receipt else "failed",
            attempts=attempts,
            rows=receipt.rows if receipt else None,
            digest=receipt.digest if receipt else None,
            place=receipt.place if receipt else None,
            receipt=json.dumps(dict(receipt.details), ensure_ascii=False, default=str) if receipt else None,
            error=error,
            seconds=seconds,
            run_id=self._info.run_id,
            made_by=self._info.made_by,
            made_at=clock.now(),
        )
        self._entries.append(entry)
        if len(self._entries) >= _UNRECORDED or time.monotonic() - self._written_at >= _UNRECORDED_SECONDS:
            self.write()

    def write(self) -> None:
        """Write what is noted, in a transaction of its own.

        Raises:
            WarehouseError: the warehouse cannot be written now; the deliveries are then done again.
        """
        if not self._entries:
            return
        project, name = self._pipeline.project, self._pipeline.spec.name
        with (
            workspace(threads=1) as con,
            writing(con, project, purpose=f"{name}: recording deliveries", publish=False),
            transaction(con),
        ):
            insert_deliveries(con, self._entries)
        self._entries, self._written_at = [], time.monotonic()
