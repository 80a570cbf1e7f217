"""Whatever a forger alters who may write warehouse, registry and published files is found, and named, by one command.

The forger has neither the key nor the places of the anchors, but where an alteration is of an anchor.
"""

import json
import shutil
import subprocess
from datetime import timedelta

import duckdb
import pytest
from click.testing import CliRunner
from tampered import FIRST, SECOND, THIRD, one_value, prepare, with_fitting_hashes

from pip_dagster.cli.main import cli
from pip_dagster.registry.signing import keygen
from pip_dagster.warehouse import kinds
from pip_dagster.warehouse.published_digest import columns_by_digest, digest_sql, secret_of

pytestmark = pytest.mark.slice  # `test_anchors.py` has the quick ones

TABLES = sorted(kind.name for kind in kinds.KINDS if kind.schema == kinds.LEDGER and kind.form == "table")
NOT_COVERED = {"publications", "meta", "audit", "anchor_nonces"}
VIEWS = [
    *(f"ledger.{kind.name}" for kind in kinds.KINDS if kind.schema == kinds.LEDGER and kind.form == "view"),
    "ledger.live_arms",
    *(f"orders.{name}" for name in ("features", "scores", "quarantine", "reasons", "predictions", "performance")),
    *(f"orders.{name}" for name in ("estimates", "drift")),
]


@pytest.fixture
def base(gated_template, backend, helpers):
    return backend.once("tampered", gated_template, lambda root: prepare(helpers.Gated(root), root))


@pytest.fixture
def shop(base, backend, tmp_path, helpers, monkeypatch):
    monkeypatch.setattr("pip_dagster.evidence.verify._ON_ITS_WAY", timedelta(0))
    return helpers.with_own_views(helpers.Gated(backend.copied(base, tmp_path / "shop")))


def verified(shop, code=1):
    return shop.shell("audit", "verify", "--anchors", code=code)


def faults(shop):
    answer = json.loads(shop.shell("audit", "verify", "--anchors", "--json", code=1))
    assert answer["fault"] == answer["faults"][0]
    return "\n".join(fault["message"] for fault in answer["faults"])


def stored(shop, kind):
    """The table of this kind, with its rows' scoring or revision, of a partition that is live."""
    ((name,),) = shop.warehouse(
        f"SELECT table_name FROM duckdb_tables() WHERE schema_name = 'orders' AND starts_with(table_name, '{kind}__')"
    )
    return f"orders.{name}"


class TestWhatWasNotAltered:
    def test_agrees(self, shop):
        assert "agrees with" in verified(shop, 0)

    @pytest.mark.soak
    def test_after_a_run_a_rollback_a_promotion_and_a_publication(self, shop):
        shop.source(f"UPDATE raw.orders SET quantity = 5 WHERE day = '{SECOND}'")
        shop.run(SECOND)
        verified(shop, 0)
        shop.shell("audit", "anchor")
        shop.shell("models", "promote", "returns", "v2", "--override", "again")
        shop.run(THIRD)
        verified(shop, 0)
        shop.shell("models", "rollback", "orders", "--why", "again")
        shop.shell("publish")
        assert "agrees with" in verified(shop, 0)

    @pytest.mark.soak
    def test_of_a_project_that_was_moved(self, base, backend, tmp_path, helpers):
        moved = helpers.Gated(backend.copied(base, tmp_path / "elsewhere"))
        verified(moved, 0)


