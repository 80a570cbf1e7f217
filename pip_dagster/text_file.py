"""Reading the text files that users write."""

from __future__ import annotations

from pathlib import Path

from pip_dagster.errors import PipelineError

_UTF_16 = (b"\xff\xfe", b"\xfe\xff")


def read_text(path: Path, error: type[PipelineError]) -> str:
    """The text of a file in UTF-8, with line ends as `\\n`.

    Raises:
        PipelineError: of the type `error`: the file cannot be read or is not UTF-8; names its line.
    """
    try:
        data = path.read_bytes()
    except OSError as failed:
        raise error(f"{path} cannot be read: {failed.strerror}. Create it, or make it readable.") from failed
    try:
        text = data.decode()
    except UnicodeDecodeError as failed:
        line = data.count(b"\n", 0, failed.start) + 1
        byte = f"line {line} has the byte 0x{data[failed.start]:02x}"
        found = "it is in UTF-16" if data.startswith(_UTF_16) else byte
        raise error(f"{path} is not in UTF-8: {found}. Save the file in UTF-8.") from None
    return text.replace("\r\n", "\n").replace("\r", "\n")
