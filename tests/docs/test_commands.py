"""Every command in README and docs is run, in order, as a reader would type it."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^( *)```(?:sh|bash)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
SERVES = "make ui"  # it does not end by itself


def commands(document: Path) -> list[str]:
    """The lines of a document's shell blocks."""
    blocks = BLOCK.findall(document.read_text(encoding="utf-8"))
    # A page of docs/ begins in the clone, wherever the one before it ended.
    listed = ['cd "$PYTHONPATH"'] if document.parent.name == "docs" else []
    return listed + [line.strip() for _, block in blocks for line in block.splitlines() if line.strip()]


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The committed and new files in a folder of their own, with this environment as its .venv."""
    target = tmp_path_factory.mktemp("clone") / "pip_dagster"
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            (target / name).write_bytes((ROOT / name).read_bytes())
    (target / ".venv").mkdir()
    for part in Path(sys.prefix).iterdir():
        (target / ".venv" / part.name).symlink_to(part)
    # Newer than what it is made from: the environment counts as installed.
    (target / ".venv" / ".installed").unlink(missing_ok=True)
    (target / ".venv" / ".installed").touch()
    if sys.pycache_prefix:  # the same libraries by another path: compiled already
        there = Path(f"{sys.pycache_prefix}{target}/.venv/lib")
        there.parent.mkdir(parents=True)
        there.symlink_to(f"{sys.pycache_prefix}{sys.prefix}/lib")
    return target


@pytest.fixture(scope="module")
def environment(clone: Path) -> dict[str, str]:
    """This shell's, less what would name another project."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("DAGSTER", "PIP_DAGSTER", "MAKE", "MFLAGS"))}
    return inherited | {"PYTHONPATH": str(clone), "PORT": str(free_port())}


@pytest.mark.slice
@pytest.mark.documents
def test_the_commands_of_readme_and_docs_run_in_order(clone: Path, environment: dict[str, str]) -> None:
    listed = commands(ROOT / "README.md")
    assert "make demo" in listed and SERVES in listed
    listed.insert(listed.index("make demo"), "make demo")  # the second one has nothing to do
    listed.append(f"cd {clone}")
    for document in sorted((ROOT / "docs").glob("*.md")):
        listed.extend(commands(document))
    # One shell, since `cd` and `export` hold for the commands after them.
    script = "\n".join(
        ["set -euo pipefail", *(f"echo '+++ {i}' >&2\n{line}" for i, line in enumerate(listed) if line != SERVES)]
    )
    result = subprocess.run(
        ["bash", "-c", script], cwd=clone, env=environment, capture_output=True, text=True, timeout=900
    )
    assert result.returncode == 0, result.stderr[-4000:] + result.stdout[-2000:]
    assert "The ten flights of 2013-08-31" in result.stdout
    assert result.stdout.count("] the report ...") == result.stdout.count("] the report: already there") == 1
    assert result.stdout.count("\nopen data/reports/flight_delay/report.html\n") == 2
    assert "] August's labels: how good the scores and their estimates were: already there" in result.stdout
    assert re.search(r"^ *flight_delay: auc 0\.7\d* over 31 days", result.stdout, re.MULTILINE)  # by XGBoost's version
    assert "süd" in result.stdout  # the last query of the second pipeline
    assert "No feature differs" in result.stdout and "wx0_temp" in result.stdout  # docs/quality.md
    assert "Partitions: 5 identical." in result.stdout  # docs/replay.md


@pytest.mark.slice
def test_make_ui_serves_dagster_on_loopback(clone: Path, environment: dict[str, str]) -> None:
    with subprocess.Popen(
        ["make", "ui"],
        cwd=clone,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    ) as process:
        try:
            page = wait_for(f"http://127.0.0.1:{environment['PORT']}/server_info", seconds=120)
        finally:
            os.killpg(process.pid, signal.SIGINT)
            time.sleep(2)
            os.killpg(process.pid, signal.SIGKILL)
    assert "dagster_webserver_version" in page


def wait_for(url: str, *, seconds: float) -> str:
    until = time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return answer.read().decode()
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.5)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_every_key_that_may_be_declared_is_documented() -> None:
    from pip_dagster.declaration.automation import Alerts, LabelsSensor, Schedule, Sensors, SourcesSensor, Webhook
    from pip_dagster.declaration.gates import Gates
    from pip_dagster.declaration.labels import Labels
    from pip_dagster.declaration.reruns import IgnoreAfter, Recent, Reruns
    from pip_dagster.declaration.scoring import Scoring
    from pip_dagster.declaration.spec import Explanations, Features, Partitions, PipelineSpec, Quality, Source
    from pip_dagster.declaration.split import Canary, CanaryGate, CanaryLabels

    text = (ROOT / "docs" / "declaration.md").read_text(encoding="utf-8")
    models = (PipelineSpec, Partitions, Source, Features, Scoring, Quality, Explanations, Gates, Labels)
    models += (Canary, CanaryGate, CanaryLabels, Schedule, Sensors, SourcesSensor, LabelsSensor, Alerts, Webhook)
    models += (Reruns, Recent, IgnoreAfter)
    declared = [name for model in models for name in model.model_fields]
    assert [name for name in declared if f"`{name}`" not in text and f".{name}`" not in text] == []


def test_links_between_documents_lead_somewhere() -> None:
    for document in (
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        *(ROOT / "docs").glob("*.md"),
        ROOT / "data" / "README.md",
    ):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", document.read_text(encoding="utf-8")):
            assert (document.parent / target).exists(), f"{document.name} links to {target}"
