"""The judge: Great Expectations on one pandas frame, quiet, without network and without files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pip_dagster.quality.expectation_types import imported
from pip_dagster.quality.suite import Expectation
from pip_dagster.quoted import message

if TYPE_CHECKING:
    import pandas as pd

_INDEX = "pip_dagster_index"

# Expectations in one suite. GE walks the whole graph of metrics again for each that fails: its time is quadratic.
SUITE_SIZE = 20


@dataclass(frozen=True)
class Outcome:
    """Great Expectations' result for one expectation on one frame; `error` if it could not be evaluated."""

    success: bool
    result: dict[str, Any]
    error: str | None = None


class Judge:
    """Judges frames in its own ephemeral context; the first frame creates it and imports Great Expectations.

    Create one per evaluation: its context keeps the latest frame alive.
    """

    def __init__(self) -> None:
        self._definition: Any = None

    @property
    def _batches(self) -> Any:
        if self._definition is None:
            self._definition = self._new_definition()
        return self._definition

    def _new_definition(self) -> Any:
        gx = imported()
        context = gx.get_context(mode="ephemeral")
        context.variables.progress_bars = {"globally": False, "metric_calculations": False}
        asset = context.data_sources.add_pandas("frames").add_dataframe_asset("frame")
        return asset.add_batch_definition_whole_dataframe("whole")

    def __call__(self, frame: pd.DataFrame, expectations: Sequence[Expectation]) -> list[Outcome]:
        """One outcome per expectation, in their order; one that cannot be built has an outcome with `error`."""
        found: list[Outcome] = []
        for start in range(0, len(expectations), SUITE_SIZE):
            together = expectations[start : start + SUITE_SIZE]
            outcomes = self._judge(frame, together)
            if len(together) > 1:
                # One metric's exception can abort the others in the same suite; each on its own shows which one failed.
                outcomes = [
                    o if o.error is None else self._judge(frame, [e])[0]
                    for e, o in zip(together, outcomes, strict=True)
                ]
            found.extend(outcomes)
        return found

    def _judge(self, frame: pd.DataFrame, expectations: Sequence[Expectation]) -> list[Outcome]:
        imported()
        from great_expectations.core.expectation_suite import ExpectationSuite

        outcomes: dict[int, Outcome] = {}
        built = []
        for i, expectation in enumerate(expectations):
            try:
                built.append(build(expectation, meta={_INDEX: i}))
            except Exception as e:
                outcomes[i] = Outcome(False, {}, f"{type(e).__name__}: {e}")
        if built:
            batch = self._batches.get_batch(batch_parameters={"dataframe": frame})
            # Without unexpected_index_column_names the index list holds the frame's own index: positions, which cost
            # nothing to look up; with them GE looks up cell by cell (35 times slower on 330k rows).
            results = batch.validate(
                ExpectationSuite(name="suite", expectations=built),
                result_format={"result_format": "COMPLETE", "return_unexpected_index_query": False},
            ).results
            for r in results:
                i = r.expectation_config.meta[_INDEX]
                outcomes[i] = _outcome(expectations[i], bool(r.success), dict(r.result), _error(r.exception_info))
        lost = Outcome(False, {}, "Great Expectations returned no result for this expectation")
        return [outcomes.get(i, lost) for i in range(len(expectations))]


def _outcome(expectation: Expectation, success: bool, result: dict[str, Any], error: str | None) -> Outcome:
    """The outcome. GE passes a row-level expectation whose metric it did not compute: it has no count then."""
    if error is None and expectation.row_level and result.get("unexpected_count") is None:
        error = "Great Expectations did not count the unexpected rows"
    return Outcome(success, result, error)


def build(expectation: Expectation, meta: dict[str, Any] | None = None) -> Any:
    """Great Expectations' own object for an expectation.

    Raises:
        Exception: whatever its constructor raises on an invalid kwarg.
    """
    imported()
    from great_expectations.expectations.registry import get_expectation_impl

    implementation: Any = get_expectation_impl(expectation.type)
    condition = {} if expectation.row_condition is None else {"row_condition": expectation.row_condition}
    return implementation(**expectation.kwargs, **condition, severity=expectation.severity, meta=meta)


def _error(info: dict[str, Any] | None) -> str | None:
    """The message of an exception. GE reports either one `exception_info`, or one for each metric that raised."""
    if not info:
        return None
    for entry in [info, *info.values()]:
        if isinstance(entry, dict) and entry.get("raised_exception"):
            return message(str(entry.get("exception_message") or "")) or "an exception without a message"
    return None
