"""Helpers of this folder can be imported: pytest's importlib mode puts no test folder on the path."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from delivery_servers import _s3_url, password, postgres, postgres_server, receiver, s3, staged  # noqa: E402, F401
