"""Every table of the CLI at 60, 80 and 120 columns, as approved in `snapshots/`.

To approve what is printed now, after looking at the difference:

    APPROVE=1 .venv/bin/python -m pytest -n 0 tests/cli/test_tables.py
"""

import ast
import getpass
import importlib
import os
import re
import sys
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace as Of

import click
import pytest

from pip_dagster.cli import main as cli_main
from pip_dagster.cli.cells import Seconds
from pip_dagster.cli.table import length

WIDTHS = (60, 80, 120)
SNAPSHOTS = Path(__file__).with_name("snapshots")
PRINTERS = ("show_table", "show_pairs")
AT = datetime(2024, 3, 5, 6, 0, tzinfo=UTC)
MACHINE = {
    "libraries": "duckdb 1.5.5, machine x86_64, numpy 2.4.6, pip-dagster 0.1.0, python 3.11.7, xgboost 3.2.0",
    "device": "cpu: no GPU: no NVIDIA driver (libcuda.so.1); 2 threads",
    "CPU time": Seconds(0.005),
    "peak memory": "472 MB",
    "xgboost": "3.2.0",
}


def sites():
    """Each function of the CLI that prints a table, as `module.function`."""
    for path in sorted(Path(cli_main.__file__).parent.glob("*.py")):
        if path.name == "output.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and any(
                isinstance(each, ast.Call) and isinstance(each.func, ast.Name) and each.func.id in PRINTERS
                for each in ast.walk(node)
            ):
                yield f"{path.stem}.{node.name}"


class Recorder:
    """The tables that functions of the CLI print, by `module.function`; each is printed as before."""

    def __init__(self, monkeypatch, root):
        self.tables = {}
        self.root = str(root)
        for name in dict.fromkeys(site.split(".")[0] for site in sites()):
            module = importlib.import_module(f"pip_dagster.cli.{name}")
            for printer in PRINTERS:
                if hasattr(module, printer):
                    monkeypatch.setattr(module, printer, self._recording(name, getattr(module, printer)))

    def _recording(self, module, printer):
        def record(title, *given, **options):
            site = f"{module}.{sys._getframe(1).f_code.co_name}"
            *columns, rows = given
            listed = [[*row] for row in rows]
            printer(title, *columns, listed, **options)
            steady = [self.steady_row(row) for row in listed]
            self.tables.setdefault(site, []).append((printer, self.steady(title), *columns, steady, options))

        return record

    def steady_row(self, row):
        """The same in every run, on every machine."""
        return [self.steady(MACHINE.get(row[0], value) if i else value) for i, value in enumerate(row)]

    def steady(self, value):
        if isinstance(value, datetime):
            return AT
        if isinstance(value, Seconds):
            return Seconds(0.0166)
        if not isinstance(value, str):
            return value
        if value == getpass.getuser() or value.endswith(f" by {getpass.getuser()}"):
            value = value.removesuffix(getpass.getuser()) + "ada"
        value = re.sub(r"\d{8}T\d{6,18}-[0-9a-f]{8}", "20240305T060000000000123-1a2b3c4d", value)
        value = re.sub(r"\b[0-9a-f]{32,64}\b", lambda found: ("0123456789abcdef" * 4)[: len(found[0])], value)
        value = re.sub(r"20[2-9]\d-\d\d-\d\d \d\d:\d\d:\d\d", "2024-03-05 06:00:00", value)
        return value.replace(self.root, "/srv/shop")


@pytest.fixture
def recorder(monkeypatch, tmp_path):
    return Recorder(monkeypatch, tmp_path / "shop")


COMMANDS = [
    ("status",),
    ("status", "orders"),
    ("status", "orders", "--last", "2"),
    ("lineage", "orders", "2024-03-02"),
    ("lineage", "orders", "2024-03-01", "--as-of", "2999-01-01T00:00:00+00:00"),
    ("lineage", "orders", "--key", "1"),
    ("models", "list"),
    ("models", "show", "returns"),
    ("models", "history", "returns"),
    ("audit", "log", "--last", "4"),
    ("run", "orders", "2024-03-01..2024-03-02", "--no-dagster"),
    ("replay", "orders", "2024-03-01", "--key", "1"),
    ("backfill", "orders", "--from", "2024-03-01", "--to", "2024-03-04", "--dry-run"),
    ("query", "SELECT order_id, day, score, scored_at FROM orders.predictions ORDER BY 1 LIMIT 2"),
    ("query", "SELECT repeat('k', 60) AS key, '東京 Zürich' AS shop, 12345678 AS number, 'a reason in words' AS why"),
]


def run_commands(scored):
    """Real commands on a real project: a day failed, another has no amounts and a shop that is new."""
    scored.source(
        "UPDATE raw.orders SET amount = 'inf' WHERE day = '2024-03-02'",
        "UPDATE raw.orders SET amount = NULL, shop = 'Zuerich' WHERE day = '2024-03-01'",
    )
    scored.run()
    for words in COMMANDS:
        with suppress(SystemExit):
            cli_main.cli(["--project", str(scored.root), *words], standalone_mode=False)