class TestTheChain:
    @pytest.mark.parametrize(
        ("statement", "found"),
        [
            ("UPDATE ledger.audit SET actor = 'nobody' WHERE seq = 3", "entry 3: a column was changed"),
            ("UPDATE ledger.audit SET details = details || ' ' WHERE seq = 4", "entry 4: a column"),
            ("UPDATE ledger.audit SET details = '{' WHERE seq = 4", "entry 4: a column was changed"),
            ("DELETE FROM ledger.audit WHERE seq = 5", "entry 5 is missing"),
            ("INSERT INTO ledger.audit SELECT * REPLACE (5 AS seq) FROM ledger.audit WHERE seq = 6", "entry 5"),
            ("UPDATE ledger.audit SET seq = -seq WHERE seq > 6", "is missing"),
            ("DELETE FROM ledger.audit", "the audit has no entry"),
        ],
    )
    def test_an_entry_that_was_altered(self, shop, statement, found):
        shop.tamper(statement)
        assert found in verified(shop)

    @pytest.mark.soak  # `test_anchors.py` has some
    @pytest.mark.parametrize(
        ("statement", "found"),
        [
            ("UPDATE ledger.audit SET actor = 'nobody' WHERE seq = 1", "the audit was rewritten from the start"),
            ("UPDATE ledger.audit SET actor = 'nobody' WHERE seq = 6", "the audit was rewritten up to there"),
            ("DELETE FROM ledger.audit WHERE seq = 6", "the audit was rewritten up to there"),
            ("DELETE FROM ledger.audit WHERE seq > 8", "and the audit ends at 8: its end was cut off"),
            (
                "INSERT INTO ledger.audit SELECT * REPLACE ('x' AS hash) FROM ledger.audit WHERE seq = 6",
                "the audit was rewritten up to there",
            ),
        ],
    )
    def test_a_chain_that_was_rewritten_with_fitting_hashes(self, shop, statement, found):
        shop.tamper(statement)
        with_fitting_hashes(shop)
        for stamp in (*shop.project.registry.glob(".ledgers/*"), shop.project.published / "ledger.json"):
            stamp.unlink()
        assert found in faults(shop)

    def test_a_covering_entry_without_digests(self, shop):
        last = "(SELECT max(seq) FROM ledger.audit WHERE action = 'anchored')"
        shop.tamper(f"""UPDATE ledger.audit SET details = '{{"upto": {{}}, "tables": {{}}}}' WHERE seq = {last}""")
        with_fitting_hashes(shop)
        assert "the audit was rewritten up to there" in faults(shop)


@pytest.mark.soak
@pytest.mark.parametrize("table", TABLES)
class TestEachTableOfTheLedger:
    def test_dropped(self, shop, table):
        shop.tamper(f"DROP TABLE ledger.{table} CASCADE")
        text = verified(shop)
        # Without its version, it is a file that has no ledger.
        assert f"the table ledger.{table} is gone" in text or (table == "meta" and "There is no ledger" in text)

    def test_replaced_by_a_view(self, shop, table):
        shop.tamper(
            f"CREATE TABLE ledger.hidden AS FROM ledger.{table}",
            f"DROP TABLE ledger.{table} CASCADE",
            f"CREATE VIEW ledger.{table} AS FROM ledger.hidden",
        )
        text = faults(shop)
        assert f"the table ledger.{table} is gone" in text and "the table ledger.hidden is not one of" in text

    def test_a_column_dropped_added_and_retyped(self, shop, table):
        columns = [name for (name,) in shop.warehouse(f"SELECT column_name FROM (DESCRIBE ledger.{table})")]
        shop.tamper(
            f"ALTER TABLE ledger.{table} ADD COLUMN extra INTEGER",
            f"ALTER TABLE ledger.{table} ALTER COLUMN {columns[0]} TYPE BLOB USING {columns[0]}::VARCHAR::BLOB",
            *([] if table == "meta" else [f"ALTER TABLE ledger.{table} DROP COLUMN {columns[-1]}"]),
        )
        if table == "meta":
            return  # its version cannot be read, or is another
        text = faults(shop)
        assert f"ledger.{table}: the column extra is not one of pip_dagster's" in text
        assert f"ledger.{table}: the column {columns[0]} is BLOB" in text
        assert f"ledger.{table}: the column {columns[-1]} is gone" in text

    @pytest.mark.parametrize("how", ["edited", "removed", "reordered"])
    def test_rows(self, shop, table, how):
        rows = shop.warehouse(f"SELECT count(*) FROM ledger.{table}")[0][0]
        if table in NOT_COVERED or not rows:
            pytest.skip("no digest covers it, or it has no rows here")
        if how == "reordered":
            if rows < 2:
                pytest.skip("one row has one order")
            shop.tamper(
                f"CREATE TEMP TABLE kept AS SELECT * FROM ledger.{table} ORDER BY rowid DESC",
                f"DELETE FROM ledger.{table}",
                f"INSERT INTO ledger.{table} SELECT * FROM kept",
            )
        elif how == "removed":
            shop.tamper(f"DELETE FROM ledger.{table} WHERE rowid = (SELECT min(rowid) FROM ledger.{table})")
        else:
            shop.tamper(one_value(shop, f"ledger.{table}"))
        assert f"ledger.{table}" in faults(shop)

    def test_a_row_inserted_is_counted(self, shop, table):
        if table in NOT_COVERED:
            pytest.skip("no digest covers it")
        ((column,),) = shop.warehouse(
            f"SELECT column_name FROM (DESCRIBE ledger.{table}) WHERE column_type = 'VARCHAR' LIMIT 1"
        )
        shop.tamper(f"INSERT INTO ledger.{table} BY NAME SELECT 'forged' AS {column}")
        result = CliRunner().invoke(cli, ["--project", str(shop.root), "audit", "verify", "--anchors", "--json"])
        assert json.loads(result.stdout)["anchors"]["later_rows"][table] == 1


