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
from pip_dagster.cli.table import Heading, lay_out

LONG = "a1" * 200
WORDS = "a reason that is as long as people write them, with every word whole"
SQL_WITH_ESCAPES = """
SELECT chr(27) || '[31m' || order_id AS order_id, day, gift, shop, quantity, amount
FROM raw.orders
WHERE day >= $start_date AND day < $end_date
"""


@pytest.fixture
def narrow(capsys, monkeypatch):
    """What is printed on a terminal of 80 columns."""
    monkeypatch.setattr("pip_dagster.cli.output.terminal_width", lambda stream=None: 80)

    def printed():
        text = re.sub(r"\x1b\[\d*m", "", capsys.readouterr().out)
        assert max(map(len, text.splitlines())) <= 80
        return text

    return printed


def test_without_a_terminal_nothing_is_folded(capsys):
    show_table("[title]", ["what", "number"], [[LONG, 1], ["[b]:smile:", None]])
    printed = capsys.readouterr().out
    assert LONG in printed and "[title]" in printed and "[b]:smile:" in printed


def test_on_a_terminal_only_a_table_that_fits_has_lines(capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    show_table(None, ["key", "value"], [["score", 0.5]])
    assert "─────  ─────" in capsys.readouterr().out
    show_table(None, ["key", "value"], [["digest", LONG]])
    printed = re.sub(r"\x1b\[\d*m", "", capsys.readouterr().out)
    assert "─" not in printed and max(map(len, printed.splitlines())) <= 80


def test_only_columns_of_numbers_are_aligned_to_the_right(capsys):
    show_table(None, ["mixed", "number"], [["a long text", 10], [7, 7], [None, None]])
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


def test_texts_wrap_between_words_and_dates_stay_whole(narrow):
    show_table("title", ["partition", "at", "why"], [["2013-08-01", "2013-08-02 06:00:01", WORDS]] * 2)
    text = narrow()
    assert "2013-08-01  2013-08-02 06:00:01  a reason that is as long as people write them,\n" in text.replace(
        " \n", "\n"
    )


def test_columns_that_matter_least_go_first_and_are_named(narrow):
    row = ["x" * 20, "y" * 30, 1.0, "", "z" * 30]
    show_table(
        None, ["key", "state", Heading("seconds", optional=True), "findings", Heading("by", optional=True)], [row]
    )
    text = narrow()
    assert "findings" not in text and "z" not in text
    assert "x" * 20 + "  " + "y" * 30 in text
    assert "Too narrow for by: widen the terminal, or use --json." in text


def test_where_nothing_helps_each_row_is_a_block_of_lines(narrow):
    show_table("title", ["key", "model digest", "state"], [["k" * 30, "d" * 64, WORDS], ["second", "e" * 64, None]])
    assert narrow().splitlines() == [
        "title",
        f"key           {'k' * 30}",
        "model digest  " + "d" * 64,
        "state         a reason that is as long as people write them, with every word",
        "              whole",
        "",
        "key           second",
        "model digest  " + "e" * 64,
    ]
    show_table(None, ["", ""], [["a_name_of_so_many_letters", "f" * 64], ["none", None]])
    assert narrow().splitlines() == ["a_name_of_so_many_letters", "  " + "f" * 64, "none"]


def test_a_table_of_three_columns_without_a_header_fits_too():
    rows = [("ok", "lock", "free"), ("WARNING", "port", f"/tmp/{'long' * 20}/.dagster_home")]
    lines = lay_out(["", "", ""], rows, 60).lines
    assert lines[0].split() == ["ok", "lock", "free"] and lines[1].split() == ["WARNING", "port"]
    assert "".join(line.strip() for line in lines[2:]) == rows[1][2] and max(map(len, lines)) <= 60


def test_two_thousand_columns_are_lines_of_a_block_and_all_of_them_are_there(narrow, capsys):
    names, row = [f"column_{i}" for i in range(2000)], [*range(10_000, 12_000)]
    show_table(None, names, [row])
    lines = narrow().splitlines()
    assert len(lines) == 2000 and lines[-1].split() == ["column_1999", "11,999"]


def test_a_pipe_is_as_wide_as_columns_says(capsys, monkeypatch):
    rows = [["a", WORDS], ["b", "short"]]
    show_table(None, ["key", "why"], rows)
    assert capsys.readouterr().out == f"key  why\na    {WORDS}\nb    short\n"
    monkeypatch.setenv("COLUMNS", "40")
    show_table(None, ["key", "why"], rows)
    echo(WORDS)
    progress(WORDS)
    printed = capsys.readouterr()
    assert max(map(len, printed.out.splitlines())) <= 40 and WORDS in printed.err


def test_wide_letters_count_twice(narrow):
    show_table(None, ["shop", "why"], [["東京" * 10, "大" * 70]])
    assert max(sum(2 if ord(c) > 0x2E7F else 1 for c in line) for line in narrow().splitlines()) <= 80


def test_sentences_wrap_on_a_terminal_only_and_commands_never(narrow, capsys):
    command = "  pip-dagster backfill orders --from 2013-01-01 --to 2013-12-31 --why 'the reason of it, in words'"
    echo(f"{WORDS} {WORDS}")
    assert narrow().replace("\n", " ").strip() == f"{WORDS} {WORDS}"
    echo(command)
    assert capsys.readouterr().out == command + "\n"


COMMANDS = [
    ["status"],
    ["status", "orders"],
    ["lineage", "orders", "2024-03-01"],
    ["lineage", "orders", "--key", "1"],
    ["models", "list"],
    ["models", "show", "returns"],
    ["models", "history", "returns"],
    ["plan", "orders"],
    ["audit", "verify"],
    ["audit", "log"],
    ["replay", "orders", "2024-03-01"],
    ["query", "SELECT * FROM ledger.partitions"],
    ["--help"],
]
PROGRAM = """
import json, sys
from pip_dagster.cli.main import cli
for words in json.loads(sys.argv[1]):
    print("$", *words)
    try:
        cli(words, standalone_mode=False)
    except SystemExit:  # `audit verify` found an alias move that no command recorded
        pass
"""


@pytest.mark.slice
def test_no_command_prints_a_line_that_a_terminal_of_80_columns_would_break(scored):
    """In one process with a real terminal; a pipe gets the same values whole."""
    import fcntl
    import json
    import pty
    import struct
    import termios

    scored.source("UPDATE raw.orders SET amount = 'inf' WHERE day = '2024-03-02'")
    scored.run()
    main, of_command = pty.openpty()
    fcntl.ioctl(of_command, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 80, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, json.dumps(COMMANDS)],
        cwd=scored.root,
        env={name: value for name, value in os.environ.items() if name != "COLUMNS"} | {"TERM": "xterm"},
        stdin=of_command,
        stdout=of_command,
        stderr=of_command,
    )
    os.close(of_command)
    read = b""
    while chunk := _read(main):
        read += chunk
    assert process.wait() == 0, read.decode()
    lines = re.sub(r"\x1b\[[0-9;]*m", "", read.decode()).replace("\r\n", "\n").splitlines()
    assert [line for line in lines if line.startswith("$")] == ["$ " + " ".join(words) for words in COMMANDS]
    assert [line for line in lines if len(line) > 80 and not line.startswith("$")] == []
    text = " ".join(" ".join(lines).split())
    assert "values that the model" in text
    [digest] = scored.warehouse("SELECT DISTINCT model_digest FROM ledger.scorings WHERE status = 'scored'")[0]
    assert digest in text and "…" not in text


def _read(descriptor):
    try:
        return os.read(descriptor, 65_536)
    except OSError:  # Linux: the other side is closed
        return b""
