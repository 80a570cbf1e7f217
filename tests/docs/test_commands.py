"""Every command in README and docs is run, in order, as a reader would type it."""

import os
import re
import signal
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^( *)```(?:sh|bash)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
SERVES = "make ui"  # it does not end by itself
# The pages before it, and the READMEs, take as long as the others.
MIDDLE = "operations"
OTHERS = {"tutorial.md", "mission.md"}


def commands(document: Path) -> list[str]:
    """The lines of a document's shell blocks."""
    blocks = BLOCK.findall(document.read_text(encoding="utf-8"))
    # A page of docs/ begins in the clone, wherever the one before it ended.
    listed = ['cd "$PYTHONPATH"'] if document.parent.name == "docs" else []
    return listed + [line.strip() for _, block in blocks for line in block.splitlines() if line.strip()]


@pytest.fixture(scope="module")
def environment(clone: Path) -> dict[str, str]:
    """This shell's, less what would name another project."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("DAGSTER", "PIP_DAGSTER", "MAKE", "MFLAGS"))}
    return inherited | {"PYTHONPATH": str(clone), "PORT": str(free_port())}


@pytest.mark.slice
def test_the_commands_of_the_readmes_and_of_the_first_pages_run_in_order(
    clone: Path, demonstrated: Path, environment: dict[str, str]
) -> None:
    listed = commands(ROOT / "README.md")
    assert "make demo" in listed and SERVES in listed
    listed.remove("make demo")  # ran in what this clone is a copy of
    listed += [*commands(ROOT / "examples" / "bring_your_own" / "README.md"), f"cd {clone}"]
    printed = run([*listed, *commands_of_docs("a", MIDDLE)], clone, environment)
    first, second = ((demonstrated.parent / name).read_text(encoding="utf-8") for name in ("first", "second"))
    assert "most at risk on 2013-08-31" in second
    assert "] the report ..." in first and "] the report: already there" in second
    assert all("\nopen data/reports/flight_delay/report.html\n" in output for output in (first, second))
    assert "] August's labels: how good scores and estimates were: already there" in second
    assert re.search(r"^ *flight_delay: auc 0\.7\d* over 31 days", first, re.MULTILINE)  # by XGBoost's version
    assert "süd" in printed  # the last query of the second pipeline


@pytest.mark.slice
def test_the_commands_of_the_other_pages_run_in_order(clone: Path, environment: dict[str, str]) -> None:
    home = "export DAGSTER_HOME=$PWD/.dagster_home"  # as docs/backfills.md does, once for a shell
    printed = run([home, *commands_of_docs(MIDDLE, "~")], clone, environment)
    assert "No feature differs" in printed and "wx0_temp" in printed  # docs/quality.md
    assert "Partitions: 5 identical." in printed  # docs/replay.md


def commands_of_docs(first: str, end: str) -> list[str]:
    """The commands of the pages whose names are in [first, end); those of OTHERS have a test of their own."""
    pages = (page for page in sorted((ROOT / "docs").glob("*.md")) if first <= page.stem < end)
    return [command for page in pages if page.name not in OTHERS for command in commands(page)]


def run(listed: list[str], clone: Path, environment: dict[str, str]) -> str:
    """What these commands print, in one shell, since `cd` and `export` hold for the commands after them."""
    script = "\n".join(
        ["set -euo pipefail", *(f"echo '+++ {i}' >&2\n{line}" for i, line in enumerate(listed) if line != SERVES)]
    )
    result = subprocess.run(
        ["bash", "-c", script], cwd=clone, env=environment, capture_output=True, text=True, timeout=900
    )
    assert result.returncode == 0, result.stderr[-4000:] + result.stdout[-2000:]
    return result.stdout


def test_make_ui_is_the_command_that_serves_dagster() -> None:
    """What it serves, and that all its processes end with it, is in tests/cli/test_doctor.py."""
    printed = subprocess.run(["make", "-n", "ui", "PORT=4000"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ".venv/bin/pip-dagster ui --port ${PORT:-3000}\n" in printed.stdout  # `make` within `make` adds lines


@pytest.mark.soak
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
            asked = urllib.parse.quote("{ assetNodes { assetKey { path } } }")
            assets = wait_for(f"http://127.0.0.1:{environment['PORT']}/graphql?query={asked}", seconds=120)
        finally:
            os.killpg(process.pid, signal.SIGINT)
            time.sleep(2)
            os.killpg(process.pid, signal.SIGKILL)
    assert "dagster_webserver_version" in page and "predictions" in assets


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
    declared = [field.alias or name for model in models for name, field in model.model_fields.items()]
    assert [name for name in declared if f"`{name}`" not in text and f".{name}`" not in text] == []


def test_links_between_documents_lead_somewhere() -> None:
    for document in (
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        ROOT / "examples" / "bring_your_own" / "README.md",
        *(ROOT / "docs").glob("*.md"),
        ROOT / "data" / "README.md",
    ):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", document.read_text(encoding="utf-8")):
            assert (document.parent / target).exists(), f"{document.name} links to {target}"
