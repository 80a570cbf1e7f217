"""Delivered copies: the partitions that lost rows are delivered again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pip_dagster.delivery.outbox import DeliveryRequest, deliver
from pip_dagster.erasure.place import ErasureRequest, Removed
from pip_dagster.errors import ErasureError
from pip_dagster.ledger.record import RunInfo
from pip_dagster.plural import plural
from pip_dagster.sql.names import literal
from pip_dagster.warehouse.access import reading
from pip_dagster.warehouse.connect import workspace

if TYPE_CHECKING:
    from pip_dagster.declaration.pipeline import Pipeline

_REMAINS = {
    "delta": "former files of the table until its owner runs VACUUM",
    "parquet": "versions that an object store keeps",
    "postgres": "dead rows until VACUUM; backups and logs of the server",
    "webhook": "what receivers read and kept; they were notified of the change",
    "python": "what the function did with earlier rows; it was called again",
}


class TargetsPlace:
    """The declared targets of one pipeline."""

    def __init__(self, pipeline: Pipeline, actor: str) -> None:
        self._pipeline, self._actor = pipeline, actor

    @property
    def name(self) -> str:
        """With the pipeline's name: each has its own targets."""
        return f"delivered copies of {self._pipeline.spec.name}"

    def count(self, request: ErasureRequest) -> int:
        """Nothing: targets are not read."""
        return 0

    def remove(self, request: ErasureRequest) -> Removed:
        """Deliver the partitions that lost rows again, whatever the targets show.

        Raises:
            ErasureError: a target did not take them.
        """
        spec, keys = self._pipeline.spec, request.partitions.get(self._pipeline.spec.name, ())
        with workspace(threads=1) as con, reading(con, self._pipeline.project, purpose="erasing"):
            select = f"SELECT partition_key FROM ledger.live WHERE pipeline = {literal(spec.name)}"
            live = {row[0] for row in con.execute(select).fetchall()}
        wanted = tuple(key for key in keys if key in live)
        if not (spec.deliver and keys):
            return Removed(0, 0, 0, "nothing was delivered of these partitions")
        asked = DeliveryRequest(RunInfo(request.erasure_id, self._actor), tuple(spec.deliver), wanted, sweeps=True)
        for done in deliver(self._pipeline, asked):
            if not done.is_complete:
                why = done.error or next(iter(done.failed.values()), f"{plural(done.left, 'partition')} left")
                raise ErasureError(f"Pipeline {spec.name}: target {done.target} was not delivered to again: {why}")
        kinds = sorted({_REMAINS[target.kind] for target in spec.deliver.values()})
        names = ", ".join(sorted(spec.deliver))
        return Removed(0, 0, 0, f"{plural(len(wanted), 'partition')} delivered again to {names}", "; ".join(kinds))

    def verify(self, request: ErasureRequest) -> str:
        """Each target answered."""
        return "each target took the rows as they are now"
