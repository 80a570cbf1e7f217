"""The commands on audit, rollback and the past, as a shell sees them: text, JSON and exit codes."""

import json
from datetime import UTC, datetime

import pytest

pytestmark = pytest.mark.lake


DAYS = ("2024-03-01", "2024-03-02", "2024-03-03", "2024-03-04")


@pytest.fixture
def promoted(scored_template, helpers, backend, tmp_path):
    def make(root):
        tiny = helpers.Tiny(root)
        tiny.shell("audit", "accept", "--moves", "--why", "the first")
        tiny.shell("models", "promote", "returns", "v2", "--why", "better")
        tiny.run()

    promoted_root = backend.once("promoted by the CLI", scored_template, make)
    return helpers.Tiny(backend.copied(promoted_root, tmp_path / "shop"))


def test_promote_writes_to_the_audit_and_verify_says_that_it_holds(promoted):
    entries = json.loads(promoted.shell("audit", "log", "--json"))
    assert [entry["action"] for entry in entries] == [
        "audit started",
        *["live"] * 4,
        *["promotion"] * 2,  # the first was made from Python and accepted
        *["live"] * 4,
    ]
    moved = entries[6]["details"]
    assert (moved["from"], moved["to"]) == (1, 2) and moved["why"].startswith("better; gates passed")
    text = promoted.shell("audit", "verify")
    head = entries[-1]["hash"]
    assert text == f"11 entries; the chain is intact and agrees with the ledger. The last hash is {head}\n"
    assert json.loads(promoted.shell("audit", "verify", "--expect", head, "--json"))["fault"] is None
    assert "was noted" in promoted.shell("audit", "verify", "--expect", "0" * 64, code=1)


def test_log_of_a_pipeline_has_its_models_promotions_and_no_other(promoted):
    assert len(promoted.shell("audit", "log", "--pipeline", "orders", "--last", "3", "--json").split('"seq"')) == 4
    text = promoted.shell("audit", "log", "--pipeline", "orders")
    assert "v1 to v2" in text and "better" in text and "2024-03-04" in text and "audit started" not in text
    assert "There is no pipeline 'other'; there is orders" in promoted.shell("audit", "log", "other", code=1)


def test_verify_names_the_first_bad_entry_and_fails(promoted):
    promoted.tamper("UPDATE ledger.audit SET actor = 'nobody' WHERE seq >= 7")
    assert "The first fault: entry 7: a column was changed" in promoted.shell("audit", "verify", code=1)
    assert json.loads(promoted.shell("audit", "verify", "--json", code=1))["fault"]["seq"] == 7


def test_rollback_says_what_it_did(promoted):
    text = promoted.shell("models", "rollback", "orders", "--dry-run")
    assert "champion would be v1, was v2" in text and "4 partitions would be rolled back from v2 to v1" in text
    text = promoted.shell("models", "rollback", "orders", "--why", "worse")
    assert "returns: champion is now v1, was v2" in text
    assert "orders: 4 partitions rolled back from v2 to v1" in text and "Nothing was scored" in text
    assert promoted.scores() == promoted.expected(version=1)
    assert "10 entries" not in promoted.shell("audit", "verify")
    assert "4 rolled back, 0 could not be" in promoted.shell("audit", "log")


def test_rollback_of_what_was_never_scored_prints_the_commands_that_do(promoted):
    promoted.tamper(
        "UPDATE ledger.scorings SET status = 'failed' WHERE model_version = 1 AND partition_key <> '2024-03-02'"
    )
    answer = json.loads(
        promoted.shell(
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
        "pip-dagster run orders 2024-03-01",
        "pip-dagster run orders 2024-03-03..2024-03-04",
    ]
    text = promoted.shell("models", "rollback", "orders", "--to", "1", code=3)
    assert "v1 has never scored it" in text and "models promote" not in text and "2024-03-03..2024-03-04" in text


def test_mistakes_are_answered(promoted):
    assert "declares no pipeline 'order'" in promoted.shell("models", "rollback", "order", code=1)
    assert "is not an instant" in promoted.shell("models", "rollback", "orders", "--as-of", "noon", code=2)
    assert "is not a range" in promoted.shell("models", "rollback", "orders", "--partitions", "a..", code=2)
    assert "use only one of them" in promoted.shell("lineage", "orders", "--key", "1", "--as-of", "2024-03-01", code=2)
    assert "key of orders is order_id" in promoted.shell("lineage", "orders", "--key", "1", "--key", "2", code=2)
    assert "Name a PARTITION" in promoted.shell("lineage", "orders", code=2)
    assert "never scored order_id = 77777" in promoted.shell("lineage", "orders", "--key", "77777", code=1)
    early = promoted.shell("lineage", "orders", DAYS[0], "--as-of", "1999-01-01", code=1)
    assert "nothing was live at 1999-01-01 00:00:00 UTC" in early


def test_audit_of_no_warehouse_says_so(tiny):
    assert "There is no warehouse" in tiny.shell("audit", "verify", code=1)
    assert "There is no warehouse" in tiny.shell("models", "rollback", "orders", code=1)


def test_lineage_as_of_follows_promotion_and_rollback(promoted):
    times = promoted.warehouse("SELECT made_at FROM ledger.live_changes WHERE partition_key = '2024-03-02' ORDER BY 1")
    promoted.shell("models", "rollback", "orders", "--why", "worse in Zürich")
    asked = [*(time for (time,) in times), datetime.now(UTC)]
    answers = [
        json.loads(promoted.shell("lineage", "orders", DAYS[1], "--as-of", time.isoformat(), "--json"))
        for time in asked
    ]
    assert [answer["model_version"] for answer in answers] == [1, 2, 1]
    assert [answer["why"] for answer in answers] == ["scored", "scored", "rolled back from v2: worse in Zürich"]
    assert answers[1]["promotion"]["why"].startswith("better") and answers[0]["live_until"] == answers[1]["live_from"]
    text = promoted.shell("lineage", "orders", DAYS[1], "--as-of", times[1][0].isoformat())
    assert "returns v2" in text and "better" in text


def test_lineage_of_a_key_has_every_score_it_was_given(promoted):
    promoted.shell("models", "rollback", "orders")
    rows = json.loads(promoted.shell("lineage", "orders", "--key", "60", "--json"))
    assert [(row["model_version"], row["role"], row["is_live"]) for row in rows] == [
        (1, "champion", True),
        (2, "champion", False),
    ]
    assert [row["score"] for row in rows] == [promoted.expected(version=v)[60] for v in (1, 2)]
    assert json.loads(promoted.shell("lineage", "orders", "2024-03-01", "--key", "60", "--json")) == []
    text = promoted.shell("lineage", "orders", "--key", "60")
    assert "every score of order_id = 60" in text and "returns v2" in text


@pytest.mark.slice
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
