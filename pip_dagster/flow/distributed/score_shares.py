"""Staged features scored by the tasks of a cluster, and what they counted merged into what one machine would count."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from pip_dagster.flow.cost import Meter
from pip_dagster.flow.distributed.exchange import check_exchanged
from pip_dagster.flow.distributed.extract_shares import for_tasks, place_of, with_tasks
from pip_dagster.flow.distributed.model_files import ModelFiles
from pip_dagster.flow.distributed.shared_stage import SharedStage
from pip_dagster.flow.distributed.tasks import ScoredShare, ToScore, score_share
from pip_dagster.flow.findings import ScoringPolicy
from pip_dagster.flow.guard import Findings
from pip_dagster.flow.guard_composite import encode_model
from pip_dagster.flow.not_finite import refuse_not_finite
from pip_dagster.flow.score import Guarded, Scores, summarized
from pip_dagster.flow.scored_row import score_columns, scored_columns
from pip_dagster.ledger.profiles import Profile
from pip_dagster.plural import plural

if TYPE_CHECKING:
    from pip_dagster.declaration.pipeline import Pipeline
    from pip_dagster.registry.version import ModelVersion


@dataclass(frozen=True)
class SharedScores(Scores):
    """Scores in files of the exchange. `profiles`: of all rows, where they were requested.

    `threads`: of each task. `where`: on how many nodes, for people.
    """

    threads: int = 1
    where: str = ""
    profiles: Mapping[str, Sequence[Profile]] = field(default_factory=dict)


def score_shares(
    stage: SharedStage,
    pipeline: Pipeline,
    version: ModelVersion,
    partitions: Sequence[str],
    policy: ScoringPolicy | None = None,
    *,
    profiles: bool = False,
) -> SharedScores:
    """What `score` does, by tasks. A partition fails whole if any of its rows must not be scored.

    Raises:
        DeclarationError: the columns do not fit the model.
        ClusterError: the cluster cannot do the work.
        RegistryError: a file of the model is not the registered one.
    """
    cluster, spec, manifest, meter = stage.cluster, pipeline.spec, version.manifest, Meter()
    assert cluster
    encoded = encode_model(manifest, stage.columns, where=f"Pipeline {spec.name}, {spec.features.sql} for {version}")
    policy = policy or ScoringPolicy.declared(spec)
    types, scores = scored_columns(spec, manifest, stage.columns, policy.carried), score_columns(manifest)
    check_exchanged(spec.name, types)
    folder = cluster.new_folder("scores")
    quarantine = str(folder / "quarantine.parquet")
    stage.write_quarantine(quarantine)
    # What one share shows of the whole is judged here, by all of them.
    lenient = replace(policy, max_quarantined=1.0, refuse_not_finite=False)
    to = ToScore(
        *(place_of(cluster, folder), for_tasks(pipeline).spec, partitions, stage.columns, stage.files, quarantine),
        *(lenient, profiles),
    )
    numbers = list(stage.files) if partitions else []  # all may be blocked
    cluster.progress(f"{spec.name}: scoring {', '.join(partitions)} by {len(numbers)} tasks on the Ray cluster")
    shares: list[ScoredShare] = cluster.map(score_share, numbers, to, ModelFiles.of(version))
    stage.read_quarantine([each.quarantine for each in shares])
    guarded = added([each.guarded for each in shares], partitions)
    blocked, failed = guarded.blocked(policy), guarded.failed(policy, encoded)
    for each in shares:
        failed = each.failed | failed
    # Shares scored rows of partitions that only all shares together show to be refused.
    stage.show(stage.scores, [each.scores for each in shares], types, without=blocked.keys() | failed.keys())
    if policy.refuse_not_finite:
        failed |= refuse_not_finite(stage, types, scores, spec.decisions)
    counts = {key: each.rows for key, each in guarded.found.items()}
    own, rows = meter.shares(counts), max(1, sum(counts.values()))
    spent = [each.cost for each in shares]
    costs = {key: with_tasks(of, spent, counts[key] / rows) for key, of in own.items()}
    nodes = len({each.node for each in shares})
    scored = {
        key: replace(of, cluster=cluster.software, tasks=len(shares), nodes=nodes)
        for key, of in summarized(stage, types, scores, guarded, policy, costs).items()
        if key not in failed
    }
    found = merged_profiles([each.profiles for each in shares]) if profiles else {}
    where = f"{plural(len(shares), 'task')} on {plural(nodes, 'node')} of a Ray cluster"
    return SharedScores(types, scored, failed, blocked, encoded, guarded, cluster.cpus, where, found)


def added(parts: Sequence[Guarded], partitions: Sequence[str]) -> Guarded:
    """The counts of all shares: every row is in exactly one of them."""
    found = {key: Findings(0, {}, {}, {}) for key in partitions}
    unseen: dict[str, dict[str, int]] = {key: {} for key in partitions}
    apart: Counter[str] = Counter()
    for part in parts:
        apart.update(part.apart)
        for key in partitions:
            found[key] = found[key] + part.found[key]
            unseen[key] = dict(Counter(unseen[key]) + Counter(part.unseen[key]))
    return Guarded(found, unseen, dict(apart))


def merged_profiles(parts: Sequence[Mapping[str, Sequence[Profile]]]) -> dict[str, list[Profile]]:
    """The profiles of all shares: counts add up; means and deviations are weighted by the values they are of."""
    found: dict[str, list[Profile]] = {}
    for key in dict.fromkeys(key for part in parts for key in part):
        columns: dict[tuple[str, str], list[Profile]] = {}
        for part in parts:
            for profile in part.get(key, ()):
                columns.setdefault((profile.column_kind, profile.name), []).append(profile)
        found[key] = [_one(of) for of in columns.values()]
    return found


def _one(parts: Sequence[Profile]) -> Profile:
    weights = [each.rows - each.missing - each.unseen for each in parts]
    total = sum(weights)
    mean = sd = None
    measured = [(n, each.mean, each.sd or 0.0) for n, each in zip(weights, parts, strict=True) if each.mean is not None]
    if measured and total:
        mean = math.fsum(n * of for n, of, _ in measured) / total
        sd = math.sqrt(math.fsum(n * (spread**2 + (of - mean) ** 2) for n, of, spread in measured) / total)
    return replace(
        parts[0],
        rows=sum(each.rows for each in parts),
        counts=[sum(of) for of in zip(*(each.counts for each in parts), strict=True)],
        missing=sum(each.missing for each in parts),
        unseen=sum(each.unseen for each in parts),
        mean=mean,
        sd=sd,
    )
