"""A shop with somebody in it, what happens there before and after that person's erasure, and its twin without them."""

import json
import shutil
import uuid
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

import duckdb
import yaml
from anchoring import declare_anchors
from byte_scan import needles, scan
from hypothesis import strategies as st

from pip_dagster.declaration.find import find_declarations, find_pipeline
from pip_dagster.errors import RollbackError
from pip_dagster.evidence.contents import content_faults
from pip_dagster.flow.materialize import materialize
from pip_dagster.flow.performance import evaluate
from pip_dagster.flow.plan import make_plan
from pip_dagster.ledger.promotions import record_promotions
from pip_dagster.ledger.record import RunInfo
from pip_dagster.ledger.rollback import rollback
from pip_dagster.privacy.suppressed import stored_values
from pip_dagster.warehouse.access import reading
from pip_dagster.warehouse.connect import workspace

DAYS = ("2024-03-01", "2024-03-02", "2024-03-03", "2024-03-04")
ROWS = 10  # a day, of others
# SQL type → the subject as text, and SQL of the others by their order.
TYPES = {
    "BIGINT": ("7712345678901", "order_id + 8800000000000"),
    "VARCHAR": ("O'Bri\"en \\ß 東京 %_", "'it''s \"' || order_id"),
    "UUID": (str(uuid.UUID(int=0x7B0B5E551E5C0FFEE0DDBA11DEADBEEF)), "md5(order_id::VARCHAR)::UUID"),
    "DATE": ("1887-11-23", "'1950-01-01'::DATE + order_id::INTEGER"),
    "TIMESTAMPTZ": (
        "1887-11-23 10:11:12.131415+00",
        "'1950-01-01'::TIMESTAMPTZ + order_id * INTERVAL 1 HOUR",
    ),
}
# What only the person's rows have.
AMOUNT, NOTE, ORDER = 31337.177103, "rare-note-ß7", 9_912_345_678_901
POSSIBLE, IMPOSSIBLE = 7, 1_987_654_321
EXPECTED = {
    "features": [
        {
            "type": "expect_column_values_to_be_between",
            "kwargs": {"column": "quantity", "min_value": 1, "max_value": 50},
            "name": "quantity_is_possible",
        }
    ]
}
OF_THE_DAY = "WHERE day >= $start_date AND day < $end_date"
SQL = f"SELECT {{key}}, day, gift, shop, quantity, amount, note FROM raw.orders {OF_THE_DAY}"
LABELS = f"SELECT {{key}}, returned FROM raw.outcomes {OF_THE_DAY}"
KEYS = {"key": ["customer"], "composite": ["customer", "order_id"], "column": ["order_id"]}


@dataclass(frozen=True)
class Shop:
    """What is declared, and whose rows there are.

    Attributes:
        sql_type: Of the column that says whom a row is about.
        role: That column is the `key`, a part of a `composite` one, or no part of it: a `column`.
        rows: Day → the person's rows: whether each can be scored; the others are quarantined.
        whole: The days on which there is nobody else.
        arms: How the second version takes part.
    """

    sql_type: str
    role: str
    rows: dict
    whole: frozenset
    pseudonyms: bool
    arms: str | None
    pipelines: int
    delivers: bool
    explains: bool
    anchored: bool

    @property
    def subject(self):
        return TYPES[self.sql_type][0]


@st.composite
def shops(draw):
    role = draw(st.sampled_from(sorted(KEYS)))
    most = 1 if role == "key" else 3
    rows = draw(
        st.dictionaries(
            *(st.sampled_from(DAYS), st.lists(st.booleans(), min_size=1, max_size=most)),
            min_size=draw(st.sampled_from([1, 1, 1, 0])),
        )
    )
    return Shop(
        sql_type=draw(st.sampled_from(sorted(TYPES))),
        role=role,
        rows=rows,
        whole=frozenset(draw(st.sets(st.sampled_from(sorted(rows)), max_size=1))) if rows else frozenset(),
        pseudonyms=draw(st.booleans()),
        arms=draw(st.sampled_from([None, "split", "shadow"])),
        pipelines=draw(st.integers(1, 2)),
        delivers=draw(st.booleans()),
        explains=draw(st.booleans()),
        anchored=draw(st.booleans()),
    )


SOME = st.sets(st.sampled_from(DAYS), min_size=1).map(sorted)
FRACTION = st.floats(0, 1)
EVENTS = st.one_of(
    st.tuples(st.just("run"), SOME),
    st.tuples(st.just("rescore"), SOME),
    st.tuples(st.just("edit"), st.sampled_from(DAYS)),
    st.tuples(st.just("killed run"), SOME, FRACTION),
    st.tuples(st.just("promote"), st.sampled_from([1, 2])),
    st.tuples(st.just("rollback")),
    st.tuples(st.just("deliver")),
    st.tuples(st.just("performance")),
    st.tuples(st.just("monitor")),
    st.tuples(st.just("anchor")),
)


