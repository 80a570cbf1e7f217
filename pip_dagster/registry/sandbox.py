"""Run the probe: the first load of a foreign model file, in a separate process.

A damaged model file can crash XGBoost (a flipped bit does in one of six tries), hang it, or exhaust the memory. None of
that may happen to the process that registers.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from pydantic import ValidationError

from pip_dagster.registry import errors
from pip_dagster.registry.booster_signature import Record
from pip_dagster.registry.calibration import Calibration
from pip_dagster.registry.composite import Composite
from pip_dagster.registry.engines.protocol import SignatureClaims
from pip_dagster.registry.held_out import HeldOut
from pip_dagster.registry.manifest import Histogram, Signature, TrainingCheck

MEMORY_BYTES = 16 * 2**30


class TrainingSource(Record):
    """Where training's scores are: columns of the sample, or of a Parquet file, whose columns are all taken."""

    columns: tuple[str, ...] = ()
    file: Path | None = None


class ProbeRequest(Record):
    """The probe's task: load `model` with `engine`, derive its signature, score `sample`, write golden rows.

    A model in another format than the stored one is written to `convert_to`. With `composite`, `model` is the folder of
    its members' files, and no `engine` is named. `outcome` is the column of outcomes, of the
    rows in `held_out` or, without, of the sample. `nonce`: whether the file of golden rows gets one.
    """

    name: str
    model: Path
    convert_to: Path | None = None
    sample: Path
    golden: Path
    engine: str = ""
    claims: SignatureClaims = SignatureClaims()
    calibration: Calibration | None = None
    training: TrainingSource | None = None
    composite: Composite | None = None
    outcome: str | None = None
    held_out: Path | None = None
    nonce: bool = False
    cpu_seconds: int
    memory_bytes: int = MEMORY_BYTES


class ProbeReport(Record):
    """The probe's answer: the distribution of the sample's features and scores, and the sha256 of the stored file."""

    signature: Signature
    feature_reference: dict[str, Histogram]
    score_reference: dict[str, Histogram]
    model_sha256: str
    training_check: TrainingCheck | None = None
    held_out: HeldOut | None = None


def run(request: ProbeRequest, folder: Path, seconds: float) -> ProbeReport:
    """Run the probe in `folder`.

    Raises:
        InvalidModel: the probe crashed, hung or gave no usable answer.
        RegistryError: the probe's own.
    """
    path = folder / "request.json"
    path.write_text(request.model_dump_json())
    # The probe must import the same modules as this process, so it gets the same path, as in multiprocessing's spawn.
    # No GPU is needed, and its driver would reserve address space beyond the limit.
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry),
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "pip_dagster.registry.probe", str(path)]
    try:
        done = subprocess.run(command, capture_output=True, cwd=folder, env=environment, timeout=seconds, text=True)
    except subprocess.TimeoutExpired:
        raise errors.InvalidModel(
            f"{request.name}: loading and scoring the model took more than {seconds:g} s and was stopped; if the file "
            "is sound, give a smaller sample or a longer time limit (--time-limit)"
        ) from None
    if done.returncode != 0:
        raise errors.InvalidModel(
            f"{request.name}: loading or scoring the model {_death(done.returncode)}. "
            f"{_last_lines(done.stderr)}".rstrip()
        )
    return _parse(done.stdout, request.name)


def _parse(output: str, name: str) -> ProbeReport:
    try:
        answer = json.loads(output)
        if "error" not in answer:
            return ProbeReport.model_validate(answer)
        kind = getattr(errors, answer["error"], errors.InvalidModel)
        message = str(answer["message"])
    except (ValueError, TypeError, KeyError, ValidationError) as error:
        raise errors.InvalidModel(
            f"{name}: the model's probe gave no usable answer ({error}); save the model again"
        ) from error
    raise kind(f"{name}: {message}")


def _death(code: int) -> str:
    if code >= 0:
        return f"failed (exit status {code}); what it printed says why"
    if -code in (signal.SIGKILL, signal.SIGTERM):
        return f"was stopped from outside ({signal.Signals(-code).name}), perhaps for lack of memory; try again"
    if -code == signal.SIGXCPU:
        return "took too long (SIGXCPU); give a smaller sample or a longer time limit (--time-limit)"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"crashed the process ({name}); the file is damaged, or not a model: save it again from training"


def _last_lines(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return f"It printed: {' | '.join(lines[-2:])[-400:]}" if lines else ""
