"""Rollback: stored scores live again, in one transaction, without a prediction."""

import json
import time
from datetime import UTC, datetime, timedelta

import pytest

from pip_dagster.errors import RollbackError
from pip_dagster.flow.materialize import materialize
from pip_dagster.ledger.record import RunInfo
from pip_dagster.ledger.rollback import rollback
from pip_dagster.ledger.rollback_plan import Change, PastScores, previous
from pip_dagster.registry.errors import AliasConflict, ModelNotFound
from pip_dagster.warehouse.digest import RowSet, row_set_sql

pytestmark = pytest.mark.lake


DAYS = ("2024-03-01", "2024-03-02", "2024-03-03", "2024-03-04")
LIVE = (
    "SELECT partition_key, 'v' || model_version FROM ledger.partitions WHERE is_live AND pipeline = 'orders' ORDER BY 1"
)


def live(tiny):
    return dict(tiny.warehouse(LIVE))


def back(tiny, **options):
    return rollback(tiny.project, "orders", **{"why": "worse in Zürich", "by": "eve"} | options)


def published_digests(tiny):
    """Partition → digest of its rows as everybody reads them, made as the scoring's own was."""
    tables = dict(tiny.published("SELECT column_name, column_type FROM (DESCRIBE orders.predictions) ORDER BY ALL"))
    order = ["partition_key", "order_id", "day", "score"]
    columns = {name: tables[name] for name in order}
    rows = tiny.published(
        f"SELECT partition_key, {row_set_sql(columns)} FROM orders.predictions GROUP BY ALL ORDER BY ALL"
    )
    return {key: RowSet(*of).digest(columns) for key, *of in rows}


def recorded_digests(tiny, version):
    return dict(
        tiny.warehouse(
            f"SELECT partition_key, arg_max(score_digest, scoring_id) FROM ledger.scorings "
            f"WHERE model_version = {version} AND status = 'scored' GROUP BY ALL"
        )
    )


def test_the_whole_pipeline_goes_back_to_the_champion_before(promoted, ledger):
    assert set(live(promoted).values()) == {"v2"}
    assert published_digests(promoted) == recorded_digests(promoted, 2)
    result = back(promoted)
    assert result.complete and len(result.flips) == len(DAYS)
    assert set(live(promoted).values()) == {"v1"}
    assert published_digests(promoted) == recorded_digests(promoted, 1) != recorded_digests(promoted, 2)
    assert promoted.scores() == promoted.expected(version=1)
    assert promoted.registry.alias("returns", "champion") == 1
    assert ledger.verified(promoted) is None
    again = promoted.run()
    assert all(result.reused for result in again.values()), "the next run has nothing to do"


@pytest.mark.lake("always")
def test_what_was_done_is_in_alias_history_ledger_and_audit(promoted):
    result = back(promoted)
    move = promoted.registry.alias_history("returns", "champion")[-1]
    assert (move.previous, move.version, move.by) == (2, 1, "eve")
    assert move.why == f"{result.rollback_id}: worse in Zürich"
    rows = promoted.warehouse(
        f"SELECT why, made_by, count(*) FROM ledger.live_changes WHERE run_id = '{result.rollback_id}' GROUP BY ALL"
    )
    assert rows == [("rolled back from v2: worse in Zürich", "eve", 4)]
    actions = [row[0] for row in promoted.warehouse("SELECT action FROM ledger.audit ORDER BY seq")]
    assert actions[-6:] == ["promotion", *["live"] * 4, "rollback"]
    ((details,),) = promoted.warehouse("SELECT details FROM ledger.audit WHERE action = 'rollback'")
    assert json.loads(details)["alias"] == {"name": "champion", "from": 2, "to": 1}


def test_no_model_is_loaded(promoted):
    process = promoted.python(
        """
        import sys
        from pip_dagster.ledger.rollback import rollback
        from pip_dagster.declaration.project import Project
        result = rollback(Project.find(), "orders", why="", by="a test")
        assert len(result.flips) == 4, result
        assert "pip_dagster.registry.engines.xgboost.predictor" not in sys.modules
        assert not (found := {"xgboost", "dagster", "sklearn"} & set(sys.modules)), found
        """
    )
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output


def test_rolling_back_twice_does_not_return_to_what_was_withdrawn(promoted):
    back(promoted)
    result = back(promoted)
    assert not result.flips and [missing.partition_key for missing in result.missing] == list(DAYS)
    assert set(live(promoted).values()) == {"v1"}


def test_a_promotion_after_a_rollback_can_be_rolled_back(promoted, ledger):
    back(promoted)
    ledger.promote(promoted, 2, "after all")
    promoted.run()
    assert set(live(promoted).values()) == {"v2"}
    assert len(back(promoted).flips) == 4
    assert set(live(promoted).values()) == {"v1"}


