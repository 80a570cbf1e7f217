"""How long answers take, beside a daemon that runs: insert requests until a partition ends, and wait for the answers.

`python measure.py` takes up to six minutes. It needs APP_URL and DAGSTER_HOME, and `dagster-daemon run` beside it.
"""

import os
import random
import time
import uuid
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import psycopg2

HERE = Path(__file__).parent
LENGTH = timedelta(minutes=5)
INSERT = "INSERT INTO app.requests (request_id, amount, items, is_new_customer) VALUES (%s, %s, %s, %s)"


def main(at_least: float = 20.0, each: float = 0.2, within: float = 120.0) -> dict[str, Any]:
    """Insert a request every `each` seconds until a partition ends, and print what the time until the answers was."""
    now = datetime.now(UTC)
    begun = datetime.fromtimestamp(now.timestamp() // LENGTH.total_seconds() * LENGTH.total_seconds(), UTC)
    end = begun + (LENGTH if begun + LENGTH - now > timedelta(seconds=at_least) else 2 * LENGTH)
    with closing(psycopg2.connect(os.environ["APP_URL"])) as con:
        con.autocommit = True  # a transaction that stays open would hide requests and lock the answers
        with con.cursor() as cursor:
            asked = {}
            while (now := datetime.now(UTC)) < end - timedelta(seconds=each):
                request = str(uuid.uuid4())
                cursor.execute(
                    INSERT, (request, random.gammavariate(2, 40), random.randint(1, 8), random.random() > 0.5)
                )
                asked[request] = now
                time.sleep(each)
            waits, deadline = {}, end + timedelta(seconds=within)
            while len(waits) < len(asked) and (now := datetime.now(UTC)) < deadline:
                cursor.execute("SELECT request_id::text FROM app.answers")
                for (request,) in cursor.fetchall():
                    if request in asked and request not in waits:
                        waits[request] = (now - asked[request]).total_seconds()
                time.sleep(0.1)
    found = {"asked": len(asked), "answered": len(waits)} | percentiles(sorted(waits.values())) | parts(end, now)
    for name, value in found.items():
        print(f"{name:<40} {value:.1f}" if isinstance(value, float) else f"{name:<40} {value}")
    return found


def percentiles(waits: list[float]) -> dict[str, float]:
    """From insert to answer."""
    return {f"p{p} from insert to answer (s)": waits[min(len(waits) - 1, len(waits) * p // 100)] for p in (50, 99)}


def parts(end: datetime, answered: datetime) -> dict[str, float]:
    """What the seconds from the end of the partition to its answers were."""
    key = (end - LENGTH).strftime("%Y-%m-%d-%H:%M")
    with dg.DagsterInstance.get() as instance:
        runs = instance.get_run_records(dg.RunsFilter(job_name="risk_job", tags={"dagster/partition": key}))
        run = runs[-1]
        stats = {each.step_key: each for each in instance.get_run_step_stats(run.dagster_run.run_id)}
    with duckdb.connect(str(HERE / "data" / "published.duckdb"), read_only=True) as con:
        sql = "SELECT epoch(made_at), seconds FROM ledger.partitions WHERE is_live AND partition_key = ?"
        [(scored, seconds)] = con.execute(sql, [key]).fetchall()
    ended = end.timestamp()
    return {
        "end of the partition to the run's request": run.create_timestamp.timestamp() - ended,
        "request to the run's process": run.start_time - run.create_timestamp.timestamp(),
        "process to the step": stats["risk"].start_time - run.start_time,
        "step to scores: extract, check, score": scored - stats["risk"].start_time,
        "  of which score": seconds,
        "scores to the delivery's step: publish": stats["risk_delivered"].start_time - scored,
        "delivery": answered.timestamp() - stats["risk_delivered"].start_time,
        "end of the partition to the answers": answered.timestamp() - ended,
    }


if __name__ == "__main__":
    main()
