"""`pip-dagster metrics`: what a parser of Prometheus reads is what the ledger holds; what is not known is absent."""

import os
import shutil
from datetime import UTC, datetime

import duckdb
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from pip_dagster.cli.metrics import metrics_text
from pip_dagster.monitoring.exposition import METRICS, PREFIX, Samples
from pip_dagster.monitoring.measured import measure
from pip_dagster.warehouse import lock

DAYS = 31  # of the declared grid, which has ended


def figures(text):
    """(name without prefix, labels) → value."""
    found = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation and family.type in ("gauge", "counter")
        for sample in family.samples:
            found[sample.name.removeprefix(PREFIX), tuple(sorted(sample.labels.items()))] = sample.value
    return found


def of(tiny, name="orders"):
    """Figure → value, of one pipeline, or of the project where it has no label; labels behind the name."""
    found = {}
    for (figure, labels), value in figures(metrics_text(tiny.project)).items():
        others = [value for key, value in labels if key != "pipeline"]
        if dict(labels).get("pipeline", name) == name:
            found[" ".join([figure, *others])] = value
    return found


@pytest.mark.lake
def test_the_figures_are_the_ledgers(scored):
    found = of(scored)
    ((end, rows, quarantined, made_at, version, digest, seconds),) = scored.warehouse(
        "SELECT epoch(partition_end), rows_scored, rows_quarantined, epoch(made_at), model_version, model_digest, "
        "seconds FROM ledger.partitions WHERE is_live ORDER BY partition_start DESC LIMIT 1"
    )
    assert found["newest_partition_end_timestamp_seconds"] == end
    assert found["newest_partition_rows_scored"] == rows and found["newest_partition_rows_quarantined"] == quarantined
    assert found["newest_partition_scored_timestamp_seconds"] == pytest.approx(made_at)
    assert found["newest_partition_seconds"] == pytest.approx(seconds)
    assert found["newest_partition_rows_per_second"] == pytest.approx(rows / seconds)
    assert found[f"model_info cpu {digest[:12]} returns {version}"] == 1
    assert found["partitions_live"] == 4 and found["partitions_pending"] == 0
    assert found["partitions_missing"] == DAYS - 4 and found["attempts_total scored"] == 4
    assert found["freshness_state alarm"] == 1 and found["freshness_state ok"] == 0 and found["overdue_seconds"] > 0
    assert found["declaration_valid"] == 1 and found["warehouse_readable"] == found["published_readable"] == 1
    assert found["rows_live"] == scored.warehouse("SELECT sum(rows_scored) FROM ledger.partitions WHERE is_live")[0][0]


@pytest.mark.soak
@pytest.mark.lake("only")
def test_a_lake_that_publishes_nothing_is_read_itself(scored):
    file = scored.root / "pyproject.toml"
    file.write_text(file.read_text().replace('published = "state/published"', 'published = "none"'))
    found = of(scored)
    assert found["partitions_live"] == 4 and found["partitions_pending"] == 0 and found["published_readable"] == 1
    assert "published_bytes" not in found and "warehouse_bytes" not in found


def test_every_metric_has_help_and_type_once_and_the_order_is_stable(scored):
    text = metrics_text(scored.project)
    order = [line.split()[2].removeprefix(PREFIX) for line in text.splitlines() if line.startswith("# TYPE")]
    assert order == [metric.name for metric in METRICS if metric.name in order]
    names = [line.split("{")[0].split()[0] for line in text.splitlines() if not line.startswith("#")]
    assert {*names} == {PREFIX + name for name in order} and text.endswith("\n")
    assert names == [
        line.split("{")[0].split()[0] for line in metrics_text(scored.project).splitlines() if line[0] != "#"
    ]
    assert not any("2024-03" in line for line in text.splitlines()), "no partition is a label"


def test_gaps_count_as_missing_and_the_oldest_has_an_age(tiny):
    tiny.declare(partitions={"end": "2024-03-06"})
    tiny.run("2024-03-01", "2024-03-04")
    found = of(tiny)
    assert found["partitions_missing"] == 3  # the 2nd and 3rd, and the 5th
    later = found["oldest_missing_partition_age_seconds"] - found["newest_partition_age_seconds"]
    assert later == pytest.approx(2 * 86400)


def test_attempts_that_did_not_score_are_counted_until_they_are_corrected(scored):
    scored.source("UPDATE raw.orders SET amount = 'inf'::DOUBLE WHERE day = '2024-03-02'")
    scored.run("2024-03-02")
    found = of(scored)
    assert found["partitions_unsuccessful failed"] == 1 and found["partitions_unsuccessful blocked"] == 0
    assert found["attempts_total failed"] == 1 and found["partitions_live"] == 4
    scored.source("UPDATE raw.orders SET amount = 1 WHERE day = '2024-03-02'")
    scored.run("2024-03-02")
    found = of(scored)
    assert found["partitions_unsuccessful failed"] == 0 and found["attempts_total failed"] == 1


