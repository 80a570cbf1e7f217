"""Spelling and style of what people read: documents, docstrings, comments, messages and templates.

`python tools/prose.py [FILE…]` prints each finding with its place and exits with 1 if there is one. Spelling is judged
by Hunspell's en_US dictionary, with the terms of docs/glossary.md and the words of tools/words.txt. Code is not judged:
fenced blocks, text in backticks, SQL, names with underscores or digits.
"""

from __future__ import annotations

import ast
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
WORDS = ROOT / "tools" / "words.txt"
DOCUMENTS = (
    "README.md",
    "examples/*/README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "SECURITY.md",
    "CODE_OF_CONDUCT.md",
    "docs/*.md",
    "data/*.md",
)
CODE = ("pip_dagster/**/*.py", "examples/**/*.py", "tools/**/*.py")
TEMPLATES = ("pip_dagster/**/*.jinja", "pip_dagster/**/*.html", "pip_dagster/**/*.yaml")
LONGEST = 45  # words of a sentence in a document

# What to avoid → what to write. As precise as a pattern can be: a false alarm costs more than a miss.
STYLE = [
    (
        r"\bpartitions? (?:that )?(?:is|are|was|were) due\b|\bdue (?:partitions?|again|once)\b",
        "stale",
    ),
    (r"\bpartitions? (?:that )?(?:is|are|was|were) held\b|\bheld (?:partitions?|ones|until|back)\b", "on hold"),
    (
        r"\b(?:a|an|each|every|the next|that|same|another|one|skipped|cheap|sensor's) looks?\b(?! (?:at|like|into))",
        "a tick, an evaluation",
    ),
    (r"\b(?:made|makes?|making) (?:\w+ ){0,2}(?:again|anew)\b|\banew\b", "rebuilt, scored again, rerun"),
    (
        r"\b(?:is|are|was|were|be|been|gets?) (?:told|said)\b|\b(?:and|that it|what it) (?:told|said)\b|\bnot told\b",
        "reported, recorded",
    ),
    (r"\b(?:kept|keeps?|keeping|held|set|told|taken) apart\b", "quarantined, separate, distinguished"),
    (
        r"\b(?:was|were|is|are|be|been|as|what|they|not|it) asked for\b"
        r"|\basks? for (?:runs?|partitions?|nothing|the partitions)\b",
        "requested",
    ),
    (r"\b(?:newer|last|later|older) word\b|\bleft no word\b", "takes precedence, record"),
    (r"\bleaves? (?:\w+ )?away\b|\bleft away\b|\bleaving (?:\w+ )?away\b", "omit, use only one of them"),
    (r"\bmend(?:s|ed|ing)?\b", "fix"),
    (r"\bof then\b", "at the time"),
    (r"\bis no SQL\b", "is not a valid SQL expression"),
    (r"\bwithout (?:a|one) word\b", "silently"),
    (r"\blets? (?:\w+ )?go of\b|\bgiven back by\b", "release"),
    (r"\bhas got\b|\bcan not\b|\binformations\b|\bdatas\b|\bsoftwares\b", "standard English"),
    (r"\b([a-z]{2,}) \1\b(?<!that that)(?<!had had)", "the word once"),
    (r"(?<![\w.,-])1 (?:partitions|rows|days|versions|columns|features|pipelines|runs|alarms)\b", "the singular"),
]
RULES = [(re.compile(pattern, re.IGNORECASE), advice) for pattern, advice in STYLE]
OPENING = re.compile(r"(?:^|[.!:] )What (?:is|are|was|were|it|they) [^.?!]*[.!]")
COUNTED = re.compile(
    r"^ (?:(?:stale|live|open|new) )?(?:partitions|rows|days|versions|columns|features|pipelines|runs|alarms)\b(?! per)"
)
WORD = re.compile(r"[A-Za-zÀ-ÿ]+(?:['’][A-Za-z]+)?")
NAME = re.compile(r"\S*[_/\\@=<>{}$#|~]\S*|\S*\w\.\w\S*|\S*\w\(\S*|--?\w[\w-]*|\b\w*\d\w*\b")
SQL = re.compile(
    r"\b(?:SELECT|FROM|WHERE|INSERT|UPDATE|CREATE|ALTER|DROP|ATTACH|JOIN|GROUP BY|ORDER BY|AS|VALUES|NOT NULL|SET)\b"
)


def main(arguments: list[str]) -> int:
    """Print what is found in these files, or in all."""
    named = {Path(each).resolve() for each in arguments}
    spelled = Spelling()
    found = 0
    for path, read in files():
        if named and path not in named:
            continue
        for line, text in read(path):
            for finding in judge(text, spelled, document=path.suffix == ".md"):
                print(f"{path.relative_to(ROOT)}:{line}: {finding}")
                found += 1
        if path.is_relative_to(ROOT / "pip_dagster") and path.suffix == ".py":
            for line, word in uncounted(path):
                print(f"{path.relative_to(ROOT)}:{line}: a number before {word!r}: write plural(n, {word[:-1]!r})")
                found += 1
    return 1 if found else 0


def files() -> Iterator[tuple[Path, object]]:
    """Each file with what reads its texts."""
    for patterns, read in ((DOCUMENTS, paragraphs), (CODE, strings), (TEMPLATES, template)):
        for pattern in patterns:
            for path in sorted(ROOT.glob(pattern)):
                if path != Path(__file__).resolve():  # it quotes what it finds
                    yield path, read


