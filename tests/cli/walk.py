"""Run commands one after the other in this process, as the entry point does, and report what each printed.

    python walk.py < [["name", ["argument", ...]], ...]

It is a process of its own so that a test can choose its user, its limits, its environment and its working directory.
"""

import json
import os
import sys
import traceback


def run(arguments: list[str]) -> dict[str, object]:
    """The exit code and the output of `pip-dagster` with these arguments."""
    from pip_dagster.cli.main import main

    sys.argv = ["pip-dagster", *arguments]
    kept = [os.dup(stream) for stream in (1, 2)]
    files = [os.memfd_create("out"), os.memfd_create("err")]
    for stream, file in zip((1, 2), files, strict=True):
        os.dup2(file, stream)
    try:
        main()
        code: object = 0
    except SystemExit as exit_:
        code = exit_.code or 0
    except BaseException:
        traceback.print_exc()
        code = 1
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        for stream, original in zip((1, 2), kept, strict=True):
            os.dup2(original, stream)
            os.close(original)
    return {"code": code, "out": _text(files[0]), "err": _text(files[1])}


def _text(file: int) -> str:
    with os.fdopen(file, "rb") as opened:
        opened.seek(0)
        return opened.read().decode(errors="replace")


if __name__ == "__main__":
    commands = json.loads(sys.stdin.buffer.read())
    results = sys.stdout
    found = [[name, run(arguments)] for name, arguments in commands]
    print(json.dumps(found), file=results)
