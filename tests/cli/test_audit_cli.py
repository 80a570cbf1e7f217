"""The commands on audit, rollback and the past, as a shell sees them: text, JSON and exit codes."""

import json
from datetime import UTC, datetime

import pytest
from click.testing import CliRunner

from pip_dagster.cli.main import cli
from pip_dagster.errors import PipelineError

pytestmark = pytest.mark.lake


DAYS = ("2024-03-01", "2024-03-02", "2024-03-03", "2024-03-04")


@pytest.fixture
def promoted(scored_template, helpers, backend, tmp_path):
    def make(root):
        tiny = helpers.Tiny(root)
        shell(tiny, "audit", "accept", "--moves", "--why", "the first")
        shell(tiny, "models", "promote", "returns", "v2", "--why", "better")
        tiny.run()

    promoted_root = backend.once("promoted by the CLI", scored_template, make)
    return helpers.Tiny(backend.copied(promoted_root, tmp_path / "shop"))


def shell(tiny, *arguments, code=0):
    """The output of a command. `main` turns errors that can be mended into a message and exit code 1."""
    result = CliRunner().invoke(cli, ["--project", str(tiny.root), *arguments])
    if isinstance(result.exception, PipelineError):
        assert code == 1, result.exception
        return str(result.exception)
    assert result.exit_code == code, result.output + repr(result.exception)
    return result.output


def test_promote_writes_to_the_audit_and_verify_says_that_it_holds(promoted):
    entries = json.loads(shell(promoted, "audit", "log", "--json"))
    assert [entry["action"] for entry in entries] == [
        "audit started",
        *["live"] * 4,
        *["promotion"] * 2,  # the first was made from Python and accepted
        *["live"] * 4,
    ]
    moved = entries[6]["details"]
    assert (moved["from"], moved["to"]) == (1, 2) and moved["why"].startswith("better; gates passed")
    text = shell(promoted, "audit", "verify")
    head = entries[-1]["hash"]
    assert text == f"11 entries; the chain is intact and agrees with the ledger. The last hash is {head}\n"
    assert json.loads(shell(promoted, "audit", "verify", "--expect", head, "--json"))["fault"] is None
    assert "was noted" in shell(promoted, "audit", "verify", "--expect", "0" * 64, code=1)


def test_log_of_a_pipeline_has_its_models_promotions_and_no_other(promoted):
    assert len(shell(promoted, "audit", "log", "--pipeline", "orders", "--last", "3", "--json").split('"seq"')) == 4
    text = shell(promoted, "audit", "log", "--pipeline", "orders")
    assert "v1 to v2" in text and "better" in text and "2024-03-04" in text and "audit started" not in text
    assert json.loads(shell(promoted, "audit", "log", "--pipeline", "other", "--json")) == []


def test_verify_names_the_first_bad_entry_and_fails(promoted):
    promoted.tamper("UPDATE ledger.audit SET actor = 'nobody' WHERE seq >= 7")
    assert "The first fault: entry 7: a column was changed" in shell(promoted, "audit", "verify", code=1)
    assert json.loads(shell(promoted, "audit", "verify", "--json", code=1))["fault"]["seq"] == 7


def test_rollback_says_what_it_did(promoted):
    text = shell(promoted, "models", "rollback", "orders", "--dry-run")
    assert "champion would be v1, was v2" in text and "4 partitions would be rolled back from v2 to v1" in text
    text = shell(promoted, "models", "rollback", "orders", "--why", "worse")
    assert "returns: champion is now v1, was v2" in text
    assert "orders: 4 partitions rolled back from v2 to v1" in text and "Nothing was scored" in text
    assert promoted.scores() == promoted.expected(version=1)
    assert "10 entries" not in shell(promoted, "audit", "verify")
    assert "4 rolled back, 0 could not be" in shell(promoted, "audit", "log")


