"""Golden rows that erasures left, beside the version: its folder's other files and its manifest stay as registered.

`<model>/erasures/v<n>.json` lists the erasures, of which the last says which file counts instead of golden.parquet:
`<model>/erasures/v<n>/<sha256>.parquet`. The list is replaced atomically, then the former file is removed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import AwareDatetime, TypeAdapter, ValidationError

from pip_dagster.registry.booster_signature import Record
from pip_dagster.registry.errors import CorruptRegistry
from pip_dagster.registry.files import locked, of_registry, replace_atomically
from pip_dagster.warehouse.faults import remedy

GOLDEN_FILE = "golden.parquet"


class Reissue(Record):
    """By which erasure golden rows were removed, when and by whom.

    `before` and `after` are the sha256 of the former and the new file, `positions` those of the removed rows in the
    former one: where that comes back from a backup, they can be removed again without knowing whose they are.
    """

    erasure_id: str
    at: AwareDatetime
    by: str
    before: str
    after: str
    positions: tuple[int, ...]
    rows_left: int


_LIST = TypeAdapter(tuple[Reissue, ...])


@dataclass(frozen=True)
class GoldenFiles:
    """Where the golden rows of a version are: its model's folder, its number, and their sha256 in its manifest."""

    model: Path
    number: int
    registered: str

    @property
    def reissues(self) -> tuple[Reissue, ...]:
        """The erasures that removed some, oldest first.

        Raises:
            CorruptRegistry: the list cannot be read, or is not of these golden rows.
        """
        path = self._list
        try:
            found = _LIST.validate_json(path.read_bytes())
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise CorruptRegistry(f"{path} cannot be read: {error.strerror}. {remedy(str(error))}") from error
        except ValidationError as error:
            what = error.errors()[0]["msg"]
            raise CorruptRegistry(
                f"{path} is not the list of erasures of golden rows ({what}); restore it from a backup"
            ) from error
        before = self.registered
        for each in found:
            if each.before != before:
                raise CorruptRegistry(
                    f"{path}: erasure {each.erasure_id} removed rows from other golden rows than those of {self}: the "
                    "list was edited, or is another version's; restore it from a backup"
                )
            before = each.after
        return found

    @property
    def current(self) -> tuple[Path, str]:
        """The file that counts, and its sha256. Raises as `reissues`."""
        found = self.reissues
        return (self._reissued(found[-1].after), found[-1].after) if found else (self._original, self.registered)

    def replace(self, made: Reissue, data: bytes) -> None:
        """Let `data` take the place of the golden rows, and remove the former file.

        Raises:
            CorruptRegistry: others took their place meanwhile.
            RegistryBusy: another process holds the model's lock.
            RegistryUnwritable: the disk is full, or this user may not write there.
        """
        with of_registry(self.model), locked(self.model / ".lock"):
            if self.current[1] != made.before:
                raise CorruptRegistry(f"{self}: another erasure removed golden rows meanwhile; resume this one")
            replace_atomically(self._reissued(made.after), data)
            replace_atomically(self._list, _LIST.dump_json((*self.reissues, made), indent=2))
        self.remove_former()

    def former(self) -> list[Path]:
        """Files of golden rows that do not count, still or again: of a kill, or from a backup. Raises as `reissues`."""
        counts, _ = self.current
        others = [self._original, *sorted(self._reissued("").parent.glob("*"))]
        return [path for path in others if path != counts and path.is_file()]

    def remove_former(self) -> None:
        """Remove them. Raises as `replace`."""
        with of_registry(self.model), locked(self.model / ".lock"):
            for path in self.former():
                path.unlink(missing_ok=True)

    @property
    def _original(self) -> Path:
        return self.model / "versions" / str(self.number) / GOLDEN_FILE

    def _reissued(self, digest: str) -> Path:
        return self.model / "erasures" / f"v{self.number}" / f"{digest}.parquet"

    @property
    def _list(self) -> Path:
        return self.model / "erasures" / f"v{self.number}.json"

    def __str__(self) -> str:
        return f"{self.model.name} v{self.number}"
