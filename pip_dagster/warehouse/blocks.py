"""The blocks and row groups of DuckDB files: wide rows need small ones.

DuckDB pins a block for each column that a thread reads or appends, and another where a checkpoint then writes. With its
own blocks of 256 KB, 2,000 columns take a gigabyte, however few rows there are. Small ones take a sixteenth of that,
but twice the time to read and 1.4 times the space of large tables of few columns. So only files with wide rows have
them. A file has one size, from its creation on.

A checkpoint that merges row groups holds the merged one whole, beyond DuckDB's limit. Their size is of each opening.
"""

from __future__ import annotations

import struct
from pathlib import Path

# Rows of so many columns are wide: below, blocks of DuckDB's own size take at most 200 MB.
WIDE = 400
SMALL = 16_384
_ROWS = 2_048  # the fewest that a row group may be limited to
# Of a DuckDB file, behind a page with what version it has, two pages say in turn which state is the newest. Each has
# at this place the size of the blocks.
_PLACES = (4096 + 40, 8192 + 40)


def is_wide(columns: int) -> bool:
    """Whether rows of so many columns need small blocks."""
    return columns >= WIDE


def options(columns: int, *, new: bool = True) -> str:
    """What to add to the options of ATTACH to write rows of so many columns, to a `new` file or another."""
    if not is_wide(columns):
        return ""
    return f", ROW_GROUP_SIZE {_ROWS}" + (f", BLOCK_SIZE {SMALL}" if new else "")


def fits(file: Path, columns: int) -> bool:
    """Whether the blocks of a DuckDB file are small enough for rows of so many columns; so are those of no file."""
    return not is_wide(columns) or _block_size(file) <= SMALL


def _block_size(file: Path) -> int:
    """The size of its blocks; 0 where there is no DuckDB file."""
    try:
        with file.open("rb") as opened:
            head = opened.read(max(_PLACES) + 8)
    except OSError:
        return 0
    if len(head) < max(_PLACES) + 8 or head[8:12] != b"DUCK":
        return 0
    return max(int(struct.unpack_from("<Q", head, place)[0]) for place in _PLACES)