def test_rollback_of_what_was_never_scored_prints_the_commands_that_do(promoted):
    promoted.tamper(
        "UPDATE ledger.scorings SET status = 'failed' WHERE model_version = 1 AND partition_key <> '2024-03-02'"
    )
    answer = json.loads(
        shell(
            promoted,
            "models",
            "rollback",
            "orders",
            "--to",
            "v1",
            "--partitions",
            "2024-03-01..2024-03-04",
            "--json",
            code=3,
        )
    )
    assert [flip["partition_key"] for flip in answer["flips"]] == ["2024-03-02"] and not answer["complete"]
    assert answer["rescore"] == [
        "pip-dagster models promote returns v1",
        "dagster asset materialize -m acme.definitions --select orders/predictions --partition 2024-03-01",
        "dagster asset materialize -m acme.definitions --select orders/predictions "
        "--partition-range 2024-03-03...2024-03-04",
    ]
    text = shell(promoted, "models", "rollback", "orders", "--to", "1", code=3)
    assert "v1 has never scored it" in text and "models promote" not in text and "2024-03-03...2024-03-04" in text


def test_mistakes_are_answered(promoted):
    assert "declares no pipeline 'order'" in shell(promoted, "models", "rollback", "order", code=1)
    assert "is not an instant" in shell(promoted, "models", "rollback", "orders", "--as-of", "noon", code=2)
    assert "is not a range" in shell(promoted, "models", "rollback", "orders", "--partitions", "a..", code=2)
    assert "use only one of them" in shell(promoted, "lineage", "orders", "--key", "1", "--as-of", "2024-03-01", code=2)
    assert "key of orders is order_id" in shell(promoted, "lineage", "orders", "--key", "1", "--key", "2", code=2)
    assert "Name a PARTITION" in shell(promoted, "lineage", "orders", code=2)
    assert "never scored order_id = 77777" in shell(promoted, "lineage", "orders", "--key", "77777", code=1)
    early = shell(promoted, "lineage", "orders", DAYS[0], "--as-of", "1999-01-01", code=1)
    assert "nothing was live at 1999-01-01 00:00:00 UTC" in early


def test_audit_of_no_warehouse_says_so(tiny):
    assert "There is no warehouse" in shell(tiny, "audit", "verify", code=1)
    assert "There is no warehouse" in shell(tiny, "models", "rollback", "orders", code=1)


@pytest.mark.lake("always")
def test_lineage_as_of_follows_promotion_and_rollback(promoted):
    times = promoted.warehouse("SELECT made_at FROM ledger.live_changes WHERE partition_key = '2024-03-02' ORDER BY 1")
    shell(promoted, "models", "rollback", "orders", "--why", "worse in Zürich")
    asked = [*(time for (time,) in times), datetime.now(UTC)]
    answers = [
        json.loads(shell(promoted, "lineage", "orders", DAYS[1], "--as-of", time.isoformat(), "--json"))
        for time in asked
    ]
    assert [answer["model_version"] for answer in answers] == [1, 2, 1]
    assert [answer["why"] for answer in answers] == ["scored", "scored", "rolled back from v2: worse in Zürich"]
    assert answers[1]["promotion"]["why"].startswith("better") and answers[0]["live_until"] == answers[1]["live_from"]
    text = shell(promoted, "lineage", "orders", DAYS[1], "--as-of", times[1][0].isoformat())
    assert "returns v2" in text and "better" in text


def test_lineage_of_a_key_has_every_score_it_was_given(promoted):
    shell(promoted, "models", "rollback", "orders")
    rows = json.loads(shell(promoted, "lineage", "orders", "--key", "60", "--json"))
    assert [(row["model_version"], row["role"], row["is_live"]) for row in rows] == [
        (1, "champion", True),
        (2, "champion", False),
    ]
    assert [row["score"] for row in rows] == [promoted.expected(version=v)[60] for v in (1, 2)]
    assert json.loads(shell(promoted, "lineage", "orders", "2024-03-01", "--key", "60", "--json")) == []
    text = shell(promoted, "lineage", "orders", "--key", "60")
    assert "every score of order_id = 60" in text and "returns v2" in text


def test_the_commands_load_no_xgboost_and_no_dagster(promoted):
    process = promoted.python(
        """
        import sys
        from pip_dagster.cli.main import cli
        for arguments in (["audit", "verify"], ["audit", "log"], ["models", "rollback", "orders"],
                          ["lineage", "orders", "--key", "60"]):
            try:
                cli(arguments, standalone_mode=False)
            except SystemExit as end:
                assert not end.code, arguments
        assert not (found := {"xgboost", "dagster"} & set(sys.modules)), found
        """
    )
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
