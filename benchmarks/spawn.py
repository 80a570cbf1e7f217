"""`python -I -S spawn.py FILE COMMAND…`: run a command and write its seconds, CPU seconds and peak memory to FILE.

Linux starts a process's peak at that of the process that started it. This one imports next to nothing, so that what is
measured is the command's own, whatever the benchmarks themselves have read before.
"""

import json
import os
import sys
import time

target, *command = sys.argv[1:]
began = time.monotonic()
pid = os.posix_spawnp(command[0], command, os.environ)
_, status, used = os.wait4(pid, 0)
with open(target, "w") as out:  # noqa: PTH123  # pathlib is a larger import than all others here
    json.dump(
        {
            "seconds": time.monotonic() - began,
            "cpu_seconds": used.ru_utime + used.ru_stime,
            "peak_mb": used.ru_maxrss / 1024,
        },
        out,
    )
sys.exit(os.waitstatus_to_exitcode(status) & 0xFF)
