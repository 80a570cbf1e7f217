"""What YAML takes silently is refused, in the commands and in Dagster's loading, with file, line and key."""

from __future__ import annotations

import sys

import dagster as dg
import jsonschema
import pytest
from dagster_shared.yaml_utils import parse_yamls_with_source_position

from pip_dagster.declaration.find import find_declarations, find_pipeline
from pip_dagster.declaration.spec import PipelineSpec
from pip_dagster.errors import DeclarationError, PipelineError

PYPROJECT = """
[tool.dg]
directory_type = "project"
[tool.dg.project]
root_module = "acme"
"""

GOOD = """\
type: pip_dagster.components.InferencePipeline
attributes:
  name: orders
  partitions: {every: day, start: 2024-03-01}
  source_database: sources.duckdb
  sources:
    orders: {table: raw.orders, partition_column: day}
  features: {sql: features.sql, key: [order_id], partition_column: day}
  scoring: {model_name: returns}
"""


@pytest.fixture
def declared(tmp_path, monkeypatch, helpers):
    """A project that declares a pipeline, without sources or a model."""
    made = helpers.Tiny(tmp_path)
    made.folder.mkdir(parents=True)
    (made.root / "pyproject.toml").write_text(PYPROJECT)
    (made.root / "acme" / "__init__.py").touch()
    (made.folder / "features.sql").write_text("SELECT * FROM raw.orders WHERE day >= $start_date AND day < $end_date")
    (made.folder / "expectations.yaml").touch()
    monkeypatch.syspath_prepend(str(made.root))
    yield made
    for name in [name for name in sys.modules if name.split(".")[0] == "acme"]:
        del sys.modules[name]


def with_lines(*lines: str) -> str:
    return GOOD + "".join(f"  {line}\n" for line in lines)


def load(declared, text):
    """What the commands read, and what Dagster reads."""
    (declared.folder / "defs.yaml").write_text(text, encoding="utf-8")
    spec = find_pipeline(declared.project, "orders").spec
    in_dagster = dg.load_from_defs_folder(path_within_project=declared.root / "acme").component_tree.get_all_components(
        of_type=type_of_component()
    )
    return spec, in_dagster[0].spec


def type_of_component():
    from pip_dagster.components import InferencePipeline

    return InferencePipeline


