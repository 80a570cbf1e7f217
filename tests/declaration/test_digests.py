"""Every partition is stored with digests of its declaration: computed another way, all of them would be stale."""

from __future__ import annotations

import pytest

from pip_dagster.declaration.digests import Declared
from pip_dagster.declaration.pipeline import Pipeline
from pip_dagster.declaration.project import Project
from pip_dagster.declaration.scoring import Scoring
from pip_dagster.declaration.source import ORIGINS
from pip_dagster.declaration.spec import PipelineSpec, Source

SQL = "SELECT shop, number, customer, day, amount FROM raw.orders WHERE day >= $start_date AND day < $end_date\n"

DIGESTS = ("scoring_digest", "feature_digest", "sql_digest", "scoring_parts", "feature_parts")

EXPECTATIONS = """
sources:
  orders:
    - type: expect_table_row_count_to_be_between
      kwargs: {min_value: 1}
      severity: warning
  customers: []
  refunds:
    - type: expect_column_values_to_not_be_null
      kwargs: {column: number, mostly: 0.9}
      name: refunds_have_an_order
features:
  - type: expect_column_values_to_be_between
    kwargs: {column: amount, min_value: 0}
    row_condition: {type: comparison, column: {name: shop}, operator: "==", parameter: north}
    description: amounts are positive
  - type: expect_column_values_to_not_be_null
    kwargs: {column: customer}
    severity: info
predictions:
  - type: expect_column_mean_to_be_between
    kwargs: {column: score, min_value: {$PARAMETER: score_mean - 0.1}}
"""

MINIMAL = {
    "name": "orders",
    "partitions": {"start": "2024-01-01"},
    "source_database": "sources.duckdb",
    "sources": {"orders": {"table": "raw.orders"}},
    "features": {"sql": "features.sql", "key": ["number"], "partition_column": "day"},
    "scoring": {"model_name": "orders"},
}

EVERY_KEY = {
    "name": "orders",
    "description": "Which orders come back.",
    "owners": ["team:shop"],
    "min_row_share": 0.4,
    "privacy": {"subject": "number", "retention": {"content": "13 months"}},
    "deliver": {"lake": {"parquet": "data/delivered", "columns": {"prediction": "score"}, "where": "score > 0.5"}},
    "partitions": {
        "every": "week",
        "start": "2024-01-01",
        "end": "2025-01-01",
        "time_zone": "Europe/Berlin",
        "end_offset": 1,
        "max_per_run": 50,
    },
    "source_database": "sources.duckdb",
    "sources": {
        "orders": {
            "table": "raw.orders",
            "partition_column": "day",
            "lookback": "28 days",
            "available_at": "loaded_at",
            "change_column": "updated_at",
            "late_data": {"ignore_after": "14 days"},
            "complete_after": "6 hours",
            "description": "One row per order.",
            "asset_key": "dbt/orders",
        },
        "customers": {"table": "raw.customers", "database": "crm.duckdb", "late_data": "report"},
        "refunds": {"table": "raw.refunds", "parquet": "refunds/*.parquet"},
    },
    "features": {"sql": "features.sql", "key": ["shop", "number"], "partition_column": "day", "cutoff": "day"},
    "scoring": {
        "engine": {"name": "ray", "tasks": 8},
        "model_name": "orders",
        "registry": "folder",
        "alias": "champion",
        "challengers": ["next"],
        "split": {"arms": {"challenger": "10%"}, "salt": "spring", "unit": "customer"},
        "device": "cpu",
        "on_unseen_category": "quarantine",
        "batch_rows": 4096,
        "required_signers": ["key.pem"],
    },
    "decisions": {"late": "score >= 0.5", "call": "late AND amount > 1000"},
    "columns": {"score": "How likely the order is late."},
    "quality": {"expectations": "expectations.yaml", "max_quarantined": 0.1},
    "explanations": {"top": 5, "where": "score >= 0.5", "at_most": 10},
    "monitoring": {"history": 20},
    "gates": {"partitions": 3},
    "labels": {"sql": "features.sql", "outcome": "amount"},
    "reruns": {"promotion": {"last": 7}, "declaration": "none", "attempts": 5, "back_off": "1 hour"},
    "schedule": {"cron": "0 6 * * *", "time_zone": "UTC", "catch_up": 3, "status": "running"},
    "sensors": {"source_changes": {"missing": "none"}},
    "alerts": {"command": ["notify"], "events": ["run_failed"]},
}


def pipeline(folder, attributes) -> Pipeline:
    (folder / "features.sql").write_text(SQL)
    (folder / "expectations.yaml").write_text(EXPECTATIONS)
    return Pipeline.load(PipelineSpec.model_validate(attributes), folder, Project.at(folder))


CANARY = MINIMAL | {
    "scoring": {"model_name": "orders", "canary": {"arms": {"challenger": "2.5%"}, "salt": "spring", "gate": {}}},
    "explanations": {},
}

