"""The registry: a folder of models, each a folder of immutable versions and of aliases that point at them.

`<root>/<model>/versions/<n>/{model.ubj,golden.parquet,manifest.json,manifest.sha256}` and
`<root>/<model>/aliases/<alias>.json`.
"""

from __future__ import annotations

import getpass
import os
from collections.abc import Mapping
from datetime import datetime
from itertools import accumulate
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from pip_dagster.declaration.model_names import check_alias, check_model_name, parse_ref
from pip_dagster.registry import aliases
from pip_dagster.registry.aliases import ANYWHERE, AliasChange, Anywhere
from pip_dagster.registry.errors import ModelNotFound
from pip_dagster.registry.publish import check_readable, publish, read_version, staging, version_numbers
from pip_dagster.registry.version import ModelVersion

if TYPE_CHECKING:
    from pip_dagster.registry.registration import ModelStatements, Statements
    from pip_dagster.registry.sample import Sample


class Registry:
    """Models, versions and aliases under one folder. Any number of processes may use it at once.

    Every method raises InvalidName for a name that cannot be a model's or an alias's, ModelNotFound if there is no such
    model or version, and CorruptRegistry or DigestMismatch for a file that is damaged or was changed.
    """

    def __init__(self, root: Path) -> None:
        self._root = Path(root).resolve()  # the probe runs in another folder

    @property
    def root(self) -> Path:
        """The folder of all models."""
        return self._root

    def models(self) -> list[str]:
        """The names of all models that have a version."""
        check_readable(self.root)
        found = [path.parent for path in self.root.glob("*/versions")]
        return sorted(folder.name for folder in found if not folder.name.startswith(".") and version_numbers(folder))

    def versions(self, name: str) -> list[ModelVersion]:
        """All versions of a model, oldest first. A damaged one raises, so that it is not overlooked."""
        return [read_version(self.root / name, number) for number in self.numbers(name)]

    def get(self, name: str, ref: int | str) -> ModelVersion:
        """The version that `ref` names: 2, "2", "v2", or an alias such as "champion"."""
        numbers, wanted = self.numbers(name), parse_ref(ref)
        number = wanted if isinstance(wanted, int) else self.alias(name, wanted)
        if number is None:
            known = ", ".join(f"{alias} (v{v})" for alias, v in self.aliases(name).items()) or "none yet"
            raise ModelNotFound(
                f"{name}: there is no alias {wanted!r}; aliases: {known}; set it with "
                f"`pip-dagster models promote {name} <version> --alias {wanted}`"
            )
        if number not in numbers:
            raise ModelNotFound(f"{name}: there is no v{number}; versions: {_list(numbers)}")
        return read_version(self.root / name, number)

    def register(
        self,
        name: str,
        *,
        model: Path,
        sample: Sample,
        time_limit: float = 120.0,
        **statements: Unpack[ModelStatements],
    ) -> ModelVersion:
        """Check a model file in a subprocess, derive its signature, and store it as the next version.

        `model` is a file in XGBoost's UBJ or JSON. `sample` holds training rows with at least the model's features: a
        Parquet path, an Arrow table or a pandas DataFrame. `statements`: see `ModelStatements`. If the same model and
        signature are registered already, that version is returned, with `created` False.

        Raises:
            InvalidModel: the file cannot be loaded or scored within `time_limit` seconds.
            InvalidSample: the sample cannot be read or has no rows.
            RegistryBusy: another process holds the model's lock.
            SignatureMismatch: model, sample and claims contradict each other.
            UnsafeModelFile: the file is not XGBoost's UBJ or JSON; it was not opened.
        """
        from pip_dagster.registry.registration import Claims, prepare

        statements.setdefault("by", whoami())
        claims = Claims(check_model_name(name), **statements)
        with staging(self.root / name) as staged:
            manifest = prepare(staged, Path(model), sample, claims, time_limit)
            return publish(self.root / name, staged, manifest)

    def compose(
        self,
        name: str,
        composition: Path | Mapping[str, object],
        *,
        sample: Sample,
        time_limit: float = 120.0,
        **statements: Unpack[Statements],
    ) -> ModelVersion:
        """Store the next version, composed of registered ones: an ensemble, or a model for each segment of the rows.

        `composition` is a YAML file or its content, see `composition.Composition`. The members' model files are copied,
        so that this version does not depend on theirs. `sample` holds feature rows with all features of the members and
        every column that a condition reads.

        Raises:
            RegistryError: the composition is not valid; else as `register`.
        """
        from pip_dagster.registry import composition as compositions
        from pip_dagster.registry.members import resolve
        from pip_dagster.registry.registration import Claims, prepare_composite

        statements.setdefault("by", whoami())
        claims = Claims(check_model_name(name), **statements)
        resolved = resolve(compositions.read(composition), self.get)
        with staging(self.root / name) as staged:
            manifest = prepare_composite(staged, resolved, sample, claims, time_limit)
            return publish(self.root / name, staged, manifest)

    def set_alias(
        self,
        name: str,
        alias: str,
        version: int,
        *,
        by: str,
        why: str,
        expect: int | None | Anywhere = ANYWHERE,
        rollback_id: str | None = None,
    ) -> AliasChange:
        """Point an alias at a version; with `expect` only if it points there now (None: only if it is not set).

        If it points there already, nothing is added and the move that led there is returned.

        Raises:
            AliasConflict: the alias does not point at `expect`.
            RegistryBusy: another process holds the model's lock.
        """
        numbers = self.numbers(name)
        if version not in numbers:
            raise ModelNotFound(f"{name}: there is no v{version} for alias {alias!r}; versions: {_list(numbers)}")
        folder = self.root / name
        return aliases.move(folder, check_alias(alias), version, by=by, why=why, expect=expect, rollback_id=rollback_id)

    def alias(self, name: str, alias: str) -> int | None:
        """The version an alias points at, None if it is not set."""
        history = aliases.read_history(self.root / check_model_name(name), check_alias(alias))
        return history[-1].version if history else None

    def aliases(self, name: str) -> dict[str, int]:
        """Every alias of a model with the version it points at."""
        folder = self.root / check_model_name(name)
        histories = {alias: aliases.read_history(folder, alias) for alias in aliases.names(folder)}
        return {alias: history[-1].version for alias, history in histories.items() if history}

    def alias_history(self, name: str, alias: str | None = None) -> list[AliasChange]:
        """The moves of one alias, or of all, oldest first; of one alias in the order of its file, not of the clock."""
        folder = self.root / check_model_name(name)
        wanted = aliases.names(folder) if alias is None else [check_alias(alias)]
        changes: list[tuple[datetime, AliasChange]] = []
        for each in wanted:
            history = aliases.read_history(folder, each)
            latest = accumulate((change.at for change in history), max)
            changes += zip(latest, history, strict=True)
        return [change for _, change in sorted(changes, key=itemgetter(0))]

    def numbers(self, name: str) -> list[int]:
        """The numbers of a model's versions, oldest first, whatever state they are in.

        Raises:
            ModelNotFound: there is no such model.
        """
        folder = self.root / check_model_name(name)
        check_readable(self.root, folder, folder / "versions")
        numbers = version_numbers(folder)
        if not numbers:
            raise ModelNotFound(
                f"there is no model {name!r} in {self.root}; models: {', '.join(self.models()) or 'none yet'}; add one "
                f"with `pip-dagster models register {name} --model FILE --sample FILE.parquet`"
            )
        return numbers


def whoami() -> str:
    """The user's name, or their number where the system knows no name (containers)."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


def _list(numbers: list[int]) -> str:
    return ", ".join(f"v{number}" for number in numbers)
