"""How far two models' scores of the same rows differ, less what is noise: for gates without labels and for canaries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pip_dagster.errors import DeclarationError
from pip_dagster.sql.names import quote

if TYPE_CHECKING:
    import numpy as np
    from duckdb import DuckDBPyConnection

BINS = 10
# Below this many rows PSI is mostly noise.
LEAST_ROWS = 50
# Of the test whether the two distributions differ at all.
LEVEL = 0.001


@dataclass(frozen=True)
class Drift:
    """The difference of two distributions of scores over the same rows.

    `psi` is the population stability index and `noise` what it is on average when the rows that change their bin do so
    in both directions alike. `chi2`, `df` and `p` are Stuart and Maxwell's test of equal distributions.
    """

    rows: int
    psi: float
    noise: float
    chi2: float
    df: int
    p: float

    @property
    def excess(self) -> float:
        """PSI beyond its noise."""
        return self.psi - self.noise


def decile_table(con: DuckDBPyConnection, relation: str, champion: str, candidate: str) -> np.ndarray:
    """Count the rows by the decile of their champion's and of their candidate's score.

    The bins are those between the champion's deciles (`quantile_disc`), closed above. If all of the champion's deciles
    are one score, what is below it is a bin of its own. Rows without both scores are left out. Tables of several
    partitions may be added up.

    Args:
        con: a connection that can read `relation`.
        relation: SQL after FROM: a table, or a subquery in parentheses.
        champion: the column with the champion's score.
        candidate: the column with the candidate's score.

    Returns:
        (10, 10) int64 counts: the champion's bin by the candidate's.

    Raises:
        DeclarationError: a score is NaN or infinite.
    """
    import numpy as np

    found = decile_tables(con, relation, champion, candidate, "''")
    return found.get("", np.zeros((BINS, BINS), np.int64))


def decile_tables(
    con: DuckDBPyConnection, relation: str, champion: str, candidate: str, by: str
) -> dict[str, np.ndarray]:
    """Count as `decile_table` for each value of `by`, an SQL text that is never NULL, with deciles of its own rows."""
    import numpy as np

    deciles = ", ".join(str(i / BINS) for i in range(1, BINS))
    bins = [
        f"(CASE WHEN e[1] = e[{BINS - 1}] THEN {column} >= e[1] ELSE {column} > e[1] END)::INTEGER + "
        + " + ".join(f"({column} > e[{i}])::INTEGER" for i in range(2, BINS))
        for column in ("a", "b")
    ]
    rows = con.execute(
        f"WITH r AS (SELECT {by} AS g, {quote(champion)}::DOUBLE AS a, {quote(candidate)}::DOUBLE AS b FROM {relation} "
        f"  WHERE {quote(champion)} IS NOT NULL AND {quote(candidate)} IS NOT NULL), "
        f"edges AS (SELECT g, quantile_disc(a, [{deciles}]) AS e FROM r GROUP BY g) "
        f"SELECT g, {bins[0]} AS i, {bins[1]} AS j, count(*), count(*) FILTER (NOT isfinite(a) OR NOT isfinite(b)) "
        "FROM r JOIN edges USING (g) GROUP BY ALL"
    ).fetchall()
    if bad := sum(row[4] for row in rows):
        raise DeclarationError(
            f"{bad:,} scores in {champion} or {candidate} are NaN or infinite; scores must be finite."
        )
    found: dict[str, np.ndarray] = {}
    for value, i, j, count, _ in rows:
        found.setdefault(value, np.zeros((BINS, BINS), np.int64))[i, j] = count
    return found


def drift(table: np.ndarray) -> Drift:
    """Compare the two distributions of a table of paired bins.

    - PSI: the sum over bins of (q - p) ln(q / p), where p and q are (count + 1/2) / (rows + bins / 2), over the bins
      that have a row.
    - Its noise: the sum over bins of (rows that enter or leave) / ((n + m) / 2) / rows, where n and m are the bin's two
      counts. The rows are the same for both models, so it is less than (1/N + 1/M)(B - 1).
    - Stuart (1955) and Maxwell (1970): chi² = d' S⁺ d with d = row sums - column sums (the last one left out),
      S_ii = r_i + c_i - 2 t_ii and S_ij = -(t_ij + t_ji); its degrees of freedom are the rank of S.

    The test treats rows as independent.

    Args:
        table: (bins, bins) counts: the champion's bin by the candidate's. Without rows all figures are 0 and p is 1.
    """
    import numpy as np
    from scipy.special import chdtrc

    table = np.asarray(table, np.float64)
    rows = float(table.sum())
    if not rows:
        return Drift(0, 0.0, 0.0, 0.0, 0, 1.0)
    n, m = table.sum(axis=1), table.sum(axis=0)
    used = n + m > 0
    bins = int(used.sum())
    p, q = ((count[used] + 0.5) / (rows + bins / 2) for count in (n, m))
    moved = n + m - 2 * np.diag(table)
    noise = float((moved[used] / ((n + m)[used] / 2)).sum() / rows)
    covariance = -(table + table.T)
    np.fill_diagonal(covariance, moved)
    difference, covariance = (n - m)[:-1], covariance[:-1, :-1]
    df = int(np.linalg.matrix_rank(covariance)) if len(difference) else 0
    chi2 = float(difference @ np.linalg.pinv(covariance) @ difference) if df else 0.0
    return Drift(
        round(rows), float(((q - p) * np.log(q / p)).sum()), noise, chi2, df, float(chdtrc(df, chi2)) if df else 1.0
    )


def judge_drift(found: Drift, limit: float, least_rows: int = LEAST_ROWS) -> Literal["passed", "refused", "unjudged"]:
    """Decide whether the scores moved too far: PSI less its noise above `limit`, and p below 0.001.

    Args:
        found: of one partition, or of several partitions' tables added up.
        limit: of PSI, 0 or more; 0.25 by convention, 0.1 where the candidate is a retrain on similar data.
        least_rows: below it the drift is unjudged; add further partitions' tables.
    """
    if found.rows < least_rows:
        return "unjudged"
    return "refused" if found.excess > limit and found.p < LEVEL else "passed"


def wilson_low(count: float, rows: float, confidence: float = 0.95) -> float:
    """Return the lower end of Wilson's interval (1927) of a share, two-sided; 0 without rows.

    A limit on changed decisions is exceeded where this is above it: by more than chance. Rows count as independent.

    Args:
        count: rows of interest, such as changed decisions.
        rows: all rows.
        confidence: between 0 and 1.

    Raises:
        ValueError: `count` is negative or above `rows`.
    """
    from scipy.special import ndtri

    if not 0 <= count <= rows:
        raise ValueError(f"{count} of {rows} rows is not a share; expected 0 to {rows}")
    if not rows or not count:
        return 0.0
    z = float(ndtri((1 + confidence) / 2))
    share, spread = count / rows, z * z / rows
    return float((share + spread / 2 - (share * (1 - share) * spread + spread * spread / 4) ** 0.5) / (1 + spread))
