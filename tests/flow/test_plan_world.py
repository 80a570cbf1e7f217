"""The plan against a model of the world: what is due is what changed, and at rest all is as if rebuilt."""

from __future__ import annotations

import shutil
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import dagster as dg
import duckdb
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from pip_dagster.flow import plan as plans
from pip_dagster.flow.materialize import materialize
from pip_dagster.flow.plan import make_plan
from pip_dagster.ledger.known import read_unlike
from pip_dagster.ledger.record import RunInfo
from pip_dagster.orchestration.definitions import build_definitions
from pip_dagster.orchestration.runs import RANGE_END, RANGE_START
from pip_dagster.orchestration.sensors import reruns

DAYS = ("2024-03-01", "2024-03-02", "2024-03-03", "2024-03-04", "2024-03-05")
LOOKBACK = 2
ATTEMPTS = 2
# One source of the day, one read back two days, one read whole.
SQLS = [
    f"""
    SELECT o.order_id, o.day, o.gift, o.shop, o.quantity,
           o.amount + {weight} * (SELECT coalesce(sum(v.visits), 0) FROM raw.visits v
                         WHERE v.day >= o.day - {LOOKBACK} AND v.day <= o.day)
             + (SELECT coalesce(sum(extra), 0) FROM raw.shops s WHERE s.shop = o.shop) AS amount
    FROM raw.orders o WHERE o.day >= $start_date AND o.day < $end_date
    """
    for weight in (1, 7)
]
SOURCES = {
    "orders": {"table": "raw.orders", "partition_column": "day"},
    "visits": {"table": "raw.visits", "partition_column": "day", "lookback": f"{LOOKBACK} days"},
    "shops": {"table": "raw.shops"},
}
DECISIONS = [{"keep": "score < 0.5"}, {"keep": "score < 0.4"}]
# How a plan calls a change of each of the inputs.
KINDS = ("source_changed", "features_changed", "declaration_changed", "expectations_changed", "model_promoted")
# They keep no row apart: what they say of the rows changes, and no score.
EXPECTATIONS = [
    "features: [{type: expect_column_values_to_be_between, severity: info, "
    f"kwargs: {{column: quantity, max_value: {most}}}}}]"
    for most in (5, 6)
]


@dg.job(name="orders_job")
def nothing():
    pass


def success_of(run):
    event = dg.DagsterEvent(dg.DagsterEventType.RUN_SUCCESS.value, job_name="orders_job")
    return dg.EventLogEntry(None, 10, "", run.run_id, time.time(), job_name="orders_job", dagster_event=event)


