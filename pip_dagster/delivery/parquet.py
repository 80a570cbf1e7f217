"""Delivery as Parquet files on a disk: a folder for each partition, and in it one for each delivered change.

    flights/2013-08-01/latest.json                                   what is shown, replaced last
    flights/2013-08-01/20130802T060000…-1a2b3c4d/rows.parquet        its rows, never changed

A reader that has read a manifest may still open its files for an hour after it was replaced.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from pip_dagster.delivery.digest import digest_of
from pip_dagster.delivery.manifest import LATEST, DeliveryManifest, File, folder_of, parsed
from pip_dagster.delivery.target import ChangeRows, DeliveryChange, DeliveryError, Receipt, Target, local_folder
from pip_dagster.quoted import first
from pip_dagster.sql.names import literal
from pip_dagster.warehouse.connect import workspace
from pip_dagster.warehouse.faults import remedy
from pip_dagster.warehouse.published_rows import sync
from pip_dagster.whole_file import replacing

if TYPE_CHECKING:
    from pip_dagster.declaration.deliver import DeclaredTarget
    from pip_dagster.declaration.pipeline import Pipeline

GRACE_SECONDS = 3600.0
# Names of folders that no manifest shows, or will soon: `<folder of the partition>@<folder of the change>`.
_LEFT = ".unreferenced"
_ROWS = "rows.parquet"


def open_parquet(pipeline: Pipeline, name: str, declared: DeclaredTarget) -> Target:
    """The target of this declaration: a folder, or a place in S3."""
    assert declared.parquet
    if declared.parquet.startswith("s3://"):
        from importlib import import_module

        found: Target = import_module("pip_dagster.delivery.s3").open_s3(pipeline, name, declared)
        return found
    return ParquetFolder(pipeline.spec.name, name, local_folder(pipeline, name, declared.parquet))


class ParquetFolder:
    """A folder of Parquet files."""

    kind = "parquet"
    can_read_back = True

    def __init__(self, pipeline: str, name: str, root: Path) -> None:
        self._pipeline, self._name, self._root = pipeline, name, root

    def deliver(self, change: DeliveryChange, rows: ChangeRows) -> Receipt:
        """Write the file to a folder of its own, then replace the manifest."""
        folder = self._root / folder_of(change.partition_key)
        with _of_disk(change, folder):
            shown = self._manifest(change.partition_key)
            if shown and not change.is_news(shown.shown):
                return self._receipt(shown, is_new=False)
            new = f"{change.change_id}-{secrets.token_hex(4)}"
            self._mark(folder, new)  # before it is there: what a kill leaves is removed later
            file = self._write(folder / new, rows)
            with self._alone():
                shown = self._manifest(change.partition_key)  # another process may have delivered meanwhile
                if shown and not change.is_news(shown.shown):
                    return self._receipt(shown, is_new=False)
                for old in {Path(each.path).parts[0] for each in shown.files} if shown else ():
                    self._mark(folder, old)
                manifest = DeliveryManifest.of(change, (File(f"{new}/{_ROWS}", *file),))
                _replace(folder / LATEST, manifest.text())
                self._marker(folder, new).unlink(missing_ok=True)
        return self._receipt(manifest)

    def read_back(self, partition_key: str, columns: Mapping[str, str]) -> Receipt | None:
        """Read the files that the manifest names."""
        import duckdb

        folder = self._root / folder_of(partition_key)
        try:
            shown = self._manifest(partition_key)
            if shown is None:
                return None
            files = ", ".join(literal(str(folder / each.path)) for each in shown.files)
            with workspace(threads=1) as con:
                rows = f"read_parquet([{files}], hive_partitioning = false)"
                count, digest = digest_of(con, rows, columns)
        except (duckdb.Error, OSError) as error:
            raise DeliveryError(f"{folder} cannot be read back: {first(error)}") from error
        return Receipt(shown.shown, count, digest, str(folder))

    def close(self) -> None:
        """Remove folders that no manifest has shown for longer than the time of grace."""
        with suppress(OSError):
            if any((self._root / _LEFT).iterdir()):
                with self._alone():
                    self._sweep(GRACE_SECONDS)

    def sweep(self) -> None:
        """Remove the folders that no manifest shows, whoever reads them; see `Sweeping`."""
        if (self._root / _LEFT).is_dir():
            try:
                with self._alone():
                    self._sweep(0)
            except OSError as error:
                raise DeliveryError(
                    f"Pipeline {self._pipeline}: former files of target {self._name} cannot be removed from "
                    f"{self._root}: {error.strerror or error}. {remedy(str(error))}"
                ) from error

    def _manifest(self, partition_key: str) -> DeliveryManifest | None:
        path = self._root / folder_of(partition_key) / LATEST
        try:
            found = parsed(path.read_bytes(), str(path))
        except FileNotFoundError:
            return None
        found.check_owner(self._pipeline, self._name, str(self._root))
        return found

    def _receipt(self, shown: DeliveryManifest, *, is_new: bool = True) -> Receipt:
        folder = self._root / folder_of(shown.partition_key)
        details = {"manifest": str(folder / LATEST), "files": [str(folder / each.path) for each in shown.files]}
        return Receipt(shown.shown, shown.rows, shown.digest, str(folder), details, is_new)

    def _write(self, folder: Path, rows: ChangeRows) -> tuple[int, str]:
        """Copy the file of rows to a new folder; its bytes and their SHA-256. A loss of power leaves it whole."""
        folder.mkdir(parents=True)
        digest, size = hashlib.sha256(), 0
        with rows.file.open("rb") as read, (folder / _ROWS).open("wb") as written:
            while block := read.read(2**20):
                digest.update(block)
                size += written.write(block)
            written.flush()
            os.fsync(written.fileno())
        sync(folder)
        sync(folder.parent)
        return size, digest.hexdigest()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Be the only process that replaces manifests here; the kernel releases the lock of one that dies."""
        self._root.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._root / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _marker(self, folder: Path, name: str) -> Path:
        return self._root / _LEFT / f"{folder.name}@{name}"

    def _mark(self, folder: Path, name: str) -> None:
        marker = self._marker(folder, name)
        marker.parent.mkdir(parents=True, exist_ok=True)
        marker.touch()

    def _sweep(self, grace: float) -> None:
        for marker in sorted((self._root / _LEFT).iterdir()):
            if time.time() - marker.stat().st_mtime < grace:
                continue
            partition, _, name = marker.name.rpartition("@")
            folder, latest = self._root / partition, self._root / partition / LATEST
            shown = parsed(latest.read_bytes(), str(latest)).files if latest.exists() else ()
            if not any(Path(each.path).parts[0] == name for each in shown):
                with suppress(FileNotFoundError):
                    shutil.rmtree(folder / name)
            marker.unlink(missing_ok=True)


def _replace(path: Path, text: str) -> None:
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    sync(path.parent)


@contextmanager
def _of_disk(change: DeliveryChange, folder: Path) -> Iterator[None]:
    """Report an error of the disk.

    Raises:
        DeliveryError: names the folder and what to do.
    """
    try:
        yield
    except OSError as error:
        raise DeliveryError(
            f"Pipeline {change.pipeline}, partition {change.partition_key}: target {change.target} cannot be written "
            f"in {folder}: {error.strerror or error}. {remedy(str(error))}",
            again=False,
        ) from error
