"""Errors as Dagster shows and keeps them: a sentence for what a user can fix, and never what a row holds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from pip_dagster.errors import PipelineError
from pip_dagster.quoted import said


class UnforeseenError(Exception):
    """An error of a library, with its traceback and in words that quote no row."""


@contextmanager
def as_failure() -> Iterator[None]:
    """Report an error of this package as the failure of the step.

    Raises:
        Failure: with the error's sentence.
        UnforeseenError: in place of a library's error.
    """
    with quoting_nothing():
        try:
            yield
        except PipelineError as error:
            raise dg.Failure(description=str(error), allow_retries=False) from without_causes(error)


@contextmanager
def quoting_nothing() -> Iterator[None]:
    """Let no library's error pass as it is: Dagster would store its text, and those of its causes.

    Raises:
        PipelineError: as it was, without the causes.
        UnforeseenError: in place of a library's error.
    """
    try:
        yield
    except PipelineError as error:
        without_causes(error)
        raise
    except (dg.Failure, dg.RetryRequested, dg.DagsterError):
        raise
    except Exception as error:
        raise UnforeseenError(said(error)).with_traceback(error.__traceback__) from None


def without_causes(error: PipelineError) -> PipelineError:
    """The error without causes of other libraries."""
    of: BaseException = error
    while isinstance(of.__cause__, PipelineError):
        of = of.__cause__
    of.__cause__ = None  # which leaves its context out too
    return error
