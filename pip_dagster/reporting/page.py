"""A report as one self-contained HTML page: no script, nothing fetched, the same bytes from the same content."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pip_dagster.printable import printable
from pip_dagster.reporting import views
from pip_dagster.reporting.verdict import grouped, titled

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

    from pip_dagster.reporting.compared import Comparison
    from pip_dagster.reporting.content import Report

_SHORT = 60
# Rows of a table of features; the JSON has all of them.
MOST_ROWS = 300


def to_html(report: Report) -> str:
    """The page of a pipeline."""
    return environment().get_template("report.html").render(report=report, charts=views.Charts(report))


def card_to_html(report: Report) -> str:
    """The model card of a report's live version as a page."""
    return environment().get_template("card.html").render(report=report, charts=views.Charts(report))


def card_to_markdown(report: Report) -> str:
    """The same in Markdown."""
    text = environment().get_template("card.jinja").render(report=report)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def comparison_to_html(found: Comparison) -> str:
    """The page that compares two versions or arms."""
    return environment().get_template("compare.html").render(found=found, charts=views.Pair(found))


def to_json(content: Report | Comparison) -> str:
    """The same content for machines."""
    text = json.dumps(asdict(content), ensure_ascii=False, indent=1, allow_nan=False)
    # Half of a surrogate pair is no UTF-8; its escape is JSON.
    return text.encode("utf-8", "backslashreplace").decode() + "\n"


@cache
def environment() -> Environment:
    """The templates with their filters."""
    import jinja2

    folder = Path(__file__).parent / "templates"
    found = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    found.filters |= {
        each.__name__: each
        for each in (number, whole, share, short, rough, edge, instant, breakable, titled, grouped, cell)
    }
    found.globals |= {"most_rows": MOST_ROWS}
    return found


def _shown(value: Any) -> Any:
    """Each value before it is escaped: text of users has no character that a page obeys, None is empty."""
    if value is None:
        return ""
    return printable(value) if type(value) is str else value


def number(value: float | None, digits: int = 3) -> str:
    """A figure with so many significant digits."""
    if value is None:
        return "–"
    text = f"{value:.{digits}g}"
    return f"{value:,.0f}" if "e+" in text else text.replace("-", "−")


def whole(value: int | None) -> str:
    """A count."""
    return "–" if value is None else f"{value:,}"


def share(value: float | None) -> str:
    """A share as a percentage."""
    return "–" if value is None else f"{value:.1%}"


def short(text: str) -> str:
    """A name of any length, for headings and charts; tables have it whole."""
    return text if len(text) <= _SHORT else f"{text[: _SHORT - 1]}…"


def rough(text: str) -> str:
    """A text whose long decimal numbers have three significant digits; tables have them whole."""
    return re.sub(r"\d*\.\d{3,}", lambda found: f"{float(found[0]):.3g}", text)


def edge(text: str) -> str:
    """The name of a bin, for an axis."""
    return rough(text).replace("up to ", "≤ ").replace("above ", "> ")


def instant(text: str | None) -> str:
    """An instant of the content for people."""
    return f"{text[:10]} {text[11:16]} UTC" if text else ""


def cell(text: str) -> Markup:
    """A text in a cell of a Markdown table, in which nothing ends the cell or begins markup."""
    from markupsafe import Markup

    escaped = re.sub(r"([\\`*_\[\]|~])", r"\\\1", " ".join(printable(text).split()))
    return Markup(escaped.replace("&", "&amp;").replace("<", "&lt;"))  # noqa: S704 - quotes are no markup there


def breakable(text: str) -> Markup:
    """A text whose names may break behind an underscore or a dot."""
    from markupsafe import Markup, escape

    # A Markup would escape what is inserted.
    return Markup(re.sub(r"(?<=[^\W\d])([_.])(?=[^\W\d])", r"\1<wbr>", str(escape(printable(text)))))  # noqa: S704
