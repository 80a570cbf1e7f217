"""The contract of every target: whatever happens, it ends with what is live, and never shows a mixture of changes."""

import threading
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import pytest
from delivery_killer import Killer
from delivery_kinds import KINDS, LONG_PARAMETERS, PARAMETERS, PIPELINE, TARGET
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from pip_dagster.delivery.digest import digest_of
from pip_dagster.delivery.target import ChangeRows, DeliveryChange, NewerChangeError

KEY, OTHER = "2024-03-01", "2024-03-02"
START = datetime(2024, 3, 1, tzinfo=UTC)
# The columns that a change may have: a model or a declaration that changes adds and drops some.
SHAPES = (("order_id", "score"), ("order_id", "score", "late"), ("order_id", "late"))
SQL = {
    "order_id": "i::BIGINT",
    "score": "CASE WHEN i % 7 = 0 THEN NULL ELSE (i * {n} / 1000)::FLOAT END",
    "late": "i % 3 = {n} % 3",
}


@dataclass(frozen=True)
class Made:
    """A change with its file of rows, and what a reader of it sees."""

    change: DeliveryChange
    file: Path
    columns: tuple[str, ...]
    rows: list

    @property
    def seen(self):
        return self.change.change_id, self.rows


class Maker:
    """Makes changes, each newer than the one before."""

    def __init__(self, folder):
        self.folder, self.number = folder, 0

    def __call__(self, key=KEY, rows=20, shape=0, declaration="d1", force=False):
        self.number += 1
        columns = ("partition_key", "scoring_id", *SHAPES[shape])
        change_id, scoring = f"20240302T{self.number:012}-0000", f"s{self.number}"
        listed = ", ".join(f"{SQL[name].format(n=self.number)} AS {name}" for name in SHAPES[shape])
        file = self.folder / f"{self.number}.parquet"
        with duckdb.connect() as con:
            select = f"SELECT '{key}' AS partition_key, '{scoring}' AS scoring_id, {listed} FROM range({rows}) r(i)"
            con.execute(f"COPY ({select}) TO '{file}' (FORMAT parquet)")
            written = f"read_parquet('{file}')"
            types = {name: of for name, of, *_ in con.execute(f"DESCRIBE FROM {written}").fetchall()}
            count, digest = digest_of(con, written, types)
            found = con.execute(f"FROM {written}").fetchall()
        change = DeliveryChange(
            *(PIPELINE, TARGET, key, START, START + timedelta(days=1), change_id, (scoring,), "scored", START),
            *(declaration, types, count, digest, force),
        )
        return Made(change, file, columns, sorted(found, key=repr))


@pytest.fixture
def make(tmp_path):
    return Maker(tmp_path)


@pytest.fixture(scope="module")
def killer():
    with closing(Killer()) as found:
        yield found


@pytest.fixture(params=PARAMETERS)
def kind(request, tmp_path):
    return KINDS[request.param](tmp_path, request)


def deliver(kind, made):
    with closing(kind.open()) as target:
        return target.deliver(made.change, ChangeRows(made.file))


def shows(kind, made):
    """Whether a reader sees this change whole; and so does the target itself."""
    with closing(kind.open()) as target:
        back = target.read_back(made.change.partition_key, made.change.columns)
    same = (back.shown.change_id, back.rows, back.digest) == (
        *(made.change.change_id, made.change.rows, made.change.digest),
    )
    return same and kind.read(made.change.partition_key, made.columns) == made.seen


def test_a_change_replaces_the_one_before_and_no_other_partition(kind, make):
    other, first, second = make(OTHER), make(), make(rows=7)
    assert [deliver(kind, each).is_new for each in (other, first, second)] == [True] * 3
    assert shows(kind, other)
    assert shows(kind, second)


def test_what_is_shown_already_is_not_written_again(kind, make):
    made = make()
    first, second = deliver(kind, made), deliver(kind, made)
    assert (first.is_new, second.is_new) == (True, False)
    assert (first.rows, first.digest, first.place) == (second.rows, second.digest, second.place)


def test_an_older_change_is_refused_unless_a_person_named_the_partition(kind, make):
    old, new = make(), make()
    deliver(kind, new)
    with pytest.raises(NewerChangeError, match=f"{KEY}.*pip-dagster deliver {PIPELINE} {KEY}"):
        deliver(kind, old)
    assert shows(kind, new)
    forced = replace(old, change=replace(old.change, force=True))
    assert deliver(kind, forced).is_new
    assert shows(kind, old)


def test_an_empty_partition_replaces_one_with_rows(kind, make):
    full, empty = make(), make(rows=0)
    deliver(kind, full)
    assert deliver(kind, empty).rows == 0
    assert shows(kind, empty)


def test_a_changed_declaration_is_delivered_again(kind, make):
    made = make(shape=0)
    deliver(kind, made)
    other = make(shape=2, declaration="d2")
    other = replace(other, change=replace(other.change, change_id=made.change.change_id))
    assert deliver(kind, other).is_new
    assert shows(kind, other)