def refusals(declared, text):
    (declared.folder / "defs.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(DeclarationError) as of_command:
        find_pipeline(declared.project, "orders")
    with pytest.raises(Exception) as of_dagster:
        dg.load_from_defs_folder(path_within_project=declared.root / "acme")
    error, texts = of_dagster.value, []
    while error:
        texts.append(str(error))
        error = error.__cause__ or error.__context__
    return str(of_command.value), "\n".join(texts)


TWICE = {
    "a pipeline's key": (with_lines("scoring: {model_name: other}"), "'scoring' of `attributes`", (9, 10)),
    "the name": (with_lines("name: returns"), "'name' of `attributes`", (3, 10)),
    "a source": (
        GOOD.replace("raw.orders, partition", "raw.evil, partition").replace(
            "  features:", "    orders: {table: raw.orders}\n  features:"
        ),
        "'orders' of `sources`",
        (7, 8),
    ),
    "a key in one line": (
        GOOD.replace("{model_name: returns}", "{model_name: a, model_name: b}"),
        "'model_name'",
        (9,),
    ),
    "in quotes and without": (GOOD.replace("returns}", 'a, "alias": a, alias: b}'), "'alias'", (9,)),
    "attributes": ("attributes: {}\n" + GOOD, "'attributes' of the file", (1, 3)),
    "in the second document": (GOOD + "---\n" + GOOD.replace("orders\n", "b\n  name: c\n"), "'name'", (13, 14)),
}


@pytest.mark.parametrize("what", TWICE)
def test_a_key_that_is_there_twice_is_refused_with_both_lines(declared, what):
    text, key, lines = TWICE[what]
    for message in refusals(declared, text):
        assert f"{declared.folder / 'defs.yaml'}: key {key}" in message, message
        assert all(f"line {line}" in message for line in lines), message


# lines of the declaration → words of both refusals
MISREAD = {
    "no as text": ("scoring: {model_name: no}", ["model_name", "as false", "in quotes"]),
    "a number as text": ("description: 1_000", ["description", "as a number", "in quotes"]),
    "on in a list": ("owners: [on]", ["owners", "as true", "in quotes"]),
    "a text that is empty": ("decisions: {late: }", ["decisions.late", "as empty", "in quotes"]),
    "a key yes": ("decisions: {yes: score > 1}", ["decisions", "key as true", "in quotes"]),
    "a key null": ("gates: {~: 1}", ["gates", "key as empty", "in quotes"]),
    "a block's key off": ("gates: {off: 1}", ["gates", "key as false", "in quotes"]),
    "octal": ("gates: {partitions: 012}", [":10", "`partitions`", "octal", "in quotes"]),
    "base 60": ("gates: {partitions: 1:30}", [":10", "`partitions`", "base 60", "in quotes"]),
    "a template": ("description: \"{{ env('X') }}\"", [":10", "`description`", "templates are not evaluated"]),
    "a bare template": ("description: {{ env.X }}", ["defs.yaml", "unhashable"]),
    "a tab": ("gates:\n\t{}", ["defs.yaml", "cannot start any token"]),
}


@pytest.mark.parametrize("what", MISREAD)
def test_what_yaml_reads_as_something_else_is_refused(declared, what):
    line, words = MISREAD[what]
    text = GOOD.replace("  scoring: {model_name: returns}\n", f"  {line}\n") if "scoring" in line else with_lines(line)
    of_command, of_dagster = refusals(declared, text)
    assert all(word in of_command for word in words), of_command
    if what not in ("octal", "base 60"):
        words = [word for word in words if not word.startswith(":")]
    if what != "a bare template":  # Dagster fails on it before it knows the component, without a line
        assert all(word in of_dagster for word in words), of_dagster
    assert "Traceback" not in of_command and of_command.count("\n") < 3


TAKEN = {
    "dates as texts": ("decisions: {late: 'true'}\n  description: 2013-01-01", {"description": "2013-01-01"}),
    "a text in quotes": ("description: 'no'", {"description": "no"}),
    "an exponent": ("min_row_share: 1e-1", {"min_row_share": 0.1}),
    "thousands": ("gates: {labels: {sql: features.sql, outcome: gift, rows: 1_000}, metric: auc}", {}),
    "a merge": ("gates: &g {partitions: 3}\n  reruns: {<<: {attempts: 2}, attempts: 5}", {}),
    "braces": ("decisions: {late: \"note = '{{ x }}'\"}", {"decisions": {"late": "note = '{{ x }}'"}}),
    "yes for a switch": ("gates: {strict: yes}", {}),
    "events": ("alerts: {command: [page], events: [drift]}", {}),
    "on": ("alerts: {command: [page], on: [drift]}", {}),
    "on in quotes": ("alerts: {command: [page], 'on': [drift]}", {}),
    "true": ("alerts: {command: [page], true: [drift]}", {}),
}


@pytest.mark.parametrize("what", TAKEN)
def test_the_commands_and_dagster_read_the_same(declared, what):
    line, expected = TAKEN[what]
    of_command, of_dagster = load(declared, with_lines(line))
    assert of_command == of_dagster
    assert {name: getattr(of_command, name) for name in expected} == expected
    assert "alerts" not in line or of_command.alerts.events == ("drift",)
    assert "attempts" not in line or of_command.reruns.attempts == 5


def test_both_names_of_the_events_are_refused(declared):
    for message in refusals(declared, with_lines("alerts: {command: [page], events: [drift], on: [drift]}")):
        assert "`on` is the former name of `events`" in message


def test_an_empty_file_is_refused_by_the_commands(declared):
    of_command, of_dagster = refusals(declared, "# nothing yet\n")
    assert "defs.yaml is empty" in of_command and "No components found" in of_dagster


def test_several_documents_are_several_pipelines_and_share_their_folder(declared):
    (declared.folder / "defs.yaml").write_text(GOOD + "---\n" + GOOD.replace("name: orders", "name: again"))
    assert sorted(find_declarations(declared.project)) == ["again", "orders"]
    assert find_pipeline(declared.project, "again").sql == find_pipeline(declared.project, "orders").sql
    found = dg.load_from_defs_folder(path_within_project=declared.root / "acme")
    names = {key.path[0] for key in found.get_repository_def().asset_graph.get_all_asset_keys()}
    assert names == {"again", "orders"}


def test_two_files_that_declare_one_name_are_refused(declared):
    (declared.folder / "defs.yaml").write_text(GOOD)
    (declared.folder.parent / "copy").mkdir()
    (declared.folder.parent / "copy" / "defs.yaml").write_text(GOOD)
    with pytest.raises(DeclarationError, match=r"copy/defs.yaml and .*orders/defs.yaml both declare .* 'orders'"):
        find_declarations(declared.project)


def test_another_components_file_is_not_judged(declared):
    (declared.folder / "defs.yaml").write_text(GOOD)
    (declared.folder.parent / "other").mkdir()
    (declared.folder.parent / "other" / "defs.yaml").write_text("type: a.B\nattributes: {a: 012, a: {{ env.X }}}\n")
    assert sorted(find_declarations(declared.project)) == ["orders"]


@pytest.mark.parametrize("key", ["features", "labels", "expectations"])
@pytest.mark.parametrize("way", ["absolute", "above", "link", "linked folder"])
def test_a_file_outside_the_pipelines_folder_is_refused_and_not_read(declared, key, way):
    outside = declared.root / "elsewhere"
    outside.mkdir()
    (outside / "file.sql").write_text("secret words")
    (declared.folder / "link.sql").symlink_to(outside / "file.sql")
    (declared.folder / "folder").symlink_to(outside)
    name = {
        "absolute": str(outside / "file.sql"),
        "above": "../../../elsewhere/file.sql",
        "link": "link.sql",
        "linked folder": "folder/file.sql",
    }[way]
    changed = {
        "features": GOOD.replace("sql: features.sql", f"sql: {name}"),
        "labels": with_lines(f"gates: {{labels: {{sql: {name}, outcome: gift}}}}"),
        "expectations": with_lines(f"quality: {name}"),
    }
    for message in refusals(declared, changed[key]):
        assert f"names {name!r}, which is outside the pipeline's folder" in message, message
        assert "secret" not in message


def test_a_file_in_a_folder_below_and_a_link_within_the_folder_are_read(declared):
    """Kubernetes mounts files as links within the folder."""
    (declared.folder / "..data").mkdir()
    (declared.folder / "features.sql").rename(declared.folder / "..data" / "features.sql")
    (declared.folder / "features.sql").symlink_to("..data/features.sql")
    load(declared, GOOD)
    load(declared, GOOD.replace("sql: features.sql", "sql: ..data/features.sql"))


@pytest.mark.parametrize("name", ["'a\\0b.sql'", "circle.sql", "x" * 300, ".", "''"])
def test_a_name_that_is_no_file_is_one_sentence(declared, name):
    (declared.folder / "circle.sql").symlink_to("circle.sql")
    name = '"a\\0b.sql"' if "0b" in name else name
    (declared.folder / "defs.yaml").write_text(GOOD.replace("sql: features.sql", f"sql: {name}"))
    with pytest.raises(DeclarationError, match="features.sql names .* which is (no file|not beside)"):
        find_pipeline(declared.project, "orders")


def test_a_file_that_is_nested_too_deeply_is_one_sentence(declared):
    (declared.folder / "defs.yaml").write_text(with_lines("owners: " + "[" * 5000 + "]" * 5000))
    with pytest.raises(DeclarationError, match="nested too deeply"):
        find_pipeline(declared.project, "orders")


@pytest.mark.parametrize("value", ["1" * 5000, "a\x07b"])
def test_a_value_that_yaml_cannot_read_is_one_sentence(declared, value):
    (declared.folder / "defs.yaml").write_text(with_lines(f"description: {value}"))
    with pytest.raises(DeclarationError, match="defs.yaml is not valid YAML"):
        find_pipeline(declared.project, "orders")
    (declared.folder / "defs.yaml").write_text(with_lines("quality: expectations.yaml"))
    (declared.folder / "expectations.yaml").write_text(
        f"features: [{{type: expect_column_values_to_not_be_null, kwargs: {{column: {value}}}}}]"
    )
    with pytest.raises(PipelineError, match="expectations.yaml: not valid YAML"):
        find_pipeline(declared.project, "orders")


@pytest.mark.parametrize("file", ["defs.yaml", "features.sql"])
def test_a_file_that_is_not_utf_8_is_named(declared, file):
    (declared.folder / "defs.yaml").write_text(GOOD)
    (declared.folder / file).write_bytes(b"-- Z\xfcrich\n")
    with pytest.raises(DeclarationError, match=f"{file} is not in UTF-8: line 1 has the byte 0xfc"):
        find_pipeline(declared.project, "orders")


# Every form that is short for another, or that a union takes.
SHORT = [
    "schedule: '0 6 * * *'",
    "schedule: {cron: '@daily'}",
    "quality: expectations.yaml",
    "quality: {expectations: expectations.yaml, max_quarantined: 0}",
    "scoring: {model_name: a, split: {arms: {b: 10%}, salt: s, unit: customer}}",
    "scoring: {model_name: a, split: {arms: {b: 2.5%}, salt: s, unit: [customer, shop]}}",
    "scoring: {model_name: a, canary: {arms: {b: 10%}, salt: s, gate: {}}}",
    "scoring: {model_name: 'models:/a@champion'}",
    "gates: {unit: customer}",
    "gates: {labels: {sql: labels.sql, outcome: late, mature_after: 15 days}}",
    "labels: {sql: labels.sql, outcome: late, arrives_after: 1 day, complete_after: 3 days, unit: customer}",
    "labels: {sql: labels.sql, outcome: late, mature_after: 3 days, unit: [customer]}",
    "gates:",
    "explanations: {}",
    "reruns: {promotion: none, declaration: {since: 2024-01-01}, back_off: 0}",
    "reruns: {promotion: {last: 7}}",
    "sensors: {source_changes: {missing: all, interval: 5 minutes}, labels_arrived: {assets: [a/b]}}",
    "alerts: {webhook: {env: URL}, on: [drift]}",
    "alerts: {webhook: {env: URL}, 'on': [drift]}",
    "alerts: {command: [page], events: [drift]}",
    "partitions: {start: 2024-01-01T06:00:00, every: hour, end: 2025-01-01}",
    "sources: {o: {table: raw.o, parquet: a/*.parquet, lookback: 0, late_data: report, complete_after: 6 hours}}",
    "sources: {o: {table: raw.o, parquet: a/*.parquet, late_data: {ignore_after: 14 days}}}",
]


@pytest.mark.parametrize("line", SHORT)
def test_the_schema_accepts_what_loading_accepts(line):
    key = line.partition(":")[0]
    text = "\n".join(each for each in GOOD.splitlines() if not each.strip().startswith(f"{key}:"))
    text = text.replace("    orders: {table: raw.orders, partition_column: day}\n", "") if key == "sources" else text
    [document] = parse_yamls_with_source_position(f"{text}\n  {line}\n")
    PipelineSpec.model_validate(document.value["attributes"])
    jsonschema.validate(document.value["attributes"], PipelineSpec.model_json_schema())


@pytest.mark.parametrize("line", ["schedule: [1]", "alerts: {webhook: {env: U}, onn: drift}", "gates: {unit: 3}"])
def test_the_schema_refuses_what_loading_refuses(line):
    [document] = parse_yamls_with_source_position(with_lines(line))
    with pytest.raises(ValueError):
        PipelineSpec.model_validate(document.value["attributes"])
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document.value["attributes"], PipelineSpec.model_json_schema())


@pytest.mark.parametrize("line", ["min_row_share: true", "min_row_share: yes"])
def test_a_boolean_is_no_number(declared, line):
    (declared.folder / "defs.yaml").write_text(with_lines(line))
    with pytest.raises(DeclarationError, match="is true; expected a number"):
        find_pipeline(declared.project, "orders")