def test_unseen_categories_and_quarantined_rows_of_the_newest(tiny):
    tiny.source("UPDATE raw.orders SET shop = 'new' WHERE day = '2024-03-04' AND order_id % 10 = 0")
    tiny.run()
    assert of(tiny)["newest_partition_unseen_category_rows"] == 5
    tiny.declare(scoring={"on_unseen_category": "quarantine"})
    tiny.run()
    found = of(tiny)
    assert found["newest_partition_rows_quarantined"] == 5 and found["newest_partition_quarantined_ratio"] == 0.1
    assert found["rows_quarantined_live"] == 5


def test_what_was_not_recorded_has_no_sample(scored):
    scored.tamper(
        "UPDATE ledger.scorings SET cpu_seconds = NULL, peak_memory = NULL, seconds = NULL, model_digest = NULL"
    )
    scored.shell("publish")
    found = of(scored)
    absent = {"cpu_seconds", "peak_memory_bytes", "seconds", "rows_per_second", "throughput_ratio"}
    assert not found.keys() & {f"newest_partition_{name}" for name in absent}
    assert found["newest_partition_rows_scored"] == 50


def test_a_record_of_an_infinite_time_has_no_time(scored):
    scored.tamper("UPDATE ledger.scorings SET made_at = 'infinity'")
    scored.shell("publish")
    found = of(scored)
    assert found["partitions_live"] == 4
    assert not found.keys() & {"last_attempt_timestamp_seconds", "newest_partition_scored_timestamp_seconds"}


def test_files_of_an_older_version_have_no_costs(scored):
    for file in scored.project.published.glob("*/*.duckdb"):
        with duckdb.connect(str(file)) as con:
            for column in ("cpu_seconds", "peak_memory", "live_change"):
                con.execute(f"ALTER TABLE ledger.partitions DROP COLUMN {column}")
    found = of(scored)
    assert found["partitions_live"] == 4 and "newest_partition_cpu_seconds" not in found


def test_before_anything_has_run_nothing_is_live(tiny):
    found = of(tiny)
    assert found["partitions_live"] == 0 and found["partitions_pending"] == 0 and found["declaration_valid"] == 1
    assert found["published_readable"] == found["warehouse_readable"] == 1
    assert not [name for name in found if name.startswith(("newest", "rows", "attempts", "model", "freshness"))]


def test_published_rows_that_are_gone_are_not_a_project_without_any(scored, capsys):
    shutil.rmtree(scored.project.published)
    scored.project.published_database.unlink()
    found = of(scored)
    assert found["published_readable"] == 0 and found["partitions_pending"] == 4
    assert "partitions_live" not in found
    assert "there is no " in capsys.readouterr().err


def test_a_lost_warehouse_is_reported_beside_what_is_published(scored, capsys):
    scored.project.warehouse.unlink()
    found = of(scored)
    assert found["warehouse_readable"] == 0 and found["partitions_live"] == 4
    assert "partitions_pending" not in found and "warehouse_bytes" not in found
    assert str(scored.project.warehouse) in capsys.readouterr().err


def test_a_writer_that_holds_the_warehouse_delays_nothing_but_what_is_pending(scored, capsys):
    held = scored.project.warehouse.with_name(scored.project.warehouse.name + ".lock")
    with lock.exclusive(held, purpose="a long run"):
        found = of(scored)
    assert found["warehouse_readable"] == 0 and found["partitions_live"] == 4 and "partitions_pending" not in found
    assert "a long run" in capsys.readouterr().err


@pytest.mark.parametrize("wrong", [{"featurs": 1}, {"features": {"sql": "none.sql"}}])
def test_a_declaration_that_does_not_load_leaves_the_ledgers_figures(scored, capsys, wrong):
    scored.declare(**wrong)
    found = of(scored)
    assert found["declaration_valid"] == 0 and found["partitions_live"] == 4 and "freshness_state ok" not in found
    assert found["declarations_readable"] == 1 and "defs" in capsys.readouterr().err


def test_a_file_that_is_no_yaml_leaves_what_is_published(scored, capsys):
    (scored.folder / "defs.yaml").write_text("attributes: {")
    found = of(scored)
    assert found["declarations_readable"] == 0 and found["declaration_valid"] == 0 and found["partitions_live"] == 4
    assert "defs.yaml" in capsys.readouterr().err