def clock(later):
    class Clock(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.now(tz) + later

    return Clock


def build(tiny):
    tiny.source(
        "CREATE OR REPLACE TABLE raw.orders AS SELECT * FROM raw.orders WHERE order_id % 50 < 6",
        "CREATE TABLE raw.visits AS SELECT DISTINCT day, 1 AS visits FROM raw.orders",
        "CREATE TABLE raw.shops AS SELECT 'plain' AS shop, 0.5 AS extra",
    )
    return tiny


def declare(tiny, sql=0, decisions=0, expectations=0):
    (tiny.folder / "expectations.yaml").write_text(EXPECTATIONS[expectations])
    return tiny.declare(
        SQLS[sql],
        sources=SOURCES,
        decisions=DECISIONS[decisions],
        quality="expectations.yaml",
        partitions={"end": "2024-03-06"},
        sensors={"source_changes": {"missing": "all"}},
        reruns={"promotion": "all", "attempts": ATTEMPTS, "back_off": "10 minutes"},
    )


def of_all(con, wanted, _, part):
    """What the ledger records of every partition: none is as is wanted here, and all are to be rescored."""
    return read_unlike(
        con, wanted and replace(wanted, manifest_digest="another"), datetime(1970, 1, 1, tzinfo=UTC), part
    )


class World(RuleBasedStateMachine):
    """What a person could do to sources, declaration and registry, and a plan that is carried out."""

    tiny = None
    folder = None

    @initialize()
    def start(self):
        self.root = self.folder / "world"
        shutil.rmtree(self.root, ignore_errors=True)
        shutil.copytree(self.tiny.root, self.root)
        self.shop = type(self.tiny)(self.root)
        self.sql, self.decisions, self.expectations, self.version, self.next_id = 0, 0, 0, 1, 10_000
        self.later = timedelta(0)
        self.made, self.tried = {}, {}  # day → inputs; day → inputs of the failed attempts in a row
        self.unscored = set()  # days whose features were made alone since they were scored, and are other ones
        self.scored = {}  # day → digest of the features that were scored

    # What the partition is made of, read and put together without any of the code under test.
    def inputs(self, day):
        with duckdb.connect(str(self.root / "sources.duckdb"), read_only=True) as con:
            rows = [
                con.execute(f"SELECT * FROM raw.{table} WHERE {where} ORDER BY ALL").fetchall()
                for table, where in (
                    ("orders", f"day = '{day}'"),
                    ("visits", f"day BETWEEN '{day}'::DATE - {LOOKBACK} AND '{day}'"),
                    ("shops", "true"),
                )
            ]
        return repr(rows), self.sql, self.decisions, self.expectations, self.version

    def plan(self):
        """As it is made, which is as if each partition were compared in Python."""
        arguments = self.shop.pipeline(), self.shop.partitions(*DAYS)
        now = datetime.now(UTC) + self.later
        found = make_plan(*arguments, now=now)
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(plans, "read_unlike", of_all)
            assert replace(make_plan(*arguments, now=now), until=found.until) == found
        return found

    @rule(day=st.sampled_from(DAYS), table=st.sampled_from(["orders", "visits"]), late=st.booleans())
    def insert(self, day, table, late):
        self.next_id += 1
        values = f"{self.next_id}, '{day}', 4.5, 3, true, 'plain'" if table == "orders" else f"'{day}', 2"
        names = "order_id, day, amount, quantity, gift, shop" if table == "orders" else "day, visits"
        self.shop.source(f"INSERT INTO raw.{table} ({names}) VALUES ({values})")

    @rule(day=st.sampled_from(DAYS), table=st.sampled_from(["orders", "visits"]))
    def delete(self, day, table):
        self.shop.source(f"DELETE FROM raw.{table} WHERE day = '{day}'")

    @rule(day=st.sampled_from(DAYS), by=st.sampled_from([0, 1, -1]))
    def update(self, day, by):
        """By 0: rows written again as they were are no change."""
        self.shop.source(f"UPDATE raw.orders SET quantity = quantity + {by} WHERE day = '{day}'")

    @rule(extra=st.sampled_from([0.5, 9.5]))
    def a_source_read_whole(self, extra):
        self.shop.source(f"UPDATE raw.shops SET extra = {extra}")

    @rule(day=st.sampled_from(DAYS))
    def break_rows(self, day):
        self.shop.source(f"UPDATE raw.orders SET amount = 'inf' WHERE day = '{day}'")

    @rule(day=st.sampled_from(DAYS))
    def break_keys(self, day):
        self.shop.source(f"INSERT INTO raw.orders FROM raw.orders WHERE day = '{day}' LIMIT 1")

    @rule()
    def mend_rows(self):
        self.shop.source(
            "CREATE OR REPLACE TABLE raw.orders AS "
            "SELECT DISTINCT * REPLACE (if(isinf(amount), 5, amount) AS amount) FROM raw.orders"
        )

    @rule(sql=st.sampled_from([0, 1]), decisions=st.sampled_from([0, 1]), expectations=st.sampled_from([0, 1]))
    def declare_otherwise(self, sql, decisions, expectations):
        self.sql, self.decisions, self.expectations = sql, decisions, expectations
        declare(self.shop, sql, decisions, expectations)

    @rule(version=st.sampled_from([1, 2]))
    def promote(self, version):
        self.version = version
        self.shop.registry.set_alias("returns", "champion", version, by="ada", why="better")

    @rule()
    def wait(self):
        self.later += timedelta(hours=1)

    def run(self, days, edit=None, **options):
        """Materialize, and note in the model what came of it; `edit` happens once the features are made."""
        inputs = {day: self.inputs(day) for day in days}

        def progress(text):
            nonlocal edit
            if "scoring" in text and edit:
                self.shop.source(edit)
                edit = None

        for result in materialize(
            self.shop.pipeline(), self.shop.partitions(*days), RunInfo("r", "w"), progress=progress, **options
        ):
            day = result.partition.key
            if not options.get("predictions", True):
                if result.features and result.features.feature_digest == self.scored.get(day):
                    # Changes that the features do not show: they are scored as they are.
                    self.made[day] = inputs[day][:2] + self.made[day][2:]
                    self.unscored.discard(day)
                else:
                    self.unscored.add(day)
                if result.error:  # an attempt at something else: those at scores count from one again
                    self.tried.pop(day, None)
                continue
            if result.error:
                before, count = self.tried.get(day, (None, 0))
                self.tried[day] = (inputs[day], count + 1 if before == inputs[day] else 1)
            else:
                self.made[day] = inputs[day]
                self.scored[day] = result.scoring.feature_digest
                self.unscored.discard(day)
                self.tried.pop(day, None)

    @rule(some=st.sets(st.sampled_from(DAYS)), late=st.booleans())
    def carry_out_some(self, some, late):
        due = [due.partition.key for due in self.plan().stale if due.partition.key in some]
        if due:
            edit = f"INSERT INTO raw.visits VALUES ('{due[0]}', 3)" if late else None
            self.run(due, edit)

    @rule(some=st.sets(st.sampled_from(DAYS), min_size=1))
    def make_features_alone(self, some):
        """As somebody does in the UI, and as a run leaves it that is killed before it scores."""
        self.run(sorted(some), predictions=False)

    @invariant()
    def due_is_what_changed(self):
        if not hasattr(self, "shop"):
            return
        plan = self.plan()
        due = {each.partition.key: each for each in plan.stale}
        held = {each.partition.key: each for each in plan.on_hold}
        assert len(due) + len(held) + plan.current == len(DAYS) and not due.keys() & held.keys()
        for day in DAYS:
            inputs = self.inputs(day)
            failed, count = self.tried.get(day, (None, 0))
            if failed == inputs:
                # In the model of the world an hour is longer than any back-off, and no time longer than none.
                waited = self.later >= timedelta(hours=1)
                assert (day in due) == (count < ATTEMPTS and waited), (day, count, due.get(day), held.get(day))
                assert (due.get(day) or held.get(day)).reasons
                if day in due:
                    assert due[day].attempt == count + 1
            elif inputs != self.made.get(day):
                assert day in due, (day, "changed, and not due", held.get(day))
                assert due[day].reasons and due[day].attempt == 1
                if day in self.made and not failed and day not in self.unscored:
                    pairs = zip(KINDS, inputs, self.made[day], strict=True)
                    told = {reason.kind for reason in due[day].reasons}
                    assert told == {kind for kind, now, was in pairs if now != was}, (day, due[day])
                if day not in self.made and not failed:
                    # Features alone that could not be made are a failure too.
                    assert due[day].reasons[0].kind in {"missing", "failed"}
            elif day not in self.tried:
                assert day not in due, (day, "unchanged, and due", due.get(day))

    def look(self, instance, name):
        """What a sensor asks for now, made as the daemon would: each run key once. How many runs that were."""
        definitions = build_definitions(self.shop.pipeline())
        context = dg.build_sensor_context(instance=instance, repository_def=definitions.get_repository_def())
        launched = {run.tags["dagster/run_key"] for run in instance.get_runs()}
        requests = definitions.resolve_sensor_def(f"orders_{name}").evaluate_tick(context).run_requests or []
        for request in requests:
            assert request.run_key not in launched, "it would not be launched, and nothing would come to rest"
            first, last = (request.partition_key or request.tags[bound] for bound in (RANGE_START, RANGE_END))
            self.run([day for day in DAYS if first <= day <= last])
            tags = dict(request.tags) | {"dagster/run_key": request.run_key}
            run = instance.create_run_for_job(nothing, tags=tags, status=dg.DagsterRunStatus.STARTED)
            if set(self.tried) & {day for day in DAYS if first <= day <= last}:
                instance.report_run_failed(run)
            else:
                instance.handle_new_event(success_of(run))
        return len(requests)

    @precondition(lambda self: hasattr(self, "shop"))
    @rule()
    def when_the_sensors_rest_all_is_as_rebuilt(self):
        self.later = timedelta(days=2)
        with dg.DagsterInstance.ephemeral() as instance, pytest.MonkeyPatch.context() as patch:
            patch.setattr(reruns, "datetime", clock(self.later))
            for _ in range(ATTEMPTS + 3):
                if not sum(self.look(instance, name) for name in ("source_changes", "model_promoted")):
                    break
            else:
                raise AssertionError(f"it does not come to rest: {self.plan()}")
        assert not self.plan().stale
        sound = [day for day in DAYS if day not in self.tried]
        pipeline = self.shop.pipeline()
        fresh = replace(
            pipeline.project, warehouse=self.root / "fresh" / "w.duckdb", published=self.root / "fresh" / "p"
        )
        shutil.rmtree(self.root / "fresh", ignore_errors=True)
        list(materialize(replace(pipeline, project=fresh), self.shop.partitions(*DAYS), RunInfo("r", "w")))
        query = (
            "SELECT * EXCLUDE (scoring_id, feature_revision, scored_at) FROM orders.predictions "
            f"WHERE list_contains({sound}::VARCHAR[], partition_key) ORDER BY ALL"
        )
        with duckdb.connect(str(fresh.published_database), read_only=True) as con:
            rebuilt = con.execute(query).fetchall()
        assert self.shop.published(query) == rebuilt


@pytest.fixture
def world(tiny, tmp_path):
    declare(build(tiny))

    class Of(World):
        pass

    Of.tiny, Of.folder = tiny, tmp_path
    return Of


# Without shrinking: an example costs seconds, and its steps are printed as they are.
SETTINGS = {"deadline": None, "suppress_health_check": list(HealthCheck), "phases": [Phase.generate]}


@pytest.mark.slice
def test_what_is_due_is_what_changed(world):
    run_state_machine_as_test(
        world,
        settings=settings(max_examples=3, stateful_step_count=10, **SETTINGS),
    )


@pytest.mark.soak
def test_what_is_due_is_what_changed_for_long(world):
    run_state_machine_as_test(
        world,
        settings=settings(max_examples=15, stateful_step_count=25, **SETTINGS),
    )
