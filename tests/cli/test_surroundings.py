"""Every command in surroundings that users and machines have: a sentence with the remedy, never a traceback.

`walk.py` runs all commands in one process of that surrounding. Commands are listed from the command line itself, so
that a new one is walked too. The full product of commands and surroundings runs in soak; a slice of it always.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import click
import pytest

from pip_dagster.cli.main import cli
from pip_dagster.cli.unforeseen import sentence

PARTITION = "2024-03-01"
# What an argument stands for where no example is given: enough for a new command to come as far as its work.
ARGUMENTS = {"pipeline": "orders", "name": "returns", "ref": "v2", "partition": PARTITION}
EXAMPLES: dict[str, list[list[str]]] = {
    "alarms ack": [["0123456789", "--why", "seen"]],
    "alarms silence": [["--pipeline", "orders", "--rule", "drift", "--until", "2999-01-01", "--why", "known"]],
    "alarms unsilence": [["0123456789", "--why", "fixed"]],
    "audit accept": [["--moves", "--why", "a test"]],
    "backfill": [
        ["orders", "--from", PARTITION, "--to", PARTITION, "--why", "a test"],
        ["orders", "--from", PARTITION, "--dry-run"],
    ],
    "certificate": [["0123456789"]],
    "check": [["orders", PARTITION]],
    "erase": [["--subject", "C-1042", "--why", "a test"], ["--subject", "C-1042", "--why", "a test", "--dry-run"]],
    "export": [["orders", "-o", "{root}/exported"]],
    "features export": [["orders", "-o", "{root}/features.parquet"]],
    "hold place": [["--subject", "C-1042", "--why", "a test"]],
    "hold release": [["0123456789", "--why", "a test"]],
    "lineage export": [["orders", "-o", "{root}/lineage.ndjson"]],
    "lineage show": [
        ["orders", PARTITION],
        ["orders", PARTITION, "--as-of", "2100-01-01"],
        ["orders", "--key", "1"],
    ],
    "models compose": [["mixed", "{root}/mix.yaml", "--sample", "{root}/sample.parquet"]],
    "models keygen": [["{root}/new-key"]],
    "models promote": [["returns", "v2", "--override", "a test"]],
    "models register": [
        ["new", "--model", "{root}/model.ubj", "--sample", "{root}/sample.parquet", "--categories", "{root}/c.json"]
    ],
    "models rollback": [["orders", "--version", "v1"], ["orders", "--version", "v1", "--dry-run"]],
    "models sign": [["returns", "v1", "--key", "{root}/key.pem"]],
    "prove-point-in-time": [["orders", PARTITION]],
    "purge": [[], ["--dry-run"]],
    "replay": [["orders", PARTITION]],
    "report": [["orders", "-o", "-"]],
    "run": [["orders", PARTITION, "--no-dagster"]],
    "query": [["SELECT count(*) FROM orders.predictions"]],
    "status": [[], ["orders"]],
    "subject lookup": [["1"]],
    "subject report": [["1", "orders", "--column", "order_id", "-o", "{root}/person.html"]],
}
# They load XGBoost or start a process: in every surrounding only in soak.
SLOW = {"models gate", "models promote", "models register", "models compose", "replay"}
# They write nothing, so a user who may only read can run them.
READING = {
    "alarms show",
    *("check", "doctor"),
    *("audit log", "audit verify", "backfill --dry-run", "lineage show", "models gate", "models history"),
    *("metrics", "models list", "models rollback --dry-run", "models show", "plan", "query", "replay"),
    "hold list",
    *("models card", "report", "scorecard", "status"),
}
# They say that they do not apply to this project.
NEITHER = {
    "audit anchor",
    "deliver",
    "certificate",
    "demo",
    "erase",
    "erase --dry-run",
    "subject lookup",
    "estimate",
    "hold place",
    "hold release",
    "maintain",
    "models canary",
    "models compare",
    "monitor",
    "performance",
    "prove-point-in-time",
    "purge",
    "purge --dry-run",
}


SERVES = {"ui"}  # it does not end by itself


def commands() -> list[tuple[str, list[str]]]:
    """Every command of the command line with the arguments to walk it with."""
    found = []

    def leaves(path: str, command: click.Command) -> None:
        if isinstance(command, click.Group):
            context = click.Context(command)
            for name in command.list_commands(context):
                leaves(f"{path} {name}".strip(), command.get_command(context, name))
            return
        if path in SERVES:
            return
        required = [each for each in command.params if isinstance(each, click.Argument) and each.required]
        default = [ARGUMENTS.get(each.name or "", "2024-03-01") for each in required]
        found.extend((path, arguments) for arguments in EXAMPLES.get(path, [default]))

    leaves("", cli)
    return found


@dataclass(frozen=True)
class Walked:
    """What a command printed, and its exit code."""

    command: str
    arguments: list[str]
    code: int
    out: str
    err: str

    @property
    def name(self) -> str:
        return " ".join([self.command, *self.arguments])

    @property
    def key(self) -> str:
        """The command as `READING` lists it."""
        return self.command + (" --dry-run" if "--dry-run" in self.arguments else "")

    @property
    def text(self) -> str:
        return self.out + self.err

    def check(self) -> None:
        said = f"{self.name}: exit code {self.code}\n{self.text}"
        assert "Traceback" not in self.text, said
        assert isinstance(self.code, int) and self.code in (0, 1, 2, 3, 4, 130), said
        assert self.code == 0 or self.text.strip(), f"{self.name} fails without a word"


@dataclass(frozen=True)
class Surrounding:
    """How the process of a walk is started."""

    root: Path
    prefix: Sequence[str] = ()
    environment: dict[str, str | None] = field(default_factory=dict)
    options: Sequence[str] = ()
    cwd: Path | None = None
    project: bool = True

    def walk(self, chosen: Sequence[tuple[str, list[str]]]) -> list[Walked]:
        """Run these commands."""
        before = ["--project", str(self.root)] if self.project else []
        listed = []
        for name, arguments in chosen:
            words = [*name.split(), *(each.replace("{root}", str(self.root)) for each in arguments)]
            listed.append([[name, arguments], [*before, *words]])
        environment = {**os.environ, "PIP_DAGSTER_LOCK_DEADLINE": "1", **self.environment}
        done = subprocess.run(
            [*self.prefix, sys.executable, *self.options, str(Path(__file__).with_name("walk.py"))],
            input=json.dumps(listed),
            capture_output=True,
            text=True,
            check=False,
            cwd=self.cwd or self.root,
            env={name: value for name, value in environment.items() if value is not None},
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        return [Walked(*which, **result) for which, result in json.loads(done.stdout.splitlines()[-1])]


Make = Callable[[Path], Iterator[Surrounding]]
SURROUNDINGS: dict[str, tuple[Callable[[Path], object], str | None]] = {}


def surrounding(expected: str | None = None) -> Callable[[Make], Make]:
    """Register a surrounding. `expected` is in what `status`, `plan` or `audit verify` prints there."""

    def register(make: Make) -> Make:
        SURROUNDINGS[make.__name__] = (contextmanager(make), expected)
        return make

    return register


def needs_root() -> None:
    if os.geteuid():
        pytest.skip("only root can become another user, or mount a disk")


# Without the right of root to pass over owners and modes.
NO_PRIVILEGE = ("setpriv", "--bounding-set=-all", "--inh-caps=-all")


@surrounding()
def reader(root: Path) -> Iterator[Surrounding]:
    """Every file is another user's, who lets everybody read it."""
    needs_root()
    for path in (root, *root.rglob("*")):
        os.chown(path, 54321, 54321, follow_symlinks=False)
        if not path.name.endswith((".lock", ".queue")):
            path.chmod(path.stat().st_mode | (0o555 if path.is_dir() else 0o444))
    yield Surrounding(root, prefix=NO_PRIVILEGE, environment={"HOME": "/nonexistent"})