def test_only_partitions_of_the_withdrawn_version_are_touched(scored, ledger):
    """The promotion had reached two days when it was withdrawn; the others were never on v2."""
    ledger.promote(scored, 2)
    scored.run(*DAYS[2:])
    result = back(scored)
    assert [flip.partition_key for flip in result.flips] == list(DAYS[2:]) and result.kept == 2 and result.complete
    assert set(live(scored).values()) == {"v1"}


def test_partitions_go_back_alone_and_leave_the_alias(promoted):
    result = back(promoted, partitions=(DAYS[1], DAYS[2]))
    assert live(promoted) == dict(zip(DAYS, ("v2", "v1", "v1", "v2"), strict=True))
    assert result.alias is None and promoted.registry.alias("returns", "champion") == 2


def test_to_a_version_lists_what_it_never_scored(promoted, ledger):
    promoted.source("INSERT INTO raw.orders SELECT * REPLACE ('2024-03-05'::DATE AS day) FROM raw.orders LIMIT 9")
    promoted.run("2024-03-05")
    result = back(promoted, to_version=1)
    assert not result.complete
    assert [(m.partition_key, m.live_version, m.reason) for m in result.missing] == [
        ("2024-03-05", 2, "v1 has never scored it as champion")
    ]
    assert live(promoted) == dict.fromkeys(DAYS, "v1") | {"2024-03-05": "v2"}
    promoted.run("2024-03-05")  # as the command that is printed does
    assert back(promoted, to_version=1).complete
    assert set(live(promoted).values()) == {"v1"} and ledger.verified(promoted) is None


def test_there_is_no_rollback_to_a_version_that_the_alias_never_named(scored, helpers):
    """It would be a promotion without gates."""
    with pytest.raises(RollbackError, match=r"has never named returns v2(.|\n)*models promote returns v2"):
        back(scored, to_version=2)
    assert scored.registry.alias("returns", "champion") == 1
    pinned = RunInfo("run-2", "a test", pinned_version=2)
    assert all(not each.error for each in materialize(scored.pipeline(), scored.partitions(), pinned, version=2))
    history, file = helpers.orders(600, seed=2), scored.root / "third.ubj"
    helpers.train(3, history).save_model(file)
    third = scored.registry.register(
        "returns", model=file, sample=history, categories={"shop": helpers.SHOPS}, by="ada"
    )
    scored.registry.set_alias("returns", "champion", third.version, by="eve", why="newer")
    scored.run()
    with pytest.raises(RollbackError, match="has never named returns v2"):
        back(scored)
    assert set(live(scored).values()) == {"v3"}
    assert len(back(scored, keep_alias=True).flips) == 4
    assert scored.registry.alias("returns", "champion") == 3


def test_blocked_and_failed_scorings_are_never_made_live(promoted):
    promoted.tamper(
        "UPDATE ledger.scorings SET status = CASE partition_key WHEN '2024-03-01' THEN 'blocked' ELSE 'failed' END "
        "WHERE model_version = 1 AND partition_key < '2024-03-03'",
        "UPDATE ledger.scorings SET role = 'challenger' WHERE model_version = 1 AND partition_key = '2024-03-03'",
    )
    result = back(promoted, to_version=1)
    assert [missing.partition_key for missing in result.missing] == list(DAYS[:3])
    assert live(promoted) == dict(zip(DAYS, ("v2", "v2", "v2", "v1"), strict=True))


def test_as_of_an_instant_restores_what_was_live_then(promoted):
    ((before,),) = promoted.warehouse(
        "SELECT max(made_at) FROM ledger.live_changes WHERE run_id = 'run-1' AND "
        "scoring_id IN (SELECT scoring_id FROM ledger.scorings WHERE model_version = 1)"
    )
    after = datetime.now(UTC)
    result = back(promoted, as_of=before)
    assert set(live(promoted).values()) == {"v1"} and result.alias.after == 1
    result = back(promoted, as_of=after)
    assert set(live(promoted).values()) == {"v2"} and result.alias.after == 2
    assert published_digests(promoted) == recorded_digests(promoted, 2)
    result = back(promoted, as_of=before - timedelta(days=1))
    assert not result.flips and len(result.missing) == 4 and result.alias is None


def test_scores_made_of_features_that_were_corrected_since_are_told(promoted):
    promoted.source("UPDATE raw.orders SET quantity = quantity + 1 WHERE day = '2024-03-02'")
    promoted.run("2024-03-02")
    result = back(promoted)
    assert {flip.partition_key for flip in result.flips if flip.other_features} == {"2024-03-02"}


