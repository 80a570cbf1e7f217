"""A registered version that was replaced as a whole, and alias moves that no command recorded."""

import json
import shutil
from datetime import UTC, datetime

import pytest

from pip_dagster.errors import PipelineError
from pip_dagster.ledger.promotions import record_promotions
from pip_dagster.registry.errors import CorruptRegistry, LostMove, PromotionRefused, ReplacedVersion
from pip_dagster.registry.files import sha256

FIRST, SECOND, NEW = "2024-03-01", "2024-03-02", "2024-03-05"


def replace(tiny, version, by, model="returns"):
    """Put another version in the place of one, with a manifest and digests that fit."""
    target, source = (tiny.registry.get(model, number).path for number in (version, by))
    shutil.rmtree(target)
    shutil.copytree(source, target)
    manifest = json.loads((target / "manifest.json").read_bytes()) | {"version": version}
    data = json.dumps(manifest).encode()
    (target / "manifest.json").write_bytes(data)
    (target / "manifest.sha256").write_text(sha256(data))
    tiny.registry.get(model, version).verify()


def forge(tiny, version, by="ada", alias="champion", at=None):
    """Append a move to the alias's file, as `models promote` would have written it."""
    path = tiny.project.registry / "returns" / "aliases" / f"{alias}.json"
    moves = json.loads(path.read_text())
    at = at or datetime.now(UTC).isoformat()
    move = {"alias": alias, "version": version, "previous": moves[-1]["version"], "at": at, "by": by}
    path.write_text(json.dumps([*moves, move | {"why": "passed gates", "rollback_id": None}]))


@pytest.fixture
def recorded(scored):
    """The audit holds every move so far."""
    record_promotions(scored.project)
    assert "intact" in scored.shell("audit", "verify")
    return scored


@pytest.fixture
def replaced(recorded):
    replace(recorded, 1, by=2)
    recorded.source(f"INSERT INTO raw.orders SELECT * REPLACE ('{NEW}'::DATE AS day) FROM raw.orders LIMIT 9")
    return recorded


class TestAReplacedVersion:
    @pytest.mark.lake("always")
    def test_scores_nothing(self, replaced):
        before = replaced.warehouse("SELECT * FROM ledger.scorings ORDER BY ALL")
        with pytest.raises(ReplacedVersion) as caught:
            replaced.run(NEW)
        (known,) = replaced.warehouse("SELECT DISTINCT model_digest FROM ledger.scorings")
        for part in ("returns v1", *known, "when it scored orders, partition 2024-03-01", "as a new version"):
            assert part in str(caught.value)
        assert replaced.warehouse("SELECT * FROM ledger.scorings ORDER BY ALL") == before

    def test_ends_a_backfill_with_a_message(self, replaced):
        text = replaced.shell("backfill", "orders", "--from", NEW, "--to", NEW, "--version", "v1", code=1)
        assert "was replaced in the registry" in text and "Traceback" not in text

    @pytest.mark.lake
    def test_is_a_finding_of_the_audit(self, replaced):
        assert "returns v1: the model has sha256" in replaced.shell("audit", "verify", code=1)

    def test_cannot_be_replayed(self, replaced):
        assert "replaced" in replaced.shell("replay", "orders", FIRST, code=2)

    def test_is_no_candidate(self, replaced):
        replaced.registry.set_alias("returns", "champion", 2, by="ada", why="better")
        assert "was replaced in the registry" in replaced.shell("models", "promote", "returns", "v1", code=1)
        assert "was replaced in the registry" in replaced.shell("models", "gate", "orders", "v1", code=1)

    def test_is_no_candidate_of_a_model_that_no_pipeline_declares(self, replaced):
        text = replaced.shell("models", "promote", "returns", "v1", "--alias", "other", code=1)
        assert "was replaced in the registry" in text and "other" not in replaced.registry.aliases("returns")

    def test_is_no_member_of_a_composite(self, replaced):
        (replaced.root / "both.yaml").write_text(
            "ensemble: [{model: returns, version: 1}, {model: returns, version: 2}]"
        )
        words = ("models", "compose", "returns", str(replaced.root / "both.yaml"), "--sample", "nowhere.parquet")
        assert "was replaced in the registry" in replaced.shell(*words, code=1)

    def test_is_no_champion_to_compare_with(self, replaced):
        with pytest.raises(AssertionError, match="cannot be compared with"):
            replaced.shell("models", "gate", "orders", "v2")

    @pytest.mark.slice
    def test_is_no_challenger_and_leaves_the_champion(self, recorded):
        recorded.registry.set_alias("returns", "challenger", 2, by="ada", why="to compare")
        recorded.declare(scoring={"challengers": ["challenger"]})
        recorded.run()
        replace(recorded, 2, by=1)
        recorded.source("UPDATE raw.orders SET quantity = 1 + quantity % 8")
        assert all(result.scoring and not result.challengers for result in recorded.run().values())
        assert recorded.scores() == recorded.expected()

    @pytest.mark.slice
    def test_is_no_arm_of_a_split(self, recorded):
        recorded.registry.set_alias("returns", "challenger", 2, by="ada", why="to compare")
        recorded.declare(scoring={"split": {"arms": {"challenger": "40%"}, "salt": "a"}})
        recorded.run()
        replace(recorded, 2, by=1)
        recorded.source("UPDATE raw.orders SET quantity = 1 + quantity % 8")
        results = recorded.run().values()
        assert all("was replaced in the registry" in result.refused["challenger"].text for result in results)

    @pytest.mark.slice
    def test_is_known_from_its_promotion_before_it_scored(self, recorded):
        recorded.shell("models", "promote", "returns", "v2", "--override", "a test")
        replace(recorded, 2, by=1)
        with pytest.raises(ReplacedVersion, match="when champion moved to it"):
            recorded.run()
        assert "returns v2: the model has sha256" in recorded.shell("audit", "verify", code=1)

    def test_is_known_from_the_audit_where_its_scorings_are_gone(self, replaced):
        replaced.tamper("DELETE FROM ledger.scorings")
        with pytest.raises(ReplacedVersion, match="in the audit, of partition"):
            replaced.run(NEW)

    def test_that_another_manifest_describes_is_another_version(self, recorded):
        path = recorded.registry.get("returns", 1).path
        data = (path / "manifest.json").read_bytes().replace(b'"description"', b' "description"')
        (path / "manifest.json").write_bytes(data)
        (path / "manifest.sha256").write_text(sha256(data))
        recorded.source("UPDATE raw.orders SET quantity = 1 + quantity % 8")
        with pytest.raises(ReplacedVersion, match=r"manifest\.json has sha256"):
            recorded.run()

    @pytest.mark.slice
    def test_can_be_accepted_as_it_is(self, replaced):
        assert "1 version" in replaced.shell("audit", "accept", "--versions", "--why", "the registry was merged")
        assert replaced.run(NEW)[NEW].scoring
        assert "intact" in replaced.shell("audit", "verify")
        assert "the registry was merged" in replaced.shell("audit", "log")
        assert replaced.run(NEW)[NEW].reused

    def test_that_scored_before_this_was_checked_is_a_finding(self, recorded):
        recorded.tamper(f"UPDATE ledger.scorings SET manifest_digest = 'x' WHERE partition_key = '{SECOND}'")
        found = json.loads(recorded.shell("audit", "verify", "--json", code=1))["fault"]
        assert found["kind"] == "ledger", "the audit comes first"


