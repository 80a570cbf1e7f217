"""Delivery by a function of the user's: the way to everything that has no target of its own.

    def deliver(change, reader): ...

It is called at least once for each change, in the order of changes of a partition, and raises if it did not succeed.
What it is called with again it must replace, not add to.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

from pip_dagster.delivery.target import ChangeRows, DeliveryChange, DeliveryError, Receipt, ShownChange, Target
from pip_dagster.quoted import said

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pip_dagster.declaration.deliver import DeclaredTarget
    from pip_dagster.declaration.pipeline import Pipeline


def open_python(pipeline: Pipeline, name: str, declared: DeclaredTarget) -> Target:
    """The target of this declaration."""
    assert declared.python
    where = f"Pipeline {pipeline.spec.name}: deliver.{name}.python {declared.python!r}"
    module, _, function = declared.python.partition(":")
    with _importable(str(pipeline.project.root)):
        try:
            found = getattr(import_module(module), function)
        except AttributeError:
            raise DeliveryError(f"{where}: the module has no {function}.") from None
        except (Exception, SystemExit) as error:  # an import runs the user's code
            raise DeliveryError(f"{where} cannot be imported: {said(error)}") from error
    if not callable(found):
        raise DeliveryError(f"{where} is not a function.")
    return PythonFunction(declared.python, found)


@contextmanager
def _importable(root: str) -> Iterator[None]:
    """Modules of the project's folder can be imported, as Dagster finds them."""
    sys.path.append(root)
    try:
        yield
    finally:
        sys.path.remove(root)


class PythonFunction:
    """A function that delivers. What it has delivered cannot be read back."""

    kind = "python"
    can_read_back = False

    def __init__(self, name: str, function: Callable[[DeliveryChange, Any], Any]) -> None:
        self._name, self._function = name, function

    def deliver(self, change: DeliveryChange, rows: ChangeRows) -> Receipt:
        """Call it. A dictionary that it returns is recorded with the delivery."""
        try:
            returned = self._function(change, rows.reader())
        except DeliveryError:
            raise
        except (Exception, SystemExit) as error:  # sys.exit() would end the other targets, with the exit code 0
            raise DeliveryError(
                f"Pipeline {change.pipeline}, partition {change.partition_key}: target {change.target}: "
                f"{self._name} raised {said(error)}; a DeliveryError of your own has its text kept",
                again=True,
            ) from error
        details = _recordable(returned) if isinstance(returned, Mapping) else {}
        shown = ShownChange(change.change_id, change.declaration)
        return Receipt(shown, change.rows, change.digest, self._name, details)

    def read_back(self, partition_key: str, columns: Mapping[str, str]) -> Receipt | None:
        """Nothing: only the function knows where the rows are."""
        return None

    def close(self) -> None:
        """Nothing is open."""


def _recordable(returned: Mapping[Any, Any]) -> dict[str, Any]:
    """What a function returned, as JSON can have it: it has delivered, which must be recorded in any case."""
    try:
        json.dumps(found := dict(returned), default=str)
    except (TypeError, ValueError, RecursionError):
        return {"returned": repr(returned)}
    return found
