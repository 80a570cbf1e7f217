"""What a run shows in the UI of its sources and of partitions that were not built, and the links of assets."""

import dagster as dg
import pytest
import yaml

from pip_dagster.orchestration.definitions import build_definitions
from pip_dagster.orchestration.picture import drawn

FIRST, SECOND, THIRD = "2024-03-01", "2024-03-02", "2024-03-03"
PREDICTIONS, SOURCE = dg.AssetKey(["orders", "predictions"]), dg.AssetKey(["orders", "sources", "orders"])


def run(tiny, instance):
    tags = {"dagster/asset_partition_range_start": FIRST, "dagster/asset_partition_range_end": THIRD}
    job = build_definitions(tiny.pipeline()).resolve_job_def("orders_job")
    return job.execute_in_process(instance=instance, tags=tags, raise_on_error=False)


@pytest.mark.slow
def test_a_blocked_partition_says_why_and_what_next(tiny):
    enough = {"type": "expect_table_row_count_to_be_between", "kwargs": {"min_value": 40}, "name": "enough"}
    (tiny.folder / "expectations.yaml").write_text(yaml.safe_dump({"sources": {"orders": [enough]}}))
    tiny.declare(quality="expectations.yaml", columns={"score": "How likely the order comes back"})
    tiny.source(f"DELETE FROM raw.orders WHERE day = '{SECOND}' AND order_id % 50 > 20")
    with dg.instance_for_test() as instance:
        result = run(tiny, instance)
        assert not result.success
        assert instance.get_run_by_id(result.run_id).tags["partitions"] == f"{FIRST}…{THIRD}"
        (record,) = instance.fetch_observations(PREDICTIONS, limit=9).records
        observed = record.asset_observation
        assert observed.partition == SECOND and "blocked: sources.orders: enough" in observed.description
        assert "materialize the partition again" in observed.metadata["what to do"].value
        newest = instance.get_latest_materialization_event(PREDICTIONS).asset_materialization
        assert newest.partition == THIRD and f"- {SECOND}: blocked" in newest.metadata["not built"].value
        (read,) = instance.fetch_observations(SOURCE, limit=9).records
        shown = {name: each.value for name, each in read.asset_observation.metadata.items()}
        assert (shown["rows read"], shown["read for"], shown["newest row"]) == (121, f"{FIRST}…{THIRD}", THIRD)
        assert "quantity" in {column.name for column in shown["columns"].columns}
        texts = {c.name: c.description for c in newest.metadata["dagster/column_schema"].value.columns}
        assert texts["score"] == "How likely the order comes back"


def test_assets_and_checks_link_to_the_documentation(tiny, monkeypatch):
    monkeypatch.setenv("PIP_DAGSTER_DOCS_URL", "https://docs.example/pip")
    graph = build_definitions(tiny.declare(monitoring={}).pipeline()).resolve_asset_graph()
    linked = {key.path[-1]: graph.get(key).metadata["docs"].value for key in graph.get_all_asset_keys()}
    assert linked["predictions"] == "https://docs.example/pip/reading/" and len(linked) > 4
    checks = [graph.get_check_spec(key).metadata["docs"].value for key in graph.asset_check_keys]
    assert "https://docs.example/pip/monitoring/" in checks
    monkeypatch.setenv("PIP_DAGSTER_DOCS_URL", "https://git.example/docs/{page}.md")
    again = build_definitions(tiny.pipeline()).resolve_asset_graph()
    assert again.get(PREDICTIONS).metadata["docs"].value == "https://git.example/docs/reading.md"


def test_a_picture_is_shown_without_a_click_however_many_partitions_there_are():
    for count in (2, 61, 400):
        text = drawn([(f"2024-01-01-{n}", n % 7 / 10) for n in range(count)])
        assert text.startswith(f"2024-01-01-0 to 2024-01-01-{count - 1}: 0") and len(text) < 1000
    assert "0.5 to 0.5" in drawn([(FIRST, 0.5), (SECOND, 0.5)])
