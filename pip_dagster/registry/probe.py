"""`python -m pip_dagster.registry.probe REQUEST.json`: load and score a foreign model, print its description as JSON.

Runs in a process of its own (see `sandbox`) with limits on time and memory.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from pathlib import Path

from pip_dagster.errors import RegistryError
from pip_dagster.registry.describe import describe
from pip_dagster.registry.engines import engine_named
from pip_dagster.registry.files import sha256
from pip_dagster.registry.sandbox import ProbeReport, ProbeRequest


def examine(request: ProbeRequest) -> ProbeReport:
    """Load the model, derive its signature, score and describe the sample."""
    from pip_dagster.registry import sample as samples

    if request.composite is not None:
        from pip_dagster.registry.probe_composite import examine_composite

        return examine_composite(request, request.composite)
    engine, table = engine_named(request.engine), samples.read(request.sample)
    data, signature = engine.examine(request.model.read_bytes(), table, request.claims)
    if request.convert_to is not None:
        request.convert_to.write_bytes(data)
    predictor = engine.load(data, signature, subject="the model", nthread=1)
    held_out = samples.read_held_out(request.held_out, signature)
    report = describe(request, table, signature, predictor, model_sha256=sha256(data), held_out=held_out)
    if request.training is None:
        return report
    from pip_dagster.registry import training_scores
    from pip_dagster.registry.encoding import encode
    from pip_dagster.registry.training_causes import Causes

    X = encode(table, signature)
    causes = Causes(engine, data, signature, table, X, request.calibration)
    check = training_scores.compare(request.training, table, signature, predictor.predict(X), causes)
    return report.model_copy(update={"training_check": check})


class _Without:
    """Hides pandas and scikit-learn, which XGBoost and Arrow import if installed: a second, and unused here."""

    def find_spec(self, name: str, _path: object = None, _target: object = None) -> None:
        """Report that there are no such modules, and leave every other one to the other finders."""
        if name in ("pandas", "sklearn"):
            raise ModuleNotFoundError(f"the probe works without {name}", name=name)


def main() -> None:
    """Answer on standard output: a ProbeReport, or {"error": class name, "message": text}."""
    # Libraries may print; the answer must stand alone.
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    sys.meta_path.insert(0, _Without())
    request = ProbeRequest.model_validate_json(Path(sys.argv[1]).read_bytes())
    _limit(request)
    try:
        text = examine(request).model_dump_json()
    except RegistryError as error:
        text = json.dumps({"error": type(error).__name__, "message": str(error)})
    except Exception as error:
        text = json.dumps({"error": "InvalidModel", "message": _unexpected(error, request)})
    answer.write(text)
    answer.flush()
    # Not a normal exit: a library damaged by a bad model may crash while it is torn down, after a good answer.
    os._exit(0)


def _unexpected(error: Exception, request: ProbeRequest) -> str:
    if isinstance(error, MemoryError) or "bad_alloc" in str(error):
        return (
            f"loading and scoring the model takes more than {request.memory_bytes / 2**30:g} GiB of memory; give a "
            "smaller sample"
        )
    what = " ".join(str(error).split("Stack trace:")[0].split())[:1000]
    return (
        f"loading or scoring the model failed with an unexpected {type(error).__name__}: {what}. If the file loads and "
        "scores where it was trained, please report this message; otherwise save the model again from training"
    )


def _limit(request: ProbeRequest) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for limit, value in ((resource.RLIMIT_CPU, request.cpu_seconds), (resource.RLIMIT_AS, request.memory_bytes)):
        _, hard = resource.getrlimit(limit)
        resource.setrlimit(limit, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))


if __name__ == "__main__":
    main()
