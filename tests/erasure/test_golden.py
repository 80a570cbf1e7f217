"""Golden rows of a person are removed from every registered version, which still loads, is verified and rolled back."""

from __future__ import annotations

import json
import os
import shutil
from datetime import UTC, datetime

import numpy as np
import pytest

from pip_dagster.erasure.erase import erase
from pip_dagster.erasure.holds import place_hold
from pip_dagster.erasure.wish import Wish
from pip_dagster.errors import ErasureError
from pip_dagster.evidence.everything import verify_everything
from pip_dagster.promotion.identity import golden_gate
from pip_dagster.promotion.reports import newest_report, store_report
from pip_dagster.registry.errors import CorruptRegistry, DigestMismatch
from pip_dagster.registry.files import sha256
from pip_dagster.registry.golden import read_table
from pip_dagster.registry.publish import remove_abandoned, staging
from pip_dagster.registry.signing import verify_signers
from pip_dagster.statistics.gate_result import GateReport, Mover

DAY = "2024-03-01"
THREES = "'customer-' || (order_id // 3)"
SQL = f"""
SELECT order_id, day, gift, shop, quantity, amount, {THREES} AS customer
FROM raw.orders WHERE day >= $start_date AND day < $end_date
"""
ONE = Wish("customer-3", "request 1", "ada")
OF_ONE = "order_id // 3 = 3"


pytestmark = pytest.mark.slice


@pytest.fixture
def customers(tiny):
    """One partition is scored."""
    tiny.declare(SQL, privacy={"subject": "customer"})
    tiny.run(DAY)
    return tiny


@pytest.fixture
def trained(customers):
    """A version whose sample has the person's rows, among others, as training had them: float64, no keys."""
    register(customers, customers.source_frame("order_id < 60"))
    return customers


def register(tiny, sample):
    model = tiny.registry.get("returns", 1)
    sample.to_parquet(tiny.root / "sample.parquet")
    of = {"categories": {"shop": model.manifest.features[3].categories}, "by": "ada"}
    return tiny.registry.register("trained", model=model.path / "model.ubj", sample=tiny.root / "sample.parquet", **of)


def persons(tiny):
    """The model's values of the person's rows."""
    frame = tiny.source_frame(OF_ONE)
    return [tuple(row) for row in frame[["amount", "quantity", "gift", "shop"]].itertuples(index=False)]


def golden(tiny):
    return read_table(tiny.registry.get("trained", 1))


def has(table, rows):
    listed = {
        repr((a, q, g, s))
        for a, q, g, s in zip(*(table[n].to_pylist() for n in ("amount", "quantity", "gift", "shop")), strict=True)
    }
    return [row for row in rows if repr(tuple(np.array(v).item() for v in row)).replace("nan", "None") in listed]


def faults(tiny):
    return [fault.message for fault in verify_everything(tiny.project, expect=None, anchors=False).faults]


def test_golden_rows_of_the_person_are_gone_and_the_others_are_as_before(trained):
    rows, before = persons(trained), golden(trained)
    assert len(has(before, rows)) == 3
    original = trained.registry.get("trained", 1).path / "golden.parquet"
    erase(trained.project, [trained.pipeline()], ONE)
    after, version = golden(trained), trained.registry.get("trained", 1)
    assert not has(after, rows) and after.num_rows == before.num_rows - 3 and not original.exists()
    assert {*map(repr, after.to_pylist())} < {*map(repr, before.to_pylist())}
    version.verify()
    gate = golden_gate(version, threads=1)
    assert gate.passed and gate.figure == 0
    assert not faults(trained)
    trained.shell("models", "show", "trained", "1")
    assert "3 golden rows erased by" in trained.shell("audit", "log")


