"""How tables are printed: whole where there is no terminal, without lines where they would not fit it."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pip_dagster.cli import main
from pip_dagster.cli.output import echo, progress, show_json, show_table

LONG = "a1" * 200
SQL_WITH_ESCAPES = """
SELECT chr(27) || '[31m' || order_id AS order_id, day, gift, shop, quantity, amount
FROM raw.orders
WHERE day >= $start_date AND day < $end_date
"""


def test_without_a_terminal_nothing_is_folded(capsys):
    show_table("[title]", ["what", "number"], [[LONG, 1], ["[b]:smile:", None]])
    printed = capsys.readouterr().out
    assert LONG in printed and "[title]" in printed and "[b]:smile:" in printed


def test_on_a_terminal_only_a_table_that_fits_has_lines(capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    show_table(None, ["key", "value"], [["score", 0.5]])
    assert "│" in capsys.readouterr().out
    show_table(None, ["key", "value"], [["digest", LONG]])
    printed = re.sub(r"\x1b\[\d*m", "", capsys.readouterr().out)
    assert "│" not in printed and max(map(len, printed.splitlines())) <= 80


def test_only_columns_of_numbers_are_aligned_to_the_right(capsys):
    show_table(None, ["mixed", "number"], [["a long text", 10], [7, 7], [None, None]], boxed=False)
    assert [line.rstrip() for line in capsys.readouterr().out.splitlines()[1:3]] == [
        "a long text      10",
        "7                 7",
    ]


HOSTILE = "key\x1b[31m\r\x07\x9b\u202eevil\x7f\u2028\udc80 é 東京\tend"
ESCAPED = r"key\x1b[31m\r\x07\x9b\u202eevil\x7f\u2028\udc80 é 東京"


def test_a_terminal_obeys_nothing_that_data_holds(capsys):
    show_table(HOSTILE, [HOSTILE], [[HOSTILE]])
    echo(HOSTILE)
    progress(HOSTILE)
    printed = capsys.readouterr()
    assert printed.out.count(ESCAPED) == 4 and printed.err.count(ESCAPED) == 1
    assert not set(printed.out + printed.err) & set("\x1b\r\x07\x9b\u202e\x7f\u2028\udc80")


def test_json_stays_exact(capsys):
    text = HOSTILE.replace("\udc80", "")
    show_json({"key": text})
    assert json.loads(capsys.readouterr().out) == {"key": text}


def test_a_key_with_an_escape_is_shown_as_one(tiny):
    tiny.declare(SQL_WITH_ESCAPES)
    tiny.run("2024-03-01")
    said = tiny.shell("query", "SELECT order_id FROM orders.predictions LIMIT 1")
    assert r"\x1b[31m" in said and "\x1b" not in said
    [row] = json.loads(tiny.shell("query", "--json", "SELECT order_id FROM orders.predictions LIMIT 1"))
    assert row["order_id"].startswith("\x1b[31m")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_json_is_whole_where_output_cannot_hold_every_character(encoding):
    code = "import sys; from pip_dagster.cli.output import show_json; show_json({'shop': 'Zürich 東京 😀'})"
    environment = os.environ | {"PYTHONIOENCODING": encoding}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True)
    assert json.loads(done.stdout) == {"shop": "Zürich 東京 😀"}


def test_every_command_prints_through_one_place():
    folder = Path(main.__file__).parent
    others = [path for path in folder.glob("*.py") if path.name != "output.py"]
    assert not [path.name for path in others if "click.echo(" in path.read_text() or " print(" in path.read_text()]
