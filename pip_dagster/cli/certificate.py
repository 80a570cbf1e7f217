"""`pip-dagster certificate`: what an erasure or a purge removed, signed."""

from __future__ import annotations

from pathlib import Path

import click

from pip_dagster.cli.options import json_option
from pip_dagster.cli.output import echo, near, show_json
from pip_dagster.declaration.project import Project
from pip_dagster.errors import ErasureError, StorageError


@click.command()
@click.argument("erasure", metavar="ID", required=False)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The file: `.html` is a page, every other name the signed JSON.",
)
@click.option(
    "--verify",
    "to_verify",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Verify a certificate in JSON; no warehouse is needed.",
)
@click.option("--signer", help="The public key that must have signed it: a PEM file, or base64.")
@json_option
@click.pass_obj
def certificate(
    folder: Path | None,
    erasure: str | None,
    output: Path | None,
    to_verify: Path | None,
    signer: str | None,
    as_json: bool,
) -> None:
    """Show or write the certificate of the erasure or purge ID, or verify one that somebody has.

    An erasure that is not done has none: the error names the places that are missing. Exit code 1 of --verify: it was
    edited, is not signed, or another key signed it.
    """
    if to_verify:
        if erasure or output or not signer:
            raise click.UsageError("--verify FILE needs --signer PUBLIC_KEY, and neither an ID nor --output.")
        _verify(to_verify, signer, as_json)
        return
    if not erasure or signer:
        raise click.UsageError("Name the erasure, or pass --verify FILE --signer PUBLIC_KEY.")
    from pip_dagster.declaration.canonical import canonical
    from pip_dagster.erasure.certificate import certificate_of, to_html
    from pip_dagster.reporting.subject_page import write_private

    found = certificate_of(Project.named(folder) if folder else Project.find(), erasure)
    if output:
        page = output.suffix.lower() == ".html"
        path, sha256, _ = write_private(output, [to_html(found) if page else canonical(found) + "\n"])
        if as_json:
            show_json({"file": str(path), "sha256": sha256, "signed_by": found["key"]})
            return
        echo(f"{near(path)}: {_signed(found['key'], found['unsigned'])}")
    elif as_json:
        show_json(found)
    else:
        months = "" if found["in_time"] is None else f", {'within' if found['in_time'] else 'later than'} one month"
        echo(f"{found['kind']} {erasure}: completed {found['completed_at'][:19]}{months}")
        echo(_signed(found["key"], found["unsigned"]))
        for place in found["places"]:
            remains = f"; remains: {place['remains']}" if place["remains"] else ""
            of = f" of {place['pipeline']}" if place["pipeline"] else ""
            echo(f"- {place['place']}{of}: {place['rows_removed']} removed; {place['verified']}{remains}")


def _signed(key: str | None, unsigned: str | None) -> str:
    return f"signed by the key {key}" if key else f"not signed: {unsigned}"


def _verify(file: Path, signer: str, as_json: bool) -> None:
    from pip_dagster.erasure.certificate import verify_certificate
    from pip_dagster.evidence.signed import trusted_keys

    keys = trusted_keys(Path.cwd(), [signer])
    try:
        content = verify_certificate(file.read_text("utf-8"), keys)
    except OSError as error:
        raise StorageError(f"{file} cannot be read: {error.strerror}.") from None
    except ValueError as error:
        what = "it is no text" if isinstance(error, UnicodeError) else str(error)
        raise ErasureError(f"{file} is not verified: {what}.") from None
    if as_json:
        show_json({"verified": True, "key": content["key"], "erasure_id": content["erasure_id"]})
    else:
        echo(f"{file}: the certificate of {content['kind']} {content['erasure_id']} is as {content['key']} signed it.")