class TestViews:
    @pytest.mark.soak
    @pytest.mark.parametrize("view", VIEWS)
    def test_a_forged_view(self, shop, view):
        shop.tamper(f"CREATE TABLE main.shown AS FROM {view}", f"CREATE OR REPLACE VIEW {view} AS FROM main.shown")
        assert f"the view {view} is not as pip_dagster created it" in faults(shop)

    def test_a_view_that_shows_other_scores(self, shop):
        ((sql,),) = shop.warehouse("SELECT sql FROM duckdb_views() WHERE view_name = 'predictions'")
        _, _, select = sql.partition(" AS ")
        shop.tamper(
            "CREATE OR REPLACE VIEW orders.predictions AS SELECT * REPLACE (least(score, 0.5::FLOAT) AS score) "
            f"FROM ({select.rstrip(';')})"
        )
        assert "the view orders.predictions is not as pip_dagster created it" in verified(shop)

    def test_a_view_dropped(self, shop):
        shop.tamper("DROP VIEW orders.performance")
        assert "the view orders.performance is gone" in verified(shop)

    @pytest.mark.soak  # `test_anchors.py` has some
    @pytest.mark.parametrize(
        "macro", ["sha256(x) AS '0'", "hash(x) AS 0", "duckdb_views() AS TABLE FROM system.main.duckdb_views()"]
    )
    def test_a_function_that_hides_one_of_duckdbs(self, shop, macro):
        shop.tamper(f"CREATE MACRO main.{macro}")
        name = macro.partition("(")[0]
        assert f"the function main.{name} is not pip_dagster's" in verified(shop)


