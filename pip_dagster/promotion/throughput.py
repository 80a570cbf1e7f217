"""How many rows the candidate scores per second of CPU time, as a share of what the champion does."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

from pip_dagster.flow.guard_composite import encode_model
from pip_dagster.flow.model import ScoringModel
from pip_dagster.flow.stage import Stage
from pip_dagster.registry.load import load_predictor
from pip_dagster.statistics.gate_result import GateResult
from pip_dagster.statistics.interval import t_quantile

if TYPE_CHECKING:
    import numpy as np

    from pip_dagster.registry.engines.protocol import Predictor

# Enough that a call's fixed cost does not count.
_ROWS = 20_000
# To refuse by, and only to report.
_TURNS, _TURNS_REPORTED = 10, 4
# Calls after which a predictor has the fastest form of its model.
_WARM = 8
# Of a turn: the clock of CPU time can have steps of 10 ms.
_SECONDS = 0.06


def throughput_gate(stage: Stage, candidate: ScoringModel, champion: ScoringModel, least: float | None) -> GateResult:
    """Time both on the staged rows, as many as there are, repeated to 20,000: in ten turns, four only to report.

    The time is that of the CPU, in one thread at a time, which other processes do not change much. Each turn gives the
    quotient of the two; the figure is their geometric mean with its 95% interval. Only where `least` is declared and
    the whole interval is below it is the candidate refused. Each gets the features it takes, as a matrix; creating that
    is DuckDB's work and is not timed.
    """
    old, new = ((load_predictor(each.version, nthread=1), _matrix(stage, each)) for each in (champion, candidate))
    calls = [_calls(*each) for each in (old, new)]
    turns = _TURNS_REPORTED if least is None else _TURNS
    seconds = [[_cpu(*each, of) / of for each, of in zip((old, new), calls, strict=True)] for _ in range(turns)]
    logs = [math.log(before / after) for before, after in seconds]
    mean = math.fsum(logs) / len(logs)
    variance = math.fsum((each - mean) ** 2 for each in logs) / (len(logs) - 1)
    half = t_quantile(0.975, len(logs) - 1) * (variance / len(logs)) ** 0.5
    share, low, high = (math.exp(each) for each in (mean, mean - half, mean + half))
    rates = [_ROWS * turns / math.fsum(of) for of in zip(*seconds, strict=True)]
    text = (
        f"{rates[1]:,.0f} rows per second of CPU time, champion {rates[0]:,.0f}: {share:.2f} of its throughput, 95% "
        f"interval {low:.2f} to {high:.2f}; "
    )
    text += "reported only, because gates.min_throughput is not declared" if least is None else f"at least {least:g}"
    details = {"candidate": rates[1], "champion": rates[0], "low": low, "high": high}
    return GateResult("throughput", least is None or high >= least, share, least, text, details)


def _calls(predictor: Predictor, X: np.ndarray) -> int:
    """How many calls take as long as a turn, by the clock, once the predictor is warm."""
    for _ in range(_WARM):
        predictor.predict(X)
    began = time.perf_counter()
    predictor.predict(X)
    return max(1, round(_SECONDS / max(time.perf_counter() - began, 1e-6)))


def _cpu(predictor: Predictor, X: np.ndarray, calls: int) -> float:
    """The CPU time of these calls, in seconds: of the process, because a predictor may have threads of its own."""
    began = time.process_time()
    for _ in range(calls):
        predictor.predict(X)
    return max(time.process_time() - began, 1e-6)


def _matrix(stage: Stage, model: ScoringModel) -> np.ndarray:
    import numpy as np

    encoded = encode_model(model.version.manifest, stage.columns, where=str(model.version))
    values = ", ".join(f"{feature.value} AS f{i}" for i, feature in enumerate(encoded))
    found = stage.con.execute(f"SELECT {values} FROM (FROM {stage.features} LIMIT {_ROWS})").fetchnumpy()
    X = np.column_stack([np.asarray(found[f"f{i}"], dtype=np.float32) for i in range(len(encoded))])
    return np.ascontiguousarray(np.resize(X, (_ROWS, X.shape[1])))
