"""Options that several commands share: what they are called, how their values are read, and which version they name."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from pip_dagster.declaration.model_names import parse_ref

if TYPE_CHECKING:
    from pip_dagster.declaration.pipeline import Pipeline

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")
show_keys_option = click.option(
    "--show-keys", is_flag=True, help="Print keys of rows that differ, where `privacy` is declared too."
)
why_option = click.option("--why", default="", help="The reason, for the ledger and the audit.")
last_option = click.option(
    "--last", default=31, show_default=True, type=click.IntRange(min=1), help="How many partitions to show."
)


class Instant(click.ParamType):
    """An instant in ISO 8601; UTC if it has no offset."""

    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Parse it, or report what was expected."""
        try:
            at = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
        except ValueError:
            self.fail(f"{value!r} is not an instant; expected for example 2013-08-31T12:00:00+00:00", param, ctx)
        return at if at.tzinfo else at.replace(tzinfo=UTC)


class KeyRange(click.ParamType):
    """`A..B`, first and last partition key; one key alone is a range of one."""

    name = "A..B"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        """Parse it, or report what was expected."""
        if isinstance(value, tuple):
            return value
        first, dots, last = str(value).partition("..")
        if not first or (dots and not last):
            self.fail(
                f"{value!r} is not a range of partitions; expected for example 2013-08-01..2013-08-07", param, ctx
            )
        return first, last or first


def version_number(pipeline: Pipeline, ref: str | None) -> int | None:
    """The version of the pipeline's model that `2`, `v2` or an alias names; None without one."""
    from pip_dagster.registry.choose import registry_of

    wanted = parse_ref(ref) if ref else None
    if wanted is None or isinstance(wanted, int):
        return wanted
    return registry_of(pipeline.project, pipeline.spec.scoring).get(pipeline.spec.scoring.model_name, wanted).version
