"""The kinds of targets: which class delivers to each. A module is imported when a target of its kind is opened."""

from __future__ import annotations

from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Self

from pip_dagster.delivery.target import DeliveryError, Target

if TYPE_CHECKING:
    from collections.abc import Callable

    from pip_dagster.declaration.deliver import DeclaredTarget
    from pip_dagster.declaration.pipeline import Pipeline

    Opener = Callable[[Pipeline, str, DeclaredTarget], Target]

# Kind → module and function, an `Opener`.
OPENERS = {
    "parquet": ("pip_dagster.delivery.parquet", "open_parquet"),
    "delta": ("pip_dagster.delivery.delta", "open_delta"),
    "postgres": ("pip_dagster.delivery.postgres", "open_postgres"),
    "webhook": ("pip_dagster.delivery.webhook", "open_webhook"),
    "python": ("pip_dagster.delivery.python", "open_python"),
}


def open_target(pipeline: Pipeline, name: str) -> Target:
    """A declared target, for some deliveries; the caller closes it.

    Raises:
        DeliveryError: it is away, or a package that it needs is missing.
    """
    declared = pipeline.spec.deliver[name]
    module, function = OPENERS[declared.kind]
    try:
        opener: Opener = getattr(import_module(module), function)
    except ModuleNotFoundError as error:
        raise DeliveryError(
            f"Pipeline {pipeline.spec.name}: target {name} needs the package {error.name}, which is not installed."
        ) from error
    return opener(pipeline, name, declared)


class Session:
    """A target that is opened when it is needed, and opened again after it failed."""

    def __init__(self, pipeline: Pipeline, name: str) -> None:
        self._pipeline, self._name = pipeline, name
        self._target: Target | None = None

    def target(self) -> Target:
        """The open target.

        Raises:
            DeliveryError: it cannot be opened.
        """
        if self._target is None:
            self._target = open_target(self._pipeline, self._name)
        return self._target

    def drop(self) -> None:
        """Close it: its connection may be broken."""
        target, self._target = self._target, None
        if target:
            with suppress(Exception):
                target.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.drop()
