"""The tests of infrastructure that evidence can answer."""

from __future__ import annotations

from pip_dagster.plural import plural
from pip_dagster.promotion.reports import reports_on
from pip_dagster.scorecard.data import NOTHING_LIVE, checked, judged
from pip_dagster.scorecard.found import Evidence, Found, missing
from pip_dagster.scorecard.records import Records
from pip_dagster.sql.names import quote

_CANARY = """
  SELECT count(DISTINCT a.partition_key) AS partitions, max(c.made_at) AS made_at,
         arg_max(c.change_id, c.made_at) AS change_id, arg_max(a.partition_key, c.made_at) AS partition_key
  FROM ledger.arms a JOIN ledger.scorings s ON s.scoring_id = a.scoring_id
  JOIN ledger.live_changes c ON c.change_id = a.change_id
  WHERE a.pipeline = $pipeline AND a.kind = 'canary' AND a.arm <> 'champion' AND s.model_version = $version
"""
_STOPPED = """
  SELECT event_id, action, why FROM ledger.canaries WHERE pipeline = $pipeline AND model_version = $version
  ORDER BY event_id DESC LIMIT 1
"""
_REASONS = "SELECT count(*) FROM (SELECT 1 FROM {table} WHERE scoring_id = $scoring)"
_HAS_REASONS = """
  SELECT 1 FROM duckdb_views()
  WHERE database_name = current_database() AND schema_name = $pipeline AND view_name = 'reasons'
"""


def integration(records: Records) -> Found:
    """A run of the present declaration went from the sources to live rows, and expectations judged each stage."""
    of, extraction, pipeline = records.newest, records.extraction, records.pipeline
    if of is None or extraction is None:
        return missing(NOTHING_LIVE)
    key = of["partition_key"]
    if (extraction["sql_digest"], of["code_digest"]) != (pipeline.sql_digest, pipeline.scoring_digest):
        return missing(f"The newest live partition, {key}, is of another declaration than the present one")
    for section in ("sources", "features", "predictions"):
        if not judged(records, section):
            return missing(f"No expectation of {section} judged the newest live partition, {key}")
    found = checked(records, "sources", "features", "predictions")
    if not found.evidence:
        return found
    text = f"{key} went from the sources to live rows by the present declaration; {found.evidence[0].text}"
    return Found((Evidence("scoring", of["scoring_id"], min(of["made_at"], found.evidence[0].at), text),))


def validated(records: Records) -> Found:
    """The gates passed, the metric by labels among them, before the alias moved to the version."""
    version, scoring = records.version, records.pipeline.spec.scoring
    if version is None:
        return missing(f"No version can be read: {records.why_no_version}")
    subject = {"model": scoring.model_name, "alias": scoring.alias}
    moves = (row for row in records.entries if row["action"] == "promotion" and row["subject"] == subject)
    move = next((row for row in moves if row["details"]["to"] == version.version), None)
    if move is None:
        return missing(f"The audit has no move of {scoring.alias} to {version}")
    for report in reports_on(records.pipeline.project.registry, version.name, version.version):
        if report.pipeline != records.name or report.alias != scoring.alias or report.made_at > move["made_at"]:
            continue
        if not report.passed:
            return missing(f"{version} was promoted although gates did not pass ({report.refusal})")
        if not any(each.name == "metric" and each.state == "passed" for each in report.results):
            return missing(f"No gate judged {version} by labels before it was promoted")
        text = f"{len(report.results)} gates passed before {scoring.alias} moved to {version}"
        of_gates = Evidence("gate report", f"{report.made_at:%Y%m%dT%H%M%S%fZ}", report.made_at, text)
        return Found((of_gates, Evidence("audit entry", str(move["seq"]), move["made_at"], "the move")))
    return missing(f"{version} was promoted without gates")


def debuggable(records: Records) -> Found:
    """A replay that gave the stored scores is recorded, or rows of the newest partition have their reasons."""
    for row in records.entries:
        details = row["details"]
        if row["action"] == "exercised" and row["subject"].get("exercise") == "replay":
            if not details["passed"]:
                return missing(f"The newest recorded replay did not give the stored scores ({details['found']})")
            text = f"replay of {details['partition']}: {details['found']}"
            return Found((Evidence("audit entry", str(row["seq"]), row["made_at"], text),))
    of = records.newest
    if of is None:
        return missing(NOTHING_LIVE)
    if records.rows(_HAS_REASONS):
        table = f"{quote(records.name)}.reasons"
        count = records.con.execute(_REASONS.format(table=table), {"scoring": of["scoring_id"]}).fetchone()
        if count and count[0]:
            text = f"{plural(count[0], 'reason')} of rows of {of['partition_key']} are stored"
            return Found((Evidence("scoring", of["scoring_id"], of["made_at"], text),))
    return missing("No equal replay is recorded, and rows of the newest partition have no reasons")


def canary(records: Records) -> Found:
    """The version was live for a share of the rows, and no limit stopped it."""
    version = records.version
    if version is None:
        return missing(f"No version can be read: {records.why_no_version}")
    stopped = records.rows(_STOPPED, version=version.version)
    if stopped and stopped[0]["action"] == "stopped":
        return missing(f"The canary of {version} was stopped: {stopped[0]['why']}")
    (of,) = records.rows(_CANARY, version=version.version)
    if not of["partitions"]:
        return missing(f"{version} was never a canary")
    text = f"{version} was a canary of {plural(of['partitions'], 'partition')}, the last {of['partition_key']}"
    return Found((Evidence("live change", of["change_id"], of["made_at"], text),))


def rollback(records: Records) -> Found:
    """A rollback was carried out."""
    for row in records.entries:
        if row["action"] == "rollback" and row["details"].get("rolled_back"):
            text = f"{plural(row['details']['rolled_back'], 'partition')} rolled back"
            return Found((Evidence("audit entry", str(row["seq"]), row["made_at"], text),))
    return missing("No rollback is recorded")