@surrounding("state cannot be written. User 0 may not do that")
def no_right_to_read(root: Path) -> Iterator[Surrounding]:
    needs_root()
    closed = root / "state"
    closed.chmod(0)
    yield Surrounding(root, prefix=NO_PRIVILEGE)
    closed.chmod(0o755)


@surrounding("declares no pipeline 'orders'; it declares none. This user may not read .*/acme/defs")
def no_right_to_read_the_declarations(root: Path) -> Iterator[Surrounding]:
    needs_root()
    closed = root / "acme" / "defs"
    closed.chmod(0)
    yield Surrounding(root, prefix=NO_PRIVILEGE)
    closed.chmod(0o755)


@surrounding("4 current")
def a_user_without_a_name(root: Path) -> Iterator[Surrounding]:
    names = dict.fromkeys(("USER", "LOGNAME", "LNAME", "USERNAME", "HOME"))
    prefix = ["unshare", "--user", "--map-user=123456", "--map-group=123456"]
    if subprocess.run([*prefix, "true"], check=False, capture_output=True).returncode:
        pytest.skip("this machine allows no user namespaces")
    yield Surrounding(root, prefix=prefix, environment=names)


@surrounding("The published files in .* cannot be read: .*\n.*pip-dagster publish|4 partitions")
def moved(root: Path) -> Iterator[Surrounding]:
    to = root.with_name("elsewhere")
    root.rename(to)
    yield Surrounding(to)


