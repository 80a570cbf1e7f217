"""Gate reports on disk, beside the versions they speak of: `<model>/reports/<time>-v<version>.json`."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from pip_dagster import clock
from pip_dagster.registry.errors import CorruptRegistry
from pip_dagster.registry.files import of_registry, replace_atomically
from pip_dagster.statistics.gate_result import GateReport

_INSTANT = "%Y%m%dT%H%M%S%fZ"


@lru_cache(maxsize=1)
def _adapter() -> TypeAdapter[GateReport]:
    return TypeAdapter(GateReport)


def store_report(root: Path, report: GateReport) -> Path:
    """Keep a report in the registry `root`; the file. Its name sorts behind those of all earlier reports.

    Raises:
        RegistryUnwritable: the disk is full, or this user may not write there.
    """
    folder, at = root / report.model_name / "reports", report.made_at
    if names := sorted(path.name for path in folder.glob("[0-9]*-v*.json")):
        newest = datetime.strptime(names[-1].partition("-")[0], _INSTANT).replace(tzinfo=UTC)
        clock.seen(newest)
        at = at if at > newest else clock.now()
    path = folder / f"{at:{_INSTANT}}-v{report.candidate}.json"
    rewrite_report(path, report)
    return path


def reports_on(root: Path, model_name: str, version: int) -> Iterator[GateReport]:
    """Every report on a version, the newest first. Raises CorruptRegistry."""
    for path in sorted((root / model_name / "reports").glob(f"[0-9]*-v{version}.json"), reverse=True):
        yield _read(path)


def stored_reports(root: Path) -> Iterator[tuple[Path, GateReport]]:
    """Every report on any model, with its file. Raises CorruptRegistry."""
    for path in sorted(root.glob("*/reports/[0-9]*-v*.json")):
        yield path, _read(path)


def rewrite_report(path: Path, report: GateReport) -> None:
    """Replace a stored report, of which an erasure has removed rows.

    Raises:
        RegistryUnwritable: the disk is full, or this user may not write there.
    """
    with of_registry(path.parent):
        replace_atomically(path, _adapter().dump_json(report, indent=2))


def _read(path: Path) -> GateReport:
    try:
        return _adapter().validate_json(path.read_bytes())
    except (ValidationError, OSError) as error:
        why = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error.strerror
        raise CorruptRegistry(
            f"{path} is no gate report ({why}); move it away and run `pip-dagster models gate` again"
        ) from error


def newest_report(root: Path, model_name: str, version: int) -> GateReport | None:
    """The last report on a version. Raises CorruptRegistry."""
    return next(reports_on(root, model_name, version), None)


def to_json(report: GateReport) -> object:
    """For machines."""
    return _adapter().dump_python(report, mode="json") | {"passed": report.passed}
