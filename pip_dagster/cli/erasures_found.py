"""What `pip-dagster doctor` says of erasures, purges and holds: what is not finished, and what resumes it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import TYPE_CHECKING

from pip_dagster.cli.diagnosis import Diagnosis
from pip_dagster.plural import plural

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.project import Project


def erasures_found(con: DuckDBPyConnection, project: Project) -> Iterator[Diagnosis]:
    """A line for each; one where all is finished and known beside the warehouse too. The warehouse is the catalog."""
    from pip_dagster.warehouse.erased import folder, noted, refusal, states_of

    yield from _unfinished(con, anchored=project.anchors is not None)
    yield from _released(con)
    if why := refusal(con, project):
        yield Diagnosis("problem", "erasures", why, "pip-dagster erase --again")
        return
    kept = noted(project)
    done = [each for each, state in states_of(con).items() if state == "done"]
    if unknown := [each for each in done if not kept.get(each)]:
        what = f"{folder(project)} lacks {plural(len(unknown), 'erasure')}, such as {unknown[0]}"
        remedy = "Restore it from a backup: without it, nobody notices that a restored warehouse brings people back"
        yield Diagnosis("warning", "erasures", what, remedy)
    elif done:
        yield Diagnosis("ok", "erasures", f"{len(done)}, which {folder(project)} has too")


def _unfinished(con: DuckDBPyConnection, *, anchored: bool) -> Iterator[Diagnosis]:
    from pip_dagster.erasure.unfinished import unfinished

    for each in unfinished(con, anchored=anchored):
        names = ", ".join(each.pipelines)
        what = f"{'purge' if each.kind == 'purge' else 'erasure'} {each.erasure_id} of {names}"
        if each.lacks_anchor:
            what += " is done, and no anchor vouches for what it rewrote"
        else:
            what += f" began at {each.began:%Y-%m-%d %H:%M} UTC and is not finished: it runs, or was interrupted"
        what += f"; done: {', '.join(each.places) or 'nothing'}"
        if each.kind == "purge":
            yield Diagnosis("warning", "erasures", what, f"pip-dagster purge {' '.join(each.pipelines)}")
        else:
            named = " ".join(f"--pipeline {name}" for name in each.pipelines)
            again = f"pip-dagster erase --subject ID {named} --why {shlex.quote(each.why)}"
            yield Diagnosis("warning", "erasures", what, f"{again}, with the same person's ID, which is stored nowhere")


def _released(con: DuckDBPyConnection) -> Iterator[Diagnosis]:
    from pip_dagster.erasure.held import RELEASED

    kept = f"SELECT hold_id, count(*) FROM ledger.held_rows WHERE {RELEASED} GROUP BY 1 ORDER BY 1"
    for hold_id, rows in con.execute(kept).fetchall():
        what = f"hold {hold_id} is released, and {plural(rows, 'row')} that it kept are still there"
        yield Diagnosis("warning", "erasures", what, "pip-dagster purge, or repeat the erasure of its person")
