"""Repeats erasures that a restored backup does not know, without the person's name: by what is kept beside it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from pip_dagster.erasure.certificate import verify_certificate
from pip_dagster.erasure.erase import Erased, carry_out
from pip_dagster.erasure.held import hold_on
from pip_dagster.erasure.holds import hold_again
from pip_dagster.erasure.opened import opened
from pip_dagster.erasure.outside import KeptRequest, instant, kept_hold, kept_request, key_of
from pip_dagster.erasure.place import ErasurePlace, ErasureRequest
from pip_dagster.erasure.tables import KINDS
from pip_dagster.erasure.wish import Wish, begin
from pip_dagster.errors import DeclarationError, ErasureError
from pip_dagster.evidence.contents import columns_of_tables
from pip_dagster.evidence.signed import trusted_keys
from pip_dagster.sql.names import column_named, literal, quote
from pip_dagster.warehouse.access import reading
from pip_dagster.warehouse.connect import workspace
from pip_dagster.warehouse.erased import certificate_file, missing, missing_holds, repeating, request_file

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pip_dagster.declaration.pipeline import Pipeline
    from pip_dagster.declaration.project import Project
    from pip_dagster.privacy.pseudonym import PseudonymKey


def erase_again(
    project: Project,
    find: Callable[[str], Pipeline],
    actor: str,
    *,
    others: Sequence[ErasurePlace] = (),
    progress: Callable[[str], object] = lambda text: None,
) -> list[Erased]:
    """Repeat every erasure that the folder beside the warehouse has and the warehouse does not know, or not as done.

    Legal holds that it does not know are placed first.

    Args:
        project: whose warehouse was restored.
        find: the pipeline of a name.
        actor: who repeats them.
        others: places that are emptied too, as in `erase`.
        progress: gets a line for each place, and what is wrong with a certificate.

    Raises:
        DeclarationError: a pipeline, its `privacy` or a secret is not declared any more.
        ErasureError: a file is not what was written, or a place could not be emptied.
        WarehouseError: the warehouse cannot be read or written.
    """
    with workspace(threads=1) as con, reading(con, project, purpose="erasing again"):
        lacking, holds = missing(con, project), missing_holds(con, project)
    for hold_id in holds:
        kept_as, signed = kept_hold(project, hold_id)
        progress(f"placing again: hold {hold_id}")
        hold_again(project, [_declared(find, name, f"hold {hold_id}") for name in kept_as.pipelines], kept_as, signed)
    done = []
    with repeating():
        for erasure_id in lacking:
            kept, macs = kept_request(project, erasure_id)
            pipelines = [_declared(find, name, f"erasure {erasure_id}") for name in kept.pipelines]
            path = request_file(project, erasure_id)
            keys = {each.spec.name: key_of(each, kept, macs, path) for each in pipelines}
            progress(f"erasing again: {erasure_id}")
            _check_certificate(project, erasure_id, progress)
            wish = Wish("", kept.why, actor, kept.ground, kept.asked_by, instant(kept.received_at))
            of = {
                name: [(token, version) for token, version in each.suppressed] for name, each in kept.pipelines.items()
            }
            _, resumed = begin(project, pipelines, wish, of, erasure_id)
            columns = {each.spec.name: each.spec.privacy.subject for each in pipelines if each.spec.privacy}
            hashes = {name: [token for token, _ in pairs] for name, pairs in of.items()}
            _check_holds(project, erasure_id, hashes)
            values = _stored(project, columns, kept, keys)
            request = ErasureRequest(erasure_id, "erase", kept.why, columns, values, tokens=hashes)
            done.append(
                carry_out(project, pipelines, request, actor, resumed=resumed, others=others, progress=progress)
            )
    return done


def _declared(find: Callable[[str], Pipeline], name: str, what: str) -> Pipeline:
    try:
        pipeline = find(name)
    except DeclarationError as error:
        raise DeclarationError(f"The {what} is of the pipeline {name}: {error}") from error
    if pipeline.spec.privacy is None:
        raise DeclarationError(
            f"Pipeline {name} declares no `privacy.subject`, and the {what} is of it: nothing says which "
            "rows are about whom. Declare it as it was."
        )
    return pipeline


def _check_certificate(project: Project, erasure_id: str, progress: Callable[[str], object]) -> None:
    """Say what is wrong with the former certificate; the erasure is repeated whatever it says."""
    path = certificate_file(project, erasure_id)
    if project.anchors is None or not path.exists():
        return
    try:
        verify_certificate(path.read_text("utf-8"), trusted_keys(project.root, project.anchors.signers))
    except (OSError, ValueError) as error:
        progress(f"{path}, the former certificate, is not verified: {error}. The erasure is repeated all the same.")


def _check_holds(project: Project, erasure_id: str, hashes: Mapping[str, Sequence[str]]) -> None:
    """Refuse to remove what a legal hold kept then, where the backup is from before the hold too.

    Raises:
        ErasureError: the person is on no hold.
    """
    try:
        restricted = json.loads(certificate_file(project, erasure_id).read_bytes())["restricted"]
        names = {str(each["pipeline"]): str(each["hold_id"]) for each in restricted}
    except (OSError, ValueError, KeyError, TypeError):
        return  # none is certified
    with opened(project) as con:
        for name, hold_id in names.items():
            if name in hashes and hold_on(con, name, hashes[name]) is None:
                raise ErasureError(
                    f"Pipeline {name}: the legal hold {hold_id} kept rows of the erasure {erasure_id}, and this "
                    "warehouse does not know it. Place it again with `pip-dagster hold place`, then repeat the "
                    "erasure. If it was released meanwhile, release it again afterwards."
                )


def _stored(
    project: Project, columns: Mapping[str, str], kept: KeptRequest, keys: Mapping[str, PseudonymKey]
) -> dict[str, list[str]]:
    """Pipeline → what stands for the person in stored rows: each different value is hashed."""
    found: dict[str, list[str]] = {}
    with opened(project) as con:
        for name, column in columns.items():
            values = set[str]()
            for (_, table), of in columns_of_tables(con, {name}).items():
                if table.partition("__")[0] in KINDS and (subject := column_named(of, column)):
                    values |= _values(
                        con, f"{quote(name)}.{quote(table)}", quote(subject), keys[name], kept.pipelines[name].stored
                    )
            found[name] = sorted(values)
    return found


def _values(con: DuckDBPyConnection, table: str, column: str, key: PseudonymKey, stored: Sequence[str]) -> set[str]:
    of, wanted = key.suppressing, ", ".join(map(literal, stored))
    values = f"SELECT DISTINCT {column}::VARCHAR AS value FROM {table}"
    select = f"SELECT value FROM ({values}) WHERE {of.sql('value')} IN ({wanted})"
    return {value for (value,) in con.execute(select, dict(of.values)).fetchall()}
