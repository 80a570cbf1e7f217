"""A connection to a Ray cluster: checked before anything is read, given work in tasks, and left as it was."""

from __future__ import annotations

import logging
import os
import re
import secrets
import shutil
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pip_dagster.declaration.canonical import canonical
from pip_dagster.declaration.engine import RayEngine
from pip_dagster.errors import (
    ClusterError,
    DeclarationError,
    MemoryLimitError,
    PipelineError,
    RegistryError,
    SourceError,
    SpillError,
)
from pip_dagster.flow.distributed.exchange import exchange_folder
from pip_dagster.flow.engine import library_versions
from pip_dagster.quoted import first

if TYPE_CHECKING:
    from pip_dagster.declaration.pipeline import Pipeline

# Ray repeats a task whose worker or node died so many times, and never one that raised an error.
RETRIES = 3
_REACHABLE_WITHIN = 10.0
_POLL_SECONDS = 1.0
_KINDS = (ClusterError, DeclarationError, MemoryLimitError, RegistryError, SourceError, SpillError)


@dataclass(frozen=True)
class Trouble:
    """An error of a task that a user can fix: its type, its text, and the node that it happened on."""

    kind: str
    text: str
    node: str

    def error(self) -> PipelineError:
        """The error to raise in the run."""
        kind = next((each for each in _KINDS if each.__name__ == self.kind), ClusterError)
        return kind(f"On the Ray node {self.node}: {self.text}")


@dataclass(frozen=True)
class Cluster:
    """A cluster that a run is connected to: the run's folder of the exchange, and the tasks of a partition.

    `cpus`: of each task.
    """

    folder: Path
    tasks: int
    cpus: int
    progress: Callable[[str], None]

    @property
    def software(self) -> str:
        """For the ledger."""
        import ray

        return f"ray {ray.__version__}"

    def new_folder(self, what: str) -> Path:
        """An empty folder in the run's."""
        folder = self.folder / f"{what}_{secrets.token_hex(4)}"
        folder.mkdir()
        return folder

    def clear(self) -> None:
        """Remove what was exchanged so far."""
        for each in self.folder.iterdir():
            shutil.rmtree(each, ignore_errors=True)

    def map(self, task: Callable[..., Any], items: Sequence[Any], *common: Any) -> list[Any]:
        """`task(item, *common)` of each item, in order, on the cluster; `common` reaches each node once.

        Raises:
            PipelineError: a task returned `Trouble`; the others are cancelled.
            ClusterError: a task lost its worker too often, or cannot run there.
        """
        import ray

        remote = ray.remote(num_cpus=self.cpus, max_retries=RETRIES, scheduling_strategy="SPREAD")(task)
        shared = [ray.put(each) for each in common]
        waiting = {remote.remote(item, *shared): number for number, item in enumerate(items)}
        results: dict[int, Any] = {}
        try:
            while waiting:
                done, _ = ray.wait(list(waiting), timeout=_POLL_SECONDS)
                for ref in done:
                    results[waiting[ref]] = _result(ref)
                    del waiting[ref]
        finally:
            for ref in waiting:
                with suppress(Exception):
                    ray.cancel(ref, force=True)
        return [results[number] for number in range(len(items))]


def _result(ref: Any) -> Any:
    import ray

    try:
        found = ray.get(ref)
    # From outside, a node's failure to import what it needs arrives as it is.
    except (ray.exceptions.RayTaskError, ImportError, AttributeError) as error:
        last = first(getattr(error, "cause", None) or error)
        raise ClusterError(
            f"A task failed on the Ray cluster: {last}. If it lacks pip_dagster, install this version of it on every "
            "node, the head too; else please report it as a defect."
        ) from error
    except ray.exceptions.RayError as error:
        raise ClusterError(
            f"A task lost its worker {RETRIES + 1} times, or its node: {str(error).strip().splitlines()[0]} Give the "
            "nodes more memory, or the partition more shares with `scoring.engine.tasks`. "
            "Stored partitions are unchanged."
        ) from error
    if isinstance(found, Trouble):
        raise found.error()
    return found


@contextmanager
def connected(pipeline: Pipeline, progress: Callable[[str], None]) -> Iterator[Cluster | None]:
    """The cluster that the pipeline declares, if it declares one, checked on each of its nodes.

    Raises:
        ClusterError: no cluster can be reached, its nodes have other versions or too few CPUs, or do not see the
            exchange; names address, node and remedy. Nothing was read.
        DeclarationError: Ray is not installed here.
    """
    engine = pipeline.spec.scoring.ray
    if engine is None:
        yield None
        return
    where = f"Pipeline {pipeline.spec.name}"
    place = (pipeline.project.root / engine.exchange).resolve()
    with _ray(engine, where), exchange_folder(place) as folder:
        nodes = _nodes()
        cluster = Cluster(folder, *_size(engine, nodes, where), progress)
        _check_nodes(cluster, nodes, where)
        yield cluster


