"""Whatever happened before, and wherever an erasure is killed: the person is nowhere, and nobody else notices."""

import itertools

import pytest
from histories import DAYS, EVENTS, FRACTION, World, shops
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

_NUMBERS = itertools.count()
HISTORIES = {
    "shop": shops(),
    "before": st.lists(EVENTS, max_size=5),
    "kills": st.lists(st.tuples(st.sampled_from(["line", "seconds"]), FRACTION), max_size=3),
    "after": st.lists(EVENTS, max_size=3),
}


def as_if_never_there(make, backend, shop, before, kills, after):
    """One history, with a twin in which the person never was."""
    world, twin = make(shop, there=True), make(shop, there=False)
    for each in (world, twin):
        each.run(DAYS)
        for event in before:
            each.happen(*event)
    expected = world.stale()
    for kind, fraction in kills:
        at = 1 + int(fraction * world.killer.lines["erase"]) if kind == "line" else 2 * fraction
        world.killer(world.tiny.root, "erase", subject=shop.subject, **{kind: at})
        world.rows()  # readers work
    world.erase()
    assert not world.traces(backend)
    assert world.faults()[0] == []
    assert world.stale() == expected
    for each in (world, twin):
        each.deliver()
    same(world, twin)
    for event in after:
        for each in (world, twin):
            each.happen(*event)
    for each in (world, twin):
        each.edit(*DAYS)
        each.run(DAYS)
        each.deliver()
    same(world, twin)
    for each in (world, twin):
        each.rollback()
        each.run(DAYS)
        each.deliver()
        each.performance()
    same(world, twin, again=True)
    world.forget()
    world.run(DAYS)
    assert not any(world.stale().values())
    assert not world.traces(backend)
    assert world.faults()[0] == []
    same(world, twin, again=True)


def same(world, twin, *, again=False):
    """`again`: whether figures that an erasure removes were made again."""
    found, wanted = world.rows(), twin.rows()
    for key in found.keys() | wanted.keys():
        if again or "performance" not in key[1]:
            assert found.get(key) == wanted.get(key), key


@pytest.fixture
def make(template, backend, helpers, killer, tmp_path, monkeypatch):
    """Makes the worlds of a history."""
    monkeypatch.setenv("SHOP_KEY", killer.secret)
    monkeypatch.setattr("pip_dagster.delivery.outbox.said", str)  # whole, where an example fails

    def made(shop, *, there):
        root = backend.copied(template, tmp_path / f"shop-{next(_NUMBERS)}")
        return World(helpers.Tiny(root), shop, killer, there=there)

    return made


def histories(test, examples):
    fixtures = (HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large)
    phases = (Phase.explicit, Phase.generate)
    of = settings(max_examples=examples, deadline=None, suppress_health_check=fixtures, phases=phases)
    return of(given(**HISTORIES)(test))


@pytest.mark.slice
@pytest.mark.lake("never")
def test_as_if_never_there(make, backend):
    def history(**of):
        as_if_never_there(make, backend, **of)

    histories(history, 1)()


@pytest.mark.soak
@pytest.mark.lake
def test_as_if_never_there_for_long(make, backend):
    def history(**of):
        as_if_never_there(make, backend, **of)

    histories(history, 60)()
