"""How tables are printed: whole where there is no terminal, without lines where they would not fit it."""

import re
import sys

from pip_dagster.cli.output import show_table

LONG = "a1" * 200


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