def test_what_uses_a_version_works_with_the_rows_that_are_left(trained):
    trained.registry.set_alias("trained", "champion", 1, by="ada", why="a test")
    members = {"ensemble": [{"model": name, "version": 1} for name in ("trained", "returns")]}
    trained.registry.compose("both", members, sample=trained.root / "sample.parquet")
    key = trained.root / "key"
    trained.shell("models", "keygen", str(key))
    trained.shell("models", "sign", "trained", "v1", "--key", f"{key}.pem")
    before = trained.registry.get("trained", 1)
    erase(trained.project, [trained.pipeline()], ONE)
    version = trained.registry.get("trained", "champion")
    assert version == before  # the manifest, its digest and its signatures are as they were
    verify_signers(version, [f"{key}.pub.pem"])
    assert trained.registry.get("both", 1).golden_files.reissues  # it has rows of the sample of its own
    assert not faults(trained)
    again = register(trained, trained.source_frame("order_id < 60"))
    assert again == version and not again.created
    for words in (["list"], ["show", "trained"], ["history", "trained"]):
        trained.shell("models", *words)


@pytest.mark.soak
def test_without_any_row_left_a_version_loads_and_says_that_nothing_is_compared(customers):
    register(customers, customers.source_frame(OF_ONE))
    erase(customers.project, [customers.pipeline()], ONE)
    assert golden(customers).num_rows == 0 and not faults(customers)
    gate = golden_gate(customers.registry.get("trained", 1), threads=1)
    assert gate.passed and gate.state == "unjudged" and "left no golden row" in gate.text


def test_altered_golden_rows_are_refused_as_before(trained):
    erase(trained.project, [trained.pipeline()], ONE)
    version = trained.registry.get("trained", 1)
    path, digest = version.golden_files.current
    whole, listed = path.read_bytes(), path.parent.with_suffix(".json")
    path.write_bytes(whole + b"x")
    with pytest.raises(DigestMismatch, match="golden.parquet"):
        version.verify()
    path.write_bytes(whole)
    kept = listed.read_text()
    steps = json.loads(kept)
    listed.write_text(json.dumps([steps[0] | {"before": digest}]))
    with pytest.raises(CorruptRegistry, match="other golden rows than those"):
        version.verify()
    # Whoever rewrites list and file alike is found by the audit.
    path.with_name(sha256(whole + b"x") + ".parquet").write_bytes(whole + b"x")
    listed.write_text(json.dumps([steps[0] | {"after": sha256(whole + b"x")}]))
    version.verify()
    assert "which the audit does not have" in faults(trained)[0]


def test_a_registry_from_a_backup_is_found_and_erased_again(trained):
    folder, backup = trained.registry.root / "trained", trained.root / "backup"
    shutil.copytree(folder, backup)
    rows = persons(trained)
    erase(trained.project, [trained.pipeline()], ONE)
    shutil.rmtree(folder)
    shutil.copytree(backup, folder)
    assert has(golden(trained), rows)
    assert "came back from a backup" in faults(trained)[0]
    erase(trained.project, [trained.pipeline()], ONE)
    assert not has(golden(trained), rows) and not faults(trained)
    # Only the file comes back: it does not count, and is found.
    shutil.copy(backup / "versions" / "1" / "golden.parquet", folder / "versions" / "1" / "golden.parquet")
    assert not has(golden(trained), rows) and "came back from a backup" in faults(trained)[0]
    erase(trained.project, [trained.pipeline()], ONE)
    assert not (folder / "versions" / "1" / "golden.parquet").exists() and not faults(trained)


@pytest.mark.soak
def test_a_registry_that_is_away_is_waited_for(trained):
    person, one, away = (
        persons(trained),
        ("erase", "--subject", ONE.subject, "--why", "w"),
        trained.project.registry.with_name("away"),
    )
    trained.project.registry.rename(away)
    assert "Mount or restore the registry" in trained.shell(*one, code=1)
    away.rename(trained.project.registry)
    done = json.loads(trained.shell(*one, "--json"))
    assert done["resumed"] and not has(golden(trained), person)


