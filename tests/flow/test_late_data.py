"""Rows that come after a partition was made: what each policy makes of them, and that nothing they replace is lost."""

from datetime import UTC, datetime, timedelta

import pytest
from click.testing import CliRunner

from pip_dagster.cli.main import cli
from pip_dagster.flow.extract import close_of
from pip_dagster.flow.plan import make_plan
from pip_dagster.flow.point_in_time import prove
from pip_dagster.ledger.record import scorings_of
from pip_dagster.replay.replay import replay
from pip_dagster.warehouse.connect import open_warehouse, workspace

DAY, NEXT = "2024-03-02", "2024-03-03"
LATE = f"INSERT INTO raw.orders SELECT * REPLACE (9001 AS order_id) FROM raw.orders WHERE day = '{DAY}' LIMIT 1"
READS = (
    "SELECT order_id, day, gift, shop, quantity, amount FROM raw.orders WHERE day >= $start_date AND day < $end_date "
    "AND EXISTS (FROM raw.{})"
)
CLOSE = datetime(2024, 3, 3, tzinfo=UTC)  # of DAY


def declare(tiny, sql=None, partitions=None, **source):
    orders = {"table": "raw.orders", "partition_column": "day"} | source
    return tiny.declare(sql, sources={"orders": orders}, partitions=partitions or {})


def found(tiny, now=None):
    """Partition → is it due, and the texts of the reasons; nothing for those that are current."""
    made = make_plan(tiny.pipeline(), tiny.partitions(DAY, NEXT), now=now)
    told = {each.partition.key: ("due", [r.text for r in each.reasons]) for each in made.stale}
    return told | {each.partition.key: ("held", [r.text for r in each.reasons]) for each in made.on_hold}


def test_a_row_that_comes_while_features_are_made_is_noticed_by_the_next_look(tiny, monkeypatch):
    """Of files, which nobody locks: read for their fingerprint first, and for the features once there are more rows."""
    from pip_dagster.flow import extract

    def write():
        tiny.source(f"COPY raw.orders TO '{tiny.root}/orders.parquet'")

    def late(*arguments, judge=extract.validate_sources):
        tiny.source(LATE)
        write()
        return judge(*arguments)

    write()
    tiny.declare(sources={"orders": {"table": "raw.orders", "parquet": "orders.parquet", "partition_column": "day"}})
    with monkeypatch.context() as patch:
        patch.setattr(extract, "validate_sources", late)
        tiny.run(DAY, NEXT)
    assert 9001 in tiny.scores()
    assert found(tiny) == {DAY: ("due", [f"source changed: orders {DAY} (+1 row)"])}
    tiny.run(DAY)
    assert found(tiny) == {}