@surrounding("The published files in .* cannot be read: .*pip-dagster publish")
def damaged_published_files(root: Path) -> Iterator[Surrounding]:
    for file in (root / "state" / "published").rglob("*.duckdb"):
        file.write_bytes(file.read_bytes()[:40])
    yield Surrounding(root)


@surrounding("The published files in .* cannot be read: .*pip-dagster publish")
def damaged_published_database(root: Path) -> Iterator[Surrounding]:
    (root / "state" / "published.duckdb").write_bytes(b"x" * 5000)
    yield Surrounding(root)


@surrounding("warehouse.duckdb is damaged: .*\nRestore it from the newest backup")
def truncated_warehouse(root: Path) -> Iterator[Surrounding]:
    file = root / "state" / "warehouse.duckdb"
    file.write_bytes(file.read_bytes()[:20_000])
    yield Surrounding(root)


@surrounding("warehouse.duckdb is damaged: .*\nRestore it from the newest backup")
def overwritten_warehouse(root: Path) -> Iterator[Surrounding]:
    file = root / "state" / "warehouse.duckdb"
    data = bytearray(file.read_bytes())
    data[12288:400_000] = bytes(400_000 - 12288)
    file.write_bytes(data[: file.stat().st_size])
    yield Surrounding(root)


@surrounding()
def damaged_manifest(root: Path) -> Iterator[Surrounding]:
    file = root / "state" / "registry" / "returns" / "versions" / "1" / "manifest.json"
    file.chmod(0o644)
    file.write_bytes(b"\xff\xfe" + file.read_bytes()[:30])
    yield Surrounding(root)


@surrounding("champion.json is not an alias history")
def empty_alias(root: Path) -> Iterator[Surrounding]:
    (root / "state" / "registry" / "returns" / "aliases" / "champion.json").write_text("[]")
    yield Surrounding(root)


@surrounding("champion.json is not an alias history")
def damaged_alias(root: Path) -> Iterator[Surrounding]:
    (root / "state" / "registry" / "returns" / "aliases" / "champion.json").write_bytes(b"\xff\xfe{")
    yield Surrounding(root)


@surrounding("features.sql is not in UTF-8: line 1 has the byte 0xfc")
def latin_1_sql(root: Path) -> Iterator[Surrounding]:
    file = root / "acme" / "defs" / "orders" / "features.sql"
    file.write_bytes("-- Zürich\n".encode("latin-1") + file.read_bytes())
    yield Surrounding(root)


