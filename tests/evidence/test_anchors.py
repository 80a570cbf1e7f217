"""The audit is anchored in signed lines elsewhere; what is altered later is found by them."""

import base64
import json
import os
import shutil
import subprocess
from datetime import timedelta
from pathlib import Path

import pytest

import pip_dagster
from pip_dagster.errors import ProjectError
from pip_dagster.evidence.anchor import anchor
from pip_dagster.evidence.statement import digest
from pip_dagster.ledger import audit
from pip_dagster.ledger.covered import last_covered, tables
from pip_dagster.registry.signing import keygen, private_key
from pip_dagster.warehouse.access import writing
from pip_dagster.warehouse.connect import workspace

OTHER = os.environ.get("PIP_DAGSTER_DUCKDB2_PYTHON")
FIRST, SECOND = "2024-03-01", "2024-03-02"
HASH = "sha256(to_json(a)::VARCHAR)"


def anchor_first(tiny, root):
    """Have the project anchor in a file and in a git repository; score a day, and anchor it."""
    keygen(root / "anchor")
    subprocess.run(["git", "init", "-q", root / "evidence"], check=True)
    nobody = ["-c", "user.name=a", "-c", "user.email=a@b"]
    first = ["commit", "-q", "--allow-empty", "-m", "first"]
    subprocess.run(["git", "-C", root / "evidence", *nobody, *first], check=True)
    with (root / "pyproject.toml").open("a") as file:
        file.write(
            '[tool.pip_dagster.anchors]\nkey = "anchor.pem"\nsigners = ["anchor.pub.pem"]\n'
            '[tool.pip_dagster.anchors.places]\narchive = {file = "archive/audit.ndjson"}\n'
            'tags = {git = "evidence"}\n'
        )
    tiny.run(FIRST)
    tiny.shell("audit", "accept", "--moves", "--why", "moved from Python")
    tiny.shell("audit", "anchor")


@pytest.fixture
def anchored(template, backend, tmp_path, helpers):
    made = backend.once("anchored", template, lambda root: anchor_first(helpers.Tiny(root), root))
    return helpers.with_own_views(helpers.Tiny(backend.copied(made, tmp_path / "shop")))


def verified(tiny, code=1):
    return tiny.shell("audit", "verify", "--anchors", code=code)


def rewritten(tiny, *statements):
    """Change the ledger and give every entry the hashes that fit, as a forger would."""
    tiny.tamper(*statements)
    previous = ""
    columns = ", ".join(audit.COLUMNS)
    rows = tiny.warehouse(f"SELECT {columns} FROM ledger.audit ORDER BY seq")
    changes = []
    for row in rows:
        entry = dict(zip(audit.COLUMNS, row, strict=True))
        entry |= {"made_at": audit.micros(entry["made_at"]), "previous_hash": previous}
        previous = audit.hash_of(entry)
        changes.append(
            f"UPDATE ledger.audit SET previous_hash = '{entry['previous_hash']}', hash = '{previous}' "
            f"WHERE seq = {entry['seq']}"
        )
    tiny.tamper(*changes)


@pytest.mark.slice
@pytest.mark.lake
def test_what_was_not_altered_agrees_and_later_entries_are_counted(anchored):
    assert "agrees with 2 anchors" in verified(anchored, 0)
    anchored.run(SECOND)
    text = verified(anchored, 0)
    assert "No anchor covers 1 entry" in text
    assert anchor(anchored.project).places == ["archive", "tags"]
    assert "agrees with 4 anchors" in verified(anchored, 0)
    answer = json.loads(anchored.shell("audit", "verify", "--anchors", "--json"))
    assert answer["anchors"]["later"] == 0 and answer["fault"] is None


def test_nothing_new_adds_no_entry(anchored):
    before = anchored.warehouse("SELECT max(seq) FROM ledger.audit")
    anchored.shell("audit", "anchor")
    assert anchored.warehouse("SELECT max(seq) FROM ledger.audit") == before


