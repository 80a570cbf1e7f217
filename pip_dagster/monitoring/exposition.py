"""Metrics in the text format that Prometheus reads, each with its help and type, in a stable order."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

PREFIX = "pip_dagster_"


@dataclass(frozen=True)
class Metric:
    """A metric's name without the prefix, its type, what it measures, and its labels."""

    name: str
    type: Literal["gauge", "counter"]
    help: str
    labels: tuple[str, ...] = ("pipeline",)


_BY_TARGET = ("pipeline", "target")
_BY_STATE = ("pipeline", "state")
_BY_STATUS = ("pipeline", "status")
METRICS = (
    Metric("info", "gauge", "Version of pip_dagster, always 1.", ("version",)),
    Metric("declarations_readable", "gauge", "1 if every defs.yaml could be read, 0 if not.", ()),
    Metric("warehouse_readable", "gauge", "1 if the ledger could be read for what is pending, 0 if not.", ()),
    Metric("published_readable", "gauge", "1 if what is published could be read, 0 if not.", ()),
    Metric("warehouse_bytes", "gauge", "Size of the warehouse file with its log.", ()),
    Metric("published_bytes", "gauge", "Size of the published files."),
    Metric("declaration_valid", "gauge", "1 if the pipeline's declaration loads, 0 if it does not."),
    Metric(
        *("model_info", "gauge", "Model of the newest live partition, always 1."),
        labels=("pipeline", "model", "version", "digest", "device"),
    ),
    Metric("partitions_live", "gauge", "Partitions that are live."),
    Metric("partitions_provisional", "gauge", "Live partitions that were scored before their sources were complete."),
    Metric("partitions_pending", "gauge", "Partitions that are stored and not published yet."),
    Metric("partitions_undelivered", "gauge", "Live partitions that the target does not have yet.", _BY_TARGET),
    Metric(
        *("oldest_undelivered_age_seconds", "gauge", "Seconds since the oldest of them went live; 0 if there is none."),
        labels=_BY_TARGET,
    ),
    Metric("partitions_missing", "gauge", "Closed partitions since the first live one that are not live."),
    Metric(
        "oldest_missing_partition_age_seconds", "gauge", "Seconds since the oldest of the missing partitions closed."
    ),
    Metric("partitions_unsuccessful", "gauge", "Partitions whose newest attempt did not score them.", _BY_STATUS),
    Metric("newest_partition_end_timestamp_seconds", "gauge", "End of the newest live partition, Unix time."),
    Metric("newest_partition_age_seconds", "gauge", "Seconds since the end of the newest live partition."),
    Metric("freshness_state", "gauge", "1 for the present state: ok, warning, alarm or unjudged.", _BY_STATE),
    Metric("overdue_seconds", "gauge", "Seconds since the oldest late partition should have been live; 0 if none is."),
    Metric("last_attempt_timestamp_seconds", "gauge", "The newest attempt at scoring a partition, Unix time."),
    Metric("attempts_total", "counter", "Attempts of the champion at a partition, by status.", _BY_STATUS),
    Metric("rows_live", "gauge", "Scored rows of all live partitions."),
    Metric("rows_quarantined_live", "gauge", "Quarantined rows of all live partitions."),
    Metric(
        "newest_partition_scored_timestamp_seconds", "gauge", "When the newest live partition was scored, Unix time."
    ),
    Metric("newest_partition_rows_scored", "gauge", "Scored rows of the newest live partition."),
    Metric("newest_partition_rows_quarantined", "gauge", "Quarantined rows of the newest live partition."),
    Metric("newest_partition_quarantined_ratio", "gauge", "Quarantined share of the newest live partition's rows."),
    Metric(
        "newest_partition_unseen_category_rows",
        "gauge",
        "Values of the newest live partition that its model never saw.",
    ),
    Metric("newest_partition_seconds", "gauge", "Time that the newest live partition took to score."),
    Metric("newest_partition_cpu_seconds", "gauge", "Processor time that the newest live partition took to score."),
    Metric("newest_partition_rows_per_second", "gauge", "Rows per second of the newest live partition."),
    Metric(
        *("newest_partition_throughput_ratio", "gauge"),
        "Its rows per CPU second, as a share of the median of 28 partitions before, by the same libraries and model.",
    ),
    Metric("newest_partition_peak_memory_bytes", "gauge", "Most memory of the process that scored it, up to then."),
    Metric(
        "newest_partition_lock_wait_seconds",
        "gauge",
        "Time that its run had waited for the warehouse since it began or stored scorings before.",
    ),
    Metric("drift_columns", "gauge", "Columns of the newest live partition, by state of drift.", _BY_STATE),
    Metric("alarms_open", "gauge", "Alarms that are not resolved.", ("pipeline", "event", "severity")),
)
_BY_NAME = {metric.name: metric for metric in METRICS}


class Samples:
    """Figures that were measured."""

    def __init__(self) -> None:
        self._values: dict[str, dict[tuple[str, ...], float]] = {metric.name: {} for metric in METRICS}

    def add(self, name: str, value: float | None, **labels: object) -> None:
        """Take a figure. One that is not known has no sample: it is not 0."""
        if value is None or not math.isfinite(value):
            return
        metric = _BY_NAME[name]
        assert labels.keys() == {*metric.labels}, (name, labels)
        self._values[name][tuple(str(labels[label]) for label in metric.labels)] = value

    def as_list(self) -> list[dict[str, object]]:
        """All of them, each with its name and labels, in the order of `text`."""
        return [
            {"name": PREFIX + metric.name, **dict(zip(metric.labels, key, strict=True)), "value": value}
            for metric in METRICS
            for key, value in sorted(self._values[metric.name].items())
        ]

    def text(self) -> str:
        """All of them."""
        lines = []
        for metric in METRICS:
            values = self._values[metric.name]
            if not values:
                continue
            name = PREFIX + metric.name
            lines += [f"# HELP {name} {metric.help}", f"# TYPE {name} {metric.type}"]
            lines += [f"{name}{_labels(metric.labels, key)} {values[key]!r}" for key in sorted(values)]
        return "".join(f"{line}\n" for line in lines)


def _labels(names: tuple[str, ...], values: tuple[str, ...]) -> str:
    pairs = ",".join(f'{name}="{_escaped(value)}"' for name, value in zip(names, values, strict=True))
    return f"{{{pairs}}}" if pairs else ""


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
