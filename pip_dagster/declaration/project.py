"""Where a project stores what its pipelines build: `[tool.pip_dagster]` in its pyproject.toml."""

from __future__ import annotations

import os
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pip_dagster.declaration.lake import PREFIX, Lake
from pip_dagster.errors import ProjectError
from pip_dagster.text_file import read_text

if TYPE_CHECKING:
    from pip_dagster.declaration.anchors import Anchors
    from pip_dagster.declaration.automation import Alerts

ROOT_VARIABLE = "PIP_DAGSTER_PROJECT"
UNPUBLISHED = "none"
# Settings of `[tool.pip_dagster]` → default, and what each is, for the reference.
SETTINGS = {
    "warehouse": (
        "data/warehouse.duckdb",
        "The DuckDB file that stores everything; or a lake, `ducklake:postgres:dbname=lake host=…`.",
    ),
    "data_path": ("data/lake", "Of a lake: where its Parquet files are, a folder or `s3://bucket/path`."),
    "registry": ("data/registry", "The folder of models: files, manifests, aliases."),
    "published": (
        "data/published",
        f"The folder of published rows; the database of views over them is beside it, `data/published.duckdb`. "
        f"`{UNPUBLISHED}` publishes nothing, which only a lake allows.",
    ),
    "reports": ("data/reports", "The folder of the reports that Dagster writes, one folder for each pipeline."),
}
# Those without a default.
OPTIONAL_SETTINGS = {
    "mlflow": "The URI of the MLflow registry that `models:/…` names are in.",
    "docs_url": "Where the UI's links to the documentation point: `https://…/{page}.md`, or a URL to which `/page/` is "
    "added. Without it they point to the files of a clone.",
    "openlineage": "Where new lineage is sent: the URL of a receiver, `https://marquez.example`; `client` for what "
    "openlineage-python is configured for; or a file that events are added to. Without it nothing is sent.",
    "openlineage_namespace": "The namespace of jobs and models in OpenLineage; by default the code location's name.",
}