def test_a_name_with_odd_characters_is_escaped(tiny):
    odd = 'we"ird\\n\n{名}'
    tiny.declare(name=odd)
    found = of(tiny, odd)
    assert found["declaration_valid"] == 0
    samples = Samples()
    samples.add("partitions_live", 3, pipeline=odd)
    samples.add("rows_live", float("nan"), pipeline=odd)
    samples.add("rows_live", None, pipeline="p")
    assert figures(samples.text()) == {("partitions_live", (("pipeline", odd),)): 3.0}


def test_only_the_named_pipelines(scored):
    document = yaml.safe_load((scored.folder / "defs.yaml").read_text())
    document["attributes"]["name"] = "other"
    shutil.copytree(scored.folder, scored.folder.parent / "other")
    (scored.folder.parent / "other" / "defs.yaml").write_text(yaml.safe_dump(document))
    assert 'pipeline="other"' in scored.shell("metrics")
    assert 'pipeline="other"' not in scored.shell("metrics", "orders")
    assert "No pipeline 'ordrs' is declared or published; there are: orders, other" in scored.shell(
        "metrics", "ordrs", code=1
    )


def test_a_file_is_written_whole_and_for_others_to_read(scored, tmp_path):
    file = tmp_path / "metrics" / "pip_dagster.prom"
    assert "cannot be written" in scored.shell("metrics", "-o", str(file), code=1), "there is no such folder"
    file.parent.mkdir()
    file.write_text("half")
    old = os.umask(0o022)
    try:
        assert scored.shell("metrics", "-o", str(file)) == ""
    finally:
        os.umask(old)
    assert figures(file.read_text())["partitions_live", (("pipeline", "orders"),)] == 4
    assert [each.name for each in file.parent.iterdir()] == [file.name] and file.stat().st_mode & 0o777 == 0o644
    assert "is a directory" in scored.shell("metrics", "-o", str(file.parent), code=2)


def test_alarms_and_drift_where_they_are_kept(scored):
    """Alarms are counted by their newest row, columns once, whatever their windows and references."""
    (file,) = scored.project.published.glob("orders/*.duckdb")
    samples = Samples()
    with duckdb.connect() as con:
        con.execute(f"ATTACH '{file}' AS f (READ_ONLY); CREATE SCHEMA ledger; CREATE SCHEMA orders")
        con.execute("CREATE TABLE ledger.partitions AS FROM f.ledger.partitions")
        con.execute(
            "CREATE TABLE ledger.alarms AS FROM (VALUES ('orders', 'a', 1, 'drift', 'warning', 'warning'), "
            "('orders', 'a', 2, 'drift', 'alarm', 'alarm'), ('orders', 'b', 1, 'drift', 'alarm', 'alarm'), "
            "('orders', 'c', 1, 'freshness', 'alarm', 'alarm'), ('orders', 'c', 2, 'freshness', 'alarm', 'resolved'), "
            "('others', 'd', 1, 'drift', 'alarm', 'alarm')) t(pipeline, alarm_id, sequence, event, severity, state)"
        )
        con.execute(
            "CREATE TABLE orders.drift AS SELECT p.partition_key, p.made_at + INTERVAL 1 SECOND AS judged_at, "
            "w.reference, 'feature' AS column_kind, c.name, NULL AS segment, NULL AS segment_value, c.state "
            "FROM ledger.partitions p, "
            "(VALUES ('amount', 'alarm'), ('shop', 'ok'), ('gift', 'ok')) c(name, state), "
            "(VALUES ('training'), ('previous')) w(reference)"
        )
        measure(con, {"orders": scored.pipeline().spec}, samples, now=datetime.now(UTC))
    found = figures(samples.text())
    alarms = {labels: value for (name, labels), value in found.items() if name == "alarms_open"}
    assert alarms == {(("event", "drift"), ("pipeline", "orders"), ("severity", "alarm")): 2}
    drift = {dict(labels)["state"]: value for (name, labels), value in found.items() if name == "drift_columns"}
    assert drift == {"alarm": 1, "noted": 0, "drifted": 0, "ok": 2, "unjudged": 0}


@pytest.mark.soak
def test_the_cost_does_not_grow_with_history(tmp_path):
    from benchmarks.groups.monitoring import build, metrics

    short, long = (
        min(metrics(project).cpu_seconds for project in [build(tmp_path / str(hours), hours)] for _ in range(3))
        for hours in (8_736, 43_800)
    )
    # The bound is of a core of its own; where others share its caches the same takes more of its seconds.
    assert long <= 1.25 * 1.5 and long <= 1.5 * short