def test_a_version_that_is_gone_is_a_finding(recorded):
    recorded.registry.set_alias("returns", "champion", 2, by="ada", why="better")
    record_promotions(recorded.project)
    shutil.rmtree(recorded.registry.get("returns", 1).path)
    assert "returns v1 is gone from the registry" in recorded.shell("audit", "verify", code=1)


def test_a_damaged_version_is_a_finding(recorded):
    path = recorded.registry.get("returns", 1).path / "model.ubj"
    path.write_bytes(path.read_bytes() + b"x")
    assert "model.ubj has sha256" in recorded.shell("audit", "verify", code=1)


def test_a_manifest_that_an_older_release_wrote_stays_valid(recorded):
    """Reading completes what it lacks; its digest is that of its bytes."""
    path = recorded.registry.get("returns", 1).path
    before = (path / "manifest.json").read_bytes()
    assert recorded.run()[FIRST].reused and (path / "manifest.json").read_bytes() == before


class TestAMoveThatNoCommandRecorded:
    @pytest.mark.slice
    def test_is_a_finding_with_its_own_exit_code(self, recorded):
        forge(recorded, 2)
        text = recorded.shell("audit", "verify", code=4)
        assert "returns: champion from v1 to v2 by ada" in text and "audit accept --moves" in text
        found = json.loads(recorded.shell("audit", "verify", "--json", code=4))
        assert found["unrecorded_promotions"] == 1 and found["unrecorded"][0]["version"] == 2

    @pytest.mark.slice
    def test_is_not_recorded_by_a_later_promotion(self, recorded):
        forge(recorded, 2)
        recorded.shell("models", "promote", "returns", "v1", "--override", "back")
        assert "champion from v1 to v2 by ada" in recorded.shell("audit", "verify", code=4)

    @pytest.mark.slice
    def test_is_not_recorded_by_a_rollback(self, recorded):
        forge(recorded, 2)
        recorded.run()
        recorded.shell("models", "rollback", "orders", "--why", "worse")
        assert "champion from v1 to v2 by ada" in recorded.shell("audit", "verify", code=4)

    def test_is_not_recorded_by_a_promotion_to_where_it_points(self, recorded):
        forge(recorded, 2)
        recorded.shell("models", "promote", "returns", "v2")
        assert "by ada" in recorded.shell("audit", "verify", code=4)

    def test_at_the_time_of_a_recorded_one_is_a_finding(self, recorded):
        at = recorded.registry.alias_history("returns", "champion")[-1].at.isoformat()
        forge(recorded, 2, by="the first", at=at)
        assert "v1 to v2" in recorded.shell("audit", "verify", code=4)

    def test_is_accepted_by_a_person(self, recorded):
        forge(recorded, 2)
        assert "1 alias move" in recorded.shell("audit", "accept", "--moves", "--why", "made by the training job")
        assert "intact" in recorded.shell("audit", "verify")
        (details,) = recorded.warehouse("SELECT details FROM ledger.audit ORDER BY seq DESC LIMIT 1")[0]
        assert json.loads(details)["accepted_why"] == "made by the training job"

    def test_needs_a_reason(self, recorded):
        assert "Give the reason" in recorded.shell("audit", "accept", "--moves", code=2)
        assert "Choose what to accept" in recorded.shell("audit", "accept", "--why", "so", code=2)


