"""What is requested of a training set, and what is recorded of one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from pip_dagster import __version__
from pip_dagster.declaration.canonical import canonical
from pip_dagster.declaration.partition import Partition
from pip_dagster.errors import DeclarationError
from pip_dagster.plural import plural

if TYPE_CHECKING:
    from pip_dagster.declaration.pipeline import Pipeline

FORMAT = 1


class TrainingRules(TypedDict, total=False):
    """Which rows a training set leaves out, and what is proven of it; see `TrainingRequest`."""

    labels: bool
    as_known: bool
    mature_only: bool
    labelled_only: bool
    prove: int


@dataclass(frozen=True)
class TrainingRequest:
    """Which rows are wanted.

    Attributes:
        pipeline: whose features and labels.
        partitions: in the order of time.
        columns: the features to give; all that the SQL selects when None. Key and partition column always are.
        labels: whether each row has its outcome.
        as_known: build each partition from the rows that were available at its close.
        mature_only: leave out partitions whose labels are not complete.
        labelled_only: leave out rows without a label.
        prove: in how many partitions it is proven that features do not depend on later rows.
    """

    pipeline: Pipeline
    partitions: tuple[Partition, ...]
    columns: tuple[str, ...] | None = None
    labels: bool = True
    as_known: bool = False
    mature_only: bool = True
    labelled_only: bool = False
    prove: int = 3

    def check(self) -> None:
        """Refuse labels where none are declared.

        Raises:
            DeclarationError: says what to declare.
        """
        if self.labels and self.pipeline.labels is None:
            raise DeclarationError(
                f"Pipeline {self.pipeline.spec.name} declares no labels. Declare `labels` with the SQL that selects "
                "the outcomes, or take the features alone: `features(...)`, or `features export` without --labels."
            )

    @property
    def identifying(self) -> tuple[str, ...]:
        """The columns that are given whatever is chosen."""
        features = self.pipeline.spec.features
        return (*features.key, features.partition_column)


@dataclass(frozen=True)
class TrainingProof:
    """Whether features were compared with those from the rows known at the time, and where.

    `not provable`: no source declares `available_at`, so nothing shows what was known when. `limited_sources` are those
    that do, `unlimited_sources` are assumed to be always known.
    """

    verdict: Literal["holds", "not provable", "not run"]
    partitions: tuple[str, ...] = ()
    rows: int = 0
    cutoffs: int = 0
    limited_sources: tuple[str, ...] = ()
    unlimited_sources: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """One sentence."""
        if self.verdict == "holds":
            where = ", ".join(
                plural(count, what)
                for count, what in (
                    (len(self.partitions), "partition"),
                    (self.cutoffs, "cut-off"),
                    (self.rows, "row"),
                )
            )
            return f"no feature depends on later rows ({where})"
        if self.verdict == "not run":
            return "not run"
        return "not provable: no source declares `available_at`"


@dataclass(frozen=True)
class TrainingManifest:
    """What a training set was built from; equal content gives an equal manifest.

    Attributes:
        pipeline: its name.
        digest: of the rows, whatever their order.
        first: the key of the first partition that was requested.
        last: the key of the last one.
        partitions: how many partitions are in it.
        rows: how many rows.
        labelled: those with a label.
        unlabelled_dropped: rows that were left out because they have none.
        quarantined: rows that an expectation quarantined, which scoring would not score either.
        excluded: partition key → why scoring would refuse it; none of its rows is in the set.
        immature: partitions that were left out because their labels are not complete.
        provisional: partitions whose sources may still be incomplete.
        outcome: the column of the label; None without labels.
        as_known: whether features are built from what was available at each partition's close.
        features_digest: of the feature SQL and what it reads, as the ledger has it.
        labels_digest: of the labels' SQL, key and outcome.
        sources: source → a digest of its rows in these partitions.
        proof: that features do not depend on later rows.
        columns: column → SQL type.
        version: of this package.
    """

    pipeline: str
    digest: str
    first: str
    last: str
    partitions: int
    rows: int
    labelled: int
    unlabelled_dropped: int
    quarantined: int
    excluded: dict[str, str]
    immature: tuple[str, ...]
    provisional: tuple[str, ...]
    outcome: str | None
    as_known: bool
    features_digest: str
    labels_digest: str | None
    sources: dict[str, str]
    proof: TrainingProof
    columns: dict[str, str]
    version: str = __version__
    format: int = FORMAT

    def to_json(self) -> str:
        """The manifest as JSON; equal manifests give equal text."""
        return json.dumps(asdict(self), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str | bytes) -> TrainingManifest:
        """The manifest that `to_json` wrote."""
        found: dict[str, Any] = json.loads(text)
        proof: dict[str, Any] = {
            name: tuple(of) if isinstance(of, list) else of for name, of in found.pop("proof").items()
        }
        for name in ("immature", "provisional"):
            found[name] = tuple(found[name])
        return cls(**found | {"proof": TrainingProof(**proof)})

    @property
    def left_out(self) -> list[str]:
        """What is not in the set, in sentences; nothing where nothing was left out."""
        texts = [f"{plural(len(self.excluded), 'partition')} that scoring would refuse"] if self.excluded else []
        texts += [f"{plural(len(self.immature), 'partition')} with incomplete labels"] if self.immature else []
        texts += [f"{plural(self.quarantined, 'row')} in quarantine"] if self.quarantined else []
        texts += [f"{plural(self.unlabelled_dropped, 'row')} without a label"] if self.unlabelled_dropped else []
        return texts


def described(
    request: TrainingRequest,
    *,
    digest: str,
    rows: tuple[int, int, int, int],
    sources: Mapping[str, Mapping[str, Mapping[str, object]]],
    left_out: tuple[Mapping[str, str], Sequence[str]],
    beside: Mapping[str, Any],
) -> TrainingManifest:
    """The manifest of a set.

    Args:
        request: what was wanted.
        digest: of the rows.
        rows: all, those with a label, those dropped because they have none, those in quarantine.
        sources: partition key → source → rows and digest.
        left_out: the excluded partitions with reasons, and the immature ones.
        beside: the other fields.
    """
    pipeline, of = request.pipeline, {name for each in sources.values() for name in each}
    excluded, immature = left_out
    return TrainingManifest(
        pipeline=pipeline.spec.name,
        digest=digest,
        first=request.partitions[0].key,
        last=request.partitions[-1].key,
        partitions=len(sources),
        rows=rows[0],
        labelled=rows[1],
        unlabelled_dropped=rows[2],
        quarantined=rows[3],
        excluded=dict(sorted(excluded.items())),
        immature=tuple(sorted(immature)),
        outcome=pipeline.labels.outcome if request.labels and pipeline.labels else None,
        as_known=request.as_known,
        features_digest=pipeline.features_declared(as_known=request.as_known).digest,
        labels_digest=_labels_digest(pipeline) if request.labels else None,
        sources={name: _sha256({key: each.get(name) for key, each in sources.items()}) for name in sorted(of)},
        **beside,
    )


def _labels_digest(pipeline: Pipeline) -> str:
    labels = pipeline.labels
    assert labels
    return _sha256({"sql": pipeline.labels_sql, "key": pipeline.label_key, "outcome": labels.outcome})


def _sha256(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical(content).encode()).hexdigest()
