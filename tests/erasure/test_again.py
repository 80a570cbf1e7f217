"""A backup of the warehouse from before an erasure is restored: nothing runs until the person is erased again."""

from __future__ import annotations

import json
import shutil
import stat
from datetime import UTC, datetime

import pytest

from pip_dagster.declaration.find import find_pipeline
from pip_dagster.erasure.again import erase_again
from pip_dagster.erasure.erase import concerned, erase
from pip_dagster.erasure.holds import list_holds, place_hold, release_hold
from pip_dagster.erasure.wish import Wish
from pip_dagster.errors import DeclarationError, ErasureError, RestoredWarehouseError
from pip_dagster.evidence.everything import verify_everything
from pip_dagster.warehouse.erased import certificate_file, folder, request_file

DAY, OTHER = "2024-03-01", "2024-03-02"
SQL = """
SELECT order_id, day, gift, shop, quantity, amount, 'customer-' || (order_id // 3) AS customer
FROM raw.orders WHERE day >= $start_date AND day < $end_date
"""
ONE, TWO = "customer-3", "customer-5"

pytestmark = pytest.mark.slice
ONE_KIND = pytest.mark.parametrize("restored", ["pseudonyms"], indirect=True)


@pytest.fixture(params=["pseudonyms", pytest.param("as they are", marks=pytest.mark.soak)])
def restored(request, tiny, monkeypatch):
    """Two people are erased, of whom the backup has one, and it is restored with what was published then."""
    monkeypatch.setenv("SHOP_KEY", "0123456789abcdef" * 3)  # pragma: allowlist secret
    more = {"pseudonymize": {"key_env": "SHOP_KEY"}} if request.param != "as they are" else {}
    tiny.declare(SQL, privacy={"subject": "customer"} | more)
    tiny.run(DAY)
    assert not folder(tiny.project).exists()
    erase(tiny.project, [tiny.pipeline()], Wish(TWO, "request 1", "ada"))
    state, backup = tiny.project.warehouse.parent, tiny.root / "backup"
    published = tiny.project.published
    shutil.copy(tiny.project.warehouse, backup)
    shutil.copytree(published, tiny.root / "backup of published")
    if request.param == "on hold":
        place_hold(tiny.project, [tiny.pipeline()], ONE, why="a lawsuit", by="ada")
    done = erase(tiny.project, [tiny.pipeline()], Wish(ONE, "request 2", "ada"))
    shutil.rmtree(published)
    shutil.copytree(tiny.root / "backup of published", published)
    shutil.rmtree(state / "registry" / ".ledgers", ignore_errors=True)
    shutil.copy(backup, tiny.project.warehouse)
    return tiny, done.erasure_id


def again(tiny):
    return erase_again(tiny.project, lambda name: find_pipeline(tiny.project, name), "bob")


def customers(tiny):
    return len(tiny.warehouse("SELECT DISTINCT customer FROM orders.features"))


def test_nothing_runs_or_is_published_until_the_erasure_is_repeated(restored):
    tiny, erasure_id = restored
    before = customers(tiny)
    refused = f"does not know the erasure {erasure_id}"
    with pytest.raises(RestoredWarehouseError, match=refused):
        tiny.run(OTHER)
    for words in (["publish"], ["status"], ["erase", "--subject", "x", "--why", "y"]):
        assert refused in tiny.shell(*words, code=1)
    assert "erase --again" in tiny.shell("doctor", code=1)
    assert "is done" in tiny.shell("erase", "--again")
    assert customers(tiny) == before - 1
    tiny.run()
    assert not concerned(tiny.project, [tiny.pipeline()], ONE)
    assert not verify_everything(tiny.project, expect=None, anchors=False).faults
    assert again(tiny) == [] and "knows every erasure" in tiny.shell("erase", "--again")
    assert len([*folder(tiny.project).glob(f"{erasure_id}.again-*.json")]) == 1
    tiny.shell("status")
    tiny.shell("certificate", erasure_id)


@ONE_KIND
def test_the_folder_names_nobody_and_is_for_its_owner(restored):
    tiny, erasure_id = restored
    for path in folder(tiny.project).iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600 and ONE not in path.read_text()
    [(key,)] = tiny.warehouse("SELECT min(customer) FROM orders.features")
    kept = json.loads(request_file(tiny.project, erasure_id).read_text())
    assert key not in str(kept) and kept["why"] == "request 2"


