"""Reading `expectations.yaml`: every error names the file, the line and the key.

Great Expectations silently drops an expectation whose type or severity it does not know; here loading refuses it.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, cast

import yaml

from pip_dagster.quality.expectation_types import (
    NOT_ON_FRAMES,
    ORDER_DEPENDENT,
    ExpectationType,
    Kwarg,
    expectation_types,
)
from pip_dagster.quality.parameters import check_expression, is_parameter
from pip_dagster.quality.suite import SEVERITIES, Expectation, Severity, SuiteError, Suites, suggest
from pip_dagster.quality.yaml_words import misread_value
from pip_dagster.text_file import read_text

SECTIONS = ("sources", "features", "predictions")
KEYS = ("type", "kwargs", "severity", "row_condition", "name", "description", "meta")
OPERATORS = ("==", "!=", "<", "<=", ">", ">=", "IN", "NOT_IN")


@dataclass(frozen=True)
class _File:
    path: Path
    loader: yaml.SafeLoader

    def fail(self, node: yaml.Node, message: str) -> NoReturn:
        raise SuiteError(f"{self.path}:{node.start_mark.line + 1}: {message}")

    def value(self, node: yaml.Node) -> Any:
        return self.loader.construct_object(node, deep=True)

    def mapping(self, node: yaml.Node, what: str, known: Collection[str] | None = None) -> dict[str, yaml.Node]:
        """A mapping's nodes by key; fails on other nodes, and on keys that are not text, duplicate or unknown."""
        if not isinstance(node, yaml.MappingNode):
            self.fail(node, f"{what} must be a mapping of keys to values")
        found: dict[str, yaml.Node] = {}
        for key_node, value_node in node.value:
            key = self.value(key_node)
            if not isinstance(key, str):
                self.fail(key_node, f"key {key!r} of {what} must be text")
            if key in found:
                self.fail(key_node, f"key {key!r} of {what} is given twice")
            if known is not None and key not in known:
                self.fail(key_node, f"unknown key {key!r} of {what}{suggest(key, known)}")
            found[key] = value_node
        return found

    def sequence(self, node: yaml.Node, what: str) -> list[yaml.Node]:
        if isinstance(node, yaml.ScalarNode) and self.value(node) is None:
            return []
        if not isinstance(node, yaml.SequenceNode):
            self.fail(node, f"{what} must be a list")
        return list(node.value)


def load_suites(path: Path, columns: Mapping[str, Collection[str]] | None = None) -> Suites:
    """Read and check `expectations.yaml`.

    Args:
        path: the file.
        columns: the known columns by section (`features`, `predictions`, `sources.<name>`). A section that is not in it
            is checked when it runs, by `check_columns`.

    Raises:
        SuiteError: the file cannot be read, or holds something that Great Expectations would drop or misread.
    """
    columns = columns or {}
    text = read_text(path, SuiteError)
    try:
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
        file = _File(path, loader)
        if root is None:
            return Suites()
        sections = file.mapping(root, "the file", SECTIONS)
        sources: dict[str, tuple[Expectation, ...]] = {}
        if "sources" in sections:
            for name, node in file.mapping(sections["sources"], "section 'sources'").items():
                sources[name] = _section(file, f"sources.{name}", node, columns)
        rest = {s: _section(file, s, sections[s], columns) for s in SECTIONS[1:] if s in sections}
        return Suites(sources=sources, **rest)
    except yaml.MarkedYAMLError as e:
        line = e.problem_mark.line + 1 if e.problem_mark else 1
        raise SuiteError(f"{path}:{line}: not valid YAML: {e.problem or e}") from e
    except SuiteError:
        raise
    # A control character, a number of 5,000 digits, deep nesting.
    except (yaml.YAMLError, ValueError, RecursionError) as e:
        raise SuiteError(f"{path}: not valid YAML: {e}") from e


