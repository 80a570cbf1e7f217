"""A warehouse that was lost, replaced, or restored from an older backup is refused, until a person accepts it."""

import json
import shutil
from pathlib import Path

import duckdb
import pytest

from pip_dagster.declaration.lake import Lake
from pip_dagster.errors import OtherWarehouseError
from pip_dagster.ledger.accept import accept
from pip_dagster.ledger.rollback import rollback
from pip_dagster.warehouse.access import pending_now
from pip_dagster.warehouse.stamp import published_stamp, registry_stamp

FIRST, SECOND = DAYS = ["2024-03-01", "2024-03-02"]


def lose(tiny, backend):
    """Delete the warehouse: the file, or the lake's catalog."""
    place = tiny.project.warehouse
    if isinstance(place, Lake):
        name = tiny.root.joinpath("pyproject.toml").read_text().split("shop_")[1][:8]
        backend.server.psql(f"DROP DATABASE shop_{name} WITH (FORCE);")
        backend.server.psql(f"CREATE DATABASE shop_{name};")
    else:
        place.unlink()


def assert_refused(tiny, *said):
    for words in (
        ("status",),
        ("plan", "orders"),
        ("backfill", "orders", "--from", FIRST, "--to", FIRST, "--no-dagster"),
        ("backfill", "orders", "--resume", "--no-dagster"),
        ("models", "rollback", "orders", "--to", "v1"),
        ("audit", "verify"),
    ):
        text = tiny.shell(*words, code=1)
        for part in said:
            assert part in text or words[0] in ("audit", "models"), (words, text)
    with pytest.raises(OtherWarehouseError, match="audit accept --warehouse"):
        tiny.run(FIRST)


@pytest.mark.lake("always")
def test_a_lost_warehouse_beside_published_files(scored, backend):
    published = scored.scores()
    lose(scored, backend)
    assert_refused(scored, "There is no ledger in the warehouse", "but there was one")
    if not isinstance(scored.project.warehouse, Lake):
        assert not scored.project.warehouse.exists(), "no new ledger was begun"
    assert scored.scores() == published


def test_a_lost_warehouse_beside_files_that_an_older_release_published(scored, backend):
    published_stamp(scored.project).unlink()
    lose(scored, backend)
    assert_refused(scored, "was published from it")


def test_a_lost_warehouse_beside_recorded_alias_moves(scored, backend):
    scored.shell("models", "promote", "returns", "v2", "--override", "a test")
    lose(scored, backend)
    shutil.rmtree(scored.project.published)
    scored.project.published_database.unlink()
    assert registry_stamp(scored.project).is_file()
    with pytest.raises(OtherWarehouseError, match="There is no ledger"):
        scored.run(FIRST)
    assert "There is no ledger" in scored.shell("models", "promote", "returns", "v1", "--override", "back", code=1)


def test_an_empty_file_where_the_warehouse_was(scored):
    scored.project.warehouse.write_bytes(b"")
    assert_refused(scored, "There is no ledger")


def test_another_path_in_the_settings(scored, monkeypatch):
    monkeypatch.setenv("PIP_DAGSTER_WAREHOUSE", "state/other.duckdb")
    assert_refused(scored, "other.duckdb", "There is no ledger")
    monkeypatch.delenv("PIP_DAGSTER_WAREHOUSE")
    assert scored.run(FIRST)[FIRST].reused


@pytest.fixture
def older(scored):
    """The warehouse as it was before the sources changed and the days were scored again."""
    backup = shutil.copy(scored.project.warehouse, scored.root / "backup.duckdb")
    scored.source("UPDATE raw.orders SET quantity = 1 + quantity % 8")
    scored.run()
    shutil.copy(backup, scored.project.warehouse)
    return scored


