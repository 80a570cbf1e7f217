"""Two versions, or two arms, of a pipeline: what both scored, row by row and as distributions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pip_dagster.declaration.model_names import parse_ref
from pip_dagster.errors import DeclarationError, RegistryError
from pip_dagster.plural import plural
from pip_dagster.promotion.reports import newest_report
from pip_dagster.registry.store import Registry
from pip_dagster.reporting.card import gate_lines
from pip_dagster.reporting.compared import SCHEMA, ComparedSide, Comparison, PairDay, Pairing
from pip_dagster.reporting.content import LEAST_ROWS, Distribution, GateLine, Named, Window
from pip_dagster.reporting.facts import Facts, read_facts
from pip_dagster.reporting.figures import rounded
from pip_dagster.reporting.provenance import live_version, period_of, provenance_of
from pip_dagster.reporting.source import OpenLedger, opened
from pip_dagster.sql.names import among, literal, quote
from pip_dagster.statistics.distribution import difference

if TYPE_CHECKING:
    from pip_dagster.declaration.pipeline import Pipeline
    from pip_dagster.registry.manifest import Manifest


@dataclass(frozen=True)
class _Scored:
    """A side's scorings, and its scored rows as SQL: None where they cannot be read."""

    name: str
    scorings: Sequence[dict[str, Any]]
    rows: str | None


def compare(
    pipeline: Pipeline, first_side: str, second_side: str, *, first: str | None = None, last: str | None = None
) -> Comparison:
    """Compare versions (`v1`) or arms (`champion`) over a period, by default the newest 90 partitions.

    Raises:
        DeclarationError: a side has scored nothing in the period, or both are the same.
        WarehouseError: neither the warehouse nor what is published can be read.
    """
    if first_side == second_side:
        raise DeclarationError(f"Pipeline {pipeline.spec.name}: {first_side!r} is compared with itself; name another.")
    with opened(pipeline.project) as source:
        version, _ = live_version(source, pipeline)
        facts = read_facts(source, pipeline, None, first, last)
        sides = [_scored(source, pipeline, name, facts) for name in (first_side, second_side)]
        manifest = version.manifest if version else None
        score = manifest.outputs[0] if manifest else "score"
        have_rows = all(side.rows for side in sides)
        paired = _paired(source, pipeline, sides, score) if have_rows and not _are_arms(sides) else None
        counts = [_histogram(source, side, score, manifest) for side in sides] if have_rows and manifest else []
    unavailable = {} if have_rows else {"rows": "scored rows of versions that are not live are in the warehouse only"}
    psi = None
    if counts and all(sum(each) >= LEAST_ROWS for each in counts):
        import numpy as np

        psi = float(difference(np.array(counts[1]), np.array(counts[0])).excess[0])
    return rounded(
        Comparison(
            schema=SCHEMA,
            pipeline=pipeline.spec.name,
            origin=provenance_of(pipeline, facts, version),
            period=period_of(facts),
            sentence=_sentence(pipeline.spec.name, sides, paired, psi),
            sides=(_side(pipeline, sides[0]), _side(pipeline, sides[1])),
            paired=paired,
            scores=_distributions(sides, score, manifest, counts),
            psi=psi,
            days=_days(facts, sides),
            gates=_gates(pipeline, sides),
            unavailable=unavailable,
        )
    )