@dataclass(frozen=True)
class Project:
    """The folders of one project; all paths are absolute.

    The warehouse is a file or a lake. `publishes` is False where nothing is written to `published`, because readers
    query the lake itself.
    """

    root: Path
    warehouse: Path | Lake
    registry: Path
    published: Path
    mlflow: str | None = None  # the URI of the MLflow registry, if models are in one
    publishes: bool = True
    reports_folder: Path | None = None
    docs_url: str | None = None  # where the UI's links to the documentation point
    openlineage: str | None = None  # where new lineage is sent
    openlineage_namespace: str | None = None

    @property
    def reports(self) -> Path:
        """The folder of the reports that Dagster writes, one in each pipeline's own."""
        return self.reports_folder or self.root / "data" / "reports"

    @property
    def published_database(self) -> Path:
        """The small database of views over the published rows."""
        return self.published.with_suffix(".duckdb")

    @classmethod
    def at(cls, root: Path) -> Project:
        """The project in `root`, whose pyproject.toml may have a table `[tool.pip_dagster]`.

        An environment variable `PIP_DAGSTER_<SETTING>` takes precedence over the file.

        Raises:
            ProjectError: a setting is unknown or not text, DuckDB cannot write in the folder of the warehouse, or
                Python runs with -OO.
        """
        if sys.flags.optimize > 1:
            raise ProjectError(
                "Python runs with -OO, which removes docstrings that XGBoost needs when it is imported. Run it without "
                "-OO and without PYTHONOPTIMIZE=2."
            )
        root = root.resolve()
        file = root / "pyproject.toml"
        declared = _tool_table(file, "pip_dagster") or {}
        mlflow = os.environ.get("PIP_DAGSTER_MLFLOW", declared.pop("mlflow", None))
        if mlflow is not None and not isinstance(mlflow, str):
            raise ProjectError(f"{file}, [tool.pip_dagster]: mlflow = {mlflow!r} is not text; expected a URI.")
        docs_url = os.environ.get("PIP_DAGSTER_DOCS_URL", declared.pop("docs_url", None))
        if docs_url is not None and not (isinstance(docs_url, str) and docs_url.startswith(("https://", "http://"))):
            raise ProjectError(f"{file}, [tool.pip_dagster]: docs_url = {docs_url!r} is not a URL; expected https://…")
        lineage = {key: _text_setting(file, declared, key) for key in ("openlineage", "openlineage_namespace")}
        if lineage["openlineage"] and (wrong := unsafe_url(lineage["openlineage"])):
            raise ProjectError(f"{file}, [tool.pip_dagster]: openlineage {wrong}")  # without the URL, for its secret
        settings = {key: default for key, (default, _) in SETTINGS.items()}
        for key, value in declared.items():
            if key in ("alerts", "anchors"):
                continue  # tables, read by the properties of these names
            if key not in settings or not isinstance(value, str) or not value:
                raise ProjectError(
                    f"{file}, [tool.pip_dagster]: {key} = {value!r} is not a setting; "
                    f"expected a path under one of {', '.join(settings)}."
                )
            settings[key] = value
        for key in settings:
            settings[key] = os.environ.get(f"PIP_DAGSTER_{key.upper()}") or settings[key]
        is_lake = settings["warehouse"].startswith(PREFIX)
        for key in {*settings} - ({"warehouse", "data_path"} if is_lake else {"data_path"}):
            _check_path(key, settings[key])
        publishes = settings["published"] != UNPUBLISHED
        if not publishes and not is_lake:
            raise ProjectError(
                f'{file}, [tool.pip_dagster]: published = "{UNPUBLISHED}" is for a lake, which can be read at any '
                "time; a warehouse file cannot be read while a run writes to it. Name a folder."
            )
        written = ([] if is_lake else ["warehouse"]) + (["published"] if publishes else [])
        for key, place in ((key, (root / settings[key]).resolve()) for key in written):
            if "?" in str(place.parent if key == "warehouse" else place):
                raise ProjectError(
                    f"{place}, [tool.pip_dagster]: `{key}` is in a folder with `?` in its name, where DuckDB cannot "
                    f"write its log. Rename the folder, or set `{key}` to another place."
                )
        return cls(
            root=root,
            warehouse=Lake.parse(settings["warehouse"], root, settings["data_path"])
            if is_lake
            else (root / settings["warehouse"]).resolve(),
            registry=(root / settings["registry"]).resolve(),
            published=(root / settings["published"]).resolve(),
            publishes=publishes,
            mlflow=mlflow,
            docs_url=docs_url,
            **lineage,
            reports_folder=(root / settings["reports"]).resolve(),
        )

    @classmethod
    def named(cls, root: Path) -> Project:
        """The project in a folder that a person named.

        Raises:
            ProjectError: as `at`, or it is not a project's folder.
        """
        if not _is_project(root):
            raise ProjectError(
                f"{root.resolve()} is not a pip_dagster project: expected a pyproject.toml with [tool.pip_dagster]. "
                "Name the project's folder; `pip-dagster init NAME` writes a new project."
            )
        return cls.at(root)

    @classmethod
    def find(cls, start: Path | None = None) -> Project:
        """The project that contains `start` (by default the working directory).

        Raises:
            ProjectError: no parent folder has a pyproject.toml with `[tool.pip_dagster]` or `[tool.dg]`.
        """
        named = os.environ.get(ROOT_VARIABLE)
        if named:
            if not Path(named).is_dir():
                raise ProjectError(f"{ROOT_VARIABLE} is {named!r}, which is not a folder; expected the project's.")
            return cls.named(Path(named))
        start = (start or Path.cwd()).resolve()
        for folder in (start, *start.parents):
            if _is_project(folder):
                return cls.at(folder)
        raise ProjectError(
            f"No pip_dagster project in {start} or above it: expected a pyproject.toml with [tool.pip_dagster]. "
            f"Change to the project's folder, pass --project, or set {ROOT_VARIABLE}. "
            "`pip-dagster init NAME` writes a new project."
        )

    @property
    def code_location(self) -> str | None:
        """The module that Dagster loads, if `[tool.dg.project]` names its package."""
        package = self._dg_project.get("root_module")
        return f"{package}.definitions" if package else None

    @property
    def location_name(self) -> str | None:
        """The name under which Dagster shows that module, if `[tool.dg.project]` has one."""
        name = self._dg_project.get("code_location_name")
        return str(name) if name else None

    @property
    def _dg_project(self) -> dict[str, object]:
        project = (_tool_table(self.root / "pyproject.toml", "dg") or {}).get("project")
        return project if isinstance(project, dict) else {}

    @property
    def alerts(self) -> Alerts | None:
        """`[tool.pip_dagster.alerts]`: who is notified, for pipelines that declare no alerts themselves.

        Raises:
            ProjectError: the table is not valid as `alerts` of a defs.yaml.
        """
        file = self.root / "pyproject.toml"
        declared = (_tool_table(file, "pip_dagster") or {}).get("alerts")
        if declared is None:
            return None
        from pip_dagster.declaration.automation import Alerts

        try:
            return Alerts.model_validate(declared)
        except ValueError as error:
            raise ProjectError(f"{file}, [tool.pip_dagster.alerts]: {error}") from error

    @property
    def anchors(self) -> Anchors | None:
        """`[tool.pip_dagster.anchors]`: where the audit is anchored, if anywhere.

        Raises:
            ProjectError: the table is not valid.
        """
        file = self.root / "pyproject.toml"
        declared = (_tool_table(file, "pip_dagster") or {}).get("anchors")
        if declared is None:
            return None
        from pip_dagster.declaration.anchors import Anchors

        try:
            return Anchors.model_validate(declared)
        except ValueError as error:
            raise ProjectError(f"{file}, [tool.pip_dagster.anchors]: {error}") from error

    def environment(self) -> dict[str, str]:
        """The variables with which a child process finds this project."""
        lake = self.warehouse if isinstance(self.warehouse, Lake) else None
        settings = {
            "warehouse": lake.setting if lake else str(self.warehouse),
            "registry": str(self.registry),
            "published": str(self.published) if self.publishes else UNPUBLISHED,
            "reports": str(self.reports),
        }
        if lake:
            settings["data_path"] = lake.data_path
        optional = ("mlflow", "openlineage", "openlineage_namespace")
        settings |= {key: getattr(self, key) for key in optional if getattr(self, key)}
        return {ROOT_VARIABLE: str(self.root)} | {f"PIP_DAGSTER_{key.upper()}": text for key, text in settings.items()}


