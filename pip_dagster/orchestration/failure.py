"""Errors that a user can fix, as Dagster shows them: a failure with the sentence, not a traceback."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from pip_dagster.errors import PipelineError


@contextmanager
def as_failure() -> Iterator[None]:
    """Report an error of this package as the failure of the step.

    Raises:
        Failure: with the error's sentence.
    """
    try:
        yield
    except PipelineError as error:
        raise dg.Failure(description=str(error), allow_retries=False) from error
