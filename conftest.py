"""Before anything heavy is imported: the tests start some hundreds of processes, and none should compile its libraries anew.

Where nothing may be written beside the sources (PYTHONDONTWRITEBYTECODE, which images and CI often set, with packages
whose installer compiled nothing), every process would: two to five seconds for Dagster or Great Expectations, against
a half. The bytecode is then kept in a folder of pytest's cache.
"""

import os
import sys
from pathlib import Path

if sys.dont_write_bytecode:
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ["PYTHONPYCACHEPREFIX"] = str(Path(__file__).parent / ".pytest_cache" / "bytecode")
    sys.dont_write_bytecode, sys.pycache_prefix = False, os.environ["PYTHONPYCACHEPREFIX"]
