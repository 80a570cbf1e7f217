"""docs/tutorial.md and docs/mission.md: their shell blocks run in order; text blocks are compared with what came out.

- A ```sh block is run as it stands. `<!-- exit 3 -->` before it names its exit code, 0 without.
- A ```text block after it is its output. A line `...` stands for any lines, and a `…` for the rest of its line.
- `make demo` is not run again: its output is what the demo printed that all tests of documents share.
- Words are compared, without the lines of tables and the counts of progress. What differs between two runs is masked:
  instants, this year's dates, ids, digests, seconds, bytes and the folder. Numbers with decimals may differ by 2%,
  which another processor can cause.

`WRITE_TUTORIAL=1 pytest tests/docs/test_tutorial.py -m slice` writes the outputs into the pages.
"""

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from pip_dagster.errors import PipelineError

DOCS = Path(__file__).parents[2] / "docs"
BLOCK = re.compile(
    r"(?:^<!-- exit (?P<code>\d+) -->\n)?^```sh\n(?P<script>.*?)^```\n(?:\n```text\n(?P<output>.*?)^```\n)?",
    re.MULTILINE | re.DOTALL,
)
END = "+++ end of block, exit code "
MASKS = (
    (r"[━┏┓┃┡┩╇┳└┘┴│─┌┐├┤┼]+", " "),  # of tables
    (r"^[\d,]+ of [\d,]+ partitions?(, \d+ failed)?$", ""),  # progress
    (r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d+)?( UTC|[+-]\d\d:?\d\d|Z)?", "<time>"),
    (r"\b20[2-9]\d-\d\d-\d\d\b", "<date>"),
    (r"\b(backfill-)?\d{8}T\d{12}-[0-9a-f]{8}\b", "<id>"),
    (r"\b(?=[0-9a-f]*\d)(?=[0-9a-f]*[a-f])[0-9a-f]{8,64}\b", "<digest>"),
    (r"\b[\d.,]+ m?s\b", "<seconds> s"),
    (r"[\d.]+\s+(?=<time>)", "<seconds> "),  # the seconds of a scoring, beside its time
    (r"\b[\d,]+ bytes\b", "<bytes> bytes"),
    (r"(?<!\S)/\S*/(?=data/)", ""),
    (r"\bby \w+$", "by <user>"),
    (r"[ \t]+", " "),
)


def masked(text: str) -> list[str]:
    """The lines of an output without what differs between two runs."""
    for pattern, replacement in MASKS:
        text = re.sub(pattern, replacement, text, flags=re.MULTILINE)
    return [line.strip() for line in text.splitlines() if line.strip()]


def differs(shown: str, came: str) -> str | None:
    """Both sides where a text block is not the output; None if it is. Lines break by how long a number is."""
    expected, output = (" ".join(masked(each)) for each in (shown, came))
    parts = re.split(r"(\d+\.\d+|\s*(?<!\S)(?:\.\.\.|…)(?!\S))", expected)
    as_pattern = [
        re.escape(part) if i % 2 == 0 else ".*" if part[-1] in ".…" else r"(\d+\.\d+)" for i, part in enumerate(parts)
    ]
    match = re.fullmatch("".join(as_pattern), output)
    numbers = [float(part) for part in parts[1::2] if part[-1] not in ".…"]
    if match and [float(each) for each in match.groups()] == pytest.approx(numbers, rel=0.02, abs=0.0051):
        return None
    return f"the page: {expected}\nthe run:  {output}"


def run(scripts: list[str], folder: Path) -> list[tuple[int, str]]:
    """Exit code and output of each block, run in one shell: `cd` and `export` hold for the blocks after it."""
    lines = [f"failed=0\n{script}echo '{END}'$failed" for script in scripts]
    result = subprocess.run(
        ["bash", "-c", "\n".join(["set -o pipefail", "trap 'failed=$?' ERR", *lines])],
        cwd=folder,
        env=environment(folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=1500,
    )
    parts = re.split(rf"^{re.escape(END)}(\d+)\n", result.stdout, flags=re.MULTILINE)
    return [(int(code), output) for output, code in zip(parts[0:-1:2], parts[1::2], strict=True)]


def environment(folder: Path) -> dict[str, str]:
    """This shell's, less what would name another project; a terminal of 80 columns."""
    hidden = ("DAGSTER", "PIP_DAGSTER", "MAKE", "MFLAGS", "PYTHONWARNINGS")
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(hidden)}
    return inherited | {"PYTHONPATH": str(folder), "COLUMNS": "80", "TZ": "UTC", "TMPDIR": str(folder.parent)}


