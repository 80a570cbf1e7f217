"""The tests of features and data that evidence can answer."""

from __future__ import annotations

from pip_dagster.plural import plural
from pip_dagster.scorecard.found import Evidence, Found, missing
from pip_dagster.scorecard.records import Records, Row

NOTHING_LIVE = "No partition is live"

_ERASED = """
  SELECT e.erasure_id, e.kind, e.made_at, count(s.place) AS places
  FROM (
    SELECT * FROM ledger.erasures WHERE list_contains(pipelines, $pipeline) AND kind IN ('erase', 'purge')
    QUALIFY row_number() OVER (PARTITION BY erasure_id ORDER BY made_at DESC) = 1
  ) e JOIN ledger.erasure_steps s ON s.erasure_id = e.erasure_id AND s.verified IS NOT NULL
  WHERE e.state = 'done' GROUP BY ALL ORDER BY e.made_at DESC LIMIT 1
"""


def judged(records: Records, *sections: str) -> list[Row]:
    """What expectations of these sections found in the newest live partition, without those that had an error."""
    return [
        row for row in records.checks if row["status"] != "errored" and row["section"].partition(".")[0] in sections
    ]


def checked(records: Records, *sections: str) -> Found:
    """The expectations of these sections that judged the newest live partition."""
    if records.newest is None:
        return missing(NOTHING_LIVE)
    key, listed = records.newest["partition_key"], " or ".join(sections)
    if not (found := judged(records, *sections)):
        return missing(f"No expectation of {listed} judged the newest live partition, {key}")
    failed = [row["expectation_id"] for row in found if row["severity"] == "critical" and row["status"] == "failed"]
    if failed:
        return missing(f"Partition {key} is live and breaks the critical expectation {failed[0]}")
    text = f"{plural(len(found), 'expectation')} judged {key}, such as {found[0]['expectation_id']}"
    return Found((Evidence("scoring", records.newest["scoring_id"], min(row["made_at"] for row in found), text),))


def schema(records: Records) -> Found:
    """Expectations judged the features."""
    return checked(records, "features")


def meta_level(records: Records) -> Found:
    """The declared SQL ran, which could read declared sources only, and no feature is the key or the outcome."""
    version, of, spec = records.version, records.extraction, records.pipeline.spec
    if version is None:
        return missing(f"No version can be read: {records.why_no_version}")
    if of is None:
        return missing(NOTHING_LIVE)
    if of["sql_digest"] != records.pipeline.sql_digest:
        return missing("The newest live partition was built by another feature SQL than the declared one")
    outcome = records.pipeline.labels.outcome if records.pipeline.labels else None
    forbidden = {"the outcome": outcome, "the key": spec.features.key[0] if len(spec.features.key) == 1 else None}
    forbidden["the subject"] = spec.privacy.subject if spec.privacy else None
    names = {feature.name.lower(): feature.name for feature in version.manifest.features}
    for what, column in forbidden.items():
        if column and column.lower() in names:
            return missing(f"Feature {names[column.lower()]} of {version} is {what}")
    none = f"none of {len(names)} features of {version} is key, subject or outcome"
    text = f"the declared SQL read declared sources only; {none}"
    return Found((Evidence("extraction", of["extraction_id"], of["made_at"], text),))


def privacy(records: Records) -> Found:
    """An erasure or a purge was carried out, and verified in every place."""
    found = records.rows(_ERASED)
    if not found:
        return missing("No erasure and no purge of this pipeline was carried out")
    row = found[0]
    text = f"{row['kind']} verified in {plural(row['places'], 'place')}"
    return Found((Evidence("erasure", row["erasure_id"], row["made_at"], text),))


def feature_code(records: Records) -> Found:
    """The features of a partition were shown not to depend on later rows, with the declared SQL."""
    for row in records.entries:
        details = row["details"]
        if row["action"] != "exercised" or row["subject"].get("exercise") != "point in time":
            continue
        if details["sql_digest"] != records.pipeline.sql_digest:
            return missing("The newest recorded proof was of another feature SQL than the declared one")
        if not details["passed"]:
            return missing(f"The newest recorded proof found features that depend on later rows ({details['found']})")
        text = f"features of {details['partition']} do not depend on later rows: {details['found']}"
        return Found((Evidence("audit entry", str(row["seq"]), row["made_at"], text),))
    return missing("No proof that features do not depend on later rows is recorded")
