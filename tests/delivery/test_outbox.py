"""The outbox: exactly what is live goes to each target, whatever made it live, and the ledger says so."""

import json
import os
import shutil
import threading
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pytest

from pip_dagster.alerts.notify import beside
from pip_dagster.delivery import outbox, staging
from pip_dagster.delivery.outbox import DeliveryRequest, deliver, pending_now
from pip_dagster.ledger.deliveries import delivered_keys, shown_at
from pip_dagster.ledger.record import RunInfo
from pip_dagster.warehouse.access import reading
from pip_dagster.warehouse.connect import workspace
from pip_dagster.warehouse.lock import exclusive

DAYS = ["2024-03-01", "2024-03-02", "2024-03-03", "2024-03-04"]
LAKE = {"lake": {"parquet": "out/lake", "retries": 0}}


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch):
    monkeypatch.setattr(outbox, "BACKOFF_SECONDS", 0.01)


def delivered(tiny, *partitions, targets=("lake",), lines=None):
    """What became of the deliveries, target by target."""
    pipeline = tiny.pipeline()
    request = DeliveryRequest(RunInfo("run-1", "a test"), tuple(targets), tuple(partitions) or None)
    progress = ([] if lines is None else lines).append
    return {each.target: each for each in deliver(pipeline, request, progress=progress)}


@contextmanager
def reading_of(tiny):
    with workspace(threads=1) as con, reading(con, tiny.pipeline().project, purpose="a test"):
        yield con


def shown(tiny, key, target="lake"):
    """What a reader of the manifest sees of a partition, as dictionaries."""
    folder = tiny.root / "out" / target / key
    manifest = json.loads((folder / "latest.json").read_text())
    files = [str(folder / each["path"]) for each in manifest["files"]]
    with duckdb.connect() as con:
        con.execute("SET TimeZone = 'UTC'")
        result = con.execute("FROM read_parquet(?) ORDER BY ALL", [files])
        names = [column[0] for column in result.description]
        return manifest, [dict(zip(names, row, strict=True)) for row in result.fetchall()]


def live(tiny, key, columns="*"):
    result = tiny.published(f"SELECT {columns} FROM orders.predictions WHERE partition_key = '{key}' ORDER BY ALL")
    return sorted(map(tuple, result), key=repr)


def assert_equal_to_live(tiny, keys=DAYS):
    """What the target shows is what is published, of every partition, and of the scoring that is live."""
    for key in keys:
        manifest, rows = shown(tiny, key)
        assert sorted((tuple(row.values()) for row in rows), key=repr) == live(tiny, key)
        [[change, scoring]] = tiny.warehouse(
            f"SELECT change_id, scoring_id FROM ledger.live WHERE partition_key = '{key}'"
        )
        assert (manifest["change_id"], manifest["scoring_ids"]) == (change, [scoring])
    assert pending_now(tiny.pipeline())["lake"] == []


@pytest.mark.lake
def test_what_is_live_is_delivered_once(scored):
    scored.declare(deliver=LAKE)
    first = delivered(scored)["lake"]
    assert sorted(first.receipts) == DAYS
    assert first.is_complete
    assert_equal_to_live(scored)
    assert delivered(scored)["lake"].receipts == {}
    rows = scored.warehouse("SELECT target, kind, partition_key, state, attempts, rows, error FROM ledger.deliveries")
    assert sorted(rows) == [("lake", "parquet", key, "delivered", 1, 50, None) for key in DAYS]
    places = scored.warehouse("SELECT place, receipt->>'files' FROM ledger.deliveries ORDER BY partition_key")
    assert places[0][0] == str(scored.root / "out" / "lake" / DAYS[0])
    assert all(os.path.exists(file) for file in json.loads(places[0][1]))  # noqa: PTH110


@pytest.mark.slice
def test_exactly_the_partitions_that_changed_are_delivered_again(scored):
    """A correction of a source, a rollback, and a rerun by another version."""
    scored.declare(deliver=LAKE)
    delivered(scored)
    scored.source("UPDATE raw.orders SET quantity = 1 + quantity % 8 WHERE day = DATE '2024-03-02'")
    scored.run("2024-03-02", "2024-03-03")
    assert [*delivered(scored)["lake"].receipts] == ["2024-03-02"]
    scored.run("2024-03-01", version=2)
    assert [*delivered(scored)["lake"].receipts] == ["2024-03-01"]
    assert_equal_to_live(scored)
    scored.shell("models", "rollback", "orders", "2024-03-01")
    delivered(scored)
    assert shown(scored, "2024-03-01")[0]["kind"] == "rollback"
    assert_equal_to_live(scored)


