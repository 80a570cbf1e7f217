"""The CUDA path as far as a machine without a GPU can: real boosters on the CPU, and a device that gives up."""

import numpy as np
import pytest

from pip_dagster.flow.engine import Device
from pip_dagster.registry.engines.xgboost import gpu, predictor
from pip_dagster.registry.engines.xgboost.gpu import SMALLEST, Batches, GpuError

OUT_OF_MEMORY = "[10:00:00] /src/device_helpers.cuh: parallel_for failed: cudaErrorMemoryAllocation: out of memory"
GONE = "[10:00:00] /src/context.cc: no CUDA-capable device is detected\nStack trace:\n  libxgboost.so"


class FakeGpu:
    """Stands where the predictor hands a batch to XGBoost; holds `most` rows, fails with `error` beyond."""

    def __init__(self, monkeypatch, most, error=OUT_OF_MEMORY):
        self.batches = []
        on_cpu = predictor.BoosterPredictor._score_on_cpu

        def score(self_, X, margin):
            import xgboost

            if len(X) > most:
                raise xgboost.core.XGBoostError(error)
            self.batches.append(len(X))
            return on_cpu(self_, X, margin)

        monkeypatch.setattr(predictor.BoosterPredictor, "_score_on_gpu", score)
        monkeypatch.setattr(gpu, "SMALLEST", 8)
        monkeypatch.setattr("pip_dagster.flow.model.choose_device", lambda *_: Device("cuda", "a GPU is there"))


def devices(results):
    return {(result.scoring.device, result.scoring.device_reason) for result in results.values()}


def test_a_gpu_scores_and_is_recorded(tiny, monkeypatch):
    fake = FakeGpu(monkeypatch, most=1_000_000)
    assert devices(tiny.run()) == {("cuda", "a GPU is there")}
    assert sum(fake.batches) == 200
    assert tiny.scores() == pytest.approx(tiny.expected())


def test_where_its_memory_runs_out_batches_grow_smaller_and_scores_stay_the_same(tiny, monkeypatch):
    fake = FakeGpu(monkeypatch, most=30)
    assert devices(tiny.run()) == {("cuda", "a GPU is there")}
    assert max(fake.batches) == 25 and sum(fake.batches) == 200
    assert tiny.scores() == pytest.approx(tiny.expected())


@pytest.mark.parametrize(("error", "said"), [(OUT_OF_MEMORY, "out of memory"), (GONE, "no CUDA-capable device")])
@pytest.mark.parametrize("decisions", [{}, {"late": "score >= 0.5"}])
def test_a_gpu_that_gives_up_is_replaced_by_the_cpu_with_the_reason(tiny, monkeypatch, error, said, decisions):
    FakeGpu(monkeypatch, most=0, error=error)
    tiny.declare(scoring={"device": "auto"}, decisions=decisions)
    results = tiny.run()
    ((device, reason),) = devices(results)
    assert device == "cpu" and said in reason and "Stack trace" not in reason
    assert [result.error for result in results.values()] == [None] * 4
    assert tiny.scores() == pytest.approx(tiny.expected())
    assert tiny.warehouse("SELECT DISTINCT device FROM ledger.scorings") == [("cpu",)]


def test_a_gpu_that_gives_up_midway_leaves_no_partition_scored_on_two_devices(tiny, monkeypatch):
    fake = FakeGpu(monkeypatch, most=1_000_000)
    tiny.declare(scoring={"device": "auto", "batch_rows": 2_048})
    tiny.source(*["INSERT INTO raw.orders SELECT o.* REPLACE (order_id + 1_000_000 * i AS order_id) "
                  "FROM raw.orders o, range(1, 30) t(i)"])  # fmt: skip
    seen = predictor.BoosterPredictor._score_on_gpu

    def twice_then_gone(self, X, margin):
        if len(fake.batches) >= 2:
            raise RuntimeError(GONE)
        return seen(self, X, margin)

    monkeypatch.setattr(predictor.BoosterPredictor, "_score_on_gpu", twice_then_gone)
    assert {device for device, _ in devices(tiny.run())} == {"cpu"}
    assert len(fake.batches) == 2
    assert tiny.scores() == pytest.approx(tiny.expected())


def test_a_declared_gpu_that_gives_up_stops_the_run_and_nothing_is_stored(tiny, monkeypatch):
    FakeGpu(monkeypatch, most=0)
    tiny.declare(scoring={"device": "cuda"})
    with pytest.raises(Exception, match=r"scoring\.device is cuda, and the GPU failed on a batch.*out of memory"):
        tiny.run()
    assert tiny.warehouse("SELECT count(*) FROM ledger.scorings") == [(0,)]


def test_a_failure_that_is_not_the_devices_is_not_hidden():
    def wrong(X):
        raise ValueError("feature names mismatch")

    with pytest.raises(ValueError, match="feature names"):
        Batches().score(wrong, np.zeros((SMALLEST, 1), dtype=np.float32))


def test_the_smallest_batch_is_the_last_one_tried():
    tried = []

    def full(X):
        tried.append(len(X))
        raise MemoryError("std::bad_alloc: cudaErrorMemoryAllocation")

    with pytest.raises(GpuError, match=f"a batch of {SMALLEST} rows"):
        Batches().score(full, np.zeros((SMALLEST * 4, 1), dtype=np.float32))
    assert tried == [SMALLEST * 4, SMALLEST * 2, SMALLEST]
