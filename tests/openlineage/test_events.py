"""The ledger as events of OpenLineage: valid by the published schemas, the same each time, without a row's value."""

import fcntl
import json
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pip_dagster.ledger.rollback import rollback
from pip_dagster.openlineage.events import run_id

pytestmark = pytest.mark.lake

FIRST, SECOND = "2024-03-01", "2024-03-02"
QUALITY = """
sources:
  orders: [{type: expect_column_values_to_not_be_null, kwargs: {column: shop}}]
features:
  - {type: expect_column_values_to_not_be_null, kwargs: {column: amount}}
  - type: expect_column_values_to_be_between
    name: in_range
    kwargs: {column: quantity, min_value: 0, max_value: 9}
    severity: warning
predictions:
  - {type: expect_column_values_to_be_between, name: probability, kwargs: {column: score, min_value: 0, max_value: 1}}
"""


def job(event):
    return event["job"]["name"]


def of(events, step):
    return [event for event in events if job(event) == f"orders.{step}"]


def named(datasets, end):
    [found] = [each for each in datasets if each["name"].endswith(end)]
    return found


def version(dataset):
    return dataset["facets"]["version"]["datasetVersion"]


def with_quality(tiny, **changes):
    (tiny.folder / "expectations.yaml").write_text(QUALITY)
    return tiny.declare(quality={"expectations": "expectations.yaml", "max_quarantined": 0.5}, **changes)


@pytest.mark.lake("always")
def test_a_partition_is_two_runs_from_its_source_and_its_model(scored, exported, tags_of):
    events = exported(scored)
    assert [job(event) for event in events].count("orders.features") == 4
    [[extraction, revision, digests]] = scored.warehouse(
        f"SELECT extraction_id, revision, source_digests FROM ledger.extractions WHERE partition_key = '{FIRST}'"
    )
    [[scoring, digest]] = scored.warehouse(
        f"SELECT scoring_id, model_digest FROM ledger.scorings WHERE partition_key = '{FIRST}'"
    )
    features = next(event for event in events if event["run"]["runId"] == run_id(extraction))
    [source] = features["inputs"]
    assert (
        source["namespace"] == f"duckdb://{scored.root / 'sources.duckdb'}" and source["name"] == "sources.raw.orders"
    )
    assert version(source) == json.loads(digests)["orders"]["digest"]
    assert source["inputFacets"]["inputStatistics"]["rowCount"] == 50
    assert version(named(features["outputs"], "orders.features")) == revision
    assert "FROM raw.orders" in features["job"]["facets"]["sql"]["query"]
    predictions = next(event for event in events if event["run"]["runId"] == run_id(scoring))
    model = named(predictions["inputs"], "returns")
    assert (model["namespace"], version(model), tags_of(model["facets"])["version"]) == ("model://acme", digest, "1")
    assert version(named(predictions["inputs"], "orders.features")) == revision
    [output] = predictions["outputs"]
    assert version(output) == scoring and output["outputFacets"]["outputStatistics"]["rowCount"] == 50
    assert tags_of(predictions["run"]["facets"])["live"] == "scored"
    assert predictions["run"]["facets"]["nominalTime"]["nominalEndTime"] == "2024-03-02T00:00:00.000000Z"
    assert predictions["job"]["facets"]["ownership"]["owners"][0]["name"] == "team:shops"
    assert predictions["run"]["facets"]["processing_engine"]["name"] == "xgboost"


def test_column_lineage_leads_from_the_features_to_the_columns_of_the_sources(tiny, exported):
    tiny.declare(
        """
        SELECT order_id, day, gift, shop, quantity, coalesce(amount, 0) AS amount,
          (SELECT max(note) FROM (SELECT 'x' AS note)) AS note
        FROM raw.orders WHERE day >= $start_date AND day < $end_date
        """
    )
    tiny.run(FIRST)
    [features] = of(exported(tiny), "features")
    [source], [output] = features["inputs"], features["outputs"]
    lineage = output["facets"]["columnLineage"]
    assert sorted(lineage["fields"]) == ["amount", "day", "gift", "order_id", "quantity", "shop"], "`note` is not told"
    for name, kind in (("shop", "IDENTITY"), ("amount", "TRANSFORMATION")):
        [found] = lineage["fields"][name]["inputFields"]
        assert (found["namespace"], found["name"], found["field"]) == (source["namespace"], source["name"], name)
        [how] = found["transformations"]
        assert (how["type"], how["subtype"]) == ("DIRECT", kind)
    [rows] = lineage["dataset"]
    assert (rows["field"], [(each["type"], each["subtype"]) for each in rows["transformations"]]) == (
        "day",
        [("INDIRECT", "FILTER")],
    )
    tiny.declare(tiny.pipeline().sql.replace("coalesce(amount, 0)", "1.0"))
    [features] = of(exported(tiny), "features")
    assert "columnLineage" not in features["outputs"][0]["facets"], "the declared SQL is not the one that ran"


