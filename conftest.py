"""Before anything heavy is imported: of the hundreds of processes that tests start none compiles its libraries anew.

Where nothing may be written beside the sources (PYTHONDONTWRITEBYTECODE, which images and CI often set, with packages
whose installer compiled nothing), every process would: two to five seconds for Dagster or Great Expectations, against
a half. The bytecode is then kept in a folder of pytest's cache.
"""

import os
import shutil
import sys
import tempfile
from pathlib import Path

if sys.dont_write_bytecode:
    kept = Path(__file__).parent / ".pytest_cache" / "bytecode"
    # What earlier tests' own temporary files were compiled to.
    shutil.rmtree(f"{kept}{Path(tempfile.gettempdir()).resolve()}", ignore_errors=True)
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ["PYTHONPYCACHEPREFIX"] = sys.pycache_prefix = str(kept)
    sys.dont_write_bytecode = False