class TestStoredRows:
    @pytest.mark.parametrize("kind", ["scores", "features", "quarantine", "reasons"])
    def test_a_value_altered(self, shop, kind):
        table = stored(shop, kind)
        last = (lambda name, of: of == "FLOAT" and name == "score") if kind == "scores" else (lambda name, of: True)
        shop.tamper(one_value(shop, table, last))
        text = faults(shop)
        assert table.removeprefix("orders.") in text
        if kind in ("scores", "features"):
            assert "has other values in its" in text and "orders, partition 2024-03-0" in text

    @pytest.mark.soak
    @pytest.mark.parametrize("kind", ["scores", "features", "quarantine", "reasons"])
    def test_a_row_removed(self, shop, kind):
        table = stored(shop, kind)
        shop.tamper(f"DELETE FROM {table} WHERE rowid = (SELECT min(rowid) FROM {table})")
        assert table.removeprefix("orders.") in faults(shop)

    @pytest.mark.soak
    @pytest.mark.parametrize("kind", ["scores", "features", "quarantine"])
    def test_a_row_added(self, shop, kind):
        table = stored(shop, kind)
        shop.tamper(f"INSERT INTO {table} SELECT * FROM {table} WHERE rowid = (SELECT min(rowid) FROM {table})")
        text = faults(shop)
        assert "orders, partition 2024-03-0" in text
        assert "rows; " in text or "rows in quarantine; " in text

    @pytest.mark.soak
    @pytest.mark.parametrize("kind", ["scores", "features", "quarantine", "reasons"])
    def test_rows_that_nothing_wrote(self, shop, kind):
        table = stored(shop, kind)
        column = "revision" if kind == "features" else "scoring_id"
        shop.tamper(f"INSERT INTO {table} SELECT * REPLACE ('forged' AS {column}) FROM {table} LIMIT 3")
        assert f"forged in {table.removeprefix('orders.')} has 3 rows" in faults(shop)

    def test_scores_swapped_between_two_keys(self, shop):
        table = stored(shop, "scores")
        (scoring, low, high, key) = shop.warehouse(
            f"SELECT scoring_id, min(score), max(score), any_value(partition_key) FROM {table} GROUP BY 1 ORDER BY 1"
        )[0]
        shop.tamper(
            f"UPDATE {table} SET score = CASE score WHEN {low!r}::FLOAT THEN {high!r}::FLOAT ELSE {low!r}::FLOAT END "
            f"WHERE scoring_id = '{scoring}' AND score IN ({low!r}::FLOAT, {high!r}::FLOAT)"
        )
        assert f"orders, partition {key}: scoring {scoring} in" in faults(shop)

    @pytest.mark.soak
    @pytest.mark.parametrize("kind", ["scores", "features"])
    def test_a_table_dropped(self, shop, kind):
        table = stored(shop, kind)
        shop.tamper(f"DROP TABLE {table} CASCADE")
        assert f"the table {table} is gone" in faults(shop)

    def test_scores_altered_with_their_digest_and_published_again(self, shop):
        """The forger recomputes the digest in the ledger as well, so that warehouse and files agree."""
        table = stored(shop, "scores")
        shop.tamper(f"UPDATE {table} SET score = 0.5 WHERE partition_key = '{FIRST}'")
        shop.shell("publish")
        assert f"orders, partition {FIRST}: scoring" in faults(shop)
        shop.tamper(f"UPDATE ledger.scorings SET score_digest = 'dh1:0' WHERE partition_key = '{FIRST}'")
        assert "ledger.scorings" in faults(shop)


