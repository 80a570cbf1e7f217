"""Which rows are measured, in which groups: the SQL that all sums of the metrics begin with."""

from __future__ import annotations

from collections.abc import Sequence

from pip_dagster.sql.names import quote
from pip_dagster.statistics.metrics.spec import MetricSpec


class Grouping:
    """Groups by columns: `names` are theirs in the SQL; `sets` are the positions of those of each grouping set."""

    def __init__(self, by: Sequence[str], sets: Sequence[Sequence[str]] | None) -> None:
        self.by = tuple(by)
        self.sets = [[self.by.index(name) for name in each] for each in ([self.by] if sets is None else sets)]
        self.names = [f"g{i}" for i in range(len(self.by))]

    @property
    def selected(self) -> str:
        """The columns that say which group a row of the result is."""
        used = {i for each in self.sets for i in each}
        flags = [f"GROUPING({name})::VARCHAR" if i in used else "'1'" for i, name in enumerate(self.names)]
        columns = [name if i in used else f"NULL AS {name}" for i, name in enumerate(self.names)]
        return ", ".join([f"{' || '.join(flags) or repr('')} AS pip_set", *columns])

    @property
    def columns(self) -> str:
        """The same columns, once they are there."""
        return ", ".join(["pip_set", *self.names])

    def clause(self, *more: str) -> str:
        """GROUP BY for the grouping sets, each with these columns as well."""
        sets = (", ".join([*(self.names[i] for i in each), *more]) for each in self.sets)
        return f"GROUP BY GROUPING SETS ({', '.join(f'({each})' for each in sets)})"

    def each(self) -> list[tuple[str, str]]:
        """Of each set: its columns as `selected` has them, NULL where they are not its own, and those for PARTITION."""
        found = []
        for own in self.sets:
            flag = "".join("0" if i in own else "1" for i in range(len(self.names)))
            columns = [name if i in own else f"NULL AS {name}" for i, name in enumerate(self.names)]
            found.append((", ".join([f"'{flag}' AS pip_set", *columns]), ", ".join(self.names[i] for i in own)))
        return found


def rows_sql(relation: str, spec: MetricSpec, grouping: Grouping) -> str:
    """The labelled rows, with internal names: g0 …, s0 …, y, w, d0 …, q, `cens`, h."""
    columns = [f"{quote(name)} AS g{i}" for i, name in enumerate(grouping.by)]
    columns += [f"{quote(name)}::DOUBLE AS s{i}" for i, name in enumerate(spec.scores)]
    columns.append(f"{quote(spec.outcome)}::DOUBLE AS y")
    columns.append(f"{f'coalesce({quote(spec.weight)}::DOUBLE, -1)' if spec.weight else '1.0::DOUBLE'} AS w")
    columns += [f"{quote(name)}::BOOLEAN AS d{i}" for i, name in enumerate(spec.decisions)]
    if spec.query is not None:
        columns.append(f"{quote(spec.query)} AS q")
    if spec.kind == "survival":
        columns.append(f"{f'coalesce({quote(spec.censored)}::BOOLEAN, false)' if spec.censored else 'false'} AS cens")
        drawn = [quote(name) for name in spec.key] or [quote(name) for name in (*spec.scores, spec.outcome)]
        columns.append(f"md5(concat_ws(chr(31), {', '.join(f'{each}::VARCHAR' for each in drawn)})) AS h")
    known = " AND ".join(f"{quote(name)} IS NOT NULL" for name in (*spec.scores, spec.outcome))
    return f"SELECT {', '.join(columns)} FROM {relation} WHERE {known}"
