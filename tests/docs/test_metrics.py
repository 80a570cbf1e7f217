"""docs/metrics.md, the alert rules and the dashboard name the metrics that there are."""

import json
import re
from pathlib import Path

import yaml

from pip_dagster.monitoring.exposition import METRICS, PREFIX

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "monitoring"
LABELS = {PREFIX + metric.name: set(metric.labels) for metric in METRICS}
# A metric in PromQL, with what it selects.
USED = re.compile(r"\b(pip_dagster_\w+)(?:\{([^}]*)\})?")


def used(expression):
    """The metrics of an expression; checks that their labels exist too."""
    found = set()
    for name, selected in USED.findall(expression):
        found.add(name)
        labels = re.findall(r'(\w+)\s*(?:=~|!~|!=|=)\s*"', selected or "")
        assert {*labels} <= LABELS[name], f"{name} has no label {labels}"
    return found


def test_the_page_lists_every_metric():
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    page = re.sub(r"<!-- keys: .*?<!-- /keys -->", "", page, flags=re.DOTALL)  # what may be declared
    rows = re.findall(r"^\| `(\w+)` \| ([\w, ]*) \| (.+) \|$", page, re.MULTILINE)
    assert rows == [(each.name, ", ".join(each.labels), each.help.rstrip(".")) for each in METRICS]


def test_every_alert_is_of_metrics_that_exist():
    document = yaml.safe_load((EXAMPLES / "alerts.yaml").read_text(encoding="utf-8"))
    (group,) = document["groups"]
    names = [rule["alert"] for rule in group["rules"]]
    assert len(names) == len(set(names)) >= 8
    for rule in group["rules"]:
        assert rule.keys() <= {"alert", "expr", "for", "labels", "annotations"}, rule["alert"]
        assert used(rule["expr"]) or "node_textfile_mtime_seconds" in rule["expr"], rule["alert"]
        assert rule["expr"].count("(") == rule["expr"].count(")") and rule["annotations"]["summary"]
        labels = set.intersection(*(LABELS[name] for name in used(rule["expr"]))) if used(rule["expr"]) else {"file"}
        for text in rule["annotations"].values():
            assert {*re.findall(r"\$labels\.(\w+)", text)} <= labels, rule["alert"]


def test_every_panel_of_the_dashboard_is_of_metrics_that_exist():
    board = json.loads((EXAMPLES / "dashboard.json").read_text(encoding="utf-8"))
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"]) >= 15
    places = [panel["gridPos"] for panel in board["panels"]]
    cells = [(x, y) for p in places for x in range(p["x"], p["x"] + p["w"]) for y in range(p["y"], p["y"] + p["h"])]
    assert len(cells) == len(set(cells)) and max(x for x, _ in cells) < 24, "panels do not overlap"
    for panel in board["panels"]:
        assert panel["description"] and panel["datasource"]["uid"] == "${datasource}"
        for target in panel["targets"]:
            found = used(target["expr"])
            assert found, panel["title"]
            shown = {*re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])}
            assert all(shown <= LABELS[name] for name in found), panel["title"]
    variables = {each["name"]: each for each in board["templating"]["list"]}
    assert used(variables["pipeline"]["query"])