def _text_setting(file: Path, declared: dict[str, object], key: str) -> str | None:
    """A setting without a default, of the variable or the file.

    Raises:
        ProjectError: it is no text.
    """
    value = declared.pop(key, None)
    if value is not None and not isinstance(value, str):
        raise ProjectError(f"{file}, [tool.pip_dagster]: {key} = {value!r} is not text.")
    return os.environ.get(f"PIP_DAGSTER_{key.upper()}") or value or None


def unsafe_url(text: str) -> str | None:
    """What is wrong with a destination: it is a URL that cannot be sent to, or has what may be a secret."""
    if "://" not in text:
        return None
    try:
        parts = urlsplit(text)
        can_be_sent_to = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # an address or a port that there cannot be
        can_be_sent_to = False
    if not can_be_sent_to:
        return "is not the URL of a receiver; expected https://…, `client`, or a path."
    if "@" in parts.netloc or parts.query or parts.fragment:
        return "must be a URL without an account, a query or a fragment. Set OPENLINEAGE_API_KEY for a key."
    return None


def _check_path(setting: str, text: str) -> None:
    """Refuse what cannot be a path of this machine.

    Raises:
        ProjectError: it is a URL, or has characters that a path in DuckDB cannot have.
    """
    if "://" in text or "\0" in text or any("\ud800" <= each <= "\udfff" for each in text):
        raise ProjectError(
            f"The setting {setting} is {text!r}; expected a path, in UTF-8. It is in [tool.pip_dagster] of "
            f"pyproject.toml, or in the variable PIP_DAGSTER_{setting.upper()}."
        )


def _is_project(folder: Path) -> bool:
    file = folder / "pyproject.toml"
    return _tool_table(file, "pip_dagster") is not None or _tool_table(file, "dg") is not None


def _tool_table(file: Path, name: str) -> dict[str, object] | None:
    if not file.is_file():
        return None
    try:
        # A byte order mark, as editors on Windows write it, is no TOML.
        document = tomllib.loads(read_text(file, ProjectError).removeprefix("\ufeff"))
    except tomllib.TOMLDecodeError as error:
        raise ProjectError(f"{file} is not valid TOML: {error}") from error
    tool = document.get("tool")
    table = tool.get(name) if isinstance(tool, dict) else None
    return table if isinstance(table, dict) else None