def test_the_arms_of_a_split_are_delivered_as_they_are_live(scored):
    scored.registry.set_alias("returns", "challenger", 2, by="ada", why="a test")
    split = {"arms": {"challenger": "40%"}, "salt": "spring"}
    scored.declare(deliver=LAKE)
    delivered(scored)
    scored.declare(deliver=LAKE, scoring={"split": split})
    scored.source("UPDATE raw.orders SET quantity = 1 + quantity % 8 WHERE day = DATE '2024-03-02'")
    scored.run("2024-03-02")
    assert [*delivered(scored)["lake"].receipts] == ["2024-03-02"]
    manifest, rows = shown(scored, "2024-03-02")
    assert sorted((tuple(row.values()) for row in rows), key=repr) == live(scored, "2024-03-02")
    assert {row["scoring_id"] for row in rows} == {*manifest["scoring_ids"]}
    assert len(manifest["scoring_ids"]) == 2


def test_columns_are_renamed_and_rows_filtered(scored):
    columns = {"order": "order_id", "prediction": "score"}
    scored.declare(deliver={"lake": {"parquet": "out/lake", "columns": columns, "where": "score >= 0.5"}})
    delivered(scored)
    manifest, rows = shown(scored, DAYS[0])
    expected = [row for row in live(scored, DAYS[0], "order_id, score") if row[1] >= 0.5]
    assert 0 < len(expected) < 50
    assert sorted((row["order"], row["prediction"]) for row in rows) == sorted(expected)
    assert [*manifest["columns"]] == ["partition_key", "order", "prediction"]
    assert manifest["rows"] == len(expected)


ASKED = """
  SELECT partition_key, target, d.state
  FROM ledger.deliveries d JOIN ledger.partitions p USING (pipeline, partition_key)
  WHERE p.is_live AND d.change_id = p.live_change
  QUALIFY row_number() OVER (PARTITION BY pipeline, partition_key, target ORDER BY delivery_id DESC) = 1 ORDER BY ALL
"""


def test_readers_can_ask_what_was_delivered(scored):
    """At once, not after the next run; and what a change costs stays what it was."""
    there = "SELECT count(*) FROM duckdb_views() WHERE view_name = 'deliveries'"
    assert scored.published(there) == [(0,)]
    scored.declare(deliver=LAKE)
    delivered(scored)
    assert scored.published(ASKED) == [(key, "lake", "delivered") for key in DAYS]
    columns = [row[0] for row in scored.published("DESCRIBE ledger.deliveries")]
    assert "place" in columns and "receipt" not in columns
    scored.source("UPDATE raw.orders SET quantity = 1 + quantity % 8 WHERE day = DATE '2024-03-02'")
    scored.run("2024-03-02")
    assert scored.published(ASKED) == [(key, "lake", "delivered") for key in DAYS if key != "2024-03-02"]
    files = {file: file.stat().st_ino for file in scored.project.published.glob("*/*.duckdb")}
    delivered(scored)
    assert scored.published(ASKED) == [(key, "lake", "delivered") for key in DAYS]
    assert {file: file.stat().st_ino for file in files} != files
    files = {file: file.stat().st_ino for file in files}
    assert delivered(scored)["lake"].receipts == {}
    assert {file: file.stat().st_ino for file in files} == files, "nothing was delivered, so nothing is published"
    assert "intact" in scored.shell("audit", "verify", code=4)


def test_a_changed_declaration_makes_every_partition_pending_and_no_partition_stale(scored):
    scored.declare(deliver=LAKE)
    delivered(scored)
    scored.declare(deliver={"lake": LAKE["lake"] | {"columns": ["order_id"]}})
    assert len(pending_now(scored.pipeline())["lake"]) == 4
    stale = json.loads(scored.shell("plan", "orders", DAYS[0] + ".." + DAYS[3], "--json"))["stale"]
    assert stale == [], "nothing is scored again"
    delivered(scored)
    assert [*shown(scored, DAYS[0])[0]["columns"]] == ["partition_key", "order_id"]
    scored.declare(deliver={"lake": LAKE["lake"] | {"columns": ["order_id"], "retries": 5, "alarm_after": "2 hours"}})
    assert pending_now(scored.pipeline())["lake"] == []


