"""A training set has the rows that scoring would be given, beside the labels that count, and says what it left out."""

from __future__ import annotations

import json
import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from pip_dagster.api.rows import MANIFEST_KEY, read_manifest
from pip_dagster.declaration import grid
from pip_dagster.errors import (
    DeclarationError,
    LeakError,
    NotFoundError,
    PipelineError,
    RangeError,
    StorageError,
    TrainingSetError,
)
from pip_dagster.warehouse import interrupts
from tests.api.conftest import SOURCES

KNOWN = "order_id, day, gift, shop, quantity, amount"
READS = f"SELECT {KNOWN}, (SELECT count(*) FROM raw.outcomes) AS seen FROM raw.orders WHERE day >= $start_date "
READS += "AND day < $end_date"


@pytest.mark.lake
def test_the_rows_equal_those_that_scoring_stored_to_the_bit(shop):
    shop.tiny.run()
    stored = shop.tiny.warehouse("SELECT partition_key, * EXCLUDE (partition_key, revision) FROM orders.features")
    given = shop.orders.features("2024-03-01", "2024-03-04").arrow()
    rows = [tuple(row.values()) for row in given.to_pylist()]
    assert sorted(map(repr, stored)) == sorted(map(repr, rows)) and len(rows) == 200
    types = {field.name: str(field.type) for field in given.schema}
    assert types == {
        **{"partition_key": "string", "order_id": "int64", "day": "date32[day]", "gift": "bool", "shop": "string"},
        **{"quantity": "int32", "amount": "double", "note": "string"},
    }


def test_each_row_has_its_label_and_rows_without_one_stay_unless_they_are_not_wanted(shop):
    rows = shop.rows()
    frame = rows.df()
    assert frame["returned"].isna().sum() == 20 and rows.manifest.labelled == 180
    known = frame.dropna(subset=["returned"])
    assert (known["returned"] == (known["order_id"] % 3 == 0)).all()
    labelled = shop.rows(labelled_only=True)
    assert len(labelled.df()) == 180 and labelled.manifest.unlabelled_dropped == 20
    assert labelled.manifest.left_out == ["20 rows without a label"]


def test_the_order_is_that_of_partition_and_key_whatever_the_batches(shop, monkeypatch):
    from pip_dagster.flow import training_set

    whole = shop.rows().arrow()
    shop.tiny.source("CREATE TABLE raw.shuffled AS FROM raw.orders ORDER BY hash(order_id)", "DROP TABLE raw.orders")
    shop.tiny.source("ALTER TABLE raw.shuffled RENAME TO orders")
    monkeypatch.setattr(training_set, "_PARTITIONS", 1)
    monkeypatch.setattr(training_set, "_ROWS", 60)
    monkeypatch.setattr(training_set, "_BATCH_ROWS", 7)
    rows = shop.rows()
    batches = list(rows.reader())
    assert max(map(len, batches)) == 7
    assert pa.Table.from_batches(batches).equals(whole)
    keys = list(zip(*(whole[name].to_pylist() for name in ("partition_key", "order_id")), strict=True))
    assert keys == sorted(keys)


@pytest.mark.parametrize("sql", ["UPDATE raw.outcomes SET returned = NULL", "INSERT INTO raw.orders FROM raw.orders"])
def test_rows_that_are_not_given_bound_how_much_is_staged_at_once(shop, monkeypatch, sql):
    from pip_dagster.flow import training_set

    monkeypatch.setattr(training_set, "_PARTITIONS", 1)
    monkeypatch.setattr(training_set, "_ROWS", 50)
    shop.tiny.source(sql)
    told = []
    with pytest.raises(TrainingSetError, match="no row is left"):
        shop.rows(progress=told.append).arrow()
    assert [each for each in told if "features of" in each] == [
        f"orders: features of 2024-03-0{n} to 2024-03-0{n}" for n in (1, 2, 3, 4)
    ]


def test_chosen_columns_come_with_the_key_and_a_wrong_one_is_named(shop):
    assert shop.rows(columns=["amount"]).arrow().column_names == [
        *("partition_key", "order_id", "day", "amount", "returned")
    ]
    with pytest.raises(DeclarationError, match="no column Amount2; they have order_id"):
        shop.rows(columns=["Amount2"]).arrow()


