"""In the probe: load a composite's members, derive its signature from the sample, and score the sample."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pip_dagster.registry.composite import SEGMENT_COLUMN, Composite
from pip_dagster.registry.composite_predictor import CompositePredictor
from pip_dagster.registry.describe import describe
from pip_dagster.registry.engines import engine_named
from pip_dagster.registry.errors import InvalidSample, SignatureMismatch
from pip_dagster.registry.files import sha256
from pip_dagster.registry.manifest import Signature
from pip_dagster.registry.sandbox import ProbeReport, ProbeRequest

if TYPE_CHECKING:
    import pyarrow as pa


def examine_composite(request: ProbeRequest, composite: Composite) -> ProbeReport:
    """Load, score and describe; the report's signature holds the columns that conditions read.

    Raises:
        InvalidModel: a member cannot be loaded, or the scores are not finite.
        InvalidSample: no row of the sample, or of a segment, can be scored.
        SignatureMismatch: members, conditions and sample do not fit each other.
    """
    import numpy as np

    from pip_dagster.registry import sample as samples
    from pip_dagster.registry.encoding import encode

    members = [
        engine_named(member.signature.engine).load(
            (request.model / member.file).read_bytes(), member.signature, subject=member.file, nthread=1
        )
        for member in composite.members
    ]
    table = samples.read(request.sample)
    signature = _signature(composite, table)
    assert signature.composite
    table = _scorable(table, signature)
    held_out = samples.read_held_out(request.held_out, signature)
    held_out = held_out if held_out is None else _scorable(held_out, signature)
    groups = None
    if composite.routes:
        numbers = encode(table, signature)[:, -1]
        groups = [np.flatnonzero(numbers == i) for i in range(len(composite.segments))]
    for segment, rows in zip(composite.segments, groups or (), strict=False):
        if len(rows) == 0:
            raise InvalidSample(
                f"no row of the sample belongs to segment {segment.name!r}, so its scores cannot be checked; correct "
                "the condition, or give a sample that has such rows"
            )
    predictor = CompositePredictor(members, signature, subject="the composite")
    return describe(request, table, signature, predictor, model_sha256=sha256(b""), groups=groups, held_out=held_out)


def _scorable(table: pa.Table, signature: Signature) -> pa.Table:
    """The rows that belong to a segment and have known categories."""
    assert signature.composite
    table = table.filter(_matched(table, signature.composite))
    table = table.filter(_known(table, signature))
    if table.num_rows == 0:
        raise InvalidSample(
            "no row of the sample can be scored: each belongs to no segment, or has an unknown category"
        )
    return table


def _signature(composite: Composite, table: pa.Table) -> Signature:
    from pip_dagster.registry.encoding import sql_columns
    from pip_dagster.registry.members import joined_features
    from pip_dagster.registry.route import read_columns

    features = joined_features(composite.members)
    missing = [feature.name for feature in features if feature.name not in table.column_names]
    twice = sorted({name for name in table.column_names if table.column_names.count(name) > 1})
    if missing or twice:
        raise SignatureMismatch(
            f"the sample lacks the features {missing[:10]}, which a member takes; it has {table.column_names[:20]}"
            if missing
            else f"the sample holds the columns {twice} more than once; give each once"
        )
    conditions = [segment.when for segment in composite.segments if segment.when is not None]
    columns: dict[str, str] = {}
    if conditions:
        there = sql_columns(table, table.column_names)
        for condition in conditions:
            columns |= read_columns(condition, there)
    first = composite.members[0].signature
    if SEGMENT_COLUMN in {feature.name.lower() for feature in features}:
        raise SignatureMismatch(
            f"a feature is called {SEGMENT_COLUMN!r}, as is the column of a row's segment; rename it"
        )
    return Signature(
        engine=first.engine,
        task=first.task,
        features=features,
        objective=first.objective,
        booster="composite",
        outputs=first.outputs,
        classes=first.classes,
        iteration_range=(0, sum(member.signature.iteration_range[1] for member in composite.members)),
        xgboost_version=engine_named(first.engine).version(),
        quantiles=first.quantiles,
        tweedie_power=first.tweedie_power,
        composite=composite.model_copy(update={"columns": columns}),
    )


def _known(table: pa.Table, signature: Signature) -> pa.Array:
    """Rows of the sample whose categories some member knows: the sample may be newer than the members."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from pip_dagster.registry.matrix import as_strings

    known = pc.is_valid(pa.array([True] * table.num_rows))
    for feature in signature.features:
        if feature.categories is not None:
            values = as_strings(table.column(feature.name), feature.name)
            seen = pc.is_in(values, value_set=pa.array([*feature.categories, None], pa.string()))
            known = pc.and_(known, seen)
    return known


def _matched(table: pa.Table, composite: Composite) -> pa.Array:
    """Which rows of the sample belong to a segment."""
    import numpy as np
    import pyarrow as pa

    from pip_dagster.registry.encoding import segments_of

    if not composite.routes:
        return pa.array(np.ones(table.num_rows, dtype=bool))
    unmatched = np.isnan(segments_of(table, composite))
    if composite.unmatched == "error" and unmatched.any():
        first = table.slice(int(np.argmax(unmatched)), 1).select(list(composite.columns)).to_pylist()
        raise SignatureMismatch(
            f"{int(unmatched.sum())} of {table.num_rows} rows of the sample belong to no segment, such as {first[0]}, "
            "and `unmatched` is error; give a segment `otherwise: true`, or declare `unmatched: quarantine`"
        )
    return pa.array(~unmatched)
