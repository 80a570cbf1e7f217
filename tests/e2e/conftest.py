"""The browser's tests run only with `-m e2e`: they take minutes, and a browser."""

from pathlib import Path

import pytest


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    return True if "e2e" not in str(config.getoption("markexpr")) else None
