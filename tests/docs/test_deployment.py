"""The files of examples/deploy: what can be checked of them without Docker and Kubernetes."""

import inspect
import re
import shlex
import tomllib
from pathlib import Path

import pytest
import yaml

from pip_dagster.cli.ui import PATIENT
from pip_dagster.declaration.lake import Lake
from pip_dagster.declaration.project import Project

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "examples" / "deploy"


def load(name: str) -> dict:
    return yaml.safe_load((DEPLOY / name).read_text(encoding="utf-8"))


def ours() -> dict[str, dict]:
    """The services that run our image."""
    return {name: each for name, each in load("compose.yaml")["services"].items() if "pip-dagster" in each["image"]}


def settings_of_compose() -> dict[str, str]:
    """As compose fills in the variables where none is set."""
    environment = load("compose.yaml")["services"]["worker"]["environment"]
    return {name: re.sub(r"\$\{\w+:-(.*)\}", r"\1", value) for name, value in environment.items()}


def settings_of_helm() -> dict[str, str]:
    (deployment,) = load("values.yaml")["dagster-user-deployments"]["deployments"]
    return {each["name"]: each.get("value", "secret") for each in deployment["env"]}


@pytest.mark.parametrize("settings", [settings_of_compose(), settings_of_helm()], ids=["compose", "helm"])
def test_the_projects_settings_are_a_lake_without_a_password(settings, tmp_path, monkeypatch):
    for name, value in settings.items():
        if name.startswith("PIP_DAGSTER"):
            monkeypatch.setenv(name, value)
    project = Project.at(tmp_path)
    assert isinstance(project.warehouse, Lake) and not project.warehouse.secrets and not project.publishes
    assert "PGPASSWORD" in settings


def test_every_variable_of_dagster_yaml_is_set_for_every_process(monkeypatch):
    used = set(re.findall(r"env: (\w+)", (DEPLOY / "dagster.yaml").read_text() + (DEPLOY / "celery.yaml").read_text()))
    assert {"code", "webserver", "daemon", "worker"} <= ours().keys()
    for service in ours().values():
        assert used <= service["environment"].keys()
        assert [volume.split(":")[0] for volume in service["volumes"]] == ["data"]
    secrets = re.findall(r"PASSWORD: (\S+)", (DEPLOY / "compose.yaml").read_text())
    assert len(secrets) == 3 and set(secrets) == {"${POSTGRES_PASSWORD:?set"}


def test_every_daemon_waits_for_a_code_server_that_is_away():
    """Else a backfill that looks for its code location meanwhile ends as failed."""
    from dagster._core.execution import asset_backfill

    name = "DAGSTER_BACKFILL_RETRY_DEFINITION_CHANGED_ERROR"
    assert f'os.environ.get("{name}")' in inspect.getsource(asset_backfill), "what Dagster calls it"
    assert load("compose.yaml")["services"]["daemon"]["environment"][name] == "1"
    assert load("values.yaml")["dagsterDaemon"]["env"][name] == "1"
    assert PATIENT[name] == "1", "`pip-dagster ui`, as `make ui` starts it"


def test_dagster_and_celery_take_their_configuration(tmp_path, monkeypatch):
    pytest.importorskip("dagster_celery")
    pytest.importorskip("dagster_postgres")
    from dagster._core.instance.config import dagster_instance_config
    from dagster_celery.cli import get_validated_config
    from dagster_celery.launcher import CeleryRunLauncher

    for name, value in settings_of_compose().items():
        monkeypatch.setenv(name, str(value))
    (tmp_path / "dagster.yaml").write_text((DEPLOY / "dagster.yaml").read_text())
    config, _ = dagster_instance_config(str(tmp_path))  # raises where a key or a value is wrong
    from dagster._serdes import ConfigurableClassData

    chosen = config["run_launcher"]
    data = ConfigurableClassData(chosen["module"], chosen["class"], yaml.safe_dump(chosen["config"]))
    launcher = data.rehydrate(as_type=CeleryRunLauncher)
    worker = get_validated_config(str(DEPLOY / "celery.yaml"))
    assert (launcher.broker, launcher.backend) == (worker["broker"], worker["backend"])
    assert launcher.broker.startswith("redis://redis")


def test_the_extra_postgres_brings_the_driver_that_dagsters_connection_string_names():
    """SQLAlchemy 2.1 takes it for psycopg 3, with which no process of the deployment would start."""
    pytest.importorskip("dagster_postgres")
    from dagster_postgres.utils import create_pg_engine, get_conn_string

    create_pg_engine(get_conn_string("pip", "secret", "nowhere", "dagster")).dispose()


def test_the_image_has_what_its_processes_call():
    dockerfile = (DEPLOY / "Dockerfile").read_text()
    copied = re.findall(r"^COPY (.+) \S+$", dockerfile, re.MULTILINE)
    for source in " ".join(copied).split():
        assert (ROOT / source).exists(), source
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (extras,) = re.findall(r"\.\[([\w,]+)\]", dockerfile)
    assert set(extras.split(",")) <= project["optional-dependencies"].keys()
    called = {service["command"][0] for service in ours().values()}
    assert called == {"dagster", "dagster-webserver", "dagster-daemon", "dagster-celery", "sh"}
    (maintaining,) = re.findall(r"do (pip-dagster .*?) \|\|", (DEPLOY / "compose.yaml").read_text())
    assert shlex.split(maintaining)[1] == "maintain"
    assert "CREATE DATABASE lake" in (DEPLOY / "lake.sql").read_text()
