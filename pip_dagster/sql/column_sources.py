"""From which columns of its tables each column of a query's result comes, by DuckDB's parse tree alone.

What the tree does not tell is absent rather than wrong: a name that may be of either of two tables or of an alias, a
subquery within an expression, what a function gives as a table. The query is one that DuckDB could bind.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pip_dagster.sql.expression import Refused, owner_of
from pip_dagster.sql.row_sql import core_functions
from pip_dagster.sql.tables import folded, statement_tree

Column = tuple[str, str]  # the table as `schema.table`, folded, and the column as it is written
Uses = dict[Column, set[str]]  # how it is used, in OpenLineage's words

DIRECT = ("IDENTITY", "TRANSFORMATION", "AGGREGATION")  # each counts more than the one before; others are indirect
_NAME = re.compile(r"[A-Za-z_]\w*")
# Below these keys of an expression, columns decide which values are used.
_INDIRECT = {"when_expr": "CONDITIONAL", "filter": "FILTER", "filter_expr": "FILTER"} | dict.fromkeys(
    ("partitions", "orders", "start_expr", "end_expr"), "WINDOW"
)


class _UnknownError(Exception):
    """The tree does not tell."""


@dataclass
class KnownColumns:
    """A table, or what a query gives.

    Attributes:
        columns: Name, folded → what it comes from; None: it is there, and not known.
        rest: A table of which all other columns but `hidden` are here as they are.
        closed: Whether there are no columns but these.
        effects: The columns that decide which rows there are; None: not known.
        odd: Whether it has columns named by a text, of which the tree does not show the names.
    """

    columns: dict[str, Uses | None] = field(default_factory=dict)
    rest: str | None = None
    hidden: frozenset[str] = frozenset()
    closed: bool = True
    effects: Uses | None = field(default_factory=dict)
    odd: bool = False

    def of(self, name: str) -> Uses | None:
        """What a column comes from; None where that is not known."""
        key = folded(name)
        if key in self.columns or self.rest is None or key in self.hidden or (self.odd and not _NAME.fullmatch(name)):
            return self.columns.get(key)
        return {(self.rest, name): {"IDENTITY"}}


def column_sources(sql: str) -> KnownColumns | None:
    """What each column of a SELECT's result comes from; None where the text is not one, or nothing is known."""
    try:
        return _query(statement_tree(sql)["node"], {})
    except (Refused, _UnknownError, KeyError, TypeError, ValueError, RecursionError):  # a tree of another form, too
        return None


def _query(node: Mapping[str, Any], tables: Mapping[str, KnownColumns], *, lateral: bool = False) -> KnownColumns:
    known = dict(tables)
    for entry in (node.get("cte_map") or {}).get("map", ()):
        value = entry["value"]
        query = value.get("query_node") or value["query"]["node"]  # DuckDB 2, 1
        known[folded(entry["key"])] = _renamed(_query(query, known), value.get("aliases"))
    if node["type"] == "SELECT_NODE":
        return _Select(known, lateral).read(node)
    if node["type"] == "SET_OPERATION_NODE" and node["setop_type"] == "UNION":
        parts = [_query(each, known, lateral=lateral) for each in node.get("children") or (node["left"], node["right"])]
        return _union(parts, sorted_by=bool(node.get("modifiers")))
    return KnownColumns(closed=False, effects=None)


def _union(parts: Sequence[KnownColumns], *, sorted_by: bool) -> KnownColumns:
    if any(part.rest or not part.closed for part in parts):
        return KnownColumns(closed=False, effects=None)
    columns = {
        name: None if None in of else _merged(each for each in of if each is not None)
        for name, *of in zip(parts[0].columns, *(part.columns.values() for part in parts), strict=True)
    }
    effects = [part.effects for part in parts]
    return KnownColumns(columns, effects=None if sorted_by or None in effects else _merged(filter(None, effects)))


def _renamed(relation: KnownColumns, aliases: Sequence[str] | None) -> KnownColumns:
    if not aliases:
        return relation
    if relation.rest or not relation.closed:
        return KnownColumns(closed=False, effects=relation.effects)
    names = [*map(folded, aliases), *[*relation.columns][len(aliases) :]]
    return replace(relation, columns=dict(zip(names, relation.columns.values(), strict=True)))


def _merged(all_uses: Iterator[Uses] | filter[Uses]) -> Uses:
    found: Uses = {}
    for uses in all_uses:
        for column, how in uses.items():
            found.setdefault(column, set()).update(how)
    return found


