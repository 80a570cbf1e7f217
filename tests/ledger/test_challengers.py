"""Challengers compared with the live scores: the figures are those of plain pandas."""

import dagster as dg
import numpy as np
import pytest
from click.testing import CliRunner

from pip_dagster.ledger.challengers import compare
from pip_dagster.warehouse.connect import open_warehouse, workspace

pytestmark = pytest.mark.lake


@pytest.fixture
def challenged(tiny):
    tiny.registry.set_alias("returns", "challenger", 2, by="ada", why="to compare")
    return tiny.declare(scoring={"challengers": ["challenger"]}, decisions={"back": "score >= 0.5"})


def compared(tiny, *keys):
    with workspace(threads=1) as con, open_warehouse(con, tiny.project.warehouse, purpose="test", read_only=True):
        return compare(con, tiny.pipeline().spec, "score", keys or None)


def test_the_figures_are_those_of_plain_numpy(challenged):
    challenged.run()
    for each in compared(challenged):
        where = f"day = '{each.partition_key}'"
        a, b = (np.array(list(challenged.expected(where, version=v).values())) for v in (1, 2))
        assert (each.champion_version, each.challenger_version, each.rows) == (1, 2, 50)
        assert each.mean_absolute_difference == pytest.approx(abs(b - a).mean())
        assert each.largest_difference == pytest.approx(abs(b - a).max())
        assert each.correlation == pytest.approx(np.corrcoef(a, b)[0, 1])
        assert each.flips == {"back": pytest.approx(((a >= 0.5) != (b >= 0.5)).mean())}


def test_only_the_partitions_asked_for_and_none_without_a_challenger(challenged):
    challenged.run()
    assert [each.partition_key for each in compared(challenged, "2024-03-02")] == ["2024-03-02"]


def test_the_command_shows_them_or_says_how_to_get_them(challenged):
    from pip_dagster.cli.main import cli

    def invoke():
        return CliRunner().invoke(cli, ["--project", str(challenged.root), "models", "compare", "orders"])

    declared = challenged.pipeline().spec.scoring.challengers
    challenged.declare().run()
    refused = invoke()
    assert refused.exit_code == 1 and "VERSION --alias challenger" in str(refused.exception)
    challenged.declare(scoring={"challengers": list(declared)}).run()
    shown = invoke().output
    assert "2024-03-02" in shown and "v2" in shown


@pytest.mark.slow
def test_a_dagster_run_materializes_the_comparison(challenged):
    from pip_dagster.orchestration.definitions import build_definitions

    definitions = build_definitions(challenged.pipeline())
    tags = {"dagster/asset_partition_range_start": "2024-03-01", "dagster/asset_partition_range_end": "2024-03-02"}
    job = definitions.resolve_job_def("orders_job")
    result = job.execute_in_process(instance=dg.DagsterInstance.ephemeral(), tags=tags)
    made = {
        m.partition: m.metadata
        for m in result.asset_materializations_for_node("orders")
        if m.asset_key.path[-1] == "challengers"
    }
    assert set(made) == {"2024-03-01", "2024-03-02"}
    assert made["2024-03-01"]["v2 mean absolute difference"].value > 0