@surrounding("defs.yaml is not in UTF-8: it is in UTF-16")
def utf_16_declaration(root: Path) -> Iterator[Surrounding]:
    file = root / "acme" / "defs" / "orders" / "defs.yaml"
    file.write_bytes(file.read_text().encode("utf-16"))
    yield Surrounding(root)


@surrounding("pyproject.toml is not in UTF-8: line 1")
def latin_1_project(root: Path) -> Iterator[Surrounding]:
    file = root / "pyproject.toml"
    file.write_bytes("# Zürich\n".encode("latin-1") + file.read_bytes())
    yield Surrounding(root)


@surrounding("4 current")
def byte_order_marks(root: Path) -> Iterator[Surrounding]:
    for file in (root / "pyproject.toml", root / "acme" / "defs" / "orders" / "defs.yaml"):
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    yield Surrounding(root)


@surrounding("PIP_DAGSTER_MEMORY_LIMIT is 'abc'; expected a size, such as 8GB")
def memory_limit(root: Path) -> Iterator[Surrounding]:
    yield Surrounding(root, environment={"PIP_DAGSTER_MEMORY_LIMIT": "abc"})


@surrounding("PIP_DAGSTER_LOCK_DEADLINE is 'nan'; expected seconds")
def lock_deadline(root: Path) -> Iterator[Surrounding]:
    yield Surrounding(root, environment={"PIP_DAGSTER_LOCK_DEADLINE": "nan"})


@surrounding("The setting warehouse is 'postgres://host/db'; expected a path")
def a_url_as_warehouse(root: Path) -> Iterator[Surrounding]:
    yield Surrounding(root, environment={"PIP_DAGSTER_WAREHOUSE": "postgres://host/db"})


@surrounding("4 current")
def empty_variables(root: Path) -> Iterator[Surrounding]:
    names = ("WAREHOUSE", "REGISTRY", "PUBLISHED", "DATA_PATH", "MLFLOW", "MEMORY_LIMIT", "LOCK_DEADLINE", "PROJECT")
    yield Surrounding(root, environment=dict.fromkeys((f"PIP_DAGSTER_{name}" for name in names), ""))


@surrounding("there is no model 'returns' in /proc/nothing")
def registry_variable(root: Path) -> Iterator[Surrounding]:
    yield Surrounding(root, environment={"PIP_DAGSTER_REGISTRY": "/proc/nothing"})


@surrounding("PIP_DAGSTER_PROJECT is '/nonexistent', which is not a folder")
def project_variable(root: Path) -> Iterator[Surrounding]:
    yield Surrounding(root, environment={"PIP_DAGSTER_PROJECT": "/nonexistent"}, project=False)


@surrounding("DAGSTER_HOME is 'relative'; expected the absolute path of a folder")
def relative_dagster_home(root: Path) -> Iterator[Surrounding]:
    yield Surrounding(root, environment={"DAGSTER_HOME": "relative"})


@surrounding("DAGSTER_HOME is '/nonexistent/home'; expected")
def absent_dagster_home(root: Path) -> Iterator[Surrounding]:
    yield Surrounding(root, environment={"DAGSTER_HOME": "/nonexistent/home"})


@surrounding("Python runs with -OO")
def no_docstrings(root: Path) -> Iterator[Surrounding]:
    yield Surrounding(root, options=["-OO"])


@surrounding("4 current")
def no_assertions(root: Path) -> Iterator[Surrounding]:
    yield Surrounding(root, options=["-O"])


@surrounding("4 current")
def ascii_terminal(root: Path) -> Iterator[Surrounding]:
    names = {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}
    yield Surrounding(root, environment=names)


@surrounding("No pip_dagster project in")
def outside_any_project(root: Path) -> Iterator[Surrounding]:
    yield Surrounding(root, cwd=root.parent, project=False)


