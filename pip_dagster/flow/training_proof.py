"""The proof that comes with a training set: features of some of its partitions do not depend on later rows."""

from __future__ import annotations

from collections.abc import Callable

from pip_dagster.declaration.ranges import evenly
from pip_dagster.errors import LeakError
from pip_dagster.flow.point_in_time import Proof, prove
from pip_dagster.flow.training_manifest import TrainingProof, TrainingRequest
from pip_dagster.plural import plural

_CUTOFFS = 4  # in each partition, evenly spaced: the SQL runs once for each


def proven(request: TrainingRequest, progress: Callable[[str], None]) -> TrainingProof:
    """Compare features of `request.prove` partitions, evenly spread, with those from the rows known at the time.

    Raises:
        DeclarationError: the SQL or the cut-off cannot run.
        LeakError: a feature differs; names it, and no row.
        SourceError: a source cannot be read.
    """
    spec, read = request.pipeline.spec, request.pipeline.read_sources  # what only labels read proves nothing
    limited = tuple(name for name, source in read.items() if source.available_at)
    unlimited = tuple(name for name in read if name not in limited)
    if not limited:
        return TrainingProof("not provable", unlimited_sources=unlimited)
    if request.prove < 1:
        return TrainingProof("not run")
    proofs: list[Proof] = []
    for partition in evenly(request.partitions, request.prove):
        progress(f"{spec.name}: proving that features of {partition.key} do not depend on later rows")
        proof = prove(request.pipeline, partition, most_cutoffs=_CUTOFFS, as_known=request.as_known)
        if proof.leaks:
            raise _leak(request, proof)
        proofs.append(proof)
    return TrainingProof(
        "holds",
        tuple(each.partition for each in proofs),
        sum(each.rows for each in proofs),
        sum(each.cutoffs_tried for each in proofs),
        limited,
        unlimited,
    )


def _leak(request: TrainingRequest, proof: Proof) -> LeakError:
    listed = ", ".join(f"{leak.feature} in {plural(leak.rows, 'row')}" for leak in proof.leaks[:5])
    more = f" and {len(proof.leaks) - 5} more" if len(proof.leaks) > 5 else ""
    hidden = "" if request.as_known else "build each partition from what was available at its close (as_known), "
    name = proof.pipeline
    return LeakError(
        f"Pipeline {name}, partition {proof.partition}: features depend on rows that were not available at the time: "
        f"{listed}{more}. Correct the SQL or the source's `available_at`, {hidden}or skip the "
        f"proof (prove=0). `pip-dagster prove-point-in-time {name} --partition {proof.partition}` lists the rows.",
        pipeline=name,
        partition=proof.partition,
        features=[leak.feature for leak in proof.leaks],
    )
