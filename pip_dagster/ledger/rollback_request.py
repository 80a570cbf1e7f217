"""What a rollback is asked to do, and what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, TypedDict

from pip_dagster.declaration.key_order import Between, between
from pip_dagster.errors import RollbackError
from pip_dagster.ledger.rollback_plan import Flip, Missing

if TYPE_CHECKING:
    from pip_dagster.declaration.spec import Partitions


class RollbackTarget(TypedDict, total=False):
    """What `rollback` goes back to, see `RollbackRequest`."""

    to_version: int | None
    partitions: tuple[str, str] | None
    as_of: datetime | None
    keep_alias: bool


@dataclass(frozen=True)
class RollbackRequest:
    """What to roll back to: the version before, `to_version`, or what was live `as_of`; of all or some `partitions`."""

    pipeline: str
    why: str
    by: str
    to_version: int | None = None
    partitions: tuple[str, str] | None = None
    as_of: datetime | None = None
    keep_alias: bool = False

    @property
    def moves_alias(self) -> bool:
        """Whether the alias moves too: a rollback of some partitions does not change what scores later ones."""
        return self.partitions is None and not self.keep_alias

    def check(self) -> None:
        """Raise RollbackError for a request that contradicts itself."""
        if self.to_version is not None and self.as_of is not None:
            raise RollbackError("A rollback goes to a version or to an instant, not to both: use only one of them.")
        if self.as_of and self.as_of.tzinfo is None:
            raise RollbackError(f"The instant {self.as_of} has no time zone; add one, for example +00:00.")

    def between(self, declared: Partitions) -> Between:
        """The partitions that it names, of all where it names none.

        Raises:
            RollbackError: a bound is no partition key, or the range is empty.
        """
        try:
            return between(declared, *self.partitions) if self.partitions else Between()
        except ValueError as error:
            raise RollbackError(f"Pipeline {self.pipeline}: {error}. Nothing was rolled back.") from error


@dataclass(frozen=True)
class AliasMove:
    """A move of the pipeline's alias."""

    alias: str
    before: int | None
    after: int


@dataclass(frozen=True)
class RollbackResult:
    """What a rollback changed, or would change (`dry_run`).

    `kept`: partitions that needed no change. `resumed`: it completed one that was killed. `seconds`: of the
    transaction. `published`: partitions published afterwards.
    """

    rollback_id: str
    pipeline: str
    model_name: str
    flips: Sequence[Flip]
    missing: Sequence[Missing]
    kept: int
    version: int | None
    alias: AliasMove | None
    alias_version: int | None
    resumed: bool
    dry_run: bool
    seconds: float = 0.0
    published: int = 0

    @property
    def complete(self) -> bool:
        """Whether every requested partition is live with the requested scores."""
        return not self.missing
