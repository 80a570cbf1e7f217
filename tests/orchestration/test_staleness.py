"""What Dagster's own hints say of the newest partition when something changes, beside what the plan says."""

import dagster as dg
import pytest
from dagster._core.definitions.data_version import CachingStaleStatusResolver
from dagster._core.loader import LoadingContextForTest

from pip_dagster.flow.plan import make_plan
from pip_dagster.orchestration.definitions import build_definitions

FIRST, LAST = "2024-03-01", "2024-03-04"
FEATURES, PREDICTIONS = dg.AssetKey(["orders", "features"]), dg.AssetKey(["orders", "predictions"])
MODEL, SOURCE = dg.AssetKey(["orders", "model"]), dg.AssetKey(["orders", "sources", "orders"])

pytestmark = pytest.mark.slow


@pytest.fixture
def instance():
    with dg.instance_for_test() as found:
        yield found


def execute(tiny, instance, *selection, **options):
    job = build_definitions(tiny.pipeline()).resolve_implicit_global_asset_job_def()
    assert job.execute_in_process(instance=instance, asset_selection=list(selection), **options).success


def observe(tiny, instance):
    """*Observe* in the UI."""
    execute(tiny, instance, SOURCE, MODEL)


def run(tiny, instance, first=FIRST):
    bounds = {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": LAST}
    execute(tiny, instance, FEATURES, PREDICTIONS, tags=bounds)


def hints(tiny, instance, partition=LAST):
    """Asset → the causes for which Dagster calls a partition of it stale; none when it is fresh."""
    graph = build_definitions(tiny.pipeline()).resolve_asset_graph()
    resolver = CachingStaleStatusResolver(instance, graph, LoadingContextForTest(instance))
    return {
        key.path[-1]: sorted(
            {(cause.asset_key.path[-1], cause.reason) for cause in resolver.get_stale_root_causes(key, partition)}
        )
        for key in (FEATURES, PREDICTIONS)
    }


def due(tiny):
    made = make_plan(tiny.pipeline(), tiny.partitions())
    return {each.partition.key: [reason.kind for reason in each.reasons] for each in made.stale}


FRESH = {"features": [], "predictions": []}


@pytest.fixture
def made(tiny, instance):
    """All days made, sources observed before: nothing is stale and nothing due, though no model was ever observed."""
    tiny.declare(reruns={"promotion": "all"})
    execute(tiny, instance, SOURCE)
    run(tiny, instance)
    assert hints(tiny, instance) == hints(tiny, instance, FIRST) == FRESH and due(tiny) == {}
    return tiny


@pytest.mark.slice
def test_they_agree_on_the_newest_partition(made, instance):
    """Of a source as soon as it is observed; of declarations at once; of the model once observed."""
    observe(made, instance)
    assert hints(made, instance) == FRESH, "observing what has not changed changes nothing"

    made.source(f"UPDATE raw.orders SET quantity = quantity + 1 WHERE day = '{LAST}'")
    assert hints(made, instance) == FRESH and due(made) == {LAST: ["source_changed"]}, "nobody has looked yet"
    observe(made, instance)
    assert hints(made, instance) == {"features": [("orders", "has a new data version")], "predictions": []}
    run(made, instance, LAST)
    assert hints(made, instance) == FRESH and due(made) == {}

    made.registry.set_alias("returns", "champion", 2, by="ada", why="better")
    execute(made, instance, MODEL)
    assert hints(made, instance)["predictions"] == [("model", "has a new data version")]
    assert set(due(made)) == {f"2024-03-0{day}" for day in (1, 2, 3, 4)}
    run(made, instance)
    assert hints(made, instance) == FRESH and due(made) == {}

    made.declare(reruns={"promotion": "all"}, decisions={"keep": "score < 0.5"})
    assert hints(made, instance) == {"features": [], "predictions": [("predictions", "has a new code version")]}
    assert due(made)[LAST] == ["declaration_changed"]
    run(made, instance)
    assert hints(made, instance) == FRESH and due(made) == {}

    sql = (made.folder / "features.sql").read_text()
    made.declare(f"{sql}-- a remark", reruns={"promotion": "all"}, decisions={"keep": "score < 0.5"})
    assert hints(made, instance)["features"] == [("features", "has a new code version")]
    assert due(made)[LAST] == ["features_changed"]


@pytest.mark.soak
def test_where_they_cannot_agree(made, instance):
    """A source is observed whole: Dagster takes every partition for stale, and the plan names the one that is."""
    made.source(f"UPDATE raw.orders SET quantity = quantity + 1 WHERE day = '{LAST}'")
    observe(made, instance)
    run(made, instance, LAST)
    assert due(made) == {}
    assert hints(made, instance, FIRST)["features"] == [("orders", "has a new data version")]


@pytest.mark.slice
def test_a_pinned_version_is_no_promotion(made, instance):
    made.registry.set_alias("returns", "champion", 2, by="ada", why="better")
    run(made, instance)
    bounds = {"dagster/asset_partition_range_start": FIRST, "dagster/asset_partition_range_end": FIRST}
    execute(made, instance, FEATURES, PREDICTIONS, tags=bounds | {"pip_dagster/model_version": "1"})
    assert hints(made, instance) == FRESH and due(made) == {}
