"""examples/dbt: dbt's model feeds the pipeline, and a late run of dbt makes exactly the right partitions stale."""

from __future__ import annotations

import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest
from click.testing import CliRunner

from pip_dagster.cli.main import cli
from pip_dagster.declaration.project import Project
from pip_dagster.warehouse.connect import open_warehouse, workspace

pytest.importorskip(
    "dagster_dbt", reason="needs the extra `dbt`, which `make dbt` installs in an environment of its own"
)
pytestmark = pytest.mark.slice

EXAMPLE = Path(__file__).parents[2] / "examples" / "dbt"
FIRST, SECOND, THIRD, FOURTH = DAYS = ("2024-03-01", "2024-03-02", "2024-03-03", "2024-03-04")


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """The example in a folder of its own, after the first commands of docs/dbt-and-dlt.md."""
    root = tmp_path_factory.mktemp("dbt") / "shop"
    ignored = shutil.ignore_patterns("data", "target", "logs", "__pycache__")
    shutil.copytree(EXAMPLE, root, ignore=ignored)
    beside = Path(sys.executable).parent
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(beside), prepend=os.pathsep)
        patch.setenv("DO_NOT_TRACK", "1")  # dbt would send its usage
        patch.setenv("PIP_DAGSTER_PROJECT", str(root))
        patch.syspath_prepend(str(root))
        runpy.run_path(str(root / "make_data.py"), run_name="__main__")
        subprocess.run([beside / "dbt", "build", "--quiet"], cwd=root / "transform", check=True, timeout=120)
        runpy.run_path(str(root / "train.py"), run_name="__main__")
        files = ("--model", str(root / "data" / "model.ubj"), "--sample", str(root / "data" / "sample.parquet"))
        words = ["--project", str(root), "models", "register", "returns", *files, "--alias", "champion"]
        result = CliRunner().invoke(cli, words)
        assert result.exit_code == 0, result.output
        yield root


def late(root, name, first, day, *, cancelled):
    """A file of three orders that a loader leaves among the raw ones."""
    with duckdb.connect() as con:
        con.execute(f"""
            COPY (SELECT {first} + range AS order_id, TIMESTAMP '{day} 23:00:00' AS ordered_at, 20.0 AS amount,
                         2 AS items, 'GIFT' AS coupon, {cancelled} AS cancelled
                  FROM range(3)) TO '{root / "data" / "raw" / name}' (FORMAT parquet)
        """)


def scorings(root):
    """Partition → how often it was scored."""
    with workspace(threads=1) as con, open_warehouse(con, Project.at(root).warehouse, purpose="test", read_only=True):
        return dict(con.execute("SELECT partition_key, count(*) FROM ledger.scorings GROUP BY ALL").fetchall())


def test_a_late_run_of_dbt_reruns_exactly_the_partitions_whose_rows_it_changed(shop):
    import dagster as dg
    from shop.definitions import defs

    repository = defs().get_repository_def()
    graph = repository.asset_graph
    orders, features = dg.AssetKey("orders"), dg.AssetKey(["returns", "features"])
    assert graph.get(features).parent_keys == {orders}  # the edge from dbt's model, which is no source of ours
    assert {key.name for key in graph.asset_check_keys} >= {"unique_orders_order_id", "not_null_orders_order_id"}
    assets = [asset for asset in defs().assets if orders in getattr(asset, "keys", ())]

    with dg.instance_for_test() as instance:

        def tick():
            sensor = repository.get_sensor_def("returns_source_changes")
            return sensor.evaluate_tick(dg.build_sensor_context(instance=instance, repository_def=repository))

        def score(**options):
            assert repository.get_job("returns_job").execute_in_process(instance=instance, **options).success

        for day in DAYS:
            score(partition_key=day)
        assert tick().skip_message.startswith("Nothing is stale")

        # Raw rows of the second day arrive late. Those of the fourth are cancelled: the model leaves them out.
        late(shop, "second.parquet", 9000, SECOND, cancelled=False)
        late(shop, "fourth.parquet", 9100, FOURTH, cancelled=True)
        assert tick().skip_message.startswith("Nothing is stale")  # dbt has not run yet
        assert dg.materialize(assets, resources=dict(defs().resources), instance=instance).success
        [request] = tick().run_requests  # although dbt wrote the rows of all days again
        assert request.partition_key == SECOND
        assert request.tags["pip_dagster/reason"] == f"source changed: orders {SECOND} (+3 rows)"
        score(partition_key=request.partition_key, tags=request.tags)
        assert tick().skip_message.startswith("Nothing is stale")
    assert scorings(shop) == {FIRST: 1, SECOND: 2, THIRD: 1, FOURTH: 1}
