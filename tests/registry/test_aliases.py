"""Aliases move by compare-and-swap and remember every move; names cannot leave the registry's folder."""

import pytest

from pip_dagster.registry import AliasConflict, CorruptRegistry, InvalidName, ModelNotFound


def test_an_alias_moves_and_remembers(two_versions):
    registry = two_versions
    assert registry.alias("delay", "champion") is None
    first = registry.set_alias("delay", "champion", 1, by="ada", why="first model")
    second = registry.set_alias("delay", "champion", 2, by="bob", why="better AUC", expect=1)
    third = registry.set_alias("delay", "champion", 1, by="ada", why="rollback")
    assert [(c.version, c.previous, c.by) for c in (first, second, third)] == [
        (1, None, "ada"),
        (2, 1, "bob"),
        (1, 2, "ada"),
    ]
    assert registry.alias_history("delay", "champion") == [first, second, third]
    assert first.at <= second.at <= third.at
    other = registry.set_alias("delay", "challenger", 2, by="bob", why="")
    assert registry.aliases("delay") == {"challenger": 2, "champion": 1}
    assert registry.alias_history("delay") == [first, second, third, other]


def test_a_move_to_where_it_points_changes_nothing(two_versions):
    first = two_versions.set_alias("delay", "champion", 1, by="ada", why="first")
    assert two_versions.set_alias("delay", "champion", 1, by="bob", why="again") == first
    assert two_versions.alias_history("delay") == [first]


@pytest.mark.parametrize("expect", [None, 2])
def test_an_alias_that_somebody_moved_is_left_alone(two_versions, expect):
    two_versions.set_alias("delay", "champion", 1, by="ada", why="first")
    with pytest.raises(AliasConflict, match=r"alias 'champion' is v1, but (not set|v2) was expected"):
        two_versions.set_alias("delay", "champion", 2, by="bob", why="", expect=expect)
    assert two_versions.alias("delay", "champion") == 1


def test_expect_none_means_not_set_yet(two_versions):
    two_versions.set_alias("delay", "champion", 2, by="ada", why="", expect=None)
    assert two_versions.alias("delay", "champion") == 2


@pytest.mark.parametrize("ref", [2, "2", "v2", "champion"])
def test_a_version_is_found_by_number_or_alias(two_versions, ref):
    two_versions.set_alias("delay", "champion", 2, by="ada", why="")
    assert two_versions.get("delay", ref).version == 2


def test_what_is_not_there_is_answered_with_what_is(two_versions):
    two_versions.set_alias("delay", "champion", 2, by="ada", why="")
    with pytest.raises(ModelNotFound, match=r"no model 'dely' in .*; models: delay; add one with"):
        two_versions.get("dely", 1)
    with pytest.raises(ModelNotFound, match=r"delay: there is no v9; versions: v1, v2"):
        two_versions.get("delay", "v9")
    with pytest.raises(ModelNotFound, match=r"no alias 'canary'; aliases: champion \(v2\); set it with"):
        two_versions.get("delay", "canary")
    with pytest.raises(ModelNotFound, match="no v3 for alias 'champion'"):
        two_versions.set_alias("delay", "champion", 3, by="ada", why="")


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "a/b", "a\\b", ".hidden", "-x", "a b", "a\n", "é", "a" * 129, "a\0"]
)
def test_names_stay_in_their_folder(registry, name):
    for use in (
        lambda: registry.get(name, 1),
        lambda: registry.versions(name),
        lambda: registry.alias("delay", name),
        lambda: registry.set_alias("delay", name, 1, by="ada", why=""),
        lambda: registry.alias_history("delay", name),
        lambda: registry.register(name, model="m.ubj", sample="s.parquet"),
    ):
        with pytest.raises(InvalidName, match="is not usable"):
            use()


@pytest.mark.parametrize("alias", ["1", "v1", "V12", "007"])
def test_an_alias_cannot_read_like_a_version(registry, alias):
    with pytest.raises(InvalidName, match="reads like a version number"):
        registry.set_alias("delay", alias, 1, by="ada", why="")


def test_a_broken_alias_file_is_named(registry):
    registry.set_alias("delay", "champion", 1, by="ada", why="")
    (registry.root / "delay" / "aliases" / "champion.json").write_text("[")
    with pytest.raises(CorruptRegistry, match=r"champion\.json is not an alias history"):
        registry.alias("delay", "champion")


def test_models_are_those_with_versions(registry):
    (registry.root / "empty" / "versions").mkdir(parents=True)
    (registry.root / ".trash" / "versions" / "1").mkdir(parents=True)
    assert registry.models() == ["delay"]
    assert type(registry)(registry.root / "nowhere").models() == []
