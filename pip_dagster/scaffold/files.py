"""The files of a new pipeline and of a new project, as texts."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import yaml

from pip_dagster.scaffold.proposal import Proposal, ProposedFeature
from pip_dagster.sql.names import quote

if TYPE_CHECKING:
    from jinja2 import Environment

# The dagster.yaml of an instance that runs a project's pipelines.
INSTANCE_SETTINGS = Path(__file__).parent / "templates" / "dagster.yaml"

_PLAIN = re.compile(r"[a-z_][a-z0-9_]*")
_BARE = re.compile(r"[A-Za-z_][A-Za-z0-9_./-]*")
_CRON = {"hour": "15 * * * *", "day": "0 4 * * *", "month": "0 4 1 * *"}


@dataclass(frozen=True)
class TableSource:
    """Where the table is: a DuckDB file, or Parquet files; paths are as defs.yaml has them."""

    database: str | None
    parquet: str | None = None


@dataclass(frozen=True)
class Scaffold:
    """A new pipeline.

    Attributes:
        package: the Python package of the project.
        reserved: SQL's reserved words, which are quoted as names.
    """

    name: str
    package: str
    proposal: Proposal
    source: TableSource
    time_zone: str
    reserved: frozenset[str]

    def pipeline_files(self) -> dict[PurePosixPath, str]:
        """The files of the pipeline's folder under defs/."""
        names = ["defs.yaml", "features.sql", "expectations.yaml", *(["labels.sql"] if self.proposal.outcome else [])]
        return {PurePosixPath(name): self._render(f"{name}.jinja") for name in names}

    def project_files(self) -> dict[PurePosixPath, str]:
        """The files of a project around it."""
        package = PurePosixPath(self.package)
        files = frame_files(self.package) | {
            PurePosixPath(".github/workflows/gate.yml"): self._render("gate.yml.jinja"),
            package / "__init__.py": f'"""The pipelines of {self.package}."""\n',
            package / "definitions.py": self._render("definitions.py.jinja"),
        }
        if self.proposal.outcome:
            files[PurePosixPath("train.py")] = self.training()
        folder = package / "defs" / self.name
        return files | {folder / name: text for name, text in self.pipeline_files().items()}

    def training(self) -> str:
        """The training script; only where an outcome is known."""
        return self._render("train.py.jinja")

    @property
    def register_command(self) -> str:
        """How to register the model that was trained."""
        files = "--model data/model.ubj --sample data/sample.parquet"
        if self.proposal.outcome:
            files += " --training-scores predicted --held-out-sample data/held_out.parquet"
            files += f" --outcome {shlex.quote(self.proposal.outcome)}"
        return f"pip-dagster models register {self.name} {files}"

    def _render(self, template: str) -> str:
        return _rendered(template, self._values())

    def _values(self) -> dict[str, object]:
        made, plain = self.proposal, self._plain
        schema, table = made.table.split(".", 1)
        by_date = made.partition_type == "DATE"
        bounds = ("$start_date", "$end_date") if by_date else ("$start", "$end")
        name = plain(made.partition_column)
        is_zoned = by_date or made.partition_type == "TIMESTAMP WITH TIME ZONE"
        at = name if is_zoned else f"timezone('{self.time_zone}', {name}::TIMESTAMP)"
        keys = [plain(each) for each in made.key if each != made.partition_column]
        features = [self._column(each) for each in made.features]
        outcome = plain(made.outcome or "")
        columns = [*keys, at if is_zoned else f"{at} AS {name}", *features]
        label = f"{outcome}::{'INTEGER' if made.is_binary else 'DOUBLE'} AS {outcome}"
        return {
            "name": self.name,
            "package": self.package,
            "table": made.table,
            "schema": schema,
            "source": re.sub(r"\W", "_", table).lower(),
            "relation": f"{plain(schema)}.{plain(table)}",
            "database": self.source.database,
            "parquet": self.source.parquet,
            "every": made.every,
            "start": made.start if made.every != "month" else made.start.replace(day=1),
            "time_zone": self.time_zone,
            "cron": _CRON[made.every],
            "partition_column": made.partition_column,
            "key": made.key,
            "features": made.features,
            "left_out": made.left_out,
            "outcome": made.outcome,
            "metric": "auc" if made.is_binary else "rmse",
            "objective": "binary:logistic" if made.is_binary else "reg:squarederror",
            "bounds": bounds,
            "where": f"{at} >= {bounds[0]} AND {at} < {bounds[1]}",
            "columns": columns,
            "label_columns": [*(plain(each) for each in made.key), label],
            "register": self.register_command,
        }

    def _plain(self, name: str) -> str:
        return name if _PLAIN.fullmatch(name) and name not in self.reserved else quote(name)

    def _column(self, feature: ProposedFeature) -> str:
        read = self._plain(feature.column) + (f"::{feature.cast}" if feature.cast else "")
        return read if read == (name := self._plain(feature.name)) else f"{read} AS {name}"


def frame_files(package: str) -> dict[PurePosixPath, str]:
    """The files that make a folder a project, pyproject.toml last; the package is in it."""
    names = ("workspace.yaml", "gitignore", "pyproject.toml")
    return {
        PurePosixPath(f".{name}" if name == "gitignore" else name): _rendered(f"{name}.jinja", {"package": package})
        for name in names
    }


def _rendered(template: str, values: Mapping[str, object]) -> str:
    return _environment().get_template(template).render(**values) + "\n"


def _environment() -> Environment:
    import jinja2

    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # noqa: S701 - none of the files is HTML
    )
    made.filters |= {"yaml": _yaml, "python": _python, "line": lambda text: " ".join(str(text).split())}
    return made


def _yaml(text: str) -> str:
    """A YAML scalar that is read as this text."""
    if _BARE.fullmatch(text) and yaml.safe_load(text) == text:
        return text
    return json.dumps(text, ensure_ascii=False)


def _python(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