@contextmanager
def _ray(engine: RayEngine, where: str) -> Iterator[None]:
    try:
        import ray
    except ImportError as error:
        raise DeclarationError(
            f"{where}: scoring.engine is ray, which is not installed: {error}. Install pip-dagster[ray]."
        ) from error
    if ray.is_initialized():  # this process is part of a Ray job already
        yield
        return
    address = engine.address or os.environ.get("RAY_ADDRESS", "")
    remedy = (
        "Start a cluster (`ray start --head --port=6379`), correct `scoring.engine.address` or RAY_ADDRESS, or declare "
        "`engine: local` to score in the run's own process. Nothing was read."
    )
    if not address or address == "local":
        raise ClusterError(
            f"{where}: scoring.engine is ray, and no cluster is named: neither `scoring.engine.address` nor the "
            f"variable RAY_ADDRESS. {remedy}"
        )
    try:
        _check_port(address)
        with _own_signals():
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, configure_logging=False)
    except (OSError, RuntimeError, ValueError, AssertionError, TimeoutError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise ClusterError(f"{where}: no Ray cluster can be used at {address}: {first}. {remedy}") from error
    try:
        yield
    finally:
        with _own_signals():
            ray.shutdown()


def _check_port(address: str) -> None:
    """Report an address that nobody listens at within seconds: Ray itself tries for a minute."""
    found = re.fullmatch(r"(?:ray://)?\[?(.+?)\]?:(\d+)", address)
    if found:
        socket.create_connection((found[1], int(found[2])), timeout=_REACHABLE_WITHIN).close()


@contextmanager
def _own_signals() -> Iterator[None]:
    """Ray replaces the handler of SIGTERM, by which a run is cancelled."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def versions() -> str:
    """What must be the same in the run and on every node, so that scores are the same to the bit."""
    return canonical(library_versions())


def check_node(expected: str, folder: str) -> Trouble | None:
    """In a task: what this node has otherwise than the run."""
    import json
    import platform

    node, here, there = platform.node(), library_versions(), json.loads(expected)
    differing = [f"{name} {here.get(name, 'missing')}, not {of}" for name, of in there.items() if here.get(name) != of]
    if differing:
        text = f"it has {'; '.join(differing)}. Install the versions of the run on every node of the cluster"
        return Trouble("ClusterError", f"{text}, from the same image or constraints.txt.", node)
    if not os.access(folder, os.W_OK | os.X_OK):
        text = f"{folder} is not there, or cannot be written by user {os.geteuid()}. Mount a shared folder there, and"
        return Trouble("ClusterError", f"{text} name it as `scoring.engine.exchange`.", node)
    return None


def _nodes() -> list[tuple[str, int]]:
    """The ids of the nodes that can do tasks, each with its CPUs."""
    import ray

    found = [(node["NodeID"], int(node["Resources"].get("CPU", 0))) for node in ray.nodes() if node["Alive"]]
    return [(node, cpus) for node, cpus in found if cpus]


def _size(engine: RayEngine, nodes: Sequence[tuple[str, int]], where: str) -> tuple[int, int]:
    """How many tasks share a partition, and the CPUs of each."""
    sizes = [cpus for _, cpus in nodes]
    if not sizes and not (engine.tasks and engine.cpus):
        raise ClusterError(
            f"{where}: no node of the Ray cluster has CPUs. Add one, or declare `tasks` and `cpus` of scoring.engine "
            "where nodes are added on demand. Nothing was read."
        )
    cpus = engine.cpus or min(sizes)
    if sizes and cpus > max(sizes):
        raise ClusterError(
            f"{where}: a task needs {cpus} CPUs (`scoring.engine.cpus`), and no node of the Ray cluster has more than "
            f"{max(sizes)}. Declare fewer, or add larger nodes. Nothing was read."
        )
    return engine.tasks or max(1, sum(each // cpus for each in sizes)), cpus


def _check_nodes(cluster: Cluster, nodes: Sequence[tuple[str, int]], where: str) -> None:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as On

    probe = ray.remote(num_cpus=0, max_retries=RETRIES)(check_node)
    refs = [
        probe.options(scheduling_strategy=On(node, soft=False)).remote(versions(), str(cluster.folder))
        for node, _ in nodes
    ]
    for ref in refs:
        try:
            _result(ref)
        except ClusterError as error:
            raise ClusterError(f"{where}: {error} Nothing was read.") from error