def _scored(source: OpenLedger, pipeline: Pipeline, name: str, facts: Facts) -> _Scored:
    """The newest scoring of each partition by a version; of an arm those that are live for its buckets."""
    spec, number = pipeline.spec, parse_ref(name)
    keys = among("partition_key", facts.keys)
    of = f"SELECT * FROM ledger.partitions WHERE pipeline = {literal(spec.name)} AND status = 'scored' AND {keys}"
    if isinstance(number, int):
        newest = "QUALIFY row_number() OVER (PARTITION BY partition_key ORDER BY scoring_id DESC) = 1"
        scorings = source.rows(f"{of} AND model_version = {number} {newest} ORDER BY partition_start")
        table = f"{quote(spec.name)}.scores"
        ids = among("scoring_id", [row["scoring_id"] for row in scorings])
        rows = f"(FROM {table} WHERE {ids})" if source.has(spec.name, "scores") else None
    else:
        arms = "live_arms" if source.has("ledger", "live_arms") else "arms"
        known = source.has("ledger", arms) and source.has(spec.name, "predictions")
        ids = f"scoring_id IN (SELECT scoring_id FROM ledger.{arms} WHERE pipeline = {literal(spec.name)} " + (
            f"AND arm = {literal(name)})"
        )
        scorings = source.rows(f"{of} AND {ids} ORDER BY partition_start") if known else []
        table = f"{quote(spec.name)}.predictions"
        rows = f"(FROM {table} WHERE arm = {literal(name)} AND {keys})"
    if not scorings:
        between = f" from {facts.keys[0]} to {facts.keys[-1]}" if facts.keys else ""
        raise DeclarationError(
            f"Pipeline {spec.name}: {name!r} has scored no partition{between}. Expected a version such as v1, or "
            f"an arm such as champion; `pip-dagster models list {spec.scoring.model_name}` lists them."
        )
    return _Scored(name, scorings, rows)


def _are_arms(sides: Sequence[_Scored]) -> bool:
    """Whether a row belongs to one side only."""
    return not all(isinstance(parse_ref(side.name), int) for side in sides)


def _paired(source: OpenLedger, pipeline: Pipeline, sides: Sequence[_Scored], score: str) -> Pairing | None:
    spec, (a, b) = pipeline.spec, sides
    columns = {row[0]: row[1] for row in source.con.execute(f"DESCRIBE {quote(spec.name)}.scores").fetchall()}
    if score not in columns:
        return None
    compared = [name for name in spec.decisions if columns.get(name) == "BOOLEAN"]
    compared += ["predicted_class"] if "predicted_class" in columns else []
    flips = "".join(
        f", avg((a.{quote(name)} IS DISTINCT FROM b.{quote(name)})::INT) AS {quote('flip ' + name)}"
        for name in compared
    )
    x, y = f"a.{quote(score)}", f"b.{quote(score)}"
    joined = " AND ".join(f"a.{quote(name)} = b.{quote(name)}" for name in ("partition_key", *spec.features.key))
    (row,) = source.rows(
        f"SELECT count(DISTINCT a.partition_key) AS partitions, count(*) AS rows, avg({y} - {x}) AS mean_difference, "
        f"avg(abs({y} - {x})) AS mean_absolute_difference, max(abs({y} - {x})) AS largest_difference, "
        f"corr({x}, {y}) AS correlation{flips} FROM {a.rows} a JOIN {b.rows} b ON {joined}"
    )
    found = {name: row.pop(f"flip {name}") for name in compared}
    if row["rows"] < LEAST_ROWS:
        return None
    return Pairing(**row, flips={name: each for name, each in found.items() if each is not None})


def _histogram(source: OpenLedger, side: _Scored, score: str, manifest: Manifest) -> list[int]:
    """Rows by the bins of the manifest's reference."""
    reference = manifest.score_reference.get(score)
    edges = reference.edges if reference else ()
    if not edges:
        return []
    listed = ", ".join(f"'{edge!r}'" for edge in edges)
    row = source.con.execute(
        f"SELECT histogram({quote(score)}::DOUBLE, [{listed}]::DOUBLE[]), count({quote(score)}) FROM {side.rows}"
    ).fetchone()
    by_bin, total = row or ({}, 0)
    counts = [int((by_bin or {}).get(edge, 0)) for edge in edges]
    return [*counts, int(total) - sum(counts)]


def _distributions(
    sides: Sequence[_Scored], score: str, manifest: Manifest | None, counts: Sequence[Sequence[int]]
) -> tuple[Distribution, ...]:
    if not manifest or not counts or not all(sum(each) >= LEAST_ROWS for each in counts):
        return ()
    reference = manifest.score_reference[score]
    edges = [f"{edge:.6g}" for edge in reference.edges]
    between = (f"above {low} up to {high}" for low, high in zip(edges[:-1], edges[1:], strict=True))
    windows = [
        Window(side.name, side.name, sum(each), tuple(count / sum(each) for count in each))
        for side, each in zip(sides, counts, strict=True)
    ]
    bins = (f"up to {edges[0]}", *between, f"above {edges[-1]}")
    return (Distribution(score, bins, None, 0, tuple(windows)),)


