"""The declared columns of CSV and JSON files: a text must be a value of its type, or the file is refused.

DuckDB's own casts are too kind: they round 1.5 to the whole number 2, and drop the time of what should be a date.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from pip_dagster.sql.names import WHOLE_NUMBERS, literal

_DAY, _TIME = r"\d{4}-\d{2}-\d{2}", r"[ T]\d{2}:\d{2}(:\d{2}([.]\d+)?)?"
_OFFSET = r" ?(Z|[+-]\d{2}(:?\d{2})?)"
# Type → what its texts look like; None where every text that DuckDB casts is one. In words for errors.
_PATTERNS: dict[str, tuple[str | None, str]] = {
    **dict.fromkeys(WHOLE_NUMBERS, (r"[+-]?\d+([.]0*)?", "a whole number in its range")),
    "BOOLEAN": (None, "true or false"),
    "DATE": (rf"{_DAY}([ T]00:00(:00([.]0+)?)?)?", "a date as in 2024-03-01"),
    "DOUBLE": (None, "a number with a decimal point"),
    "FLOAT": (None, "a number with a decimal point"),
    "TIME": (r"\d{1,2}:\d{2}(:\d{2}([.]\d+)?)?", "a time as in 10:30:00"),
    "TIMESTAMP": (rf"{_DAY}({_TIME})?", "a time without UTC offset, as in 2024-03-01 10:30:00"),
    "TIMESTAMPTZ": (
        rf"{_DAY}{_TIME} ?(Z|[+-]\d{{2}}(:?\d{{2}})?)",
        "a time with UTC offset, as in 2024-03-01T10:30:00Z",
    ),
    "UUID": (None, "a UUID"),
    "VARCHAR": ("", "a text"),
}
_ALIASES = {"INT": "INTEGER", "TEXT": "VARCHAR", "STRING": "VARCHAR", "BOOL": "BOOLEAN", "REAL": "FLOAT"}
_ALIASES["TIMESTAMP WITH TIME ZONE"] = "TIMESTAMPTZ"
_DECIMAL = re.compile(r"DECIMAL\((\d{1,2}), ?(\d{1,2})\)")


@dataclass(frozen=True)
class TextColumn:
    """One declared column. `optional`: a file may lack it, and its values are then NULL."""

    name: str
    sql_type: str
    optional: bool

    @classmethod
    def of(cls, name: str, declared: str) -> TextColumn:
        """A column as it is declared, `BIGINT` or `BIGINT optional`.

        Raises:
            ValueError: it is not a type that a text can be.
        """
        text = " ".join(declared.upper().split())
        sql_type = text.removesuffix(" OPTIONAL")
        sql_type = _ALIASES.get(sql_type, sql_type)
        found = _DECIMAL.fullmatch(sql_type)
        if sql_type not in _PATTERNS and not (found and int(found[2]) <= int(found[1]) <= 38):
            raise ValueError(
                f"column {name!r} has the type {declared!r}; expected one of {', '.join(sorted(_PATTERNS))} or "
                "DECIMAL(18, 2), and `optional` after it if files may lack the column"
            )
        return cls(name, sql_type, text.endswith(" OPTIONAL"))

    @cached_property
    def _pattern(self) -> tuple[str | None, str]:
        if found := _DECIMAL.fullmatch(self.sql_type):
            return rf"[+-]?\d*[.]?\d{{0,{found[2]}}}0*", f"a number with {found[2]} decimals or fewer"
        return _PATTERNS[self.sql_type]

    @property
    def meaning(self) -> str:
        """What its texts must be, in words."""
        return self._pattern[1]

    def fits(self, value: str) -> str | None:
        """SQL that tests whether the text `value`, which is not NULL, is one of the type; None where each is."""
        pattern = self._pattern[0]
        if pattern == "":
            return None
        cast = f"TRY_CAST({value} AS {self.sql_type})"
        tests = [f"{cast} IS NOT NULL"]
        if pattern:
            spaced = rf"\s*{pattern}\s*"
            tests.insert(0, f"regexp_full_match({value}, {literal(spaced)})")
        elif self.sql_type in ("DOUBLE", "FLOAT"):  # a number that is too large becomes infinite
            tests.append(f"(isfinite({cast}) OR regexp_matches({value}, '(?i)nan|inf'))")
        return " AND ".join(tests)


def text_columns(declared: Mapping[str, str]) -> list[TextColumn]:
    """The declared columns, in order.

    Raises:
        ValueError: one has an unknown type or an unfit name, or two have one name.
    """
    columns = [TextColumn.of(name, sql_type) for name, sql_type in declared.items()]
    folded = [column.name.lower() for column in columns]
    if twice := next((name for name in folded if folded.count(name) > 1), None):
        raise ValueError(f"declares column {twice!r} twice, since SQL ignores capitals")
    if columns and all(column.optional for column in columns):
        raise ValueError("declares every column as optional, so that any file would fit; expected one that each has")
    if wrong := next((column.name for column in columns if not column.name or re.search(r'["\\]', column.name)), None):
        raise ValueError(f"declares column {wrong!r}; expected a name without quotes and backslashes")
    return columns
