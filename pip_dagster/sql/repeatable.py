"""Whether a query gives the same rows each time it runs, so that several tasks may each run it for some of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pip_dagster.sql.row_sql import core_functions
from pip_dagster.sql.tables import statement_tree

# Words without brackets that DuckDB reads as the clock; a column of that name is quoted.
_CLOCK = frozenset({"current_date", "current_time", "current_timestamp", "localtime", "localtimestamp"})
# DuckDB calls these consistent within a query, but in 2.0 also what depends on the time zone alone, such as `+`.
_FUNCTIONS = _CLOCK | {
    *("current_localtime", "current_localtimestamp", "get_current_time", "get_current_timestamp", "now", "today"),
    *("transaction_timestamp", "txid_current"),
}
# Aggregates whose value is that of a set of rows; all others may depend on the order in which threads read them.
_OF_SETS = {
    *("approx_count_distinct", "avg", "bit_and", "bit_or", "bit_xor", "bitstring_agg", "bool_and", "bool_or"),
    *("corr", "count", "count_if", "count_star", "countif", "covar_pop", "covar_samp", "entropy", "favg"),
    *("fsum", "histogram", "histogram_exact", "kahan_sum", "kurtosis", "kurtosis_pop", "mad", "max", "mean"),
    *("median", "min", "product", "quantile", "quantile_cont", "quantile_disc", "regr_avgx", "regr_avgy"),
    *("regr_count", "regr_intercept", "regr_r2", "regr_slope", "regr_sxx", "regr_sxy", "regr_syy", "sem"),
    *("skewness", "stddev", "stddev_pop", "stddev_samp", "sum", "sum_no_overflow", "sumkahan", "var_pop"),
    *("var_samp", "variance"),
}


def changing(sql: str) -> list[str]:
    """What gives a SELECT other rows each time: functions of the clock or of chance, and samples; none if nothing does.

    Raises:
        Refused: the text is not one SELECT.
    """
    return sorted({each for node in _nodes(sql) for each in _of(node)})


def depends_on_order(sql: str) -> bool:
    """Whether a SELECT may choose other rows where some are equal in its ORDER BY: DuckDB's threads read in any order.

    So do windows, LIMIT, DISTINCT ON, ASOF and positional joins, and aggregates such as `first`.

    Raises:
        Refused: the text is not one SELECT.
    """
    return any(_is_ordered(node) for node in _nodes(sql))


def _nodes(sql: str) -> Iterator[dict[str, Any]]:
    waiting: list[Any] = [statement_tree(sql)]
    while waiting:
        node = waiting.pop()
        if isinstance(node, list):
            waiting += node
        if not isinstance(node, dict) or node.get("class") == "CONSTANT":
            continue
        yield node
        waiting += node.values()


def _is_ordered(node: dict[str, Any]) -> bool:
    if node.get("class") == "WINDOW" or node.get("ref_type") in {"ASOF", "POSITIONAL"}:
        return True
    if node.get("class") == "FUNCTION":
        name = str(node["function_name"]).lower()
        return name not in _OF_SETS and any(kind == "aggregate" for kind, *_ in core_functions().get(name, ()))
    return str(node.get("type")).startswith("LIMIT") or bool(node.get("distinct_on_targets"))


def _of(node: dict[str, Any]) -> set[str]:
    if node.get("class") == "FUNCTION":
        name = str(node["function_name"]).lower()
        since_today = name == "age" and len(node.get("children") or node.get("arguments") or ()) == 1
        volatile = name != "error" and any(
            stability == "VOLATILE" for _, stability, *_ in core_functions().get(name, ())
        )
        return {f"{name}()"} if since_today or volatile or name in _FUNCTIONS else set()
    names = node.get("column_names") if node.get("class") == "COLUMN_REF" else None
    if names and len(names) == 1 and str(names[0]).lower() in _CLOCK:
        return {str(names[0]).lower()}
    return {"a sample"} if node.get("sample") else set()