@pytest.mark.slice
def test_a_declaration_that_is_as_it_was_before_is_delivered_again(scored):
    """The target shows what was delivered last, not what was delivered first."""
    scored.declare(deliver=LAKE)
    delivered(scored)
    scored.declare(deliver={"lake": LAKE["lake"] | {"where": "score > 2"}})
    delivered(scored)
    scored.declare(deliver=LAKE)
    assert len(pending_now(scored.pipeline())["lake"]) == 4
    with reading_of(scored) as con:
        assert delivered_keys(con, "orders", "lake", scored.pipeline().spec.deliver["lake"].digest, 9) == []
        assert shown_at(con, "orders", {"lake": scored.pipeline().spec.deliver["lake"].digest}, DAYS[:1]) == {
            DAYS[0]: {}
        }
    delivered(scored)
    assert_equal_to_live(scored)


def test_a_filter_that_fails_on_a_row_is_one_sentence_without_the_row(scored):
    scored.declare(deliver={"lake": LAKE["lake"] | {"where": "partition_key::INTEGER > 1"}})
    text = delivered(scored)["lake"].failed[DAYS[0]]
    assert "deliver.lake: `where` cannot be computed for a row of the partition: Conversion Error" in text
    assert "TRY_CAST" in text
    assert f"'{DAYS[0]}'" not in text, "what a row has must not come into the ledger"
    found = scored.shell("deliver", "orders", DAYS[0], "--verify", code=3)
    assert "`where` cannot be computed" in found


def test_a_function_may_end_in_any_way_and_return_anything(scored):
    (scored.root / "odd_target.py").write_text(
        "import sys\ndef odd(change, reader):\n    return {('a', 1): change.rows}\n"
        "def leave(change, reader):\n    sys.exit(0)\n"
    )
    scored.declare(deliver={"own": {"python": "odd_target:odd"}, "out": {"python": "odd_target:leave", "retries": 0}})
    found = delivered(scored, targets=("own", "out"))
    assert found["own"].is_complete
    assert "odd_target:leave raised SystemExit" in found["out"].failed[DAYS[0]]
    assert pending_now(scored.pipeline())["own"] == []
    [(receipt,)] = scored.warehouse("SELECT DISTINCT receipt FROM ledger.deliveries WHERE state = 'delivered'")
    assert receipt == """{"returned": "{('a', 1): 50}"}"""


def test_a_filter_that_lets_no_row_through_delivers_empty_partitions(scored):
    scored.declare(deliver={"lake": {"parquet": "out/lake", "where": "score > 2"}})
    assert delivered(scored)["lake"].is_complete
    manifest, rows = shown(scored, DAYS[0])
    assert (manifest["rows"], rows) == (0, [])
    assert "score" in manifest["columns"]


def test_a_target_that_is_down_delays_only_itself(scored):
    """The other targets get everything; it gets everything once it is back."""
    module = "def take(change, reader):\n    raise ConnectionError('no route to host')\n"
    (scored.root / "broken_target.py").write_text(module)
    scored.declare(deliver=LAKE | {"own": {"python": "broken_target:take", "retries": 1}})
    done = delivered(scored, targets=("lake", "own"))
    assert done["lake"].is_complete
    own = done["own"]
    assert [*own.failed] == [DAYS[0]], "it is not called for the other partitions"
    assert own.left == 3
    assert "raised ConnectionError" in own.failed[DAYS[0]] and "no route" not in own.failed[DAYS[0]]
    found = scored.warehouse("SELECT state, attempts, error FROM ledger.deliveries WHERE target = 'own'")
    assert [(state, attempts) for state, attempts, _ in found] == [("failed", 2)]
    waiting = pending_now(scored.pipeline())
    assert (len(waiting["lake"]), len(waiting["own"])) == (0, 4)
    assert "raised ConnectionError" in waiting["own"][0].error


