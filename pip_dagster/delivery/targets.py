"""The kinds of targets: which class delivers to each. A module is imported when a target of its kind is opened."""

from __future__ import annotations

from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING

from pip_dagster.delivery.target import DeliveryError, Target

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pip_dagster.declaration.deliver import DeclaredTarget
    from pip_dagster.declaration.pipeline import Pipeline

# Kind → module and function, called with the pipeline, the target's name and its declaration; it gives a `Target`.
OPENERS = {
    "parquet": ("pip_dagster.delivery.parquet", "open_parquet"),
    "delta": ("pip_dagster.delivery.delta", "open_delta"),
    "postgres": ("pip_dagster.delivery.postgres", "open_postgres"),
    "webhook": ("pip_dagster.delivery.webhook", "open_webhook"),
    "python": ("pip_dagster.delivery.python", "open_python"),
}


@contextmanager
def opened(pipeline: Pipeline, name: str) -> Iterator[Target]:
    """A declared target, for some deliveries.

    Raises:
        DeliveryError: it is away, or a package that it needs is missing.
    """
    declared = pipeline.spec.deliver[name]
    module, function = OPENERS[declared.kind]
    try:
        opener: Callable[[Pipeline, str, DeclaredTarget], Target] = getattr(import_module(module), function)
    except ModuleNotFoundError as error:
        raise DeliveryError(
            f"Pipeline {pipeline.spec.name}: target {name} needs the package {error.name}, which is not installed."
        ) from error
    target = opener(pipeline, name, declared)
    try:
        yield target
    finally:
        target.close()