def test_batches_may_be_read_in_another_thread_and_left_unread(shop):
    reader = shop.rows().reader()
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(reader.read_all).result().num_rows == 200
    left = shop.rows().reader()
    left.read_next_batch()
    del left
    assert duckdb.from_arrow(shop.rows().reader()).count("*").fetchall() == [(200,)]
    with suppress(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    assert shop.rows().arrow().num_rows == 200, "Ctrl-C between two pieces of work cancels neither"


def test_ctrl_c_while_a_reader_is_kept_half_read_cancels_no_later_work(shop, monkeypatch):
    shop.tiny.run()
    monkeypatch.setattr(interrupts, "_REPEAT_SECONDS", 0.001)
    for rows in (shop.rows(), shop.orders.predictions("2024-03-01", "2024-03-04", live=False)):
        kept = rows.reader()
        with suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert shop.rows().arrow().num_rows == 200
        assert kept.read_all().num_rows == 200


class TestLabels:
    def test_without_declared_labels_it_says_what_to_declare(self, tiny):
        import pip_dagster

        with pytest.raises(DeclarationError, match="declares no labels. Declare `labels`"):
            pip_dagster.open(tiny.root)["orders"].training_set("2024-03-01", "2024-03-04").arrow()

    def test_partitions_whose_labels_are_not_complete_are_left_out(self, shop):
        shop.declare(labels={"complete_after": "36500 days"})
        with pytest.raises(TrainingSetError, match="4 partitions with incomplete labels"):
            shop.rows().arrow()
        rows = shop.rows(mature_only=False)
        assert len(rows.arrow()) == 200 and rows.manifest.immature == ()

    def test_without_a_time_the_newest_with_clearly_fewer_labels_are_left_out_and_others_are_not(self, shop):
        few = "UPDATE raw.outcomes SET returned = NULL WHERE day = '{}' AND order_id % 50 > 20"
        shop.tiny.source(few.format("2024-03-02"), few.format("2024-03-04"))
        rows = shop.rows()
        assert rows.arrow()["partition_key"].unique().to_pylist() == ["2024-03-01", "2024-03-02", "2024-03-03"]
        assert rows.manifest.immature == ("2024-03-04",) and rows.manifest.partitions == 3

    def test_the_manifest_has_nothing_of_partitions_that_wait_for_labels(self, shop):
        rule = {"type": "expect_column_values_to_be_between", "kwargs": {"column": "quantity", "max_value": 50}}
        (shop.tiny.folder / "expectations.yaml").write_text(yaml.safe_dump({"features": [rule]}))
        orders = SOURCES["orders"] | {"complete_after": "36500 days"}
        shop.declare(sources=SOURCES | {"orders": orders}, quality={"expectations": "expectations.yaml"})
        shop.tiny.source(
            "UPDATE raw.orders SET quantity = 99 WHERE order_id % 50 = 1",
            "UPDATE raw.outcomes SET returned = NULL WHERE day = '2024-03-04'",
        )
        rows = shop.rows()
        assert rows.arrow().num_rows == 147
        manifest = rows.manifest
        assert manifest.immature == ("2024-03-04",) and manifest.quarantined == 3
        assert manifest.provisional == ("2024-03-01", "2024-03-02", "2024-03-03")

    @pytest.mark.parametrize(
        ("sql", "error", "message"),
        [
            ("SELECT order_id, true AS returned FROM raw.outcomes WHERE day >= $start_date AND day < $end_date "
             "UNION ALL SELECT 7, false", TrainingSetError,
             r"in partition 2024-03-01, 1 key \(order_id\) has more than one"),
            ("SELECT order_id, 'inf'::DOUBLE AS returned FROM raw.outcomes WHERE day >= $start_date",
             TrainingSetError, "outcomes infinite or NaN. Return NULL"),
            ("SELECT order_id, returned FROM raw.outcomes WHERE day >= $begin", DeclarationError,
             r"labels.sql: \$begin is no parameter; expected \$start, \$end"),
            ("SELECT order_id, nope AS returned FROM raw.outcomes WHERE day >= $start_date", DeclarationError, "nope"),
            ("SELECT 'a' AS order_id, true AS returned FROM raw.outcomes WHERE day >= $start_date AND day < $end_date "
             "LIMIT 1", DeclarationError, "cannot be compared with the stored features"),
        ],
    )  # fmt: skip
    def test_labels_that_are_not_valid_are_refused(self, shop, sql, error, message):
        shop.label(sql)
        with pytest.raises(error, match=message):
            shop.rows().arrow()

    def test_an_outcome_with_the_name_of_a_feature_is_refused(self, shop):
        shop.label("SELECT order_id, returned AS Amount FROM raw.outcomes WHERE day >= $start_date")
        shop.declare(labels={"outcome": "Amount"})
        with pytest.raises(DeclarationError, match="the outcome 'Amount' has the name of the feature column 'amount'"):
            shop.rows().arrow()

    def test_a_key_of_labels_that_the_features_lack_is_named(self, shop):
        shop.declare(labels={"key": ["customer"]}).label(
            "SELECT order_id AS customer, returned FROM raw.outcomes WHERE day >= $start_date AND day < $end_date"
        )
        with pytest.raises(DeclarationError, match="the key has customer, which the features do not have"):
            shop.rows().arrow()

    def test_classes_stay_text_and_decimals_become_numbers(self, shop):
        shop.label(
            "SELECT order_id, CASE WHEN returned THEN 'süd' ELSE 'nord' END AS returned FROM raw.outcomes "
            "WHERE day >= $start_date AND day < $end_date"
        )
        assert set(shop.rows().df()["returned"].dropna()) == {"süd", "nord"}
        shop.label(
            "SELECT order_id, 1.5::DECIMAL(4, 2) AS returned FROM raw.outcomes "
            "WHERE day >= $start_date AND day < $end_date"
        )
        assert str(shop.rows().arrow().schema.field("returned").type) == "double"


class TestWhatScoringRefuses:
    def test_a_partition_with_a_repeated_key_is_left_out_with_the_reason(self, shop):
        shop.tiny.source("INSERT INTO raw.orders FROM raw.orders WHERE order_id = 60")
        rows = shop.rows()
        assert len(rows.arrow()) == 150
        assert "1 key (order_id) occurs more than once, in 2 rows" in rows.manifest.excluded["2024-03-02"]
        assert rows.manifest.left_out == ["1 partition that scoring would refuse"]

    def test_infinite_numbers_refuse_the_partition_unless_the_column_is_not_wanted(self, shop):
        shop.tiny.source("UPDATE raw.orders SET amount = 'inf' WHERE order_id IN (60, 61)")
        rows = shop.rows()
        assert len(rows.arrow()) == 150
        assert rows.manifest.excluded == {
            "2024-03-02": "infinite values, or beyond float32: amount in 2 rows; bound them in the feature SQL"
        }
        assert len(shop.rows(columns=["quantity"]).arrow()) == 200
        result = shop.tiny.run("2024-03-02")["2024-03-02"]
        assert "amount in 2 rows" in str(result.error)  # scoring refuses the same

    def test_quarantined_rows_and_blocked_partitions_are_those_of_scoring(self, shop):
        between = {"column": "quantity", "min_value": 1, "max_value": 8}
        rule = {"type": "expect_column_values_to_be_between", "kwargs": between}
        (shop.tiny.folder / "expectations.yaml").write_text(yaml.safe_dump({"features": [rule]}))
        shop.declare(quality={"expectations": "expectations.yaml", "max_quarantined": 0.1})
        shop.tiny.source(
            "UPDATE raw.orders SET quantity = 99 WHERE day = '2024-03-02' AND order_id % 50 < 3",
            "UPDATE raw.orders SET quantity = 99 WHERE day = '2024-03-03' AND order_id % 50 < 30",
        )
        rows = shop.rows()
        given = rows.df()
        results = shop.tiny.run()
        scored = {key: each.scoring.rows_scored for key, each in results.items() if not each.error}
        assert (
            given.groupby("partition_key").size().to_dict()
            == scored
            == {**{"2024-03-01": 50, "2024-03-02": 47, "2024-03-04": 50}}
        )
        assert rows.manifest.quarantined == 3
        assert "30 of 50 rows are in quarantine" in rows.manifest.excluded["2024-03-03"]
        assert "30 of 50 rows are in quarantine" in results["2024-03-03"].error

    def test_if_nothing_is_left_the_error_has_the_reasons_and_they_are_fields_of_it(self, shop):
        shop.tiny.source("INSERT INTO raw.orders FROM raw.orders")
        with pytest.raises(TrainingSetError, match="orders, 2024-03-01 to 2024-03-04: no row is left") as caught:
            shop.rows().arrow()
        assert caught.value.pipeline == "orders" and len(caught.value.excluded) == 4

    def test_an_empty_range_has_columns_and_no_rows(self, shop):
        empty = shop.orders.features("2024-03-10", "2024-03-12").arrow()
        assert len(empty) == 0 and "amount" in empty.column_names
        with pytest.raises(TrainingSetError, match="the sources have no row, or no row has a label"):
            shop.rows("2024-03-10", "2024-03-12").arrow()


class TestPointInTime:
    @pytest.fixture
    def late(self, shop):
        """Outcomes are known five days after their day, when each of the four days has long closed."""
        shop.tiny.source("ALTER TABLE raw.outcomes ADD COLUMN known_at TIMESTAMPTZ")
        shop.tiny.source("UPDATE raw.outcomes SET known_at = day::TIMESTAMP AT TIME ZONE 'UTC' + INTERVAL 5 DAY")
        outcomes = {"table": "raw.outcomes", "partition_column": "day", "available_at": "known_at"}
        self.sources = {"orders": {"table": "raw.orders", "partition_column": "day"}, "outcomes": outcomes}
        return shop.declare(READS, sources=self.sources)

    def test_sql_that_reads_later_rows_is_refused_and_the_features_are_named(self, late):
        with pytest.raises(LeakError, match="features depend on rows that were not available.*seen in 50 rows") as leak:
            late.rows().arrow()
        assert (leak.value.partition, leak.value.features) == ("2024-03-01", ("seen",))
        assert "as_known" in str(leak.value) and "prove=0" in str(leak.value)

    def test_as_known_hides_what_came_later_and_then_the_proof_holds(self, late):
        rows = late.rows(as_known=True)
        assert set(rows.df()["seen"]) == {0} and rows.manifest.as_known
        assert rows.manifest.proof.verdict == "holds" and len(rows.manifest.proof.partitions) == 3
        assert set(late.rows(prove=0).df()["seen"]) == {200}
        stored = late.tiny.run(as_known=True)
        assert stored["2024-03-01"].features.sql_digest == rows.manifest.features_digest

    def test_a_row_that_comes_late_is_a_leak_of_its_partition(self, late):
        own = {"table": "raw.orders", "partition_column": "day", "available_at": "known_at"}
        late.tiny.source("ALTER TABLE raw.orders ADD COLUMN known_at TIMESTAMPTZ")
        late.tiny.source("UPDATE raw.orders SET known_at = day", "UPDATE raw.orders SET known_at = '2025-01-01' "
                         "WHERE order_id = 3")  # fmt: skip
        late.declare(READS.split(", (")[0] + READS.split("seen")[1], sources=self.sources | {"orders": own})
        with pytest.raises(LeakError, match="2024-03-01"):
            late.rows().arrow()
        assert len(late.rows(as_known=True).arrow()) == 199

    def test_without_availability_nothing_can_be_proven_and_that_is_recorded(self, shop):
        rows = shop.rows()
        rows.arrow()
        assert rows.manifest.proof.verdict == "not provable"
        assert "not provable: no source declares `available_at`" in repr(rows)
        with pytest.raises(DeclarationError, match="no source declares `available_at`"):
            shop.rows(as_known=True).arrow()

    def test_when_only_labels_become_available_later_nothing_is_proven_of_features(self, late):
        late.declare(READS.split(", (")[0] + READS.split("seen")[1], sources=self.sources)
        rows = late.rows()
        rows.arrow()
        assert rows.manifest.proof.verdict == "not provable" and rows.manifest.proof.unlimited_sources == ("orders",)


class TestRanges:
    def test_a_range_may_begin_before_the_grid(self, shop):
        shop.declare(partitions={"start": "2024-03-03"})
        assert len(shop.rows("2024-03-01", "2024-03-02").arrow()) == 100
        assert len(shop.orders.training_set(end="2024-03-04").arrow()) == 100  # the grid's own by default

    @pytest.mark.parametrize("bounds", [(date(2024, 3, 2), date(2024, 3, 3)), ("2024-03-02", datetime(2024, 3, 3, 9))])
    def test_dates_and_times_are_bounds_too(self, shop, bounds):
        assert shop.rows(*bounds).arrow()["partition_key"].unique().to_pylist() == ["2024-03-02", "2024-03-03"]

    @pytest.mark.parametrize(
        ("bounds", "message"),
        [
            (("yesterday", "2024-03-02"), "'yesterday' is no date, time or partition key; expected for example"),
            (("2024-03-02", "2024-03-01"), "it starts at 2024-03-02 and ends before"),
            (("0001-01-01", "2024-03-01"), "before 1900"),
            (("2024-03-01", datetime.now(UTC) + timedelta(days=2)), "is not over; end the range before it"),
            (("2024-03-01", date.max), "a bound is beyond the calendar; expected one from 1900 to now"),
        ],
    )
    def test_a_range_that_is_not_valid_is_refused_at_once(self, shop, bounds, message):
        with pytest.raises(RangeError, match=f"Pipeline orders: .*{message}") as caught:
            shop.rows(*bounds)
        assert caught.value.pipeline == "orders"

    def test_a_range_without_end_is_refused_before_its_partitions_are_listed(self, shop, monkeypatch):
        listed, of_grid = [], grid._partitions
        monkeypatch.setattr(
            grid, "_partitions", lambda declared: (listed.append(each) or each for each in of_grid(declared))
        )
        with pytest.raises(RangeError, match="is not over"):
            shop.rows("2024-03-01", "9998-12-31")
        assert len(listed) < 10_000

    def test_hours_that_the_clocks_repeat_are_two_partitions_in_order(self, shop):
        at = "TIMESTAMPTZ '2024-10-27 00:00:00+02' + to_minutes(order_id::INT * 3)"
        sql = f"SELECT order_id, {at} AS at, amount FROM raw.orders WHERE {at} >= $start AND {at} < $end"
        hours = {"every": "hour", "start": "2024-10-01", "time_zone": "Europe/Berlin", "end": "2024-12-01"}
        shop.declare(sql, partitions=hours, features={"partition_column": "at"})
        rows = shop.orders.features("2024-10-27", "2024-10-27").arrow()
        assert rows["order_id"].to_pylist() == list(range(200))
        assert rows["partition_key"].unique().to_pylist()[2:4] == ["2024-10-27-02:00", "2024-10-27-02:00+0100"]
        second = shop.orders.features("2024-10-27-02:00+0100", "2024-10-27-02:00+0100").arrow()
        assert second["order_id"].to_pylist() == list(range(60, 80))

    def test_days_are_those_of_the_time_zone(self, shop):
        at = "day::TIMESTAMP AT TIME ZONE 'UTC' + INTERVAL 2 HOUR"  # still the day before in New York
        sql = f"SELECT order_id, {at} AS at, amount FROM raw.orders WHERE {at} >= $start AND {at} < $end"
        shop.declare(sql, partitions={"time_zone": "America/New_York"}, features={"partition_column": "at"})
        rows = shop.orders.features("2024-02-29", "2024-03-01").arrow()
        assert rows["partition_key"].value_counts().to_pylist() == [
            {"values": "2024-02-29", "counts": 50},
            {"values": "2024-03-01", "counts": 50},
        ]


class TestFiles:
    def test_the_manifest_is_in_the_file_and_equal_content_gives_equal_bytes(self, shop):
        rows = shop.rows()
        with pytest.raises(TrainingSetError, match="not read yet"):
            _ = rows.manifest
        first = rows.write(shop.root / "a.parquet").read_bytes()
        assert shop.rows().write(shop.root / "b.parquet").read_bytes() == first
        found = read_manifest(shop.root / "a.parquet")
        assert found == rows.manifest and found.rows == 200 and found.outcome == "returned"
        assert set(found.sources) == {"orders"} and found.digest.startswith("dh1:")
        table = shop.rows().arrow()
        assert json.loads(table.schema.metadata[MANIFEST_KEY])["rows"] == 200
        assert pq.read_table(shop.root / "a.parquet").equals(table)
        assert duckdb.sql(f"SELECT count(*) FROM '{shop.root}/a.parquet'").fetchall() == [(200,)]

    def test_a_changed_source_or_label_gives_another_digest(self, shop):
        def digest():
            rows = shop.rows()
            rows.arrow()
            return rows.manifest.digest, rows.manifest.sources["orders"], rows.manifest.labels_digest

        before = digest()
        shop.tiny.source("UPDATE raw.outcomes SET returned = true WHERE order_id = 1")
        labelled = digest()
        assert labelled[0] != before[0] and labelled[1:] == before[1:]
        shop.tiny.source("UPDATE raw.orders SET amount = 1 WHERE order_id = 1")
        assert digest()[1] != before[1]

    def test_a_file_is_replaced_when_it_is_complete_and_else_unchanged(self, shop):
        file = shop.root / "a.parquet"
        file.write_text("before")
        shop.tiny.source("INSERT INTO raw.orders FROM raw.orders")
        with pytest.raises(TrainingSetError):
            shop.rows().write(file)
        assert file.read_text() == "before" and not list(shop.root.glob(".a.parquet*"))
        with pytest.raises(StorageError, match="nowhere/a.parquet cannot be written"):
            shop.orders.features("2024-03-10", "2024-03-10").write(shop.root / "nowhere" / "a.parquet")

    def test_a_file_without_a_manifest_is_no_training_set(self, shop):
        pq.write_table(pa.table({"x": [1]}), shop.root / "x.parquet")
        with pytest.raises(NotFoundError, match="is no training set"):
            read_manifest(shop.root / "x.parquet")
        with pytest.raises(NotFoundError, match="cannot be read"):
            read_manifest(shop.root / "y.parquet")


@pytest.mark.parametrize(
    ("expression", "in_arrow"),
    [
        ("(order_id * 1.5)::DECIMAL(9, 2)", "double"),
        ("sum(order_id) OVER ()", "double"),  # a HUGEINT
        ("INTERVAL 3 DAY", "string"),
        ("[order_id, 2]", "list<l: int64>"),
        ("'x'::ENUM ('x', 'y')", "dictionary<values=string, indices=uint8, ordered=0>"),
        ("{'a': 1::HUGEINT}", "string"),
        ("uuid()", "string"),
    ],
)
def test_columns_of_any_type_are_written_and_read(shop, expression, in_arrow):
    shop.declare(
        f"SELECT order_id, day, {expression} AS it FROM raw.orders WHERE day >= $start_date AND day < $end_date"
    )
    rows = shop.orders.features("2024-03-01", "2024-03-02")
    assert str(rows.arrow().schema.field("it").type) == in_arrow
    rows.write(shop.root / "a.parquet")
    assert pq.read_table(shop.root / "a.parquet").num_rows == 100


def test_whole_numbers_with_gaps_stay_whole_in_pandas(shop):
    shop.declare(
        "SELECT order_id, day, nullif(quantity, 3)::SMALLINT AS q, nullif(gift, true) AS g, "
        "(order_id % 7)::UTINYINT AS u FROM raw.orders WHERE day >= $start_date AND day < $end_date"
    )
    frame = shop.orders.features("2024-03-01", "2024-03-04").df()
    assert [str(frame[name].dtype) for name in "qgu"] == ["Int16", "boolean", "uint8"]
    assert str(frame["day"].dtype).startswith("datetime64")


def test_a_source_that_is_gone_and_sql_that_fails_are_errors_with_the_pipeline(shop):
    shop.declare("SELECT order_id, day, nope FROM raw.orders WHERE day >= $start_date AND day < $end_date")
    with pytest.raises(DeclarationError, match="Pipeline orders, features.sql"):
        shop.rows().arrow()
    (shop.root / "sources.duckdb").unlink()
    with pytest.raises(PipelineError, match="There is no DuckDB file"):
        shop.rows().arrow()
