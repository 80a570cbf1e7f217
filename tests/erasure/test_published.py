"""Published files of an erasure: those with changed partitions are written anew, others are not touched."""

from __future__ import annotations

import pytest

from pip_dagster.erasure import files as erased_files
from pip_dagster.erasure.erase import erase
from pip_dagster.erasure.wish import Wish
from pip_dagster.errors import ErasureError
from pip_dagster.warehouse import published_change, published_rows

WISH = Wish("3", "request 1", "ada")
FIRST, SECOND, THIRD = "2024-03-01", "2024-03-02", "2024-03-03"
PRIVACY = {"subject": "order_id"}


def files(tiny):
    return {path: (path.stat().st_ino, path.read_bytes()) for path in (tiny.root / "state/published").rglob("*.duckdb")}


@pytest.mark.slice
def test_only_files_with_changed_partitions_are_written_and_none_keeps_a_byte(tiny, monkeypatch):
    tiny.declare(privacy=PRIVACY)
    tiny.run(FIRST, SECOND)
    monkeypatch.setattr(published_rows, "CAP", 1)  # each change has a file of its own
    tiny.run(THIRD)
    monkeypatch.setattr(published_change, "_WHOLE_EVERY", 10**9)  # a change copies the file
    # A copy keeps the bytes of replaced rows; compression hides them from a search for texts.
    monkeypatch.setattr(published_change.shutil, "copyfile", lambda *_: pytest.fail("a file was copied"))
    before = files(tiny)
    done = erase(tiny.project, [tiny.pipeline()], WISH)
    after = files(tiny)
    changed = {path.name for path in before if before[path] != after[path]}
    assert changed == {"rows-0001.duckdb"} and before.keys() == after.keys() and len(before) == 2
    assert done.partitions["orders"].keys() == {FIRST}
    assert tiny.published("SELECT count(*) FILTER (order_id = 3), count(*) FROM orders.predictions") == [(0, 149)]
    assert "agrees with" in tiny.shell("audit", "verify", code=4)


@pytest.mark.soak
def test_a_published_file_that_still_has_the_person_is_found(tiny, monkeypatch):
    tiny.declare(privacy=PRIVACY)
    tiny.run(FIRST)
    with monkeypatch.context() as patch:
        patch.setattr(erased_files, "make_pending", lambda *_: None)
        with pytest.raises(ErasureError, match="still have 1 row"):
            erase(tiny.project, [tiny.pipeline()], WISH)
    assert erase(tiny.project, [tiny.pipeline()], WISH).resumed


@pytest.mark.slice
def test_a_damaged_published_file_is_replaced(tiny):
    tiny.declare(privacy=PRIVACY)
    tiny.run(FIRST)
    (file,) = (tiny.root / "state/published").rglob("*.duckdb")
    file.write_bytes(file.read_bytes()[:5000] + b"damaged")
    erase(tiny.project, [tiny.pipeline()], WISH)
    assert tiny.published("SELECT count(*) FILTER (order_id = 3) FROM orders.predictions") == [(0,)]