def _section(
    file: _File, section: str, node: yaml.Node, columns: Mapping[str, Collection[str]]
) -> tuple[Expectation, ...]:
    items = file.sequence(node, f"section {section!r}")
    found = [_expectation(file, section, item, columns.get(section)) for item in items]
    duplicates = [id_ for id_, n in Counter(e.id for e in found).items() if n > 1]
    for item, e in zip(reversed(items), reversed(found), strict=True):
        if e.id in duplicates:
            file.fail(item, f"two expectations of {section!r} are called {e.id!r}; give each its own `name:`")
    return tuple(found)


def _expectation(file: _File, section: str, node: yaml.Node, columns: Collection[str] | None) -> Expectation:
    keys = file.mapping(node, f"an expectation of {section!r}", KEYS)
    if "type" not in keys:
        file.fail(node, f"an expectation of {section!r} has no `type`")
    name = file.value(keys["type"])
    if not isinstance(name, str):
        file.fail(keys["type"], f"`type` must be text, not {name!r}")
    if remedy := (NOT_ON_FRAMES | ORDER_DEPENDENT).get(name):
        file.fail(keys["type"], f"type {name!r} cannot be evaluated on rows of a table; {remedy}")
    if not isinstance(name, str) or name not in expectation_types():
        file.fail(keys["type"], f"unknown expectation type {name!r}{suggest(name, expectation_types())}")
    kind = expectation_types()[name]
    severity = file.value(keys["severity"]) if "severity" in keys else "critical"
    if severity not in SEVERITIES:
        file.fail(keys["severity"], f"unknown severity {severity!r}; it must be one of {', '.join(SEVERITIES)}")
    kwarg_nodes = file.mapping(keys["kwargs"], "`kwargs`") if "kwargs" in keys else {}
    condition_node = kwarg_nodes.pop("row_condition", None)  # where GE itself puts it
    if condition_node is not None and "row_condition" in keys:
        file.fail(condition_node, "`row_condition` is given twice, in `kwargs` and beside it")
    condition_node = condition_node or keys.get("row_condition")
    condition = None
    if condition_node is not None:
        # GE accepts a row condition for the pair-in-set type but does not apply it; schema types have none.
        if kind.about_columns or name == "expect_column_pair_values_to_be_in_set":
            file.fail(condition_node, f"{name} does not take a row condition")
        condition = _condition(file, condition_node, columns)
    kwargs = _kwargs(file, kind, keys.get("kwargs", node), kwarg_nodes, columns)
    meta = file.mapping(keys["meta"], "`meta`") if "meta" in keys else {}
    own = keys.get("name") or meta.get("name")
    id_ = file.value(own) if own is not None else derived_id(kind, kwargs)
    if not isinstance(id_, str) or not id_.strip():
        file.fail(own or node, f"`name` must be text, not {id_!r}")
    description = str(file.value(keys["description"])) if "description" in keys else ""
    return Expectation(
        id=id_,
        section=section,
        type=name,
        kwargs=kwargs,
        severity=cast(Severity, severity),
        row_condition=condition,
        description=description,
        origin=f"{file.path}:{node.start_mark.line + 1}",
    )


def derived_id(kind: ExpectationType, kwargs: Mapping[str, Any]) -> str:
    """A readable name from type and columns, such as `wind_speed.values_to_be_between`."""
    named: list[str] = []
    for kwarg in kind.columns:
        named.extend([kwargs[kwarg]] if isinstance(kwargs[kwarg], str) else kwargs[kwarg])
    short = kind.name.removeprefix("expect_").removeprefix("column_" if kind.kind in ("map", "aggregate") else "")
    return f"{','.join(named)}.{short}" if named else short


