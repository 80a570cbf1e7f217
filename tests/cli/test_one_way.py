"""What all commands have in common: `--json` with errors, exit codes, and one way to name partitions."""

from __future__ import annotations

import json
import sys

import click
import pytest
from click.testing import CliRunner

from pip_dagster.cli.failures import wants_json
from pip_dagster.cli.main import cli
from pip_dagster.cli.selection import Selection
from pip_dagster.errors import DeclarationError
from tests.cli.test_surroundings import Surrounding

FIRST, SECOND, THIRD = "2024-03-01", "2024-03-02", "2024-03-03"


def commands():
    """Every command of the command line, by its words."""

    def leaves(words, command):
        if isinstance(command, click.Group):
            context = click.Context(command)
            for name in command.list_commands(context):
                yield from leaves([*words, name], command.get_command(context, name))
        else:
            yield " ".join(words), command

    return dict(leaves([], cli))


def test_every_command_takes_json():
    without = [name for name, each in commands().items() if not any("--json" in of.opts for of in each.params)]
    assert without == []


def test_every_command_that_takes_partitions_takes_them_in_the_same_way():
    for name, command in commands().items():
        params = {option: each for each in command.params for option in each.opts}
        visible = {option for option, each in params.items() if not getattr(each, "hidden", False)}
        assert not {"--partition", "--partitions"} & visible, name
        if name == "init" or "--partition" not in params:
            continue
        assert params["partitions"].nargs == -1 and params["partitions"].metavar.startswith("[PARTITION]"), name
    with_range = {name for name, each in commands().items() if any("--from" in of.opts for of in each.params)}
    assert {"run", "backfill", "plan", "report", "export", "models rollback", "replay"} <= with_range


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["status", "--json"], True),
        (["status"], False),
        (["query", "--", "--json"], False),
        (["backfill", "orders", "--json", "--", "x"], True),
    ],
)
def test_json_is_wanted_by_the_words_of_the_command(words, wanted):
    assert wants_json(words) == wanted


# A command that cannot do its work → its exit code.
REFUSED = [
    (["plan", "nope"], 1),
    (["run", "nope"], 1),
    (["run", "orders", "2024-03-99", "--no-dagster"], 1),
    (["check", "nope"], 1),
    (["status", "nope"], 1),
    (["lineage", "orders", "1999-01-01"], 1),
    (["backfill", "orders", "--from", "2024-03-99"], 1),
    (["export", "nope", "-o", "exported"], 1),
    (["export", "orders", "1999-01-01", "-o", "exported"], 1),
    (["export", "orders", f"{SECOND}..{FIRST}", "-o", "exported"], 1),
    (["query", "SELEC"], 1),
    (["audit", "log", "nope"], 1),
    (["models", "compare", "orders"], 1),
    (["models", "canary", "orders"], 1),
    (["models", "show", "nope"], 1),
    (["models", "promote", "returns", "v9"], 1),
    (["models", "rollback", "orders", "--version", "v9", "--why", "a test"], 1),
    (["replay", "orders", "1999-01-01"], 2),
    (["lineage", "orders"], 2),
    (["monitor", "orders", FIRST, SECOND], 2),
    (["statu"], 2),
]


def test_an_error_is_an_object_with_the_exit_code(scored):
    listed = [("x", [*words, "--json"]) for words, _ in REFUSED]
    walked = Surrounding(scored.root).walk([(words[0], words[1:]) for _, words in listed])
    for each, (_, code) in zip(walked, REFUSED, strict=True):
        assert each.code == code, (each.name, each.text)
        found = json.loads(each.out)
        assert found["exit_code"] == code and found["error"] in each.err, each.name
        assert not found["error"].startswith(("Error", "Usage"))


def test_a_refused_promotion_is_one_object(scored, monkeypatch, capsys):
    from pip_dagster.cli.main import main

    scored.declare(gates={"max_flip_rate": 0.0})
    monkeypatch.setattr(
        sys, "argv", ["pip-dagster", "--project", str(scored.root), "models", "promote", "returns", "v2", "--json"]
    )
    with pytest.raises(SystemExit) as ended:
        main()
    found = json.loads(capsys.readouterr().out)
    assert ended.value.code == 1 == found["exit_code"] and found["error"] and found["moved"] is False