def test_a_dry_run_changes_nothing(promoted):
    tables = ("ledger.live_changes", "ledger.audit", "ledger.publications")
    before = [promoted.warehouse(f"FROM {table} ORDER BY ALL") for table in tables]
    result = back(promoted, dry_run=True)
    assert len(result.flips) == 4 and result.alias.after == 1
    assert [promoted.warehouse(f"FROM {table} ORDER BY ALL") for table in tables] == before
    assert promoted.registry.alias("returns", "champion") == 2


def test_what_is_ambiguous_or_meaningless_is_refused(promoted):
    before = live(promoted)
    back(promoted, keep_alias=True)
    with pytest.raises(RollbackError, match="the alias names returns v2, but what went live last is returns v1"):
        back(promoted)
    back(promoted, to_version=2)
    assert live(promoted) == before
    for options, message in (
        ({"to_version": 1, "as_of": datetime.now(UTC)}, "not to both"),
        ({"as_of": datetime(2024, 1, 1)}, "no time zone"),
        ({"partitions": ("2024-03-02", "2024-03-01")}, "no partition lies from 2024-03-02 to 2024-03-01"),
        ({"partitions": ("2031-01-01", "2031-01-02")}, "nothing live from 2031-01-01 to 2031-01-02"),
    ):
        with pytest.raises(RollbackError, match=message):
            back(promoted, **options)
    with pytest.raises(ModelNotFound, match="no v9"):
        back(promoted, to_version=9)
    assert live(promoted) == before


def test_an_alias_moved_meanwhile_stops_it(promoted, monkeypatch):
    from pip_dagster.registry.store import Registry

    move = Registry.set_alias

    def somebody_else_first(self, *arguments, **options):
        move(self, "returns", "champion", 1, by="ada", why="first")
        return move(self, *arguments, **options)

    monkeypatch.setattr(Registry, "set_alias", somebody_else_first)
    with pytest.raises(AliasConflict):
        back(promoted)
    assert set(live(promoted).values()) == {"v2"}


def test_a_clock_that_was_set_back_is_noticed(promoted, monkeypatch):
    from pip_dagster.errors import WarehouseError

    monkeypatch.setattr("pip_dagster.ledger.rollback.new_id", iter("0123456789").__next__)
    with pytest.raises(WarehouseError, match="set the clock"):
        back(promoted)
    assert set(live(promoted).values()) == {"v2"}


def history(*steps):
    """Versions in the order they went live; a string is a rollback to it."""
    return [
        Change(
            str(i),
            "rollback" if isinstance(step, str) else "scored",
            datetime.now(UTC),
            PastScores(str(step), "m", int(step), ""),
        )
        for i, step in enumerate(steps)
    ]


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([1], None),
        ([1, 2], 1),
        ([1, 2, "1"], None),
        ([1, 2, 3, "2"], 1),
        ([1, 2, 3, "2", "1"], None),
        ([1, 2, "1", 3], 1),
        ([1, 2, 1], 2),
        ([1, 2, 3, "1"], None),
        ([1, 2, "7"], 2),
    ],
)
def test_what_was_live_before(steps, expected):
    found = previous(history(*steps))
    assert (found and found.version) == expected


@pytest.mark.slice
@pytest.mark.slow
@pytest.mark.parametrize("count", [73, pytest.param(365, marks=pytest.mark.soak)])
def test_a_year_is_flipped_in_under_a_second(tiny, ledger, count):
    """And a fifth of it in every run: making 365 days twice over takes half a minute."""
    tiny.declare(partitions={"start": "2023-01-01", "end": "2024-12-31"})
    days = [str((datetime(2023, 3, 1) + timedelta(days=i)).date()) for i in range(count)]
    tiny.source(
        "CREATE OR REPLACE TABLE raw.orders AS SELECT o.* REPLACE (i * 1000 + order_id AS order_id, "
        f"'2023-03-01'::DATE + i::INTEGER AS day) FROM (FROM raw.orders LIMIT 5) o, range({count}) r(i)"
    )
    assert not any(result.error for result in tiny.run(*days).values())
    ledger.promote(tiny, 2)
    assert not any(result.error for result in tiny.run(*days, features=False).values())
    began = time.monotonic()
    result = back(tiny)
    print(f"{count} partitions: transaction {result.seconds:.3f} s, in all {time.monotonic() - began:.2f} s")
    assert len(result.flips) == count and result.complete and result.seconds < 1
    assert published_digests(tiny) == recorded_digests(tiny, 1)
    assert ledger.verified(tiny) is None