def test_column_lineage_leads_from_the_predictions_to_the_features_alone(tiny, exported, monkeypatch):
    tiny.declare(decisions={"late": "score >= 0.5", "big": "amount > 100"}, columns={"late": "It will be late."})
    assert tiny.run(FIRST)[FIRST].scoring
    [event] = of(exported(tiny), "predictions")
    [output] = event["outputs"]
    fields = output["facets"]["columnLineage"]["fields"]
    read = {name: {each["field"] for each in field["inputFields"]} for name, field in fields.items()}
    model = {"amount", "quantity", "gift", "shop"}
    assert read == {"order_id": {"order_id"}, "day": {"day"}, "amount": {"amount"}, "score": model} | {
        "late": model,
        "big": {"amount"},
    }
    of_features = named(event["inputs"], "orders.features")
    inputs = {(each["namespace"], each["name"]) for field in fields.values() for each in field["inputFields"]}
    assert inputs == {(of_features["namespace"], of_features["name"])}
    columns = {each["name"]: each for each in output["facets"]["schema"]["fields"]}
    assert columns["late"]["type"] == "BOOLEAN" and columns["late"]["description"] == "It will be late."
    assert columns.keys() == {row[0] for row in tiny.warehouse("DESCRIBE orders.predictions")}
    monkeypatch.setattr("pip_dagster.openlineage.subject.MOST_INPUT_FIELDS", 3)
    [event] = of(exported(tiny), "predictions")
    assert "columnLineage" not in event["outputs"][0]["facets"], "of thousands of columns, events would be megabytes"


@pytest.mark.lake
def test_a_rollback_is_a_run_that_makes_the_earlier_scoring_live(scored, exported, tags_of):
    scored.registry.set_alias("returns", "champion", 2, by="eve", why="better")
    scored.run(FIRST)
    before = exported(scored)
    assert not of(before, "live")
    rollback(scored.project, "orders", why="worse for ada@example.org", by="eve")
    events = exported(scored)
    assert events[: len(before)] == before, "history stays as it was"
    [event] = events[len(before) :]
    [[live, change]] = scored.warehouse(
        f"SELECT scoring_id, change_id FROM ledger.live WHERE partition_key = '{FIRST}'"
    )
    assert job(event) == "orders.live" and event["run"]["runId"] == run_id(change)
    [output] = event["outputs"]
    assert version(output) == live and output["outputFacets"]["outputStatistics"]["rowCount"] == 50
    assert tags_of(named(event["inputs"], "returns")["facets"])["version"] == "1"
    assert tags_of(event["run"]["facets"])["live"] == "rollback"
    assert "example.org" not in json.dumps(events), "what a person wrote stays in the ledger"


def test_the_arms_of_a_split_are_live_by_one_run(tiny, exported, tags_of):
    tiny.registry.set_alias("returns", "challenger", 2, by="ada", why="to compare")
    tiny.declare(scoring={"split": {"arms": {"challenger": "40%"}, "salt": "spring"}})
    assert tiny.run(FIRST)[FIRST].scoring
    events = exported(tiny)
    [challenger], [event] = of(events, "challengers"), of(events, "live")
    assert named(challenger["outputs"], "orders.scores") and "live" not in tags_of(challenger["run"]["facets"])
    [[change]] = tiny.warehouse("SELECT DISTINCT change_id FROM ledger.arms")
    [output] = event["outputs"]
    assert version(output) == change
    of_arms = {key: text for key, text in tags_of(event["run"]["facets"]).items() if key.startswith("arm.")}
    assert of_arms["arm.challenger"].startswith("v2, 40.00% of the units, scoring ") and len(of_arms) == 2
    assert len(version(named(event["inputs"], "returns")).split(" + ")) == 2, "both models' digests"
    assert [each["field"] for each in output["facets"]["columnLineage"]["fields"]["arm"]["inputFields"]] == ["order_id"]


