"""The ML Test Score: points from evidence that is there and not too old, and from statements whose signatures match."""

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from pip_dagster import clock
from pip_dagster.cli.scorecard import NAMES
from pip_dagster.errors import PipelineError
from pip_dagster.evidence.signed import signature
from pip_dagster.ledger import audit
from pip_dagster.monitoring.watch import watch_scored
from pip_dagster.registry.signing import key_id, keygen, private_key
from pip_dagster.scorecard.catalogue import PROVEN, SECTIONS, STATED, STATEMENT_DAYS, TESTS
from pip_dagster.scorecard.records import Records
from pip_dagster.scorecard.score import ScoreLine, scorecard, sums
from pip_dagster.scorecard.statements import SignedStatement
from pip_dagster.warehouse.access import writing
from pip_dagster.warehouse.connect import workspace

DAY = timedelta(days=1)
TRAINING = {"useful", "cost", "time_to_add", "offline_online", "tuned", "reproducible", "unit_tested"}


def points(tiny, **later):
    """Test → points, as of now or later."""
    now = clock.wall() + timedelta(**later)
    return {line.name: line.points for line in scorecard(tiny.pipeline(), now=now).lines}


def line_of(tiny, name):
    return next(line for line in scorecard(tiny.pipeline()).lines if line.name == name)


@pytest.fixture
def unverified(monkeypatch):
    """The chain is not verified: what a test puts into the ledger by hand counts."""
    monkeypatch.setattr(Records, "chain_fault", None)


@pytest.fixture
def signed(tiny, tmp_path):
    """A project that trusts one key; another key is beside it."""
    keygen(tmp_path / "mine")
    keygen(tmp_path / "other")
    tiny.declare(scoring={"required_signers": [str(tmp_path / "mine.pub.pem")]})
    return tiny, tmp_path / "mine.pem", tmp_path / "other.pem"


def state(tiny, name, key, *more, code=0):
    words = ("scorecard", "orders", "--state", name, "--why", "it's so", "--key", str(key), *more)
    return tiny.shell(*words, code=code)


def forge(tiny, key=None, **changes):
    """Write a statement of `tuned` to the audit as a forger can; signed by a key before it is changed, if any."""
    now = clock.now()
    with workspace(threads=1) as con, writing(con, tiny.project, purpose="a forger", publish=False):
        (ledger,) = con.execute("SELECT hash FROM ledger.audit WHERE seq = 1").fetchone()
        manifest = tiny.registry.get("returns", 1).manifest_digest
        until = (now + 30 * DAY).isoformat()
        identity = key_id(private_key(key).public_key()) if key else "0" * 16
        made = SignedStatement(ledger, "orders", "tuned", "so", "ada", now.isoformat(), until, manifest, identity)
        details = made.content | ({"signature": signature(made.content, private_key(key))} if key else {})
        subject = {"statement": changes.pop("subject", "tuned")}
        audit.append(con, [audit.Event("statement", audit.micros(now), "ada", "orders", subject, details | changes)])


class TestTheCatalogue:
    def test_has_the_28_in_four_sections_and_the_command_names_them(self):
        assert [test.name for test in TESTS] == [*NAMES] and len({*NAMES}) == 28
        assert all(sum(test.section == section for test in TESTS) == 7 for section in SECTIONS)

    def test_never_proves_the_seven_of_training(self):
        unproven = {test.name for test in TESTS if test.find is None}
        assert unproven == TRAINING | {"inclusion"}
        assert all(bool(test.days) == bool(test.find) == bool(test.counts) for test in TESTS)

    def test_is_the_page_about_it(self):
        page = (Path(__file__).parents[2] / "docs" / "scorecard.md").read_text(encoding="utf-8")
        for test in TESTS:
            what = test.counts or "none: a statement only"
            assert f"| `{test.name}` | {test.title} | {what} | {test.days or ''} |" in page
            assert f"| {test.section}: `{test.name}` | " in page

    def test_of_which_the_smallest_section_is_the_score(self, tiny):
        lines = [ScoreLine(test.name, test.section, test.title, PROVEN) for test in TESTS]
        assert set(sums(lines).values()) == {7.0}
        lines[8] = replace(lines[8], points=STATED)
        assert sums(lines) == {"data": 7.0, "model": 6.5, "infrastructure": 7.0, "monitoring": 7.0}