class _Select:
    """One SELECT: its relations by alias, and what its columns come from."""

    def __init__(self, tables: Mapping[str, KnownColumns], lateral: bool) -> None:
        self.tables, self.lateral = tables, lateral
        self.relations: dict[str, KnownColumns] = {}
        self.using: dict[str, Uses | None] = {}
        self.aliases: set[str] = set()
        self.effects: Uses | None = {}
        self.loose = False  # a name without a table may be of any

    def read(self, node: Mapping[str, Any]) -> KnownColumns:
        items = node["select_list"]
        # An alias may stand for a column, but within its own expression.
        for item in items:
            if (own := folded(item.get("alias") or "")) and own not in {folded(name) for name in _bare(item)}:
                self.aliases.add(own)
        self._from(node["from_table"], lateral=self.lateral)
        found = KnownColumns()
        for item in items:
            self._item(item, found)
        for clause in ("where_clause", "having", "qualify"):
            self._affect(node.get(clause), "FILTER")
        groups = node.get("group_expressions") or ()
        if node.get("aggregate_handling") == "FORCE_AGGREGATES":  # GROUP BY ALL
            groups = [each for each in items if not _aggregates(each)]
        for each in groups:
            self._affect(self._meant(each, items), "GROUP_BY")
        for modifier in node.get("modifiers") or ():
            if modifier["type"] == "DISTINCT_MODIFIER" and not modifier.get("distinct_on_targets"):
                self._add(None)
            self._affect(modifier.get("distinct_on_targets"), "GROUP_BY")
            self._affect(modifier.get("orders"), "SORT")
        found.effects = self.effects
        return found

    def _meant(self, group: Mapping[str, Any], items: Sequence[Any]) -> Any:
        """What a group is: `GROUP BY 1` is the first item."""
        place = group["value"].get("value") if group.get("class") == "CONSTANT" else None
        return items[place - 1] if isinstance(place, int) else group

    def _item(self, item: Mapping[str, Any], found: KnownColumns) -> None:
        if item["class"] == "STAR":
            self._star(item, found)
            return
        name = item.get("alias") or (item["column_names"][-1] if item["class"] == "COLUMN_REF" else "")
        if not name:  # named by its text
            found.odd = True
            found.closed &= str(item.get("function_name")).lower() != "unnest"  # of a struct: its fields
        _first(found.columns, folded(name), self._known(item))

    def _star(self, star: Mapping[str, Any], found: KnownColumns) -> None:
        of = folded(star.get("relation_name") or "")
        if star.get("columns") or star.get("expr") or (self.loose and not of):  # COLUMNS(…)
            raise _UnknownError
        excluded = {folded(each) for each in star.get("exclude_list") or () if isinstance(each, str)}
        excluded |= {folded(each["column"]) for each in star.get("qualified_exclude_list") or ()}
        renamed = {folded(each["key"]["column"]): folded(each["value"]) for each in star.get("rename_list") or ()}
        open_ones = []
        for relation in [self.relations[of]] if of else self.relations.values():
            for name, uses in relation.columns.items():
                if name not in excluded and (of or name not in self.using):
                    _first(found.columns, renamed.get(name, name), uses)
            open_ones += [] if relation.closed and relation.rest is None else [relation]
        found.columns |= {name: uses for name, uses in self.using.items() if not of and name not in excluded}
        if len(open_ones) == 1 and open_ones[0].rest and found.rest is None:
            found.rest, found.hidden = open_ones[0].rest, open_ones[0].hidden | excluded | renamed.keys()
            found.columns |= {new: {(found.rest, old): {"IDENTITY"}} for old, new in renamed.items()}
        elif open_ones:
            found.closed, found.rest = False, None
        for each in star.get("replace_list") or ():
            found.columns[folded(each["key"])] = self._known(each["value"])

    def _from(self, table: Mapping[str, Any], *, lateral: bool) -> None:
        kind = table["type"]
        if kind == "EMPTY":
            return
        if kind == "JOIN":
            self._join(table, lateral=lateral)
            return
        name, found = "", KnownColumns(closed=False, effects=None)
        if kind == "BASE_TABLE":
            path = (table.get("qualified_name") or {}).get("path") or [table.get("schema_name"), table["table_name"]]
            *of, name = [folded(part) for part in path if part]
            own = KnownColumns(rest=f"{of[-1] if of else 'main'}.{name}", closed=False)
            found = own if of else self.tables.get(name, own)
        elif kind == "SUBQUERY":
            found = _query(table["subquery"]["node"], self.tables, lateral=lateral)
        alias = folded(table.get("alias") or name)
        known = _renamed(found, table.get("column_name_alias"))
        self.relations[alias] = KnownColumns(closed=False) if alias in self.relations else known
        self._add(found.effects)

    def _join(self, table: Mapping[str, Any], *, lateral: bool) -> None:
        self._from(table["left"], lateral=lateral)
        left = [*self.relations]
        self._from(table["right"], lateral=True)  # a subquery there may use the columns of the left
        self.loose |= table["ref_type"] not in ("REGULAR", "CROSS", "ASOF")
        self._affect(table.get("condition"), "JOIN")
        kind, right = table["join_type"], [name for name in self.relations if name not in left]
        for name in table.get("using_columns") or ():
            sides = [self._of_side(name, side) for side in (left, right)]
            for uses in sides:
                self._add(None if uses is None else {column: {"JOIN"} for column in uses})
            self.using[folded(name)] = {"RIGHT": sides[1], "OUTER": None}.get(kind, sides[0])
        if kind in ("SEMI", "ANTI"):
            for name in right:
                del self.relations[name]

    def _of_side(self, name: str, side: Sequence[str]) -> Uses | None:
        found = [uses for each in side if (uses := self.relations[each].of(name))]
        return found[0] if len(found) == 1 and len(side) == 1 else None

    def _affect(self, expression: Any, how: str) -> None:
        if not expression:
            return
        uses = self._known(expression)
        if how in ("GROUP_BY", "SORT") and any(folded(name) in self.aliases for name in _bare(expression)):
            uses = None  # there an alias may come before a column
        self._add(None if uses is None else {column: {how} for column in uses})

    def _add(self, effects: Uses | None) -> None:
        known = None if effects is None or self.effects is None else [self.effects, effects]
        self.effects = None if known is None else _merged(iter(known))

    def _known(self, expression: Any) -> Uses | None:
        try:
            return self._uses(expression)
        except _UnknownError:
            return None

    def _uses(self, expression: Any) -> Uses:
        """The columns that an expression is computed from."""
        pure = isinstance(expression, dict) and expression["class"] == "COLUMN_REF"
        whole = "IDENTITY" if pure else "AGGREGATION" if _aggregates(expression) else "TRANSFORMATION"
        found: Uses = {}
        for node, how in _walk(expression, whole):
            kind = node.get("class")
            if kind in ("SUBQUERY", "LAMBDA", "LAMBDA_REF", "STAR", "POSITIONAL_REFERENCE"):
                raise _UnknownError
            names = node["column_names"] if kind == "COLUMN_REF" else [owner] if (owner := owner_of(node)) else []
            for column, inner in self._column(names).items() if names else ():
                found.setdefault(column, set()).update(_composed(how, each) for each in inner)
        return found

    def _column(self, names: Sequence[str]) -> Uses:
        first = folded(names[0])
        if len(names) > 1 and first in self.relations:
            uses, fields = self.relations[first].of(names[1]), names[2:]
        elif len(names) > 2 and (of := self.relations.get(folded(names[1]))) and of.rest:
            uses, fields = of.of(names[2]) if of.rest == f"{first}.{folded(names[1])}" else None, names[3:]
        else:
            uses, fields = self._bare_column(names[0]), names[1:]
        if uses is None:
            raise _UnknownError
        return (
            {column: {_composed("TRANSFORMATION", each) for each in how} for column, how in uses.items()}
            if fields
            else uses
        )

    def _bare_column(self, name: str) -> Uses | None:
        key = folded(name)
        if key in self.using:
            return self.using[key]
        there = [each for each in self.relations.values() if key in each.columns]
        if there or self.loose:
            return there[0].columns[key] if len(there) == 1 and not self.loose else None
        is_open = [each for each in self.relations.values() if each.rest or not each.closed]
        is_sure = len(is_open) == 1 and not self.lateral and key not in self.aliases
        return is_open[0].of(name) if is_sure else None


