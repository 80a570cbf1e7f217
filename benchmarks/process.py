"""`python -m benchmarks.process MODULE:FUNCTION ARGUMENTS…`: one function in a process of its own, to be measured."""

from __future__ import annotations

import sys
from importlib import import_module

import pip_dagster  # noqa: F401  # before xgboost: it stops OpenMP's threads from spinning

if __name__ == "__main__":
    module, function = sys.argv[1].split(":")
    getattr(import_module(module), function)(*sys.argv[2:])
