"""A damaged file of published rows costs its own partitions, and says what to do; the others are delivered."""

import shutil

import pytest
from test_outbox import DAYS, LAKE, assert_equal_to_live, delivered

from pip_dagster.delivery.outbox import pending_now
from pip_dagster.delivery.verify import verify
from pip_dagster.warehouse import published_rows

pytestmark = pytest.mark.lake("never")


@pytest.fixture
def apart(scored, monkeypatch):
    """The project, in which each partition is published in a file of its own; partition → file."""
    monkeypatch.setattr(published_rows, "CAP", 0)
    monkeypatch.setattr(published_rows, "_AT_ONCE", 60)
    shutil.rmtree(scored.project.published)
    scored.shell("publish")
    files = published_rows.files_of(scored.project.published / "orders")
    assert len(files) == 4
    scored.declare(deliver=LAKE)
    return scored, dict(zip(DAYS, files, strict=True))


def not_a_database(file):
    file.write_bytes(b"\xff" * 8192)


def cut(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def a_block_of_rows(file):
    """Only reading the rows themselves finds it."""
    content = bytearray(file.read_bytes())
    content[12288 + 8 : 12288 + 72] = b"\xff" * 64
    file.write_bytes(content)


@pytest.mark.parametrize("damage", [not_a_database, cut, a_block_of_rows], ids=lambda each: each.__name__)
def test_the_other_partitions_go_on(apart, damage):
    tiny, files = apart
    whole = files[DAYS[1]].read_bytes()
    damage(files[DAYS[1]])
    done = delivered(tiny)["lake"]
    assert sorted(done.receipts) == [DAYS[0], DAYS[2], DAYS[3]]
    assert [*done.failed] == [DAYS[1]] and not done.left and not done.error
    said = done.failed[DAYS[1]]
    assert said.startswith(
        f"Pipeline orders, partition {DAYS[1]}: the published rows in {files[DAYS[1]]} cannot be read"
    )
    assert "Run `pip-dagster publish` to write them again" in said
    found = tiny.warehouse("SELECT partition_key, attempts, error FROM ledger.deliveries WHERE state = 'failed'")
    assert found == [(DAYS[1], 0, said)]
    [waiting] = pending_now(tiny.pipeline())["lake"]
    assert (waiting.partition_key, waiting.error) == (DAYS[1], said)

    again = delivered(tiny)["lake"]
    assert (again.receipts, [*again.failed]) == ({}, [DAYS[1]])
    count = "SELECT count(*) FROM ledger.deliveries"
    assert tiny.warehouse(count) == [(4,)], "the same failure is recorded once"
    [there] = [each for each in verify(tiny.pipeline(), "lake", DAYS) if not each.equal]
    assert (there.partition_key, there.rows_there) == (DAYS[1], None)

    if damage is a_block_of_rows:
        files[DAYS[1]].write_bytes(whole)
    else:
        tiny.shell("publish")
    assert [*delivered(tiny)["lake"].receipts] == [DAYS[1]]
    assert_equal_to_live(tiny)


def test_a_damaged_file_of_many_partitions_is_no_fault_of_the_target(scored):
    """One line is logged, and nothing makes the target rest."""
    scored.declare(deliver=LAKE)
    [file] = published_rows.files_of(scored.project.published / "orders")
    not_a_database(file)
    lines = []
    done = delivered(scored, lines=lines)["lake"]
    assert sorted(done.failed) == DAYS and not done.left and done.error is None
    assert len([line for line in lines if "not delivered" in line]) == 1
