"""The probe of a model's registration, run once for each model, sample and claims in a run of the tests.

It takes a second of CPU, and the tests register the same few models hundreds of times. An answer is a function of the
request's contents, so that of an equal request is kept, with the files that the probe wrote; all workers share them. A
refusal is not kept.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from pip_dagster.registry.sandbox import ProbeReport, ProbeRequest

Probe = Callable[[ProbeRequest, Path, float], ProbeReport]
_WRITTEN = ("golden", "convert_to")


def remembering(probe: Probe, kept: Path) -> Probe:
    """The same probe, with its answers in the folder `kept`."""

    def run(request: ProbeRequest, folder: Path, seconds: float) -> ProbeReport:
        place = kept / _digest(request, seconds)
        if not place.is_dir():
            report = probe(request, folder, seconds)
            new = Path(tempfile.mkdtemp(dir=kept))
            (new / "report.json").write_text(report.model_dump_json())
            for name, path in _outputs(request):
                shutil.copyfile(path, new / name)
            try:
                new.rename(place)
            except OSError:  # another worker was faster
                shutil.rmtree(new)
            return report
        for name, path in _outputs(request):
            shutil.copyfile(place / name, path)
        return ProbeReport.model_validate_json((place / "report.json").read_bytes())

    return run


def _outputs(request: ProbeRequest) -> list[tuple[str, Path]]:
    return [(name, path) for name in _WRITTEN if (path := getattr(request, name)) is not None]


def _digest(request: ProbeRequest, seconds: float) -> str:
    paths = ("model", "sample", "held_out", *_WRITTEN)
    left_out = {"name": True, "training": {"file": True}} | dict.fromkeys(paths, True)  # a name is in refusals only
    found = hashlib.sha256(request.model_dump_json(exclude=left_out).encode())
    found.update(repr((seconds, request.convert_to is None)).encode())
    inputs = [request.model, request.sample, request.held_out, request.training.file if request.training else None]
    for path in filter(None, inputs):
        for file in [path] if path.is_file() else sorted(each for each in path.rglob("*") if each.is_file()):
            found.update(os.fsencode(file.relative_to(path)))
            found.update(file.read_bytes())
    return found.hexdigest()
