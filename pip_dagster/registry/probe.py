"""``python -m pip_dagster.registry.probe REQUEST.json``: load and score a foreign model, print what it is as JSON.

Runs in a process of its own (see ``sandbox``) with limits on time and memory.
"""

import json
import os
import resource
import sys
from pathlib import Path

from pip_dagster.errors import RegistryError
from pip_dagster.registry.errors import InvalidModel
from pip_dagster.registry.files import sha256
from pip_dagster.registry.sandbox import ProbeReport, ProbeRequest


def examine(request: ProbeRequest) -> ProbeReport:
    """Load the model, derive its signature, score and describe the sample. Raises RegistryError."""
    import numpy as np

    from pip_dagster.registry import golden, reference
    from pip_dagster.registry import sample as samples
    from pip_dagster.registry.booster_facts import inspect
    from pip_dagster.registry.encoding import encode
    from pip_dagster.registry.model_file import written_by
    from pip_dagster.registry.predictor import Predictor, load_booster
    from pip_dagster.registry.signature import derive
    from pip_dagster.registry.trees import check_trees

    if request.composite is not None:
        from pip_dagster.registry.probe_composite import examine_composite

        return examine_composite(request, request.composite)
    data = request.model.read_bytes()
    writer = written_by(data)
    booster = load_booster(data, "the model")
    if request.convert_to is not None:
        data = bytes(booster.save_raw("ubj"))
        request.convert_to.write_bytes(data)
        booster = load_booster(data, "the converted model")
    check_trees(booster)
    table = samples.read(request.sample)
    signature = derive(
        inspect(booster, writer),
        table,
        feature_names=request.feature_names,
        category_lists=request.categories,
        classes=request.classes,
    )
    X = encode(table, signature)
    scores = Predictor(booster, signature, nthread=1, device="cpu", subject="the model").predict(X)
    if not np.isfinite(scores).all():
        raise InvalidModel(
            f"{int((~np.isfinite(scores)).sum())} scores on the sample are NaN or infinite; the file is damaged, or "
            "training diverged"
        )
    golden.write(request.golden, table, scores, signature)
    return ProbeReport(
        signature=signature,
        feature_reference=reference.feature_reference(X, signature),
        score_reference=reference.score_reference(scores, signature),
        model_sha256=sha256(data),
    )


class _Without:
    """XGBoost and Arrow import pandas and scikit-learn wherever they are installed: a second, for nothing used here."""

    def find_spec(self, name: str, _path: object = None, _target: object = None) -> None:
        """Say that there are no such modules, and leave every other one to the other finders."""
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
    answer.write(text)
    answer.flush()
    # Not a normal exit: a library damaged by a bad model may crash while it is torn down, after a good answer.
    os._exit(0)


def _limit(request: ProbeRequest) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for limit, value in ((resource.RLIMIT_CPU, request.cpu_seconds), (resource.RLIMIT_AS, request.memory_bytes)):
        _, hard = resource.getrlimit(limit)
        resource.setrlimit(limit, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))


if __name__ == "__main__":
    main()