ALTERED = (
    (lambda kept: kept["pipelines"]["orders"]["stored"].clear(), "was altered: its secret"),
    (lambda kept: kept["pipelines"]["orders"].update(key_version="k9"), "'k9'.* is not declared"),
    (lambda kept: kept["pipelines"]["orders"].update(check="0"), "of another value or domain"),
    (lambda kept: kept.pop("macs"), "it was altered. Restore the file"),
    (lambda kept: kept.update(erasure_id="other"), "it was altered. Restore the file"),
)


@ONE_KIND
def test_an_altered_request_another_secret_or_another_declaration_is_refused(restored):
    tiny, erasure_id = restored
    path = request_file(tiny.project, erasure_id)
    whole = path.read_text()
    for change, error in ALTERED:
        kept = json.loads(whole)
        change(kept)
        path.write_text(json.dumps(kept))
        with pytest.raises(ErasureError, match=error):
            again(tiny)
    path.write_text(whole)
    tiny.declare(SQL)
    with pytest.raises(DeclarationError, match=rf"declares no `privacy.subject`, and the erasure {erasure_id}"):
        again(tiny)


@ONE_KIND
def test_an_erasure_that_is_repeated_and_interrupted_goes_on(restored):
    tiny, erasure_id = restored

    class Away:
        name = "away"

        def remove(self, request):
            raise ErasureError("it is away")

    with pytest.raises(ErasureError, match="it is away"):
        erase_again(tiny.project, lambda name: find_pipeline(tiny.project, name), "bob", others=[Away()])
    with pytest.raises(RestoredWarehouseError, match=erasure_id):
        tiny.run(OTHER)
    assert [done.resumed for done in again(tiny)] == [True]
    tiny.run(OTHER)


@pytest.mark.parametrize("by_hand", [False, True])
@pytest.mark.parametrize("restored", ["on hold"], indirect=True)
def test_what_a_legal_hold_kept_is_kept_again(restored, by_hand):
    tiny, erasure_id = restored
    kept = "SELECT count(*) > 0 FROM ledger.held_rows WHERE erasure_id = '{}'"
    [file] = folder(tiny.project).glob("*.hold.json")
    if by_hand:
        file.unlink()  # or it was placed by a version that did not write the file
        with pytest.raises(ErasureError, match=r"the legal hold .* kept rows of the erasure"):
            again(tiny)
        place_hold(tiny.project, [tiny.pipeline()], ONE, why="a lawsuit", by="ada")
    else:
        text = file.read_text()
        file.write_text(text.replace("a lawsuit", "a whim"))
        with pytest.raises(ErasureError, match="was altered"):
            again(tiny)
        file.write_text(text)
    again(tiny)
    assert tiny.warehouse(kept.format(erasure_id)) == [(True,)]
    [hold] = list_holds(tiny.project)
    assert hold["state"] == "held" and hold["why"] == "a lawsuit" and hold["made_by"] == "ada"
    release_hold(tiny.project, hold["hold_id"], why="settled", by="ada")
    assert not [*folder(tiny.project).glob("*.hold.json")]


def test_a_backup_of_before_a_hold_purges_nothing_until_it_is_placed_again(tiny):
    tiny.declare(SQL, privacy={"subject": "customer"})
    tiny.run(DAY)
    backup = tiny.project.warehouse.read_bytes()
    hold = place_hold(tiny.project, [tiny.pipeline()], ONE, why="a lawsuit", by="ada")
    tiny.project.warehouse.write_bytes(backup)
    days = (datetime.now(UTC) - datetime.fromisoformat(DAY).replace(tzinfo=UTC)).days - 1
    tiny.declare(SQL, privacy={"subject": "customer", "retention": {"content": f"{days} days"}})
    assert f"does not know the legal hold {hold}" in tiny.shell("purge", code=1)
    assert hold in tiny.shell("doctor", code=1)
    assert f"placing again: hold {hold}" in tiny.shell("erase", "--again")
    tiny.shell("purge")
    assert tiny.warehouse(f"SELECT count(*) > 0 FROM ledger.held_rows WHERE hold_id = '{hold}'") == [(True,)]


@ONE_KIND
def test_the_doctor_misses_the_folder(restored):
    tiny, erasure_id = restored
    again(tiny)
    certificate_file(tiny.project, erasure_id).unlink()
    assert "lacks 1 erasure" in tiny.shell("doctor")
    shutil.rmtree(folder(tiny.project))
    assert "lacks 2 erasures" in tiny.shell("doctor")
