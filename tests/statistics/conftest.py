"""The simulation as a fixture: files of tests cannot import each other."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def simulation() -> ModuleType:
    """`World` and `draw` of simulation.py."""
    name = "statistics_simulation"
    found = importlib.util.spec_from_file_location(name, Path(__file__).parent / "simulation.py")
    assert found and found.loader
    module = importlib.util.module_from_spec(found)
    sys.modules[name] = module  # dataclasses look their module up
    found.loader.exec_module(module)
    return module
