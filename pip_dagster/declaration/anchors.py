"""Where the audit is anchored: `[tool.pip_dagster.anchors]` in a project's pyproject.toml."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from pip_dagster.declaration.automation import Webhook
from pip_dagster.declaration.strict import StrictModel


class AnchorPlace(StrictModel):
    """One place where anchors are stored; whoever can write to the warehouse should not be able to change it."""

    file: str | None = Field(default=None, description="A file, relative to the project; a line is added to it.")
    git: str | None = Field(default=None, description="A git repository, relative to the project; a tag is added.")
    command: tuple[str, ...] = Field(default=(), description="A command that gets the anchor on its standard input.")
    webhook: Webhook | None = Field(default=None, description="An address that the anchor is posted to.")

    @model_validator(mode="after")
    def _one(self) -> AnchorPlace:
        given = [key for key in ("file", "git", "command", "webhook") if getattr(self, key)]
        if len(given) != 1:
            raise ValueError(f"names {', '.join(given) or 'nothing'}; expected one of file, git, command, webhook")
        return self

    @property
    def can_be_read(self) -> bool:
        """Whether anchors can be read back from it."""
        return bool(self.file or self.git)


class Anchors(StrictModel):
    """The key that signs, the keys that are trusted, and the places."""

    key: str = Field(
        description="The private key, Ed25519 in PEM, that signs anchors: a file, relative to the project. "
        "`pip-dagster models keygen PATH` creates one."
    )
    signers: tuple[str, ...] = Field(
        min_length=1,
        description="The public keys that `audit verify --anchors` trusts: PEM files, or base64 of 32 bytes. Keep the "
        "old ones when the key is replaced.",
    )
    places: Annotated[
        dict[str, AnchorPlace], Field(min_length=1, description="Name → `{file}`, `{git}`, `{command}` or `{webhook}`.")
    ]
    timeout: float = Field(default=10, gt=0, le=60, description="Seconds that a place may take.")
