"""Run as a script: do one piece of registry work again and again, killed one line later each time.

A process of its own because forking is cheap only while neither numpy nor XGBoost is loaded. Prints how often the work
was killed before and after it had taken effect; any state in between raises.
"""

import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from pip_dagster.registry import Registry
from pip_dagster.registry.publish import publish, staging


def killed_at(line: int, work: Callable[[], object]) -> bool:
    """Whether the work was still running when it reached that line of the registry's code, where SIGKILL ends it."""
    child = os.fork()
    if child:
        return os.WIFSIGNALED(os.waitpid(child, 0)[1])
    seen = 0

    def count(_frame, event, _argument):
        nonlocal seen
        seen += event == "line"
        if seen == line:
            os.kill(os.getpid(), signal.SIGKILL)
        return count

    sys.settrace(lambda frame, *_: count if "pip_dagster/registry" in frame.f_code.co_filename else None)
    work()
    os._exit(0)


def publish_second(registry: Registry) -> None:
    first = registry.get("delay", 1)
    with staging(registry.root / "delay") as staged:
        for file in first.manifest.files:
            (staged / file).write_bytes(first.file_bytes(file))
        other = {"iteration_range": (0, 2)}
        publish(
            registry.root / "delay",
            staged,
            lambda number, files: first.manifest.model_copy(update=other | {"version": number, "files": files}),
        )


def versions(registry: Registry) -> tuple[int, int]:
    before = after = 0
    while killed_at(before + after + 1, lambda: publish_second(registry)):
        found = registry.versions("delay")
        assert [version.version for version in found] in ([1], [1, 2]), found
        for version in found:
            version.verify()
        before, after = (before + 1, after) if len(found) == 1 else (before, after + 1)
        # Back to the beginning: else the work, and with it the number of lines, would grow each time.
        for left in [*(registry.root / "delay").glob(".incoming-*"), *(version.path for version in found[1:])]:
            shutil.rmtree(left)
    assert len(registry.versions("delay")) == 2
    return before, after


def alias(registry: Registry) -> tuple[int, int]:
    path = registry.root / "delay" / "aliases" / "champion.json"
    original, before, after = path.read_bytes(), 0, 0
    while killed_at(before + after + 1, lambda: registry.set_alias("delay", "champion", 2, by="b", why="")):
        history = [change.version for change in registry.alias_history("delay", "champion")]
        assert history in ([1], [1, 2]), history
        assert registry.aliases("delay") == {"champion": history[-1]}
        before, after = (before + 1, after) if history == [1] else (before, after + 1)
        path.write_bytes(original)
    assert registry.alias("delay", "champion") == 2
    return before, after


if __name__ == "__main__":
    print(*{"versions": versions, "alias": alias}[sys.argv[1]](Registry(Path(sys.argv[2]))))
