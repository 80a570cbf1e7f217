"""Whether each staged row has a key of its own: whole, unique in its partition, and exact where it is published."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pip_dagster.flow.stage import Stage
from pip_dagster.plural import plural
from pip_dagster.sql.names import quote, quote_all
from pip_dagster.warehouse.memory import Room

# To group rows, DuckDB needs memory for each of them even when it spills: 192 MB fail for 100 million BIGINTs.
# So they are grouped in parts, each with so many bytes of the limit a row and number. A text counts as some numbers.
_BYTES_A_NUMBER = 10
_NUMBERS_A_TEXT = 4


def check_keys(stage: Stage, keys: Sequence[str]) -> dict[str, str]:
    """Partitions with keys that are NULL, occur twice or cannot be published exactly, and how many; never which."""
    con, names = stage.con, ", ".join(keys)
    any_null = " OR ".join(f"{quote(name)} IS NULL" for name in keys)
    problems: dict[str, str] = {}
    for key, nulls in con.execute(
        f"SELECT partition_key, count(*) FROM {stage.features} WHERE {any_null} GROUP BY ALL"
    ).fetchall():
        problems[key] = f"{plural(nulls, 'row')} with a NULL in the key ({names}); every row needs a key"
    for key, (twice, rows) in repeated(stage, keys, _parts(stage, keys)).items():
        problems.setdefault(
            key,
            f"{plural(twice, 'key')} ({names}) {'occurs' if twice == 1 else 'occur'} more than once, in "
            f"{plural(rows, 'row')}; a join in the feature SQL may multiply rows",
        )
    for name in (name for name in keys if stage.columns[name] in {"HUGEINT", "UHUGEINT"}):
        for key, rows in con.execute(
            f"SELECT partition_key, count(*) FROM {stage.features} "
            f"WHERE length(ltrim({quote(name)}::VARCHAR, '-')) > 38 GROUP BY partition_key"
        ).fetchall():
            problems.setdefault(
                key,
                f"{name} has more digits in {plural(rows, 'row')} than Arrow and Parquet hold (38); cast it to VARCHAR "
                "in the SQL",
            )
    return problems


def repeated(stage: Stage, keys: Sequence[str], parts: int, hashed: str = "hash") -> dict[str, tuple[int, int]]:
    """Partition → how many of its keys occur more than once, and in how many rows.

    The rows are grouped in `parts`, by a hash that equal keys share; so memory does not grow with the rows. `hashed` is
    the SQL function; its collisions make parts uneven and change nothing else.
    """
    listed = quote_all(keys)
    found: dict[str, tuple[int, int]] = {}
    for part in range(parts):
        within = f"WHERE {hashed}({listed}) % {parts} = {part}" if parts > 1 else ""
        rows = stage.con.execute(
            "SELECT partition_key, count(*), sum(n)::BIGINT FROM ("
            f"SELECT partition_key, count(*) AS n FROM {stage.features} {within} "
            f"GROUP BY partition_key, {listed} HAVING count(*) > 1) GROUP BY partition_key"
        ).fetchall()
        for key, count, of_rows in rows:
            before, rows_before = found.get(key, (0, 0))
            found[key] = (before + count, rows_before + of_rows)
    return found


def _parts(stage: Stage, keys: Sequence[str]) -> int:
    row = stage.con.execute(f"SELECT count(*) FROM {stage.features}").fetchone()
    assert row
    numbers = sum(_NUMBERS_A_TEXT if stage.columns[name] in {"VARCHAR", "BLOB"} else 1 for name in keys)
    return max(1, math.ceil(row[0] * numbers * _BYTES_A_NUMBER / Room.of(stage.con).limit))
