"""The format of a model file, recognized from its bytes alone; nothing opens the file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from pip_dagster.registry.errors import UnsafeModelFile

Format = Literal["ubj", "json"]

_CONVERT = (
    'Load it where you trained it and save it in XGBoost\'s own format: booster.save_model("model.ubj") '
    '(scikit-learn wrapper: model.save_model("model.ubj")), then register that file.'
)

_REFUSED: tuple[tuple[bytes, str], ...] = (
    (b"\x80\x02", "a pickle"),
    (b"\x80\x03", "a pickle"),
    (b"\x80\x04", "a pickle (joblib writes these too)"),
    (b"\x80\x05", "a pickle (joblib writes these too)"),
    (b"ccopy_reg", "a pickle"),
    (b"cxgboost", "a pickle"),
    (b"c__builtin__", "a pickle"),
    (b"(dp", "a pickle"),
    (b"PK\x03\x04", "a zip archive"),
    (b"\x1f\x8b", "gzip-compressed"),
    (b"BZh", "bzip2-compressed"),
    (b"\xfd7zXZ\x00", "xz-compressed"),
    (b"\x28\xb5\x2f\xfd", "zstd-compressed"),
    (b"\x04\x22\x4d\x18", "lz4-compressed"),
    (b"x\x01", "zlib-compressed (joblib)"),
    (b"x\x9c", "zlib-compressed (joblib)"),
    (b"x\xda", "zlib-compressed (joblib)"),
    (b"\x93NUMPY", "a numpy array"),
    (b"binf", "XGBoost's old binary format, which newer versions no longer read"),
    (b"CONFIG-offset:", "XGBoost's in-memory snapshot, which is readable only by the version that made it"),
    (b"booster[0]", "a text dump of the trees, which cannot be loaded again"),
    (b"[", "a JSON dump of the trees, which cannot be loaded again"),
    (b"tree\n", "a LightGBM model"),
)

# UBJSON: '{', then the type letter of the first key's length, or a container's type or count marker.
_UBJ_SECOND = b"iUIlL$#"

# The last key of every model file, in both formats.
_VERSION_UBJ = re.compile(rb"version\[#L\x00{7}\x03[iU](.)[iU](.)[iU](.)\}$", re.DOTALL)
_VERSION_JSON = re.compile(rb'"version"\s*:\s*\[\s*(\d+)\s*,\s*(\d+)\s*,\s*(\d+)\s*\]\s*\}\s*$')


def detect(data: bytes, path: Path) -> Format:
    """The format of a model file's bytes, whatever its suffix.

    Raises:
        UnsafeModelFile: anything but XGBoost's UBJ or JSON; a pickle can run code when it is opened, so none is.
    """
    if data[:1] == b"{" and data[1:2] in [bytes([b]) for b in _UBJ_SECOND]:
        return "ubj"
    start = data[:64].lstrip()
    if start[:1] == b"{" and start[1:].lstrip()[:1] == b'"':
        return "json"
    if not data:
        raise UnsafeModelFile(f"{path} is empty; save the model again: {_CONVERT}")
    kind = next((what for magic, what in _REFUSED if start.startswith(magic) or data.startswith(magic)), None)
    if kind is None:
        kind = f"not a format known here (first bytes {data[:8]!r}; perhaps XGBoost's binary format from before 1.6)"
    raise UnsafeModelFile(
        f"{path} is {kind}; a model must be XGBoost's UBJ or JSON. The file was not opened. {_CONVERT}"
    )


def written_by(data: bytes) -> tuple[int, int, int] | None:
    """The XGBoost version that wrote a model file; None if the file does not end as XGBoost's do."""
    tail = data[-128:]
    if found := _VERSION_UBJ.search(tail):
        major, minor, patch = (part[0] for part in found.groups())
        return major, minor, patch
    if found := _VERSION_JSON.search(tail):
        major, minor, patch = (int(part) for part in found.groups())
        return major, minor, patch
    return None
