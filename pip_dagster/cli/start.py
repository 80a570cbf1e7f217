"""The program's entry: Ctrl-C ends it with a sentence from its first moment on."""

from __future__ import annotations

import signal

from pip_dagster.cli.cancelled import end_at_once


def main() -> None:
    """Run the command line; until its modules are imported, Ctrl-C ends the process at once."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, end_at_once)
    from pip_dagster.cli.main import main as run

    run()


if __name__ == "__main__":
    main()