def _side(pipeline: Pipeline, side: _Scored) -> ComparedSide:
    rows = sum(row["rows_scored"] or 0 for row in side.scorings)
    weighted = [(row["mean_score"], row["rows_scored"]) for row in side.scorings if row["mean_score"] is not None]
    scored = sum(count for _, count in weighted)
    versions = tuple(sorted({row["model_version"] for row in side.scorings if row["model_version"] is not None}))
    return ComparedSide(
        name=side.name,
        versions=versions,
        partitions=len({row["partition_key"] for row in side.scorings}),
        live_partitions=sum(bool(row["is_live"]) for row in side.scorings),
        rows=rows,
        mean_score=sum(mean * count for mean, count in weighted) / scored if scored >= LEAST_ROWS else None,
        seconds=sum(row["seconds"] or 0.0 for row in side.scorings),
        model=_model(pipeline, versions),
    )


def _model(pipeline: Pipeline, versions: Sequence[int]) -> tuple[Named, ...]:
    registry, name = Registry(pipeline.project.registry), pipeline.spec.scoring.model_name
    found: list[Named] = []
    for number in versions:
        try:
            version = registry.get(name, number)
        except RegistryError as error:
            found.append(Named(f"v{number}", str(error)))
            continue
        manifest = version.manifest
        figures = ", ".join(f"{metric} {value:.4g}" for metric, value in manifest.metrics.items())
        found += [
            Named(f"v{number}", manifest.description or "no description"),
            Named(f"v{number} registered", f"{manifest.registered_at:%Y-%m-%d %H:%M} UTC by {manifest.registered_by}"),
            Named(f"v{number} features", f"{len(manifest.features)}"),
            Named(f"v{number} metrics, as registered", figures or "not stated"),
            Named(f"v{number} digest", version.digest),
        ]
    return tuple(found)


def _days(facts: Facts, sides: Sequence[_Scored]) -> tuple[PairDay, ...]:
    by_key = [{row["partition_key"]: row for row in side.scorings} for side in sides]
    days = []
    for key in facts.keys:
        a, b = (rows.get(key, {}) for rows in by_key)
        if a or b:
            means = [row.get("mean_score") if (row.get("rows_scored") or 0) >= LEAST_ROWS else None for row in (a, b)]
            days.append(PairDay(key, a.get("rows_scored"), b.get("rows_scored"), *means))
    return tuple(days)


def _gates(pipeline: Pipeline, sides: Sequence[_Scored]) -> tuple[GateLine, ...]:
    """The newest report of the gates on B against A, if that was so."""
    numbers = [parse_ref(side.name) for side in sides]
    if not all(isinstance(number, int) for number in numbers):
        return ()
    try:
        report = newest_report(pipeline.project.registry, pipeline.spec.scoring.model_name, int(numbers[1]))
    except RegistryError:
        return ()
    return gate_lines(report) if report and report.champion == numbers[0] else ()


def _sentence(pipeline: str, sides: Sequence[_Scored], paired: Pairing | None, psi: float | None) -> str:
    a, b = (side.name for side in sides)
    if paired:
        flips = ", ".join(f"{name} changes for {share:.1%}" for name, share in paired.flips.items())
        more = f" {flips}." if flips else ""
        by = paired.mean_difference or 0.0
        way, by = "higher" if by > 0 else "lower", abs(by)
        return (
            f"{pipeline}: on {plural(paired.rows, 'row')} that both scored, {b} is {by:.3g} "
            f"{way} than {a} on average; they differ by {paired.mean_absolute_difference:.3g}.{more}"
        )
    unlike = "" if psi is None else f" PSI of the scores beyond noise: {psi:.3g}."
    return f"{pipeline}: {a} and {b} have no rows in common.{unlike}"
