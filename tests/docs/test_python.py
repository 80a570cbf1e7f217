"""The Python blocks of docs/python.md run as one session, each value that a line shows included."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PAGE = Path(__file__).parents[2] / "docs" / "python.md"


@pytest.fixture
def session(gated, monkeypatch):
    """A pipeline `orders` with labels and live days, in the working directory."""
    monkeypatch.chdir(gated.root)


@pytest.mark.slice
def test_the_session_runs_and_what_it_shows_can_be_shown(session, capsys):
    names: dict[str, object] = {}
    shown = []
    blocks = BLOCK.findall(PAGE.read_text(encoding="utf-8"))
    for block in blocks:
        for statement in ast.parse(block).body:
            if isinstance(statement, ast.Expr):
                value = eval(compile(ast.Expression(statement.value), "python.md", "eval"), names)
                shown.append(repr(value))
            else:
                exec(compile(ast.Module([statement], []), "python.md", "exec"), names)
    assert len(blocks) == 8 and len(shown) >= 15
    text = "\n".join(shown)
    assert "orders: training set of 2024-03-01 to 2024-03-04" in text
    assert "orders: returns v4 against champion (v3)" in text and "identical" in text and "True" in text
    assert capsys.readouterr().out == "('orders',)\n"