def run_functions():
    """The tables whose commands need weeks of partitions, labels or a split, from fixed figures."""
    from pip_dagster.cli import (
        compare,
        deliver,
        demo,
        doctor,
        estimate,
        gates,
        hold,
        monitor,
        performance_shown,
        point_in_time,
        rollback,
        scorecard,
        undelivered,
    )
    from pip_dagster.cli.plan import show_plan
    from pip_dagster.declaration.monitoring import Monitoring
    from pip_dagster.declaration.partition import Partition

    partition = [
        Partition(f"2024-03-{day:02}", datetime(2024, 3, day), datetime(2024, 3, day + 1)) for day in range(1, 9)
    ]
    long = (
        "source changed: orders 2024-03-01 (+1 row), customers (3 of 1,200 rows changed), and the model is another one"
    )
    stale = [Of(partition=each, reasons=[Of(text="missing" if i else long)]) for i, each in enumerate(partition)]
    held = {"held_until": None, "placed_at": AT, "made_by": "ada", "why": "claim 8"}
    hold._show(
        [held | {"hold_id": "20260101T000000000000-1a2b3c4d", "state": "held", "pipelines": ["orders"], "rows_kept": 3}]
    )
    show_plan(Of(pipeline="orders", stale=stale, on_hold=[], current=1234, pending=(), purged=(), expired=0, hashed={}))
    results = [
        Of(
            name="flip_rate",
            state="failed",
            figure=0.0712,
            threshold=0.05,
            text="7.1% of decisions change, more than the 5.0% that are allowed",
        ),
        Of(name="throughput", state="passed", figure=123456.7, threshold=None, text="only reported"),
    ]
    segments = [
        Of(
            segment="shop",
            value="東京",
            rows=1200,
            champion=0.1234567,
            candidate=0.2,
            difference=0.0765433,
            flip_rate=0.5,
        )
    ]
    movers = [Of(partition_key="2024-03-01", key="k" * 60, champion=0.1, candidate=0.98765)]
    gates._show(
        Of(
            pipeline="orders",
            model_name="returns",
            candidate=2,
            alias="champion",
            champion=1,
            results=results,
            segments=segments,
            movers=movers,
            failed=(),
            unjudged=(),
            made_at=AT,
            seconds=1.0,
            partitions=("2024-03-01",),
        )
    )
    missing = [
        Of(
            partition_key="2024-03-01",
            live_version=2,
            reason="v1 has never scored it, and its features were corrected since",
        )
    ]
    rollback._show(
        Of(
            dry_run=False,
            resumed=False,
            alias=None,
            flips=(),
            kept=0,
            missing=missing,
            pipeline="orders",
            rollback_id="r",
        ),
        (),
    )
    refused = "Pipeline orders, partition 2024-03-01: target crm: the server closed the connection"
    targets = {"lake": Of(place="data/delivered/orders"), "crm": Of(place="scores.orders in $CRM_URL")}
    done = [
        Of(target="lake", receipts={"2024-03-01": Of(rows=1234)}, failed={}, left=0, error=None, is_complete=True),
        Of(target="crm", receipts={}, failed={"2024-03-01": refused}, left=3, error=None, is_complete=False),
    ]
    deliver.show_deliveries(Of(spec=Of(name="orders", deliver=targets)), done)
    differs = Of(target="lake", partition_key="2024-03-01", rows=1234, rows_there=1233, equal=False, text="a row less")
    deliver.show_compared("orders", [differs])
    waiting = Of(partition_key="2024-03-01", live_since=AT, error=refused)
    undelivered.Undelivered({"orders": {"lake": [], "crm": [waiting]}}).show()
    windows = [Of(partitions=n, reference="training", excess=0.123456 * n) for n in (1, 7, 28)]
    drifted = [
        Of(
            title=name,
            gain=0.08182,
            state="drifted",
            windows=windows,
            p=2.46e-25,
            changed="above 1010 up to 1011.2: 6.9% to 39.6%",
        )
        for name in ("wx1_pressure", "flightno_delay_28d")
    ]
    found = Of(
        columns=drifted,
        alarms=drifted[:1],
        partition_key="2024-03-01",
        rows=68000,
        text="2 columns drifted.",
        is_judged=True,
    )
    monitor._show_columns("orders", found, Monitoring())
    monitor._show_partitions("orders", [found, found])
    record = Of(held=23, graded=24)
    estimates = [
        Of(
            partition_key="2024-03-01",
            metric=metric,
            value=0.75431,
            low=0.6,
            high=0.9,
            truth=0.67869,
            record=record,
            withdrawn=False,
            text="",
        )
        for metric in ("auc", "logloss")
    ]
    estimates.append(
        Of(
            partition_key="2024-03-02",
            metric="",
            value=None,
            low=None,
            high=None,
            truth=None,
            record=record,
            withdrawn=True,
            text="withdrawn: 12 of 24 such estimates held, fewer than 19 of 20",
        )
    )
    estimate._show("orders", "v2", estimates, [])
    figure = Of(
        partitions=28,
        last="2024-03-28",
        rows=26519,
        labelled=26000,
        value=0.730512,
        low=0.68,
        high=0.78,
        segment="shop",
        segment_value="東京",
        arm="champion",
        version=2,
    )
    live = Of(live=Of(start=AT), model_version=2, arm="champion")
    row = Of(
        segment=None,
        metrics=["auc", "bias"],
        figures=[0.67869, -0.0215],
        counts=[954, 954],
        lows=[0.62, None],
        highs=[0.73, None],
        reweighted=[0.68, None],
        rows=965,
        labelled=954,
    )
    by_shop = Of(**vars(row) | {"segment": "shop", "segment_value": "Zürich"})
    covered = Of(
        partition_key="2024-03-01",
        part=live,
        state="mature",
        labelled=954,
        rows=965,
        coverage=0.98,
        evaluation=Of(evaluation_id="e"),
        unlike_rest=True,
        restated=True,
    )
    of = Of(
        metric="auc",
        partitions=[covered],
        rows={"e": [row, by_shop]},
        counting=lambda arm="champion": [covered],
        window=lambda rows, segment=None: figure,
        segments=lambda rows: ["shop"],
    )
    performance_shown.show_windows("orders", of, [], False)
    performance_shown.show_partitions("orders", of, 1, False)
    performance_shown.show_partition("orders", of, "2024-03-01", False)
    measured = Of(value=0.12345, low=0.1, high=0.15, difference=0.01, difference_low=-0.01, difference_high=0.03)
    counts = {"partitions": 7, "rows": 12345, "units": 2345, "labelled": 12000}
    arms = [Of(arm=arm, versions=(2,), outcome=measured, metric_name="auc", metric=measured, **counts) for arm in "ab"]
    compare._show_arms("orders: arms, figures with 95% intervals", "returned", arms)
    means = {"champion_mean": 0.123456, "challenger_mean": 0.2, "mean_absolute_difference": 0.0765, "rows": 1200}
    versions = {"champion_version": 1, "challenger_version": 2}
    compare._show_challengers("orders", [Of(partition_key="2024-03-01", flips={"act": 12}, **means, **versions)])
    shown = Of(kind="audit entry", id="35", at=AT, text="replay of 2024-03-01: 1 partition identical")
    earn = "No rollback is recorded. `pip-dagster models rollback orders` of one partition is a drill."
    lines = [
        Of(name="debuggable", points=1.0, evidence=(shown,), expires=AT, missing=""),
        Of(name="rollback", points=0.0, evidence=(), expires=None, missing=earn),
    ]
    score = {"score": 0.0, "meaning": "strong", "faults": (), "chain_fault": None}
    sections = {"infrastructure": 1.0}
    scorecard._show(Of(pipeline="orders", model="returns v2", sections=sections, of=lambda section: lines, **score))
    point_in_time._show_leaks([Of(feature="amount", rows=12, examples=[{"order_id": 1, "day": "2024-03-01"}])])
    looked_at = [
        Of(level="ok", what="python", text="3.11.7", remedy=""),
        Of(
            level="warning",
            what="DAGSTER_HOME",
            text="not set: `run` and `ui` keep runs in /srv/shop/.dagster_home",
            remedy="export DAGSTER_HOME=/srv/shop/.dagster_home",
        ),
        Of(level="problem", what="port", text="3000 is in use", remedy="pip-dagster ui --port 3001"),
    ]
    doctor._show(looked_at)
    figures = {"rows": 29327, "days": 31, "models": "v2", "quarantined": 1, "remarkable": 13, "worst": "2013-08-09"}
    demo._show_summary(figures | {"most": 0.514018}, "B6-105-JFK-20130831 (0.6668), B6-1083-JFK-20130831 (0.6312)")


@pytest.mark.slice
def test_every_table_fits_60_80_and_120_columns_as_approved(scored, recorder, monkeypatch, capsys):
    run_commands(scored)
    run_functions()
    assert {*sites()} == {*recorder.tables}, "a table without a snapshot: add its command above"
    capsys.readouterr()
    changed = []
    for site, tables in recorder.tables.items():
        text = ""
        for width in WIDTHS:
            monkeypatch.setattr("pip_dagster.cli.output.terminal_width", lambda stream=None, width=width: width)
            text += f"{'=' * width}\n"
            for printer, *given, options in tables:
                printer(*given, **options)
                text += click.unstyle(capsys.readouterr().out) + "\n"
            assert max(map(length, text.splitlines())) <= width, site
        file = SNAPSHOTS / f"{site}.txt"
        if os.environ.get("APPROVE"):
            file.parent.mkdir(exist_ok=True)
            file.write_text(text)
        elif not file.is_file() or file.read_text() != text:
            changed.append(site)
            print(f"--- {site}, now:\n{text}")
    assert not changed, f"{', '.join(changed)} changed: see above, and approve with APPROVE=1"