def judge(text: str, spelled: Spelling, *, document: bool) -> Iterator[str]:
    """What is wrong with a text."""
    plain = re.sub(r"\s+", " ", text)
    for pattern, advice in RULES:
        for match in pattern.finditer(plain):
            yield f"{match[0]!r}: write {advice}"
    for word in WORD.findall(NAME.sub(" ", plain)):
        if not spelled(word):
            yield f"{word!r}: unknown word (tools/words.txt)"
    if document:
        for match in OPENING.finditer(plain):
            yield f"{match[0][:50]!r}: begin with the subject"
        for sentence in re.split(r"(?<=[.!?:;])\s+", plain):
            if "|" not in sentence and len(sentence.split()) > LONGEST:
                yield f"{len(sentence.split())} words in a sentence: {sentence[:50]!r}"


class Spelling:
    """Whether a word is in the dictionary, the glossary or the list of words."""

    def __init__(self) -> None:
        from spylls.hunspell import Dictionary

        self._dictionary = Dictionary.from_files("en_US")
        glossary = re.findall(
            r"^\| \*\*(.+?)\*\*", (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8"), re.MULTILINE
        )
        listed = [each.strip() for each in WORDS.read_text(encoding="utf-8").splitlines() if not each.startswith("#")]
        self._known = {word.lower(): True for each in (*glossary, *listed) for word in WORD.findall(each)}

    def __call__(self, word: str) -> bool:
        """A word of a text; initials, SQL, CamelCase and other alphabets are not judged."""
        word = word.replace("’", "'").removesuffix("'s").removesuffix("'")
        if len(word) < 3 or not word.isascii() or word[1:] != word[1:].lower():
            return True
        key = word.lower()
        if key not in self._known:
            plural = key.endswith("s") and self._known.get(key[:-1], False)
            self._known[key] = plural or self._dictionary.lookup(word) or self._dictionary.lookup(key.capitalize())
        return self._known[key]


def paragraphs(path: Path) -> Iterator[tuple[int, str]]:
    """The paragraphs, table rows and list items of a Markdown file, without code, links' targets and HTML."""
    text = path.read_text(encoding="utf-8")
    text = blanked(r"^( *)(```|~~~).*?^\1\2$", text)
    text = blanked(r"<!--.*?-->|<[^>\n]+>", text)
    text = blanked(r"(`+)[^`]+?\1", text, by="`x`")
    text = blanked(r"\]\([^)]*\)", text, by="]")
    text = blanked(r"https?://\S+", text)
    start, kept = 1, []
    for number, line in enumerate([*text.splitlines(), ""], 1):
        if kept and (not line.strip() or re.match(r"\s*([-*|#]|\d+\.) ?", line)):
            yield start, " ".join(kept)
            kept = []
        if line.strip():
            start = start if kept else number
            kept.append(re.sub(r"[*#!\[\]]+", "", line).strip())


def blanked(pattern: str, text: str, *, by: str = " ") -> str:
    """The text with each match replaced and its lines kept."""
    return re.sub(pattern, lambda match: by + "\n" * match[0].count("\n"), text, flags=re.MULTILINE | re.DOTALL)


def strings(path: Path) -> Iterator[tuple[int, str]]:
    """Docstrings, comments and messages of a Python file."""
    source = path.read_text(encoding="utf-8")
    tree = ast.parse(source)
    inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside:
            yield from message(node.lineno, node.value)
        elif isinstance(node, ast.JoinedStr):
            parts = (part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
            yield from message(node.lineno, "".join(map(str, parts)))
    with path.open("rb") as file:
        for token in tokenize.tokenize(file.readline):
            if token.type == tokenize.COMMENT and "noqa" not in token.string and "type: ignore" not in token.string:
                yield token.start[0], without_code(token.string.lstrip("# "))


def message(line: int, text: str) -> Iterator[tuple[int, str]]:
    """A string of at least three words that is no code."""
    if text.count(" ") >= 2 and not SQL.search(text) and "<svg" not in text and "import " not in text:
        yield line, without_code(text)


def without_code(text: str) -> str:
    """A text without what stands in backticks."""
    return re.sub(r"(`+)[^`]+?\1", "`x`", text)


def template(path: Path) -> Iterator[tuple[int, str]]:
    """The texts and comments of a template or YAML file."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".html" or ".html" in path.name or path.name.startswith("page"):
        text = blanked(r"<style.*?</style>|\{%.*?%\}|\{\{.*?\}\}|\{#.*?#\}|<[^>]*>|&\w+;", text, by=" `x` ")
        yield from ((number, line) for number, line in enumerate(text.splitlines(), 1) if line.count(" ") > 2)
        return
    for number, line in enumerate(text.splitlines(), 1):
        comment = re.search(r"(?:^|\s)(?:#|--) (.*)$", line)
        if comment and "{%" not in line:
            yield number, without_code(blanked(r"\{\{.*?\}\}", comment[1]))


def uncounted(path: Path) -> Iterator[tuple[int, str]]:
    """A number in an f-string before a plural that does not follow it: "1 partitions"."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.JoinedStr):
            for number, after in zip(node.values, node.values[1:], strict=False):
                if isinstance(number, ast.FormattedValue) and isinstance(after, ast.Constant):
                    counted = COUNTED.match(str(after.value))
                    if counted and not whole(number, node):
                        yield node.lineno, counted[0].strip()


def whole(number: ast.FormattedValue, text: ast.JoinedStr) -> bool:
    """Whether the plural is always right: a constant of ours, a limit, or the total in "2 of 1 rows"."""
    if isinstance(number.value, ast.Name) and number.value.id.lstrip("_").isupper():
        return True
    before = text.values[text.values.index(number) - 1]
    return isinstance(before, ast.Constant) and str(before.value).endswith(
        (" of ", " than ", " has ", " the ", "'", "v")
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
