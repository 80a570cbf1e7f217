"""How far candidate and champion agree on the same rows: decisions, distribution, segments, the top movers.

Each function takes a relation with a row for each row of the champion's: pip_champion_<i> and pip_candidate_<i> for
each output, pip_champion_decision, pip_candidate_decision, and pip_seen: whether the candidate scored it. Segments are
read from pip_segment_<i>, movers from partition_key and pip_key.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pip_dagster.sql.names import literal, quote
from pip_dagster.statistics.gate_result import GateResult, Mover, SegmentDifference

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

TOP = 10
_FLIPPED = "pip_champion_decision IS DISTINCT FROM pip_candidate_decision"
# A bin that is empty for one of the two would make PSI infinite.
_LEAST_SHARE = 1e-4


def paired_columns(outputs: Sequence[str]) -> str:
    """SQL of the outputs and decisions of champion rows `a` and candidate rows `b`, each with a `pip_decision`."""
    columns = ["a.pip_decision AS pip_champion_decision", "b.pip_decision AS pip_candidate_decision"]
    for i, output in enumerate(outputs):
        columns += [f"a.{quote(output)} AS pip_champion_{i}", f"b.{quote(output)} AS pip_candidate_{i}"]
    return ", ".join(columns)


def flip_gate(con: DuckDBPyConnection, paired: str, decision: str, most: float) -> GateResult:
    """The share of rows on which the two decide differently."""
    row = con.execute(f"SELECT count(*), count(*) FILTER ({_FLIPPED}) FROM {paired} WHERE pip_seen").fetchone()
    rows, flips = row or (0, 0)
    rate = flips / rows if rows else 0.0
    text = f"{flips:,} of {rows:,} decisions `{decision}` change, {rate:.2%}; at most {most:.2%} may"
    return GateResult("flip_rate", rate <= most, rate, most, text, {"rows": rows, "flips": flips})


def psi_gate(con: DuckDBPyConnection, paired: str, outputs: Sequence[str], most: float) -> GateResult:
    """The population stability index of the scores, over the deciles of the champion's: the largest of the outputs.

    PSI is the sum over the bins of (q - p) ln(q / p), p and q the champion's and the candidate's shares of a bin.
    """
    found = {output: _psi(con, paired, i) for i, output in enumerate(outputs)}
    worst = max(found, key=lambda name: found[name])
    figure = found[worst]
    text = f"PSI of {worst} is {figure:.3f} over the deciles of the champion's; at most {most:g} is allowed"
    return GateResult("score_psi", figure <= most, figure, most, text, {"psi": found})


def _psi(con: DuckDBPyConnection, paired: str, output: int) -> float:
    bins = " + ".join(f"(v > e[{i}])::INTEGER" for i in range(1, 10))
    deciles = ", ".join(str(i / 10) for i in range(1, 10))
    row = con.execute(
        f"WITH r AS (SELECT pip_champion_{output} AS a, pip_candidate_{output} AS b FROM {paired} WHERE pip_seen), "
        f"edges AS (SELECT quantile_disc(a, [{deciles}]) AS e FROM r), "
        "long AS (SELECT unnest([true, false]) AS old, unnest([a, b]) AS v FROM r), "
        f"binned AS (SELECT {bins} AS bin, count(*) FILTER (old) AS p, count(*) FILTER (NOT old) AS q "
        "  FROM long, edges GROUP BY ALL), "
        f"shares AS (SELECT greatest(p / sum(p) OVER (), {_LEAST_SHARE}) AS p, "
        f"  greatest(q / sum(q) OVER (), {_LEAST_SHARE}) AS q FROM binned) "
        "SELECT coalesce(sum((q - p) * ln(q / p)), 0) FROM shares"
    ).fetchone()
    return float(row[0]) if row else 0.0


def segment_differences(
    con: DuckDBPyConnection, paired: str, segments: Sequence[str], *, decided: bool
) -> tuple[SegmentDifference, ...]:
    """Mean scores and flips by the value of each segment's column, the largest difference first."""
    found: list[SegmentDifference] = []
    for i, name in enumerate(segments):
        flips = f"count(*) FILTER ({_FLIPPED}) / count(*)" if decided else "NULL"
        rows = con.execute(
            f"SELECT {literal(name)}, coalesce(pip_segment_{i}, '(missing)'), count(*), avg(pip_champion_0) AS a, "
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