class TestAnOlderWarehouse:
    def test_is_refused(self, older):
        before = older.scores()
        assert_refused(older, "older backup", "ends at entry 5")
        assert older.scores() == before and "cut off" in older.shell("audit", "verify", code=1)

    def test_that_went_on_by_itself_is_another_one(self, older):
        stamp = published_stamp(older.project)
        kept = stamp.rename(stamp.with_name("kept"))
        older.run()
        kept.rename(stamp)
        assert_refused(older, "has another entry with this number")

    def test_beside_newer_alias_moves_only(self, scored):
        backup = shutil.copy(scored.project.warehouse, scored.root / "backup.duckdb")
        scored.shell("models", "promote", "returns", "v2", "--override", "a test")
        shutil.copy(backup, scored.project.warehouse)
        assert_refused(scored, "older backup", "ends at entry 5")

    def test_can_be_accepted(self, older):
        text = older.shell("audit", "accept", "--warehouse", "--why", "the disk died")
        assert "the warehouse as it is" in text and "published.before-" in text
        assert len(pending_now(older.project, within=5)) == 0
        assert set(older.scores()) == set(older.expected()), "this ledger's scores are published"
        assert not any(result.error for result in older.run().values())
        assert older.scores() == older.expected()
        older.shell("audit", "accept", "--moves", "--why", "the first")
        assert "intact" in older.shell("audit", "verify")
        assert "the disk died" in older.shell("audit", "log")


@pytest.mark.lake
def test_a_new_ledger_can_be_accepted(scored, backend):
    lose(scored, backend)
    scored.shell("audit", "accept", "--warehouse", "--why", "begin again")
    assert scored.run(FIRST)[FIRST].scoring
    assert {key for (key,) in scored.published("SELECT DISTINCT partition_key FROM orders.predictions")} == {FIRST}
    [aside] = scored.project.published.parent.glob("published.before-*")
    with duckdb.connect(str(aside / "orders" / "rows-0001.duckdb"), read_only=True) as con:
        kept = con.execute("SELECT count(DISTINCT partition_key) FROM orders.predictions").fetchone()
    assert kept == (4,), "what was published is kept"


@pytest.mark.lake
@pytest.mark.parametrize("killed_at", ["rename", "unlink"])
def test_an_acceptance_that_is_killed_is_recorded_or_refused_still(scored, backend, monkeypatch, killed_at):
    class Killed(BaseException):
        pass

    def kill(*_, **__):
        raise Killed

    lose(scored, backend)
    with monkeypatch.context() as killing:
        killing.setattr(Path, killed_at, kill)
        with pytest.raises(Killed):
            accept(scored.project, by="ada", why="begin again", warehouse=True)
    if killed_at == "rename":
        with pytest.raises(OtherWarehouseError):
            scored.run(FIRST)
        scored.shell("audit", "accept", "--warehouse", "--why", "begin again")
    assert scored.run(FIRST)[FIRST].scoring
    assert {key for (key,) in scored.published("SELECT DISTINCT partition_key FROM orders.predictions")} == {FIRST}
    assert scored.shell("audit", "log").count("begin again") == (2 if killed_at == "rename" else 1)


def test_a_warehouse_that_nothing_is_wrong_with_needs_no_acceptance(scored):
    assert "no other warehouse" in scored.shell("audit", "accept", "--warehouse", "--why", "so")
    assert scored.run(FIRST)[FIRST].reused