@pytest.mark.parametrize(
    ("statements", "found"),
    [
        (["UPDATE ledger.audit SET actor = 'nobody' WHERE seq = 2"], "the audit was rewritten"),
        (["DELETE FROM ledger.audit WHERE seq = (SELECT max(seq) FROM ledger.audit)"], "its end was cut off"),
        (["UPDATE ledger.audit SET actor = 'nobody' WHERE seq = 1"], "rewritten from the start"),
    ],
)
def test_a_chain_that_was_rewritten_with_fitting_hashes(anchored, statements, found):
    rewritten(anchored, *statements)
    shutil.rmtree(anchored.project.published)  # the stamps would show it too
    text = verified(anchored)
    assert found in text


# A forger's change of each table: rows that no entry of the audit but the covering one knows.
ALTERED = [
    ("scorings", "UPDATE ledger.scorings SET rows_in = rows_in + 1"),
    ("extractions", "DELETE FROM ledger.extractions"),
    ("source_buckets", "UPDATE ledger.source_buckets SET rows = 0"),
    ("published_digests", "UPDATE ledger.published_digests SET digest = '0'"),
    ("published_columns", "DELETE FROM ledger.published_columns"),
]


@pytest.mark.parametrize(("table", "statement"), ALTERED)
def test_rows_of_any_table_that_were_changed(anchored, table, statement):
    assert anchored.warehouse(f"SELECT count(*) FROM ledger.{table}") > [(0,)]
    anchored.tamper(statement)
    assert f"ledger.{table}" in verified(anchored)


def test_every_table_of_the_ledger_is_covered(anchored):
    names = {
        name for (name,) in anchored.warehouse("SELECT table_name FROM duckdb_tables() WHERE schema_name = 'ledger'")
    }
    assert names - {*tables()} == {"audit", "meta", "publications", "anchor_nonces"}


def test_an_alias_set_back_to_an_old_version_with_its_history(anchored):
    folder = anchored.project.registry / "returns"
    old = shutil.copytree(folder / "aliases", anchored.root / "old")
    anchored.shell("models", "promote", "returns", "v2", "--override", "a test")  # anchors too
    shutil.rmtree(folder / "aliases")
    shutil.copytree(old, folder / "aliases")
    assert "champion" in verified(anchored)


def test_a_version_that_was_replaced_before_it_scored(anchored):
    number = max(version.version for version in anchored.registry.versions("returns"))
    assert number > 1, "one that did not score"
    manifest = anchored.registry.get("returns", number).path / "manifest.json"
    manifest.chmod(0o600)
    manifest.write_text(manifest.read_text().replace("{", "{ ", 1))
    assert f"returns v{number} was replaced since" in verified(anchored)
    shutil.rmtree(manifest.parent)
    assert f"returns v{number} is gone since" in verified(anchored)


def test_the_files_of_a_version_that_never_scored(anchored):
    number = max(version.version for version in anchored.registry.versions("returns"))
    model = anchored.registry.get("returns", number).path / "model.ubj"
    model.chmod(0o600)
    model.write_bytes(model.read_bytes()[:-1])
    assert f"returns v{number}: model.ubj has sha256" in verified(anchored)


def test_rows_that_no_anchor_covers_are_counted(anchored):
    anchored.tamper("INSERT INTO ledger.checks BY NAME SELECT 'forged' AS entry_id, 'orders' AS pipeline")
    assert "No anchor covers what came to the ledger's tables since: 1 row of checks" in verified(anchored, 0)


def test_an_entry_that_a_forger_added_does_not_keep_rows_from_being_covered(anchored):
    with workspace(threads=1) as con, writing(con, anchored.project, purpose="a forger", publish=False):
        details = last_covered(con) | {"tables": {}, "upto": dict.fromkeys(tables(), 10**9), "keyed": False}
        audit.append(con, [audit.Event("anchored", 1, "ada", None, {}, details)])
    anchored.shell("audit", "anchor")
    assert "it skips rows of ledger.alarm_deliveries" in verified(anchored)


def test_a_table_that_was_replaced_by_a_view(anchored):
    anchored.tamper(
        "ALTER TABLE ledger.source_buckets RENAME TO hidden",
        "CREATE VIEW ledger.source_buckets AS SELECT * FROM ledger.hidden",
    )
    assert "the table ledger.source_buckets is gone: it was dropped, or replaced by a view" in verified(anchored)