class TestPublishedFiles:
    def file(self, shop):
        return sorted(shop.project.published.glob("orders/*.duckdb"))[0]

    def altered(self, shop, statement):
        with duckdb.connect(str(self.file(shop))) as con:
            con.execute(statement)

    @pytest.mark.parametrize(
        ("statement", "found"),
        [
            ("UPDATE orders.predictions SET score = 0.999", "predictions in"),
            (f"DELETE FROM orders.predictions WHERE partition_key = '{FIRST}'", "has none of the"),
            ("INSERT INTO orders.predictions SELECT * FROM orders.predictions LIMIT 1", "were published"),
            ("UPDATE orders.reasons SET contribution = 0", "reasons in"),
            ("UPDATE orders.quarantine SET quantity = 3", "quarantine in"),
            ("UPDATE ledger.partitions SET model_version = 9", "partitions in"),
            ("DROP TABLE orders.quarantine", "quarantine in"),
        ],
    )
    def test_rows(self, shop, statement, found):
        self.altered(shop, statement)
        text = faults(shop)
        assert found in text and "orders, partition 2024-03-0" in text and self.file(shop).name in text

    @pytest.mark.soak
    def test_a_file_removed(self, shop):
        self.file(shop).unlink()
        assert "has none of the" in faults(shop) and "orders, partition" in faults(shop)

    def test_a_file_that_is_no_database(self, shop):
        self.file(shop).write_bytes(b"nothing")
        assert "cannot be read" in faults(shop)

    def test_a_file_added(self, shop):
        with duckdb.connect(str(self.file(shop).with_name("rows-0009.duckdb"))) as con:
            con.execute(f"ATTACH '{self.file(shop)}' AS of (READ_ONLY)")
            con.execute("CREATE SCHEMA orders")
            con.execute("CREATE TABLE orders.predictions AS FROM of.orders.predictions LIMIT 2")
        assert "that were not published there" in faults(shop)

    def test_a_view_redirected(self, shop):
        with duckdb.connect(str(shop.project.published_database)) as con:
            con.execute("CREATE OR REPLACE VIEW orders.predictions AS SELECT 1 AS score")
        assert "the view orders.predictions is not as it was written" in faults(shop)

    def test_the_files_of_another_moment(self, shop):
        old = shutil.copytree(shop.project.published, shop.root / "old")
        shop.source(f"UPDATE raw.orders SET quantity = 5 WHERE day = '{SECOND}'")
        shop.run(SECOND)
        shutil.rmtree(shop.project.published)
        shutil.copytree(old, shop.project.published)
        assert f"{shop.project.published} lacks what was published last" in faults(shop)

    @pytest.mark.soak
    def test_the_folder_removed(self, shop):
        shutil.rmtree(shop.project.published)
        assert f"{shop.project.published} lacks what was published last" in faults(shop)

    def test_a_file_altered_with_its_digest(self, shop):
        """The forger reads the secret in the warehouse, and records the digest of what he wrote."""
        file = self.file(shop)
        self.altered(shop, f"UPDATE orders.predictions SET score = 0.999 WHERE partition_key = '{FIRST}'")
        with duckdb.connect(str(shop.project.warehouse)) as con:
            con.execute("SET TimeZone = 'UTC'")
            ((columns,),) = con.execute(
                "SELECT columns_digest FROM ledger.published_digests WHERE table_name = 'predictions' "
                f"AND partition_key = '{FIRST}' ORDER BY made_at DESC LIMIT 1"
            ).fetchall()
            con.execute(f"ATTACH '{file}' AS of (READ_ONLY)")
            where = f"partition_key = '{FIRST}'"
            digests = digest_sql("of.orders.predictions", columns_by_digest(con)[columns], secret_of(con), where)
            ((_, _, digest),) = con.execute(digests).fetchall()
            newest = "made_at = (SELECT max(made_at) FROM ledger.published_digests WHERE partition_key = '{FIRST}')"
            con.execute(
                "INSERT INTO ledger.published_digests SELECT * REPLACE "
                f"(made_at + INTERVAL 1 SECOND AS made_at, CASE table_name WHEN 'predictions' THEN '{digest}' "
                f"ELSE digest END AS digest) FROM ledger.published_digests WHERE {where} "
                f"AND {newest.replace('{FIRST}', FIRST)}"
            )
        text = faults(shop)
        assert f"orders, partition {FIRST}" in text and "predictions" in text