def test_a_history_that_was_cut_is_a_finding(recorded):
    recorded.shell("models", "promote", "returns", "v2", "--override", "a test")
    path = recorded.project.registry / "returns" / "aliases" / "champion.json"
    path.write_text(json.dumps(json.loads(path.read_text())[:1]))
    assert "has no move from 1 to 2" in recorded.shell("audit", "verify", code=1)


def test_a_history_whose_middle_was_cut_is_a_finding(recorded):
    for version in (2, 1):
        recorded.registry.set_alias("returns", "champion", version, by="eve", why="to and fro")
    path = recorded.project.registry / "returns" / "aliases" / "champion.json"
    moves = json.loads(path.read_text())
    path.write_text(json.dumps([moves[0], moves[2]]))
    assert "a move from v2 to v1 by eve where the move before it ended at v1" in recorded.shell(
        "audit", "verify", code=1
    )


def test_an_empty_alias_file_is_damaged(recorded):
    path = recorded.project.registry / "returns" / "aliases" / "challenger.json"
    path.write_text("[]")
    with pytest.raises(CorruptRegistry, match="is not an alias history"):
        recorded.registry.aliases("returns")
    assert "challenger.json is not an alias history" in recorded.shell("audit", "verify", code=1)


def test_a_promotion_that_was_refused_for_its_gates_records_nothing(recorded):
    assert issubclass(PromotionRefused, PipelineError)
    entries = recorded.warehouse("SELECT count(*) FROM ledger.audit")
    recorded.shell("models", "promote", "returns", "v9", code=1)
    assert recorded.warehouse("SELECT count(*) FROM ledger.audit") == entries


class TestARegistryFromAnOlderBackup:
    """It lacks the last move: its alias names the version that was replaced."""

    @pytest.fixture
    def older(self, recorded):
        folder = recorded.project.registry
        shutil.copytree(folder, folder.with_name("backup"))
        recorded.shell("models", "promote", "returns", "v2", "--override", "a test")
        assert all(result.scoring.model_version == 2 for result in recorded.run().values())
        shutil.rmtree(folder)
        folder.with_name("backup").rename(folder)
        return recorded

    def test_scores_nothing_and_moves_nothing(self, older):
        before = older.warehouse("SELECT * FROM ledger.live_changes ORDER BY ALL")
        with pytest.raises(LostMove, match=r"is v1, and .* from v1 to v2 .* restored from an older backup"):
            older.run()
        text = older.shell("backfill", "orders", "--from", FIRST, "--to", SECOND, "--no-dagster", code=1)
        assert "audit accept --moves" in text
        assert older.warehouse("SELECT * FROM ledger.live_changes ORDER BY ALL") == before

    def test_scores_a_version_that_is_requested_by_number(self, older):
        assert older.run(FIRST, version=2)[FIRST].reused

    @pytest.mark.slice
    def test_scores_once_a_person_has_moved_the_alias(self, older):
        older.shell("models", "promote", "returns", "v2", "--override", "it was v2")
        assert older.run(FIRST)[FIRST].scoring.model_version == 2

    @pytest.mark.slice
    def test_scores_once_it_is_accepted_and_the_audit_agrees_again(self, older):
        assert "has no move from 1 to 2" in older.shell("audit", "verify", code=1)
        assert "1 alias move" in older.shell("audit", "accept", "--moves", "--why", "the disk died")
        assert older.run(FIRST)[FIRST].scoring.model_version == 1
        assert "intact" in older.shell("audit", "verify")

    def test_without_the_alias_promotes_no_version_as_if_it_were_the_first(self, recorded):
        path = recorded.project.registry / "returns" / "aliases" / "champion.json"
        path.unlink()
        assert "there is nothing to compare with" in recorded.shell("models", "promote", "returns", "v2", code=1)
        assert not path.exists()
        recorded.shell("models", "promote", "returns", "v2", "--override", "the file was deleted")
        assert recorded.run(FIRST)[FIRST].scoring.model_version == 2

    def test_is_no_challenger(self, recorded):
        recorded.shell("models", "promote", "returns", "v2", "--alias", "challenger")
        recorded.declare(scoring={"challengers": ["challenger"]})
        path = recorded.project.registry / "returns" / "aliases" / "challenger.json"
        moves = json.loads(path.read_text())
        path.write_text(json.dumps([moves[0] | {"by": "eve"}]))
        (result,) = recorded.run(FIRST).values()
        assert result.scoring and not result.challengers