@pytest.mark.lake
def test_a_view_of_the_ledger_that_was_replaced(anchored):
    verified(anchored, 0)
    anchored.tamper("CREATE OR REPLACE VIEW ledger.partitions AS SELECT *, true AS is_live FROM ledger.scorings")
    assert "the view ledger.partitions is not as pip_dagster created it" in verified(anchored)


@pytest.mark.parametrize(
    ("statement", "found"),
    [
        ("UPDATE orders.{scores} SET score = score * (1 + 1.2e-7) WHERE order_id = 7", f"partition {FIRST}: scoring"),
        ("UPDATE orders.{features} SET quantity = quantity + 1 WHERE order_id = 7", f"partition {FIRST}: revision"),
        ("DELETE FROM orders.{scores} WHERE order_id = 7", "has 49 rows; 50 were recorded"),
        ("DROP TABLE ledger.source_buckets", "the table ledger.source_buckets is gone"),
        ("CREATE OR REPLACE VIEW orders.predictions AS SELECT 1 AS score", "the view orders.predictions is not as"),
        ("CREATE MACRO main.sha256(x) AS '0'", "the function main.sha256 is not pip_dagster's"),
    ],
)
def test_stored_rows_tables_and_views_without_anchors_too(anchored, statement, found):
    select = "SELECT table_name FROM duckdb_tables() WHERE schema_name = 'orders'"
    tables = {name.partition("__")[0]: name for (name,) in anchored.warehouse(select)}
    anchored.tamper(statement.format(**tables))
    assert found in anchored.shell("audit", "verify", code=1)


def test_a_view_whose_columns_have_the_names_of_others(anchored):
    """Its SELECT is as it was created."""
    ((sql,),) = anchored.warehouse("SELECT sql FROM duckdb_views() WHERE view_name = 'predictions'")
    names = [name for (name,) in anchored.warehouse("SELECT column_name FROM (DESCRIBE orders.predictions)")]
    names[-1], names[-2] = names[-2], names[-1]
    _, _, select = sql.partition(" AS ")
    anchored.tamper(f"CREATE OR REPLACE VIEW orders.predictions ({', '.join(names)}) AS {select}")
    assert "the view orders.predictions is not as pip_dagster created it" in verified(anchored)


@pytest.mark.slice
@pytest.mark.skipif(not OTHER, reason="PIP_DAGSTER_DUCKDB2_PYTHON names no interpreter")
def test_under_another_duckdb_than_wrote_it(anchored):
    """Its parser gives other trees for the same SQL, and the text of a view is of who created it."""

    def other():
        code = "from pip_dagster.cli.main import cli; cli(['audit', 'verify', '--anchors'])"
        path = str(Path(pip_dagster.__file__).parents[1])
        environment = os.environ | {"PIP_DAGSTER_PROJECT": str(anchored.root), "PYTHONPATH": path}
        return subprocess.run([OTHER, "-c", code], cwd=anchored.root, env=environment, capture_output=True, text=True)

    done = other()
    assert done.returncode == 0, done.stdout + done.stderr
    anchored.tamper("CREATE OR REPLACE VIEW orders.predictions AS SELECT 1 AS score")
    done = other()
    assert done.returncode == 1 and "the view orders.predictions is not as" in done.stdout + done.stderr


def test_an_acceptance_that_nobody_signed(anchored):
    with workspace(threads=1) as con, writing(con, anchored.project, purpose="a forger", publish=False):
        subject = {"model": "returns", "version": 2}
        audit.append(con, [audit.Event("accepted", 1, "eve", None, subject, {"why": "so"})])
    assert "eve accepted returns v2 as it is, and no anchor vouches for that" in verified(anchored)


def test_two_machines_that_anchor_in_one_file(anchored):
    """Each waits for the other, and signs behind its line."""
    code = """
        from pip_dagster.declaration.project import Project
        from pip_dagster.evidence.places import _append
        from pip_dagster.evidence.statement import Statement
        from pip_dagster.registry.signing import private_key
        from pathlib import Path
        import sys
        key = private_key(Path("anchor.pem"))
        for number in range(20):
            _append(Path("two.ndjson"), Statement("a", number, sys.argv[1], "2026-01-01T00:00:00+00:00", "k"), key)
    """
    for process in [anchored.python(code, name) for name in ("one", "two")]:
        assert process.wait() == 0, process.stdout.read()
    lines = (anchored.root / "two.ndjson").read_text().splitlines()
    assert len(lines) == 40
    assert [json.loads(line)["previous"] for line in lines[1:]] == [digest(line) for line in lines[:-1]]


