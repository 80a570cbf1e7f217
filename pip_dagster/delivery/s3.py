"""Delivery as Parquet objects in S3, laid out as on a disk: see `parquet`.

S3 replaces one object at a time, and has no rename and no lock. So the manifest is written on the condition that it is
still the one that was read; whoever loses such a race reads it again and decides again.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from pip_dagster.delivery.digest import digest_of
from pip_dagster.delivery.manifest import LATEST, DeliveryManifest, File, folder_of, parsed
from pip_dagster.delivery.s3_client import LostRaceError, S3Objects
from pip_dagster.delivery.target import ChangeRows, DeliveryChange, DeliveryError, Receipt
from pip_dagster.quoted import first
from pip_dagster.sql.names import literal
from pip_dagster.warehouse.connect import workspace

if TYPE_CHECKING:
    from pip_dagster.declaration.deliver import DeclaredTarget
    from pip_dagster.declaration.pipeline import Pipeline

GRACE = timedelta(hours=1)
# Empty objects that name a folder that no manifest shows, or will soon: `<partition>@<folder of the change>`.
_LEFT = ".unreferenced/"
_ROWS = "rows.parquet"
_RACES = 10


def open_s3(pipeline: Pipeline, name: str, declared: DeclaredTarget) -> S3Folder:
    """The place that is declared.

    Raises:
        DeliveryError: the settings of AWS in the environment cannot be used.
    """
    assert declared.parquet
    where = f"Pipeline {pipeline.spec.name}: target {name}"
    objects = S3Objects(declared.parquet, where, declared.timeout.total_seconds())
    return S3Folder(pipeline.spec.name, name, objects)


class S3Folder:
    """Parquet objects under a place in S3."""

    kind = "parquet"
    can_read_back = True

    def __init__(self, pipeline: str, name: str, objects: S3Objects) -> None:
        self._pipeline, self._name, self._objects = pipeline, name, objects

    def deliver(self, change: DeliveryChange, rows: ChangeRows) -> Receipt:
        """Upload the rows under a name of their own, then replace the manifest; see `Target.deliver`."""
        self._objects.where = f"Pipeline {change.pipeline}, partition {change.partition_key}: target {change.target}"
        shown, etag = self._manifest(change.partition_key)
        if shown and not change.is_news(shown.shown):
            return self._receipt(shown, is_new=False)
        new = f"{change.change_id}-{secrets.token_hex(4)}"
        folder = folder_of(change.partition_key)
        self._mark(folder, new)  # before it is there: what a kill leaves is removed later
        self._objects.upload(rows.file, f"{folder}/{new}/{_ROWS}")
        with rows.file.open("rb") as opened:
            sha256 = hashlib.file_digest(opened, "sha256").hexdigest()
        manifest = DeliveryManifest.of(change, (File(f"{new}/{_ROWS}", rows.file.stat().st_size, sha256),))
        for _ in range(_RACES):
            for old in {each.path.partition("/")[0] for each in shown.files} if shown else ():
                self._mark(folder, old)
            try:
                self._objects.replace(f"{folder}/{LATEST}", manifest.text(), etag)
            except LostRaceError:
                shown, etag = self._manifest(change.partition_key)
                if shown and not change.is_news(shown.shown):
                    return self._receipt(shown, is_new=False)
                continue
            with suppress(DeliveryError):  # delivered it is, and the sweep reads the manifest before it removes
                self._objects.remove(self._marker(folder, new))
            return self._receipt(manifest)
        raise DeliveryError(f"{self._objects.where}: other processes replace its manifest all the time", again=True)

    def read_back(self, partition_key: str, columns: Mapping[str, str]) -> Receipt | None:
        """Read the objects that the manifest names; see `Target.read_back`."""
        import duckdb

        self._objects.where = f"Pipeline {self._pipeline}, partition {partition_key}: target {self._name}"
        shown, _ = self._manifest(partition_key)
        if shown is None:
            return None
        with TemporaryDirectory() as temporary, workspace(threads=1) as con:
            files = []
            for i, each in enumerate(shown.files):
                files.append(Path(temporary) / f"{i}.parquet")
                self._objects.download(f"{folder_of(partition_key)}/{each.path}", files[-1])
            listed = ", ".join(literal(str(file)) for file in files)
            try:
                count, digest = digest_of(con, f"read_parquet([{listed}], hive_partitioning = false)", columns)
            except duckdb.Error as error:
                raise DeliveryError(f"{self._objects.where} cannot be read back: {first(error)}") from error
        return Receipt(shown.shown, count, digest, self._place(partition_key))

    def close(self) -> None:
        """Remove what no manifest has shown for longer than the time of grace."""
        with suppress(DeliveryError):
            self._sweep(GRACE)

    def sweep(self) -> None:
        """Remove the objects that no manifest shows, whoever reads them; see `Sweeping`."""
        self._sweep(timedelta(0))

    def _sweep(self, grace: timedelta) -> None:
        for marker in self._objects.older(_LEFT, grace):
            folder, _, name = marker.removeprefix(_LEFT).rpartition("@")
            found = self._objects.read(f"{folder}/{LATEST}")
            shown = parsed(found[0], folder).files if found else ()
            if not any(each.path.partition("/")[0] == name for each in shown):
                self._objects.remove(*self._objects.older(f"{folder}/{name}/", timedelta(0)))
            self._objects.remove(marker)

    def _manifest(self, partition_key: str) -> tuple[DeliveryManifest | None, str | None]:
        """The manifest that is shown, and its entity tag."""
        name = f"{folder_of(partition_key)}/{LATEST}"
        found = self._objects.read(name)
        if found is None:
            return None, None
        shown = parsed(found[0], f"{self._objects.place}/{name}")
        shown.check_owner(self._pipeline, self._name, self._objects.place)
        return shown, found[1]

    def _place(self, partition_key: str) -> str:
        return f"{self._objects.place}/{folder_of(partition_key)}"

    def _receipt(self, shown: DeliveryManifest, *, is_new: bool = True) -> Receipt:
        place = self._place(shown.partition_key)
        details = {"manifest": f"{place}/{LATEST}", "files": [f"{place}/{each.path}" for each in shown.files]}
        return Receipt(shown.shown, shown.rows, shown.digest, place, details, is_new)

    def _marker(self, folder: str, name: str) -> str:
        return f"{_LEFT}{folder}@{name}"

    def _mark(self, folder: str, name: str) -> None:
        self._objects.touch(self._marker(folder, name))