class TestPolicies:
    @pytest.mark.parametrize(
        ("late_data", "days_later", "state", "says"),
        [
            ("rerun", 900, "due", ""),
            ("report", 1, "held", "; reported only, by late_data"),
            ({"ignore_after": "3 days"}, 2, "due", ""),
            ({"ignore_after": "3 days"}, 4, "held", "; more than 3 days after its close, ignored by late_data"),
        ],
    )
    def test_a_late_row(self, tiny, late_data, days_later, state, says):
        declare(tiny, late_data=late_data).run()
        tiny.source(LATE)
        now = CLOSE + timedelta(days=days_later)
        assert found(tiny, now) == {DAY: (state, [f"source changed: orders {DAY} (+1 row){says}"])}

    @pytest.mark.parametrize("late_data", ["report", {"ignore_after": "3 days"}])
    def test_what_was_never_made_is_due_whatever_the_policy(self, tiny, late_data):
        declare(tiny, late_data=late_data)
        tiny.run(NEXT)
        assert found(tiny)[DAY] == ("due", ["missing"])

    def test_what_is_told_only_is_read_by_a_rerun_for_another_reason(self, tiny):
        declare(tiny, late_data="report").run()
        tiny.source(LATE)
        tiny.run(DAY)
        assert found(tiny) == {} and 9001 in tiny.scores()

    def test_changing_the_policy_makes_nothing_due(self, tiny):
        declare(tiny).run()
        for change in ({"late_data": "report"}, {"change_column": "order_id"}, {"complete_after": "1 hour"}):
            declare(tiny, **change)
            assert found(tiny) == {}

    def test_what_people_are_told_of_a_source_makes_nothing_due(self, tiny):
        declare(tiny).run()
        declare(tiny, description="Every order.", asset_key="shop/orders")
        assert found(tiny) == {}
        declare(tiny, lookback="1 day")
        assert set(found(tiny)) == {DAY, NEXT}

    def test_a_policy_of_one_source_is_not_anothers(self, tiny):
        sources = {
            "orders": {"table": "raw.orders", "partition_column": "day", "late_data": "report"},
            "visits": {"table": "raw.visits", "partition_column": "day"},
        }
        tiny.source("CREATE TABLE raw.visits AS SELECT DISTINCT day, 1 AS visits FROM raw.orders")
        tiny.declare(READS.format("visits"), sources=sources).run()
        tiny.source(LATE, f"UPDATE raw.visits SET visits = 2 WHERE day = '{DAY}'")
        state, texts = found(tiny)[DAY]
        assert state == "due" and texts == [f"source changed: visits {DAY} (same number of rows)"]


class TestProvisional:
    """`tiny` makes 2024's partitions today, so what is early is declared by a wait of years."""

    EARLY = f"{(datetime.now(UTC) - CLOSE).days + 30} days"

    @property
    def complete(self):
        return CLOSE + timedelta(days=int(self.EARLY.split()[0]))

    def early(self, tiny):
        declare(tiny, complete_after=self.EARLY).run()
        return tiny

    def state(self, tiny):
        rows = tiny.published("SELECT DISTINCT provisional FROM orders.predictions WHERE partition_key = " + f"'{DAY}'")
        ledger = tiny.published(f"SELECT provisional FROM ledger.partitions WHERE is_live AND partition_key = '{DAY}'")
        assert rows == ledger
        return rows[0][0]

    def test_what_is_made_early_is_told_everywhere(self, tiny, monkeypatch):
        self.early(tiny)
        assert self.state(tiny) is True
        monkeypatch.setenv("PIP_DAGSTER_PROJECT", str(tiny.root))
        said = CliRunner().invoke(cli, ["status", "orders"], catch_exceptions=False)
        assert said.exit_code == 0 and said.output.count("live, provisional") == 4

    def test_it_is_due_once_complete_and_not_before(self, tiny):
        self.early(tiny)
        assert found(tiny, self.complete - timedelta(seconds=1)) == {}
        assert found(tiny, self.complete) == {DAY: ("due", ["provisional: its sources are complete now"])}

    def test_it_is_final_after_the_rerun_though_its_rows_are_equal(self, tiny):
        self.early(tiny)
        before = tiny.scores()
        declare(tiny, complete_after="1 hour")  # as if the years had passed
        assert set(found(tiny)) == {DAY, NEXT}
        tiny.run()
        assert self.state(tiny) is False and found(tiny) == {} and tiny.scores() == before
        scorings = tiny.warehouse(
            f"SELECT provisional, feature_revision FROM ledger.scorings WHERE partition_key = '{DAY}' ORDER BY made_at"
        )
        assert [each[0] for each in scorings] == [True, False]
        assert len({each[1] for each in scorings}) == 1, "equal rows are one revision"

    def test_a_late_row_before_it_is_complete_is_another_provisional_one(self, tiny):
        self.early(tiny)
        tiny.source(LATE)
        assert found(tiny)[DAY][0] == "due"
        tiny.run(DAY)
        assert self.state(tiny) is True and found(tiny) == {}

    @pytest.mark.parametrize(("offset", "from_start"), [(0, False), (1, True)])
    def test_with_an_end_offset_it_counts_from_the_beginning(self, tiny, offset, from_start):
        """Predictions about a day that begins know nothing of that day, so nothing of it is waited for."""
        declare(tiny, partitions={"end_offset": offset}, complete_after=self.EARLY).run()
        complete = self.complete - timedelta(days=1 if from_start else 0)
        assert found(tiny, complete - timedelta(seconds=1)) == {}
        assert set(found(tiny, complete)) == {DAY}

    def test_a_cutoff_within_the_day_counts_from_the_end_again(self, tiny):
        spec = tiny.declare(partitions={"end_offset": 1}, features={"cutoff": "day"}).pipeline().spec
        assert close_of(spec, tiny.partitions(DAY)[0]) == CLOSE