class TestAnEmptyProject:
    @pytest.mark.parametrize("declared", [{}, {"model_name": "unknown"}])
    def test_has_no_point_and_each_says_what_would_earn_it(self, tiny, declared):
        tiny.declare(scoring=declared)
        card = scorecard(tiny.pipeline())
        assert card.score == 0.0 and {line.points for line in card.lines} == {0.0}
        assert all(line.missing.endswith((".", "`.")) and not line.evidence for line in card.lines)
        assert not tiny.project.warehouse.exists(), "nothing was created"
        assert "ML Test Score 0.0" in tiny.shell("scorecard", "orders")

    def test_has_pages_of_it(self, tiny):
        tiny.shell("scorecard", "orders", "-o", str(tiny.root / "score.html"))
        page = (tiny.root / "score.html").read_text()
        assert page.startswith("<!doctype html>") and "<script" not in page and "Only a signed statement" in page
        text = tiny.shell("scorecard", "orders", "-o", "-")
        assert text.startswith("# orders: ML Test Score 0.0") and text.count("\n| ") == 4 * 8 + 5
        assert json.loads(tiny.shell("scorecard", "orders", "--json"))["sections"]["model"] == 0.0


@pytest.mark.slice
class TestEvidence:
    @pytest.mark.lake
    def test_appears_with_what_was_done_and_names_it(self, reported):
        before = points(reported)
        assert {before[name] for name in TRAINING | {"staleness", "quality", "debuggable", "rollback"}} == {0.0}
        assert {before[name] for name in ("stable", "meta_level")} == {1.0}
        reported.shell("performance", "orders", "--evaluate")
        reported.shell("replay", "orders", "2024-03-02", "--record")
        after = points(reported)
        assert after["debuggable"] == after["slices"] == after["quality"] == 1.0
        assert "A constant score is not worse: logloss is" in line_of(reported, "simpler").missing
        (replayed,) = line_of(reported, "debuggable").evidence
        assert replayed.kind == "audit entry" and "replay of 2024-03-02: 1 partition identical" in replayed.text
        assert reported.warehouse(f"SELECT action FROM ledger.audit WHERE seq = {replayed.id}") == [("exercised",)]
        (evaluated,) = line_of(reported, "quality").evidence
        found = f"SELECT count(*) FROM ledger.evaluations WHERE evaluation_id = '{evaluated.id}'"
        assert reported.warehouse(found) == [(1,)]
        assert "replay passed" in reported.shell("audit", "log")
        reported.shell("audit", "accept", "--moves", "--why", "a test")
        reported.shell("audit", "verify")

    def test_expires(self, reported):
        reported.shell("replay", "orders", "2024-03-02", "--record")
        for test in TESTS:
            if points(reported)[test.name]:
                assert points(reported, days=test.days - 1)[test.name] == 1.0
                assert points(reported, days=test.days + 1)[test.name] == 0.0
        card = scorecard(reported.pipeline(), now=clock.wall() + 91 * DAY)
        line = next(each for each in card.lines if each.name == "debuggable")
        assert "it holds for 90 days" in line.missing and not line.evidence

    def test_of_a_replay_that_differs_is_none(self, reported):
        (table,) = reported.warehouse("SELECT table_name FROM ledger.scorings WHERE status = 'scored' LIMIT 1")[0]
        reported.tamper(f"UPDATE orders.{table} SET score = 0.5 WHERE partition_key = '2024-03-02'")
        reported.shell("replay", "orders", "2024-03-02", "--record", code=1)
        assert "did not give the stored scores" in line_of(reported, "debuggable").missing

    def test_of_gates_is_a_report_that_passed_before_the_move(self, reported):
        assert "no move of champion" in line_of(reported, "validated").missing
        reported.shell("models", "promote", "returns", "v2", "--override", "a test")
        reported.run("2024-03-24")
        assert "promoted although gates did not pass" in line_of(reported, "validated").missing
        reported.shell("models", "rollback", "orders", "--why", "a drill")
        assert line_of(reported, "rollback").evidence[0].text.endswith("rolled back")

    def test_of_a_drill_without_cost_is_none(self, reported):
        reported.shell("models", "rollback", "orders", "--version", "v1", "--dry-run")
        assert points(reported)["rollback"] == 0.0

    def test_of_speed_ends_with_an_alarm(self, reported):
        assert "No rule of operations" in line_of(reported, "speed").missing
        watch_scored(reported.pipeline(), 1, ["2024-03-24"])
        assert line_of(reported, "speed").evidence[0].id == "operations 2024-03-24"
        reported.tamper(
            "INSERT INTO ledger.alarms BY NAME SELECT 'a1' AS alarm_id, 1 AS sequence, 'orders' AS pipeline, "
            "'operations' AS event, 'rows per CPU second' AS subject, 'warning' AS state, 'warning' AS severity"
        )
        assert "alarm a1" in line_of(reported, "speed").missing

    def test_of_another_declaration_is_none(self, reported):
        assert points(reported)["meta_level"] == 1.0
        sql = reported.folder / "features.sql"
        sql.write_text(sql.read_text().replace("'not a feature'", "'another'"))
        assert "another feature SQL" in line_of(reported, "meta_level").missing

    def test_is_not_scores_that_are_infinite(self, reported, unverified):
        reported.tamper("UPDATE ledger.scorings SET max_score = 'infinity' WHERE partition_key = '2024-03-05'")
        assert "not finite" in line_of(reported, "stable").missing