@surrounding("The working directory does not exist any more")
def deleted_working_directory(root: Path) -> Iterator[Surrounding]:
    gone = root.with_name("gone")
    gone.mkdir()
    yield Surrounding(root, prefix=["sh", "-c", 'rmdir "$PWD" && exec "$@"', "sh"], cwd=gone)


@surrounding("4 current")
def a_link_to_the_project(root: Path) -> Iterator[Surrounding]:
    link = root.with_name("link")
    link.symlink_to(root)
    yield Surrounding(root, cwd=link, project=False)


@surrounding("There is no DuckDB file .*sources.duckdb")
def no_source(root: Path) -> Iterator[Surrounding]:
    (root / "sources.duckdb").unlink()
    yield Surrounding(root)


@surrounding("sources.duckdb")
def damaged_source(root: Path) -> Iterator[Surrounding]:
    (root / "sources.duckdb").write_bytes(b"y" * 9000)
    yield Surrounding(root)


@surrounding()
def a_file_where_a_folder_should_be(root: Path) -> Iterator[Surrounding]:
    shutil.rmtree(root / "state" / "published")
    (root / "state" / "published").write_text("not a folder")
    yield Surrounding(root)


@surrounding()
def a_folder_where_a_file_should_be(root: Path) -> Iterator[Surrounding]:
    (root / "state" / "warehouse.duckdb").unlink()
    (root / "state" / "warehouse.duckdb").mkdir()
    yield Surrounding(root)


@surrounding()
def few_open_files(root: Path) -> Iterator[Surrounding]:
    yield Surrounding(root, prefix=["sh", "-c", 'ulimit -n 24; exec "$@"', "sh"])


@surrounding()
def full_disk(root: Path) -> Iterator[Surrounding]:
    needs_root()
    state, aside = root / "state", root.with_name("aside")
    state.rename(aside)
    state.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(state)], check=True)
    try:
        shutil.copytree(aside, state, dirs_exist_ok=True)
        disk = os.statvfs(state)
        (state / "filler").write_bytes(bytes(disk.f_bavail * disk.f_frsize))
        yield Surrounding(root)
    finally:
        subprocess.run(["umount", "-l", str(state)], check=True)


