"""What may be declared of people: whose rows they are, and what stands for a person where rows are kept."""

from __future__ import annotations

import os
import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, StringConstraints, field_validator, model_validator

from pip_dagster.declaration.strict import StrictModel
from pip_dagster.errors import DeclarationError

Variable = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
_VERSION = r"^[a-z0-9]{1,16}$"
Version = Annotated[str, StringConstraints(pattern=_VERSION)]

LEAST_BYTES = 16
LOCAL = "local"  # the version of the secret beside the warehouse
# AI Act, articles 19 and 26(6): logs of a high-risk system are kept for at least six months.
LEAST_KEPT = timedelta(days=183)
_PERIOD = re.compile(r"^\s*(\d{1,4})\s*(day|week|month|year)s?\s*$")
# A month has at least 28 days, and what is kept longer than declared is the smaller harm.
_DAYS = {"day": 1, "week": 7, "month": 31, "year": 366}


def _period(value: object) -> object:
    if isinstance(value, str):
        match = _PERIOD.match(value)
        if not match or not int(match[1]):
            raise ValueError(f"{value!r} is not a period; expected for example '13 months' or '90 days'")
        return timedelta(days=int(match[1]) * _DAYS[match[2]])
    if value is not None and not isinstance(value, timedelta):
        raise ValueError(f"{value!r} has no unit; expected for example '{value} months'")
    return value


Period = Annotated[timedelta, BeforeValidator(_period, json_schema_input_type=str)]


class Secret(StrictModel):
    """Where a secret is; it never stands in the declaration."""

    key_env: Variable | None = Field(default=None, description="The environment variable that has the secret.")
    key_file: str | None = Field(default=None, description="A file that has it: a path, relative to the project.")

    @model_validator(mode="after")
    def _one(self) -> Any:
        if (self.key_env is None) == (self.key_file is None):
            raise ValueError("takes one of `key_env` and `key_file`, which say where the secret is")
        return self

    def read(self, root: Path, where: str) -> bytes:
        """The secret, which must not be shown; `where` begins the error.

        Raises:
            DeclarationError: there is none, or it is too short.
        """
        if self.key_env is not None:
            what, found = f"the environment variable {self.key_env}", os.environ.get(self.key_env, "").strip().encode()
        else:
            what = f"the file {root / str(self.key_file)}"
            try:
                found = (root / str(self.key_file)).read_bytes().strip()
            except OSError as error:
                raise DeclarationError(f"{where}: {what} of its secret cannot be read: {error.strerror}.") from None
        if not found:
            raise DeclarationError(
                f"{where}: {what} has no secret. Set it in the environment of every process of Dagster and of the "
                "command line. A secret is made by `openssl rand -hex 32`, once; who loses it cannot look anybody up."
            )
        if len(found) < LEAST_BYTES:
            raise DeclarationError(f"{where}: {what} has a secret of {len(found)} bytes; expected at least 16.")
        return found


class Pseudonymize(Secret):
    """By which secret pseudonyms are made, and by which they were made before."""

    version: Version = Field(default="k1", description="The name of the secret, with which each pseudonym begins.")
    former: dict[str, Secret] = Field(
        default_factory=dict, description="Version → secret: those of stored rows that are not rotated yet."
    )

    @field_validator("version")
    @classmethod
    def _not_local(cls, value: str) -> str:
        if value == LOCAL:
            raise ValueError(
                f"`{LOCAL}` names the secret beside the warehouse, by which erased subjects are known where no "
                "pseudonyms are declared; give this one another name, such as `k1`"
            )
        return value

    @field_validator("former")
    @classmethod
    def _versions(cls, value: dict[str, Secret]) -> dict[str, Secret]:
        for name in value:
            if not re.fullmatch(_VERSION, name):
                raise ValueError(f"{name!r} is no name of a secret; expected up to 16 small letters and digits")
        return value

    @model_validator(mode="after")
    def _not_its_own(self) -> Pseudonymize:
        if self.version in self.former:
            raise ValueError(f"`former` has the present version {self.version!r} too; give the new secret another name")
        return self


class Retention(StrictModel):
    """Two clocks: that of contents, and that of evidence."""

    content: Period | None = Field(
        default=None,
        description="Features, scores, reasons and quarantined rows: such as `13 months`; forever when absent.",
    )
    evidence: Period | None = Field(
        default=None, description="How long the ledger and the audit must be kept; `purge` never removes them earlier."
    )


class Privacy(StrictModel):
    """Whose rows they are, and how they are kept."""

    subject: str = Field(
        min_length=1, description="The column of the feature SQL that says whom a row is about, such as `customer_id`."
    )
    domain: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,64}$")] | None = Field(
        default=None,
        description="Pipelines of one domain have the same pseudonym of a person; the pipeline's name when absent.",
    )
    pseudonymize: Pseudonymize | None = Field(
        default=None, description="Store a pseudonym instead of the subject; as it is when absent."
    )
    retention: Retention = Field(default_factory=Retention, description="How long contents and evidence are kept.")
    high_risk: bool = Field(
        default=False, description="Whether it is a high-risk system under the AI Act, whose logs are kept six months."
    )

    @field_validator("subject")
    @classmethod
    def _subject(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("is empty; expected a column")
        return value

    @model_validator(mode="after")
    def _long_enough(self) -> Privacy:
        content, evidence = self.retention.content, self.retention.evidence
        if self.high_risk and content is not None and content < LEAST_KEPT:
            raise ValueError(
                f"`retention.content` of {content.days} days is too short with `high_risk: true`: its logs are kept "
                "for at least six months (AI Act, articles 19 and 26). Declare '6 months' or more"
            )
        if content and evidence and evidence < content:
            raise ValueError("`retention.evidence` is shorter than `retention.content`; evidence outlives contents")
        return self