def test_a_function_gets_the_change_and_its_rows(scored):
    (scored.root / "own_target.py").write_text(
        "taken = []\ndef take(change, reader):\n"
        "    taken.append((change.partition_key, change.rows, reader.read_all().num_rows))\n    return {'batch': 7}\n"
    )
    scored.declare(deliver={"own": {"python": "own_target:take"}})
    assert delivered(scored, targets=("own",))["own"].is_complete
    from own_target import taken

    assert taken == [(key, 50, 50) for key in DAYS]
    assert scored.warehouse("SELECT DISTINCT receipt FROM ledger.deliveries") == [('{"batch": 7}',)]


def test_no_file_of_rows_has_the_name_of_another(scored, monkeypatch):
    """DuckDB would read what it keeps of the one before: garbage, or that one's rows, where the clock has not moved."""
    files, copy = [], staging._copy
    monkeypatch.setattr(staging, "_copy", lambda *of: files.append(of[2]) or copy(*of))
    scored.declare(deliver=LAKE)
    delivered(scored)
    assert len({*files}) == len(files) == 4


def test_a_file_that_somebody_changed_is_found_and_delivered_again_by_name(scored):
    scored.declare(deliver=LAKE)
    delivered(scored)
    assert "4 partitions read back, as live; 0 not" in scored.shell("deliver", "orders", "--verify")
    folder = scored.root / "out" / "lake" / DAYS[1]
    file = folder / json.loads((folder / "latest.json").read_text())["files"][0]["path"]
    with duckdb.connect() as con:
        con.execute(f"COPY (SELECT * REPLACE (0.5::FLOAT AS score) FROM '{file}') TO '{file}.new' (FORMAT parquet)")
    shutil.move(f"{file}.new", file)
    text = scored.shell("deliver", "orders", "--verify", code=3)
    assert DAYS[1] in text
    assert "their values are not" in text
    scored.shell("deliver", "orders", DAYS[1])
    assert "4 partitions read back, as live; 0 not" in scored.shell("deliver", "orders", "--verify")


@pytest.mark.slice
def test_what_is_not_published_is_not_delivered(scored, monkeypatch):
    scored.declare(deliver=LAKE)
    delivered(scored)
    scored.source("UPDATE raw.orders SET quantity = 1 + quantity % 8 WHERE day = DATE '2024-03-02'")
    monkeypatch.setattr("pip_dagster.warehouse.access.publish_pending", lambda *_, **__: 0)
    scored.run("2024-03-02")
    done = delivered(scored)["lake"]
    assert (done.receipts, done.left) == ({}, 1)
    monkeypatch.undo()
    assert [*delivered(scored)["lake"].receipts] == ["2024-03-02"]
    assert_equal_to_live(scored)


def test_one_that_waited_in_vain_fails_only_if_something_is_left(scored, monkeypatch):
    monkeypatch.setenv("PIP_DAGSTER_LOCK_DEADLINE", "0.2")
    scored.declare(deliver=LAKE)
    with exclusive(beside(scored.pipeline(), "orders.deliver.lake.lock"), purpose="another deliverer"):
        done = delivered(scored)["lake"]
        assert "another deliverer" in done.error
        assert done.left == 4
    delivered(scored)
    with exclusive(beside(scored.pipeline(), "orders.deliver.lake.lock"), purpose="another deliverer"):
        assert delivered(scored)["lake"].is_complete