@surrounding()
def read_only_disk(root: Path) -> Iterator[Surrounding]:
    needs_root()
    state = root / "state"
    subprocess.run(["mount", "--bind", str(state), str(state)], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", str(state)], check=True)
        yield Surrounding(root)
    finally:
        subprocess.run(["umount", "-l", str(state)], check=True)


@pytest.fixture
def project(scored, helpers) -> Path:
    """The scored project with what the commands are given; its alias move is in the audit."""
    root = scored.root
    helpers.orders(600, seed=2).to_parquet(root / "sample.parquet")
    (root / "c.json").write_text(json.dumps({"shop": helpers.SHOPS}))
    members = "".join(f"  - {{model: returns, version: {version}, weight: 1}}\n" for version in (1, 2))
    (root / "mix.yaml").write_text("ensemble:\n" + members)
    shutil.copy(scored.registry.get("returns", 1).path / "model.ubj", root / "model.ubj")
    scored.shell("models", "keygen", str(root / "key"))
    scored.shell("audit", "accept", "--moves", "--why", "the first")
    return root


ALWAYS = ("damaged_published_files", "moved")


@pytest.mark.slice
@pytest.mark.parametrize(
    "name", [each if each in ALWAYS else pytest.param(each, marks=pytest.mark.soak) for each in SURROUNDINGS]
)
def test_no_command_ends_in_a_traceback(project, name):
    make, expected = SURROUNDINGS[name]
    chosen = [each for each in commands() if name not in ALWAYS or each[0] not in SLOW]
    with make(project) as surroundings:
        walked = surroundings.walk(chosen)
    for each in walked:
        each.check()
    if expected:
        whole = "\n".join(each.text for each in walked)
        assert re.search(expected, whole), whole


def contents(root: Path) -> dict[Path, tuple[int, int]]:
    """What is in a folder, with what a write would change."""
    return {path: (path.stat().st_mtime_ns, path.stat().st_mode) for path in root.rglob("*")}


@pytest.mark.slice
def test_a_user_who_may_only_read_reads_everything_and_changes_nothing(project):
    with SURROUNDINGS["reader"][0](project) as surroundings:
        before = contents(project)
        walked = surroundings.walk(commands())
    for each in walked:
        each.check()
        if each.key in READING:
            assert each.code == 0, f"{each.name}: {each.text}"
        elif each.key not in NEITHER:
            assert each.code == 1 and "User 0 may not do that" in each.text, f"{each.name}: {each.text}"
    assert contents(project) == before


@pytest.mark.parametrize(
    ("shell", "code", "expected"),
    [
        ("{command} query 'SELECT range FROM range(200000)' --format csv | head -1", 0, "range"),
        ("{command} status > /dev/full", 1, "Error: .*No space left on device. Free space"),
        ("{command} status >&- 2>&- <&-", 0, ""),
    ],
    ids=["head", "full", "closed"],
)
def test_streams_that_end(scored, shell, code, expected):
    command = f"{sys.executable} -m pip_dagster.cli.main"
    environment = os.environ | {"PIP_DAGSTER_PROJECT": str(scored.root)}
    line = ["bash", "-c", shell.format(command=command)]
    done = subprocess.run(line, env=environment, capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    assert done.returncode == code and "Traceback" not in said and "Exception ignored" not in said, said
    assert re.search(expected, said), said


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError(28, "No space left on device", "/data/x"), "'/data/x'. Free space on its disk"),
        (PermissionError(13, "Permission denied", "/data/x"), "'/data/x'. User .* may not do that"),
        (MemoryError(), "allow more with PIP_DAGSTER_MEMORY_LIMIT"),
        (KeyError("x"), "Unexpected KeyError: 'x'. Please report it"),
        (AssertionError(), "Unexpected AssertionError: without a message"),
    ],
)
def test_the_sentence_for_what_nobody_foresaw(error, expected):
    assert re.search(expected, sentence(error)) and "PIP_DAGSTER_DEBUG=1 shows the traceback" in sentence(error)


@pytest.mark.soak
def test_what_nobody_foresaw_is_a_sentence_and_a_traceback_for_who_wants_it(project, monkeypatch):
    """A dagster.yaml that is not one: Dagster's own error."""
    home = project / "home"
    home.mkdir()
    (home / "dagster.yaml").write_text("run_storage: {module: nowhere, class: Nothing}")
    backfill = [("backfill", EXAMPLES["backfill"][0])]
    [told] = Surrounding(project, environment={"DAGSTER_HOME": str(home)}).walk(backfill)
    told.check()
    assert told.code == 1 and "PIP_DAGSTER_DEBUG=1 shows the traceback" in told.err
    shown = {"DAGSTER_HOME": str(home), "PIP_DAGSTER_DEBUG": "1"}
    [shown_traceback] = Surrounding(project, environment=shown).walk(backfill)
    assert "Traceback" in shown_traceback.err


@pytest.mark.slice
def test_what_is_full_is_named_and_nothing_is_half_written(project):
    chosen = [each for each in commands() if each[0] in ("models register", "models promote", "publish", "backfill")]
    with SURROUNDINGS["full_disk"][0](project) as surroundings:
        before = contents(project / "state" / "registry")
        walked = surroundings.walk(chosen)
        after = contents(project / "state" / "registry")
    for each in walked:
        each.check()
        if "--dry-run" not in each.name:
            assert each.code and "Free space on its disk" in each.text, f"{each.name}: {each.text}"
    assert [path for path in after if path.suffix in (".ubj", ".json")] == [
        path for path in before if path.suffix in (".ubj", ".json")
    ]