def test_a_pinned_version_is_named_in_the_run_that_scored(scored, exported, helpers):
    from pip_dagster.flow.materialize import materialize
    from pip_dagster.ledger.record import RunInfo

    info = RunInfo("0a6c6f0e-6b9c-4b7e-9f55-3f1f6f4b7a11", "eve", pinned_version=2)
    [result] = materialize(scored.pipeline(), scored.partitions(FIRST), info, version=2)
    assert result.scoring and result.scoring.model_version == 2
    event = exported(scored)[-1]
    tags = {each["key"]: each["value"] for each in event["run"]["facets"]["tags"]["tags"]}
    assert (tags["live"], tags["pinned_version"]) == ("pinned", "2")
    assert event["run"]["facets"]["parent"]["run"]["runId"] == info.run_id, "Dagster's run is the parent"
    assert event["run"]["facets"]["parent"]["job"]["name"] == "orders"


def test_expectations_are_assertions_on_inputs_and_tests_of_the_run(tiny, exported):
    with_quality(tiny)
    assert tiny.run(FIRST)[FIRST].scoring
    events = exported(tiny)
    [features], [predictions] = of(events, "features"), of(events, "predictions")
    [of_source] = features["inputs"][0]["inputFacets"]["dataQualityAssertions"]["assertions"]
    assert (of_source["success"], of_source["column"]) == (True, "shop")
    found = named(predictions["inputs"], "orders.features")["inputFacets"]["dataQualityAssertions"]["assertions"]
    by_column = {each["column"]: each for each in found}
    assert by_column["amount"]["success"] is False and by_column["amount"]["params"]["unexpected_rows"] == 5
    assert (by_column["quantity"]["success"], by_column["quantity"]["severity"]) == (True, "warn")
    tests = {each["name"]: each for each in predictions["run"]["facets"]["test"]["tests"]}
    assert tests["predictions.probability"]["status"] == "pass"
    assert tests["predictions.probability"]["params"]["columns"] == ["score"]
    quarantine = named(predictions["outputs"], "orders.quarantine")
    assert quarantine["outputFacets"]["outputStatistics"]["rowCount"] == 5


def test_a_failure_says_what_was_broken_and_quotes_no_row(tiny, exported):
    (tiny.folder / "expectations.yaml").write_text(
        "features: [{type: expect_column_values_to_be_in_set, name: known, kwargs: {column: note, value_set: [x]}}]"
    )
    tiny.source("UPDATE raw.orders SET shop = 'customer 4711 of Main Street' WHERE order_id = 7")
    sql = "SELECT *, shop AS note FROM raw.orders WHERE day >= $start_date AND day < $end_date"
    tiny.declare(sql, quality={"expectations": "expectations.yaml", "max_quarantined": 0.0})
    blocked = tiny.run(FIRST)[FIRST].scoring
    assert blocked and blocked.status == "blocked"
    *_, event = exported(tiny)
    assert (job(event), event["eventType"], event["outputs"]) == ("orders.predictions", "FAIL", [])
    message = event["run"]["facets"]["errorMessage"]["message"]
    assert f"Partition {FIRST}" in message and f"pip-dagster lineage orders {FIRST}" in message
    tiny.declare(sql.replace("SELECT *", "SELECT * REPLACE (error('secret ' || shop)::BOOLEAN AS gift)"))
    assert tiny.run(SECOND)[SECOND].error
    events = exported(tiny)
    assert job(events[-1]) == "orders.features" and events[-1]["eventType"] == "FAIL"
    for event in events:
        for word in ("4711", "Main Street", "secret Z"):
            assert word not in json.dumps(event, ensure_ascii=False)


def test_members_of_a_composite_are_inputs_too(tiny, exported, helpers):
    ensemble = {"ensemble": [{"model": "returns", "version": v, "weight": w} for v, w in ((1, 0.7), (2, 0.3))]}
    sample = helpers.orders(200, seed=4).assign(note="not a feature")
    tiny.registry.compose("mixed", ensemble, sample=sample, by="ada")
    tiny.registry.set_alias("mixed", "champion", 1, by="ada", why="the first")
    tiny.declare(scoring={"model_name": "mixed"})
    result = tiny.run(FIRST)[FIRST]
    assert result.scoring, result.error
    [event] = of(exported(tiny), "predictions")
    assert named(event["inputs"], "mixed") and len(version(named(event["inputs"], "returns")).split(" + ")) == 2


