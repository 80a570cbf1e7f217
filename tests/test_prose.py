"""tools/prose.py finds what it is for, and leaves alone what is right."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

FILE = Path(__file__).parents[1] / "tools" / "prose.py"


@pytest.fixture(scope="module")
def prose() -> ModuleType:
    spec = importlib.util.spec_from_file_location("prose", FILE)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["prose"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def spelled(prose):
    return prose.Spelling()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("A partiton is stale.", "'partiton': unknown word"),
        ("The neighbouring day.", "'neighbouring': unknown word"),
        ("Partitions that are due are listed.", "write stale"),
        ("The sensor asks for nothing.", "write requested"),
        ("A look that was missed loses nothing.", "write a tick"),
        ("Scores are made again by `replay`.", "write rebuilt"),
        ("A rollback is a newer word.", "write takes precedence"),
        ("The rows are kept apart.", "write quarantined"),
        ("Somebody is told which rows.", "write reported"),
        ("It shows the scores of then.", "write at the time"),
        ("XGBoost scores it without a word.", "write silently"),
        ("The the rows are scored.", "write the word once"),
        ("There is 1 rows.", "write the singular"),
        ("What is stored stays stored.", "begin with the subject"),
        ("Word " * 50 + "ends.", "words in a sentence"),
    ],
)
def test_what_is_wrong_is_found(prose, spelled, text, found):
    assert any(found in each for each in prose.judge(text, spelled, document=True)), text


@pytest.mark.parametrize(
    "text",
    [
        "Held-out rows are due tomorrow; 11 rows, 2.1 rows and v1 rows.",
        "The report's labelled rows, DuckDB's `xyzzy`, my_table.colx, --opshun and NULL.",
        "Apart from that, the lock is held by another process, and it looks at what is live.",
        "What is quarantined?",
    ],
)
def test_what_is_right_is_left_alone(prose, spelled, text):
    assert list(prose.judge(prose.without_code(text), spelled, document=True)) == []


def test_code_in_documents_is_not_judged(prose, tmp_path):
    file = tmp_path / "page.md"
    file.write_text("# Titel\n\nOne `xyz` [link](wrng.md)\nand more.\n\n```sh\nwrng | cmd\n```\n\n| celll | two |\n")
    assert list(prose.paragraphs(file)) == [(1, "Titel"), (3, "One `x` link and more."), (10, "| celll | two |")]


def test_a_number_before_a_plural_is_found(prose, tmp_path):
    file = tmp_path / "messages.py"
    file.write_text(
        'a = f"{n} rows"\nb = f"{m} of {n} rows"\nc = f"at most {MOST} rows"\nd = f"{n:,} stale partitions"\n'
    )
    assert list(prose.uncounted(file)) == [(1, "rows"), (4, "stale partitions")]


def test_messages_and_comments_are_read_and_sql_is_not(prose, tmp_path):
    file = tmp_path / "messages.py"
    file.write_text(
        '"""A module."""\n# A comment here\nx = f"{y} is wrong here"\nz = "SELECT a FROM b WHERE c"\nw = "one word"\n'
    )
    assert list(prose.strings(file)) == [(3, "{} is wrong here"), (2, "A comment here")]
