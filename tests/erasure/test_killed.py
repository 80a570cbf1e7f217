"""An erasure that is killed, really: readers go on, and the same command ends it as if nothing had happened."""

import itertools

import pytest
from histories import DAYS, Shop, World

_NUMBERS = itertools.count()
SHOP = Shop(
    "VARCHAR",
    "key",
    {DAYS[0]: [True], DAYS[1]: [True], DAYS[2]: [False]},
    frozenset(),
    True,
    "split",
    1,
    True,
    True,
    True,
)
ROWS, FILES, ENGINE = "pip_dagster.erasure.rows", "pip_dagster.erasure.files", "pip_dagster.erasure.erase"
LAKE, NEW = "pip_dagster.erasure.lake", ".rewritten"
PLACES = {
    "noted": ("after", f"{ENGINE}:begin", ""),  # who must not return is suppressed, and nothing is removed
    "within the transaction": ("after", f"{ROWS}:rewrite", ""),
    "committed": ("before", f"{ENGINE}:_note", ""),
    "before publishing": ("before", f"{FILES}:publish_pending", ""),
    "partly published": ("after", "pip_dagster.warehouse.published:change", ""),
    "before delivering": ("before", "pip_dagster.erasure.targets:deliver", ""),
    "partly delivered": ("before", "pip_dagster.delivery.parquet:_replace", ""),
    "before former files go": ("before", "pip_dagster.delivery.parquet:ParquetFolder.sweep", ""),
    "before the certificate": ("before", f"{ENGINE}:certify", ""),
    "before the anchor": ("after", f"{ENGINE}:certify", ""),
}
OF_FILES = {
    "before the copy": ("after", f"{FILES}:rewrite", ""),
    "copied": ("before", "pip_dagster.warehouse.rewrite_file:_sync", NEW),
    "before it is replaced": ("before", "pathlib:Path.replace", NEW),
    "replaced": ("after", "pathlib:Path.replace", NEW),
}
OF_LAKES = {
    "before expiry": ("before", f"{LAKE}:_call", "expire_snapshots"),
    "expired": ("after", f"{LAKE}:_call", "expire_snapshots"),
    "cleaned": ("after", f"{LAKE}:_call", "cleanup_old_files"),
    "before the vacuum": ("before", f"{LAKE}:_vacuum", ""),
    "vacuumed": ("after", f"{LAKE}:_vacuum", ""),
}
AT_ONCE = ("within the transaction", "replaced")


@pytest.fixture
def killed(template, backend, helpers, killer, tmp_path, monkeypatch):
    """Kills the erasure of one and the same shop, and compares what came of it with one that was not killed."""
    monkeypatch.setenv("SHOP_KEY", killer.secret)

    def scored(root):
        world = World(helpers.Tiny(root), SHOP, killer, there=True)
        world.run(DAYS)
        world.deliver()
        world.rescore(DAYS[:1])
        world.deliver()
        world.anchor()

    shop = backend.once("somebody's", template, scored)

    def copy():
        root = backend.copied(shop, tmp_path / f"shop-{next(_NUMBERS)}")
        world = World(helpers.Tiny(root), SHOP, killer, there=True, filled=True)
        world.tiny.shell("publish")  # the views name their files by absolute path
        return world

    whole = copy()
    assert not whole.erase()["resumed"]
    wanted = whole.rows()

    def kill(name, **where):
        world = copy()
        before = world.rows()
        assert world.killer(world.tiny.root, "erase", subject=SHOP.subject, **where) == {"killed": True}, name
        assert world.rows().keys() == before.keys(), "readers found everything"
        world.erase()
        assert world.rows() == wanted, name
        assert not world.traces(backend), name
        found, said = world.faults()
        assert not found and "agrees with" in said, name
        assert not any(world.stale().values()), name
        [(running,)] = world.tiny.warehouse("SELECT count(DISTINCT erasure_id) FROM ledger.erasures")
        assert running == 1, "the same request goes on"

    return kill


def kill_at(kill, places):
    for name, (when, place, of) in places.items():
        kill(name, **{when: place}, of=of)


@pytest.mark.slice
@pytest.mark.lake("never")
def test_killed_where_it_matters_most(killed):
    places = PLACES | OF_FILES
    kill_at(killed, {name: places[name] for name in AT_ONCE})


@pytest.mark.soak
@pytest.mark.lake("never")
def test_killed_anywhere_else(killed):
    kill_at(killed, {name: of for name, of in (PLACES | OF_FILES).items() if name not in AT_ONCE})


@pytest.mark.soak
@pytest.mark.lake("only")
@pytest.mark.parametrize("places", [PLACES, OF_LAKES], ids=["engine", "compaction"])
def test_killed_on_a_lake(killed, places):
    kill_at(killed, places)


@pytest.mark.soak
@pytest.mark.lake("never")
def test_killed_at_every_line_of_the_copy(killed):
    for line in itertools.count(1):
        try:
            killed(line, line=line, among=["/warehouse/rewrite_file.py", "/erasure/files.py"])
        except AssertionError as error:
            assert "lines" in str(error), error  # it came to its end
            assert line > 40
            break
