import json
import subprocess
import sys

from pip_dagster.quality.expectation_types import NOT_ON_FRAMES, TABLE, expectation_types, generate


def test_the_table_is_what_the_installed_great_expectations_has():
    assert json.loads(TABLE.read_text(encoding="utf-8")) == generate(), (
        "run `python -m pip_dagster.quality.expectation_types`"
    )


def test_every_core_type_is_either_there_or_refused_with_a_remedy():
    from great_expectations.expectations.registry import list_registered_expectation_implementations

    known = set(expectation_types()) | set(NOT_ON_FRAMES)
    assert set(list_registered_expectation_implementations()) == known


def test_loading_a_suite_and_judging_it_in_duckdb_import_no_great_expectations(tmp_path):
    (tmp_path / "expectations.yaml").write_text(
        "features:\n"
        "- {type: expect_column_values_to_be_between, kwargs: {column: x, max_value: 1}}\n"
        "- {type: expect_column_mean_to_be_between, kwargs: {column: x, max_value: 1}}\n"
    )
    program = (
        "import sys, duckdb\nfrom pathlib import Path\n"
        "from pip_dagster.quality.suite_file import load_suites\n"
        "from pip_dagster.quality.evaluate import evaluate\n"
        "from pip_dagster.quality.relation import Relation\n"
        "s = load_suites(Path('expectations.yaml')).features\n"
        "assert not {'pandas', 'pyarrow', 'numpy'} & set(sys.modules)\n"
        "con = duckdb.connect()\n"
        "con.execute(\"CREATE TABLE t AS SELECT 'p' part, i rid, i / 2 x FROM range(5) r(i)\")\n"
        "t = Relation.of(con, 't', partition_column='part', row_id='rid')\n"
        "ev = evaluate(t, key=['rid'], expectations=s, partitions=['p'])\n"
        "assert [v.status for v in ev.verdicts] == ['failed', 'passed'], ev\n"
        "assert 'great_expectations' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True)