@pytest.mark.slice
def test_a_canary_is_evidence_of_the_version_that_it_was(tiny, monkeypatch):
    tiny.registry.set_alias("returns", "next", 2, by="ada", why="to try")
    loose = {"max_flip_rate": 1, "max_score_psi": 100}
    tiny.declare(scoring={"canary": {"arms": {"next": "40%"}, "salt": "spring", "gate": loose}})
    tiny.run()
    assert "v1 was never a canary" in line_of(tiny, "canary").missing
    tiny.shell("models", "promote", "returns", "v2", "--override", "a test")
    tiny.declare()
    tiny.run("2024-03-04")
    (found,) = line_of(tiny, "canary").evidence
    assert "v2 was a canary of 4 partitions" in found.text
    assert points(tiny, days=89)["canary"] == 1.0 and points(tiny, days=91)["canary"] == 0.0
    tiny.tamper(
        "INSERT INTO ledger.canaries BY NAME SELECT 'e' AS event_id, 'orders' AS pipeline, 2 AS model_version, "
        "'stopped' AS action, 'too many flips' AS why"
    )
    monkeypatch.setattr(Records, "chain_fault", None)
    assert "too many flips" in line_of(tiny, "canary").missing


class TestAStatement:
    @pytest.mark.lake
    def test_counts_half_a_point_until_it_expires(self, signed):
        tiny, key, _ = signed
        assert "is entry" in state(tiny, "tuned", key)
        line = line_of(tiny, "tuned")
        assert line.points == 0.5 and "it's so" in line.evidence[0].text
        assert points(tiny, days=STATEMENT_DAYS - 1)["tuned"] == 0.5
        later = scorecard(tiny.pipeline(), now=clock.wall() + (STATEMENT_DAYS + 1) * DAY)
        assert sum(each.points for each in later.lines) == 0 and "expired" in later.faults[0]
        assert "tuned" in tiny.shell("audit", "log")
        tiny.shell("audit", "accept", "--moves", "--why", "a test")
        tiny.shell("audit", "verify")

    def test_may_end_earlier_and_the_newest_holds(self, signed):
        tiny, key, _ = signed
        state(tiny, "tuned", key)
        state(tiny, "tuned", key, "--until", f"{clock.wall() + 3 * DAY:%Y-%m-%d}")
        assert points(tiny)["tuned"] == 0.5 and points(tiny, days=4)["tuned"] == 0.0

    @pytest.mark.parametrize("until", ["2020-01-01", "2999-01-01"])
    def test_of_a_wrong_time_is_refused(self, signed, until):
        tiny, key, _ = signed
        assert "holds for 366 days at most" in state(tiny, "tuned", key, "--until", until, code=1)

    def test_by_a_key_that_is_not_trusted_is_refused(self, signed):
        tiny, _, other = signed
        assert "is not trusted" in state(tiny, "tuned", other, code=1)
        assert "name a private key" in tiny.shell("scorecard", "orders", "--state", "cost", "--why", "x", code=1)

    @pytest.mark.parametrize(
        ("trust", "changes", "fault"),
        [
            ("mine", {}, ""),
            ("mine", {"why": "another"}, "was edited"),
            ("mine", {"until": "2999-01-01T00:00:00+00:00"}, "was edited"),
            ("mine", {"signature": ""}, "is not signed"),
            ("mine", {"signature": "AAAA"}, "was edited"),
            ("mine", {"more": "x"}, "no statement"),
            ("mine", {"why": 7}, "no statement"),
            ("mine", {"subject": "useful"}, "another ledger, pipeline or test"),
            ("other", {}, "is not trusted"),
            (None, {}, "is not signed"),
        ],
    )
    def test_that_a_forger_wrote_counts_nothing_and_is_said(self, signed, tmp_path, trust, changes, fault):
        tiny = signed[0]
        forge(tiny, tmp_path / f"{trust}.pem" if trust else None, **changes)
        card = scorecard(tiny.pipeline())
        assert sum(line.points for line in card.lines) == (0 if fault else 0.5)
        assert [fault in text for text in card.faults] == ([True] if fault else [])

    @pytest.mark.slice
    def test_of_another_ledger_counts_nothing(self, signed):
        tiny, key, _ = signed
        tiny.shell("models", "sign", "returns", "v1", "--key", str(key))
        tiny.run("2024-03-01")
        state(tiny, "tuned", key)
        details = tiny.warehouse("SELECT details FROM ledger.audit WHERE action = 'statement'")[0][0]
        tiny.begin_again()
        tiny.run("2024-03-01")
        with workspace(threads=1) as con, writing(con, tiny.project, purpose="a forger", publish=False):
            event = audit.Event("statement", 1, "ada", "orders", {"statement": "tuned"}, json.loads(details))
            audit.append(con, [event])
        card = scorecard(tiny.pipeline())
        assert "another ledger" in card.faults[0] and points(tiny)["tuned"] == 0

    def test_about_a_version_ends_with_it(self, signed):
        tiny, key, _ = signed
        state(tiny, "tuned", key)
        state(tiny, "cost", key)
        tiny.registry.set_alias("returns", "champion", 2, by="ada", why="a test")
        assert points(tiny)["tuned"] == 0.0 and points(tiny)["cost"] == 0.5
        assert "about a version that is not live" in scorecard(tiny.pipeline()).faults[0]

    def test_counts_nothing_where_a_trusted_key_cannot_be_read(self, signed, tmp_path):
        tiny, key, _ = signed
        state(tiny, "tuned", key)
        (tmp_path / "mine.pub.pem").unlink()
        assert "mine.pub.pem" in scorecard(tiny.pipeline()).faults[0]

    def test_is_about_a_version_that_is_there(self, signed):
        tiny, key, _ = signed
        tiny.declare(scoring={"model_name": "unknown", "required_signers": [str(key.with_name("mine.pub.pem"))]})
        with pytest.raises(PipelineError, match="about a version"):
            from pip_dagster.scorecard.catalogue import named
            from pip_dagster.scorecard.statements import record

            record(tiny.pipeline(), named("tuned"), "so", None, key)