def _first(columns: dict[str, Uses | None], name: str, uses: Uses | None) -> None:
    """Add a column. Of two that have one name, DuckDB renames the second; one without a name has a place of its own."""
    columns[name if name and name not in columns else f"\0{len(columns)}"] = uses


def _walk(expression: Any, how: str) -> Iterator[tuple[dict[str, Any], str]]:
    """The nodes of an expression, each with how its columns are used; without recursion."""
    waiting = [(expression, how)]
    while waiting:
        node, use = waiting.pop()
        if isinstance(node, dict):
            yield node, use
            if node.get("class") not in ("CONSTANT", "SUBQUERY", "LAMBDA"):
                waiting += [(each, _INDIRECT.get(key, use)) for key, each in node.items()]
        elif isinstance(node, list):
            waiting += [(each, use) for each in node]


def _bare(expression: Any) -> Iterator[str]:
    """The names without a table that an expression reads."""
    for node, _ in _walk(expression, ""):
        if node.get("class") == "COLUMN_REF" and len(node["column_names"]) == 1:
            yield node["column_names"][0]


def _aggregates(expression: Any) -> bool:
    functions = (folded(node["function_name"]) for node, _ in _walk(expression, "") if node.get("class") == "FUNCTION")
    return any(each[0] == "aggregate" for name in functions for each in core_functions().get(name, ()))


def _composed(outer: str, inner: str) -> str:
    """How a column is used that is used so within what is used so."""
    if outer in DIRECT and inner in DIRECT:
        return max(outer, inner, key=DIRECT.index)
    return inner if inner not in DIRECT else outer