def _kwargs(
    file: _File,
    kind: ExpectationType,
    node: yaml.Node,
    nodes: Mapping[str, yaml.Node],
    columns: Collection[str] | None,
) -> dict[str, Any]:
    kwargs = {}
    for key, value_node in nodes.items():
        if key not in kind.kwargs:
            file.fail(value_node, f"unknown kwarg {key!r} of {kind.name}{suggest(key, kind.kwargs)}")
        value = file.value(value_node)
        if value is None:
            continue
        if misread := misread_value(value_node):
            file.fail(value_node, f"{key!r}: {misread}")
        if key == "mostly" and (isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1):
            file.fail(value_node, f"`mostly` must be a number between 0 and 1, not {value!r}")
        wanted = kind.kwargs[key]
        if is_parameter(value) and wanted.types & {"number", "date"}:
            if wrong := check_expression(value):
                file.fail(value_node, wrong)
            kwargs[key] = value
            continue
        if wanted.choices and value not in wanted.choices:
            file.fail(value_node, f"{key!r} must be one of {', '.join(wanted.choices)}, not {value!r}")
        if not fits(value, wanted):
            file.fail(value_node, f"{key!r} of {kind.name} must be {' or '.join(sorted(wanted.types))}, not {value!r}")
        if key in kind.columns:
            for column in [value] if isinstance(value, str) else value:
                _known_column(file, value_node, column, columns)
        kwargs[key] = value
    for key, wanted in kind.kwargs.items():
        if wanted.required and key not in kwargs:
            file.fail(node, f"{kind.name} needs the kwarg {key!r}")
    return kwargs


def _known_column(file: _File, node: yaml.Node, column: Any, columns: Collection[str] | None) -> None:
    if not isinstance(column, str):
        file.fail(node, f"a column's name must be text, not {column!r}")
    if columns is not None and column not in columns:
        file.fail(node, f"unknown column {column!r}{suggest(column, columns)}")


def fits(value: Any, kwarg: Kwarg) -> bool:
    """Whether a YAML value has a type that a kwarg takes; for `integer` a whole number, since GE would truncate it."""
    if isinstance(value, bool):
        return bool(kwarg.types & {"boolean", "any"})
    tests = {
        "any": lambda: True,
        "number": lambda: isinstance(value, int | float),
        "integer": lambda: isinstance(value, int) or (isinstance(value, float) and value.is_integer()),
        "string": lambda: isinstance(value, str),
        "array": lambda: isinstance(value, list),
        "object": lambda: isinstance(value, dict),
        "date": lambda: isinstance(value, dt.date) or _is_iso(value),
        "boolean": lambda: False,
    }
    return any(tests[t]() for t in kwarg.types)


def _is_iso(value: Any) -> bool:
    try:
        dt.datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return False
    return True


def _condition(file: _File, node: yaml.Node, columns: Collection[str] | None) -> dict[str, Any]:
    """A row condition as GE's dicts. Strings are refused: GE 2 drops them, and their columns cannot be checked."""
    if not isinstance(node, yaml.MappingNode):
        file.fail(
            node,
            "`row_condition` must be a mapping, for example "
            "{type: comparison, column: {name: origin}, operator: '==', parameter: JFK}",
        )
    kind = file.value(file.mapping(node, "`row_condition`").get("type", node))
    if kind in ("and", "or"):
        keys = file.mapping(node, "`row_condition`", ("type", "conditions"))
        parts = [_condition(file, n, columns) for n in file.sequence(keys.get("conditions", node), "`conditions`")]
        if not parts:
            file.fail(node, f"a row condition of type {kind!r} needs `conditions`")
        return {"type": kind, "conditions": parts}
    if kind not in ("comparison", "nullity"):
        file.fail(node, f"a row condition's `type` must be comparison, nullity, and, or; not {kind!r}")
    wanted = ("type", "column", "operator", "parameter") if kind == "comparison" else ("type", "column", "is_null")
    keys = file.mapping(node, "`row_condition`", wanted)
    for key in wanted:
        if key not in keys:
            file.fail(node, f"a row condition of type {kind!r} needs {key!r}")
    column = file.mapping(keys["column"], "`column`", ("name",)).get("name", keys["column"])
    _known_column(file, column, file.value(column), columns)
    condition = {key: file.value(keys[key]) for key in wanted}
    if kind == "comparison" and (misread := misread_value(keys["parameter"])):
        file.fail(keys["parameter"], f"'parameter': {misread}")
    if kind == "comparison" and condition["operator"] not in OPERATORS:
        file.fail(keys["operator"], f"unknown operator {condition['operator']!r}; it must be one of {OPERATORS}")
    return condition
