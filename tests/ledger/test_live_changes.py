"""Typed live changes: programs read columns, and the text of a `why` changes nothing."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict

import dagster as dg
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pip_dagster.cli.main import cli
from pip_dagster.flow.plan import make_plan
from pip_dagster.flow.store_scores import point_at
from pip_dagster.ledger import audit
from pip_dagster.ledger.record import RunInfo, scorings_of
from pip_dagster.ledger.rollback import rollback
from pip_dagster.orchestration.options import run_info
from pip_dagster.registry.aliases import read_history
from pip_dagster.warehouse.connect import open_warehouse, workspace
from pip_dagster.warehouse.published import publish_pending

FIRST, SECOND, THIRD, FOURTH = DAYS = ("2024-03-01", "2024-03-02", "2024-03-03", "2024-03-04")
TYPED = ("kind", "pinned_version", "as_known", "experiment")
NOT_REQUESTS = (
    "rolled back the source table",
    "pinned the wrong weather feed, re-score",
    "pinned to v1",
    "as known issue, re-score",
    "as known at each partition's close",
    "split 'spring': all rows are the champion's",
    "rollback-0123456789ab: again",
)
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40)


def as_of_version_7(tiny, helpers):
    """Take the typed columns away again."""
    declared_row = "ALTER TABLE ledger.scorings DROP declared_row"  # of migration 9
    tiny.tamper(
        *helpers.untyped_live_changes(), declared_row, "UPDATE ledger.meta SET value = '7' WHERE key = 'schema_version'"
    )


SPLIT = "split 'spring': champion 60%, challenger 40%"
BACKFILLS = {"plain": (False, False), "pinned": (True, False), "known": (False, True), "both": (True, True)}


@pytest.mark.parametrize(
    ("why", "run", "expected"),
    [
        ("scored", "run", ("scored", None, False, None)),
        ("source changed: orders 2024-03-01", "run", ("scored", None, False, None)),
        ("rolled back from v2: wrong", "rollback-0123456789ab", ("rollback", None, False, None)),
        (
            "rolled back from v2: as known at each partition's close",
            "rollback-0123456789ab",
            ("rollback", None, False, None),
        ),
        ("rolled back the source table", "run", ("scored", None, False, None)),
        ("rolled back the source table", "plain", ("scored", None, False, None)),
        ("pinned to v1", "run", ("pinned", 1, False, None)),
        ("pinned to v1: as it was", "run", ("pinned", 1, False, None)),
        ("pinned to v1: as it was", "pinned", ("pinned", 1, False, None)),
        ("pinned to v1: as it was", "plain", ("scored", None, False, None)),
        ("pinned to v2: but scored by v1", "run", ("scored", None, False, None)),
        ("pinned the wrong weather feed", "run", ("scored", None, False, None)),
        ("pinned to v1 as known at each partition's close", "run", ("pinned", 1, True, None)),
        ("pinned to v1 as known at each partition's close: x", "both", ("pinned", 1, True, None)),
        ("as known at each partition's close: x", "known", ("pinned", None, True, None)),
        ("as known at each partition's close", "run", ("pinned", None, True, None)),
        ("as known at each partition's close", "plain", ("scored", None, False, None)),
        ("as known issue, re-score", "run", ("scored", None, False, None)),
        (f"scored; {SPLIT}", "run", ("scored", None, False, None)),
        (SPLIT, "decided", ("scored", None, False, "split 'spring'")),
        (f"pinned to v1: x; {SPLIT}", "decided", ("pinned", 1, False, "split 'spring'")),
        ("canary 'it; is': all rows are the champion's", "decided", ("scored", None, False, "canary 'it; is'")),
        ("""split "it's": canary 2.5%""", "decided", ("scored", None, False, '''split "it's"''')),
        ("no split is declared any more", "decided", ("scored", None, False, None)),
    ],
)
def test_the_migration_reads_each_old_text_once(scored, helpers, why, run, expected):
    as_of_version_7(scored, helpers)
    quoted = why.replace("'", "''")
    statements = [
        "INSERT INTO ledger.live_changes BY NAME SELECT 'x' AS change_id, 'orders' AS pipeline, scoring_id, "
        f"partition_key, '{quoted}' AS why, '{run}' AS run_id, 'eve' AS made_by, made_at FROM ledger.scorings "
        f"WHERE partition_key = '{FIRST}'"
    ]
    if run in BACKFILLS:
        pinned, as_known = BACKFILLS[run]
        statements += [
            "INSERT INTO ledger.backfills BY NAME SELECT 'b' AS backfill_id, 'orders' AS pipeline, "
            f"1 AS model_version, {pinned} AS pinned, {as_known} AS as_known",
            f"INSERT INTO ledger.backfill_partitions BY NAME SELECT 'b' AS backfill_id, 'orders' AS pipeline, "
            f"'{FIRST}' AS partition_key, '{run}' AS run_id",
        ]
    if run == "decided":
        statements += [
            "INSERT INTO ledger.checks BY NAME SELECT 'x' AS entry_id, 'split' AS section, 'arm a' AS expectation_id"
        ]
    _write_at_version_7(scored, statements)
    scored.tamper("SELECT 1")  # opening to write migrates
    row = f"SELECT {', '.join(TYPED)} FROM ledger.{{}} WHERE change_id = 'x'"
    assert scored.warehouse(row.format("live_changes")) == scored.warehouse(row.format("live")) == [expected]


def _write_at_version_7(tiny, statements):
    import duckdb

    with duckdb.connect(str(tiny.project.warehouse)) as con:
        for statement in statements:
            con.execute(statement)


def test_the_chain_of_an_older_warehouse_still_verifies(tiny, helpers, monkeypatch, ledger):
    scored = tiny
    with monkeypatch.context() as older:
        older.setattr(audit, "_TYPED", ())
        older.setattr(audit, "new_nonce", lambda: None)
        scored.run()
        scored.run(FIRST, version=2)
    as_of_version_7(scored, helpers)
    scored.run(FIRST)
    assert ledger.verified(scored) is None
    last = f"partition_key = '{FIRST}' AND change_id = (SELECT max(change_id) FROM ledger.live_changes)"
    scored.tamper(f"UPDATE ledger.live_changes SET kind = 'pinned' WHERE {last}")
    assert "has kind 'pinned'; the audit saw 'scored'" in str(ledger.verified(scored))


@pytest.mark.lake
def test_a_lake_is_migrated_too(scored, helpers):
    scored.tamper("UPDATE ledger.live_changes SET why = 'pinned to v1: as it was'")
    as_of_version_7(scored, helpers)
    scored.tamper("SELECT 1")
    assert scored.warehouse(f"SELECT DISTINCT {', '.join(TYPED)} FROM ledger.live") == [("pinned", 1, False, None)]


@pytest.mark.parametrize("why", NOT_REQUESTS)
def test_a_backfill_pins_nothing_by_its_text(scored, why):
    scored.declare(reruns={"promotion": "all"})
    words = ["--project", str(scored.root), "backfill", "orders", "--from", FIRST, "--to", SECOND, "--why", why]
    assert CliRunner().invoke(cli, words, env={"DAGSTER_HOME": None}).exit_code == 0
    scored.source(f"UPDATE raw.orders SET quantity = 8 WHERE day = '{FIRST}'")
    plan = make_plan(scored.pipeline(), scored.partitions())
    assert [each.partition.key for each in plan.stale] == [FIRST] and not plan.on_hold
    scored.registry.set_alias("returns", "champion", 2, by="eve", why="better")
    assert [each.partition.key for each in make_plan(scored.pipeline(), scored.partitions()).stale] == list(DAYS)


def test_a_version_requested_again_is_kept_although_the_alias_moved_in_between(scored):
    scored.declare(reruns={"promotion": "all"})
    pin = ["--project", str(scored.root), "backfill", "orders", "--from", FIRST, "--to", FIRST, "--version", "1"]
    for expected in (DAYS, DAYS[1:]):
        scored.registry.set_alias("returns", "champion", 1, by="eve", why="as before")
        if expected == DAYS:
            CliRunner().invoke(cli, pin, env={"DAGSTER_HOME": None})
        scored.registry.set_alias("returns", "champion", 2, by="eve", why="better")
        if expected != DAYS:
            CliRunner().invoke(cli, pin, env={"DAGSTER_HOME": None})
        assert [each.partition.key for each in make_plan(scored.pipeline(), scored.partitions()).stale] == list(
            expected
        )


class TestTagsOfARun:
    @given(text=TEXTS)
    @example(text=NOT_REQUESTS[1])
    @example(text=NOT_REQUESTS[3])
    def test_its_reason_requests_nothing(self, text):
        for tags in (
            {},
            {"pip_dagster/backfill": "b", "pip_dagster/model_version": "1", "pip_dagster/pinned": "false"},
        ):
            found = self.info(tags | {"pip_dagster/why": text})
            assert (found.kind, found.pinned_version, found.as_known) == ("scored", None, False)

    @pytest.mark.parametrize(
        ("tags", "expected"),
        [
            ({"model_version": "v2"}, ("pinned", 2, False, "pinned to v2: x")),
            ({"as_known": "True"}, ("pinned", None, True, "as known at each partition's close: x")),
            ({"backfill": "b", "model_version": "2"}, ("scored", None, False, "x")),
            ({"backfill": "b", "model_version": "2", "pinned": "true"}, ("pinned", 2, False, "pinned to v2: x")),
        ],
    )
    def test_its_version_is_pinned_where_a_person_requested_it(self, tags, expected):
        found = self.info({f"pip_dagster/{name}": value for name, value in tags.items()} | {"pip_dagster/why": "x"})
        assert (found.kind, found.pinned_version, found.as_known, found.live_why) == expected

    def info(self, tags):
        run = dg.DagsterRun(job_name="orders_job", tags=tags)
        return run_info(run, "eve", RunInfo("", "").requested_at)


def test_an_alias_moved_by_an_older_rollback_is_still_known_by_it(scored):
    folder = scored.project.registry / "returns"
    file = folder / "aliases" / "champion.json"
    move = json.loads(file.read_text())[0]
    del move["rollback_id"]
    file.write_text(json.dumps([move, move | {"why": "rollback-0123456789ab: wrong", "version": 2, "previous": 1}]))
    assert [move.rollback_id for move in read_history(folder, "champion")] == [None, "rollback-0123456789ab"]


def outcome(tiny, text):
    """What plan, rollback and status say after a promotion, a run, a pinned run and a rollback with this text."""
    tiny.registry.set_alias("returns", "champion", 2, by="eve", why=text)
    with workspace(threads=1) as con, open_warehouse(con, tiny.project.warehouse, purpose="test"):
        entries = {
            entry.partition_key: entry for entry in scorings_of(con, "orders", list(DAYS)) if entry.model_version == 1
        }
        point_at(con, entries[FIRST], RunInfo("run-2", "eve", why=text), "again")
        point_at(con, entries[SECOND], RunInfo("run-3", "eve", why=text, pinned_version=1), "again")
        publish_pending(con, tiny.project)
    rollback(tiny.project, "orders", partitions=(THIRD, THIRD), to_version=1, why=text, by="eve")
    plan = make_plan(tiny.pipeline(), tiny.partitions())
    listed = [(each.partition.key, each.reasons) for each in (*plan.stale, *plan.on_hold)]
    found = asdict(rollback(tiny.project, "orders", why=text, by="eve", keep_alias=True, dry_run=True))
    said = CliRunner().invoke(cli, ["--project", str(tiny.root), "status", "orders", "--json"])
    assert said.exit_code == 0
    return listed, plan.current, found | {"rollback_id": None}, json.loads(said.stdout)


@pytest.fixture
def without(promoted, helpers, tmp_path_factory):
    """The outcome where nothing is said, on a copy of its own."""
    return outcome(helpers.Tiny(shutil.copytree(promoted.root, tmp_path_factory.mktemp("copy") / "shop")), "")


@pytest.mark.slice
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.builds("{}{}".format, st.sampled_from(("", *NOT_REQUESTS)), TEXTS))
@example(text=NOT_REQUESTS[0])
@example(text=NOT_REQUESTS[4])
@example(text=NOT_REQUESTS[6])
def test_no_text_changes_what_plan_rollback_or_status_say(promoted, without, helpers, tmp_path_factory, text):
    copy = shutil.copytree(promoted.root, tmp_path_factory.mktemp("copy") / "shop")
    assert outcome(helpers.Tiny(copy), text) == without