@pytest.mark.soak
@pytest.mark.lake("only")
def test_a_lake_that_was_maintained_between_anchors(anchored):
    anchored.run(SECOND)
    anchored.shell("maintain", "--keep-days", "1")
    anchored.shell("audit", "anchor")
    assert "agrees with" in verified(anchored, 0)
    anchored.shell("maintain", "--keep-days", "1")
    assert "agrees with" in verified(anchored, 0)


class TestPublishedFiles:
    def test_of_pending_partitions_are_counted(self, anchored):
        anchored.tamper("DELETE FROM ledger.publications")
        assert "Not compared: 1 partition that is not published yet" in verified(anchored, 0)

    def test_that_lack_a_change_that_counts_as_published(self, anchored):
        anchored.tamper("UPDATE ledger.published_digests SET made_at = made_at - INTERVAL 1 HOUR")
        assert "recorded as published, but nothing was published since" in verified(anchored)


class TestAPlace:
    @pytest.mark.parametrize("bare", [(), ("--bare",)])
    def test_that_is_a_repository_without_commits(self, anchored, bare):
        shutil.rmtree(anchored.root / "evidence")
        subprocess.run(["git", "init", "-q", *bare, anchored.root / "evidence"], check=True)
        assert "tags: anchored entry" in anchored.shell("audit", "anchor")
        assert "agrees with 2 anchors" in verified(anchored, 0)

    def test_whose_newest_anchors_were_removed(self, anchored, monkeypatch):
        file = anchored.root / "archive" / "audit.ndjson"
        before = file.read_text()
        anchored.tamper("INSERT INTO ledger.checks BY NAME SELECT 'another' AS entry_id, 'orders' AS pipeline")
        anchored.shell("audit", "anchor")
        file.write_text(before)
        assert "agrees with 3 anchors" in verified(anchored, 0), "it may be on its way"
        monkeypatch.setattr("pip_dagster.evidence.verify._ON_ITS_WAY", timedelta(0))
        assert "archive lacks the anchor of entry 5" in verified(anchored)

    def test_whose_anchors_were_removed_or_edited(self, anchored):
        file = anchored.root / "archive" / "audit.ndjson"
        line = file.read_text()
        file.write_text(line.replace('"entry":', '"entry":1'))
        assert "archive, anchor 1: its signature does not match" in verified(anchored)
        file.write_text("nothing\n")
        assert "it is no anchor" in verified(anchored)
        file.unlink()
        assert "archive has no anchor of this ledger" in verified(anchored)

    def test_with_the_anchor_of_another_key(self, anchored):
        (anchored.root / "anchor.pem").unlink()
        keygen(anchored.root / "other")
        (anchored.root / "other.pem").rename(anchored.root / "anchor.pem")
        anchored.shell("audit", "anchor")
        assert "is not among `signers`" in verified(anchored)

    def test_that_cannot_be_written_does_not_fail_what_was_done(self, anchored):
        (anchored.root / "archive" / "audit.ndjson").unlink()
        (anchored.root / "archive").rmdir()
        (anchored.root / "archive").write_text("a file")
        text = anchored.shell("audit", "anchor", code=1)
        assert "archive: not anchored" in text and "tags: anchored entry" in text
        text = anchored.shell("backfill", "orders", "--from", SECOND, "--to", SECOND, "--no-dagster")
        assert "was not anchored in archive" in text and "archive cannot be read" in verified(anchored)

    def test_after_a_line_that_a_loss_of_power_left_unfinished(self, anchored):
        file = anchored.root / "archive" / "audit.ndjson"
        with file.open("a") as out:
            out.write('{"entry": 7')
        anchored.run(SECOND)
        anchored.shell("audit", "anchor")
        assert len(file.read_text().splitlines()) == 3
        assert "archive, anchor 2: it is no anchor" in verified(anchored)

    def test_that_is_a_command_gets_the_line(self, anchored):
        text = (anchored.root / "pyproject.toml").read_text()
        text += 'copy = {command = ["sh", "-c", "cat >> copied"]}\nbroken = {command = ["false"]}\n'
        (anchored.root / "pyproject.toml").write_text(text)
        copied = anchored.root / "copied"
        done = anchored.shell("audit", "anchor", code=1)
        assert "broken: not anchored: it ended with exit code 1" in done
        for path in (copied, anchored.root.cwd() / "copied"):
            if path.exists():
                assert json.loads(path.read_text())["format"] == "pip_dagster anchor 2"
                path.unlink()
                break
        else:
            pytest.fail("the command got nothing")