def written(text: str, outputs: list[str]) -> str:
    """The page with these outputs, each cut where the page cuts it."""
    remaining = iter(outputs)

    def replaced(match: re.Match[str]) -> str:
        output = next(remaining)
        if match["output"] is None:
            return match[0]
        lines, shown = re.sub(MASKS[-3][0], "", output).rstrip().splitlines(), match["output"].splitlines()
        if "..." in shown:
            head = shown.index("...")
            lines = [*lines[:head], "...", *lines[len(lines) - (len(shown) - head - 1) :]]
        short = (line if len(line) <= 160 else line[: line.rindex(" ", 0, 150)] + " …" for line in lines)
        text = "".join(line.rstrip() + "\n" for line in short)
        return match[0].replace(f"```text\n{match['output']}```", f"```text\n{text}```")

    return BLOCK.sub(replaced, text)


def here(script: str, folder: Path) -> tuple[int, str]:
    """Exit code and output of a block: commands of ours in this process, which has imported the libraries already."""
    lines = script.splitlines()
    if not all(line.startswith("pip-dagster ") for line in lines):
        return run([script], folder)[0]
    from pip_dagster.cli.main import cli

    outputs = []
    for line in lines:
        result = CliRunner().invoke(cli, shlex.split(line)[1:])
        foreseen = isinstance(result.exception, PipelineError)  # `main` prints it
        outputs.append(result.output + (f"Error: {result.exception}\n" if foreseen else ""))
        if result.exit_code:
            return result.exit_code, "".join(outputs) + ("" if foreseen else repr(result.exception))
    return 0, "".join(outputs)


def compare(page: Path, came: list[tuple[int, str]]) -> None:
    """The page's blocks with what came out of them; or the page, written."""
    text = page.read_text(encoding="utf-8")
    blocks = list(BLOCK.finditer(text))
    assert len(came) == len(blocks), came[-1]
    for block, (code, output) in zip(blocks, came, strict=True):
        assert code == int(block["code"] or 0), f"{block['script']}{output}"
    if os.environ.get("WRITE_TUTORIAL"):
        page.write_text(written(text, [output for _, output in came]), encoding="utf-8")
        return
    for block, (_, output) in zip(blocks, came, strict=True):
        if block["output"]:
            assert not (found := differs(block["output"], output)), f"{block['script']}\n{found}\n\n{output}"


def scripts_of(page: Path) -> tuple[list[str], int]:
    """The shell blocks of a page, and which of them is the demo, which ran already."""
    scripts = [block["script"] for block in BLOCK.finditer(page.read_text(encoding="utf-8"))]
    demo = next(i for i, script in enumerate(scripts) if "make demo" in script)
    return [*scripts[:demo], "true\n", *scripts[demo + 1 :]], demo


@pytest.mark.slice
def test_the_tutorial_runs_and_prints_what_it_shows(own_clone: Path, demonstrated: Path) -> None:
    page = DOCS / "tutorial.md"
    scripts, demo = scripts_of(page)
    came = run(scripts, own_clone)
    came[demo] = (0, (demonstrated.parent / "first").read_text(encoding="utf-8"))
    compare(page, came)


@pytest.mark.slice
def test_each_row_of_the_mission_is_shown_by_its_command(
    own_clone: Path, demonstrated: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = DOCS / "mission.md"
    scripts, demo = scripts_of(page)
    monkeypatch.chdir(own_clone)
    monkeypatch.delenv("PIP_DAGSTER_PROJECT", raising=False)
    for name, value in environment(own_clone).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("DAGSTER_HOME", str(own_clone / ".dagster_home"))
    monkeypatch.setenv("PATH", str(own_clone / ".venv" / "bin"), prepend=os.pathsep)
    came = [here(script, own_clone) for script in scripts]
    came[demo] = (0, (demonstrated.parent / "first").read_text(encoding="utf-8"))
    compare(page, came)


@pytest.mark.parametrize(
    ("came", "same"),
    [
        ("built 2 of 2 partitions after 3.1 s\nmean 0.3105\nmore", True),
        ("built 1 of 2 partitions after 3.1 s\nmean 0.31\n", False),
        ("built 2 of 2 partitions after 3.1 s\nmean 0.35\n", False),
        ("built 2 of 2 partitions after 3.1 s\n", False),
    ],
)
def test_an_output_that_differs_is_found(came: str, same: bool) -> None:
    assert (differs("built 2 of 2 partitions after 19.4 s\nmean 0.3101\n...\n", came) is None) == same