class TestAFirstStart:
    def test_after_models_were_registered_and_promoted(self, tiny):
        (tiny.project.registry / "returns" / "aliases" / "champion.json").unlink()
        tiny.shell("models", "promote", "returns", "v1")
        assert tiny.run(FIRST)[FIRST].scoring
        assert "intact" in tiny.shell("audit", "verify")

    def test_with_aliases_that_were_set_from_python(self, tiny):
        tiny.shell("plan", "orders")
        assert "There is no warehouse" in tiny.shell("audit", "verify", code=1)
        assert tiny.run(FIRST)[FIRST].scoring

    def test_beside_another_project_that_shares_the_registry(self, scored, monkeypatch):
        scored.shell("models", "promote", "returns", "v2", "--override", "a test")
        monkeypatch.setenv("PIP_DAGSTER_WAREHOUSE", "state/second.duckdb")
        monkeypatch.setenv("PIP_DAGSTER_PUBLISHED", "state/second")
        assert scored.run(FIRST)[FIRST].scoring

    def test_beside_another_deployment_with_the_same_paths_that_shares_the_registry(self, scored):
        """As two containers with volumes of their own, and one for the registry."""
        places = scored.project.warehouse, scored.project.published, scored.project.published_database

        def swap():
            for place in places:
                there, other = place.exists(), place.with_name(f"other-{place.name}")
                if there:
                    place.rename(place.with_name("moved"))
                if other.exists():
                    other.rename(place)
                if there:
                    place.with_name("moved").rename(other)

        scored.shell("models", "promote", "returns", "v2", "--override", "a test")
        swap()
        assert "but there was one" in scored.shell("plan", "orders", code=1)
        scored.shell("audit", "accept", "--warehouse", "--why", "a second deployment")
        assert scored.run(FIRST)[FIRST].scoring
        scored.shell("models", "promote", "returns", "v1", "--override", "a test")
        for version in ("v2", "v1"):
            swap()
            assert scored.run(FIRST)[FIRST].scoring
            scored.shell("models", "promote", "returns", version, "--override", "a test")
            assert "the chain is intact" in scored.shell("audit", "verify", code=4)


class TestAPublishedFolder:
    def test_older_than_the_ledger_is_pending(self, scored):
        folder = scored.project.published
        shutil.copytree(folder, scored.root / "backup")
        scored.source("UPDATE raw.orders SET quantity = 1 + quantity % 8")
        scored.run()
        shutil.rmtree(folder)
        shutil.move(scored.root / "backup", folder)
        assert scored.scores() != scored.expected()
        assert json.loads(scored.shell("status", "--json"))[0]["pending"] == 4
        assert len(json.loads(scored.shell("plan", "orders", "--json"))["pending"]) == 4
        assert scored.run(FIRST)[FIRST].reused
        assert scored.scores() == scored.expected() and pending_now(scored.project, within=5) == []

    @pytest.mark.lake
    def test_that_is_gone_is_pending(self, scored):
        shutil.rmtree(scored.project.published)
        assert len(pending_now(scored.project, within=5)) == 4
        rollback(scored.project, "orders", to_version=1, why="", by="eve")
        assert scored.scores() == scored.expected()

    def test_that_is_empty_is_pending(self, scored):
        shutil.rmtree(scored.project.published)
        scored.project.published.mkdir()
        assert len(json.loads(scored.shell("plan", "orders", "--json"))["pending"]) == 4
        scored.shell("publish")
        assert scored.scores() == scored.expected()


def test_with_what_is_published_gone_too_readers_say_that_there_was_a_warehouse(promoted_moves):
    for words in (["status"], ["status", "orders"], ["lineage", "orders", FIRST], ["query", "SELECT 1"]):
        text = promoted_moves.shell(*words, code=1)
        assert "There is no ledger in the warehouse" in text and "but there was one" in text, words
        assert "audit accept --warehouse" in text and "Nothing is published yet" not in text
    text = promoted_moves.shell("export", "orders", "--to", str(promoted_moves.root / "x"), code=1)
    assert "but there was one" in text
    assert "pip_dagster_warehouse_readable 0" in promoted_moves.shell("metrics")


@pytest.fixture
def promoted_moves(scored):
    """A project whose registry knows of the ledger, and that has lost both the warehouse and what was published."""
    scored.shell("models", "promote", "returns", "v2", "--override", "a test")
    assert registry_stamp(scored.project).is_file()
    scored.project.warehouse.unlink()
    shutil.rmtree(scored.project.published)
    scored.project.published_database.unlink()
    return scored


def test_what_is_stored_and_was_published_can_be_published_again(scored):
    shutil.rmtree(scored.project.published)
    scored.project.published_database.unlink()
    assert "`pip-dagster publish` publishes the stored partitions" in scored.shell("query", "SELECT 1", code=1)
    scored.shell("publish")
    scored.shell("query", "SELECT 1")
