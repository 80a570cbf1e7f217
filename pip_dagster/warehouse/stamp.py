"""Notes outside the warehouse of how far its ledger had come: they show that it was lost, replaced or is older.

A stamp is the number and hash of the audit's newest entry. One lies beside the published files, written each time
something is published. One lies in the registry, written when alias moves are recorded; it is of this warehouse's
place only, since several projects may share a registry. The ledger must have the entry that each stamp names.

Two deployments that share a registry may have the same paths. A stamp therefore names its ledger too, and one of
another ledger is theirs if the stamp beside the published files is of this one.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from pip_dagster.declaration.lake import Lake
from pip_dagster.errors import OtherWarehouseError
from pip_dagster.sql.names import literal
from pip_dagster.whole_file import replacing

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.project import Project

_FILE = "ledger.json"
_GO_ON = "If it is meant, `pip-dagster audit accept --warehouse --why TEXT` accepts it as it is."


@dataclass(frozen=True)
class Stamp:
    """The audit's newest entry when the stamp was written, and the file that holds it.

    `ledger`: the hash of the audit's first entry; older stamps lack it.
    """

    path: Path
    entry: int
    hash: str
    ledger: str | None = None

    @property
    def text(self) -> str:
        """Where it is and what it names."""
        return f"{self.path} names entry {self.entry} of its audit"


def published_stamp(project: Project) -> Path:
    """The stamp beside the published files."""
    return project.published / _FILE


def registry_stamp(project: Project) -> Path:
    """The stamp of this warehouse in the registry; another ledger of the same place has its hash in the name too."""
    place = hashlib.sha256(str(project.warehouse).encode()).hexdigest()[:16]
    return project.registry / ".ledgers" / f"{place}.json"


def registry_stamps(project: Project) -> list[Path]:
    """The stamps of every ledger in the registry whose warehouse is in this place."""
    path = registry_stamp(project)
    return sorted(path.parent.glob(f"{path.stem}*.json"))


def stamps_of(project: Project) -> list[Stamp]:
    """The stamps that there are. Read them before the warehouse is opened, which may get ahead of them meanwhile."""
    paths = [published_stamp(project)] if project.publishes else []
    return [found for path in (*paths, *registry_stamps(project)) if (found := read(path))]


def read(path: Path) -> Stamp | None:
    """The stamp in this file; None where it does not exist, cannot be read or holds none."""
    try:
        found = json.loads(path.read_bytes())
        return Stamp(path, int(found["entry"]), str(found["hash"]), found.get("ledger"))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write(con: DuckDBPyConnection, path: Path) -> None:
    """Write the present stamp, unless a later one is there. The warehouse is the current catalog.

    Raises:
        OSError: it cannot be written.
    """
    head = newest_entry(con)
    ledger, before = _ledger(con), read(path)
    if path.name != _FILE and before and ledger and before.ledger not in (None, ledger):
        path = path.with_name(f"{path.stem}.{ledger[:16]}.json")
        before = read(path)
    if head is None or (before and before.entry >= head[0]):
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"entry": head[0], "hash": head[1], "ledger": ledger})
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())  # else an empty file could have the name after a loss of power


def newest_entry(con: DuckDBPyConnection) -> tuple[int, str] | None:
    """The number and hash of the audit's newest entry; to sort them would read all."""
    newest = "SELECT seq, hash FROM ledger.audit WHERE seq = (SELECT max(seq) FROM ledger.audit)"
    return con.execute(newest).fetchone()


def check(con: DuckDBPyConnection, project: Project, stamps: Sequence[Stamp]) -> None:
    """Check that the ledger, in the current catalog, has the entry of each stamp.

    Raises:
        OtherWarehouseError: it is older than a stamp, or another one.
    """
    for stamp in unknown(con, stamps):
        newest = con.execute("SELECT max(seq) FROM ledger.audit").fetchone()
        count = (newest and newest[0]) or 0
        what = f"ends at entry {count}" if count < stamp.entry else "has another entry with this number"
        raise OtherWarehouseError(
            f"The warehouse {project.warehouse} is not the one that was written to last, or was restored from an older "
            f"backup: {stamp.text}, and its audit {what}.",
            "Nothing was changed. Restore the newest backup, or set `warehouse` and `published` in pyproject.toml as "
            f"they were. {_GO_ON}",
        )


def unknown(con: DuckDBPyConnection, stamps: Sequence[Stamp]) -> list[Stamp]:
    """The stamps whose entry the audit has not, without those of another deployment."""
    missing = [stamp for stamp in stamps if not has_entry(con, stamp)]
    if not missing or not any(stamp.path.name == _FILE and stamp not in missing for stamp in stamps):
        return missing
    return [stamp for stamp in missing if stamp.ledger in (None, _ledger(con))]


def _ledger(con: DuckDBPyConnection) -> str | None:
    first = con.execute("SELECT hash FROM ledger.audit WHERE seq = 1").fetchone()
    return first[0] if first else None


def has_entry(con: DuckDBPyConnection, stamp: Stamp) -> bool:
    """Whether the audit has the entry that the stamp names."""
    select = f"SELECT 1 FROM ledger.audit WHERE seq = {stamp.entry} AND hash = {literal(stamp.hash)}"
    return con.execute(select).fetchone() is not None


def check_new(con: DuckDBPyConnection, project: Project, stamps: Sequence[Stamp]) -> None:
    """Check, where there is no ledger yet, that there never was one.

    Raises:
        OtherWarehouseError: published files, recorded alias moves or a lake's data show that there was.
    """
    if found := _traces(con, project, stamps):
        raise OtherWarehouseError(
            f"There is no ledger in the warehouse {project.warehouse}, but there was one: {found}.",
            "Nothing was changed: a new ledger would know nothing of it. Restore the warehouse from a backup, or set "
            f"`warehouse` in pyproject.toml as it was. {_GO_ON}",
        )


def _traces(con: DuckDBPyConnection, project: Project, stamps: Sequence[Stamp]) -> str | None:
    if stamps:
        return stamps[0].text
    if project.publishes:
        earlier = project.published.glob("*/ledger/*.parquet")
        if file := next(chain(project.published.glob("*/*.duckdb"), earlier), None):
            return f"{file} was published from it"
    if isinstance(project.warehouse, Lake):
        pattern = literal(f"{project.warehouse.data_path.rstrip('/')}/**/*.parquet")
        if data := con.execute(f"SELECT file FROM glob({pattern}) LIMIT 1").fetchone():
            return f"its data_path holds {data[0]}"
    return None
