"""`pip-dagster doctor`: what it finds on this machine and in a project, and that it writes nothing."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import duckdb
import pytest
from click.testing import CliRunner

from pip_dagster.cli.main import cli
from tests.cli.test_check import files_of


def doctor(root, *words, code=0, **environment):
    """What → the diagnoses on it."""
    result = CliRunner().invoke(
        cli, ["--project", str(root), "doctor", *words, "--json"], env={"DAGSTER_HOME": None} | environment
    )
    assert result.exit_code == code, result.output + repr(result.exception)
    found = json.loads(result.stdout)
    assert found["ok"] == (code == 0)
    lines = {}
    for each in found["lines"]:
        lines.setdefault(each["what"], []).append(each)
    return lines


def test_of_a_project_that_is_sound_nothing_is_wrong_and_nothing_is_written(scored):
    before = files_of(scored.root)
    found = doctor(scored.root)
    assert files_of(scored.root) == before
    assert {each["level"] for name in found if name not in ("port", "disk") for each in found[name]} == {"ok"}
    assert found["registry"][0]["text"] == "1 model, 2 versions"
    assert "schema version" in found["warehouse"][0]["text"] and found["lock"][0]["text"] == "free"
    assert "with orders" in found["published"][0]["text"]
    for name in ("python", "duckdb", "dagster", "xgboost", "great-expectations", "device", "memory", "disk"):
        assert found[name]


def test_as_text_a_line_has_its_remedy_below_and_the_last_counts(tiny):
    result = CliRunner().invoke(cli, ["--project", str(tiny.root), "doctor"], env={"DAGSTER_HOME": "relative"})
    assert result.exit_code == 1
    lines = result.output.splitlines()
    (at,) = [i for i, line in enumerate(lines) if line.startswith("PROBLEM")]
    assert "DAGSTER_HOME is 'relative'; expected the absolute path of a folder" in lines[at]
    assert lines[at + 1].strip() == "-> Create it, correct the variable, or unset it"
    assert lines[-1].startswith("1 problem, ")


def test_a_home_without_a_configuration_is_a_warning(tiny, tmp_path):
    (line,) = doctor(tiny.root, DAGSTER_HOME=str(tmp_path))["DAGSTER_HOME"]
    assert line["level"] == "warning" and "has no dagster.yaml" in line["text"]


def test_a_port_in_use_is_a_warning_with_the_next(tiny):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        (line,) = doctor(tiny.root, "--port", str(port))["port"]
    assert line["level"] == "warning" and line["remedy"].startswith("pip-dagster ui --port ")


def test_who_holds_the_warehouse_is_named(scored):
    code = """
        from pathlib import Path
        from pip_dagster.warehouse.connect import open_warehouse, workspace
        with workspace(threads=1) as con, open_warehouse(con, Path("state/warehouse.duckdb"), purpose="a long run"):
            print("held", flush=True)
            input()
    """
    with scored.python(code, stdin=True) as process:
        assert process.stdout.readline() == "held\n"
        found = doctor(scored.root)
        process.communicate("\n")
    assert f"held by PID {process.pid}" in found["lock"][0]["text"] and "a long run" in found["lock"][0]["text"]
    assert found["warehouse"][0]["level"] == "warning" and "in use" in found["warehouse"][0]["text"]


@pytest.mark.parametrize(
    ("version", "level", "text"),
    [("999", "problem", "schema version 999; supported: up to"), ("3", "warning", "schema version 3; this version")],
)
def test_a_warehouse_of_another_version(scored, version, level, text):
    with duckdb.connect(str(scored.project.warehouse)) as con:
        con.execute(f"UPDATE ledger.meta SET value = '{version}' WHERE key = 'schema_version'")
    (line,) = doctor(scored.root, code=1 if level == "problem" else 0)["warehouse"]
    assert line["level"] == level and text in line["text"] and line["remedy"]


def test_what_is_damaged_is_a_problem_and_no_traceback(scored):
    scored.project.warehouse.write_bytes(b"x" * 9000)
    scored.project.published_database.write_bytes(b"y" * 9000)
    (scored.folder / "defs.yaml").write_text("type: [")
    found = doctor(scored.root, code=1, PIP_DAGSTER_MEMORY_LIMIT="abc", PIP_DAGSTER_LOCK_DEADLINE="nan")
    for name in ("warehouse", "published", "project", "memory", "lock"):
        assert [each["level"] for each in found[name]] == ["problem"], name
        assert "\n" not in found[name][0]["text"]


def test_without_a_project_the_machine_is_looked_at_all_the_same(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PIP_DAGSTER_PROJECT", raising=False)
    result = CliRunner().invoke(cli, ["doctor"])
    assert result.exit_code == 1 and "No pip_dagster project in" in result.output
    assert re.search(r"^ok +duckdb", result.output, re.MULTILINE)


def test_in_a_lake_the_extensions_are_needed(tiny):
    text = (tiny.root / "pyproject.toml").read_text()
    lake = 'warehouse = "ducklake:postgres:host=127.0.0.1 port=1 dbname=nothing"'
    (tiny.root / "pyproject.toml").write_text(text.replace('warehouse = "state/warehouse.duckdb"', lake))
    found = doctor(tiny.root, code=1)
    assert found["warehouse"][0]["level"] == "problem" and "lock" not in found
    assert [each["level"] for each in found["extensions"]] in (["ok"], ["problem"])


def ui(root, *words, **environment):
    inherited = {name: value for name, value in os.environ.items() if name not in ("DAGSTER_HOME", "PYTHONWARNINGS")}
    return subprocess.Popen(
        [sys.executable, "-m", "pip_dagster.cli.main", "ui", *words],
        cwd=root,
        env=inherited | environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


class TestUi:
    def test_on_a_port_in_use_says_which_to_take(self, tiny):
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            result = CliRunner().invoke(cli, ["--project", str(tiny.root), "ui", "--port", str(port)])
        text = str(result.exception)
        assert f"Port {port} is in use. Take another: pip-dagster --project {tiny.root} ui --port" in text
        assert not (tiny.root / ".dagster_home").exists()

    def test_without_a_project_says_what_to_do(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        monkeypatch.delenv("PIP_DAGSTER_PROJECT", raising=False)
        result = CliRunner().invoke(cli, ["ui", "--port", "1"])
        assert "No pip_dagster project in" in str(result.exception)

    def test_of_a_project_that_says_not_what_to_load(self, tiny):
        (tiny.root / "pyproject.toml").write_text("[tool.pip_dagster]\n")
        result = CliRunner().invoke(cli, ["--project", str(tiny.root), "ui", "--port", "1"])
        assert "has neither a workspace.yaml nor `root_module`" in str(result.exception)

    @pytest.mark.slice
    def test_serves_and_ends_with_all_its_processes(self, tiny):
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = str(probe.getsockname()[1])
        with ui(tiny.root, "--port", port) as process:
            lines = [process.stdout.readline(), process.stdout.readline()]
            ours = processes_of(process.pid)
            process.send_signal(signal.SIGINT)
            rest, _ = process.communicate(timeout=60)
        assert lines[0].startswith(f"Dagster starts on http://127.0.0.1:{port}"), lines
        assert lines[1] == f"Open http://127.0.0.1:{port}. Ctrl-C ends it.\n", "no warning of Dagster's before it"
        assert process.returncode == 0 and "Traceback" not in rest, rest
        assert len(ours) >= 3 and not [pid for pid in ours if is_alive(pid)]

    @pytest.mark.slice
    def test_ended_while_dagster_starts_it_says_so_in_a_sentence(self, tiny):
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = str(probe.getsockname()[1])
        with ui(tiny.root, "--port", port) as process:
            process.stdout.readline()
            time.sleep(0.7)  # Dagster's modules are being imported, which a signal interrupts with a traceback
            process.send_signal(signal.SIGTERM)
            rest, _ = process.communicate(timeout=60)
        assert (process.returncode, rest) == (0, "Ending Dagster: runs that it started end with it.\n")


def processes_of(pid):
    """A process and all below it."""
    found = [Path(task, "children").read_text() for task in Path(f"/proc/{pid}/task").iterdir()]
    return [pid, *(each for child in " ".join(found).split() for each in processes_of(int(child)))]


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


SECRET = "0123456789abcdef" * 3  # pragma: allowlist secret


def test_secrets_are_compared_with_those_of_stored_rows_and_never_shown(tiny):
    file = tiny.root / "shop.key"
    file.write_text(SECRET)
    file.chmod(0o600)
    former = {"former": {"k0": {"key_env": "KEY_0"}}}
    tiny.declare(privacy={"subject": "order_id", "pseudonymize": {"key_file": "shop.key"} | former})
    (missing, here) = sorted(each["text"] for each in doctor(tiny.root, code=1)["secrets"])
    assert "the environment variable KEY_0 has no secret" in missing
    assert here == "orders: secret k1 is there; nothing is stored by it yet"
    tiny.run("2024-03-01")
    before = files_of(tiny.root)
    (stored, other) = doctor(tiny.root, KEY_0="f" * 20)["secrets"]
    assert stored["text"] == "orders: secret k1 is that of stored rows" and files_of(tiny.root) == before
    assert "secret k0 is there; nothing is stored by it" in other["text"]
    file.write_text("e" * 40)
    file.chmod(0o640)
    found = doctor(tiny.root, code=1, KEY_0="short")["secrets"]
    assert [each["level"] for each in found] == ["problem", "problem", "warning"]
    assert "'k1' of the domain 'orders' is another than the one" in found[0]["text"]
    assert "has a secret of 5 bytes; expected at least 16" in found[1]["text"]
    assert found[2]["remedy"] == f"chmod 600 {file}" and not any("e" * 20 in repr(each) for each in found)
    tiny.declare(privacy={"subject": "order_id"})
    tiny.tamper("INSERT INTO ledger.meta VALUES ('pseudonyms:orders:local', 'x')")
    (gone,) = [each for each in doctor(tiny.root, code=1)["secrets"] if each["level"] == "problem"]
    assert "privacy-key is gone, by which erased people are known" in gone["text"]
