"""Whether a query gives the same rows each time it runs, so that several tasks may each run it for some of them."""

from __future__ import annotations

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


def changing(sql: str) -> list[str]:
    """What gives a SELECT other rows each time: functions of the clock or of chance, and samples; none if nothing does.

    Raises:
        Refused: the text is not one SELECT.
    """
    found: set[str] = set()
    waiting: list[Any] = [statement_tree(sql)]
    while waiting:
        node = waiting.pop()
        if isinstance(node, list):
            waiting += node
        if not isinstance(node, dict) or node.get("class") == "CONSTANT":
            continue
        found |= _of(node)
        waiting += node.values()
    return sorted(found)


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