@pytest.mark.slice
def test_two_deliverers_at_once_end_alike(scored):
    scored.declare(deliver=LAKE)
    threads = [threading.Thread(target=delivered, args=[scored]) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert_equal_to_live(scored)


@pytest.mark.slice
@pytest.mark.lake("only")
def test_a_lake_that_publishes_nothing_is_delivered_from(scored):
    file = scored.root / "pyproject.toml"
    file.write_text(file.read_text().replace('published = "state/published"', 'published = "none"'))
    scored.declare(deliver=LAKE)
    assert sorted(delivered(scored)["lake"].receipts) == DAYS
    manifest, rows = shown(scored, DAYS[0])
    found = scored.warehouse(f"SELECT order_id, score FROM orders.predictions WHERE partition_key = '{DAYS[0]}'")
    assert sorted((row["order_id"], row["score"]) for row in rows) == sorted(found)
    assert manifest["rows"] == 50
    assert pending_now(scored.pipeline())["lake"] == []


KILLED = """
import os, sys, threading
from pip_dagster.declaration.find import find_pipeline
from pip_dagster.declaration.project import Project
from pip_dagster.delivery.outbox import DeliveryRequest, deliver
from pip_dagster.ledger.record import RunInfo

sys.path.insert(0, sys.argv[2])
from delivery_killer import killing

trace = killing(int(sys.argv[1]))
pipeline = find_pipeline(Project.find(), "orders")
threading.settrace(trace)
sys.settrace(trace)
deliver(pipeline, DeliveryRequest(RunInfo("killed", "a test"), ("lake",)))
os._exit(0)
"""


@pytest.mark.slice
@pytest.mark.parametrize("lines", [(150, 260, 420), pytest.param(range(10, 700, 6), marks=pytest.mark.soak)])
def test_a_kill_of_the_outbox_at_any_line_leaves_what_the_next_run_completes(scored, lines):
    """Between delivery and record too: the change is delivered again, and the target has it already."""
    scored.declare(deliver=LAKE)
    codes = set()
    for at in lines:
        process = scored.python(KILLED, str(at), str(Path(__file__).parent))
        output = process.communicate()[0]
        assert process.returncode in (0, 9), output
        codes.add(process.returncode)
        for folder in (scored.root / "out" / "lake").glob("2024-*"):
            if (folder / "latest.json").exists():
                assert len(shown(scored, folder.name)[1]) == 50
        delivered(scored)
        assert_equal_to_live(scored)
        scored.source("UPDATE raw.orders SET quantity = 1 + quantity % 8 WHERE day <= DATE '2024-03-02'")
        scored.run("2024-03-01", "2024-03-02")
    assert 9 in codes


UNFIT = (
    ({"parquet": "out", "columns": {"prediction": "scor"}}, "did you mean 'score'"),
    ({"parquet": "out", "where": "scor > 1"}, "did you mean 'score'"),
    ({"parquet": "out", "where": "score + 1"}, "expected BOOLEAN"),
    ({"parquet": "state/published/lake"}, "removes others. Give it another folder"),
    ({"delta": "state/published"}, "removes others. Give it another folder"),
    ({"python": "no_such_module:take"}, "No module named 'no_such_module'"),
)


def test_what_does_not_fit_the_predictions_is_an_error_that_names_it(scored):
    for target, what in UNFIT:
        scored.declare(deliver={"own": target})
        text = scored.shell("deliver", "orders", code=3)
        assert what in text
        assert "Pipeline orders" in text
        assert "Traceback" not in text


REFUSED = (
    ({"a": {"parquet": "out", "delta": "out"}}, "it has `parquet` and `delta`"),
    ({"a": {"columns": ["score"]}}, "it has none"),
    ({"a": {"parquet": "out", "where": "score > (SELECT 1)"}}, "a subquery"),
    ({"a": {"parquet": "out", "where": "now() > scored_at"}}, "depends on more than the row"),
    ({"a": {"postgres": "postgresql://me:secret@host/db"}}, "must not be an address"),
    ({"a": {"parquet": "out"}, "b": {"parquet": "out/"}}, "have the same place"),
    ({"a": {"delta": "out/d"}, "b": {"delta": "./out//d"}}, "have the same place"),
    ({"a": {"parquet": "out"}, "b": {"delta": "out"}}, "have the same place"),
    ({"a": {"parquet": "out", "columns": {"Partition_Key": "score"}}}, "would be a second `partition_key`"),
    ({"a": {"parquet": "~/lake"}}, "which only a shell replaces"),
    ({"a": {"delta": "$HOME/lake"}}, "which only a shell replaces"),
    ({"a": {"parquet": "gs://bucket/path"}}, "cannot be gs://"),
    ({"a": {"parquet": "out", "columns": {"Score": "score", "score": "order_id"}}}, "is given twice"),
)


def test_a_declaration_that_cannot_be_is_refused_at_load(scored):
    for targets, what in REFUSED:
        scored.declare(deliver=targets)
        text = scored.shell("deliver", "orders", code=1)
        assert what in text
        assert "secret" not in text.replace("may hold a secret", "")