class World:
    """A shop on disk."""

    def __init__(self, tiny, shop, killer, *, there, filled=False):
        self.tiny, self.shop, self.killer, self.there = tiny, shop, killer, there
        if not filled:
            self._declare()
            self._fill()
            record_promotions(self.tiny.project)

    def _declare(self):
        shop, tiny = self.shop, self.tiny
        if shop.anchored:
            declare_anchors(tiny)
        tiny.registry.set_alias("returns", "challenger", 2, by="ada", why="to compare")
        scoring = {
            None: {},
            "split": {"split": {"arms": {"challenger": "40%"}, "salt": "spring"}},
            "shadow": {"challengers": ["challenger"]},
        }[shop.arms]
        key = KEYS[shop.role]
        (tiny.folder / "labels.sql").write_text(LABELS.format(key=", ".join(key)))
        (tiny.folder / "expectations.yaml").write_text(yaml.safe_dump(EXPECTED))
        tiny.declare(
            SQL.format(key="customer, order_id" if shop.role != "key" else "customer"),
            sources={name: {"table": f"raw.{name}", "partition_column": "day"} for name in ("orders", "outcomes")},
            features={"key": key},
            scoring=scoring,
            quality={"expectations": "expectations.yaml", "max_quarantined": 1.0},
            min_row_share=0,
            labels={"sql": "labels.sql", "outcome": "returned"},
            monitoring={"performance": {}},
            privacy={"subject": "customer"} | ({"pseudonymize": {"key_env": "SHOP_KEY"}} if shop.pseudonyms else {}),
            **({"deliver": {"out": {"parquet": "delivered"}}} if shop.delivers else {}),
            **({"explanations": {"top": 2}} if shop.explains else {}),
        )
        if shop.pipelines == 2:
            other = tiny.folder.with_name("refunds")
            shutil.copytree(tiny.folder, other)
            text = (other / "defs.yaml").read_text().replace("name: orders", "name: refunds", 1)
            (other / "defs.yaml").write_text(text.replace("parquet: delivered", "parquet: refunded"))

    def _fill(self):
        shop = self.shop
        subject, others = TYPES[shop.sql_type]
        alone = ", ".join(f"'{day}'" for day in sorted(shop.whole)) or "NULL"
        self.tiny.source(
            "CREATE OR REPLACE TABLE raw.orders AS SELECT * EXCLUDE (order_id), order_id::BIGINT AS order_id, "
            f"({others})::{shop.sql_type} AS customer, 'note ' || order_id AS note FROM raw.orders "
            f"WHERE order_id % 50 < {ROWS} AND (day IN ({alone})) IS NOT TRUE",
        )
        self.tiny.source("ALTER TABLE raw.orders ALTER quantity TYPE INTEGER")
        number = ORDER
        for day, rows in sorted(shop.rows.items() if self.there else ()):
            for scored in rows:
                quoted = subject.replace("'", "''")
                self.tiny.source(
                    "INSERT INTO raw.orders (order_id, day, gift, shop, quantity, amount, customer, note) VALUES "
                    f"({number}, '{day}', true, 'plain', {POSSIBLE if scored else IMPOSSIBLE}, {AMOUNT}, '{quoted}', "
                    f"'{NOTE}')"
                )
                number += 1
        self.tiny.source(
            "CREATE TABLE raw.outcomes AS SELECT order_id, customer, day, (hash(order_id) % 2)::INTEGER AS returned "
            "FROM raw.orders"
        )

    @property
    def pipelines(self):
        return [find_pipeline(self.tiny.project, name) for name in find_declarations(self.tiny.project)]

    def happen(self, event, *more):
        """One event of a history."""
        getattr(self, event.replace(" ", "_"))(*more)

    def run(self, days, **options):
        for pipeline in self.pipelines:
            for each in materialize(pipeline, self.tiny.partitions(*days), RunInfo("run", "a test"), **options):
                assert each.error is None, each.error

    def rescore(self, days):
        self.run(days, version=2)

    def edit(self, *days):
        """Everybody's rows of these days change."""
        listed = ", ".join(f"'{day}'" for day in days)
        self.tiny.source(
            f"UPDATE raw.orders SET quantity = CASE WHEN quantity < 50 THEN 1 + quantity % 8 ELSE quantity END, "
            f"gift = NOT gift WHERE day IN ({listed})"
        )

    def killed_run(self, days, fraction):
        if self.there:
            self.killer(self.tiny.root, "run", days=days, line=1 + int(fraction * self.killer.lines["run"]))
        self.run(days)

    def promote(self, version):
        self.tiny.registry.set_alias("returns", "champion", version, by="ada", why="better")
        record_promotions(self.tiny.project)

    def rollback(self):
        with suppress(RollbackError):  # nothing is there to go back to
            rollback(self.tiny.project, "orders", why="worse", by="eve")

    def deliver(self):
        if self.shop.delivers:
            for pipeline in self.pipelines:
                self.tiny.shell("deliver", pipeline.spec.name)

    def performance(self):
        for pipeline in self.pipelines:
            if self.tiny.project.warehouse:
                with workspace(threads=1) as con:
                    evaluate(con, pipeline, now=datetime(2024, 5, 1, tzinfo=UTC))

    def monitor(self):
        self.tiny.shell("monitor", "orders", "--backfill")

    def anchor(self):
        if self.shop.anchored:
            self.tiny.shell("audit", "anchor")

    def erase(self):
        """To its end, in a process of its own."""
        return self.killer(self.tiny.root, "erase", subject=self.shop.subject)

    def forget(self):
        """The sources lose the person too."""
        for table in ("orders", "outcomes"):
            self.tiny.source(f"DELETE FROM raw.{table} WHERE order_id >= {ORDER}")

    # What there is to see.
    def stale(self):
        """Pipeline → its stale partitions."""
        return {
            each.spec.name: [due.partition.key for due in make_plan(each, self.tiny.partitions(*DAYS)).stale]
            for each in self.pipelines
        }

    def faults(self):
        """What the audit and the contents say."""
        with workspace(threads=1) as con, reading(con, self.tiny.project, purpose="test"):
            found = [str(each) for each in content_faults(con)]
        words = ("audit", "verify", "--anchors") if self.shop.anchored else ("audit", "verify")
        said = self.tiny.shell(*words, code=0)
        return found, said

    def rows(self):
        """All that is stored, published and delivered, but for ids and instants."""
        found = {}
        for pipeline in self.pipelines:
            name = pipeline.spec.name
            for query in _QUERIES:
                found[name, query] = self._read(self.tiny.warehouse, query.format(name=name))
            for query in _PUBLISHED:
                found[name, query, "published"] = self._read(self.tiny.published, query.format(name=name))
            folder = self.tiny.root / {"orders": "delivered", "refunds": "refunded"}[name]
            if any(folder.rglob("*.parquet")):
                query = f"SELECT * EXCLUDE ({_IDS}) FROM read_parquet('{folder}/**/*.parquet') ORDER BY ALL"
                found[name, "delivered"] = duckdb.sql(query).fetchall()
        return found

    def _read(self, read, query):
        try:
            return read(query)
        except (duckdb.CatalogException, duckdb.BinderException):
            return []  # no row was ever stored

    def traces(self, backend):
        """Where the person still is."""
        subject, wanted = self.shop.subject, []
        for text in {subject, *stored_values(self.tiny.pipeline(), subject)}:
            wanted += needles(text) + [json.dumps(text)[1:-1].encode(), text.replace("'", "''").encode()]
        wanted += needles(NOTE, AMOUNT, IMPOSSIBLE)
        wanted += [IMPOSSIBLE.to_bytes(4, "little")]
        wanted += [each for number in range(12) for each in needles(ORDER + number)]
        if self.shop.sql_type == "BIGINT":
            wanted += needles(int(subject))
        if self.shop.sql_type == "UUID":
            wanted += [uuid.UUID(subject).bytes]
        if self.shop.sql_type == "TIMESTAMPTZ":
            at = datetime.fromisoformat(subject)
            micros = round((at - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() * 1e6)
            wanted += [micros.to_bytes(8, "little", signed=True)]
        found = scan(self.killer.folder, wanted)
        found += [each for each in scan(self.tiny.root, wanted) if "sources.duckdb" not in each.place]
        return found


_IDS = "scoring_id, feature_revision, scored_at"
_PUBLISHED = (
    f"SELECT * EXCLUDE ({_IDS}) FROM {{name}}.predictions ORDER BY ALL",
    "SELECT * EXCLUDE (scoring_id) FROM {name}.reasons ORDER BY ALL",
    "SELECT partition_key, metric, value, n, rows, labelled FROM {name}.performance ORDER BY ALL",
)
_QUERIES = (
    *_PUBLISHED,
    "SELECT DISTINCT * EXCLUDE (scoring_id), model_version, role FROM {name}.scores JOIN (SELECT scoring_id, "
    "model_version, role FROM ledger.scorings) USING (scoring_id) ORDER BY ALL",
    "SELECT DISTINCT * EXCLUDE (revision) FROM {name}.features ORDER BY ALL",
    "SELECT partition_key, model_version, status, rows_in, rows_scored, rows_quarantined, feature_digest, score_digest "
    "FROM ledger.partitions WHERE pipeline = '{name}' AND is_live ORDER BY ALL",
)
