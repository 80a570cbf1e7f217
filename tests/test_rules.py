"""Rules for the code of the package that the linters of `make check` cannot express."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "pip_dagster"
MAX_LINES, MAX_PARAMETERS = 80, 7
DAGSTER_ROOMS = ("orchestration", "components", "cli")
DAGSTER_PRIVATE = "orchestration/dagster_private.py"
STAGE = re.compile(r"\bpip_stage\.(\w+)")
# Words of this project's past that a reader would have to learn; docs/glossary.md and STYLE.md have the ones to use.
PRIVATE_WORDS = re.compile(
    r"\b(anew|(keep|keeps|kept|keeping)( \w+)? apart|leaves? one away|made again|asked for|(is|are|be) told"
    r"|lets? go of|of then|mend(s|ed|ing)?)\b",
    re.IGNORECASE,
)

Files = Mapping[str, str]  # path in the package → source
Offences = Iterator[tuple[str, str]]  # what offends, how
Function = ast.FunctionDef | ast.AsyncFunctionDef


@cache
def parsed(source: str) -> ast.Module:
    return ast.parse(source)


def functions(files: Files) -> Iterator[tuple[str, Function]]:
    for path, source in files.items():
        for node in ast.walk(parsed(source)):
            if isinstance(node, Function):
                yield f"{path}:{node.name}", node


def long_functions(files: Files) -> Offences:
    for name, node in functions(files):
        if (lines := (node.end_lineno or 0) - node.lineno + 1) > MAX_LINES:
            yield name, f"{lines} lines, at most {MAX_LINES} are allowed"


def many_parameters(files: Files) -> Offences:
    for name, node in functions(files):
        of = node.args
        every = [*of.posonlyargs, *of.args, *of.kwonlyargs, *filter(None, (of.vararg, of.kwarg))]
        parameters = [each.arg for each in every if each.arg not in ("self", "cls")]
        decorators = {ast.unparse(each).split("(")[0].split(".")[-1] for each in node.decorator_list}
        excepted = node.name == "__init__" or decorators & {"command", "group"}
        if len(parameters) > MAX_PARAMETERS and not excepted:
            yield name, f"{len(parameters)} parameters, at most {MAX_PARAMETERS} are allowed"


def classes_of_one_name(files: Files) -> Offences:
    defined: dict[str, list[str]] = defaultdict(list)
    for path, source in files.items():
        for node in parsed(source).body:
            if isinstance(node, ast.ClassDef):
                defined[node.name].append(path)
    for name, paths in defined.items():
        for path in paths if len(paths) > 1 else ():
            yield f"{path}:{name}", f"the class is defined in {' and '.join(paths)}"


def imported_modules(source: str) -> Iterator[str]:
    for node in ast.walk(parsed(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def dagster_in_the_core(files: Files) -> Offences:
    for path, source in files.items():
        for module in imported_modules(source):
            if re.match(r"dagster\b|dagster_", module) and path.split("/")[0] not in DAGSTER_ROOMS:
                yield path, f"imports {module}; only {', '.join(DAGSTER_ROOMS)} may"


def private_dagster(files: Files) -> Offences:
    for path, source in files.items():
        for module in imported_modules(source):
            if re.match(r"dagster\..*\b_", module) and path != DAGSTER_PRIVATE:
                yield path, f"imports {module}; only {DAGSTER_PRIVATE} may"


def shared_stage_tables(files: Files) -> Offences:
    """A temporary table is named by one room only: in a literal, or by importing a constant that holds its name."""
    rooms: dict[str, set[str]] = defaultdict(set)
    literals: dict[str, set[str]] = {}
    constants: dict[str, set[str]] = defaultdict(set)  # module.CONSTANT → tables
    for path, source in files.items():
        tree = parsed(source)
        literals[path] = {table for text, _ in strings(tree) for table in STAGE.findall(text)}
        for table in literals[path]:
            rooms[table].add(path.split("/")[0])
        for node in tree.body:
            if isinstance(node, ast.Assign) and (held := STAGE.findall(ast.unparse(node.value))):
                names = [each.id for target in node.targets for each in ast.walk(target) if isinstance(each, ast.Name)]
                for name in names:
                    constants[f"pip_dagster.{path.removesuffix('.py').replace('/', '.')}.{name}"].update(held)
    for path, source in files.items():
        room = path.split("/")[0]
        for table in sorted(literals[path]):
            if len(rooms[table]) > 1:
                yield path, f"names pip_stage.{table}, as {' and '.join(sorted(rooms[table] - {room}))} does"
        for imported in imported_modules(source):
            if imported in constants and imported.split(".")[1] != room:
                yield path, f"imports {imported}, a temporary table of another room"


def strings(tree: ast.AST) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value, node.lineno


def comments(source: str) -> Iterator[tuple[str, int]]:
    """Each comment, with consecutive lines of comments as one text."""
    text, first, last = "", 0, -1
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            if token.start[0] != last + 1:
                yield text, first
                text, first = "", token.start[0]
            text, last = f"{text} {token.string.lstrip('# ')}", token.start[0]
    yield text, first


def private_words(files: Files) -> Offences:
    for path, source in files.items():
        for text, line in (*strings(parsed(source)), *comments(source)):
            for found in PRIVATE_WORDS.finditer(re.sub(r"\s+", " ", text)):
                yield path, f"{found[0]!r}, in the text that begins in line {line}"


RULES: tuple[Callable[[Files], Offences], ...] = (
    *(long_functions, many_parameters, classes_of_one_name, dagster_in_the_core, private_dagster),
    *(shared_stage_tables, private_words),
)


@pytest.fixture(scope="module")
def files() -> Files:
    return {str(file.relative_to(PACKAGE)): file.read_text(encoding="utf-8") for file in sorted(PACKAGE.rglob("*.py"))}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_package_keeps_the_rule(files, rule):
    found = [f"{entry}: {how}" for entry, how in rule(files)]
    assert not found, "\n" + "\n".join(found)


LONG = "def f():\n" + "    pass\n" * MAX_LINES
TABLES = {"flow/a.py": 'STAGED = "memory.pip_stage.rows"\n'}


@pytest.mark.parametrize(
    ("rule", "planted", "offends"),
    [
        (long_functions, {"flow/a.py": LONG}, ["flow/a.py:f"]),
        (long_functions, {"flow/a.py": LONG.removesuffix("    pass\n")}, []),
        (many_parameters, {"flow/a.py": "def f(a, b, c, d, *, e, g, h, **i): ..."}, ["flow/a.py:f"]),
        (many_parameters, {"flow/a.py": "class A:\n  def f(self, a, b, c, d, e, g, h): ..."}, []),
        (many_parameters, {"flow/a.py": "class A:\n  def __init__(self, a, b, c, d, e, g, h, i): ..."}, []),
        (many_parameters, {"cli/a.py": "@click.command()\ndef f(a, b, c, d, e, g, h, i): ..."}, []),
        (classes_of_one_name, {"a.py": "class A: ...", "b.py": "class A: ..."}, ["a.py:A", "b.py:A"]),
        (dagster_in_the_core, {"flow/a.py": "def f():\n  from dagster import asset"}, ["flow/a.py"]),
        (dagster_in_the_core, {"flow/a.py": "import dagster_celery"}, ["flow/a.py"]),
        (dagster_in_the_core, {"cli/a.py": "import dagster as dg", "components/b.py": "import dagster"}, []),
        (private_dagster, {"cli/a.py": "from dagster._core.run import x"}, ["cli/a.py"]),
        (private_dagster, {"cli/a.py": "from dagster import _core"}, ["cli/a.py"]),
        (private_dagster, {DAGSTER_PRIVATE: "from dagster._core.run import x"}, []),
        (shared_stage_tables, TABLES | {"flow/b.py": "from pip_dagster.flow.a import STAGED"}, []),
        (shared_stage_tables, TABLES | {"replay/b.py": "from pip_dagster.flow.a import STAGED"}, ["replay/b.py"]),
        (shared_stage_tables, TABLES | {"replay/b.py": "x = f'FROM pip_stage.rows {y}'"}, ["flow/a.py", "replay/b.py"]),
        (private_words, {"a.py": '"""Rows\n    are told."""'}, ["a.py"]),
        (private_words, {"a.py": "x = 1  # what was asked\n  # for by a person"}, ["a.py"]),
        (private_words, {"a.py": "raise E(f'{x} is built ' f'anew, {y}')"}, ["a.py"]),
        (private_words, {"a.py": "kept_apart = {'amended': 'a renewal, a recommendation'}  # a column apart"}, []),
    ],
)
def test_a_rule_finds_what_breaks_it_and_nothing_else(rule, planted, offends):
    assert sorted({entry for entry, _ in rule(planted)}) == offends
