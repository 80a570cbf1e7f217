"""The scorecard as a self-contained page and in Markdown: the same bytes from the same content."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pip_dagster.reporting.page import environment
from pip_dagster.scorecard.catalogue import SECTIONS

if TYPE_CHECKING:
    from pip_dagster.scorecard.score import Scorecard


def to_html(card: Scorecard) -> str:
    """The page."""
    return environment().get_template("scorecard.html").render(card=card, sections=SECTIONS)


def to_markdown(card: Scorecard) -> str:
    """The same in Markdown."""
    text = environment().get_template("scorecard.jinja").render(card=card, sections=SECTIONS)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"