def test_anchors_as_the_last_release_wrote_them(anchored):
    """They named neither the line before nor what was accepted; newer ones follow them."""
    file = anchored.root / "archive" / "audit.ndjson"
    shutil.rmtree(anchored.root / "evidence")
    subprocess.run(["git", "init", "-q", anchored.root / "evidence"], check=True)
    key = private_key(anchored.root / "anchor.pem")

    def former(line):
        kept = ("ledger", "entry", "hash", "made_at", "key")
        content = {name: json.loads(line)[name] for name in kept} | {"format": "pip_dagster anchor 1"}
        text = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return json.dumps(content | {"signature": base64.b64encode(key.sign(text.encode())).decode()})

    lines = [former(line) for line in file.read_text().splitlines()]
    file.write_text("".join(f"{line}\n" for line in lines))
    anchored.run(SECOND)
    anchored.shell("audit", "anchor")
    assert json.loads(file.read_text().splitlines()[-1])["previous"] == digest(lines[-1])
    text = verified(anchored, 0)
    assert "agrees with" in text
    file.write_text(file.read_text().replace('"entry": ', '"entry": 1'))
    assert "archive, anchor 1: its signature does not match" in verified(anchored)


def test_a_ledger_that_was_accepted_in_place_of_another(anchored):
    anchored.project.warehouse.unlink()
    anchored.shell("audit", "accept", "--warehouse", "--why", "begin again")
    anchored.shell("backfill", "orders", "--from", FIRST, "--to", FIRST, "--no-dagster")
    text = verified(anchored, 4)  # the moves of the alias, which nobody accepted in the new one
    assert "Not compared: 2 anchors of a ledger that this one replaced" in text


@pytest.mark.parametrize(
    ("declared", "found"),
    [
        ('key = "a.pem"', "signers"),
        ('key = "a.pem"\nsigners = ["b"]\nplaces = {a = {}}', "names nothing"),
        ('key = "a.pem"\nsigners = ["b"]\nplaces = {a = {file = "x", git = "y"}}', "names file, git"),
        ('key = "a.pem"\nsigners = []\nplaces = {a = {file = "x"}}', "signers"),
        ('keys = "a.pem"', "keys"),
    ],
)
def test_a_wrong_declaration_is_named(tiny, declared, found):
    with (tiny.root / "pyproject.toml").open("a") as file:
        file.write(f"[tool.pip_dagster.anchors]\n{declared}\n")
    with pytest.raises(ProjectError, match="anchors") as error:
        _ = tiny.project.anchors
    assert found in str(error.value)


def test_without_a_declaration(tiny):
    assert anchor(tiny.project) is None
    assert "declares no anchors" in tiny.shell("audit", "anchor", code=1)
    tiny.run(FIRST)
    assert "declares no anchors" in tiny.shell("audit", "verify", "--anchors", code=1)
    assert "anchored" not in tiny.shell("audit", "log")


def test_a_key_that_is_missing(anchored):
    (anchored.root / "anchor.pem").unlink()
    assert "not a readable private key" in anchored.shell("audit", "anchor", code=1)
    text = anchored.shell("backfill", "orders", "--from", SECOND, "--to", SECOND, "--no-dagster")
    assert "The audit was not anchored" in text


def test_a_run_of_dagster_anchors(anchored):
    import dagster as dg

    from pip_dagster.orchestration.assets import pipeline_assets
    from pip_dagster.orchestration.partitions import partitions_definition

    pipeline = anchored.pipeline()
    assets = pipeline_assets(pipeline, partitions_definition(pipeline.spec.partitions))
    result = dg.materialize([assets], partition_key=SECOND, instance=dg.DagsterInstance.ephemeral())
    assert result.success
    assert "agrees with 4 anchors" in verified(anchored, 0)
