"""What `erase` and `purge` say of the places that they emptied."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pip_dagster.cli.output import echo
from pip_dagster.plural import plural

if TYPE_CHECKING:
    from pip_dagster.erasure.place import Removed

    Steps = Sequence[tuple[str, Removed, str]]


def steps_as_dicts(steps: Steps) -> list[dict[str, Any]]:
    """The places with what each lost, for JSON."""
    return [
        {
            "place": name,
            "removed": removed.rows_removed,
            "method": removed.method,
            "verified": verified,
            "remains": removed.remains,
        }
        for name, removed, verified in steps
    ]


def show_emptied(what: str, id_: str, steps: Steps, partitions: Mapping[str, Mapping[str, int]]) -> None:
    """Print the places, and that the erasure or purge is done; `partitions`: pipeline → partition → rows."""
    for name, removed, verified in steps:
        echo(f"{name}: {plural(removed.rows_removed, 'row')} removed. {verified[:1].upper()}{verified[1:]}.")
        if removed.remains:
            echo(f"  What remains: {removed.remains}.")
    rows = sum(sum(of.values()) for of in partitions.values())
    count = sum(len(of) for of in partitions.values())
    echo(f"{what} {id_} is done: {plural(rows, 'row')} of {plural(count, 'partition')}.")
    echo(f"Its certificate: `pip-dagster certificate {id_} -o certificate.html`.")
