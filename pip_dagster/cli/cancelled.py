"""How a command ends that Ctrl-C cancels before it has begun."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

CANCELLED = 130
TEXT = "Cancelled. What was committed stays."


def end_at_once(*_: object) -> NoReturn:
    """End without cleaning up, where nothing has begun: an exception within an import would become a traceback."""
    if "--json" in sys.argv:
        os.write(1, f'{{"error": "{TEXT}", "exit_code": {CANCELLED}}}\n'.encode())
    os.write(2, f"{TEXT}\n".encode())
    os._exit(CANCELLED)
