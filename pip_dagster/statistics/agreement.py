"""How far candidate and champion agree on the same rows: decisions, distribution, segments, the top movers.

Each function takes a relation with a row for each row of the champion's: pip_champion_<i> and pip_candidate_<i> for
each output, pip_champion_decision, pip_candidate_decision, and pip_seen: whether the candidate scored it. Segments are
read from pip_segment_<i>, movers from partition_key and pip_key, units from pip_unit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pip_dagster.sql.names import literal, quote
from pip_dagster.statistics.gate_result import GateResult, Mover, SegmentDifference
from pip_dagster.statistics.paired import LEAST_ROWS, decile_table, drift, judge_drift, wilson_low
from pip_dagster.statistics.wording import describe_drift

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

TOP = 10
FLIPPED = "pip_champion_decision IS DISTINCT FROM pip_candidate_decision"
# How many units rows are of; a row without its unit is one of its own.
UNITS = "count(DISTINCT hash(pip_unit)) FILTER (pip_unit IS NOT NULL) + count(*) FILTER (pip_unit IS NULL)"


def segment_value(i: int) -> str:
    """SQL of a row's value of the segment's column with this number, as text."""
    return f"coalesce(pip_segment_{i}, '(missing)')"


def paired_columns(champion: Sequence[str], candidate: Sequence[str]) -> str:
    """SQL of the outputs and decisions of champion rows `a` and candidate rows `b`, each with a `pip_decision`."""
    columns = ["a.pip_decision AS pip_champion_decision", "b.pip_decision AS pip_candidate_decision"]
    for i, (old, new) in enumerate(zip(champion, candidate, strict=True)):
        columns += [f"a.{quote(old)} AS pip_champion_{i}", f"b.{quote(new)} AS pip_candidate_{i}"]
    return ", ".join(columns)


def flip_gate(con: DuckDBPyConnection, paired: str, decision: str, most: float) -> GateResult:
    """Whether more decisions change than `most` allows, beyond chance: the lower end of Wilson's 95% interval.

    Rows of one unit count as one row together.
    """
    row = con.execute(f"SELECT count(*), count(*) FILTER ({FLIPPED}) FROM {paired} WHERE pip_seen").fetchone()
    (rows, flips), units = row or (0, 0), _units(con, paired)
    rate, low = (flips / rows, wilson_low(flips * units / rows, units)) if rows else (0.0, 0.0)
    text = f"{flips:,} of {rows:,} decisions `{decision}` change, {rate:.2%}; at most {most:.2%} may"
    if rate > most:
        text += f", and at least {low:.2%} do beyond chance"
    details = {"rows": rows, "units": units, "flips": flips, "low": low}
    return GateResult("flip_rate", low <= most, rate, most, text + _counted(rows, units), details)


def psi_gate(
    con: DuckDBPyConnection, paired: str, outputs: Sequence[str], most: float, least_rows: int = LEAST_ROWS
) -> GateResult:
    """Whether the distribution of an output moved beyond `most` and noise; the figure is the worst output's.

    Rows of one unit count as one row together. With fewer than `least_rows`, nothing is judged, which passes.
    """
    units, found, rows = _units(con, paired), {}, 0
    for i, output in enumerate(outputs):
        table = decile_table(con, f"(FROM {paired} WHERE pip_seen)", f"pip_champion_{i}", f"pip_candidate_{i}")
        rows = int(table.sum())
        found[output] = drift(table * (units / rows) if rows else table)
    worst = max(found, key=lambda name: (judge_drift(found[name], most, least_rows) == "refused", found[name].excess))
    of, state = found[worst], judge_drift(found[worst], most, least_rows)
    text = describe_drift(worst, of, most) + _counted(rows, units)
    if state == "unjudged":
        text += f"; below {least_rows:,} it is not judged"
    details = {"psi": {name: each.psi for name, each in found.items()}, "noise": of.noise, "p": of.p}
    return GateResult("score_psi", state != "refused", of.psi, most, text, details, judged=state != "unjudged")


def _units(con: DuckDBPyConnection, paired: str) -> int:
    """How many units the compared rows are of."""
    row = con.execute(f"SELECT {UNITS} FROM {paired} WHERE pip_seen").fetchone()
    return int(row[0]) if row else 0


def _counted(rows: int, units: int) -> str:
    return f"; the {rows:,} rows are of {units:,} units and count as so many" if units < rows else ""


def segment_differences(
    con: DuckDBPyConnection, paired: str, segments: Sequence[str], *, decided: bool
) -> tuple[SegmentDifference, ...]:
    """Mean scores and flips by the value of each segment's column, the largest difference first."""
    found: list[SegmentDifference] = []
    for i, name in enumerate(segments):
        flips = f"count(*) FILTER ({FLIPPED}) / count(*)" if decided else "NULL"
        rows = con.execute(
            f"SELECT {literal(name)}, {segment_value(i)}, count(*), avg(pip_champion_0) AS a, "
            f"avg(pip_candidate_0) AS b, b - a, {flips} FROM {paired} WHERE pip_seen GROUP BY pip_segment_{i} "
            "ORDER BY abs(b - a) DESC, 2"
        ).fetchall()
        found.extend(SegmentDifference(*row) for row in rows)
    return tuple(found)


def top_movers(con: DuckDBPyConnection, paired: str) -> tuple[Mover, ...]:
    """The rows whose first output would change most."""
    rows = con.execute(
        f"SELECT partition_key, pip_key, pip_champion_0, pip_candidate_0 FROM {paired} WHERE pip_seen "
        f"ORDER BY abs(pip_candidate_0 - pip_champion_0) DESC, partition_key, pip_key LIMIT {TOP}"
    ).fetchall()
    return tuple(Mover(*row) for row in rows)
