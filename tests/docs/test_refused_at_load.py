"""What the documents say is refused when a pipeline loads is refused then, without a source, a model or a warehouse."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from pip_dagster.declaration.find import find_pipeline
from pip_dagster.declaration.project import Project
from pip_dagster.errors import DeclarationError, PipelineError
from pip_dagster.flow.label_metric import check_metric

DOCS = Path(__file__).parents[2] / "docs"

GOOD = {
    "name": "orders",
    "partitions": {"every": "day", "start": "2024-03-01"},
    "source_database": "sources.duckdb",
    "sources": {"orders": {"table": "raw.orders", "partition_column": "day"}},
    "features": {"sql": "features.sql", "key": ["order_id"], "partition_column": "day"},
    "scoring": {"model_name": "returns"},
    "quality": "expectations.yaml",
}
SQL = """
WITH o AS (SELECT order_id, day, amount FROM raw.orders)
SELECT * FROM o WHERE day >= $start_date AND day < $end_date
"""
EXPECTATION = {"type": "expect_column_values_to_be_between", "kwargs": {"column": "amount", "max_value": 9}}

LISTED = "A key that is not listed here, or a value\nof another type"
QUALITY = "An unknown section, type, kwarg, severity or key is refused with file and line when the pipeline loads"
SOURCE = "`table` | text | required | `schema.table`"
# the document's words → what is declared beside GOOD, or instead → words of the refusal
DECLARED = [
    (LISTED, {"scheduel": "0 6 * * *"}, "attributes.scheduel"),
    (LISTED, {"scoring": {"model_name": "returns", "batch_rows": "many"}}, "attributes.scoring.batch_rows"),
    (LISTED, {"partitions": {"every": "fortnight", "start": "2024-03-01"}}, "attributes.partitions.every"),
    (
        "Refused: hours and minutes where the clocks move by part of one",
        {"partitions": {"every": "hour", "start": "2024-03-01", "time_zone": "Australia/Lord_Howe"}},
        "clocks move by 30 minutes",
    ),
    (
        "a date that the clocks skip",
        {"partitions": {"start": "2011-12-01", "time_zone": "Pacific/Apia"}},
        "skip 2011-12-30",
    ),
    ("An IANA name", {"partitions": {"start": "2024-03-01", "time_zone": "Europe/Berln"}}, "not an IANA time zone"),
    (SOURCE, {"sources": {"orders": {"table": "orders"}}}, "expected `schema.table`"),
    (
        "`min_gain`, `min_segment_gain` and `min_segment_rows` are errors",
        {"gates": {"min_gain": 0.1}},
        "Remove min_gain",
    ),
    (
        "one of the two",
        {
            "scoring": {
                "model_name": "a",
                "split": {"arms": {"b": "10%"}, "salt": "s"},
                "canary": {"arms": {"b": "10%"}, "salt": "s", "gate": {}},
            }
        },
        "not both",
    ),
    (
        "in steps of 0.01%; together at most 100%",
        {"scoring": {"model_name": "a", "split": {"arms": {"b": "60%", "c": "41%"}, "salt": "s"}}},
        "at most 100%",
    ),
    (
        "in steps of 0.01%; together at most 100%",
        {"scoring": {"model_name": "a", "split": {"arms": {"b": "0.001%"}, "salt": "s"}}},
        "steps of 0.01%",
    ),
    ("Durations name their unit", {"reruns": {"back_off": 600}}, "has no unit"),
    ("are at most 36500 days", {"reruns": {"back_off": "40000 days"}}, "at most '36500 days'"),
    ("up to 1000, a partition is tried", {"reruns": {"attempts": 1001}}, "less than or equal to 1000"),
    ("from `5 seconds`", {"sensors": {"source_changes": {"interval": "1 second"}}}, "at least '5 seconds'"),
    ("Five fields, or `@daily` and the like", {"schedule": "0 6 * *"}, "five fields"),
    ("a key that appears twice", None, "again on line"),
    (
        "A path\nthat leads elsewhere",
        {"features": GOOD["features"] | {"sql": "../../features.sql"}},
        "outside the pipeline's folder",
    ),
]
SUITES = [
    (QUALITY, {"feature": [EXPECTATION]}, "unknown key 'feature'"),
    (QUALITY, {"features": [EXPECTATION | {"type": "expect_magic"}]}, "unknown expectation type"),
    (QUALITY, {"features": [EXPECTATION | {"kwargs": {"column": "amount", "most": 1}}]}, "unknown kwarg 'most'"),
    (QUALITY, {"features": [EXPECTATION | {"severity": "fatal"}]}, "unknown severity"),
    (QUALITY, {"features": [EXPECTATION | {"extra": 1}]}, "unknown key 'extra'"),
    (
        "a feature column that the feature SQL does not give",
        {"features": [EXPECTATION | {"kwargs": {"column": "amuont", "max_value": 9}}]},
        "'amuont', which features.sql does not have",
    ),
    (
        "`…_to_be_increasing` and `…_to_be_decreasing` are refused too",
        {"features": [{"type": "expect_column_values_to_be_increasing", "kwargs": {"column": "amount"}}]},
        "cannot be evaluated",
    ),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "pyproject.toml").write_text("[tool.pip_dagster]\n")
    (tmp_path / "features.sql").write_text("SELECT 1")
    folder = tmp_path / "defs" / "orders"
    folder.mkdir(parents=True)
    (folder / "features.sql").write_text(SQL)
    (folder / "expectations.yaml").write_text(yaml.safe_dump({"features": [EXPECTATION]}))
    return folder


def load(folder: Path, attributes: dict[str, object], more: str = "") -> None:
    document = {"type": "pip_dagster.components.InferencePipeline", "attributes": attributes}
    (folder / "defs.yaml").write_text(yaml.safe_dump(document, sort_keys=False) + more)
    find_pipeline(Project.at(folder.parents[1]), "orders")


def test_what_is_right_loads(folder: Path) -> None:
    load(folder, GOOD)


@pytest.mark.parametrize(("sentence", "changes", "says"), DECLARED)
def test_a_declaration_that_is_documented_as_refused_is(folder: Path, sentence: str, changes: dict, says: str) -> None:
    assert sentence in (DOCS / "declaration.md").read_text(encoding="utf-8")
    with pytest.raises(DeclarationError) as caught:
        load(folder, GOOD | (changes or {}), "" if changes else "type: x.InferencePipeline\n")
    assert says in str(caught.value)


@pytest.mark.parametrize(("sentence", "suite", "says"), SUITES)
def test_expectations_that_are_documented_as_refused_are(folder: Path, sentence: str, suite: dict, says: str) -> None:
    assert sentence in (DOCS / "quality.md").read_text(encoding="utf-8").replace("`expectations.yaml`", "")
    (folder / "expectations.yaml").write_text(yaml.safe_dump(suite))
    with pytest.raises(PipelineError) as caught:
        load(folder, GOOD)
    assert says in str(caught.value)


def test_a_metric_that_does_not_fit_the_live_version_is_refused(tiny) -> None:
    """As the component does when Dagster loads it."""
    assert "A metric that does not fit the live version" in (DOCS / "declaration.md").read_text(encoding="utf-8")
    (tiny.folder / "labels.sql").write_text(SQL)
    gates = {"labels": {"sql": "labels.sql", "outcome": "amount"}}
    with pytest.raises(DeclarationError, match="gates.metric is multi_logloss, which is not for returns v"):
        check_metric(tiny.declare(gates=gates | {"metric": "multi_logloss"}).pipeline())
    check_metric(tiny.declare(gates=gates).pipeline())
