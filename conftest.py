"""Cache bytecode before anything heavy is imported, so that processes that tests start do not compile libraries again.

If PYTHONDONTWRITEBYTECODE is set (as in many images and in CI) and the installer compiled nothing, each of the hundreds
of processes compiles its libraries: two to five seconds for Dagster or Great Expectations, instead of half a second.
The bytecode is then written to a folder of pytest's cache.
"""

import os
import shutil
import sys
import tempfile
from pathlib import Path

if sys.dont_write_bytecode:
    bytecode = Path(__file__).parent / ".pytest_cache" / "bytecode"
    # The bytecode of the temporary files of earlier tests.
    shutil.rmtree(f"{bytecode}{Path(tempfile.gettempdir()).resolve()}", ignore_errors=True)
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ["PYTHONPYCACHEPREFIX"] = sys.pycache_prefix = str(bytecode)
    sys.dont_write_bytecode = False