def test_review_is_the_signatures_of_all_required_signers(signed):
    tiny, key, _ = signed
    assert "has not signed it" in line_of(tiny, "reviewed").missing
    tiny.shell("models", "sign", "returns", "v1", "--key", str(key))
    assert key_id(private_key(key).public_key()) in line_of(tiny, "reviewed").evidence[0].text


def test_a_damaged_registry_hides_no_other_test(tiny):
    tiny.run("2024-03-01")
    manifest = tiny.registry.get("returns", 1).path / "manifest.json"
    manifest.chmod(0o600)
    manifest.write_text("{")
    card = scorecard(tiny.pipeline())
    assert next(line for line in card.lines if line.name == "stable").points == 1.0
    assert "changed" in next(line for line in card.lines if line.name == "reviewed").missing


def test_of_a_chain_that_does_not_verify_nothing_counts(tiny):
    tiny.run("2024-03-01")
    before = scorecard(tiny.pipeline())
    assert before.chain_fault is None and sum(line.points for line in before.lines) > 0
    assert "Its chain was verified." in tiny.shell("scorecard", "orders", "-o", "-")
    tiny.tamper("UPDATE ledger.audit SET actor = 'somebody else' WHERE action = 'live'")
    found = scorecard(tiny.pipeline())
    assert found.chain_fault and not any(line.points or line.evidence for line in found.lines)
    assert "The audit does not verify: " in tiny.shell("scorecard", "orders", "-o", "-")
    assert "`pip-dagster audit verify` lists what is at fault" in " ".join(tiny.shell("scorecard", "orders").split())
