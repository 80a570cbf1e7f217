"""`make bench`: measure ratios, each within one run, and write benchmarks/results.json and docs/benchmarks.md."""

from __future__ import annotations

import argparse
import time

from benchmarks import report
from benchmarks.suite import Options, benchmarks, note


def main() -> None:
    """Measure everything, or the named benchmarks."""
    known = benchmarks()
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", metavar="NAME[,NAME]", help="measure these and keep the other results; see --list")
    parser.add_argument("--list", action="store_true", help="list the benchmarks")
    parser.add_argument(
        "--100M",
        dest="long",
        action="store_true",
        help="add the long ones, and 100 million rows to the memory: an hour",
    )
    parser.add_argument(
        "--days", type=int, default=30, help="number of days on which the slow alternatives are measured"
    )
    options = parser.parse_args()
    if options.list:
        for each in known.values():
            print(f"{each.name:20} {'(--100M) ' if each.long else ''}{each.about}")
        return
    names = (
        options.only.split(",") if options.only else [n for n, each in known.items() if options.long or not each.long]
    )
    if unknown := [name for name in names if name not in known]:
        parser.error(f"no benchmark {', '.join(unknown)}; there are {', '.join(known)}")
    for name in names:
        note(name)
        began = time.monotonic()
        report.save(name, known[name].run(Options(options.long, options.days)))
        note(f"{name} took {time.monotonic() - began:.0f} s")
    report.write(list(known))


if __name__ == "__main__":
    main()
