"""`pip-dagster status`: which partitions are live, by which model."""

from __future__ import annotations

import json
from typing import Any

import click

from pip_dagster.cli.output import show_json, show_table
from pip_dagster.cli.plan import as_dict, plan_now, show_plan
from pip_dagster.cli.published import check_pipeline, open_published, rows_of
from pip_dagster.declaration.project import Project

_PIPELINES = """
  SELECT pipeline, count(DISTINCT partition_key) FILTER (is_live) AS partitions,
         min(partition_key) FILTER (is_live) AS first, max(partition_key) FILTER (is_live) AS last,
         sum(rows_scored) FILTER (is_live) ::BIGINT AS rows,
         string_agg(DISTINCT 'v' || model_version, ', ' ORDER BY 'v' || model_version) FILTER (is_live) AS live_models,
         max(made_at) FILTER (is_live) AS last_scored
  FROM ledger.partitions GROUP BY pipeline ORDER BY pipeline
"""

# The newest attempt may have failed while an older scoring is live: both are said.
_PARTITIONS = """
  SELECT * FROM (
    SELECT partition_key, arg_max(status, scoring_id) AS last_attempt, arg_max_null(reason, scoring_id) AS reason,
           count(*) AS attempts,
           max(model_version) FILTER (is_live) AS model_version,
           max(rows_scored) FILTER (is_live) AS rows, max(rows_quarantined) FILTER (is_live) AS quarantined,
           max(mean_score) FILTER (is_live) AS mean_score, max(seconds) FILTER (is_live) AS seconds,
           max(made_at) FILTER (is_live) AS scored_at,
           coalesce(bool_or(provisional) FILTER (is_live), false) AS provisional,
           max(findings) FILTER (is_live) AS findings
    FROM ledger.partitions WHERE pipeline = $pipeline AND role = 'champion' GROUP BY partition_key
    ORDER BY max(partition_start) DESC LIMIT $last
  ) ORDER BY partition_key
"""


_PUBLISHED = "SELECT view_name AS name FROM duckdb_views() WHERE schema_name = 'ledger'"
_ARMS = """
  SELECT a.partition_key, a.arm, any_value(s.model_version) AS model_version,
         any_value(a.scoring_id) AS scoring_id, sum(a.high - a.low) / 10000 AS share
  FROM ledger.arms a LEFT JOIN ledger.partitions s ON s.scoring_id = a.scoring_id
  WHERE a.pipeline = $pipeline GROUP BY a.partition_key, a.arm ORDER BY a.partition_key, min(a.low)
"""
# Beside the change that is live now; those of earlier ones are history.
_AMISS = """
  SELECT partition_key, expectation_id, observed FROM ledger.checks
  WHERE pipeline = $pipeline AND section = 'split' AND status <> 'passed'
    AND split_part(expectation_id, ' ', 1) IN ('arms', 'arm', 'sample_ratio') -- a canary's figures are in its arm's
    AND entry_id IN (SELECT change_id FROM ledger.arms WHERE pipeline = $pipeline)
  ORDER BY partition_key, expectation_id
"""


@click.command()
@click.argument("pipeline", required=False)
@click.option("--last", default=31, show_default=True, type=click.IntRange(min=1), help="How many partitions to show.")
@click.option("--why", is_flag=True, help="Also which partitions should be made again, and why, as `plan` says.")
@click.option("--json", "as_json", is_flag=True, help="For machines.")
@click.pass_obj
def status(project: Project, pipeline: str | None, last: int, why: bool, as_json: bool) -> None:
    """Show the pipelines, or the newest partitions of PIPELINE."""
    if why and pipeline is None:
        raise click.UsageError("--why is about one pipeline: name it.")
    with open_published(project) as con:
        if pipeline is None:
            found = rows_of(con, _PIPELINES)
        else:
            check_pipeline(con, pipeline)
            found = partition_rows(con, pipeline, last)
    made = plan_now(project, pipeline) if why and pipeline else None
    if as_json:
        show_json({"partitions": found, "plan": as_dict(made)} if made else found)
    elif pipeline is None:
        show_table("Pipelines", list(found[0]) if found else ["pipeline"], [list(row.values()) for row in found])
    else:
        show_partitions(pipeline, found)
    if made and not as_json:
        show_plan(made)


def partition_rows(con: Any, pipeline: str, last: int) -> list[dict[str, Any]]:
    """The newest partitions of a pipeline, findings parsed; `arms` where they were ever split, with what is amiss."""
    rows = rows_of(con, _PARTITIONS, {"pipeline": pipeline, "last": last})
    split = split_states(con, pipeline)
    for row in rows:
        row["findings"] = json.loads(row["findings"]) if row["findings"] else {}
        arms, amiss = split.get(row["partition_key"], ({}, []))
        row["arms"] = arms
        if amiss:
            row["findings"]["split"] = amiss
    return rows


def split_states(con: Any, pipeline: str) -> dict[str, tuple[dict[str, dict[str, Any]], list[str]]]:
    """Partition → its arms with version and share, and what is amiss with them."""
    there = {row["name"] for row in rows_of(con, _PUBLISHED)}
    if not {"arms", "checks"} <= there:
        return {}
    found: dict[str, tuple[dict[str, dict[str, Any]], list[str]]] = {}
    for row in rows_of(con, _ARMS, {"pipeline": pipeline}):
        arms, _ = found.setdefault(row["partition_key"], ({}, []))
        if row["share"] is not None:
            arms[row["arm"]] = {name: row[name] for name in ("model_version", "share", "scoring_id")}
    for row in rows_of(con, _AMISS, {"pipeline": pipeline}):
        found[row["partition_key"]][1].append(f"{row['expectation_id']}: {json.loads(row['observed'])}")
    return found


def show_partitions(pipeline: str, rows: list[dict[str, Any]]) -> None:
    """The partitions as a table."""
    columns = ["partition", "state", "rows", "quarantined", "model", "mean score", "seconds", "scored at", "found"]
    split = any(row["arms"] for row in rows)
    columns += ["arms"] if split else []
    show_table(
        f"{pipeline}: {len(rows)} partitions",
        columns,
        (
            [
                row["partition_key"],
                _state(row),
                row["rows"],
                row["quarantined"],
                f"v{row['model_version']}" if row["model_version"] else "",
                row["mean_score"],
                row["seconds"],
                f"{row['scored_at']:%Y-%m-%d %H:%M:%S}" if row["scored_at"] else "",
                _found(row["findings"]),
                *([say_arms(row["arms"])] if split else []),
            ]
            for row in rows
        ),
    )


def say_arms(arms: dict[str, dict[str, Any]]) -> str:
    """Who decides about which share."""
    return ", ".join(f"{arm} v{of['model_version']} {of['share']:.2%}" for arm, of in arms.items())


def _state(row: dict[str, Any]) -> str:
    live = ("live, provisional" if row["provisional"] else "live") if row["model_version"] else "nothing live"
    return live if row["last_attempt"] == "scored" else f"{live}; last attempt {row['last_attempt']}: {row['reason']}"


def _found(findings: dict[str, Any]) -> str:
    parts = ["empty"] if "empty" in findings else []
    if unseen := findings.get("unseen_category"):
        parts.append("unseen " + ", ".join(f"{name} ({count})" for name, count in unseen["rows"].items()))
    if undecided := findings.get("segment_condition_null"):
        parts.append(f"a segment's condition is NULL in {undecided}")
    if missing := findings.get("all_missing"):
        parts.append("no value at all in " + ", ".join(missing))
    return "; ".join([*parts, *findings.get("split", ())])
