"""Options that are an instant or a range."""

from __future__ import annotations

from datetime import UTC, datetime

import click


class Instant(click.ParamType):
    """An instant in ISO 8601; UTC where it names no offset."""

    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Parse it, or say what was expected."""
        try:
            at = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
        except ValueError:
            self.fail(f"{value!r} is not an instant; expected for example 2013-08-31T12:00:00+00:00", param, ctx)
        return at if at.tzinfo else at.replace(tzinfo=UTC)


class KeyRange(click.ParamType):
    """`A..B`, first and last partition key; one key alone is a range of one."""

    name = "A..B"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        """Parse it, or say what was expected."""
        if isinstance(value, tuple):
            return value
        first, dots, last = str(value).partition("..")
        if not first or (dots and not last):
            self.fail(
                f"{value!r} is not a range of partitions; expected for example 2013-08-01..2013-08-07", param, ctx
            )
        return first, last or first
