"""Texts that people give and that are kept, such as the reason of an erasure: they must not name the subject."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from pip_dagster.errors import DeclarationError
from pip_dagster.privacy.keys import keys_of
from pip_dagster.privacy.suppressed import stored_values

if TYPE_CHECKING:
    from pip_dagster.declaration.pipeline import Pipeline

_SHORT = 2  # characters: such as the 17 of "GDPR, article 17"
_SEPARATORS = r"[\s|:;,/]+"  # between the parts of a composite identifier
_MOST_WORDS = 12  # of an identifier in a text, where only its keyed hash is known


def check_texts(pipelines: Iterable[Pipeline], subject: str, texts: Mapping[str, str | None]) -> None:
    """Refuse texts that name a subject; they are kept in the ledger and the audit. `texts`: option → text.

    Raises:
        DeclarationError: one has the identifier, a part of it or a pseudonym as a word of its own; a secret is missing.
        WarehouseError: the warehouse cannot be read.
    """
    values = {subject}.union(*(stored_values(each, subject) for each in pipelines))
    parts = {*re.split(_SEPARATORS, subject)} - values
    for option, text in texts.items():
        for names, what in ((values, "the identifier"), (parts, "a part of the identifier")):
            if any(_names(text or "", name) for name in names):
                raise _refused(option, what)


def check_text_of(pipelines: Iterable[Pipeline], hashes: Iterable[str], option: str, text: str) -> None:
    """The same where the subject is known by keyed hashes alone: any words of the text may be the identifier.

    Raises:
        DeclarationError: some are; a secret is missing.
    """
    known, words = {*hashes}, {*_runs_of_words(text)}
    for pipeline in pipelines:
        for key in keys_of(pipeline):
            if any(key.suppressing.pseudonym(each) in known for each in words):
                raise _refused(option, "the identifier")


def _refused(option: str, what: str) -> DeclarationError:
    return DeclarationError(
        f"{option} has {what} of the subject in clear text, and it is kept for good in the ledger and the audit. "
        "Nothing was changed. Name the request instead, such as 'request 17'."
    )


def _names(text: str, name: str) -> bool:
    return len(name) > _SHORT and re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text, re.IGNORECASE) is not None


def _runs_of_words(text: str) -> Iterator[str]:
    """Each piece of a text from the beginning of a word to the end of one, of so many words at the most."""
    words = [found.span() for found in re.finditer(r"\w+", text)]
    for i, (start, _) in enumerate(words):
        for _, end in words[i : i + _MOST_WORDS]:
            if end - start > _SHORT:
                yield text[start:end]
