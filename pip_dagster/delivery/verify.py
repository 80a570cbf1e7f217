"""Whether a target has what is live: rows and digest, read back from the target, against the published rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pip_dagster.delivery.live_rows import Unreadable, live_rows
from pip_dagster.delivery.redact import redacted
from pip_dagster.delivery.staging import staged
from pip_dagster.delivery.targets import Session
from pip_dagster.ledger.deliveries import delivered_keys, live_of
from pip_dagster.plural import plural
from pip_dagster.quoted import said
from pip_dagster.warehouse.access import reading
from pip_dagster.warehouse.connect import workspace

if TYPE_CHECKING:
    from pip_dagster.declaration.pipeline import Pipeline
    from pip_dagster.delivery.target import DeliveryChange
    from pip_dagster.ledger.deliveries import Pending

_ALL = 10**9  # partitions


@dataclass(frozen=True)
class Compared:
    """What is live of a partition, and what a target has; `text` says what differs."""

    target: str
    partition_key: str
    equal: bool
    rows: int
    rows_there: int | None
    text: str


def verify(
    pipeline: Pipeline, target: str, partitions: Sequence[str] | None = None, *, last: int = _ALL
) -> Iterator[Compared]:
    """Read these partitions back from a target, or the newest delivered ones; nothing of one that cannot be read back.

    Raises:
        WarehouseError: the ledger or the published rows cannot be read.
    """
    name, declared = pipeline.spec.name, pipeline.spec.deliver[target]
    with workspace(threads=1) as con, reading(con, pipeline.project, purpose=f"{name}: reading deliveries"):
        keys = delivered_keys(con, name, target, declared.digest, last) if partitions is None else [*partitions]
        of = {each.partition_key: each for each in live_of(con, name, target, declared.digest, keys)}
    with workspace(threads=1) as con, Session(pipeline, target) as session:
        con.execute("SET preserve_insertion_order = true")
        for live in live_rows(con, pipeline.project, name, [*of]):
            if isinstance(live, Unreadable):
                yield Compared(target, live.partition_key, equal=False, rows=0, rows_there=None, text=live.why)
                continue
            pending = of[live.partition_key]
            try:
                if not session.target().can_read_back:
                    return
                with staged(con, name, declared, live, pending) as ready:
                    found = _compare(session, ready.change, pending)
            except Exception as error:  # of a library too: it must not keep the others from being compared
                session.drop()
                text = redacted(said(error), declared, pipeline.project.root)
                yield Compared(target, live.partition_key, equal=False, rows=0, rows_there=None, text=text)
                continue
            if found:
                yield found


def _compare(session: Session, change: DeliveryChange, pending: Pending) -> Compared | None:
    """None where a newer change is on its way to the published rows, or to the target."""
    there = session.target().read_back(change.partition_key, change.columns)
    place = (change.target, change.partition_key)
    if change.change_id != pending.change_id or (there and there.shown.change_id > change.change_id):
        return None
    if there is None:
        return Compared(*place, equal=False, rows=change.rows, rows_there=None, text="the target has nothing of it")
    equal = (there.rows, there.digest) == (change.rows, change.digest)
    text = f"{plural(there.rows, 'row')} and their digest are equal"
    if there.shown.change_id != change.change_id:
        text = f"it has change {there.shown.change_id}; {change.change_id} is live"
    elif there.rows != change.rows:
        text = f"it has {plural(there.rows, 'row')}; {change.rows:,} are live"
    elif not equal:
        text = "the number of rows is equal, their values are not"
    return Compared(*place, equal and there.shown.change_id == change.change_id, change.rows, there.rows, text)