# Computed by the commit before the lists of digest and parts became one.
STORED = {
    "minimal": {
        "scoring_digest": "fb5d2ee52c22a3deee9d295b0970df99150825b9876fc46d2b7885d0e9a30603",
        "feature_digest": "c79fc8f78bf970ea772ff0492a00837cb2ab85e5ccdc2c104b831935a168f4b1",
        "sql_digest": "187aaad9c20843f38a2be17b1393cfcaedab077d7e99dc86719b0059ae91113d",
        "scoring_parts": (
            '{"decisions":"903eb8f1cc364e01",'
            '"expectations.features":"a307774a664783e8",'
            '"expectations.predictions":"3101c2c195cba12e",'
            '"explanations":"677e55b0584d8cfe",'
            '"features.key":"a4d399e8630c8453",'
            '"features.partition_column":"19631292d7234ceb",'
            '"quality.max_quarantined":"aa7b2714cacbe38c",'
            '"scoring.on_unseen_category":"14300926b43a19f5",'
            '"unit of the split":"daa759be0bc7325d"}'
        ),
        "feature_parts": (
            '{"features.sql":"8f263ad282f54cbf",'
            '"partitions.time_zone":"73d5f976e7a13021",'
            '"sources.orders":"9ad66b12128e6e18"}'
        ),
    },
    "every key": {
        "scoring_digest": "9dffd7a6e261492bbb435647d36278fc02da4763ca9299a4b9f60e44a751f735",
        "feature_digest": "1d32a5f294e9a552c99c108cc49eeca47bbf57ec62d9275ec2c02013cb221a4d",
        "sql_digest": "353bb428525154d60b486adb94fbdab2123bb068f59ee933e1724d8f1f9c5d47",
        "scoring_parts": (
            '{"decisions":"194d0a8618276df9",'
            '"expectations.features":"6b29510de279df29",'
            '"expectations.predictions":"f82db39265f8df0c",'
            '"explanations":"af1a9110fb244c1c",'
            '"features.key":"ed23d51ddccbfada",'
            '"features.partition_column":"19631292d7234ceb",'
            '"quality.max_quarantined":"6ff80fdb6479f66f",'
            '"scoring.on_unseen_category":"b6a3f2a9fe8732da",'
            '"unit of the split":"7668a3c6f5071ee9"}'
        ),
        "feature_parts": (
            '{"expectations.sources.orders":"61d1f3f71263c6d6",'
            '"expectations.sources.refunds":"1cab70a43d1c3364",'
            '"features.sql":"8f263ad282f54cbf",'
            '"partitions.time_zone":"7cb4df69eaccd4ce",'
            '"sources.customers":"54bb3d394c8bbab9",'
            '"sources.orders":"7fcde5aa752cc6e1",'
            '"sources.refunds":"f376862c99778904"}'
        ),
    },
    "canary": {
        "scoring_digest": "7b713bed5811b4054970495f60e8e6e8e8ec056fc08f3714b812021b57520661",
        "feature_digest": "c79fc8f78bf970ea772ff0492a00837cb2ab85e5ccdc2c104b831935a168f4b1",
        "sql_digest": "187aaad9c20843f38a2be17b1393cfcaedab077d7e99dc86719b0059ae91113d",
        "scoring_parts": (
            '{"decisions":"903eb8f1cc364e01",'
            '"expectations.features":"a307774a664783e8",'
            '"expectations.predictions":"3101c2c195cba12e",'
            '"explanations":"a528e65b477c3355",'
            '"features.key":"a4d399e8630c8453",'
            '"features.partition_column":"19631292d7234ceb",'
            '"quality.max_quarantined":"aa7b2714cacbe38c",'
            '"scoring.on_unseen_category":"14300926b43a19f5",'
            '"unit of the split":"daa759be0bc7325d"}'
        ),
        "feature_parts": (
            '{"features.sql":"8f263ad282f54cbf",'
            '"partitions.time_zone":"73d5f976e7a13021",'
            '"sources.orders":"9ad66b12128e6e18"}'
        ),
    },
}


@pytest.mark.parametrize("attributes", [MINIMAL, EVERY_KEY, CANARY], ids=["minimal", "every key", "canary"])
def test_digests_and_parts_are_those_that_warehouses_hold(tmp_path, request, attributes):
    """What was stored compares as current. A source's files and `available_at` were covered, and are no more."""
    loaded, stored = pipeline(tmp_path, attributes), STORED[request.node.callspec.id]
    names = DIGESTS if attributes is not EVERY_KEY else ("scoring_digest", "scoring_parts")
    assert {name: getattr(loaded, name) for name in names} == {name: stored[name] for name in names}
    assert Declared(stored["sql_digest"], stored["feature_parts"]) in loaded.features_declared_otherwise


# A key of a source → whether the rows that an ordinary run, or one as known, reads depend on it.
OF_A_SOURCE = {
    "partition_column": ("other", True, True),
    "lookback": ("3 days", True, True),
    "available_at": ("day", False, True),
    "complete_after": ("1 day", False, True),
    "database": ("moved.duckdb", False, False),
    "late_data": ("report", False, False),
    "description": ("One row per order.", False, False),
    "asset_key": ("a/b", False, False),
}


@pytest.mark.parametrize("key", OF_A_SOURCE)
def test_the_digest_covers_what_a_run_reads(tmp_path, key):
    value, *covered = OF_A_SOURCE[key]
    source = {"table": "raw.orders", "partition_column": "day"}
    before = pipeline(tmp_path, MINIMAL | {"sources": {"orders": source}})
    after = pipeline(tmp_path, MINIMAL | {"sources": {"orders": source | {key: value}}})
    for as_known, changes in zip((False, True), covered, strict=True):
        same = before.features_declared(as_known=as_known) == after.features_declared(as_known=as_known)
        assert same != changes, as_known


def test_a_change_column_vouches_for_one_file(tmp_path):
    source = {"table": "raw.orders", "partition_column": "day", "change_column": "updated_at"}
    before = pipeline(tmp_path, MINIMAL | {"sources": {"orders": source}})
    after = pipeline(tmp_path, MINIMAL | {"sources": {"orders": source | {"database": "moved.duckdb"}}})
    assert before.sql_digest != after.sql_digest


def test_every_key_is_in_the_declaration_with_every_key():
    assert set(EVERY_KEY) == set(PipelineSpec.model_fields)
    assert set(EVERY_KEY["sources"]["orders"]) == set(Source.model_fields) - {*ORIGINS, "remote_table", "columns"}
    assert set(EVERY_KEY["scoring"]) == set(Scoring.model_fields) - {"canary"}