@pytest.mark.soak
def test_killed_between_registry_and_audit_it_resumes(trained, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("pip_dagster.erasure.golden.reissued.unrecorded", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            erase(trained.project, [trained.pipeline()], ONE)
    assert "which the audit does not have" in faults(trained)[0]
    assert erase(trained.project, [trained.pipeline()], ONE).resumed
    assert not faults(trained)


def test_golden_rows_of_who_is_on_hold_are_kept_aside_whoever_is_erased(customers):
    trained = customers
    alike = "amount = 7, quantity = 7, gift = true, shop = 'plain'"
    trained.source(f"UPDATE raw.orders SET {alike} WHERE order_id IN (9, 12)")  # of customer-3 and customer-4
    trained.run(DAY)
    register(trained, trained.source_frame("order_id < 60"))
    pipelines, both = [trained.pipeline()], [Wish(f"customer-{n}", "request 1", "ada") for n in (3, 4)]
    holds = [place_hold(trained.project, pipelines, each.subject, why="claim 8", by="ada") for each in both]
    kept = "SELECT count(*) FROM ledger.held_rows WHERE hold_id = '{}' AND table_name = 'golden__trained_v1'"
    with pytest.MonkeyPatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr("pip_dagster.erasure.golden.golden.without", lambda *_, **__: 1 / 0)
        erase(trained.project, pipelines, both[0])
    for number in (3, 4):
        erase(trained.project, pipelines, both[number - 3])
        # The two rows that are alike leave the version with the first erasure; the second person's is among them.
        assert [trained.warehouse(kept.format(each)) for each in holds] == [[(4,)], [(2 if number == 3 else 4,)]]
    listed = json.loads(trained.shell("hold", "list", "--json"))
    assert all(each["rows_kept"] > 4 for each in listed)
    trained.shell("subject", "report", both[1].subject, "-o", str(trained.root / "person.html"))
    assert "golden rows of trained v1" in (trained.root / "person.html").read_text()
    for hold, wish in zip(holds, both, strict=True):
        trained.shell("hold", "release", hold, "--why", "settled")
        erase(trained.project, pipelines, wish)
        assert trained.warehouse(f"SELECT count(*) FROM ledger.held_rows WHERE hold_id = '{hold}'") == [(0,)]


def test_a_mirror_of_mlflow_may_be_empty(trained, monkeypatch):
    trained.project.registry.rename(trained.project.registry.with_name("away"))
    monkeypatch.setenv("PIP_DAGSTER_MLFLOW", "sqlite:///mlflow.db")
    done = json.loads(trained.shell("erase", "--subject", ONE.subject, "--why", "w", "--json"))
    [remains] = [each["remains"] for each in done["steps"] if each["place"] == "golden rows"]
    assert "golden rows of returns v1 if MLflow has them" in remains


@pytest.mark.soak
def test_a_registration_that_died_leaves_no_sample(trained):
    died = trained.registry.root / "trained" / ".incoming-0123"
    died.mkdir()
    (died / "sample.arrow").write_bytes(b"customer-3")
    with pytest.raises(ErasureError, match="is being registered"):  # so young that it may be running
        erase(trained.project, [trained.pipeline()], ONE)
    os.utime(died, (0, 0))
    erase(trained.project, [trained.pipeline()], ONE)
    assert not died.exists()
    with staging(trained.registry.root / "trained") as running:
        os.utime(running, (1, 1))
        assert remove_abandoned(trained.registry.root) == [running]


@pytest.mark.soak
def test_reports_of_gates_lose_the_rows_of_concerned_partitions(customers):
    movers = tuple(Mover(day, "9", 0.1, 0.9) for day in (DAY, "2024-03-02"))
    of = {"pipeline": "orders", "model_name": "returns", "alias": "champion", "candidate": 1, "champion": None}
    at = datetime(2024, 3, 1, tzinfo=UTC)
    report = GateReport(
        **of, partitions=(), results=(), segments=(), movers=movers, made_by="ada", made_at=at, seconds=1
    )
    store_report(customers.registry.root, report)
    erase(customers.project, [customers.pipeline()], ONE)
    assert newest_report(customers.registry.root, "returns", 1).movers == movers[1:]