class TestFormerSpellings:
    """They still work, and are not shown."""

    def test_of_a_rollback(self, scored):
        scored.run(version=2)
        between, words = f"{FIRST}..{SECOND}", ["--why", "a test", "--dry-run", "--json"]
        former = scored.shell("models", "rollback", "orders", "--to", "v1", "--partitions", between, *words)
        assert [each["partition_key"] for each in json.loads(former)["flips"]] == [FIRST, SECOND]
        now = scored.shell("models", "rollback", "orders", between, "--version", "v1", *words)
        bounds = scored.shell("models", "rollback", "orders", "--to", SECOND, "--version", "v1", *words)
        keys = [[each["partition_key"] for each in json.loads(text)["flips"]] for text in (now, bounds)]
        assert keys == [[FIRST, SECOND]] * 2

    def test_of_an_export(self, scored, tmp_path):
        scored.shell("export", "orders", "--to", str(tmp_path / "a"), "--partitions", f"{FIRST}..{SECOND}")
        scored.shell("export", "orders", "--to", SECOND, "-o", str(tmp_path / "b"))
        sizes = [(tmp_path / name / "predictions.parquet").stat().st_size for name in "ab"]
        assert sizes[0] == sizes[1]
        assert "Name the folder that is written" in scored.shell("export", "orders", "--to", SECOND, code=2)

    def test_of_the_audit_log(self, scored):
        former = scored.shell("audit", "log", "--pipeline", "orders", "--json")
        assert former == scored.shell("audit", "log", "orders", "--json") != "[]"


class TestASelection:
    def test_of_several_ranges_keeps_the_order_of_time_and_takes_each_once(self, tiny):
        listed = tiny.partitions()
        chosen = Selection(((THIRD, None), (FIRST, FIRST), (THIRD, THIRD))).among(listed, "orders")
        assert [each.key for each in chosen] == [FIRST, THIRD, "2024-03-04"]
        assert Selection().among(listed, "orders") == listed

    def test_of_what_is_not_there_is_refused(self, tiny):
        with pytest.raises(DeclarationError, match="no partition 'x' that can be built by now; it has 2024-03-01 to"):
            Selection((("x", "x"),)).among(tiny.partitions(), "orders")
        with pytest.raises(DeclarationError, match=f"from {SECOND} to {FIRST}, which is earlier; it has 2024-03-01"):
            Selection(((SECOND, FIRST),)).among(tiny.partitions(), "orders")

    def test_of_one_is_no_range(self):
        assert Selection(((FIRST, FIRST),)).one == FIRST and Selection().one is None
        for ranges in (((FIRST, SECOND),), ((FIRST, FIRST), (SECOND, SECOND)), ((FIRST, None),)):
            with pytest.raises(click.UsageError, match="about one partition"):
                _ = Selection(ranges).one
        with pytest.raises(click.UsageError):
            _ = Selection(((FIRST, FIRST), (SECOND, SECOND))).bounds


def test_status_takes_partitions(scored):
    for words in ([SECOND], [f"{SECOND}..{SECOND}"], ["--from", SECOND, "--to", SECOND]):
        (row,) = json.loads(scored.shell("status", "orders", *words, "--json"))
        assert row["partition_key"] == SECOND
    refused = " ".join(scored.shell("status", "orders", "1999-01-01", code=1).split())
    assert f"no attempt at any of these partitions; it has {FIRST} to 2024-03-04" in refused


def test_replay_takes_a_range(scored):
    found = json.loads(scored.shell("replay", "orders", f"{FIRST}..{SECOND}", "--json"))
    assert [each["partition"] for each in found["partitions"]] == [FIRST, SECOND]


@pytest.mark.parametrize("words", [("run",), ("backfill",), ("models", "rollback", "--why", "x")])
@pytest.mark.parametrize("bounds", [("--from", "", "--to", SECOND), ("--from", "", "--to", "")])
def test_an_empty_bound_such_as_of_an_unset_variable_is_no_open_end(tiny, words, bounds):
    shown = tiny.shell(*words, "orders", *bounds, code=2)
    assert "--from or --to is empty; expected a partition key" in shown and not tiny.project.warehouse.exists()


def test_features_export_takes_a_range_as_the_others_do(scored, tmp_path):
    for words in ([f"{FIRST}..{SECOND}"], ["--from", FIRST, "--to", SECOND]):
        shown = scored.shell("features", "export", "orders", *words, "-o", str(tmp_path / "f.parquet"))
        assert f"2 partitions from {FIRST} to {SECOND}" in shown


def test_a_folder_that_is_no_project_is_refused_by_every_way_to_name_it(tmp_path, monkeypatch):
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 'other'\n")
    named = CliRunner().invoke(cli, ["--project", str(tmp_path), "status"])
    monkeypatch.setenv("PIP_DAGSTER_PROJECT", str(tmp_path))
    for result in (named, CliRunner().invoke(cli, ["status"])):
        assert "is not a pip_dagster project: expected a pyproject.toml with [tool.pip_dagster]" in str(
            result.exception
        )


def test_status_of_a_partition_reads_no_other(scored, monkeypatch):
    from pip_dagster.cli import partition_status

    read, rows_of = [], partition_status.rows_of
    monkeypatch.setattr(
        partition_status, "rows_of", lambda con, sql, *values: read.append(sql) or rows_of(con, sql, *values)
    )
    scored.shell("status", "orders", SECOND)
    assert len(read) > 1 and all(f"partition_key = '{SECOND}'" in sql for sql in read if "duckdb_views" not in sql)