def test_columns_come_and_go(kind, make):
    for shape in (0, 1, 2, 0):
        made = make(shape=shape)
        deliver(kind, made)
        assert shows(kind, made)


def test_nothing_is_read_back_of_a_partition_that_was_not_delivered(kind, make):
    deliver(kind, make())
    with closing(kind.open()) as target:
        assert target.read_back(OTHER, {"partition_key": "VARCHAR"}) is None


def test_two_deliverers_at_once_end_with_the_newer_change(kind, make):
    old, new = make(), make()

    def quietly(made):
        with suppress(NewerChangeError):
            deliver(kind, made)

    for pair in ((old, new), (new, old)):
        threads = [threading.Thread(target=quietly, args=[made]) for made in pair]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert shows(kind, new)


def test_a_reader_never_sees_a_mixture(kind, make):
    """It polls while changes of different sizes and columns are delivered as fast as possible."""
    made = [make(rows=rows, shape=0) for rows in (3_000, 10, 0, 2_000, 1)]
    whole = {each.change.change_id: each.rows for each in made}
    deliver(kind, made[0])
    ended, seen = threading.Event(), []

    def poll():
        while not ended.is_set():
            change, rows = kind.read(KEY, made[0].columns)
            seen.append((change, rows == whole[change]))

    reader = threading.Thread(target=poll)
    reader.start()
    for each in made[1:]:
        deliver(kind, each)
    ended.set()
    reader.join()
    assert seen
    assert all(equal for _, equal in seen), seen
    changes = [change for change, _ in seen]
    assert changes == sorted(changes), "and never an older one after a newer one"


STEPS = st.lists(
    st.tuples(
        st.sampled_from((KEY, OTHER)),
        st.sampled_from((0, 1, 20)),  # rows
        st.sampled_from((0, 1, 2)),  # shape
        st.one_of(st.none(), st.integers(1, 160)),  # the line before which it is killed
        st.booleans(),  # whether the change before is delivered first, late
    ),
    min_size=1,
    max_size=6,
)


def any_history(kind, make, killer, steps):
    """Changes with kills, retries and late older ones: between and after them a reader sees one change whole."""
    known, newest = {KEY: {}, OTHER: {}}, {}
    for key, rows, shape, kill_at, reorder in steps:
        made = make(key, rows, shape)
        known[key][made.change.change_id] = made
        before = newest.get(key)
        if kill_at and not killer.deliver(kind, made.change, made.file, kill_at):
            assert_one_of(kind, key, [before, made])
        deliver(kind, made)  # the retry
        newest[key] = made
        if reorder and before:
            with pytest.raises(NewerChangeError):
                deliver(kind, before)
        assert all(shows(kind, each) for each in newest.values())


def assert_one_of(kind, key, candidates):
    for made in filter(None, candidates):
        found = kind.read(key, made.columns) if kind.read(key, ("partition_key",)) else None
        if found and found[0] == made.change.change_id:
            assert found == made.seen
            return
    assert candidates[0] is None, "what was shown before the kill is gone"
    assert kind.read(key, ("partition_key",)) is None


# A history is not shrunk: each of its steps may start a process.
COMMON = {"deadline": None, "suppress_health_check": [*HealthCheck], "phases": (Phase.explicit, Phase.generate)}


@pytest.mark.parametrize("kind", LONG_PARAMETERS, indirect=True)
@settings(max_examples=2, derandomize=True, **COMMON)
@given(steps=STEPS)
def test_any_history_ends_with_what_is_live(kind, tmp_path_factory, request, killer, steps):
    folder = tmp_path_factory.mktemp("history")
    any_history(KINDS[request.node.callspec.params["kind"]](folder, request), Maker(folder), killer, steps)


@pytest.mark.soak
@settings(max_examples=300, **COMMON)
@given(steps=STEPS)
def test_many_histories_end_with_what_is_live(kind, tmp_path_factory, request, killer, steps):
    folder = tmp_path_factory.mktemp("history")
    any_history(KINDS[request.node.callspec.params["kind"]](folder, request), Maker(folder), killer, steps)


@pytest.mark.parametrize("kind", LONG_PARAMETERS, indirect=True)
@pytest.mark.parametrize("quick", [True, pytest.param(False, marks=pytest.mark.soak)])
def test_a_kill_before_any_line_leaves_the_old_change_or_the_new(kind, make, killer, quick):
    """A kill at each point in turn, or at ever fewer, until the delivery ends before it; then the retry."""
    old, at, ended = make(rows=3), 1, False
    deliver(kind, old)
    while not ended:
        new = make(rows=5)
        ended = killer.deliver(kind, new.change, new.file, at)
        assert_one_of(kind, KEY, [old, new])
        deliver(kind, new)
        assert shows(kind, new)
        old, at = new, at + 1 + at // (2 if quick else 10**9)
    assert at > 20
