"""The tests of monitoring that evidence can answer."""

from __future__ import annotations

from datetime import date, timedelta

from pip_dagster.plural import plural
from pip_dagster.scorecard.data import NOTHING_LIVE, checked
from pip_dagster.scorecard.found import Evidence, Found, missing
from pip_dagster.scorecard.records import LEAST_COMPARED, Records, Row
from pip_dagster.statistics.outlying import LEAST_HISTORY

# Behind the end of training: more is too old, whatever was measured.
OLDEST_TRAINING = timedelta(days=180)
STABLE_FOR = timedelta(days=35)

_SENT = """
  SELECT alarm_id, kind, made_at FROM ledger.alarm_deliveries WHERE pipeline = $pipeline ORDER BY made_at DESC LIMIT 1
"""
_JUDGED = """
  SELECT j.judgement_id, j.judged_at, count(*) AS columns
  FROM (SELECT judgement_id, judged_at FROM ledger.judgements WHERE pipeline = $pipeline AND scoring_id = $scoring
        ORDER BY judgement_id DESC LIMIT 1) j
  JOIN ledger.drift d ON d.judgement_id = j.judgement_id
  WHERE d.reference = 'training' AND d.partitions = 1 AND d.segment IS NULL AND d.state <> 'unjudged'
  GROUP BY ALL
"""
_STABLE = """
  SELECT count(*) AS scorings, sum(rows_scored)::BIGINT AS scored, max(scoring_id) AS newest, max(made_at) AS made_at,
         min(scoring_id) FILTER (
           NOT coalesce(isfinite(min_score) AND isfinite(max_score) AND isfinite(mean_score), false)) AS not_finite
  FROM ledger.scorings
  WHERE pipeline = $pipeline AND role = 'champion' AND status = 'scored' AND rows_scored > 0 AND made_at > $since
"""
_LIVE = "SELECT count(*) FROM ledger.live WHERE pipeline = $pipeline"


def dependencies(records: Records) -> Found:
    """Libraries and sources are recorded, and somebody was notified."""
    of = records.newest
    if of is None:
        return missing(NOTHING_LIVE)
    if not (of["engine"] and of["source_digests"]):
        return missing(f"Partition {of['partition_key']} was scored without a record of libraries and sources")
    sent = records.rows(_SENT)
    if not sent:
        return missing("Libraries and sources are recorded, but no notification of this pipeline was ever delivered")
    text = f"libraries and sources of {of['partition_key']} are recorded"
    scoring = Evidence("scoring", of["scoring_id"], of["made_at"], text)
    return Found((scoring, Evidence("alarm", sent[0]["alarm_id"], sent[0]["made_at"], "a notification was delivered")))


def invariants(records: Records) -> Found:
    """Expectations of sources or features judged the newest live partition, and no critical one is broken."""
    return checked(records, "sources", "features")


def skew(records: Records) -> Found:
    """The newest live partition was compared with training, and nothing is in alarm."""
    of = records.newest
    if of is None:
        return missing(NOTHING_LIVE)
    if alarm := _alarm(records, "drift"):
        return missing(f"Drift of {alarm['subject']} is in alarm ({alarm['alarm_id']})")
    found = records.rows(_JUDGED, scoring=of["scoring_id"])
    if not found:
        return missing(f"Partition {of['partition_key']} was not compared with training")
    text = f"{plural(found[0]['columns'], 'column')} of {of['partition_key']} compared with training, none in alarm"
    return Found((Evidence("judgement", found[0]["judgement_id"], found[0]["judged_at"], text),))


def not_stale(records: Records) -> Found:
    """Training ended not too long before the newest live partition."""
    version, of = records.version, records.newest
    if version is None:
        return missing(f"No version can be read: {records.why_no_version}")
    if of is None:
        return missing(NOTHING_LIVE)
    try:
        ended = date.fromisoformat((version.manifest.training_window or ("", ""))[1][:10])
    except ValueError:
        return missing(f"{version} does not state a training window of dates")
    age = of["partition_end"].date() - ended
    if age > OLDEST_TRAINING:
        return missing(
            f"{version} was trained on data to {ended}, {plural(age.days, 'day')} before {of['partition_key']}"
        )
    text = f"{version} was trained on data to {ended}, {plural(age.days, 'day')} before {of['partition_key']}"
    return Found((Evidence("scoring", of["scoring_id"], of["made_at"], text),))


def stable(records: Records) -> Found:
    """The guard let no infinite value through, and all scores are finite."""
    (of,) = records.rows(_STABLE, since=records.now - STABLE_FOR)
    if not of["scorings"]:
        return missing(f"Nothing was scored in the last {plural(STABLE_FOR.days, 'day')}")
    if of["not_finite"]:
        return missing(f"Scoring {of['not_finite']} has scores that are not finite")
    text = f"{of['scored']:,} scores of {plural(of['scorings'], 'scoring')} are finite"
    return Found((Evidence("scoring", of["newest"], of["made_at"], text),))


def speed(records: Records) -> Found:
    """The cost of the newest partitions was compared with those before, and is as usual."""
    mark, live = records.marks.get("operations"), records.con.execute(_LIVE, {"pipeline": records.name}).fetchone()
    slow = next((row for row in records.open_alarms if row["subject"] == "rows per CPU second"), None)
    if slow:
        return missing(f"Scoring is slower than usual (alarm {slow['alarm_id']})")
    if mark is None:
        return missing("No rule of operations has judged this pipeline")
    if not live or live[0] < LEAST_HISTORY + 2:
        count = plural(live[0] if live else 0, "live partition")
        return missing(f"There is {count}; {LEAST_HISTORY + 2} show what is usual")
    text = f"cost judged up to {mark['partition_key']}, as usual"
    return Found((Evidence("alarm mark", f"operations {mark['partition_key']}", mark["made_at"], text),))


def quality(records: Records) -> Found:
    """Labels compared the newest weeks with those before, and nothing is in alarm."""
    if alarm := _alarm(records, "performance"):
        return missing(f"{alarm['subject']} is in alarm ({alarm['alarm_id']})")
    of, mark = records.evaluated, records.marks.get("performance")
    if of["partitions"] < LEAST_COMPARED:
        return missing(f"Labels of {plural(of['partitions'], 'partition')} count; {LEAST_COMPARED} are compared")
    if mark is None:
        return missing("No rule of performance has judged this pipeline")
    text = (
        f"labels judged up to {of['newest']}, {plural(of['partitions'], 'partition')}; no loss beyond what is allowed"
    )
    return Found((Evidence("evaluation", of["newest_id"], min(of["evaluated_at"], mark["made_at"]), text),))


def _alarm(records: Records, event: str) -> Row | None:
    """The first open alarm of this event; warnings are none."""
    return next((row for row in records.open_alarms if row["event"] == event and row["severity"] == "alarm"), None)
