"""How far a canary and the champion agree in each segment, corrected for the number of segments.

The functions take a relation as those of `agreement` do, with `pip_segment_<i>` for each segment's column.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pip_dagster.plural import plural
from pip_dagster.statistics.agreement import FLIPPED, UNITS, segment_value
from pip_dagster.statistics.gate_result import GateResult
from pip_dagster.statistics.paired import LEVEL, decile_tables, drift
from pip_dagster.statistics.segments import rejected

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

# One-sided, of all segments together: that of the interval around the share over all rows.
_FLIP_LEVEL = 0.025


@dataclass(frozen=True)
class _Test:
    """A segment's figure, the probability of it where the limit is met, and whether it is beyond the limit."""

    segment: str
    figure: float
    p: float
    beyond: bool
    text: str


def segment_flip_gate(
    con: DuckDBPyConnection, paired: str, segments: Sequence[str], most: float, least_rows: int
) -> GateResult:
    """Whether in a segment more decisions change than `most` allows, beyond chance.

    An exact binomial test for each segment, Holm's correction (1979) over all. Rows of one unit count as one row.
    Segments of fewer units than `least_rows` are not judged.
    """
    from scipy.special import betainc

    tests, few = [], 0
    for i, name in enumerate(segments):
        for value, units, rows, flips in con.execute(
            f"SELECT {segment_value(i)}, {UNITS}, count(*), count(*) FILTER ({FLIPPED}) FROM {paired} "
            "GROUP BY 1 ORDER BY 1"
        ).fetchall():
            if units < least_rows:
                few += 1
                continue
            rate, count = flips / rows, flips * units / rows
            p = float(betainc(count, units - count + 1, most)) if flips else 1.0
            text = f"{flips:,} of {rows:,} decisions change, {rate:.2%}"
            tests.append(_Test(f"{name} {value}", rate, p, rate > most, text))
    return _judged("segment_flip_rate", tests, (most, f"{most:.2%}"), _FLIP_LEVEL, (few, least_rows))


def segment_psi_gate(
    con: DuckDBPyConnection, paired: str, of: tuple[Sequence[str], Sequence[str]], most: float, least_rows: int
) -> GateResult:
    """Whether the distribution of an output moved in a segment beyond `most` and noise; `of`: segments and outputs.

    As `agreement.psi_gate` in each segment, with its own deciles and Holm's correction over all.
    """
    segments, outputs = of
    tests, few = [], 0
    for i, name in enumerate(segments):
        by = segment_value(i)
        units = dict(con.execute(f"SELECT {by}, {UNITS} FROM {paired} GROUP BY 1").fetchall())
        few += sum(count < least_rows for count in units.values())
        for j, output in enumerate(outputs):
            tables = decile_tables(con, paired, f"pip_champion_{j}", f"pip_candidate_{j}", by)
            for value, table in sorted(tables.items()):
                if units[value] < least_rows:
                    continue
                found = drift(table * (units[value] / table.sum()))
                text = f"PSI of {output} is {found.psi:.3f}, of which {found.noise:.3f} is noise"
                tests.append(_Test(f"{name} {value}", found.psi, found.p, found.excess > most, text))
    return _judged("segment_psi", tests, (most, f"{most:g}"), LEVEL, (few, least_rows))


def _judged(
    name: str, tests: Sequence[_Test], most: tuple[float, str], level: float, unjudged: tuple[int, int]
) -> GateResult:
    """The result of all segments: failed where one is beyond its limit and Holm rejects it; the worst is the figure."""
    few, least_rows = unjudged
    left_out = f"; not judged: {plural(few, 'segment')} with fewer than {least_rows:,} rows" if few else ""
    if not tests:
        return GateResult(
            name, True, None, most[0], f"no segment has {least_rows:,} rows: none is judged", judged=False
        )
    ordered = sorted(tests, key=lambda test: test.p)
    failed = [test for test in ordered[: rejected([test.p for test in ordered], level)] if test.beyond]
    worst = max(failed or tests, key=lambda test: test.figure)
    text = f"{worst.segment}: {worst.text}; at most {most[1]} in a segment; {len(tests):,} are judged{left_out}"
    if failed:
        text += f"; beyond the limit and chance: {', '.join(dict.fromkeys(test.segment for test in failed))}"
    details = {"judged": len(tests), "few_rows": few, "failed": [test.segment for test in failed]}
    return GateResult(name, not failed, worst.figure, most[0], text, details)
