"""The benchmarks, a module for each group. A new module here is found by itself; `benchmarks.suite` says what it holds."""