def test_a_local_day_is_named_by_its_instants(tiny, exported):
    tiny.declare(partitions={"time_zone": "Asia/Tokyo"})
    assert tiny.run(FIRST)[FIRST].error is None
    times = exported(tiny)[-1]["run"]["facets"]["nominalTime"]
    assert times["nominalStartTime"] == "2024-02-29T15:00:00.000000Z"
    assert datetime.fromisoformat(times["nominalEndTime"]).astimezone(UTC) == datetime(2024, 3, 1, 15, tzinfo=UTC)


def test_names_with_odd_characters_stay_whole(tiny, exported):
    tiny.source('CREATE SCHEMA "größe"', 'CREATE TABLE "größe"."a ""b"" ☃" AS FROM raw.orders')
    tiny.declare(
        'SELECT order_id, day, gift, shop, quantity, amount, shop AS "näme ""x"" {y}" FROM "größe"."a ""b"" ☃" '
        "WHERE day >= $start_date AND day < $end_date",
        sources={"orders": {"table": 'größe.a "b" ☃', "partition_column": "day"}},
    )
    result = tiny.run(FIRST)[FIRST]
    assert result.scoring, result.error
    features, predictions = exported(tiny)
    assert features["inputs"][0]["name"] == 'sources.größe.a "b" ☃'
    columns = [each["name"] for each in named(features["outputs"], "features")["facets"]["schema"]["fields"]]
    assert 'näme "x" {y}' in columns


def test_a_pipeline_and_a_model_that_are_gone_still_have_a_lineage(scored, schemas):
    from pip_dagster.openlineage.export import export
    from pip_dagster.openlineage.subject import Subject

    shutil.rmtree(scored.project.registry)
    events = []
    export(scored.project, Subject(scored.project, "orders", None), (), events.append)
    for event in events:
        schemas.check(event)
    assert events[1]["inputs"][0]["name"] == "orders.sources.orders"
    assert any(
        named(event["inputs"], "returns")
        for event in events
        if event["eventType"] == "COMPLETE" and len(event["inputs"]) == 2
    )


def test_batches_of_one_give_the_same_events(scored, exported):
    from pip_dagster.openlineage.events import events_of
    from pip_dagster.openlineage.read import EntryFilter, batches
    from pip_dagster.openlineage.subject import Subject

    subject, found = Subject(scored.project, "orders", scored.pipeline()), []
    for batch in batches(scored.project, subject, EntryFilter("orders"), size=1):
        found += [event for entry in batch for event in events_of(subject, entry)]
        if isinstance(scored.project.warehouse, Path):
            with Path(f"{scored.project.warehouse}.lock").open("a+") as file:  # a run can write meanwhile
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert found[1::2] == exported(scored)
    ranges = ((SECOND, SECOND), ("2024-03-04", None))
    assert {e["run"]["facets"]["nominalTime"]["nominalStartTime"][:10] for e in exported(scored, ranges=ranges)} == {
        SECOND,
        "2024-03-04",
    }


@pytest.mark.soak
@pytest.mark.lake("never")
def test_fifty_thousand_partitions_take_no_more_memory_than_one_batch(scored):
    def more(table, *ids):
        parts = ", ".join(f"'2020' || lpad(i::VARCHAR, 8, '0') || {key}[13:] AS {key}" for key in ids)
        replaced = f"{parts}, (DATE '1900-01-01' + i::INT)::VARCHAR AS partition_key"
        return (
            f"INSERT INTO ledger.{table} SELECT * EXCLUDE (i) REPLACE ({replaced}) "
            f"FROM (FROM ledger.{table} LIMIT 1), range(50000) r(i)"
        )

    scored.tamper(more("extractions", "extraction_id"), more("scorings", "scoring_id"))
    scored.tamper(more("live_changes", "change_id", "scoring_id"))
    program = """
        import resource
        from pip_dagster.declaration.find import find_pipeline
        from pip_dagster.declaration.project import Project
        from pip_dagster.openlineage.export import export
        from pip_dagster.openlineage.subject import Subject

        project = Project.find()
        subject = Subject(project, "orders", find_pipeline(project, "orders"))
        peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
        export(project, subject, (("1900-01-01", "1905-01-01"),), lambda event: None)
        before = peak()
        print(export(project, subject, (), lambda event: None), peak() - before)
    """
    events, megabytes = scored.python(program).communicate()[0].split()
    assert int(events) == 200_016 and float(megabytes) < 60
