"""How many rows a second the candidate scores, as a share of what the champion does with the same rows."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from pip_dagster.flow.guard_composite import encode_model
from pip_dagster.flow.model import ScoringModel
from pip_dagster.flow.stage import Stage
from pip_dagster.statistics.gate_result import GateResult

if TYPE_CHECKING:
    import numpy as np

# Enough that a call's fixed cost does not count.
_ROWS = 20_000
# A small model takes milliseconds, and what else the machine does only ever adds: so many turns, or a second of them.
_ROUNDS, _FEWEST, _SECONDS = 25, 3, 1.0


def throughput_gate(stage: Stage, candidate: ScoringModel, champion: ScoringModel, least: float) -> GateResult:
    """Time both on the staged rows, as many as there are, repeated to 20,000: in turns, the best of 3 to 25.

    Each gets the features it takes, as a matrix; making that is DuckDB's work and is not timed.
    """
    matrices = [(model, _matrix(stage, model)) for model in (champion, candidate)]
    seconds: list[list[float]] = [[], []]
    until = time.perf_counter() + _SECONDS
    for turn in range(_ROUNDS):
        if turn >= _FEWEST and time.perf_counter() > until:
            break
        for (model, X), taken in zip(matrices, seconds, strict=True):
            began = time.perf_counter()
            model.predictor.predict(X)
            taken.append(time.perf_counter() - began)
    old, new = (_ROWS / min(taken) for taken in seconds)
    share = new / old
    text = f"{new:,.0f} rows/s, champion {old:,.0f}: {share:.2f} of its throughput, at least {least:g} is expected"
    return GateResult("throughput", share >= least, share, least, text, {"candidate": new, "champion": old})


def _matrix(stage: Stage, model: ScoringModel) -> np.ndarray:
    import numpy as np

    encoded = encode_model(model.version.manifest, stage.columns, where=str(model.version))
    values = ", ".join(f"{feature.value} AS f{i}" for i, feature in enumerate(encoded))
    found = stage.con.execute(f"SELECT {values} FROM (FROM {stage.features} LIMIT {_ROWS})").fetchnumpy()
    X = np.column_stack([np.asarray(found[f"f{i}"], dtype=np.float32) for i in range(len(encoded))])
    return np.ascontiguousarray(np.resize(X, (_ROWS, X.shape[1])))