class TestAsKnown:
    """A correction is a row more, and the SQL takes the newest that it is shown."""

    SQL = """
    SELECT order_id, day, gift, shop, quantity, amount FROM raw.orders WHERE day >= $start_date AND day < $end_date
    QUALIFY row_number() OVER (PARTITION BY order_id ORDER BY loaded_at DESC) = 1
    """

    @pytest.fixture
    def corrected(self, tiny):
        """Scored, then corrected by a row that says when it came, then scored again."""
        tiny.source(
            "ALTER TABLE raw.orders ADD COLUMN loaded_at TIMESTAMPTZ",
            "UPDATE raw.orders SET loaded_at = day + INTERVAL 20 HOUR",
        )
        declare(tiny, self.SQL, available_at="loaded_at").run()
        self.then = tiny.scores()
        self.instant = datetime.now(UTC)
        tiny.source(
            "INSERT INTO raw.orders SELECT * REPLACE (8 AS quantity, '2024-06-01'::TIMESTAMPTZ AS loaded_at) "
            f"FROM raw.orders WHERE day = '{DAY}'"
        )
        tiny.run(DAY)
        assert tiny.scores() != self.then
        return tiny

    def test_it_never_shows_in_an_as_known_run(self, corrected):
        corrected.run(as_known=True)
        assert corrected.scores() == self.then

    def test_the_proof_of_no_look_ahead_finds_it(self, corrected):
        """The features of the close differ from those of today: by the correction alone."""
        proof = prove(corrected.pipeline(), corrected.partitions(DAY)[0])
        assert [leak.feature for leak in proof.leaks] == ["quantity"]
        assert prove(corrected.pipeline(), corrected.partitions(NEXT)[0]).leaks == ()

    def test_a_replay_of_the_old_scoring_is_of_the_old_rows(self, corrected):
        project = corrected.project
        with workspace(threads=1) as con, open_warehouse(con, project.warehouse, purpose="test", read_only=True):
            entries = scorings_of(con, "orders", [DAY])
        assert len(entries) == 2
        replayed = list(replay(corrected.pipeline(), entries))
        assert [each.verdict for each in replayed] == ["identical", "identical"]

    def test_every_revision_is_there_for_queries(self, corrected):
        """The queries of docs/reruns.md."""
        then = f"""
        WITH as_of AS (
          SELECT partition_key, arg_max(scoring_id, change_id) AS scoring_id FROM ledger.live_changes
          WHERE pipeline = 'orders' AND made_at <= TIMESTAMPTZ '{self.instant.isoformat()}' GROUP BY ALL)
        SELECT s.order_id, s.score FROM orders.scores s JOIN as_of USING (partition_key, scoring_id)
        """
        assert dict(corrected.warehouse(then)) == self.then
        features = f"""
        SELECT e.made_at <= TIMESTAMPTZ '{self.instant.isoformat()}' AS then, avg(f.quantity)
        FROM orders.features f JOIN ledger.extractions e USING (partition_key, revision)
        WHERE partition_key = '{DAY}' AND e.is_new GROUP BY ALL
        """
        before = corrected.source_rows(
            f"SELECT avg(quantity) FROM raw.orders WHERE day = '{DAY}' AND loaded_at < '2024-06-01'"
        )
        assert dict(corrected.warehouse(features)) == {True: before[0][0], False: 8}