class TestTheRegistry:
    def folder(self, shop, version=None):
        return shop.registry.get("returns", version or "champion").path

    def write(self, path, data):
        path.chmod(0o600)
        path.write_bytes(data)

    @pytest.mark.soak
    def test_a_models_file(self, shop):
        path = self.folder(shop) / "model.ubj"
        self.write(path, path.read_bytes()[:-1])
        assert "returns v1: model.ubj has sha256" in faults(shop)

    def test_the_golden_rows(self, shop):
        path = self.folder(shop, 2) / "golden.parquet"
        self.write(path, path.read_bytes() + b"x")
        assert "returns v2: golden.parquet has sha256" in faults(shop)

    @pytest.mark.soak
    def test_a_manifest(self, shop):
        path = self.folder(shop) / "manifest.json"
        self.write(path, path.read_bytes().replace(b"ada", b"eve"))
        assert "returns v1" in faults(shop)

    def test_a_manifest_with_its_digest(self, shop):
        import hashlib

        path = self.folder(shop, 2) / "manifest.json"
        self.write(path, path.read_bytes().replace(b"ada", b"eve"))
        self.write(path.with_name("manifest.sha256"), f"{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
        assert "returns v2 was replaced since" in faults(shop)

    @pytest.mark.soak
    def test_a_version_deleted(self, shop):
        shutil.rmtree(self.folder(shop, 2))
        assert "returns v2 is gone since" in faults(shop)

    @pytest.mark.soak
    def test_a_version_copied_over_another(self, shop):
        path = self.folder(shop, 2)
        shutil.rmtree(path)
        shutil.copytree(self.folder(shop, 1), path)
        assert "returns v2" in faults(shop)

    def test_an_old_version_under_an_alias(self, shop):
        path = self.folder(shop).parents[1] / "aliases" / "champion.json"
        history = json.loads(path.read_bytes())
        self.write(path, json.dumps(history[:2]).encode())
        text = faults(shop)
        assert "alias 'champion'" in text and "returns" in text

    def test_an_alias_edited(self, shop):
        path = self.folder(shop).parents[1] / "aliases" / "champion.json"
        history = json.loads(path.read_bytes())
        history[-1]["version"] = 3
        self.write(path, json.dumps(history).encode())
        assert "the alias 'champion' of returns names v3; it named v1" in faults(shop)

    @pytest.mark.soak
    def test_an_alias_removed(self, shop):
        (self.folder(shop).parents[1] / "aliases" / "challenger.json").unlink()
        assert "the alias 'challenger' of returns names nothing; it named v2" in faults(shop)

    def test_an_alias_that_is_no_history(self, shop):
        self.write(self.folder(shop).parents[1] / "aliases" / "champion.json", b"[]")
        assert "champion.json is not an alias history" in verified(shop)

    @pytest.mark.soak
    def test_the_whole_registry_replaced(self, shop, helpers, template):
        shutil.rmtree(shop.project.registry)
        shutil.copytree(helpers.Tiny(template).project.registry, shop.project.registry)
        text = faults(shop)
        assert "returns v3 is gone" in text and "the alias 'challenger' of returns names nothing" in text

    def test_a_version_replaced_before_the_next_anchor(self, shop):
        """An anchor of the altered registry does not make it right."""
        self.test_a_manifest_with_its_digest(shop)
        shop.shell("audit", "anchor")
        assert "returns v2 was replaced since" in faults(shop)


class TestAnchors:
    def file(self, shop):
        return shop.root / "archive" / "audit.ndjson"

    def lines(self, shop):
        return self.file(shop).read_text().splitlines()

    def write(self, shop, lines):
        self.file(shop).write_text("".join(f"{line}\n" for line in lines))

    def git(self, shop, *words):
        done = subprocess.run(["git", "-C", shop.root / "evidence", *words], check=True, capture_output=True, text=True)
        return done.stdout.split()

    @pytest.mark.soak
    def test_edited(self, shop):
        lines = self.lines(shop)
        self.write(shop, [lines[0].replace('"entry":', '"entry":1'), *lines[1:]])
        assert "archive, anchor 1: its signature does not match" in faults(shop)

    def test_removed(self, shop):
        lines = self.lines(shop)
        self.write(shop, [*lines[:1], *lines[2:]])
        assert "archive, anchor 2" in faults(shop) and "does not follow the anchor before it" in faults(shop)

    def test_reordered_and_repeated(self, shop):
        lines = self.lines(shop)
        self.write(shop, [lines[1], lines[0], *lines[2:]])
        assert "archive, anchor 1" in faults(shop) and "does not follow the anchor before it" in faults(shop)
        self.write(shop, [*lines, lines[-1]])
        assert f"archive, anchor {len(lines) + 1}" in faults(shop)

    def test_the_end_removed(self, shop):
        self.write(shop, self.lines(shop)[:-1])
        assert "archive lacks the anchor of entry" in faults(shop)

    @pytest.mark.soak
    def test_an_old_file_put_back(self, shop):
        self.write(shop, self.lines(shop)[:2])
        assert "archive lacks the anchor of entry" in faults(shop)

    @pytest.mark.soak
    def test_the_file_removed(self, shop):
        self.file(shop).unlink()
        assert "archive has no anchor of this ledger" in faults(shop)

    @pytest.mark.soak
    def test_signed_with_another_key(self, shop):
        (shop.root / "anchor.pem").unlink()
        keygen(shop.root / "other")
        (shop.root / "other.pem").rename(shop.root / "anchor.pem")
        shop.tamper("INSERT INTO ledger.checks BY NAME SELECT 'another' AS entry_id, 'orders' AS pipeline")
        shop.shell("audit", "anchor")
        assert "is not among `signers`" in faults(shop)

    def test_the_signers_replaced(self, shop):
        keygen(shop.root / "other")
        text = (shop.root / "pyproject.toml").read_text()
        (shop.root / "pyproject.toml").write_text(text.replace('["anchor.pub.pem"]', '["other.pub.pem"]'))
        assert "archive, anchor 1: it is signed by the key" in faults(shop)

    def test_a_tag_moved(self, shop):
        first, *_, last = self.git(shop, "tag", "--list", "pip-dagster/*")
        self.git(shop, "update-ref", f"refs/tags/{last}", self.git(shop, "rev-parse", first)[0])
        assert f"tags, tag {last}, is the anchor of entry" in faults(shop)

    def test_a_tag_removed(self, shop):
        _, second, *_ = self.git(shop, "tag", "--list", "pip-dagster/*")
        self.git(shop, "tag", "--delete", second)
        assert "tags, tag" in faults(shop) and "does not follow the anchor before it" in faults(shop)


class TestAcceptances:
    def accepted(self, subject):
        return (
            "INSERT INTO ledger.audit SELECT * REPLACE (seq + 1 AS seq, 'accepted' AS action, "
            f"""'{subject}' AS subject, '{{"why":"so"}}' AS details, '' AS hash) """
            "FROM ledger.audit WHERE seq = (SELECT max(seq) FROM ledger.audit)"
        )

    def test_a_forged_one_of_a_version(self, shop):
        shop.tamper(self.accepted('{"model":"returns","version":2}'))
        with_fitting_hashes(shop)
        assert "accepted returns v2 as it is, and no anchor vouches for that" in faults(shop)

    def test_a_ledger_swapped_with_a_forged_one(self, shop, base, backend, tmp_path, helpers, template):
        """The forger brings a ledger of his own, and says in it that it was accepted; the next run anchors it."""
        other = helpers.Gated(backend.copied(template, tmp_path / "other"))
        other.run(FIRST)
        shutil.copy(other.project.warehouse, shop.project.warehouse)
        for folder in (shop.project.published, shop.project.registry / ".ledgers"):
            shutil.rmtree(folder)
        shop.tamper(self.accepted('{"warehouse":"here"}'))
        with_fitting_hashes(shop)
        for _ in range(2):
            text = faults(shop)
            assert "is of a ledger that began with another entry" in text
            assert "accepted this warehouse as it is, and no anchor vouches for that" in text
            shop.shell("audit", "anchor")

    def test_one_that_a_person_signed(self, shop):
        shutil.rmtree(self.replaced(shop))
        shop.shell("audit", "accept", "--versions", "--why", "restored otherwise")
        assert "anchor vouches" not in faults(shop), "v2 is gone, but what was accepted is signed"

    def replaced(self, shop):
        return shop.registry.get("returns", 2).path
